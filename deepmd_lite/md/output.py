"""What a simulation writes along the way: log, trajectories, model deviation. Rank 0 alone.

A row or frame is handed to the system whole before `write` returns. ``position()`` syncs a file and returns
what a checkpoint keeps of it. A run that continues a checkpoint gives its step as ``keep``: what comes later,
and half a row or frame at the end, is cut off, so that nothing is doubled or missing. Write what is due at a
step before its checkpoint.
"""

import io
import os
import re
import warnings
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses, atomic_numbers
from ase.io import ulm
from ase.io.extxyz import write_xyz
from ase.io.trajectory import TrajectoryWriter
from ase.parallel import DummyMPI

from deepmd_lite.errors import DataError
from deepmd_lite.hdf5_guard import open_guarded
from deepmd_lite.md.checkpoint import bound_cache, flush, naming, reserve
from deepmd_lite.md.forces import COLUMNS
from deepmd_lite.md.settings import SUFFIXES
from deepmd_lite.units import ACCELERATION

STEP = re.compile(rb"(?:^|\s)step=(\d+)(?=\s)")  # in the second line of a frame of extended XYZ
ROWS = 1024  # of numbers that HDF5 stores together; arrays are stored frame by frame


class Composition(NamedTuple):
    """What all frames of a trajectory share."""

    symbols: np.ndarray  # (natoms,) str
    pbc: np.ndarray  # (3,) bool
    mass: np.ndarray  # (natoms,), amu


class Frame(NamedTuple):
    """One frame; velocities and forces where they are to be written."""

    step: int
    time: float  # fs
    energy: float  # eV, potential
    cell: np.ndarray  # (3, 3), Å
    coord: np.ndarray  # (natoms, 3), Å, unwrapped
    velocity: np.ndarray | None = None  # (natoms, 3), Å/fs
    force: np.ndarray | None = None  # (natoms, 3), eV/Å


class _Text:
    """A text file that grows by whole records.

    Parameters
    ----------
    path : str or Path
        Its folder is made if need be.
    header : str
        The first line, or nothing.
    keep : int, optional
        Continue the file after this step; left out, a file that is there is replaced.
    position : dict, optional
        From `position`, at that step: a file that has changed since brings a warning.
    """

    def __init__(self, path, header="", keep=None, position=None):
        self.path, self._header = Path(path), header.encode()
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._regular = not self.path.exists() or self.path.is_file()
            if keep is not None and self.path.is_file():
                with open(self.path, "r+b") as file:
                    file.truncate(self._end(file, keep, position))
            self._file = open(self.path, "wb" if keep is None else "ab", buffering=0)
        if self._regular:
            _compare(self.path, keep, {"bytes": self.path.stat().st_size}, position)
        if not (self._regular and self.path.stat().st_size):
            self._append(self._header)

    def _append(self, record):
        with naming(self.path):
            rest = memoryview(record)
            while rest:
                rest = rest[self._file.write(rest) :]

    def position(self):
        """dict: What a checkpoint keeps; what was written is on the disk."""
        if not self._regular:
            return {}
        with naming(self.path):
            os.fsync(self._file.fileno())
            return {"bytes": self.path.stat().st_size}

    def close(self):
        self._file.close()


class _Table(_Text):
    """Rows of numbers under one line of titles; the first number is the step."""

    def _end(self, file, keep, position):
        """Where the rows up to step `keep` end."""
        title = file.readline()
        if title != self._header and not (self._header.startswith(title) and not title.endswith(b"\n")):
            raise DataError(
                f"{self.path}: expected the titles {self._header.decode().strip()!r}, found "
                f"{title.decode(errors='replace').strip()!r:.60}; move it away, or choose another name"
            )
        end = len(title) if title == self._header else 0
        for number, line in enumerate(file, 2):
            if not line.endswith(b"\n"):
                break
            words = line.split()
            if len(words) != len(self._header.split()) - 1 or not words[0].isdigit():
                raise DataError(f"{self.path}: line {number} is not a row of it; mend it, or move it away")
            if int(words[0]) > keep:
                break
            end += len(line)
        return end


