"""Make data/water_pbe.h5: liquid water, 16 molecules in a periodic cell, with PBE energy, force and virial.

1. Sample: Langevin dynamics of a flexible three-point water (bonds softer than usual, so that 0.85 to 1.15 Å
   occur) at 300, 450 and 600 K in cells of different volume and shape, one structure every 37.5 fs. Each third
   one also gets random displacements of 0.03 Å, so that the forces of the sampler leave no blind spot.
2. Label: PBE, GTH pseudopotentials, DZVP-GTH, 290 Ry (CP2K Quickstep), analytical stress. The density is
   smoothed on the grid of the functional (NN50), which makes the forces' dependence on the grid 13 times smaller.

A group for each temperature: 300K, 450K, 600K. A run that was stopped goes on when started again.

    apt-get install cp2k libopenblas0-serial    # Debian 12: CP2K 2023.1
    pip install ase==3.29.0
    OMP_NUM_THREADS=1 python scripts/make_water.py --frames 160 --out data/water_pbe.h5
    python scripts/make_water.py --check        # forces and virial against differences of the energy
"""

import argparse
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, SCFError, all_changes
from ase.calculators.cp2k import CP2K
from ase.io import read, write
from ase.md.langevin import Langevin
from scipy.special import erfc

from deepmd_lite.frames.label import label

TEMPERATURES = {300: 0.6, 450: 0.25, 600: 0.15}  # K: share of the frames
EDGE = 7.83  # Å: 16 molecules at 1.0 g/cm³
STRAINS = {  # cell = EDGE (1 + strain); rows of upper triangle xx yy zz yz xz xy
    "as it is": (0, 0, 0, 0, 0, 0),
    "compressed": (-0.03, -0.03, -0.03, 0, 0, 0),
    "expanded": (0.03, 0.03, 0.03, 0, 0, 0),
    "long and sheared": (0.05, -0.03, -0.02, 0.03, -0.02, 0.04),
    "dense": (-0.05, -0.05, -0.05, 0, 0, 0),
    "thin": (0.06, 0.05, 0.04, 0, 0.03, 0),
}
TIMESTEP, SPACING, START = 0.75, 50, 600  # fs; steps between frames; steps before the first
DISPLACEMENT = 0.03  # Å
ROUND = 5  # frames of a temperature before the next one has its turn

QUICKSTEP = """
&FORCE_EVAL
  &DFT
    &QS
      EPS_DEFAULT 1.0E-10
      EXTRAPOLATION USE_GUESS
    &END QS
    &MGRID
      REL_CUTOFF 40
    &END MGRID
    &SCF
      SCF_GUESS ATOMIC
      EPS_SCF 5.0E-5
      EPS_DIIS 2.0
      &MIXING
        ALPHA 0.7
      &END MIXING
    &END SCF
    &XC
      &XC_GRID
        XC_SMOOTH_RHO NN50
        XC_DERIV NN50_SMOOTH
      &END XC_GRID
    &END XC
  &END DFT
&END FORCE_EVAL
"""


class PBE(CP2K):
    """PBE/GTH/DZVP of a periodic cell; each frame starts from atomic densities, so labels have no history."""

    def __init__(self, label="water_pbe"):
        Path(f"{label}.out").unlink(missing_ok=True)
        super().__init__(
            label=label,
            command="cp2k_shell.psmp",
            xc="PBE",
            basis_set="DZVP-GTH",
            basis_set_file="GTH_BASIS_SETS",
            pseudo_potential="GTH-PBE",
            potential_file="GTH_POTENTIALS",
            cutoff=290 * units.Rydberg,
            max_scf=40,
            stress_tensor=True,
            print_level="LOW",
            inp=QUICKSTEP,
        )

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """As CP2K's; SCFError where CP2K only prints that the field did not converge."""
        report = Path(f"{self.label}.out")
        before = report.stat().st_size if report.exists() else 0
        super().calculate(atoms, properties, system_changes)
        with report.open() as text:
            text.seek(before)
            if "SCF run NOT converged" in text.read():
                raise SCFError(f"the PBE field did not converge in {self.parameters.max_scf} cycles")


