"""Where the error of a potential comes from: small nets trained on frames of a teacher whose truth is at hand.

usage: python scripts/decompose_errors.py [--teacher emt|lj] [--frames 5 20 80] [--widths 8 32] [--ridge loo]

The teacher is ASE's effective-medium potential of copper or its Lennard-Jones argon; frames are crystals at random
displacements and strains. For each number of frames and width of the fitting net a potential is trained, and its
error over other frames is taken apart (evaluate/decomposition.py). A few minutes on one core.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from rich.console import Console

from deepmd_lite import read_model, write_system
from deepmd_lite.config import parse_config
from deepmd_lite.evaluate.decomposition import decompose, decomposition_table, teacher_frames
from deepmd_lite.evaluate.refit import number_or_loo
from deepmd_lite.train.trainer import Trainer

TEACHERS = {  # crystal, calculator, displacement (Å), cutoff of the student (Å)
    "emt": (bulk("Cu", cubic=True).repeat(2), EMT(), 0.08, 5.0),
    "lj": (
        bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2),
        LennardJones(sigma=3.4, epsilon=0.0104, ro=5.0, rc=6.0, smooth=True),
        0.12,
        6.0,
    ),
}
STRAIN = 0.02
W_ENERGY, W_FORCE = 0.1, 1.0  # of the loss, from the first step to the last
console = Console()


def settings(frames, element, width, rcut, steps):
    """An input for a small net."""
    return {
        "model": {
            "type_map": [element],
            "descriptor": {
                "sel": "auto:1.2",
                "rcut": rcut,
                "rcut_smth": 1.0,
                "neuron": [8, 16],
                "axis_neuron": 4,
                "seed": 1,
            },
            "fitting_net": {"neuron": [width, width], "seed": 1},
        },
        "learning_rate": {"type": "cosine", "start_lr": 5e-3, "stop_lr": 1e-6},
        "loss": {
            "start_pref_e": W_ENERGY,
            "limit_pref_e": W_ENERGY,
            "start_pref_f": W_FORCE,
            "limit_pref_f": W_FORCE,
        },
        "training": {
            "training_data": {"systems": frames, "batch_size": 4},
            "numb_steps": steps,
            "seed": 1,
            "disp_freq": steps,
            "save_freq": steps,
        },
    }


def main():
    """Train and take apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", choices=TEACHERS, default="emt")
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[5, 20, 80], help="numbers of frames to train on"
    )
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[8, 32], help="of the layers of the fitting net"
    )
    parser.add_argument("--steps", type=int, default=3000, help="of training")
    parser.add_argument("--population", type=int, default=300, help="frames that stand for all")
    parser.add_argument(
        "--ridge", type=number_or_loo, default="loo", help="of the refit: loo, or a number >= 0"
    )
    options = parser.parse_args()
    atoms, calculator, displacement, rcut = TEACHERS[options.teacher]
    rng = np.random.default_rng(0)
    draw = {"displacement": displacement, "strain": STRAIN, "rng": rng}
    with console.status("labelling frames"):
        population = [teacher_frames(atoms, calculator, options.population, **draw)]
        pool = teacher_frames(atoms, calculator, max(options.frames), **draw)
    rows, loss = [], {"w_energy": W_ENERGY, "w_force": W_FORCE, "ridge": options.ridge}
    for width in options.widths:
        for n in options.frames:
            begin = time.perf_counter()
            training = pool.select(slice(n))
            with TemporaryDirectory() as folder, console.status(f"{n} frames, width {width}"):
                write_system(f"{folder}/frames.h5#/teacher", training)
                made = settings(f"{folder}/frames.h5", atoms[0].symbol, width, rcut, options.steps)
                model = read_model(Trainer(parse_config(made), Path(folder)).run())
                rows.append(decompose(f"{n} frames, width {width}", model, [training], population, **loss))
            console.print(f"{rows[-1].name}: {time.perf_counter() - begin:.0f} s", highlight=False)
    for key in ("force", "energy"):
        console.print(decomposition_table(rows, key))


if __name__ == "__main__":
    main()
