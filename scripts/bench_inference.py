"""Microseconds per atom of the engine: sizes, threads, precisions, phases; the reference code in the same sitting.

usage: python scripts/bench_inference.py [--frames FRAMES] [--sizes 192,1536,5184,41472] [--peer VENV]

The model has the shape of DeePMD-kit's water example (rcut 6 Å, sel 46/92, nets 25-50-100 and 240-240-240) with
statistics from FRAMES (shipped water when left out) and random weights, on which no time depends; its structure
is the first frame, repeated. A step is energy, forces and stress through the ASE calculator after a displacement
of 0.001 Å, as in a simulation; the median of some is quoted. VENV is an environment with DeePMD-kit: its TensorFlow
backend makes a model of the same shape, compresses it, and takes the same steps in turn with ours.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
from ase import Atoms

from deepmd_lite import DP, read_model, read_systems
from deepmd_lite.engine import kernels
from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.engine.network import energy_and_gradient, workspace
from deepmd_lite.neighbors import NeighborList
from deepmd_lite.workers import one_thread_of_blas

WATER = Path(__file__).parents[1] / "data" / "water_pbe.h5#/300K"
THEIRS = """
import sys, time
import numpy as np
from ase.io import read
from deepmd.calculator import DP
atoms = read(sys.argv[2]); atoms.calc = DP(model=sys.argv[1]); atoms.get_potential_energy()
seconds = []
for k in range(int(sys.argv[3])):
    atoms.rattle(0.001, seed=k); begin = time.perf_counter()
    atoms.get_potential_energy(); atoms.get_forces(); atoms.get_stress()
    seconds.append(time.perf_counter() - begin)
