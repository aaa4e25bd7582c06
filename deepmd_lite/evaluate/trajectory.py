"""Trajectories, one frame after another: HDF5 of our own, or any file that ASE reads.

Our HDF5, a row per frame and coordinates as they run on through the periodic images::

    symbols (natoms,)  pbc (3,)  mass (natoms,) amu, may be missing
    step (n,)  time (n,) fs  energy (n,) eV  cell (n, 3, 3) Å  coord (n, natoms, 3) Å
    velocity (n, natoms, 3) Å/fs, may be missing      force: left in the file, nothing here reads it

Other files may hold coordinates that were wrapped into the cell. They are unwrapped from frame to frame: along
a periodic axis an atom is taken to have moved by less than half the cell. A longer jump cannot be told from a
shorter one the other way; one that comes close to half the cell brings a `SuspiciousJump` warning.
"""

import warnings
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from deepmd_lite.box import complete_cell
from deepmd_lite.errors import ConfigError, DataError, DomainError
from deepmd_lite.frames.convert import _frames as ase_frames
from deepmd_lite.frames.write import HDF5_SUFFIXES
from deepmd_lite.hdf5_guard import open_guarded

BLOCK = 2**24  # bytes of an HDF5 dataset read at once
SUSPICIOUS = 0.4  # of the cell: a longer move between frames may have been one the other way
ROWS = {"coord": (-1, 3), "cell": (3, 3), "step": (), "time": (), "energy": (), "velocity": (-1, 3)}


class SuspiciousJump(UserWarning):
    """An atom moved by nearly half the cell between two frames, so that unwrapping may have gone wrong."""


class Frame(NamedTuple):
    """One frame; None for what the file does not hold."""

    step: int | None
    time: float | None  # fs
    energy: float | None  # potential energy, eV
    cell: np.ndarray  # (3, 3) Å, vectors in rows
    coord: np.ndarray  # (natoms, 3) Å, unwrapped
    velocity: np.ndarray | None  # (natoms, 3) Å/fs


@dataclass(frozen=True)
class Trajectory:
    """A trajectory to iterate over, as often as wanted: the file is read anew, and holds few frames in memory.

    Attributes
    ----------
    path : Path
    symbols : (natoms,) str array
    mass : (natoms,) array, amu
    pbc : (3,) bool array
    has_time, has_velocity : bool
    skip : int
        Frames left out at the beginning.
    every : int
        Of those that follow, each `every`-th is given.
    dt : float or None
        fs between frames of the file; None where the file tells the time.
    """

    path: Path
    symbols: np.ndarray
    mass: np.ndarray
    pbc: np.ndarray
    has_time: bool
    has_velocity: bool
    skip: int = 0
    every: int = 1
    dt: float | None = None

    @property
    def natoms(self):
        return len(self.symbols)

    def __iter__(self):
        """Yield `Frame`s; DataError, naming the file, where one cannot be used."""
        read = _hdf5_frames if _is_hdf5(self.path) else _ase_trajectory
        for number, frame in read(self):
            for name in ("coord", "velocity"):
                values = getattr(frame, name)
                if values is not None and not np.isfinite(values).all():
                    raise DataError(f"{self.path}: frame {number}: expected finite {name}, found nan or inf")
            yield frame if self.dt is None else frame._replace(time=number * self.dt)


def open_trajectory(path, *, every=1, skip=0, dt=None):
    """Look at the beginning of a trajectory.

    Parameters
    ----------
    path : str or Path
        ``.h5`` or ``.hdf5`` as above; anything else as ASE reads it, all frames of the same atoms.
    every, skip : int
        Leave out the first `skip` frames; of the rest give each `every`-th. Unwrapping sees all of them.
    dt : float, optional
        fs between frames of the file. By default the file's own time; in files that ASE reads that is
        ``info["time"]``, in fs.

    Returns
    -------
    Trajectory

    Raises
    ------
    ConfigError
        If every < 1, skip < 0 or dt <= 0.
    DataError
        If the file cannot be read.
    """
    if every < 1 or skip < 0:
        raise ConfigError(f"expected every of 1 or more and skip of 0 or more, found {every} and {skip}")
    if dt is not None and not 0 < dt < np.inf:
        raise ConfigError(f"dt {dt}: expected a positive time between frames in fs")
    path = Path(path)
    if path.is_dir() or not path.exists():
        raise DataError(f"{path}: expected a trajectory, found {'a folder' if path.is_dir() else 'no file'}")
    header = _hdf5_header(path) if _is_hdf5(path) else _ase_header(path)
    header["has_time"] |= dt is not None
    if len(header["symbols"]) == 0:
        raise DataError(f"{path}: expected atoms, found none")
    return Trajectory(path, **header, skip=skip, every=every, dt=dt)


def _is_hdf5(path):
    return path.suffix in HDF5_SUFFIXES


