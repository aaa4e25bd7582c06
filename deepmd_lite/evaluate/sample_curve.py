"""How many frames a potential needs: errors against the number of training frames, ``dplite learning-curve``.

Each repeat shuffles the training frames and takes the first n of them, so that its smaller sets are within its larger
ones; it has initial weights of its own. All points train for the same number of steps, with the settings of one
input.json, and are tested on the same frames. Their errors are fitted by

    e(n) = floor + C n^(-p)

(theory/curves.py). The floor is what more frames do not cure: of the nets, of the cutoff, of the number of steps.

Files: ``points/*/result.json`` and ``model.dp`` of each training, ``curve.txt``, ``curve.json`` and ``curve.png``.
"""

import hashlib
import json
import os
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from deepmd_lite.backends import load_potential
from deepmd_lite.config import load_config, parse_config
from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate.frame_errors import UNITS, frame_errors, picked
from deepmd_lite.evaluate.sample_curve_report import SampleCurve
from deepmd_lite.frames.store import open_systems, read_systems, write_system
from deepmd_lite.frames.system import System
from deepmd_lite.train.dataset import Frames
from deepmd_lite.train.start import check_start, choose_sel
from deepmd_lite.train.statistics import survey
from deepmd_lite.train.trainer import Trainer, make_folder

HELD_BACK = 0.2  # of the frames, to test on, where the input has no validation_data
ROWS, SAVES = 20, 4  # of lcurve.out, and checkpoints, in each training
PER_SYSTEM = ("weights", "sys_probs")  # keys that say something about each system, which may lack in a subset


@dataclass(frozen=True)
class Point:
    """A training: what on, how long, and the errors of its model.

    Attributes
    ----------
    frames : int
    neuron : tuple of int
        Hidden widths of the fitting net.
    repeat : int
    steps : int
    seconds : float
        Since it was last started.
    energy, force : float or None
        RMSE on the test frames, eV/atom and eV/Å; None without labels.
    training_energy, training_force : float or None
        The same on the frames trained on.
    """

    frames: int
    neuron: tuple[int, ...]
    repeat: int
    steps: int
    seconds: float
    energy: float | None
    force: float | None
    training_energy: float | None
    training_force: float | None

    def line(self):
        """The errors in words."""
        errors = [
            f"{name} {1e3 * e:.3g} {u}"
            for name, e, u in zip("EF", (self.energy, self.force), UNITS.values())
            if e is not None
        ]
        shape = "-".join(map(str, self.neuron))
        what = f"{self.frames} frames, fitting net {shape}, repeat {self.repeat}"
        return f"{what}: {', '.join(errors)}, {self.seconds:.0f} s"


@dataclass(frozen=True)
class Plan:
    """What all points have in common.

    Attributes
    ----------
    settings : dict
        An input in the schema of `config`, but for its frames.
    pool, test : list of System
        Frames to draw from, and to test on.
    folder : Path
    """

    settings: dict
    pool: list[System]
    test: list[System]
    folder: Path

    @property
    def neuron(self):
        return tuple(self.settings["model"]["fitting_net"]["neuron"])

    @property
    def steps(self):
        return self.settings["training"]["numb_steps"]

    def subset(self, n, repeat):
        """list of System: The first n frames in the order of a repeat."""
        counts = [s.nframes for s in self.pool]
        order = np.random.default_rng([self.settings["training"].get("seed") or 0, repeat]).permutation(
            sum(counts)
        )
        return picked(self.pool, order[:n])


def sample_curve(path, folder, *, frames, widths=(), repeats=3, steps=None, test=None, progress=None):
    """Train on subsets of the training frames and test each model; goes on where it was stopped.

    Parameters
    ----------
    path : str or Path
        An input.json.
    folder : str or Path
        For all files; points that are there are not trained again.
    frames : sequence of int
        Sizes of the subsets.
    widths : sequence of int
        Of the hidden layers of fitting nets to train on the largest subset beside the input's.
    repeats : int
    steps : int, optional
        In place of the input's.
    test : list of str, optional
        Frames to test on; by default validation_data of the input, or a fifth of its frames, held back.
    progress : callable, optional
        Called as ``progress(done, total, point)``: steps, and the `Point` that has just become ready, or None.

    Returns
    -------
    SampleCurve

    Raises
    ------
    ConfigError
        Sizes that cannot be, or a folder with points of other settings.
    DataError, TrainingError
        As training.
    Stopped
        A signal; call again to go on.
    """
    sizes, widths = sorted(set(frames)), sorted(set(widths))
    if not sizes or min([*sizes, *widths, repeats]) < 1:
        raise ConfigError(
            f"learning-curve: expected positive numbers of frames, widths and repeats, found {sizes}, {widths}, "
            f"{repeats}"
        )
    plan = make_plan(path, folder, steps, test)
    available = sum(s.nframes for s in plan.pool)
    if sizes[-1] > available:
        raise ConfigError(
            f"learning-curve: expected at most {available} frames to train on, found {sizes[-1]}"
        )
    shapes = [(n, plan.neuron) for n in sizes]
    shapes += [(sizes[-1], (w,) * len(plan.neuron)) for w in widths if (w,) * len(plan.neuron) != plan.neuron]
    todo = [(n, neuron, r) for r in range(repeats) for n, neuron in shapes]
    points, total = [], plan.steps * len(todo)
    for k, (n, neuron, repeat) in enumerate(todo):
        tell = progress and (lambda step, k=k: progress(k * plan.steps + step, total, None))
        points.append(_point(plan, n, neuron, repeat, tell))
        if progress:
            progress((k + 1) * plan.steps, total, points[-1])
    return SampleCurve(points, plan.neuron, sum(s.nframes for s in plan.test))