class ThermoLog(_Table):
    """Temperature, energies, pressure and volume; parameters as of `_Text`, without the header."""

    FORMATS = {
        "step": "12d",
        "time/fs": "16.6f",
        "temperature/K": "15.4f",
        "potential/eV": "20.9f",
        "kinetic/eV": "20.9f",
        "total/eV": "20.9f",
        "conserved/eV": "20.9f",
        "pressure/bar": "16.4f",
        "volume/Å³": "18.6f",
    }

    def __init__(self, path, keep=None, position=None):
        widths = {name: form.partition(".")[0].strip("d") for name, form in self.FORMATS.items()}
        titles = " ".join(f"{name:>{width}s}" for name, width in widths.items())
        super().__init__(path, f"#{titles[1:]}\n", keep, position)

    def write(self, step, time, temperature, potential, kinetic, conserved, pressure, volume):
        """Write a row; NaN for what has no meaning, as the pressure of a molecule. Units as in the titles."""
        total = potential + kinetic
        row = (step, time, temperature, potential, kinetic, total, conserved, pressure, volume)
        text = " ".join(f"{value:{form}}" for value, form in zip(row, self.FORMATS.values()))
        self._append(f"{text}\n".encode())


def read_log(path):
    """The columns of a log by name, such as ``temperature/K``: dict of (nrows,) arrays."""
    titles, *rows = Path(path).read_text(encoding="utf-8").splitlines()
    names = titles.lstrip("#").split()
    return dict(zip(names, np.loadtxt(rows, ndmin=2).T if rows else np.zeros((len(names), 0))))


class DeviationLog(_Table):
    """model_devi.out, in DeePMD-kit's columns and units; parameters as of `_Text`, without the header."""

    def __init__(self, path, keep=None, position=None):
        titles = "".join(f"{name:19s}" for name in COLUMNS)
        super().__init__(path, f"# {'step':10s}{titles}\n", keep, position)

    def write(self, step, deviation):
        """Write a row for a `forces.Deviation`."""
        row = (*deviation.virial, *deviation.force, deviation.energy)
        self._append((f"{step:12d}" + "".join(f"{value:19.6e}" for value in row) + "\n").encode())


def _template(composition):
    """ase.Atoms: What all frames share; masses where they are not the standard ones."""
    symbols, kind = np.unique(composition.symbols, return_inverse=True)
    numbers = np.array([atomic_numbers[s] for s in symbols], int)[kind]
    mass = np.ravel(composition.mass)
    standard = np.array_equal(mass, atomic_masses[numbers])
    return Atoms(numbers, pbc=composition.pbc, masses=None if standard else mass)


def _ase_atoms(template, frame):
    """The frame as ASE has it: velocities in Å √(eV/amu), no vectors along axes that are not periodic."""
    atoms = template.copy()
    atoms.positions = frame.coord
    atoms.cell = np.where(atoms.pbc[:, None], frame.cell, 0.0)
    atoms.info = {"step": int(frame.step), "time": float(frame.time)}
    if frame.velocity is not None:
        atoms.set_velocities(frame.velocity / np.sqrt(ACCELERATION))
    forces = {} if frame.force is None else {"forces": np.array(frame.force)}
    atoms.calc = SinglePointCalculator(atoms, energy=float(frame.energy), **forces)
    return atoms