def _full_cell(where, box, pbc):
    """(3, 3) array: `complete_cell`, with the file in its error."""
    try:
        return complete_cell(box, pbc)
    except DomainError as reason:
        raise DataError(f"{where}: {reason}") from None


def _masses(path, symbols):
    from ase.data import atomic_masses, atomic_numbers

    unknown = sorted({s for s in symbols if atomic_numbers.get(s, 0) == 0})
    if unknown:
        raise DataError(f"{path}: expected chemical elements, found {', '.join(map(repr, unknown))}")
    return atomic_masses[[atomic_numbers[s] for s in symbols]]


# our HDF5


def _hdf5_header(path):
    with open_guarded(path) as root:
        missing = {"symbols", "pbc", "cell", "coord"} - set(root.names())
        if missing:
            raise DataError(
                f"{path}: expected a trajectory, found no {', '.join(sorted(missing))}; it holds "
                f"{', '.join(root.names()[:8]) or 'nothing'}"
            )
        symbols = root.words("symbols", max_bytes=2**28)
        pbc = root.array("pbc", max_bytes=2**10)
        if pbc.shape != (3,):
            raise DataError(f"{path}#/pbc: expected shape (3,), found {pbc.shape}")
        mass = root.array("mass") if "mass" in root else _masses(path, symbols)
        if mass.shape != (len(symbols),) or not (mass > 0).all():
            raise DataError(f"{path}#/mass: expected {len(symbols)} positive masses, found {mass.shape}")
        _datasets(root, len(symbols))
        return {
            "symbols": np.array(symbols),
            "mass": np.asarray(mass, np.float64),
            "pbc": pbc.astype(bool),
            "has_time": "time" in root,
            "has_velocity": "velocity" in root,
        }


def _datasets(root, natoms):
    """dict of str to h5py.Dataset: Those of ROWS that are there, their shapes checked, none of them read."""
    found = {}
    for name, row in ROWS.items():
        if name not in root:
            continue
        where, dataset = f"{root.address}{name}", root._open(name, h5py.Dataset)
        with root._reading(where):
            if dataset.dtype.kind not in "iuf":
                raise DataError(f"{where}: expected numbers, found dtype {dataset.dtype}")
            root._check_size(dataset, where, None)
        nframes = len(found["coord"]) if "coord" in found else (dataset.shape or (0,))[0]
        expected = (nframes, *(natoms if size < 0 else size for size in row))
        if dataset.shape != expected:
            raise DataError(f"{where}: expected shape {expected}, found {dataset.shape}")
        found[name] = dataset
    return found


