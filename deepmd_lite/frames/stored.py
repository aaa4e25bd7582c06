"""Frames that stay on disk: what files say of them is checked when they are opened, numbers are read on demand."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import DataError
from deepmd_lite.frames.layout import FILE_NAMES, Directory, Group
from deepmd_lite.frames.system import LABEL_SHAPES, System, joined, label_shape

BLOCK = 2**22  # bytes of real_atom_types that are looked at together


class Dataset(NamedTuple):
    """An array on disk: (nframes, *shape) numbers, whatever its own shape is."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    single: bool  # one-dimensional, and all of one frame

    def read(self, source, rows):
        """(nframes, *shape) array: The frames of a slice, as stored."""
        values = source.array(self.name, () if self.single else rows)
        return values.reshape(rows.stop - rows.start, *self.shape)


@dataclass
class StoredSet:
    """A ``set.000``: where it is and what it holds."""

    source: Directory | Group
    nframes: int
    coord: Dataset
    box: Dataset | None
    labels: dict[str, Dataset]
    types: Dataset | None  # real_atom_types

    def read(self, head, rows):
        """System: The frames of a slice; ``head`` is a system of the same atoms."""
        nframes = rows.stop - rows.start

        def numbers(dataset):
            return dataset.read(self.source, rows).astype(np.float64)

        part = replace(
            head,
            coord=numbers(self.coord),
            box=self.box and numbers(self.box),
            labels={key: numbers(dataset) for key, dataset in self.labels.items()},
            found={key: np.ones(nframes, dtype=bool) for key in self.labels},
            source_dtype={},
        )
        return part if self.types is None else _in_order(part, self.types.read(self.source, rows))

    def head(self, **atoms):
        """System: The atoms, and the labels and types on disk of this set, without a frame."""
        named = {"coord": self.coord, **({"box": self.box} if self.box else {}), **self.labels}
        return System(
            self.source.address,
            **atoms,
            coord=np.zeros((0, *self.coord.shape)),
            box=self.box and np.zeros((0, 3, 3)),
            labels={key: np.zeros((0, *dataset.shape)) for key, dataset in self.labels.items()},
            found={key: np.zeros(0, dtype=bool) for key in self.labels},
            source_dtype={key: dataset.dtype for key, dataset in named.items()},
        )


@dataclass
class StoredSystem:
    """Frames of one composition and order of atoms, on disk.

    Attributes
    ----------
    head : System
        What the frames have in common, without a frame.
    sets : list of StoredSet
    frames : range or np.ndarray
        (nframes,) numbers of the frames, ascending, counted over all sets.
    """

    head: System
    sets: list[StoredSet]
    frames: range | np.ndarray

    def __post_init__(self):
        self._first = np.cumsum([0, *(s.nframes for s in self.sets)])

    @property
    def name(self):
        return self.head.name

    @property
    def nframes(self):
        return len(self.frames)

    @property
    def natoms(self):
        return self.head.natoms

    @property
    def found(self):
        """set of str: Labels that some frames have."""
        return {key for k in np.unique(self._set_of(self.frames)) for key in self.sets[k].labels}

    def _set_of(self, frames):
        return np.searchsorted(self._first, np.asarray(frames), side="right") - 1

    def read(self, start=0, stop=None):
        """System: The frames from ``start`` to ``stop``; shapes are right, numbers may be anything (`validate`)."""
        frames = np.asarray(self.frames[start:stop], dtype=np.int64)
        which = self._set_of(frames)
        cuts = np.flatnonzero((np.diff(which) != 0) | (np.diff(frames) != 1)) + 1
        parts = [self.head]
        for run, k in zip(np.split(frames, cuts), np.split(which, cuts)):
            if len(run):
                first = int(run[0] - self._first[k[0]])
                parts.append(self.sets[k[0]].read(self.head, slice(first, first + len(run))))
        return joined(parts, self.name)

    def remapped(self, type_map):
        """StoredSystem: As `System.remapped`."""
        return replace(self, head=self.head.remapped(type_map))


def open_system(source, type_map=None):
    """The system in a directory or group.

    Parameters
    ----------
    source : layout.Directory or layout.Group
    type_map : sequence of str, optional
        Elements by type where ``type_map.raw`` is missing.

    Returns
    -------
    list of StoredSystem
        One; several when the source is mixed_type, one for each composition.
    """
    names = source.names()
    atype = source.integers("type.raw")
    if "type_map.raw" in names:
        type_map = source.words("type_map.raw")
    elif type_map is None:
        raise DataError(f"{source.address}: type_map.raw is missing; add it or give a type_map")
    atoms = {"type_map": tuple(type_map), "atype": atype.astype(np.int32), "pbc": _periodicity(source, names)}
    children = [source.child(name) for name in sorted(names) if name.startswith("set.")]
    if not children:
        raise DataError(f"{source.address}: expected set.000 and on, found no set")
    sets = [_open_set(child, len(atype), atoms["pbc"].any()) for child in children]
    head = joined([s.head(**atoms) for s in sets], source.address)
    mixed = sum(s.types is not None for s in sets)
    if mixed == 0:
        return [StoredSystem(head, sets, range(sum(s.nframes for s in sets)))]
    if mixed < len(sets):
        raise DataError(f"{source.address}: real_atom_types is in {mixed} of {len(sets)} sets")
    return _by_composition(head, sets)


