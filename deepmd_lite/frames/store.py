"""Frames on disk: deepmd/hdf5 and deepmd/npy, the layouts of DeePMD-kit.

An address is a directory that holds ``type.raw`` (or holds such directories), a glob, ``file.h5`` (every
system in it), or ``file.h5#/group``. Each system is ``type.raw``, ``type_map.raw``, ``nopbc`` when no axis is
periodic, and sets ``set.000, set.001 ...`` of ``coord, box, energy, force, virial ...``, one row a frame. One
name is our own: ``pbc``, three flags, for slabs and wires. DeePMD-kit does not know it and takes such a
system as periodic along all three axes.

References
----------
DeePMD-kit documentation, "Formats of a system".
"""

import glob
from pathlib import Path

import numpy as np

from deepmd_lite.errors import DataError
from deepmd_lite.frames.layout import FILE_NAMES, Directory, Group, split_address
from deepmd_lite.frames.system import LABEL_SHAPES, System, joined, label_shape, validate
from deepmd_lite.frames.write import append_frame, write_system
from deepmd_lite.hdf5_guard import open_guarded

__all__ = ["System", "append_frame", "read_systems", "write_system"]


def read_systems(paths, type_map=None):
    """Read every system at the given addresses.

    Parameters
    ----------
    paths : str, Path or sequence of them
        Directories (searched for ``type.raw``), globs, ``file.h5``, ``file.h5#/group``.
    type_map : sequence of str, optional
        Elements by type; types are mapped to it by name. By default each system keeps its own.

    Returns
    -------
    list of System

    Raises
    ------
    DataError
        Nothing there, damaged or unsafe files, wrong shapes, non-finite numbers, flat cells, coincident
        atoms, an element that ``type_map`` lacks.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    systems = []
    for address in paths:
        for path, group in _expand(str(address)):
            systems += _read_hdf5(path, group, type_map) if path.is_file() else _read_npy(path, type_map)
    if not systems:
        raise DataError("expected at least one address of data, found none")
    for system in systems:
        validate(system)
    return systems if type_map is None else [system.remapped(type_map) for system in systems]


def _expand(address):
    """list of (Path, group): Files and directories of an address, globs expanded, in order of name."""
    path, group = (Path(address), None) if Path(address).exists() else split_address(address)
    if path.exists():
        return [(path, group)]
    found = sorted(glob.glob(str(path), recursive=True))
    if not found:
        shown = address if address.isprintable() else repr(address)
        raise DataError(f"{shown}: no such file or directory")
    return [(Path(p), group) for p in found]


def _read_npy(path, type_map):
    roots = sorted(p.parent for p in path.rglob("type.raw"))
    if not roots:
        raise DataError(f"{path}: expected directories with type.raw, found none")
    return [system for root in roots for system in _read(Directory(root), type_map)]


def _read_hdf5(path, group, type_map):
    with open_guarded(path) as root:
        top = root.group(group or "")
        systems = [s for g in top.walk() if "type.raw" in g for s in _read(Group(g), type_map)]
    if not systems:
        raise DataError(f"{top.address}: expected groups with type.raw, found none")
    return systems


def _read(source, type_map):
    """list of System: One; several when the source is mixed_type, one for each composition."""
    names = source.names()
    atype = source.integers("type.raw")
    if "type_map.raw" in names:
        type_map = source.words("type_map.raw")
    elif type_map is None:
        raise DataError(f"{source.address}: type_map.raw is missing; add it or give a type_map")
    atoms = {"type_map": tuple(type_map), "atype": atype.astype(np.int32), "pbc": _periodicity(source, names)}
    sets = [source.child(name) for name in sorted(names) if name.startswith("set.")]
    if not sets:
        raise DataError(f"{source.address}: expected set.000 and on, found no set")
    system = joined([_read_set(s, atoms) for s in sets], source.address)
    mixed = [s for s in sets if "real_atom_types" in s.names()]
    if not mixed:
        return [system]
    if len(mixed) != len(sets):
        raise DataError(f"{source.address}: real_atom_types is in {len(mixed)} of {len(sets)} sets")
    types = [_rows(s, "real_atom_types", None, (len(atype),)) for s in mixed]
    return _by_composition(system, np.concatenate(types).astype(np.int64))


def _periodicity(source, names):
    if "nopbc" in names:
        return np.zeros(3, dtype=bool)
    if "pbc" not in names:
        return np.ones(3, dtype=bool)
    flags = source.integers("pbc")
    if flags.shape != (3,) or not np.isin(flags, (0, 1)).all():
        raise DataError(f"{source.address}/pbc: expected three flags 0 or 1, found {flags.tolist()}")
    return flags.astype(bool)


def _read_set(source, atoms):
    """System: The frames of one set; ``atoms`` is what all sets of a system share. Shapes are checked."""
    names, natoms, periodic = source.names(), len(atoms["atype"]), atoms["pbc"].any()
    if "coord" not in names:
        raise DataError(
            f"{source.address}: expected coord.npy, found {', '.join(sorted(names)) or 'nothing'}"
        )
    if periodic and "box" not in names:
        raise DataError(f"{source.address}: expected box.npy, found none; add it, or nopbc beside type.raw")
    dtype = {}
    coord = _rows(source, "coord", None, (natoms, 3), dtype)
    nframes = len(coord)
    box = _rows(source, "box", nframes, (3, 3), dtype) if periodic else None
    labels = {}
    for label, aliases in FILE_NAMES.items():
        present = [a for a in aliases if a in names]
        if len(present) > 1:
            raise DataError(f"{source.address}: {' and '.join(present)} name one label; keep one")
        if present:
            labels[label] = _rows(source, present[0], nframes, label_shape(label, natoms), dtype)
            dtype[label] = dtype.pop(present[0])
    found = {label: np.ones(nframes, dtype=bool) for label in labels}
    return System(
        source.address, **atoms, coord=coord, box=box, labels=labels, found=found, source_dtype=dtype
    )


def _rows(source, name, nframes, shape, dtype=None):
    """One dataset as float64 (nframes, *shape); ``nframes`` None takes as many as there are.

    A one-dimensional array is one frame, or one number a frame. A 0 in ``shape`` is a width that the data
    choose. The type on disk goes into the dict ``dtype``.
    """
    where, array = f"{source.address}/{name}.npy", source.array(name)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected numbers, found dtype {array.dtype}")
    rows = array
    if array.ndim == 1:
        rows = array.reshape(1, -1) if nframes in (None, 1) else array.reshape(-1, 1)
    if 0 in shape and rows.ndim == 2:
        atoms = int(np.prod([n for n in shape if n], dtype=int))
        shape = tuple(n or max(1, rows.shape[1] // atoms) for n in shape)
    width = int(np.prod(shape, dtype=int))
    if rows.ndim != 2 or rows.shape[1] != width or nframes not in (None, len(rows)):
        frames = "nframes" if nframes is None else nframes
        six = shape == (3, 3) and rows.shape[1:] == (6,)
        hint = (
            "; six numbers may be lengths and angles or Voigt: write the 3×3 matrix row by row" if six else ""
        )
        raise DataError(f"{where}: expected shape ({frames}, {width}), found {array.shape}{hint}")
    if dtype is not None:
        dtype[name] = str(array.dtype)
    return rows.astype(np.float64).reshape(len(rows), *shape)


def _by_composition(system, types):
    """list of System: A mixed_type system by composition, atoms ordered by type, padding (−1) left out."""
    order = np.argsort(types, axis=1, kind="stable")
    kinds, member = np.unique(np.take_along_axis(types, order, axis=1), axis=0, return_inverse=True)
    systems = []
    for k, kind in enumerate(kinds):
        frames = np.flatnonzero(member.ravel() == k)
        real = order[frames][:, kind >= 0]  # (frames, natoms)
        part = system.select(frames)
        part.coord = np.take_along_axis(part.coord, real[:, :, None], axis=1)
        for key, value in part.labels.items():
            if LABEL_SHAPES[key][:1] == ("natoms",):
                at = real if value.ndim == 2 else real[:, :, None]
                part.labels[key] = np.take_along_axis(value, at, axis=1)
        part.atype = kind[kind >= 0].astype(np.int32)
        systems.append(part)
    return systems