def _hdf5_frames(trajectory):
    """Yield (number, Frame), reading BLOCK bytes of coordinates at once."""
    with open_guarded(trajectory.path) as root:
        datasets = _datasets(root, trajectory.natoms)
        numbers = range(trajectory.skip, len(datasets["coord"]), trajectory.every)
        size = max(1, BLOCK // (24 * max(1, trajectory.natoms)))
        for begin in range(0, len(numbers), size):
            part = numbers[begin : begin + size]
            rows = slice(part[0], part[-1] + 1, trajectory.every)
            with root._reading(root.address):
                block = {name: dataset[rows] for name, dataset in datasets.items()}
            for k, number in enumerate(part):
                values = {name: block[name][k] if name in block else None for name in ROWS}
                for name in ("cell", "coord", "velocity"):
                    if values[name] is not None:
                        values[name] = values[name].astype(np.float64)
                _full_cell(f"{trajectory.path}: frame {number}", values["cell"], trajectory.pbc)
                yield number, Frame(**values)


# files that ASE reads


def _ase_header(path):
    frames = ase_frames(path)
    _, atoms, _ = next(frames)
    frames.close()
    symbols = np.array(atoms.get_chemical_symbols())
    _masses(path, symbols)
    return {
        "symbols": symbols,
        "mass": atoms.get_masses(),
        "pbc": np.array(atoms.pbc),
        "has_time": isinstance(atoms.info.get("time"), Real),
        "has_velocity": atoms.has("momenta"),
    }


def _ase_trajectory(trajectory):
    """Yield (number, Frame); images are counted over all frames, those that are left out too."""
    from ase import units

    unwrap, symbols = _Unwrapper(trajectory), trajectory.symbols.tolist()
    for number, (where, atoms, _) in enumerate(ase_frames(trajectory.path)):
        if atoms.get_chemical_symbols() != symbols or (atoms.pbc != trajectory.pbc).any():
            raise DataError(
                f"{where}: expected the atoms and the periodicity of the first frame, found {atoms.symbols} "
                f"pbc {atoms.pbc.tolist()}"
            )
        coord = unwrap(where, atoms.positions, atoms.cell.array)
        if (number - trajectory.skip) % trajectory.every or number < trajectory.skip:
            continue
        time = atoms.info.get("time")
        if trajectory.has_time and trajectory.dt is None and not isinstance(time, Real):
            raise DataError(f"{where}: expected a time in fs, as in the first frame, found {time!r}; give dt")
        if trajectory.has_velocity and not atoms.has("momenta"):
            raise DataError(f"{where}: expected velocities, as in the first frame, found none")
        yield (
            number,
            Frame(
                step=None,
                time=time,
                energy=atoms.calc.results.get("energy") if atoms.calc else None,
                cell=atoms.cell.array,
                coord=coord,
                velocity=atoms.get_velocities() * units.fs if trajectory.has_velocity else None,
            ),
        )


class _Unwrapper:
    """Counts the cells that atoms have crossed: coord + image @ cell runs on where coord was wrapped."""

    def __init__(self, trajectory):
        self.pbc, self.path = trajectory.pbc, trajectory.path
        self.image = np.zeros((trajectory.natoms, 3))
        self.last = None  # fractional coordinates of the frame before
        self.warned = False

    def __call__(self, where, coord, box):
        if not self.pbc.any():
            return coord
        cell = _full_cell(where, box, self.pbc)
        frac = coord @ np.linalg.inv(cell)
        if self.last is not None:
            move = (frac - self.last) * self.pbc
            jump = np.rint(move)
            self.image -= jump
            self._watch(where, np.abs(move - jump))
        self.last = frac
        return coord + self.image @ cell

    def _watch(self, where, move):
        if self.warned or move.max() <= SUSPICIOUS:
            return
        self.warned = True
        atom = np.argmax(move) // 3
        warnings.warn(
            f"{where}: atom {atom} moved by {move[atom].max():.2f} of the cell since the frame before; jumps of "
            "more than half a cell cannot be seen: write frames more often if atoms are to be followed",
            SuspiciousJump,
            stacklevel=4,
        )


# all frames at once, for correlations in time


@dataclass(frozen=True)
class Series:
    """What correlations in time need of all frames.

    Attributes
    ----------
    symbols : (natoms,) str array
    mass : (natoms,) array, amu
    time : (n,) array, fs
    coord : (n, natoms, 3) array, Å, or None
        The path of each atom; see `collect`.
    velocity : (n, natoms, 3) array, Å/fs, or None
    """

    symbols: np.ndarray
    mass: np.ndarray
    time: np.ndarray
    coord: np.ndarray | None
    velocity: np.ndarray | None


def collect(trajectory, frames=None, *, coord=True, velocity=False):
    """Hold the coordinates and velocities of a trajectory in memory.

    Parameters
    ----------
    trajectory : Trajectory
    frames : iterable of Frame, optional
        Those to hold; by default all of the trajectory.
    coord, velocity : bool
        What to hold.

    Returns
    -------
    Series

    Raises
    ------
    DataError
        If there are no frames, no times, or no velocities where they are wanted.

    Notes
    -----
    Where the cell changes, coordinates as the file has them jump with each change by as many times that change
    as an atom is cells away from home. The path adds up the steps inside the home cell instead, in the "toroidal"
    way that keeps diffusion coefficients at constant pressure free of this error [1]_:
    x(k+1) = x(k) + u(k+1) - u(k) - n(k) (cell(k+1) - cell(k)), with u from the file, in the cell n.

    References
    ----------
    .. [1] Bullerjahn, von Bülow, Heidari, Hénin, Hummer, J. Chem. Theory Comput. 19, 3406 (2023).
    """
    if not trajectory.has_time:
        raise DataError(f"{trajectory.path}: has no time; give dt, the fs between its frames")
    if velocity and not trajectory.has_velocity:
        raise DataError(f"{trajectory.path}: has no velocities")
    times, paths, velocities, shift, before = [], _Rows(), _Rows(), 0.0, None
    for frame in trajectory if frames is None else frames:
        times.append(frame.time)
        if coord:
            if before is not None and trajectory.pbc.any() and (frame.cell != before.cell).any():
                home = np.floor(before.coord @ np.linalg.inv(complete_cell(before.cell, trajectory.pbc)))
                shift = shift - (home * trajectory.pbc) @ (frame.cell - before.cell)
            paths.append(frame.coord + shift)
            before = frame
        if velocity:
            velocities.append(frame.velocity)
    if not times:
        raise DataError(f"{trajectory.path}: expected frames, found none after the first {trajectory.skip}")
    rows = paths.array(), velocities.array()
    return Series(trajectory.symbols, trajectory.mass, np.array(times, np.float64), *rows)


class _Rows:
    """An array that grows in place, a quarter at a time: rows are never held twice."""

    def __init__(self):
        self.rows, self.count = None, 0

    def append(self, row):
        if self.rows is None:
            self.rows = np.empty((16, *row.shape))
        if self.count == len(self.rows):
            self.rows.resize((self.count + self.count // 4, *row.shape), refcheck=False)
        self.rows[self.count] = row
        self.count += 1

    def array(self):
        """All rows; None where there are none."""
        if self.rows is not None:
            self.rows.resize((self.count, *self.rows.shape[1:]), refcheck=False)
        return self.rows
