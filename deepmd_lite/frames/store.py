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
from contextlib import ExitStack
from pathlib import Path

from deepmd_lite.errors import DataError
from deepmd_lite.frames.layout import Directory, Group, split_address
from deepmd_lite.frames.stored import StoredSystem, open_system
from deepmd_lite.frames.system import System, check_atoms, validate
from deepmd_lite.frames.write import append_frame, write_system
from deepmd_lite.hdf5_guard import open_file

__all__ = ["StoredSystem", "System", "append_frame", "open_systems", "read_systems", "write_system"]


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
    with ExitStack() as files:
        systems = [stored.read() for stored in _open(paths, type_map, files)]
    for system in systems:
        validate(system)
    return systems if type_map is None else [system.remapped(type_map) for system in systems]


def open_systems(paths, type_map=None):
    """As `read_systems`, but the frames stay on disk; for `StoredSystem.read`, HDF5 files stay open.

    Returns
    -------
    list of StoredSystem

    Raises
    ------
    DataError
        As `read_systems`, but for the numbers: what is read is still to be checked (`system.validate`).
    """
    with ExitStack() as files:
        systems = _open(paths, type_map, files)
        for system in systems:
            check_atoms(system.head, system.nframes)
        if type_map is not None:
            systems = [system.remapped(type_map) for system in systems]
        files.pop_all()
    return systems


def _open(paths, type_map, files):
    """list of StoredSystem; the ExitStack ``files`` closes what is opened."""
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    systems, roots = [], {}
    for address in paths:
        for path, group in _expand(str(address)):
            if not path.is_file():
                systems += _open_npy(path, type_map)
                continue
            if path not in roots:
                roots[path] = open_file(path)
                files.callback(roots[path].close)
            systems += _open_hdf5(roots[path], group, type_map)
    if not systems:
        raise DataError("expected at least one address of data, found none")
    return systems


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


def _open_npy(path, type_map):
    roots = sorted(p.parent for p in path.rglob("type.raw"))
    if not roots:
        raise DataError(f"{path}: expected directories with type.raw, found none")
    return [system for root in roots for system in open_system(Directory(root), type_map)]


def _open_hdf5(root, group, type_map):
    top = root.group(group or "")
    systems = [s for g in top.walk() if "type.raw" in g for s in open_system(Group(g), type_map)]
    if not systems:
        raise DataError(f"{top.address}: expected groups with type.raw, found none")
    return systems