def numbers(text, option):
    """The whole numbers of an option such as ``20,40,80``; none where it is not given."""
    try:
        return [int(word) for word in (text or "").split(",") if text]
    except ValueError:
        raise ConfigError(f"{option} {text}: expected whole numbers like 20,40,80") from None


def make_plan(path, folder, steps=None, test=None):
    """The `Plan` of an input.json; its settings are noted in the folder, and must be those noted there before."""
    config = load_config(path)
    check_start(config, None, None, None)
    data, held_back = config.training.training_data, config.training.validation_data
    for key in PER_SYSTEM:
        if getattr(data, key):
            _refuse_per_system(key)
    if isinstance(data.batch_size, list) or ";" in data.auto_prob:
        _refuse_per_system("batch_size" if isinstance(data.batch_size, list) else "auto_prob")
    descriptor, fitting = config.model.descriptor, config.model.fitting_net
    systems = open_systems(data.systems, config.model.type_map)
    names = tuple(config.model.type_map or dict.fromkeys(e for s in systems for e in s.head.type_map))
    pool = read_systems(data.systems, names)
    if test or held_back:
        tested = read_systems(test or held_back.systems, names)
    else:
        pool, tested = _hold_back(pool)
    stored = Frames(
        [s.remapped(names) for s in systems],
        descriptor.rcut,
        len(names),
        fitting.numb_fparam,
        fitting.numb_aparam,
    )
    found = survey(stored, descriptor.rcut_smth, descriptor.env_protection)
    settings = config.model_dump(exclude_unset=True)
    model = settings.setdefault("model", {})
    model["type_map"] = list(names)
    model.setdefault("descriptor", {})["sel"] = list(choose_sel(descriptor.sel, found))
    model.setdefault("fitting_net", {})["neuron"] = list(fitting.neuron)
    steps = config.training.numb_steps if steps is None else steps
    settings["training"] |= {
        "numb_steps": steps,
        "disp_freq": max(1, steps // ROWS),
        "save_freq": max(1, steps // SAVES),
        "tensorboard": False,
    }
    settings["training"].pop("validation_data", None)
    settings["training"]["training_data"].pop("systems")
    plan = Plan(settings, pool, tested, Path(folder))
    _note_settings(plan)
    return plan


def _refuse_per_system(key):
    raise ConfigError(
        f"training_data.{key}: a learning curve draws frames from all systems together; leave it out"
    )


def _hold_back(systems):
    """Frames to train on, and HELD_BACK of them to test on."""
    total = sum(s.nframes for s in systems)
    order = np.random.default_rng(0).permutation(total)
    held = max(1, round(HELD_BACK * total))
    return picked(systems, order[held:]), picked(systems, order[:held])


def _note_settings(plan):
    noted = {"settings": plan.settings, "frames": _digest(plan.pool), "test": _digest(plan.test)}
    path = plan.folder / "settings.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(noted)):
        raise ConfigError(
            f"{plan.folder}: expected the settings and frames that its points were trained with (settings.json), "
            "found others; choose another folder"
        )
    make_folder(plan.folder)
    path.write_text(json.dumps(noted, indent=2), encoding="utf-8")


def _digest(systems):
    """str: What tells these frames from others."""
    digest = hashlib.sha256()
    for s in systems:
        digest.update(s.coord.tobytes())
    return digest.hexdigest()


class _Watch:
    """A `Trainer`'s progress that passes on the step."""

    def __init__(self, tell):
        self.advance = tell

    def report(self, step, lr, training, validation):
        """Rows of the learning curve are in lcurve.out."""


def _point(plan, n, neuron, repeat, tell):
    """The `Point`, from the folder or by training."""
    home = plan.folder / "points" / f"{n}_{'-'.join(map(str, neuron))}_{repeat}"
    result = home / "result.json"
    if result.exists():
        found = json.loads(result.read_text(encoding="utf-8"))
        return Point(**{**found, "neuron": tuple(found["neuron"])})
    begin, subset = time.perf_counter(), plan.subset(n, repeat)
    make_folder(home)
    frames, checkpoint = home / "frames.h5", home / "model.ckpt.dp"
    frames.unlink(missing_ok=True)
    for k, system in enumerate(subset):
        write_system(f"{frames}#/{k:04d}", system)
    restart = checkpoint if checkpoint.exists() else None
    trainer = Trainer(
        _input(plan, frames, neuron, repeat), home, restart=restart, progress=tell and _Watch(tell)
    )
    potential = load_potential(trainer.run())
    errors = [frame_errors(potential, part) for part in (plan.test, subset)]
    (energy, force), trained = ((e.rmse("energy"), e.rmse("force")) for e in errors)
    point = Point(n, neuron, repeat, plan.steps, time.perf_counter() - begin, energy, force, *trained)
    part = result.with_suffix(".part")
    part.write_text(json.dumps(asdict(point)), encoding="utf-8")
    os.replace(part, result)
    for path in (frames, checkpoint):
        path.unlink()
    return point


def _input(plan, frames, neuron, repeat):
    """config.Config of a point: its frames, its net, seeds of its own."""
    made = deepcopy(plan.settings)
    model, training = made["model"], made["training"]
    model["fitting_net"]["neuron"] = list(neuron)
    for section in (model["descriptor"], model["fitting_net"], training):
        section["seed"] = (section.get("seed") or 0) + repeat
    training["training_data"]["systems"] = [str(frames)]
    return parse_config(made)
