"""Make data/ethanol_pbe.h5: frames of one ethanol molecule with PBE/def2-SVP energies and forces.

1. Sample: Langevin dynamics with GFN2-xTB (tblite) at 300, 600 and 1000 K, one structure every 40 fs.
2. Label: restricted Kohn-Sham PBE/def2-SVP with density fitting (PySCF), energies to 1e-9 Hartree. Forces
   include the response of the integration grid, so that they are the gradient of the computed energy.

A group for each temperature: 300K, 600K, 1000K. A run that was stopped goes on when started again.

    pip install pyscf==2.14.0 tblite==0.8.0 ase==3.29.0
    OMP_NUM_THREADS=1 python scripts/make_ethanol.py --frames 600 --out data/ethanol_pbe.h5
    python scripts/make_ethanol.py --check      # forces against differences of the energy
"""

import argparse
import time
from pathlib import Path

import numpy as np
from ase import units
from ase.build import molecule
from ase.calculators.calculator import Calculator, SCFError, all_changes
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.units import Bohr, Hartree
from pyscf import dft, gto, lib

from deepmd_lite.frames.label import label

TEMPERATURES = {300: 0.4, 600: 0.35, 1000: 0.25}  # K: share of the frames
GRID = 1  # PySCF's grid level: 0.7 meV in energy and 9 meV/Å at most in force from level 2, at half the time
ROUND = 20  # frames of a temperature before the next one has its turn
TIMESTEP, SPACING, START = 0.5, 80, 1000  # fs; steps between frames; steps before the first


class PBE(Calculator):
    """PBE/def2-SVP of a molecule; each frame starts from the density matrix of the one before."""

    implemented_properties = ["energy", "forces"]
    density = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Energy (eV) and forces (eV/Å); SCFError when the field does not converge."""
        super().calculate(atoms, properties, system_changes)
        mol = gto.M(
            atom=list(zip(atoms.symbols, atoms.positions)), basis="def2-svp", unit="Angstrom", verbose=0
        )
        field = dft.RKS(mol, xc="pbe").density_fit()
        field.grids.level, field.conv_tol = GRID, 1e-9
        energy = field.kernel(dm0=self.density)
        self.density = field.make_rdm1()
        if not field.converged:
            self.density = None
            raise SCFError("the PBE field did not converge in 50 cycles")
        gradient = field.nuc_grad_method()
        gradient.grid_response = True
        self.results = {"energy": energy * Hartree, "forces": -gradient.kernel() * (Hartree / Bohr)}


def sample(temperature, count, path, seed):
    """Write ``count`` structures of a Langevin trajectory at ``temperature`` (K) to ``path``."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    friction = 0.02 / units.fs
    md = Langevin(atoms, TIMESTEP * units.fs, temperature_K=temperature, friction=friction, rng=rng)
    md.run(START)
    frames = []
    for _ in range(count):
        md.run(SPACING)
        frame = atoms.copy()
        frame.positions -= frame.get_center_of_mass()
        frames.append(frame)
    write(path, frames, format="extxyz", columns=["symbols", "positions"])


def check(path, step=0.002):
    """Print forces of one hot frame beside four-point differences of the energy (``step`` in Å)."""
    atoms = read(path, index=0)
    atoms.calc = PBE()
    force, worst = atoms.get_forces(), 0.0
    rng = np.random.default_rng(0)
    for _ in range(3):
        way = rng.normal(size=atoms.positions.shape)
        way /= np.linalg.norm(way)
        energy = []
        for k in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions += k * step * way
            moved.calc = atoms.calc
            energy.append(moved.get_potential_energy())
        slope = (energy[0] - 8 * energy[1] + 8 * energy[2] - energy[3]) / (12 * step)
        worst = max(worst, abs(-slope - (force * way).sum()))
        print(
            f"along a random direction: -dE/ds {-slope:.6f}, force {(force * way).sum():.6f} eV/Å", flush=True
        )
    print(f"largest difference {worst:.1e} eV/Å; net force {abs(force.sum(axis=0)).max():.1e} eV/Å")


def main():
    """Sample, then label; or check the forces."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("data/ethanol_pbe.h5"))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    lib.num_threads(1)
    paths = {t: args.out.with_suffix(f".{t}K.xyz") for t in TEMPERATURES}
    for seed, (temperature, share) in enumerate(TEMPERATURES.items()):
        count = round(share * args.frames)
        if not paths[temperature].exists():
            print(f"sampling {count} structures at {temperature} K", flush=True)
            sample(temperature, count, paths[temperature], seed)
    if args.check:
        check(paths[1000])
        return
    start, total = time.monotonic(), 0
    while True:
        counts = [label(path, PBE, f"{args.out}#/{t}K", limit=ROUND) for t, path in paths.items()]
        if not any(c.labelled for c in counts):
            break
        total += sum(c.labelled for c in counts)
        print(f"{total} frames in {time.monotonic() - start:.0f} s, {counts}", flush=True)
    print(
        f"{args.out}: {sum(c.found for c in counts)} frames, {sum(c.skipped for c in counts)} without label"
    )


if __name__ == "__main__":
    main()
