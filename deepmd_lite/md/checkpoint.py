"""Restart files: HDF5, exact to the last bit, without code or pickle.

::

    attributes  format = "deepmd_lite md checkpoint", digest (CRC-32 of meta)
    /meta       JSON, as bytes: strings of variable length would be a weak spot, where HDF5 can hang on damage
    /atoms      coord, velocity, image, atype, mobile, ... in order of id
    /integrator what the integrator remembers
    /cell /pbc

``meta`` holds version, natoms, step, seed, dt, the positions of the output files, and the CRC-32 of every
array: a flipped bit is noticed. A file is written beside its place, synced and renamed, so that it is the old
one or the new one, whole, whatever happens.
"""

import json
import os
import re
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EINVAL, EIO, ENOSYS, EOPNOTSUPP
from pathlib import Path

import h5py
import numpy as np

from deepmd_lite import strict_json
from deepmd_lite.errors import DataError, DomainError
from deepmd_lite.hdf5_guard import open_guarded

FORMAT, VERSION = "deepmd_lite md checkpoint", 1
ATOM_ARRAYS = {  # type and shape per atom of what every checkpoint holds; others may come with them
    "coord": (np.float64, (3,)),
    "velocity": (np.float64, (3,)),
    "image": (np.int32, (3,)),
    "atype": (np.int32, ()),
    "mobile": (np.float64, (1,)),
}
METADATA = 2**16  # bytes that HDF5 may need beside the data


@dataclass(eq=False)
class Checkpoint:
    """What `read_checkpoint` found.

    Attributes
    ----------
    natoms : int
        In the file.
    atoms : dict of array
        ``id`` (n,) int64 and at least coord (n, 3), velocity (n, 3), image (n, 3) int32, atype (n,) int32 and
        mobile (n, 1), for the rows asked for, in order of id; Å, Å/fs.
    cell : (3, 3) float64, Å
    pbc : (3,) bool
    step, seed : int
    dt : float, fs
    integrator : dict of array
    positions : dict
        Of the output files, from ``position()`` of their writers, by file name.
    extra : dict
        Whatever else `CheckpointWriter.finish` was given.
    """

    natoms: int
    atoms: dict
    cell: np.ndarray
    pbc: np.ndarray
    step: int
    seed: int
    dt: float
    integrator: dict
    positions: dict
    extra: dict


