"""A sensible input.json from the data: what ``dplite init`` writes."""

import json
import math
import os
import re
from pathlib import Path

from deepmd_lite.errors import ConfigError
from deepmd_lite.frames.store import open_systems
from deepmd_lite.train.budget import steps_within
from deepmd_lite.train.dataset import Frames
from deepmd_lite.train.start import choose_sel
from deepmd_lite.train.statistics import energy_spread, survey
from deepmd_lite.train.trainer import make_folder

RCUTS = 6.0, 7.0, 8.0  # Å
ENOUGH = 64  # neighbors
RCUT_SMTH = 0.5  # Å
SPREAD = 0.5  # eV: more than thermal motion about one structure, up to 4,700 K
PREFACTORS = {  # of the loss, at the start and at the end
    "one structure": {"e": (0.02, 1), "f": (1000, 1), "v": (0.02, 1)},
    "several": {"e": (0.2, 20), "f": (100, 60), "v": (0.02, 1)},  # energies tell which is stable
}
SIZES = {  # embedding net, axis_neuron, fitting net
    "small": ([8, 16, 32], 8, [64, 64, 64]),
    "large": ([25, 50, 100], 16, [240, 240, 240]),  # the size of the DeePMD papers
}


def choose_rcut(systems, ntypes, rcuts=RCUTS):
    """A cutoff in Å for frames, and the `Survey` of the frames with it.

    It is the first of ``rcuts`` within which some atom has ENOUGH neighbors, or else the first that misses none of
    the last one's. Neighbors count less and less long before the cutoff, so open structures need a longer one than
    dense ones: in public training sets an atom has at most 56 neighbors within 6 Å in silicon, 81 in copper and 110
    in water.
    """
    found = []
    for rcut in rcuts:
        found.append(survey(Frames(systems, rcut, ntypes), RCUT_SMTH))
        if found[-1].neighbors.sum() >= ENOUGH:
            return rcut, found[-1]
    most = [f.neighbors.sum() for f in found]
    first = most.index(most[-1])
    return rcuts[first], found[first]


def loss_prefactors(systems, found):
    """The loss's prefactors by their keys: PREFACTORS by `energy_spread`, of the virial where frames have it."""
    kind = "several" if energy_spread(found) > SPREAD else "one structure"
    has_virial = any("virial" in s.found for s in systems)
    made = {}
    for label, ends in PREFACTORS[kind].items():
        for end, value in zip(("start", "limit"), ends):
            made[f"{end}_pref_{label}"] = value if label != "v" or has_virial else 0
    return made


def make_input(data, validation=None, *, rcut=None, size="large", steps=None, minutes=None, type_map=None):
    """An input for training on ``data``: a dict in the schema of `config`.

    Parameters
    ----------
    data, validation : list of str
        Frames, as `open_systems` takes them.
    rcut : float, Å, optional
        By default what `choose_rcut` finds.
    size : {"small", "large"}
        Of the nets: small trains about ten times faster, large is the more accurate.
    steps : int, optional
        By default 100 for each frame, between 10,000 and 1,000,000 steps.
    minutes : float, optional
        In place of ``steps``: as many as this machine does in that time, see `budget.steps_within`.
    type_map : list of str, optional
        By default the elements in the order in which the data name them.

    Notes
    -----
    ``sel`` is the largest number of neighbors found, plus 10 %. The batch holds at least 256 atoms. The virial enters
    the loss when the data have it. docs/training.md has the runs that led to all this.
    """
    if size not in SIZES:
        raise ConfigError(f"--size: expected one of {', '.join(SIZES)}, found {size}")
    if steps is not None and steps < 1:
        raise ConfigError(f"--steps: expected 1 or more, found {steps}")
    if steps is not None and minutes is not None:
        raise ConfigError("give either --steps or --minutes, not both")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ConfigError(f"--minutes: expected more than 0, found {minutes:g}")
    if rcut is not None and rcut <= RCUT_SMTH:
        raise ConfigError(f"--rcut: expected more than {RCUT_SMTH} Å, found {rcut}")
    systems = open_systems(data, tuple(type_map) if type_map else None)
    names = tuple(type_map or dict.fromkeys(e for s in systems for e in s.head.type_map))
    systems = [s.remapped(names) for s in systems]
    rcut, found = choose_rcut(systems, len(names), (rcut,) if rcut else RCUTS)
    neuron, axis_neuron, fitting = SIZES[size]
    steps = steps or min(1_000_000, max(10_000, 100 * sum(s.nframes for s in systems)))
    made = {
        "model": {
            "type_map": list(names),
            "descriptor": {
                "type": "se_e2_a",
                "sel": list(choose_sel("auto", found)),
                "rcut": rcut,
                "rcut_smth": RCUT_SMTH,
                "neuron": neuron,
                "axis_neuron": axis_neuron,
                "type_one_side": True,
                "precision": "float32",
                "seed": 1,
            },
            "fitting_net": {"neuron": fitting, "resnet_dt": True, "precision": "float32", "seed": 1},
        },
        "learning_rate": {"type": "cosine", "start_lr": 0.01, "stop_lr": 1e-6},
        "optimizer": {"type": "SOAP"},
        "loss": {"type": "ener", **loss_prefactors(systems, found)},
        "training": {
            "training_data": {"systems": data, "batch_size": "auto:256"},
            **({"validation_data": {"systems": validation, "numb_btch": 3}} if validation else {}),
            "numb_steps": steps,
            "enable_ema": True,
            "seed": 1,
            "disp_freq": max(1, steps // 200),
            "save_freq": max(1, steps // 20),
        },
    }
    if minutes is not None:
        made["training"] |= steps_within(60 * minutes, made)
    return made


def write_input(path, *, data, validation=None, overwrite=False, **settings):
    """Write the result of `make_input` as JSON and return it.

    Paths of frames are written relative to the folder of the input file, where training looks for them.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; choose another name or pass --force")
    made = make_input(data, validation, **settings)
    for section in ("training_data", "validation_data"):
        if section in made["training"]:
            entry = made["training"][section]
            entry["systems"] = [os.path.relpath(s, path.parent) for s in entry["systems"]]
    make_folder(path.parent)
    text = json.dumps(made, indent=2)
    text = re.sub(
        r"\[\s+([^][{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text
    )  # short lists on one line
    path.write_text(text + "\n")
    return made
