"""HDF5 files from strangers: links, storage and declared sizes are checked before a byte of data is read.

HDF5 can point outside itself (external and soft links, external storage, virtual datasets), can declare a
dataset far larger than the file, and can hold a group inside itself. ``open_guarded`` gives a read-only view,
`Group`, that follows hard links only and reads an array only when the file really holds it. Frames and model
files are read through it and in no other way.
"""

from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from deepmd_lite.errors import DataError

MAX_MEMBERS = 100_000  # names in one group
MAX_DEPTH = 32  # groups within groups
DEFLATE_RATIO = 1032  # the most that deflate can shrink: 258 bytes in 2 bits
FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "deflate",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
}
READ_FAILURES = (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError)


def open_file(path, error=DataError):
    """Open an HDF5 file for reading, until `Group.close` or until none of its groups is in use any more.

    Parameters
    ----------
    path : str or Path
    error : type
        Class of the exception that a missing, damaged or unsafe file raises.

    Returns
    -------
    Group
        The root.
    """
    path = Path(path)
    if path.is_dir():
        raise error(f"{path}: expected an HDF5 file, found a directory")
    if not path.is_file():
        raise error(f"{path}: no such file")
    size = path.stat().st_size
    try:
        file = h5py.File(path, "r")
    except READ_FAILURES as reason:
        raise error(
            f"{path}: not a readable HDF5 file ({size} bytes; {reason}); "
            "is it truncated, or still being written?"
        ) from None
    return Group(file, str(path), "/", size, error)


@contextmanager
def open_guarded(path, error=DataError):
    """A context with what `open_file` returns; the file is closed at its end."""
    root = open_file(path, error)
    try:
        yield root
    finally:
        root.close()


