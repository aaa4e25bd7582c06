"""Write frames to deepmd/hdf5 and deepmd/npy: whole systems, or one frame after another as they are computed.

The layout is in `deepmd_lite.frames.store`. A whole system is written beside its place and then put there.
"""

import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from deepmd_lite.errors import DataError
from deepmd_lite.frames.layout import FILE_NAMES, split_address
from deepmd_lite.frames.system import System, formula, validate
from deepmd_lite.hdf5_guard import open_guarded

HDF5_SUFFIXES = (".h5", ".hdf5")


def write_system(address, system):
    """Write a system, replacing what is at that address.

    Frames that have the same labels share a set, so frames of a trajectory stay in order unless their labels
    differ.

    Parameters
    ----------
    address : str or Path
        ``file.h5#/group`` for deepmd/hdf5, anything else is a directory for deepmd/npy.
    system : System

    Raises
    ------
    DataError
        The system is not fit for training (`validate`), or the address cannot be written.
    """
    validate(system)
    path, group = split_address(address)
    if group is None and path.suffix not in HDF5_SUFFIXES:
        _write_npy(Path(address), system)
        return
    with _open_for_writing(address) as (file, group):
        part = f"{group}.part"
        if part in file:
            del file[part]
        for name, value in _header(system).items():
            file[f"{part}/{name}"] = value
        for number, frames in enumerate(_frames_by_labels(system)):
            for name, rows in _datasets(system.select(frames)).items():
                file[f"{part}/set.{number:03d}/{name}.npy"] = rows
        if group in file:
            del file[group]
        file.move(part, group)


def write_systems(out, systems):
    """Write systems to a new file or directory, each under its formula.

    Parameters
    ----------
    out : str or Path
        ``name.h5``, or a directory for deepmd/npy; must not exist.
    systems : list of System

    Returns
    -------
    list of str
        The addresses.

    Raises
    ------
    DataError
        ``out`` exists, or a system is not fit for training.
    """
    if Path(out).exists():
        raise DataError(f"{out}: exists; remove it or choose another name")
    addresses, used = [], Counter()
    for system in systems:
        used[system.formula] += 1
        name = f"{system.formula}_{used[system.formula]}" if used[system.formula] > 1 else system.formula
        mark = "#/" if Path(out).suffix in HDF5_SUFFIXES else "/"
        addresses.append(f"{out}{mark}{name}")
        write_system(addresses[-1], system)
    return addresses


