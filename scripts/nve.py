"""Energy conservation of a model: an NVE run in ASE, its drift with error, and a picture.

usage: python scripts/nve.py MODEL FRAMES [--picoseconds 50] [--equilibrate 10] [--step 0.5] [--temperature 300]

Starts from the first frame of FRAMES (file.h5 or file.h5#/SYSTEM), equilibrates by stochastic velocity rescaling
(Bussi), then runs without a thermostat. The drift is the slope of the total energy per atom against
time; its error comes from the scatter of block means around the line (`evaluate.dynamics.drift`).
"""

import argparse
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from rich.progress import track

from deepmd_lite import DP, read_systems
from deepmd_lite.evaluate.dynamics import drift
from deepmd_lite.evaluate.plots import energy_against_time


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("frames")
    parser.add_argument("--picoseconds", type=float, default=50.0)
    parser.add_argument("--equilibrate", type=float, default=10.0, help="ps")
    parser.add_argument("--step", type=float, default=0.5, help="fs")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--plot", type=Path, default=Path("nve.png"))
    options = parser.parse_args()

    system = read_systems(options.frames)[0]
    box = None if system.box is None else system.box[0]
    atoms = Atoms(system.symbols, positions=system.coord[0], cell=box, pbc=system.pbc)
    atoms.calc = DP(options.model)
    rng = np.random.default_rng(1)
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * options.temperature)
    atoms.set_momenta(rng.normal(0, spread, atoms.positions.shape))
    step = options.step * units.fs
    thermostat = Bussi(atoms, step, temperature_K=options.temperature, taut=50 * units.fs, rng=rng)
    thermostat.run(round(1000 * options.equilibrate / options.step))
    Stationary(atoms)

    dynamics, rows, begin = VelocityVerlet(atoms, step), [], time.perf_counter()
    for k in track(range(round(1000 * options.picoseconds / options.step / 10)), description="NVE"):
        dynamics.run(10)
        potential = atoms.get_potential_energy()
        rows.append((0.01 * options.step * (k + 1), atoms.get_kinetic_energy() + potential, potential))
        rows[-1] += (atoms.get_temperature(),)
    seconds = time.perf_counter() - begin
    t, total, potential, temperature = np.array(rows).T
    slope, error = drift(t, total / len(atoms))
    spread = 1000 * (total / len(atoms)).std()
    energy_against_time(t, total, potential, temperature, options.plot, natoms=len(atoms), title="NVE")
    print(
        f"{len(atoms)} atoms, {options.picoseconds:g} ps, step {options.step:g} fs, {temperature.mean():.0f} K"
    )
    print(
        f"drift {1e6 * slope:.3g} ± {1e6 * error:.1g} meV/atom/ns; spread of the energy {spread:.2g} meV/atom"
    )
    print(f"{1e3 * seconds / (10 * len(t)):.2f} ms a step; {options.plot}")


if __name__ == "__main__":
    main()
