"""The whole job on the shipped data: split, train, test, molecular dynamics, pictures, a table of figures.

usage: python scripts/quickstart.py [--out quickstart] [--steps 6000] [--picoseconds 2]

Every ``dplite`` command that runs is printed first, so that it can be run by hand. What is already in the
output folder is used again: training goes on from its checkpoint, finished parts are skipped.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deepmd_lite import DP, read_systems
from deepmd_lite.evaluate.dynamics import drift, radial_distribution
from deepmd_lite.evaluate.plots import energy_against_time, radial_distributions
from deepmd_lite.evaluate.test import test_model

DATA = Path(__file__).parents[1] / "data"
SYSTEMS = {
    "ethanol": {"pairs": [("C", "O"), ("C", "C"), ("O", "H")], "rcut": 6.0},
    "water": {"pairs": [("O", "O"), ("O", "H"), ("H", "H")], "rcut": 6.0},
}
TEMPERATURE = 300.0  # K
STEP = 0.5  # fs; hydrogen needs a short one
console = Console()


def dplite(*arguments):
    """Print a dplite command and run it."""
    words = [str(a) for a in arguments]
    console.print(f"\n[bold]$ dplite {shlex.join(words)}", highlight=False, soft_wrap=True)
    subprocess.run([sys.executable, "-m", "deepmd_lite", *words], check=True)


def train(name, folder, steps, rcut):
    """Split the frames of a system, train on most of them, and test on the ones held back: their Report."""
    training, validation, held_back = (folder / f"frames_{p}.h5" for p in ("training", "validation", "test"))
    model = folder / "model.dp"
    if not held_back.exists():
        dplite("split", DATA / f"{name}_pbe.h5", "-o", folder / "frames.h5")
    if not (folder / "input.json").exists():
        options = ["--rcut", rcut, "--size", "small", "--steps", steps, "-o", folder / "input.json"]
        dplite("init", training, "--validation", validation, *options)
    if not model.exists():
        checkpoint = folder / "model.ckpt.dp"
        restart = ["--restart", checkpoint] if checkpoint.exists() else []
        dplite("train", folder / "input.json", "-o", folder, *restart)
    dplite("test", "-m", model, "-s", held_back, "--plots", folder / "parity.png")
    return test_model(model, held_back)


def start(name, folder):
    """A held-back frame as ASE Atoms with velocities of TEMPERATURE."""
    system = read_systems(folder / "frames_test.h5")[0]
    box = None if system.box is None else system.box[0]
    atoms = Atoms(system.symbols, positions=system.coord[0], cell=box, pbc=system.pbc)
    atoms.calc = DP(folder / "model.dp")
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * TEMPERATURE)
    atoms.set_momenta(np.random.default_rng(1).normal(0, spread, atoms.positions.shape))
    Stationary(atoms)
    return atoms


def run(dynamics, atoms, picoseconds, label):
    """Run and record every 10 steps: time (ps), total and potential energy (eV), temperature (K), frames."""
    rows, frames = [], []
    for k in track(range(round(1000 * picoseconds / STEP / 10)), description=label, console=console):
        dynamics.run(10)
        kinetic, potential = atoms.get_kinetic_energy(), atoms.get_potential_energy()
        rows.append((0.01 * STEP * (k + 1), kinetic + potential, potential, atoms.get_temperature()))
        frames.append(atoms.copy())
    return np.array(rows).T, frames


def simulate(name, folder, picoseconds, pairs):
    """NVT by velocity rescaling, then NVE; pictures of both: (drift, its error, NVT temperature, seconds)."""
    atoms = start(name, folder)
    begin = time.perf_counter()
    thermostat = Bussi(
        atoms, STEP * units.fs, temperature_K=TEMPERATURE, taut=50 * units.fs, rng=np.random.default_rng(2)
    )
    nvt, frames = run(thermostat, atoms, picoseconds, f"{name}: NVT")
    nve, _ = run(VelocityVerlet(atoms, STEP * units.fs), atoms, picoseconds, f"{name}: NVE")
    seconds = time.perf_counter() - begin
    for ensemble, (t, total, potential, temperature) in (("NVT", nvt), ("NVE", nve)):
        path = folder / f"{ensemble.lower()}.png"
        energy_against_time(
            t, total, potential, temperature, path, natoms=len(atoms), title=f"{name}, {ensemble}"
        )
    half = frames[len(frames) // 2 :]
    curves = {"-".join(p): radial_distribution(half, p) for p in pairs}
    radial_distributions(
        curves, folder / "rdf.png", title=f"{name}, {TEMPERATURE:g} K", crystal_like=atoms.pbc.all()
    )
    slope, error = drift(nve[0], nve[1] / len(atoms))
    settled = nvt[3][len(nvt[3]) // 2 :]
    return 1e6 * slope, 1e6 * error, settled.mean(), seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("quickstart"), help="folder of the results")
    parser.add_argument("--steps", type=int, default=6000, help="training steps")
    parser.add_argument("--picoseconds", type=float, default=2.0, help="of each molecular dynamics run")
    options = parser.parse_args()
    columns = {
        "system": "left",
        "E RMSE\nmeV/atom": "right",
        "F RMSE\nmeV/Å": "right",
        "W RMSE\nmeV/atom": "right",
        "NVE drift\nmeV/atom/ns": "right",
        f"NVT, {TEMPERATURE:g} K\nfound, K": "right",
        "MD\nps/min": "right",
    }
    table = Table(title="Held-back frames (energy E, force F, virial W) and molecular dynamics")
    for column, side in columns.items():
        table.add_column(column, justify=side)
    for name, settings in SYSTEMS.items():
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        report = train(name, folder, options.steps, settings["rcut"])
        slope, error, temperature, seconds = simulate(name, folder, options.picoseconds, settings["pairs"])
        errors = (report.total.energy, report.total.force, report.total.virial)
        table.add_row(
            name,
            *("-" if e is None else f"{1000 * e.rmse:.2f}" for e in errors),
            f"{slope:.2g} ± {error:.1g}",
            f"{temperature:.0f}",
            f"{120 * options.picoseconds / seconds:.1f}",
        )
    console.print()
    console.print(table)
    for picture in sorted(options.out.rglob("*.png")):
        console.print(str(picture), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