def append_frame(address, *, symbols, coord, box, pbc, energy=None, force=None, virial=None):
    """Append one frame to a system in an HDF5 file, creating both as needed; on return it is on disk.

    Parameters
    ----------
    address : str or Path
        ``file.h5#/group``.
    symbols : sequence of str
        Element of each atom; the same for every frame of the group.
    coord : array_like
        (natoms, 3), Å.
    box : array_like or None
        (3, 3), cell vectors in rows, Å; None when no axis is periodic.
    pbc : array_like
        (3,) bool.
    energy, force, virial : float or array_like, optional
        eV; (natoms, 3) eV/Å; (3, 3) eV, positive when compressed.

    Raises
    ------
    DataError
        Wrong shapes, non-finite numbers, other atoms or periodicity than the group's.
    """
    type_map = tuple(dict.fromkeys(symbols))
    given = {"energy": energy, "force": force, "virial": virial}
    frame = System(
        name=str(address),
        type_map=type_map,
        atype=np.array([type_map.index(s) for s in symbols], dtype=np.int32),
        coord=np.array([coord], dtype=float),
        box=np.array([box], dtype=float) if np.any(pbc) and box is not None else None,
        pbc=np.array(pbc, dtype=bool),
        labels={k: np.array([v], dtype=float) for k, v in given.items() if v is not None},
        found={k: np.ones(1, dtype=bool) for k, v in given.items() if v is not None},
    )
    validate(frame)
    with _open_for_writing(address) as (file, group):
        if group not in file:
            for name, value in _header(frame).items():
                file[f"{group}/{name}"] = value
        _check_same_atoms(address, file[group], frame)
        rows = _datasets(frame)
        home = _set_with(file[group], {f"{name}.npy" for name in rows})
        length = min(
            (len(dataset) for dataset in home.values()), default=0
        )  # an interrupted append is overwritten
        for name, row in rows.items():
            width = row.shape[1:]
            if f"{name}.npy" not in home:
                chunk = int(np.clip(2**16 // row.nbytes, 1, 1024))
                home.create_dataset(
                    f"{name}.npy", (0, *width), "f8", maxshape=(None, *width), chunks=(chunk, *width)
                )
            home[f"{name}.npy"].resize(length + 1, axis=0)
            home[f"{name}.npy"][length] = row[0]
        file.flush()


@contextmanager
def _open_for_writing(address):
    """Yield (h5py.File, group name); a file that is there already must pass the guard up to that group."""
    path, group = split_address(address)
    if not group:
        raise DataError(f"{address}: expected an address like {path}#/name, found no group")
    if path.exists():
        with open_guarded(path) as root:
            here = root
            for part in group.split("/"):
                here = here.group(part) if part in here else None
                if here is None:
                    break
            else:
                list(here.walk())
    try:
        file = h5py.File(path, "a")
    except OSError as reason:
        raise DataError(f"{path}: cannot be written ({reason})") from None
    with file:
        yield file, group


def _header(system):
    """dict: What precedes the sets, name to value."""
    header = {
        "type.raw": system.atype.astype(np.int32),
        "type_map.raw": np.array([s.encode() for s in system.type_map], dtype="S"),
    }
    if not system.pbc.any():
        header["nopbc"] = True
    elif not system.pbc.all():
        header["pbc"] = system.pbc
    return header


def _datasets(system):
    """dict: The rows of one set, name to (nframes, width) float64; labels that no frame has are left out."""
    arrays = {"coord": system.coord}
    if system.pbc.any():
        arrays["box"] = system.box
    arrays |= {FILE_NAMES[k][0]: v for k, v in system.labels.items() if system.found[k].all()}
    return {name: a if a.ndim == 1 else a.reshape(len(a), -1) for name, a in arrays.items()}


def _frames_by_labels(system):
    """list of np.ndarray: Frame numbers, grouped by the labels that are found."""
    if not system.labels:
        return [np.arange(system.nframes)]
    pattern = np.stack([system.found[k] for k in sorted(system.labels)], axis=1)  # (nframes, nlabels)
    _, first, member = np.unique(pattern, axis=0, return_index=True, return_inverse=True)
    return [np.flatnonzero(member.ravel() == k) for k in np.argsort(first)]


def _write_npy(path, system):
    """Write a directory beside its place, then put it there."""
    part = path.with_name(f"{path.name}.part")
    if path.exists() and not (path / "type.raw").is_file():
        raise DataError(f"{path}: exists and is no system; expected a new directory or one with type.raw")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    np.savetxt(part / "type.raw", system.atype, fmt="%d")
    (part / "type_map.raw").write_text("\n".join(system.type_map) + "\n", encoding="utf-8")
    if not system.pbc.any():
        (part / "nopbc").touch()
    elif not system.pbc.all():
        (part / "pbc").write_text(" ".join(str(int(p)) for p in system.pbc) + "\n", encoding="utf-8")
    for number, frames in enumerate(_frames_by_labels(system)):
        home = part / f"set.{number:03d}"
        home.mkdir()
        for name, rows in _datasets(system.select(frames)).items():
            np.save(home / f"{name}.npy", rows, allow_pickle=False)
    if path.exists():
        shutil.rmtree(path)
    part.rename(path)


def _check_same_atoms(address, group, frame):
    """Raise DataError unless a group holds the atoms and the periodicity of a frame."""
    names = group["type_map.raw"].asstr()[()]
    there = [names[t] for t in group["type.raw"][()]]
    if there != frame.symbols:
        raise DataError(
            f"{address}: holds frames of {formula(there)}, found {formula(frame.symbols)}; expected the same "
            "atoms in the same order, or another group"
        )
    pbc = (
        np.zeros(3, bool)
        if "nopbc" in group
        else group["pbc"][()].astype(bool)
        if "pbc" in group
        else np.ones(3, bool)
    )
    if not np.array_equal(pbc, frame.pbc):
        raise DataError(f"{address}: holds frames with pbc {pbc.tolist()}, found {frame.pbc.tolist()}")


def _set_with(group, names):
    """The set of a group that holds exactly these datasets; a new one when none does."""
    sets = [s for s in group if s.startswith("set.")]
    for name in sets:
        if set(group[name]) == names:
            return group[name]
    return group.create_group(f"set.{len(sets):03d}")