def _periodicity(source, names):
    if "nopbc" in names:
        return np.zeros(3, dtype=bool)
    if "pbc" not in names:
        return np.ones(3, dtype=bool)
    flags = source.integers("pbc")
    if flags.shape != (3,) or not np.isin(flags, (0, 1)).all():
        raise DataError(f"{source.address}/pbc: expected three flags 0 or 1, found {flags.tolist()}")
    return flags.astype(bool)


def _open_set(source, natoms, periodic):
    names = source.names()
    if "coord" not in names:
        raise DataError(
            f"{source.address}: expected coord.npy, found {', '.join(sorted(names)) or 'nothing'}"
        )
    if periodic and "box" not in names:
        raise DataError(f"{source.address}: expected box.npy, found none; add it, or nopbc beside type.raw")
    nframes, coord = _open(source, "coord", None, (natoms, 3))
    box = _open(source, "box", nframes, (3, 3))[1] if periodic else None
    labels = {}
    for label, aliases in FILE_NAMES.items():
        present = [a for a in aliases if a in names]
        if len(present) > 1:
            raise DataError(f"{source.address}: {' and '.join(present)} name one label; keep one")
        if present:
            labels[label] = _open(source, present[0], nframes, label_shape(label, natoms))[1]
    return StoredSet(
        source,
        nframes,
        coord,
        box,
        labels,
        _open(source, "real_atom_types", nframes, (natoms,))[1] if "real_atom_types" in names else None,
    )


def _open(source, name, nframes, shape):
    """(number of frames, Dataset); ``nframes`` None takes as many as there are.

    A one-dimensional array is one frame, or one number a frame. A 0 in ``shape`` is a width that the data
    choose.
    """
    where, (found, dtype) = f"{source.address}/{name}.npy", source.header(name)
    if dtype.kind not in "biuf":
        raise DataError(f"{where}: expected numbers, found dtype {dtype}")
    single = len(found) == 1 and nframes in (None, 1)
    rows = found
    if len(found) == 1:
        rows = (1, *found) if single else (*found, 1)
    if 0 in shape and len(rows) == 2:
        atoms = int(np.prod([n for n in shape if n], dtype=int))
        shape = tuple(n or max(1, rows[1] // atoms) for n in shape)
    width = int(np.prod(shape, dtype=int))
    if len(rows) != 2 or rows[1] != width or nframes not in (None, rows[0]):
        frames = "nframes" if nframes is None else nframes
        six = shape == (3, 3) and rows[1:] == (6,)
        hint = (
            "; six numbers may be lengths and angles or Voigt: write the 3×3 matrix row by row" if six else ""
        )
        raise DataError(f"{where}: expected shape ({frames}, {width}), found {found}{hint}")
    return rows[0], Dataset(name, shape, str(dtype), single)


def _by_composition(head, sets):
    """list of StoredSystem: The frames of mixed_type sets by composition."""
    frames, first = {}, 0
    for s in sets:
        step = max(1, BLOCK // (8 * head.natoms or 1))
        for start in range(0, s.nframes, step):
            types = s.types.read(s.source, slice(start, min(start + step, s.nframes))).astype(np.int64)
            kinds, member = np.unique(np.sort(types, axis=1), axis=0, return_inverse=True)
            for k, kind in enumerate(kinds):
                here = np.flatnonzero(member.ravel() == k)
                frames.setdefault(tuple(kind.tolist()), []).append(first + start + here)
        first += s.nframes
    systems = []
    for kind, numbers in sorted(frames.items()):
        atype = np.array([t for t in kind if t >= 0], dtype=np.int32)
        labels = {
            key: value[:, : len(atype)] if LABEL_SHAPES[key][:1] == ("natoms",) else value
            for key, value in head.labels.items()
        }
        part = replace(head, atype=atype, coord=head.coord[:, : len(atype)], labels=labels)
        systems.append(StoredSystem(part, sets, np.concatenate(numbers)))
    return systems


def _in_order(system, types):
    """System: Frames of one mixed_type composition, atoms ordered by type, padding (−1) left out."""
    order = np.argsort(types, axis=1, kind="stable")
    real = order[:, types.shape[1] - system.natoms :]  # (nframes, natoms)

    def ordered(value):
        return np.take_along_axis(value, real if value.ndim == 2 else real[:, :, None], axis=1)

    labels = {
        key: ordered(value) if LABEL_SHAPES[key][:1] == ("natoms",) else value
        for key, value in system.labels.items()
    }
    return replace(system, coord=ordered(system.coord), labels=labels)
