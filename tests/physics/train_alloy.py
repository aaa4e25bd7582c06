"""Made alloy.dp: a small model of B2 NiAl, trained on frames of ASE's effective-medium potential.

    python tests/physics/train_alloy.py FOLDER        2 minutes; ends with FOLDER/model.dp

The physics tests need trained weights, of a crystal that stays one in molecular dynamics; how good the
model is does not matter to them.
"""

import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

from deepmd_lite.config import parse_config
from deepmd_lite.frames.store import System, write_system
from deepmd_lite.train.trainer import Trainer


def sample(nframes, seed):
    """Frames of 16 atoms at 300–1,500 K and strains of 2 %, with energy, force and virial."""
    rng = np.random.default_rng(seed)
    frames = {"coord": [], "box": [], "energy": [], "force": [], "virial": []}
    for _ in range(nframes):
        atoms = bulk("NiAl", "cesiumchloride", a=2.88).repeat(2)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.calc = EMT()
        temperature = rng.uniform(300, 1500)
        Langevin(atoms, 4 * units.fs, temperature_K=temperature, friction=0.02, rng=rng).run(60)
        frames["coord"].append(atoms.positions.copy())
        frames["box"].append(atoms.cell[:].copy())
        frames["energy"].append(atoms.get_potential_energy())
        frames["force"].append(atoms.get_forces())
        frames["virial"].append(-atoms.get_volume() * atoms.get_stress(voigt=False))
    frames = {key: np.array(value) for key, value in frames.items()}
    labels = {key: frames[key] for key in ("energy", "force", "virial")}
    return System(
        name="NiAl",
        type_map=("Ni", "Al"),
        atype=np.array([0, 1] * 8, np.int32),
        coord=frames["coord"],
        box=frames["box"],
        pbc=np.ones(3, bool),
        labels=labels,
        found={key: np.ones(nframes, bool) for key in labels},
        source_dtype={key: "float64" for key in frames},
    )


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_system(f"{folder}/alloy.h5#/train", sample(120, seed=1))
    config = {
        "model": {
            "type_map": ["Ni", "Al"],
            "descriptor": {
                "type": "se_e2_a",
                "rcut": 4.5,
                "rcut_smth": 1.5,
                "sel": [24, 24],
                "neuron": [6, 12],
                "axis_neuron": 4,
                "type_one_side": False,
                "seed": 1,
            },
            "fitting_net": {"neuron": [16, 16], "seed": 1},
        },
        "learning_rate": {"type": "exp", "start_lr": 5e-3, "stop_lr": 1e-6, "decay_steps": 100},
        "loss": {
            "start_pref_e": 0.02,
            "limit_pref_e": 1,
            "start_pref_f": 1000,
            "limit_pref_f": 1,
            "start_pref_v": 0.02,
            "limit_pref_v": 1,
        },
        "training": {
            "training_data": {"systems": f"{folder}/alloy.h5#/train", "batch_size": 4},
            "numb_steps": 4000,
            "seed": 1,
            "disp_freq": 200,
        },
    }
    Trainer(parse_config(config), folder).run()


if __name__ == "__main__":
    main(sys.argv[1])
