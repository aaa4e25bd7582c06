"""The layout on disk: addresses, file names, and the two places where a system lives.

A system is a deepmd/npy directory or a deepmd/hdf5 group, read through the same six methods. Neither runs
code: arrays of pickled objects are refused, and HDF5 is read through the guard.
"""

from pathlib import Path

import numpy as np

from deepmd_lite.errors import DataError
from deepmd_lite.frames.system import LABEL_SHAPES

FILE_NAMES = {label: (label,) for label in LABEL_SHAPES} | {
    "atom_energy": ("atom_ener", "atomic_ener", "atom_energy", "atomic_energy"),
    "atom_pref": ("atom_pref", "atomic_pref"),
}


def split_address(address):
    """(Path, str or None): ``file.h5#/a/b`` as its file and the group ``a/b``; None without ``#``."""
    path, mark, group = str(address).partition("#")
    return Path(path), group.strip("/") if mark else None


class Directory:
    """A deepmd/npy directory."""

    def __init__(self, path):
        self.path, self.address = path, str(path)

    def names(self):
        return {p.name.removesuffix(".npy") for p in self.path.iterdir()}

    def child(self, name):
        return Directory(self.path / name)

    def words(self, name):
        try:
            return (self.path / name).read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as reason:
            raise DataError(f"{self.path / name}: not readable as text ({reason})") from None

    def integers(self, name):
        words = self.words(name)
        try:
            return np.array([int(w) for w in words], dtype=np.int64)
        except (ValueError, OverflowError) as reason:
            raise DataError(f"{self.path / name}: expected integers ({reason})") from None

    def header(self, name):
        mapped = self._mapped(name)
        return mapped.shape, mapped.dtype

    def array(self, name, rows=()):
        return np.array(self._mapped(name)[rows])

    def _mapped(self, name):
        path = self.path / f"{name}.npy"
        try:  # a header that declares more than the file holds is refused, a pickle too
            return np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError, TypeError, OverflowError, MemoryError, SyntaxError) as reason:
            raise DataError(f"{path}: not a readable array of numbers ({reason})") from None


class Group:
    """A deepmd/hdf5 group: wraps `deepmd_lite.hdf5_guard.Group`."""

    def __init__(self, group):
        self.group, self.address = group, group.address

    def names(self):
        return {name.removesuffix(".npy") for name in self.group.names()}

    def child(self, name):
        return Group(self.group.group(name))

    def words(self, name):
        return self.group.words(name)

    def integers(self, name):
        values = self.group.array(name).ravel()
        if values.dtype.kind not in "biu":
            raise DataError(f"{self.address}/{name}: expected integers, found {values.dtype}")
        return values.astype(np.int64)

    def header(self, name):
        return self.group.header(f"{name}.npy")

    def array(self, name, rows=()):
        return self.group.array(f"{name}.npy", rows=rows)
