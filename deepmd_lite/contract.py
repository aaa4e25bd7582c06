"""What every implementation of a Deep Potential takes, returns and refuses.

`model.potential.DeepPot` (torch, the reference) and `engine.compiled.CompiledPot` (Numba, fast) have

    evaluate(coord, atype, box, pbc, fparam, aparam, atom_virial)         one structure -> Prediction
    evaluate_neighbors(ghosts, table, atype, fparam, aparam, atom_virial)  the same, its neighbors known

and ``type_map``, ``ntypes``, ``rcut``, ``sel``, ``model``. `evaluate.validate` compares the two on frames.
"""

import warnings
from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError, DomainError

MIN_DISTANCE = 0.01  # Å; R = 1/r has no meaning for atoms on top of each other


class Prediction(NamedTuple):
    """Energies in eV, forces in eV/Å, virials in eV: numpy arrays, float64, of one structure.

    (`DeepPot.forward` puts tensors in these places, of a batch of nframes structures.)
    """

    energy: float  # (nframes,) in a batch
    atom_energy: np.ndarray  # (natoms,)
    force: np.ndarray  # (natoms, 3)
    virial: np.ndarray  # (3, 3); (nframes, 3, 3) in a batch
    atom_virial: np.ndarray | None = None  # (natoms, 3, 3) when asked for: a pair counts for its neighbor


def checked_parameter(fitting, name, value, rows):
    """``fparam`` or ``aparam`` as (rows, width), None where the model has none.

    Parameters
    ----------
    fitting : model_file.Fitting
    name : "fparam" or "aparam"
    value : array or None
    rows : int

    Raises
    ------
    ConfigError
        Missing, not expected, or of the wrong size.
    """
    width = getattr(fitting, f"numb_{name}")
    if width == 0:
        if value is not None:
            raise ConfigError(f"{name} was given, but the model was trained without it: leave it out")
        return None
    found = "nothing" if value is None else f"shape {np.shape(value)}"
    if value is None or np.size(value) != rows * width:
        raise ConfigError(f"the model needs {name} of shape {(rows, width)}, found {found}")
    return np.asarray(value, np.float64).reshape(rows, width)


def refuse_overlap(coord, i, j, owner, closest=MIN_DISTANCE):
    """Raise DomainError for an atom i and an atom or ghost j closer than ``closest``, Å."""
    r = np.linalg.norm(coord[j] - coord[i])
    raise DomainError(
        f"atoms {owner[i]} and {owner[j]} are {r:.3g} Å apart; "
        f"expected at least {closest:g} Å: remove the overlap"
    )


def tell_overflow(found, sel, rcut):
    """Warn where ``found`` (ntypes,), the most neighbors by type, is more than ``sel``; True if it was."""
    overflow = any(n > s for n, s in zip(found, sel))
    if overflow:
        warnings.warn(
            f"an atom has {list(map(int, found))} neighbors within {rcut:g} Å, more than the model's sel = "
            f"{list(sel)}: they all count, nothing is truncated, but the model was not trained for such density",
            stacklevel=5,
        )
    return overflow