print(np.median(seconds))
"""


def settings(frames):
    """An input.json for both codes."""
    return {
        "model": {
            "type_map": ["O", "H"],
            "descriptor": {
                "type": "se_e2_a",
                "sel": [46, 92],
                "rcut": 6.0,
                "rcut_smth": 0.5,
                "neuron": [25, 50, 100],
                "axis_neuron": 16,
                "type_one_side": True,
                "seed": 1,
            },
            "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1},
        },
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-4, "decay_steps": 5},
        "loss": {"start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1},
        "training": {
            "training_data": {"systems": [frames], "batch_size": 1},
            "numb_steps": 10,
            "disp_freq": 10,
            "seed": 1,
        },
    }


def make_models(frames, folder, peer):
    """model.dp, and compressed.pb by the reference code."""
    from deepmd_lite.config import load_config
    from deepmd_lite.train.trainer import Trainer

    (folder / "input.json").write_text(json.dumps(settings(frames)))
    Trainer(load_config(folder / "input.json"), folder).potential.save(folder / "model.dp")
    if peer:
        dp = [str(peer / "bin" / "dp"), "--tf"]
        steps = (
            ["train", "input.json"],
            ["freeze", "-o", "plain.pb"],
            ["compress", "-i", "plain.pb", "-o", "compressed.pb", "-t", "input.json"],
        )
        for step in steps:
            run = subprocess.run(dp + step, cwd=folder, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(run.stderr[-2000:])


def repeated(atoms, natoms):
    """``atoms`` repeated along its axes to ``natoms``, as cubic as can be."""
    n = natoms // len(atoms)
    if n * len(atoms) != natoms:
        raise SystemExit(f"{natoms} atoms: expected a multiple of {len(atoms)}")
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    triples = [(a, b, n // a // b) for a in divisors for b in divisors if n // a % b == 0]
    return atoms.repeat(min(triples, key=lambda t: max(t) / min(t)))


def ours(atoms, model, precision, threads, steps):
    """Median seconds of a step."""
    atoms = atoms.copy()
    atoms.calc = DP(model, precision=precision, threads=threads)
    atoms.get_potential_energy()
    seconds = []
    for k in range(steps):
        atoms.rattle(0.001, seed=k)
        begin = time.perf_counter()
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
        seconds.append(time.perf_counter() - begin)
    return np.median(seconds)


def theirs(atoms, folder, venv, steps):
    """The same by the reference code, in a process of its own."""
    atoms.write(folder / "atoms.extxyz")
    command = [venv / "bin" / "python", "-c", THEIRS, "compressed.pb", "atoms.extxyz", str(steps)]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr[-2000:])
    return float(run.stdout.split()[-1])


@numba.njit
def _phase(phase, p, frame, near, pair, count, spare, a, d, slopes, values, energy, force, virial, shares):
    """One part of the work on all atoms, as in `kernels._work`, for atoms in order of type."""
    n, grad = len(frame.first) - 1, np.ones_like(a[0])
    if phase == 2:
        for _ in range(0, n, len(d)):
            energy_and_gradient(d, p.fitting.layers[0], p.fitting.weights, energy, slopes, values)
    for i in range(n):
        k, t = i % len(d), frame.atype[i]
        if phase == 0:
            kernels._neighbors(i, p, frame, near, pair, count)
        elif phase == 1:
            kernels._forward(i, t, p, frame, near, pair, count, spare, a[k])
            kernels._descriptor(a[k], p.axis[0], d[k])
        elif phase == 3:
            kernels._descriptor_gradient(a[k], p.axis[0], d[k], grad)
            kernels._backward(i, t, p, frame, near, pair, count, spare, grad, force, virial, shares)


def phases(atoms, model, precision):
    """Microseconds per atom in one thread, by phase."""
    potential = CompiledPot(model, precision, threads=1)
    p, T = potential._potential, np.dtype(precision)
    neighbors = NeighborList(potential.rcut, 1.0)
    microseconds = {}

    def clock(name, work, repeat=5):
        work()
        seconds = []
        for _ in range(repeat):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
        microseconds[name] = 1e6 * np.median(seconds) / len(atoms)

    def build():
        neighbors._built = None
        return neighbors.update(atoms.positions, atoms.cell[:], atoms.pbc)

    ghosts, table = build()
    atype = np.where(atoms.numbers == 8, 0, 1).astype(np.int32)
    extra = np.zeros((len(atoms), 0), T)
    frame = kernels.Frame(ghosts.coord, atype[ghosts.owner], ghosts.owner, table.first, table.index, extra)
    most, features = np.diff(table.first).max() + 1, p.fitting.layers[0, 0, 0]
    slopes, values = workspace(p.fitting.layers[0], potential.block, T)
    work = (
        np.empty((3, most), np.int64),
        np.empty((12, most), T),
        np.zeros(2, np.int64),
        np.zeros((1, 4, 100), T),
        np.ones((potential.block, 4, 100), T),
        np.ones((potential.block, features), T),
        slopes,
        values,
        np.zeros(potential.block, T),
        np.zeros((len(atoms), 3)),
        np.zeros(9),
        np.zeros((0, 9)),
    )
    clock("list, when built", build)
    clock("list, at each step", lambda: neighbors.update(atoms.positions, atoms.cell[:], atoms.pbc))
    with one_thread_of_blas:
        for k, name in enumerate(("neighbors in reach, twice", "descriptor", "fitting net", "forces")):
            clock(name, lambda k=k: _phase(k, p, frame, *work))
    reach = microseconds["neighbors in reach, twice"]
    microseconds["neighbors in reach, twice"] = 2 * reach
    for name in ("descriptor", "forces"):
        microseconds[name] -= reach
    return microseconds


def floor(atoms, model, precision):
    """Microseconds per atom that the multiply-adds take at the rate of a large matrix product, in one thread."""
    d, f = model.descriptor, model.fitting
    _, table = NeighborList(d.rcut, 0.0).update(atoms.positions, atoms.cell[:], atoms.pbc)
    pairs, width = len(table.index) / len(atoms), d.neuron[-1]
    widths = (width * d.axis_neuron - d.axis_neuron * (d.axis_neuron - 1) // 2, *f.neuron, 1)
    fitting = 2 * sum(a * b for a, b in pairwise(widths))
    forward, backward = 3 + 4, 3 + 2 + 4 + 5  # G, R ⊗ G; G, dG, P · G, (R P) · dG
    table_and_sums = pairs * width * (forward + backward)
    symmetric = 3 * 4 * widths[0]
    x = np.random.default_rng(0).random((1500, 1500)).astype(precision)
    with one_thread_of_blas:
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            x @ x
            seconds.append(time.perf_counter() - begin)
    rate = len(x) ** 3 / np.median(seconds)
    total = fitting + table_and_sums + symmetric
    print(
        f"{precision}: {total / 1e6:.2f} M multiply-adds per atom ({fitting / total:.0%} fitting net), "
        f"{rate / 1e9:.1f} G a second in one thread"
    )
    return 1e6 * total / rate


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", default=str(WATER))
    parser.add_argument("--sizes", default="192,1536,5184,41472")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--precisions", default="float64,float32")
    parser.add_argument("--rounds", type=int, default=3, help="of ours and theirs in turn")
    parser.add_argument("--peer", type=Path, help="environment with DeePMD-kit")
    options = parser.parse_args()
    threads = [int(t) for t in options.threads.split(",")]
    precisions = options.precisions.split(",")
    system = read_systems(options.frames)[0]
    cell = Atoms(system.symbols, positions=system.coord[0], cell=system.box[0], pbc=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        peer = options.peer and options.peer.resolve()
        make_models(str(Path(options.frames).resolve()), folder, peer)
        model = read_model(folder / "model.dp")
        print(f"{'atoms':>7} {'precision':>9} {'threads':>7} {'µs/atom':>8} {'atoms/s':>9}  reference, ratio")
        for natoms in map(int, options.sizes.split(",")):
            atoms, steps = repeated(cell, natoms), 20 if natoms < 2000 else 5
            found = {}
            for _ in range(options.rounds):
                if peer:
                    found.setdefault("peer", []).append(theirs(atoms, folder, peer, steps))
                for precision in precisions:
                    for t in threads:
                        seconds = ours(atoms, folder / "model.dp", precision, t, steps)
                        found.setdefault((precision, t), []).append(seconds)
            reference = np.median(found.pop("peer")) if peer else None
            for (precision, t), seconds in found.items():
                seconds = np.median(seconds)
                line = (
                    f"{natoms:7d} {precision:>9} {t:7d} {1e6 * seconds / natoms:8.1f} {natoms / seconds:9.0f}"
                )
                if peer:
                    line += f"  {1e6 * reference / natoms:.1f} µs/atom, {reference / seconds:.1f} times"
                print(line, flush=True)
        atoms = repeated(cell, 5184)
        atoms = atoms[np.argsort(-atoms.numbers, kind="stable")]
        for precision in precisions:
            least = floor(atoms, model, precision)
            spent = phases(atoms, model, precision)
            print(
                f"one thread, {len(atoms)} atoms, µs/atom: "
                + ", ".join(f"{k} {v:.1f}" for k, v in spent.items())
            )
            busy = sum(v for k, v in spent.items() if k != "list, when built")
            print(
                f"floor {least:.1f} µs/atom, phases together {busy:.1f}: {busy / least:.2f} times the floor"
            )


if __name__ == "__main__":
    sys.exit(main())