class FlexibleWater(Calculator):
    """Forces of a flexible three-point water, good enough to sample; atoms are O H H O H H ...

    Harmonic bonds and angles, Lennard-Jones, and damped shifted-force charges (Fennell and Gezelter,
    J. Chem. Phys. 124, 234104, 2006).
    """

    implemented_properties = ["energy", "forces"]
    bond, length = 26.0, 0.99  # eV/Å², Å; softer than a real bond
    angle, theta = 3.3, np.radians(107.0)  # eV/rad²
    damping, cutoff = 0.2, 7.0  # 1/Å, Å
    age, pairs = 0, None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Forces, eV/Å; the energy is not needed and is given as 0."""
        super().calculate(atoms, properties, system_changes)
        force = self._pairs(atoms)
        oxygen, first, second = (atoms.positions[k::3] for k in range(3))
        arms = np.stack([first - oxygen, second - oxygen])  # (2, n, 3)
        r = np.linalg.norm(arms, axis=2, keepdims=True)
        unit = arms / r
        cosine = (unit[0] * unit[1]).sum(axis=1, keepdims=True)
        bend = self.angle * (np.arccos(cosine) - self.theta) / np.sqrt(1 - cosine**2)
        pull = -self.bond * (r - self.length) * unit + bend * (unit[::-1] - cosine * unit) / r
        force[1::3] += pull[0]
        force[2::3] += pull[1]
        force[0::3] -= pull.sum(axis=0)
        self.results = {"energy": 0.0, "forces": force}

    def _list(self, atoms):
        """Pairs (i, j) between molecules up to a little beyond the cutoff, and the image (Å) that i is in."""
        shifts = np.array(list(np.ndindex(3, 3, 3))) - 1
        image = shifts @ atoms.cell[:]
        x = atoms.positions
        r = np.linalg.norm(x[None, :, None] - (x[:, None, None] + image), axis=3)  # (n, n, 27)
        molecule_of = np.arange(len(x)) // 3
        bonded = (molecule_of[:, None] == molecule_of)[:, :, None] & (shifts == 0).all(axis=1)
        i, j, k = np.nonzero((r < self.cutoff + 0.5) & ~bonded)
        return i, j, image[k]

    def _pairs(self, atoms):
        if self.age % 10 == 0:
            self.pairs = self._list(atoms)
        self.age += 1
        i, j, image = self.pairs
        d = atoms.positions[j] - atoms.positions[i] - image
        r = np.minimum(np.linalg.norm(d, axis=1), self.cutoff)  # no electrostatic force from there on
        charge = np.where(atoms.numbers == 8, -0.82, 0.41)
        epsilon = np.where(atoms.numbers == 8, 0.00674, 0.002)  # eV
        sigma = np.where(atoms.numbers == 8, 3.166, 0.4)  # Å

        def field(r):
            a = self.damping
            return erfc(a * r) / r**2 + 2 * a / np.sqrt(np.pi) * np.exp(-((a * r) ** 2)) / r

        six = ((sigma[i] + sigma[j]) / 2 / r) ** 6
        slope = 14.399645 * charge[i] * charge[j] * (field(r) - field(self.cutoff))
        slope += 24 * np.sqrt(epsilon[i] * epsilon[j]) * (2 * six**2 - six) / r
        pull = slope[:, None] * d / r[:, None]
        return np.stack([np.bincount(j, pull[:, k], len(atoms)) for k in range(3)], axis=1)


def lattice(rng):
    """ase.Atoms: 16 molecules at the sites of a body-centered lattice, at random angles."""
    atoms = Atoms(cell=[EDGE] * 3, pbc=True)
    for i, j, k, center in np.ndindex(2, 2, 2, 2):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate((np.array([i, j, k]) + center / 2) * EDGE / 2)
        atoms += water
    return atoms


def sample(counts, paths, seed=0):
    """Write structures at each temperature: a trajectory for each cell, one after another."""
    rng = np.random.default_rng(seed)
    start = lattice(rng)
    for temperature, count in counts.items():
        parts = []
        for strain in STRAINS.values():
            xx, yy, zz, yz, xz, xy = strain
            atoms = start.copy()
            atoms.set_cell(EDGE * (np.eye(3) + [[xx, xy, xz], [0, yy, yz], [0, 0, zz]]), scale_atoms=True)
            atoms.calc = FlexibleWater()
            friction = 0.05 / units.fs
            md = Langevin(
                atoms, TIMESTEP * units.fs, temperature_K=temperature, friction=friction, fixcm=False, rng=rng
            )
            md.run(START)
            parts.append([])
            for _ in range(-(-count // len(STRAINS))):
                md.run(SPACING)
                parts[-1].append(Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True))
        frames = [part[k] for k in range(len(parts[0])) for part in parts][:count]
        for frame in frames[::3]:
            frame.positions += rng.normal(scale=DISPLACEMENT, size=frame.positions.shape)
        write(paths[temperature], frames, format="extxyz", columns=["symbols", "positions"])


def check(path, step=0.001):
    """Print a force and the virial of one frame beside differences of the energy (``step`` in Å and strain)."""
    rng = np.random.default_rng(0)
    with PBE("water_check") as calc:
        atoms = read(path, index=0)
        atoms.calc = calc
        force, virial = atoms.get_forces(), -atoms.get_volume() * atoms.get_stress(voigt=False)
        way = rng.normal(size=force.shape)
        way /= np.linalg.norm(way)

        def energy(move, strain):
            moved = atoms.copy()
            moved.positions += move
            moved.set_cell(moved.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
            moved.calc = calc
            return moved.get_potential_energy()

        def slope(change, size):
            return (energy(*change(size)) - energy(*change(-size))) / (2 * size)

        found = -slope(lambda s: (s * way, np.zeros((3, 3))), step)
        print(
            f"force along a random direction: {(force * way).sum():.5f}, -dE/ds {found:.5f} eV/Å", flush=True
        )
        print(f"net force {abs(force.sum(axis=0)).max():.1e} eV/Å", flush=True)
        for a, b in ((0, 0), (0, 1)):
            unit = np.zeros((3, 3))
            unit[a, b] += 0.5
            unit[b, a] += 0.5
            found = -slope(lambda s, unit=unit: (0.0, s * unit), step)
            print(f"virial {'xyz'[a]}{'xyz'[b]}: {virial[a, b]:.4f}, -dE/dstrain {found:.4f} eV", flush=True)


def main():
    """Sample, then label; or check forces and virial."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--out", type=Path, default=Path("data/water_pbe.h5"))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    paths = {t: args.out.with_suffix(f".{t}K.xyz") for t in TEMPERATURES}
    if not all(path.exists() for path in paths.values()):
        counts = {t: round(share * args.frames) for t, share in TEMPERATURES.items()}
        print(f"sampling {counts} structures", flush=True)
        sample(counts, paths)
    if args.check:
        check(paths[300])
        return
    start, total = time.monotonic(), 0
    with PBE() as calc:
        while True:
            counts = [
                label(path, lambda: calc, f"{args.out}#/{t}K", limit=ROUND) for t, path in paths.items()
            ]
            if not any(c.labelled for c in counts):
                break
            total += sum(c.labelled for c in counts)
            print(f"{total} frames in {time.monotonic() - start:.0f} s, {counts}", flush=True)
    print(
        f"{args.out}: {sum(c.found for c in counts)} frames, {sum(c.skipped for c in counts)} without label"
    )


if __name__ == "__main__":
    main()