class ExtxyzTrajectory(_Text):
    """Extended XYZ, 8 decimals; velocities as ASE's momenta. Parameters as of `_Text`, without header."""

    def __init__(self, path, composition, keep=None, position=None):
        self._template = _template(composition)
        super().__init__(path, keep=keep, position=position)

    def write(self, frame):
        """Write a `Frame`."""
        text = io.StringIO()
        write_xyz(text, _ase_atoms(self._template, frame))
        self._append(text.getvalue().encode())

    def _end(self, file, keep, position):
        """Where the frames up to step `keep` end: looked for from the kept position on."""
        start = (position or {}).get("bytes", 0)
        if start > 0:
            file.seek(start - 1)
            if file.read(1) == b"\n" and re.fullmatch(rb"\d{0,18}\s*", file.readline()):
                return self._frames_end(file, start, keep)
        return self._frames_end(file, 0, keep)

    def _frames_end(self, file, end, keep):
        file.seek(end)
        while True:
            count, titles = file.readline(), file.readline()
            step = STEP.search(titles)
            if not re.fullmatch(rb"\d{0,18}\s*", count) or (titles.endswith(b"\n") and not step):
                raise DataError(f"{self.path}: byte {end} begins no frame of dplite md; move it away")
            if not titles.endswith(b"\n") or int(step[1]) > keep:
                return end
            lines = size = 0
            for line in islice(file, int(count)):
                size += len(line)
                lines += line.endswith(b"\n")
            if lines < int(count):
                return end
            end += len(count) + len(titles) + size


class AseTrajectory:
    """ASE's .traj; velocities as ASE's momenta. Parameters as of `ExtxyzTrajectory`."""

    def __init__(self, path, composition, keep=None, position=None):
        self.path = Path(path)
        self._template = _template(composition)
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        goes_on = keep is not None and self.path.is_file() and self.path.stat().st_size > 0
        kept = self._cut(keep) if goes_on else 0
        _compare(self.path, keep, {"frames": kept}, position)
        with naming(self.path):
            mode = "a" if kept else "w"
            self._writer = TrajectoryWriter(self.path, mode, master=True, comm=DummyMPI())

    def write(self, frame):
        """Write a `Frame`."""
        with naming(self.path):
            try:
                self._writer.write(_ase_atoms(self._template, frame))
            except OSError:
                self._writer.backend.data.clear()  # `close` would count half a frame as one
                raise

    def position(self):
        """As `_Text.position`."""
        with naming(self.path):
            os.fsync(self._writer.backend.fd.fileno())
        return {"frames": self._writer.backend.nitems}

    def close(self):
        with suppress(OSError):  # after a full disk
            self._writer.close()

    def _cut(self, keep):
        """Copy the frames up to step `keep`, if others follow, beside the file and rename; their number."""
        beside = self.path.with_name(f".{self.path.name}.part")
        try:
            with ulm.open(self.path) as reader:
                if reader.get_tag() != "ASE-Trajectory":
                    raise ValueError("another kind of file")
                kept = len(reader)
                while kept and reader[kept - 1].info["step"] > keep:
                    kept -= 1
                if 0 < kept < len(reader):
                    with naming(self.path), ulm.open(beside, "w", tag="ASE-Trajectory") as writer:
                        for number in range(kept):
                            ulm.copy(reader[number], writer)
                            writer.sync()
                        os.fsync(writer.fd.fileno())
                    os.replace(beside, self.path)
        except Exception as reason:
            beside.unlink(missing_ok=True)
            if getattr(reason, "filename", None):
                raise  # from the system
            raise DataError(f"{self.path}: not a readable trajectory ({reason}); move it away") from None
        return kept