class CheckpointWriter:
    """Writes a checkpoint from slices of its arrays; use it in a ``with`` block.

    No more than one array is held in memory at a time if they come one name after the other::

        with CheckpointWriter(path, natoms) as checkpoint:
            for name in ("coord", "velocity", "image", "atype", "mobile"):
                for ids, values in slices(name):
                    checkpoint.put(ids, name, values)
            checkpoint.finish(meta)

    Parameters
    ----------
    path : str or Path
    natoms : int

    Raises
    ------
    OSError
        If the file cannot be written, as when the disk is full; what was there before is kept.
    """

    def __init__(self, path, natoms):
        self.path, self.natoms = Path(path), natoms
        self._beside = self.path.with_name(f".{self.path.name}.part")
        self._pending = {}  # name to (array, whether an atom came, how many came)
        self._crc = {}  # dataset to CRC-32
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = h5py.File(self._beside, "w", locking=False)
            except OSError:
                self._beside.unlink(missing_ok=True)
                raise

    def put(self, ids, name, values):
        """Take the values of some atoms, in any order.

        Parameters
        ----------
        ids : (n,) int
        name : str
            Of `ATOM_ARRAYS`, or any other.
        values : (n, ...) array

        Raises
        ------
        DomainError
            If an atom comes twice: it was doubled or lost in a migration.
        """
        values = np.asarray(values)
        done = f"atoms/{name}" in self._crc
        if name not in self._pending and not done:
            dtype, width = ATOM_ARRAYS.get(name, (values.dtype, values.shape[1:]))
            self._pending[name] = (np.empty((self.natoms, *width), dtype), np.zeros(self.natoms, bool), 0)
        array, came, count = self._pending.get(name, (None, None, self.natoms))
        count += len(ids)
        if count > self.natoms:
            raise DomainError(f"{self.path}: expected {self.natoms} atoms of {name}, found {count}")
        if done:
            return  # a rank without atoms
        array[ids], came[ids] = values, True
        self._pending[name] = (array, came, count)
        if count == self.natoms:
            if not came.all():
                raise DomainError(f"{self.path}: expected each atom once, found none of id {np.argmin(came)}")
            self._store(f"atoms/{name}", self._pending.pop(name)[0])

    def finish(self, meta):
        """Write the rest, and put the file in its place.

        Parameters
        ----------
        meta : dict
            cell (3, 3), pbc (3,), step, seed, dt; integrator, a dict of arrays; positions, a dict of JSON,
            optional. Other keys hold JSON and come back in `Checkpoint.extra`.

        Raises
        ------
        DomainError
            If atoms are missing.
        OSError
            As at the start.
        """
        for name in ATOM_ARRAYS:
            if f"atoms/{name}" not in self._crc:
                count = self._pending[name][2] if name in self._pending else 0
                raise DomainError(f"{self.path}: expected {self.natoms} atoms of {name}, found {count}")
        rest = dict(meta)
        self._store("cell", np.asarray(rest.pop("cell"), np.float64))
        self._store("pbc", np.asarray(rest.pop("pbc"), bool))
        for name, values in rest.pop("integrator").items():
            self._store(f"integrator/{name}", np.asarray(values))
        numbers = {"step": int(rest.pop("step")), "seed": int(rest.pop("seed")), "dt": float(rest.pop("dt"))}
        header = {
            "version": VERSION,
            "natoms": self.natoms,
            **numbers,
            "positions": rest.pop("positions", {}),
        }
        header |= {"extra": rest, "crc32": dict(self._crc)}
        text = json.dumps(header, allow_nan=False).encode()
        self._store("meta", np.frombuffer(text, np.uint8))
        with naming(self.path):
            self._file.attrs["format"] = np.bytes_(FORMAT)
            self._file.attrs["digest"] = np.bytes_(_digest(text))
            flush(self._file)
            self._file.close()
            _sync(self._beside)
            os.replace(self._beside, self.path)
            _sync(self.path.parent)

    def _store(self, name, array):
        array = np.asarray(array, order="C")
        with naming(self.path):
            reserve(self._file, array.nbytes)
            self._file[name] = array
        self._crc[name] = zlib.crc32(array)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Without `finish`, leave nothing behind."""
        with suppress(OSError, RuntimeError):
            self._file.close()
        self._beside.unlink(missing_ok=True)


def write_checkpoint(path, atoms, meta):
    """Write a checkpoint of arrays that are all here.

    Parameters
    ----------
    path : str or Path
    atoms : dict of array
        ``id`` (natoms,), and as `Checkpoint.atoms`, in any one order.
    meta : dict
        As for `CheckpointWriter.finish`.

    Raises
    ------
    DomainError, OSError
        As `CheckpointWriter`.
    """
    with CheckpointWriter(path, len(atoms["id"])) as checkpoint:
        for name, values in atoms.items():
            if name != "id":
                checkpoint.put(atoms["id"], name, values)
        checkpoint.finish(meta)


def read_checkpoint(path, rows=slice(None)):
    """Read a checkpoint.

    Parameters
    ----------
    path : str or Path
    rows : slice
        Which atoms to keep, by id; one array at a time is read whole.

    Returns
    -------
    Checkpoint

    Raises
    ------
    DataError
        If the file is missing, damaged, truncated, from a later version or something else.
    """
    with open_guarded(path) as root:
        meta = _meta(path, root)
        natoms, crc = meta["natoms"], meta["crc32"]
        forms = {f"atoms/{name}": (kind, (natoms, *width)) for name, (kind, width) in ATOM_ARRAYS.items()}
        forms |= {"cell": (np.float64, (3, 3)), "pbc": (np.bool_, (3,))}

        def read(name):
            group, _, last = name.rpartition("/")
            array = root.group(group).array(last)
            if zlib.crc32(array) != crc[name]:
                raise DataError(f"{path}#/{name}: damaged (its CRC-32 is not {crc[name]})")
            kind, shape = forms.get(name, (array.dtype, array.shape))
            if array.dtype != kind or array.shape != shape:
                expected = f"{np.dtype(kind)} {shape}"
                raise DataError(f"{path}#/{name}: expected {expected}, found {array.dtype} {array.shape}")
            return array

        def under(group):
            return {name.partition("/")[2]: name for name in crc if name.startswith(f"{group}/")}

        for name in forms:
            if name not in crc:
                raise DataError(f"{path}#/{name}: expected an array, found none")
        atoms = {key: read(name)[rows].copy() for key, name in under("atoms").items()}
        return Checkpoint(
            natoms=natoms,
            atoms={"id": np.arange(natoms)[rows], **atoms},
            cell=read("cell"),
            pbc=read("pbc"),
            integrator={key: read(name) for key, name in under("integrator").items()},
            **{key: meta[key] for key in ("step", "seed", "dt", "positions", "extra")},
        )


def _meta(path, root):
    """The JSON of a checkpoint, checked."""
    if "atoms" not in root:
        raise DataError(f"{path}: expected a checkpoint of dplite md, found another HDF5 file")
    if root.text_attribute("format") != FORMAT:
        raise DataError(f"{path}: expected a {FORMAT}, found {root.text_attribute('format')!r:.60}")
    text = root.array("meta").tobytes()
    if _digest(text) != root.text_attribute("digest"):
        raise DataError(f"{path}#/meta: damaged (its CRC-32 is not {root.text_attribute('digest')!r:.20})")
    try:
        meta = strict_json.parse(text.decode(), DataError)
    except ValueError as reason:
        raise DataError(f"{path}#/meta: damaged ({reason})") from None
    if meta.get("version") != VERSION:
        raise DataError(
            f"{path}: expected version {VERSION} of the format, found {meta.get('version')!r:.20}; "
            "continue it with the deepmd_lite that wrote it"
        )
    kinds = {
        "natoms": int,
        "step": int,
        "seed": int,
        "dt": float,
        "positions": dict,
        "extra": dict,
        "crc32": dict,
    }
    for key, kind in kinds.items():
        if type(meta.get(key)) is not kind or (kind in (int, float) and meta[key] < 0):
            raise DataError(f"{path}: expected {key} as {kind.__name__}, found {meta.get(key)!r:.40}")
    return meta


def _digest(text):
    return f"{zlib.crc32(text):08x}"


def _sync(path):
    """What was written to a file, or renamed in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(file, nbytes):
    """Take the space that an h5py.File is about to need: a full disk shows before HDF5 changes anything."""
    if not hasattr(os, "posix_fallocate"):
        return  # macOS
    try:
        os.posix_fallocate(file.id.get_vfd_handle(), file.id.get_filesize(), nbytes + METADATA)
    except OSError as reason:
        if reason.errno not in (EINVAL, ENOSYS, EOPNOTSUPP):  # of file systems that cannot
            raise


def flush(file):
    """Hand all of an h5py.File to the system, and give back what `reserve` took too much."""
    file.flush()
    os.ftruncate(file.id.get_vfd_handle(), file.id.get_filesize())


def bound_cache(file):
    """Keep an h5py.File from remembering where every chunk lies: 0.3 kB of memory each."""
    config = file.id.get_mdc_config()
    config.set_initial_size = True
    config.initial_size = config.min_size = config.max_size = 2**16
    file.id.set_mdc_config(config)


@contextmanager
def naming(path):
    """Turn what the system and HDF5 raise into an OSError with the name of the file."""
    try:
        yield
    except (OSError, RuntimeError) as reason:
        found = re.search(r"errno = (\d+)", str(reason))
        number = getattr(reason, "errno", None) or (int(found[1]) if found else None)
        text = os.strerror(number) if number else f"{os.strerror(EIO)} ({str(reason).partition(chr(10))[0]})"
        raise OSError(number or EIO, text, str(path)) from reason
