"""Files that ASE reads, as frames for training.

ASE tells atoms, cells and numbers; what a number means is another matter. Where a format fixes it (OUTCAR,
vasprun.xml, Quantum ESPRESSO, GPAW ...) ASE has converted to eV and Å already. Where it does not (extxyz),
numbers pass for eV and Å only if they look like it, a stress or virial needs a stated convention, and a label
under two names needs its key.
"""

from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np

from deepmd_lite.errors import DataError
from deepmd_lite.frames.conventions import CONVENTIONS, MEANINGS, keys_for, parse_units, tensor, virial_from
from deepmd_lite.frames.sanity import foreign_energies, foreign_lengths
from deepmd_lite.frames.system import System, joined, validate
from deepmd_lite.frames.write import HDF5_SUFFIXES, write_systems

# formats that carry numbers without saying what they mean
BARE_FORMATS = {"extxyz", "xyz", "json", "db", "traj", "netcdftrajectory", "runnerdata"}
ASE_FORMATS = {"traj", "json", "db"}  # written by ASE: the stress is ASE's


@dataclass
class Conversion:
    """What `convert` wrote.

    Attributes
    ----------
    addresses : list of str
    systems : list of System
    keys : dict
        For each label the key that it was read from.
    notes : list of str
        What a user should know, such as labels left out.
    """

    addresses: list[str]
    systems: list[System]
    keys: dict[str, str]
    notes: list[str]


@dataclass
class _Reading:
    """How to read labels, and what came of it."""

    keys: dict[str, str | None]  # as asked for
    stress: str | None
    used: dict[str, str]
    notes: dict[str, int]  # note to number of frames


def convert(
    inputs,
    out,
    *,
    type_map=None,
    stress=None,
    energy_key=None,
    force_key=None,
    virial_key=None,
    units=None,
    length=None,
):
    """Convert files that ASE reads to deepmd/hdf5 or deepmd/npy.

    Frames are grouped by composition, order of atoms and periodicity; a group is a system, named by formula.

    Parameters
    ----------
    inputs : str, Path or sequence of them
        Files or globs.
    out : str or Path
        ``name.h5``, or a directory; must not exist.
    type_map : sequence of str, optional
        Elements by type; by default those found, in alphabetical order.
    stress : {'virial', 'virial_negative', 'ase', 'stress_positive', 'kbar', 'none'}, optional
        What the file's stress or virial means; needed for formats that do not say.
    energy_key, force_key, virial_key : str, optional
        Where the labels are, when the usual names are absent or ambiguous.
    units, length : str, optional
        See `deepmd_lite.frames.conventions.parse_units`. By default eV and Å, if the numbers look like it.

    Returns
    -------
    Conversion

    Raises
    ------
    DataError
        Files that ASE cannot read, ambiguous labels, numbers that do not look like eV and Å, dummy atoms,
        frames that are not fit for training.
    """
    if stress is not None and stress != "none" and stress not in CONVENTIONS:
        raise DataError(f"stress {stress!r}: expected {MEANINGS}")
    if Path(out).exists():
        raise DataError(f"{out}: exists; remove it or choose another name")
    keys = {"energy": energy_key, "force": force_key, "virial": virial_key}
    reading = _Reading(keys=keys, stress=stress, used={}, notes={})
    scale = parse_units(units or "eV/Å", length)
    if stress == "kbar" and (scale.energy, scale.length) != (1, 1):
        raise DataError("stress 'kbar': expected with eV and Å; convert energies and lengths first")
    groups = {}
    for path in _files(inputs):
        for where, atoms, kind in _frames(path):
            if units and kind not in BARE_FORMATS:
                raise DataError(f"{path}: ASE has converted {kind} to eV and Å already; leave units out")
            frame = _system(where, atoms, kind, reading, scale)
            groups.setdefault((tuple(frame.symbols), tuple(frame.pbc)), []).append(frame)
    for label, key in keys.items():
        if key and label not in reading.used:
            raise DataError(f"{label} key {key!r}: no frame has it")
    if not reading.used:
        names = [inputs] if isinstance(inputs, str | Path) else inputs
        raise DataError(
            f"{', '.join(map(str, names))}: no energy, force or virial found; "
            "give --energy-key, --force-key or --virial-key"
        )
    systems = [joined(frames, frames[0].name) for frames in groups.values()]
    if units is None:
        doubt = foreign_lengths(systems) or foreign_energies(systems)
        if doubt:
            raise DataError(f"{doubt}. State the units: hartree/bohr, kcal/mol/Å ..., or eV/Å if it is right")
    type_map = type_map or sorted({s for system in systems for s in system.symbols})
    systems = [system.remapped(type_map) for system in systems]
    notes = [f"{note} ({count} frames)" for note, count in reading.notes.items()]
    return Conversion(write_systems(out, systems), systems, reading.used, notes)


