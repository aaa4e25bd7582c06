"""What files call things: keys of labels, units, and what a stress or virial means.

Inside the package the virial is W = −dE/dstrain in eV, positive when compressed, and the stress of ASE is
σ = −(W + Wᵀ)/2V. Files differ in sign and in the factor V, so that a reader has to be told.
"""

from typing import NamedTuple

import numpy as np

from deepmd_lite import units
from deepmd_lite.errors import DataError

KEYS = {  # lower case
    "energy": {"energy", "free_energy", "total_energy", "totenergy", "potential_energy"},
    "force": {"force", "forces"},
    "virial": {"virial", "virials"},
    "stress": {"stress"},
}
ORIGINS = ("ref", "dft", "qm")  # REF_energy, dft_forces, energy_dft ...

CONVENTIONS = {  # name: factor to W, whether to multiply by V
    "virial": (1, False),
    "virial_negative": (-1, False),
    "ase": (-1, True),
    "stress_positive": (1, True),
    "kbar": (1000 * units.BAR, True),  # to eV, whatever the unit of energy
}
MEANINGS = (
    "'virial' (energy, positive when compressed), 'virial_negative' (energy, positive when stretched), "
    "'ase' (energy per volume, positive when stretched), 'stress_positive' (energy per volume, positive when "
    "compressed), 'kbar' (kbar, positive when compressed, as VASP prints it) or 'none' (leave it out)"
)

ENERGY_UNITS = {
    "ev": 1.0,
    "hartree": units.HARTREE,
    "rydberg": units.RYDBERG,
    "kcal/mol": units.KCAL_PER_MOL,
    "kj/mol": units.KJ_PER_MOL,
}
LENGTH_UNITS = {"å": 1.0, "a": 1.0, "angstrom": 1.0, "bohr": units.BOHR, "nm": 10.0}


class Scale(NamedTuple):
    """Factors to eV, to Å for coordinates and cells, and to eV/Å."""

    energy: float
    length: float
    force: float


def parse_units(text, length=None):
    """Factors from units such as ``eV/Å``, ``hartree/bohr``, ``kcal/mol/Å``.

    Parameters
    ----------
    text : str
        Unit of force. Its energy is the unit of energy, its length that of coordinates and cells.
    length : str, optional
        Unit of coordinates and cells where it is another: ``hartree/bohr`` with coordinates in ``Å``.

    Returns
    -------
    Scale
    """
    word = text.strip().lower()
    energy, _, per = word.rpartition("/")
    if word in ENERGY_UNITS:
        energy, per = word, "å"
    where = length.strip().lower() if length else per
    if energy not in ENERGY_UNITS or per not in LENGTH_UNITS or where not in LENGTH_UNITS:
        raise DataError(
            f"units {text!r}{f' with length {length!r}' if length else ''}: expected an energy of "
            f"{', '.join(ENERGY_UNITS)} over a length of {', '.join(LENGTH_UNITS)}, for example hartree/bohr"
        )
    return Scale(ENERGY_UNITS[energy], LENGTH_UNITS[where], ENERGY_UNITS[energy] / LENGTH_UNITS[per])


def keys_for(label, available):
    """list of str: The names among ``available`` that mean a label, whatever their case and origin."""
    hits = []
    for key in available:
        word = key.lower()
        for origin in ORIGINS:
            word = word.removeprefix(f"{origin}_").removesuffix(f"_{origin}")
        if word in KEYS[label]:
            hits.append(key)
    return hits


def tensor(value, where):
    """np.ndarray: 9 numbers, a 3×3 matrix, or 6 in Voigt order xx yy zz yz xz xy, as (3, 3)."""
    array = np.asarray(value, dtype=float)
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if array.size != 9:
        raise DataError(f"{where}: expected 9 numbers or 6 in Voigt order, found shape {array.shape}")
    return array.reshape(3, 3)


def virial_from(matrix, convention, volume):
    """np.ndarray: W (3, 3) in the unit of energy from what a file holds, by a name of CONVENTIONS."""
    factor, per_volume = CONVENTIONS[convention]
    return factor * (volume if per_volume else 1.0) * matrix
