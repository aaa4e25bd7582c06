"""Do the numbers look like eV and Å, and do the forces follow the energies?

Three tests that know nothing of the method behind the data: distances against covalent radii, total energies
against those of free atoms, and along a trajectory the change of energy against the work of the forces.

References
----------
Covalent radii: Cordero et al., Dalton Trans. 2832 (2008), as in ASE. Energy of atoms: B.-G. Englert and
J. Schwinger, Phys. Rev. A 32, 47 (1985).
"""

from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from deepmd_lite import units
from deepmd_lite.box import complete_cell
from deepmd_lite.frames.conventions import ENERGY_UNITS
from deepmd_lite.frames.geometry import closest_pair

NOBLE = {"He", "Ne", "Ar", "Kr", "Xe", "Rn"}
LONGEST_BOND, SHORTEST_BOND = 1.55, 0.55  # sum of covalent radii; the closest pair of a data set
SAMPLE = 10  # frames of a system that are looked at
ATOM_ENERGY_TOLERANCE = 0.05  # of the atoms' energy: binding and the method stay below it
STEP = 0.15  # Å: longest move between frames that the trapezoid rule is asked to bridge
FEWEST_STEPS = 5
ENERGY_RATIOS = {  # change of energy over work of the forces, where units are mixed
    "energies in Hartree": 1 / units.HARTREE,
    "energies in kcal/mol": 1 / units.KCAL_PER_MOL,
    "energies in kJ/mol": 1 / units.KJ_PER_MOL,
    "forces in Hartree/Bohr": units.HARTREE / units.BOHR,
    "forces in kcal/mol/Å": units.KCAL_PER_MOL,
    "energies in Hartree and forces in Hartree/Bohr": 1 / units.BOHR,
    "coordinates in Bohr": units.BOHR,
}


def foreign_lengths(systems):
    """str or None: Why the coordinates do not look like Å.

    Parameters
    ----------
    systems : list of System
        The closest pair of them all is compared with the sum of two covalent radii.
    """
    smallest, pair = np.inf, ""
    for system in systems:
        numbers = np.array([atomic_numbers.get(s, 0) for s in system.symbols])
        if not numbers.all() or set(system.symbols) <= NOBLE:
            continue
        radius = covalent_radii[numbers]
        for frame in _sample(system):
            distance, i, j = closest_pair(system, frame)
            ratio = distance / (radius[i] + radius[j])
            if ratio < smallest:
                smallest = ratio
                elements = f"{system.symbols[i]}-{system.symbols[j]}"
                pair = f"the closest atoms, {elements}, are {distance:.2f} apart, {ratio:.2f} bonds"
    if LONGEST_BOND < smallest < np.inf:
        return f"{pair}: these may be Bohr"
    if smallest < SHORTEST_BOND:
        return f"{pair}: these may be nm, or Å converted a second time"
    return None


def foreign_energies(systems):
    """str or None: Why the energies do not look like eV: they match the free atoms in another unit."""
    for system in systems:
        if "energy" not in system.labels or not system.found["energy"].any():
            continue
        z = np.array([atomic_numbers.get(s, 0) for s in system.symbols], dtype=float)
        if not z.all():
            continue
        atoms = -(0.7687 * z ** (7 / 3) - z**2 / 2 + 0.2699 * z ** (5 / 3)).sum() * units.HARTREE  # eV
        energy = np.median(system.labels["energy"][system.found["energy"]])
        for unit, factor in ENERGY_UNITS.items():
            if unit != "ev" and abs(energy * factor / atoms - 1) < ATOM_ENERGY_TOLERANCE:
                return (
                    f"{system.name}: an energy of {energy:.6g} for {system.formula} is that of its free "
                    f"atoms ({atoms:.6g} eV) in {unit}"
                )
    return None


def _sample(system):
    return np.unique(np.linspace(0, system.nframes - 1, SAMPLE).astype(int))


class Work(NamedTuple):
    """The change of energy along a trajectory against the work of its forces."""

    steps: int  # pairs of frames compared
    slope: float  # least-squares change of energy over work; 1 when they agree
    correlation: float
    residual: float  # rms(change − work), eV per atom


def work_along_trajectory(system):
    """Compare E(k+1) − E(k) with −½ Σ (F(k) + F(k+1))·(x(k+1) − x(k)) over consecutive frames.

    Only steps where no atom moves more than STEP and the cell stays the same are used.

    Parameters
    ----------
    system : System

    Returns
    -------
    Work or None
        None where fewer than FEWEST_STEPS steps qualify, or the energies do not resolve the work.
    """
    if not {"energy", "force"} <= set(system.labels) or system.nframes < 2:
        return None
    step = np.diff(system.coord, axis=0)  # (nframes - 1, natoms, 3)
    usable = np.ones(len(step), dtype=bool)
    if system.box is not None:
        usable &= np.abs(np.diff(system.box, axis=0)).max(axis=(1, 2)) < 1e-8
        cell = np.array([complete_cell(box, system.pbc) for box in system.box[1:]])
        turns = np.round(step @ np.linalg.inv(cell)) * system.pbc
        step = step - turns @ cell
    longest = np.linalg.norm(step, axis=2).max(axis=1)
    usable &= (longest < STEP) & (longest > 0)
    for key in ("energy", "force"):
        usable &= system.found[key][1:] & system.found[key][:-1]
    force, energy = system.labels["force"], system.labels["energy"]
    change = np.diff(energy)[usable]
    work = -0.5 * ((force[1:] + force[:-1]) * step).sum(axis=(1, 2))[usable]
    rms = np.sqrt(np.mean(work**2)) if usable.any() else 0.0
    if usable.sum() < FEWEST_STEPS or rms < 10 * energy_resolution(system) or rms == 0:
        return None
    spread = np.sqrt(np.mean(change**2))
    correlation = float(np.mean(change * work) / (rms * spread)) if spread > 0 else 0.0
    residual = float(np.sqrt(np.mean((change - work) ** 2)) / system.natoms)
    return Work(int(usable.sum()), correlation * spread / rms, correlation, residual)


def mismatch(work):
    """str or None: What is wrong with forces that do this `Work`."""
    if work.correlation < -0.9:
        return "forces have the wrong sign: the energy rises along them"
    if work.correlation < 0.9:
        return f"forces do not follow the energies (correlation {work.correlation:.2f})"
    if abs(work.slope - 1) < 0.1:
        return None
    for reason, ratio in ENERGY_RATIOS.items():
        if abs(work.slope / ratio - 1) < 0.05:
            return f"energy changes by {work.slope:.3g} times the work of the forces: {reason}?"
    return f"energy changes by {work.slope:.3g} times the work of the forces; expected 1"


def energy_resolution(system):
    """float: Spacing of the largest total energy in the type it is stored in, eV."""
    if "energy" not in system.labels:
        return 0.0
    dtype = np.dtype(system.source_dtype.get("energy", "float64"))
    if dtype.kind != "f":
        return 1.0
    return float(np.spacing(np.abs(system.labels["energy"]).max().astype(dtype)))