def _files(inputs):
    """list of Path: Files, globs expanded."""
    files = []
    for name in [inputs] if isinstance(inputs, str | Path) else inputs:
        found = [str(name)] if Path(name).exists() else sorted(glob(str(name), recursive=True))
        if not found:
            raise DataError(f"{name}: no such file")
        files += [Path(f) for f in found]
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}: expected a file that ASE reads, found a directory")
        if path.suffix in HDF5_SUFFIXES:
            raise DataError(f"{path}: expected a file that ASE reads, found HDF5, which holds frames already")
    if not files:
        raise DataError("expected files to convert, found none")
    return files


def _frames(path):
    """Yield (where, ase.Atoms, format) for every frame of a file."""
    from ase.io import iread
    from ase.io.formats import filetype

    frame = -1
    try:
        kind = filetype(str(path))
        for frame, atoms in enumerate(iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True)):
            yield f"{path}@{frame}", atoms, kind
    except Exception as reason:  # ASE's readers raise anything
        after = f" after frame {frame}" if frame >= 0 else ""
        raise DataError(f"{path}: ASE cannot read it{after} ({type(reason).__name__}: {reason})") from None
    if frame < 0:
        raise DataError(f"{path}: expected frames, found none")


def _system(where, atoms, kind, reading, scale):
    """System: One frame with its labels, in eV and Å, checked."""
    dummies = np.flatnonzero(atoms.numbers == 0)
    if len(dummies):
        listed = ", ".join(map(str, dummies[:5])) + (" ..." if len(dummies) > 5 else "")
        raise DataError(f"{where}: atoms {listed} are dummies X (Z = 0); remove them")
    available = {**atoms.info, **atoms.arrays, **(atoms.calc.results if atoms.calc else {})}
    labels = {}
    energy = _pick("energy", available, reading, where)
    if energy is not None:
        labels["energy"] = _numbers(energy, (), where, "energy") * scale.energy
    force = _pick("force", available, reading, where)
    if force is not None:
        labels["force"] = _numbers(force, (len(atoms), 3), where, "force") * scale.force
    virial = _virial(where, atoms, available, kind, reading)
    if virial is not None:
        labels["virial"] = virial * scale.energy
    symbols = atoms.get_chemical_symbols()
    type_map = tuple(sorted(set(symbols)))
    system = System(
        name=where,
        type_map=type_map,
        atype=np.array([type_map.index(s) for s in symbols], dtype=np.int32),
        coord=atoms.positions[None] * scale.length,
        box=np.array(atoms.cell)[None] * scale.length if atoms.pbc.any() else None,
        pbc=np.array(atoms.pbc),
        labels={key: np.asarray(value)[None] for key, value in labels.items()},
        found={key: np.ones(1, dtype=bool) for key in labels},
    )
    validate(system)
    return system


def _pick(label, available, reading, where):
    """The value of a label: under the key asked for, or under its one usual name; None when it is absent."""
    asked = reading.keys[label]
    hits = [asked] if asked in available else [] if asked else keys_for(label, available)
    if {"energy", "free_energy"} == set(hits):
        hits = ["free_energy"]  # the one whose derivative the forces are, with electronic smearing
    if not hits:
        return None
    values = [np.asarray(available[key]) for key in hits]
    if any(v.shape != values[0].shape or not np.array_equal(v, values[0]) for v in values[1:]):
        raise DataError(
            f"{where}: {label} under several names, {', '.join(sorted(hits))}; give --{label}-key"
        )
    reading.used[label] = hits[0]
    return values[0]


def _numbers(value, shape, where, label):
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {label} expected numbers, found {value!r}") from None
    if array.size == 1 and shape == ():
        return array.reshape(())
    if array.shape != shape:
        raise DataError(f"{where}: {label} expected shape {shape}, found {array.shape}")
    return array


def _virial(where, atoms, available, kind, reading):
    """np.ndarray or None: W (3, 3) in the file's unit of energy."""
    asked = reading.keys["virial"]
    found = {"virial": keys_for("virial", available), "stress": keys_for("stress", available)}
    hits = [asked] if asked in available else [] if asked else found["virial"] + found["stress"]
    if not hits or reading.stress == "none":
        return None
    convention = reading.stress
    if convention is None and (kind not in BARE_FORMATS or kind in ASE_FORMATS) and hits == ["stress"]:
        convention = "ase"
    if convention is None:
        raise DataError(f"{where}: {', '.join(hits)} can mean several things; state stress as {MEANINGS}")
    if not asked:
        wanted = "virial" if convention.startswith("virial") else "stress"
        if not found[wanted]:
            raise DataError(
                f"{where}: stress is stated as {convention!r}, but the file has {', '.join(hits)}; "
                "state another meaning, or give --virial-key to insist"
            )
        hits = found[wanted]
    if len(hits) > 1:
        raise DataError(f"{where}: virial under several names, {', '.join(sorted(hits))}; give --virial-key")
    if not atoms.pbc.all():
        note = f"{hits[0]} left out of frames that are not periodic in three directions"
        reading.notes[note] = reading.notes.get(note, 0) + 1
        return None
    reading.used["virial"] = hits[0]
    matrix = tensor(available[hits[0]], f"{where}: {hits[0]}")
    return virial_from(matrix, convention, atoms.get_volume())