class Hdf5Trajectory:
    """HDF5, exact: step, time (fs), energy (eV), cell, coord (Å, unwrapped), one row a frame; velocity (Å/fs)
    and force (eV/Å) where the first frame has them; symbols, pbc. Parameters as of `ExtxyzTrajectory`.
    """

    def __init__(self, path, composition, keep=None, position=None):
        self.path = Path(path)
        self._beside = self.path.with_name(f".{self.path.name}.part")  # until it holds a frame
        self._new = keep is None or not self.path.is_file()
        kept = 0 if self._new else self._count(composition, keep)
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._new:
                self.path.unlink(missing_ok=True)
            name, mode = (self._beside, "w") if self._new else (self.path, "r+")
            self._file = h5py.File(name, mode, locking=False, rdcc_nbytes=16 * ROWS)
            bound_cache(self._file)
            if self._new:
                self._file["symbols"] = np.array(composition.symbols, "S")
                self._file["pbc"] = np.array(composition.pbc, bool)
            self._columns = {name: self._file[name] for name in Frame._fields if name in self._file}
            for column in self._columns.values():
                if column.chunks is None or len(column) < kept:  # not virtual or stored elsewhere, either
                    raise DataError(f"{self.path}: expected {kept} frames in each dataset; move it away")
                column.resize(kept, axis=0)
            self._file.flush()
        _compare(self.path, keep, {"frames": kept}, position)

    def write(self, frame):
        """Write a `Frame`."""
        rows = {name: np.asarray(v) for name, v in frame._asdict().items() if v is not None}
        with naming(self.path):
            if self._new:
                self._columns = {name: self._column(name, values) for name, values in rows.items()}
            if list(self._columns) != list(rows):
                words = f"expected frames of {', '.join(self._columns)}, found {', '.join(rows)}"
                raise DataError(f"{self.path}: {words}; choose another file")
            reserve(self._file, sum(max(values.nbytes, 8 * ROWS) for values in rows.values()))
            for name, values in reversed(rows.items()):
                if name == "step":
                    self._file.flush()  # the step, the last, tells that all else is there
                self._columns[name].resize(self._columns[name].shape[0] + 1, axis=0)
                self._columns[name][-1] = values
            flush(self._file)
            if self._new:
                os.replace(self._beside, self.path)
                self._new = False

    def position(self):
        """As `_Text.position`."""
        with naming(self.path):
            os.fsync(self._file.id.get_vfd_handle())
        return {"frames": 0 if self._new else len(self._columns["step"])}

    def close(self):
        with suppress(OSError, RuntimeError):  # after a full disk
            self._file.close()
        if self._new:
            self._beside.unlink(missing_ok=True)

    def _column(self, name, values):
        kind, shape = np.int64 if name == "step" else np.float64, values.shape
        rows = 1 if shape else ROWS
        return self._file.create_dataset(
            name, (0, *shape), kind, maxshape=(None, *shape), chunks=(rows, *shape)
        )

    def _count(self, composition, keep):
        """Frames up to step `keep` in the file, which must be of the same atoms and hold no links."""
        with open_guarded(self.path) as root:
            names = root.names()
            if not {"symbols", "step"} <= set(names) or any(root.is_group(name) for name in names):
                raise DataError(f"{self.path}: expected a trajectory of dplite md; move it away")
            if root.words("symbols", 2**32) != list(composition.symbols):
                raise DataError(f"{self.path}: expected a trajectory of the same atoms; choose another name")
        with naming(self.path), open(self.path, "r+b") as file:
            head, size = file.read(48), file.seek(0, os.SEEK_END)
            if head[8] == 0 and int.from_bytes(head[40:48], "little") < size:
                # a run that was killed as HDF5 flushed: what the superblock (version 0) says is updated last
                file.seek(40)
                file.write(size.to_bytes(8, "little"))
        with open_guarded(self.path) as root:
            return int((root.array("step") <= keep).sum())


def open_trajectory(path, composition, keep=None, position=None):
    """The writer for the name of a file; parameters as of `ExtxyzTrajectory`."""
    kinds = dict(zip(SUFFIXES, (ExtxyzTrajectory, AseTrajectory, Hdf5Trajectory)))
    return kinds[Path(path).suffix](path, composition, keep, position)


def _compare(path, keep, found, position):
    """Warn where a file does not hold what it held at the checkpoint."""
    for key, expected in (position or {}).items():
        if found.get(key) != expected:
            warnings.warn(
                f"{path}: expected {expected} {key} up to step {keep}, found {found.get(key)}: "
                "it was changed since the checkpoint",
                stacklevel=4,
            )
