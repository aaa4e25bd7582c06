"""Molecular dynamics of water on several ranks: atom-steps per second, phases, scaling; LAMMPS in the same sitting.

usage: python scripts/bench_md.py [--natoms 12288] [--ranks 1,2] [--steps 20] [--weak] [--peer VENV]

The model is that of bench_inference.py (the shape of DeePMD-kit's water example). Each run is `dplite md`: NVE of the
shipped water, repeated to the number of atoms (for each rank, with --weak), 0.5 fs, skin 1 Å. VENV is an environment
with DeePMD-kit and LAMMPS with its plugin, which runs the same structure on the same ranks with a compressed model,
in turn with ours. More ranks than cores are for correctness, not for timing.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from bench_inference import WATER, make_models, repeated

from deepmd_lite import read_systems

LAMMPS = """units metal
atom_style atomic
neighbor 2.0 bin
neigh_modify every 10 delay 0 check no
read_data water.lmp
mass 1 15.999
mass 2 1.008
pair_style deepmd compressed.pb
pair_coeff * * O H
velocity all create 330.0 23456789
fix 1 all nve
timestep 0.0005
thermo 10
run {steps}
"""
ONE_THREAD = (
    "OMP_NUM_THREADS",
    "TF_INTRA_OP_PARALLELISM_THREADS",
    "TF_INTER_OP_PARALLELISM_THREADS",
    "DP_INTRA_OP_PARALLELISM_THREADS",
    "DP_INTER_OP_PARALLELISM_THREADS",
)


def ours(folder, ranks, precision, steps):
    """katom-step/s and the share of each phase."""
    mpirun = shutil.which("mpirun", path=str(Path(sys.executable).parent)) or "mpirun"
    command = [mpirun, "-n", str(ranks), sys.executable, "-m", "deepmd_lite", "md", "md.json"]
    command += ["--set", f"precision={precision}", "--set", f"steps={steps}"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    shares = dict(re.findall(r"(\w+) +│ +[\d.]+ │ +([\d.]+)%", run.stdout))
    return float(re.search(r"([\d.]+) katom-step/s", run.stdout)[1]), shares


def theirs(folder, venv, ranks, steps):
    """katom-step/s of LAMMPS."""
    (folder / "in.lammps").write_text(LAMMPS.format(steps=steps))
    command = [venv / "bin" / "mpirun", "-n", str(ranks), venv / "bin" / "lmp", "-in", "in.lammps"]
    environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    found = re.search(r"([\d.]+) katom-step/s", run.stdout)
    if not found:
        raise SystemExit(run.stdout[-2000:] + run.stderr[-2000:])
    return float(found[1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--natoms", type=int, default=12288)
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--precisions", default="float64,float32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weak", action="store_true", help="NATOMS for each rank")
    parser.add_argument("--peer", type=Path, help="environment with DeePMD-kit and LAMMPS")
    options = parser.parse_args()
    precisions = options.precisions.split(",")
    peer = options.peer and options.peer.resolve()
    system = read_systems(WATER)[0]
    cell = Atoms(system.symbols, positions=system.coord[0], cell=system.box[0], pbc=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_models(str(WATER), folder, peer)
        one = {}
        for ranks in map(int, options.ranks.split(",")):
            atoms = repeated(cell, options.natoms * (ranks if options.weak else 1))
            write(folder / "water.extxyz", atoms)
            write(
                folder / "water.lmp", atoms, format="lammps-data", specorder=["O", "H"], atom_style="atomic"
            )
            settings = {
                "structure": "water.extxyz",
                "model": "model.dp",
                "ensemble": {"type": "nve"},
                "velocities": {"temperature": 330},
                "steps": options.steps,
                "log": {"interval": 10},
                "restart": {"interval": 10**9},
            }
            (folder / "md.json").write_text(json.dumps(settings))
            rates = {}
            for _ in range(options.rounds):
                if peer:
                    rates.setdefault("LAMMPS", []).append(theirs(folder, peer, ranks, options.steps))
                for precision in precisions:
                    rate, shares = ours(folder, ranks, precision, options.steps)
                    rates.setdefault(precision, []).append(rate)
            rates = {name: float(np.median(values)) for name, values in rates.items()}
            for name, rate in rates.items():
                line = f"{len(atoms):8d} atoms, {ranks} ranks, {name:8s} {rate:8.2f} katom-step/s"
                if peer and name != "LAMMPS":
                    line += f", {rate / rates['LAMMPS']:.2f} times LAMMPS"
                if ranks > 1 and name in one:
                    line += f", {rate / one[name]:.2f} times one rank"
                print(line, flush=True)
                if ranks == 1:
                    one[name] = rate
            print("          last run, % of the time: " + ", ".join(f"{k} {v}" for k, v in shares.items()))


if __name__ == "__main__":
    main()
