"""Tables of pair energies for atoms that come close (model/shortrange.py): from a file, or universal.

The universal potential (Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Solids, 1985) is Coulomb's
repulsion of two nuclei, screened by their electrons::

    V(r) = Z₁ Z₂ e² / (4πε₀ r) φ(r/a),   a = 0.46850 Å / (Z₁^0.23 + Z₂^0.23),   φ(x) = Σ_k A_k exp(-B_k x)

with the constants in `SCREENING`; 0.46850 Å is 0.88534 Bohr radii.
"""

import numpy as np
from ase.data import atomic_numbers

from deepmd_lite import model_file
from deepmd_lite.config import UNIVERSAL
from deepmd_lite.errors import ConfigError, ModelFileError
from deepmd_lite.model_file.check import check_shortrange
from deepmd_lite.units import BOHR, HARTREE

SCREENING = np.array([[0.18175, 0.50986, 0.28022, 0.02817], [3.19980, 0.94229, 0.40290, 0.20162]])  # A_k, B_k
LENGTH, POWER = 0.46850, 0.23  # Å
STEP = 0.005  # Å; cubics then miss V by 6e-6 of it and its slope by 2e-4 at 0.05 Å, by 4e-7 and 2e-5 at 0.1 Å
ALPHA = 0.1  # Å, the default of smin_alpha


def pair_table(section, type_map):
    """The table that an input asks for.

    Parameters
    ----------
    section : config.schema.Model
    type_map : sequence of str

    Returns
    -------
    model_file.ShortRange or None

    Raises
    ------
    ConfigError
        A file that cannot be read or is no table for these types, an element without a number, or energies that
        would jump.
    """
    if section.use_srtab is None:
        return None
    rcut = section.descriptor.rcut
    try:
        if section.use_srtab == UNIVERSAL:
            start, step, coefficients = _universal(type_map, rcut, section.sw_rmax)
        else:
            start, step, coefficients = _from_file(section.use_srtab, len(type_map), rcut)
        switch = {
            "smin_alpha": section.smin_alpha or ALPHA,
            "sw_rmin": section.sw_rmin,
            "sw_rmax": section.sw_rmax,
        }
        table = model_file.ShortRange(start=start, step=step, coefficients=coefficients, **switch)
        check_shortrange(table, rcut, len(type_map))
    except (ConfigError, ModelFileError) as error:
        raise ConfigError(f"model.use_srtab = {section.use_srtab}: {error}") from None
    return table


def screened_coulomb(r, z1, z2):
    """Universal V, eV, and dV/dr, eV/Å, of nuclei with charges z1 and z2 at distances r (n,), Å."""
    a = LENGTH / (z1**POWER + z2**POWER)
    share, rate = SCREENING[0, :, None], SCREENING[1, :, None] / a
    terms = share * np.exp(-rate * r)
    v = z1 * z2 * HARTREE * BOHR / r * terms.sum(axis=0)
    return v, -v / r - z1 * z2 * HARTREE * BOHR / r * (rate * terms).sum(axis=0)


def _universal(type_map, rcut, sw_rmax):
    """Start, step and coefficients of the universal potential; from sw_rmax on it is switched off towards rcut.

    The switch is that of the descriptor. Cubics take the values and slopes at the knots.
    """
    unknown = [name for name in type_map if name not in atomic_numbers]
    if unknown:
        raise ConfigError(f"expected chemical symbols in type_map, found {unknown[0]!r}")
    count = int(np.ceil(rcut / STEP))
    step = rcut / count
    r = step * np.arange(1, count + 1)
    u = ((r - sw_rmax) / (rcut - sw_rmax)).clip(0, 1)
    w, dw = 1 + u**3 * (-10 + u * (15 - 6 * u)), -30 * (u * (1 - u)) ** 2 / (rcut - sw_rmax)
    coefficients = np.empty((len(type_map), len(type_map), count - 1, 4))
    charges = [atomic_numbers[name] for name in type_map]
    for i, j in np.ndindex(coefficients.shape[:2]):
        v, dv = screened_coulomb(r, *sorted((charges[i], charges[j])))
        coefficients[i, j] = _cubics(w * v, step * (dw * v + w * dv))
    return step, step, coefficients


def _from_file(path, ntypes, rcut):
    """Start, step and coefficients of a table in DeePMD-kit's format, by its interpolation.

    Columns are the distance and the energies of the types 0-0, 0-1, ..., 1-1, ...; a table that ends in zeros before
    rcut goes on in zeros. The splines have zero slope at both ends.
    """
    from scipy.interpolate import CubicSpline  # a second to import, for nothing else in a training run

    try:
        table = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise ConfigError(f"expected a table of numbers ({error})") from None
    columns = 1 + ntypes * (ntypes + 1) // 2
    if table.shape[1] != columns or len(table) < 3 or not np.isfinite(table).all():
        raise ConfigError(
            f"expected {columns} columns of finite numbers, the distance and the energy of each pair of {ntypes} "
            f"types, in 3 rows or more, found shape {table.shape}"
        )
    start, step = table[0, 0], table[1, 0] - table[0, 0]
    if step <= 0 or abs(table[:, 0] - start - step * np.arange(len(table))).max() > 1e-3 * step:
        raise ConfigError("expected equal steps of growing distance in the first column")
    last = int(np.ceil(rcut / step - start / step))
    if len(table) <= last:
        if table[-1, 1:].any():
            raise ConfigError(
                f"expected energies that end in zeros or reach to rcut = {rcut} Å, found {table[-1, 1:]} at "
                f"{table[-1, 0]} Å"
            )
        zeros = np.zeros((last + 1 - len(table), columns))
        zeros[:, 0] = table[-1, 0] + step * np.arange(1, len(zeros) + 1)
        table = np.concatenate((table, zeros))
    coefficients = np.empty((ntypes, ntypes, len(table) - 1, 4))
    for i, j, v in zip(*np.triu_indices(ntypes), table[:, 1:].T):
        slopes = CubicSpline(table[:, 0], v, bc_type="clamped")(table[:, 0], 1)
        coefficients[i, j] = coefficients[j, i] = _cubics(v, step * slopes)
    return float(start), float(step), coefficients


def _cubics(v, dv):
    """Coefficients (n - 1, 4), highest power first, between n knots with values v and dv/du."""
    rise = np.diff(v)
    return np.column_stack((dv[:-1] + dv[1:] - 2 * rise, 3 * rise - 2 * dv[:-1] - dv[1:], dv[:-1], v[:-1]))