class Group:
    """A group of a guarded file; ``address`` says where it is, as ``file.h5#/name``."""

    def __init__(self, group, path, name, file_size, error):
        self._group, self._path, self._file_size, self.error = group, path, file_size, error
        self.name = name  # absolute, "/" for the root

    @property
    def address(self):
        return f"{self._path}#{self.name}"

    def close(self):
        """Close the file."""
        self._group.file.close()

    def _where(self, name):
        return f"{self._path}#{self.name.rstrip('/')}/{name}"

    @contextmanager
    def _reading(self, where):
        """Whatever the HDF5 library trips over in here is damage."""
        try:
            yield
        except self.error:
            raise
        except READ_FAILURES as reason:
            raise self.error(f"{where}: damaged ({reason})") from None

    def names(self):
        """list of str: The names in this group, sorted."""
        with self._reading(self.address):
            count = len(self._group)
            if count > MAX_MEMBERS:
                raise self.error(f"{self.address}: expected at most {MAX_MEMBERS} names, found {count}")
            return sorted(self._group.keys())

    def __contains__(self, name):
        with self._reading(self._where(name)):
            return "/" not in name and self._group.id.links.exists(name.encode())

    def _open(self, name, kind=h5py.HLObject):
        """The object under one name: a hard link to an h5py.Group or h5py.Dataset."""
        where = self._where(name)
        if name not in self:
            raise self.error(f"{where}: not in the file")
        with self._reading(where):
            link = self._group.id.links.get_info(name.encode()).type
            if link != h5py.h5l.TYPE_HARD:
                label = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
                raise self.error(
                    f"{where}: {label.get(link, 'a link')}, refused; copy the data into the file"
                )
            found = self._group[name]
        if not isinstance(found, kind):
            raise self.error(f"{where}: expected a {kind.__name__.lower()}, found {type(found).__name__}")
        return found

    def is_group(self, name):
        """bool: Whether a name is a group; a link that leads elsewhere raises."""
        return isinstance(self._open(name), h5py.Group)

    def group(self, path):
        """Group: The group at a path below this one, one hard link at a time."""
        here = self
        for part in [p for p in str(path).split("/") if p]:
            name = f"{here.name.rstrip('/')}/{part}"
            here = Group(here._open(part, h5py.Group), self._path, name, self._file_size, self.error)
        return here

    def walk(self):
        """Yield this group and all below it, in order of name; a group that holds itself raises."""
        yield from self._walk(())

    def _walk(self, ancestors):
        with self._reading(self.address):
            here = h5py.h5o.get_info(self._group.id).addr
        if here in ancestors or len(ancestors) >= MAX_DEPTH:
            raise self.error(f"{self.address}: a group inside itself, or more than {MAX_DEPTH} deep; refused")
        yield self
        for name in self.names():
            if self.is_group(name):
                yield from self.group(name)._walk((*ancestors, here))

    def header(self, name):
        """Shape and dtype of a dataset of numbers, which the file really holds: (tuple, np.dtype)."""
        dataset = self._numbers(name)
        return dataset.shape, dataset.dtype

    def array(self, name, max_bytes=None, rows=()):
        """Read a dataset of numbers.

        Parameters
        ----------
        name : str
        max_bytes : int, optional
            Largest size to read; by default whatever the file really holds.
        rows : slice, optional
            Read these rows only.

        Returns
        -------
        np.ndarray
            As stored: bool, integer, float32 or float64 (float16 too; the caller judges).
        """
        dataset = self._numbers(name, max_bytes)
        with self._reading(self._where(name)):
            return np.asarray(dataset[rows])

    def _numbers(self, name, max_bytes=None):
        """h5py.Dataset: One of numbers, checked."""
        where, dataset = self._where(name), self._open(name, h5py.Dataset)
        with self._reading(where):
            if dataset.dtype.kind not in "biuf":
                raise self.error(f"{where}: expected numbers, found dtype {dataset.dtype}")
            self._check_size(dataset, where, max_bytes)
        return dataset

    def words(self, name, max_bytes=2**20):
        """Read a dataset of strings: list of str."""
        where, dataset = self._where(name), self._open(name, h5py.Dataset)
        with self._reading(where):
            if h5py.check_string_dtype(dataset.dtype) is None:
                raise self.error(f"{where}: expected strings, found dtype {dataset.dtype}")
            self._check_size(dataset, where, max_bytes)
            # strings of variable length lie elsewhere in the file, and all may be the same long one
            if dataset.dtype.kind == "O" and dataset.size * self._file_size > 2**30:
                raise self.error(f"{where}: {dataset.size} strings of variable length, refused")
            values = np.atleast_1d(dataset[()]).ravel().tolist()
            return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]

    def text_attribute(self, name):
        """Read a string attribute of this group: str."""
        where = f"{self.address} attribute {name!r}"
        with self._reading(where):
            if name not in self._group.attrs:
                raise self.error(f"{where}: expected a string, found nothing")
            attribute = self._group.attrs.get_id(name)
            if attribute.shape != () or h5py.check_string_dtype(attribute.dtype) is None:
                raise self.error(f"{where}: expected one string, found {attribute.dtype} {attribute.shape}")
            if attribute.get_storage_size() > self._file_size:
                raise self.error(f"{where}: declares more bytes than the file holds")
            value = self._group.attrs[name]
            return value.decode() if isinstance(value, bytes) else str(value)

    def _check_size(self, dataset, where, max_bytes):
        """Refuse storage outside the file and sizes that the file cannot hold."""
        if dataset.shape is None:
            raise self.error(f"{where}: expected an array, found an empty dataspace")
        plist = dataset.id.get_create_plist()
        if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count() > 0:
            raise self.error(f"{where}: virtual or external storage, refused; copy the data into the file")
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        unknown = [f for f in filters if f not in FILTERS]
        if unknown:
            raise self.error(
                f"{where}: filter number {unknown[0]}, expected one of {', '.join(FILTERS.values())}"
            )
        declared = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        shrinks = any(f in (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF) for f in filters)
        if stored > self._file_size or declared > stored * (DEFLATE_RATIO if shrinks else 1):
            raise self.error(
                f"{where}: declares {declared} bytes {dataset.shape}, the file holds {stored} of them"
            )
        if max_bytes is not None and declared > max_bytes:
            raise self.error(f"{where}: {declared} bytes {dataset.shape}, expected at most {max_bytes}")
