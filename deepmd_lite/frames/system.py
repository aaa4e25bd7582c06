"""The frames of one composition and order of atoms, in memory, and what makes them usable.

Units: Å, eV, eV/Å; the virial is −dE/dstrain in eV, row-major, positive when compressed.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import cKDTree

from deepmd_lite.box import complete_cell
from deepmd_lite.errors import DataError, DomainError

COINCIDENT = 1e-2  # Å: two atoms closer than this are one atom twice, not physics

# label: its shape for one frame; natoms is the number of atoms, 0 a width that the data choose
LABEL_SHAPES = {
    "energy": (),
    "force": ("natoms", 3),
    "virial": (3, 3),
    "fparam": (0,),
    "aparam": ("natoms", 0),
    "atom_energy": ("natoms",),
    "atom_pref": ("natoms",),
    "weight": (),
}


@dataclass
class System:
    """Frames of one composition and order of atoms.

    Attributes
    ----------
    name : str
        Where it came from, e.g. ``water.h5#/liquid`` or ``data/water/data_0``.
    type_map : tuple of str
        Element of each type.
    atype : np.ndarray
        (natoms,) int32, index into ``type_map``.
    coord : np.ndarray
        (nframes, natoms, 3), Å.
    box : np.ndarray or None
        (nframes, 3, 3), cell vectors in rows, Å; None when no axis is periodic.
    pbc : np.ndarray
        (3,) bool, per axis.
    labels : dict
        ``energy`` (nframes,) eV, ``force`` (nframes, natoms, 3) eV/Å, ``virial`` (nframes, 3, 3) eV, and
        optionally ``fparam``, ``aparam``, ``atom_energy``, ``atom_pref``, ``weight``; float64, 0 where not found.
    found : dict
        For each label (nframes,) bool: the frames that have it.
    source_dtype : dict
        Type on disk of ``coord``, ``box`` and each label.
    """

    name: str
    type_map: tuple[str, ...]
    atype: np.ndarray
    coord: np.ndarray
    box: np.ndarray | None
    pbc: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    source_dtype: dict[str, str] = field(default_factory=dict)

    @property
    def nframes(self):
        return len(self.coord)

    @property
    def natoms(self):
        return len(self.atype)

    @property
    def symbols(self):
        """list of str: The element of each atom."""
        return [self.type_map[t] for t in self.atype]

    @property
    def formula(self):
        """str: Elements in alphabetical order with their counts, e.g. ``H128O64``."""
        return formula(self.symbols)

    def select(self, frames, name=None):
        """System: The frames of an index array or slice, in that order."""
        return replace(
            self,
            name=name or self.name,
            coord=self.coord[frames],
            box=None if self.box is None else self.box[frames],
            labels={key: value[frames] for key, value in self.labels.items()},
            found={key: value[frames] for key, value in self.found.items()},
        )

    def remapped(self, type_map):
        """System: The same frames with types counted in another list of elements.

        Raises
        ------
        DataError
            An atom is of an element that ``type_map`` lacks.
        """
        type_map = tuple(type_map)
        missing = sorted(set(self.symbols) - set(type_map))
        if missing:
            raise DataError(
                f"{self.name}: element{'s' * (len(missing) > 1)} {', '.join(missing)} not in the type_map "
                f"[{', '.join(type_map)}]; add to the type_map or leave these frames out"
            )
        atype = np.array([type_map.index(s) for s in self.symbols], dtype=np.int32)
        return replace(self, type_map=type_map, atype=atype)


def joined(systems, name):
    """System: Frames of the same atoms one after another; a label that a part lacks is 0 and not found there.

    Parameters
    ----------
    systems : list of System
        The same atoms, order and periodicity; not checked.
    name : str

    Raises
    ------
    DataError
        ``fparam`` or ``aparam`` of different widths.
    """
    labels, found = {}, {}
    for key in LABEL_SHAPES:
        shapes = {s.labels[key].shape[1:] for s in systems if key in s.labels}
        if len(shapes) > 1:
            raise DataError(f"{name}: {key} has different widths in different sets: {sorted(shapes)}")
        for shape in shapes:
            labels[key] = np.concatenate([s.labels.get(key, np.zeros((s.nframes, *shape))) for s in systems])
            found[key] = np.concatenate([s.found.get(key, np.zeros(s.nframes, dtype=bool)) for s in systems])
    dtypes = [s.source_dtype for s in systems]
    return replace(
        systems[0],
        name=name,
        coord=np.concatenate([s.coord for s in systems]),
        box=None if systems[0].box is None else np.concatenate([s.box for s in systems]),
        labels=labels,
        found=found,
        source_dtype={  # the least precise that occurs
            key: min((d[key] for d in dtypes if key in d), key=lambda t: np.dtype(t).itemsize)
            for key in dict.fromkeys(k for d in dtypes for k in d)
        },
    )


def formula(symbols):
    """str: Elements in alphabetical order with their counts, 1 left out."""
    return "".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(Counter(symbols).items()))


def label_shape(label, natoms, width=0):
    """tuple of int: Shape of one frame of a label; ``width`` stands where the data choose."""
    return tuple(natoms if n == "natoms" else n or width for n in LABEL_SHAPES[label])


def validate(system, first=0):
    """Raise DataError when a system cannot be used: shapes, non-finite numbers, cells, coincident atoms.

    Parameters
    ----------
    system : System
    first : int, optional
        What messages call its first frame.
    """
    natoms, nframes = system.natoms, system.nframes
    check_atoms(system, nframes)
    _check_array(system, "coord", system.coord, (nframes, natoms, 3), first)
    for key, value in system.labels.items():
        shape = label_shape(key, natoms, width=value.shape[-1] if value.ndim else 0)
        _check_array(system, key, value, (nframes, *shape), first)
        _check_array(system, f"found[{key}]", system.found[key], (nframes,), first)
    _check_coincident(system, _checked_cells(system, first), first)


def check_atoms(system, nframes):
    """Raise DataError where there are no frames or atoms, or types that are not elements, or elements twice."""
    name, natoms = system.name, system.natoms
    if len(set(system.type_map)) != len(system.type_map):
        raise DataError(f"{name}: type_map names an element twice: {', '.join(system.type_map)}")
    if natoms == 0:
        raise DataError(f"{name}: expected atoms, found none")
    if nframes == 0:
        raise DataError(f"{name}: expected frames, found none")
    if system.atype.min() < 0 or system.atype.max() >= len(system.type_map):
        bad = int(system.atype[(system.atype < 0) | (system.atype >= len(system.type_map))][0])
        raise DataError(
            f"{name}: type.raw holds type {bad}, expected 0 to {len(system.type_map) - 1} "
            f"for the type_map [{', '.join(system.type_map)}]"
        )


def _check_array(system, dataset, array, shape, first):
    if array.shape != shape:
        raise DataError(f"{system.name}: {dataset} expected shape {shape}, found {array.shape}")
    finite = np.isfinite(array).reshape(len(array), -1)
    if not finite.all():
        frame, entry = np.argwhere(~finite)[0]
        value = array.reshape(len(array), -1)[frame, entry]
        raise DataError(
            f"{system.name}: {dataset} of frame {first + frame} holds {value}; expected finite numbers"
        )


def _checked_cells(system, first):
    """(nframes, 3, 3) array or None: Full cells; a vector along an axis that is not periodic is replaced."""
    if not system.pbc.any():
        return None
    if system.box is None:
        raise DataError(f"{system.name}: periodic, but without a cell; give box, or mark it nopbc")
    _check_array(system, "box", system.box, (system.nframes, 3, 3), first)
    boxes, at, which = np.unique(system.box, axis=0, return_index=True, return_inverse=True)
    for k, box in enumerate(boxes):
        try:
            boxes[k] = complete_cell(box, system.pbc)
        except DomainError as reason:
            raise DataError(f"{system.name}: cell of frame {first + at[k]}: {reason}") from None
    return boxes[which.ravel()]


def _check_coincident(system, cells, first):
    """Refuse two atoms of a frame (or an atom and an image) within COINCIDENT of one another.

    One k-d tree holds all frames: a fourth coordinate, the frame number, keeps them apart. With a cell the
    other three are fractional, where |Δs| ≤ |Δr| / σ_min(box): a ball in s holds every pair to be measured.
    """
    nframes, natoms = system.nframes, system.natoms
    point, radius, period = system.coord, COINCIDENT, np.zeros(4)
    if cells is not None:
        point = system.coord @ np.linalg.inv(cells)
        point = np.where(system.pbc, point - np.floor(point), point)
        point = np.where(system.pbc & (point >= 1.0), 0.0, point)  # -1e-20 - floor(-1e-20) is 1
        radius = min(0.45, COINCIDENT / np.linalg.svd(cells, compute_uv=False).min())
        period[:3] = system.pbc
    frame = np.repeat(np.arange(nframes, dtype=float), natoms)
    point = np.column_stack([point.reshape(-1, 3), frame])
    tree = cKDTree(point, boxsize=period, balanced_tree=False, compact_nodes=False)
    pairs = tree.query_pairs(radius, output_type="ndarray")
    if len(pairs) == 0:
        return
    step = point[pairs[:, 1], :3] - point[pairs[:, 0], :3]
    if cells is not None:
        step -= np.where(system.pbc, np.round(step), 0.0)
        step = np.einsum("pi,pij->pj", step, cells[pairs[:, 0] // natoms])
    distance = np.linalg.norm(step, axis=1)
    nearest = int(np.argmin(distance))
    if distance[nearest] < COINCIDENT:
        at, i, j = pairs[nearest, 0] // natoms, *(pairs[nearest] % natoms)
        raise DataError(
            f"{system.name}: atoms {i} ({system.symbols[i]}) and {j} ({system.symbols[j]}) of frame {first + at} are "
            f"{distance[nearest]:.2g} Å apart; expected more than {COINCIDENT} Å. Remove that frame"
        )
