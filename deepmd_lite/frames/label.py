"""Label structures with an ASE calculator, frame by frame: what `dplite label` does.

Each frame is on disk before the next one starts, so a run that was stopped goes on where it was. Which ones are
done is read from the frames themselves: a stored frame is an input frame when elements, coordinates and cell are
the same numbers. The virial is Ξ = -V σ, with σ the stress in ASE's sign.
"""

import importlib
import importlib.util
import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.calculators.calculator import CalculatorError, get_calculator_class
from ase.io import read

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames.store import append_frame, read_systems, split_address


class FrameSkipped(UserWarning):
    """The calculator failed on a frame, which therefore has no label."""


class Summary(NamedTuple):
    """Counts of frames: labelled now, found labelled already, and skipped because the calculator failed."""

    labelled: int
    found: int
    skipped: int


def label(structures, calculator, out, *, options=None, resume=True, limit=None, progress=None):
    """Compute energy, force and, where there is stress, virial of structures and append them to a system.

    Parameters
    ----------
    structures : str, Path or sequence of ase.Atoms
        A file that ASE reads, or the structures; all of one composition, order of atoms and periodicity.
    calculator : str or callable
        ASE name ("emt"), ``package.module:Class``, ``path/to/file.py:function``, or a callable that returns a
        calculator.
    out : str or Path
        Address of the system, ``file.h5#/SYS``; created when it is not there.
    options : dict or str, optional
        Keyword arguments of the calculator, or the same as a JSON object.
    resume : bool
        Go on with a system that has frames already; False refuses it.
    limit : int, optional
        Stop after this many frames labelled now.
    progress : callable, optional
        Called as ``progress(finished, total, skipped)`` after each frame.

    Returns
    -------
    Summary

    Raises
    ------
    ConfigError
        A calculator that is not there or does not take the options.
    DataError
        Structures that are not readable or not of one kind, ``out`` with other frames than those of
        ``structures``, or a calculator without energy or forces.

    Warns
    -----
    FrameSkipped
        The calculator failed on a frame; the frame is left out, and tried again by the next run.
    """
    frames = _read_structures(structures)
    done = _stored_frames(out)
    if done and not resume:
        raise DataError(f"{out}: expected no frames, found {len(done)}; resume, or choose another address")
    keys = [_key(atoms.symbols, atoms.positions, atoms.cell[:], atoms.pbc) for atoms in frames]
    strange = len(done - set(keys))
    if strange:
        raise DataError(
            f"{out}: expected only frames of the given structures, found {strange} of {len(done)} that are "
            "not among them; give the structures it was made from, or choose another address"
        )
    calc = make_calculator(calculator, options)
    labelled = found = skipped = 0
    for k, (key, atoms) in enumerate(zip(keys, frames)):
        if labelled == limit:
            break
        if key in done:
            found += 1
        elif _label_one(atoms, calc, out, f"frame {k}"):
            labelled += 1
            done.add(key)
        else:
            skipped += 1
        if progress is not None:
            progress(k + 1, len(frames), skipped)
    return Summary(labelled, found, skipped)


def make_calculator(calculator, options=None):
    """ase.calculators.calculator.Calculator: The one that a name or import path stands for.

    Raises
    ------
    ConfigError
        No such calculator, or options that it does not take.
    """
    if isinstance(options, str):
        try:
            options = json.loads(options)
        except ValueError as reason:
            raise ConfigError(f"calculator options: expected a JSON object ({reason})") from None
    if not isinstance(options, dict | None):
        raise ConfigError(f"calculator options: expected a JSON object, found {options!r}")
    make = calculator if callable(calculator) else _find(str(calculator))
    try:
        return make(**(options or {}))
    except TypeError as reason:
        raise ConfigError(
            f"calculator {calculator}: does not take the options {options} ({reason})"
        ) from None


def _find(name):
    """callable: What ``module:attribute``, ``file.py:attribute`` or an ASE name stands for."""
    module, colon, attribute = name.rpartition(":")
    try:
        if not colon:
            return get_calculator_class(name)
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module).stem, module)
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
        return getattr(loaded, attribute)
    except (ImportError, AttributeError, OSError) as reason:
        raise ConfigError(
            f"calculator {name}: not found ({reason}); expected an ASE name such as emt, "
            "package.module:Class or path/to/file.py:function"
        ) from None


def _read_structures(structures):
    """list of ase.Atoms: All frames; DataError unless they are of one composition, order and periodicity."""
    where = "structures"
    if isinstance(structures, str | Path):
        where = str(structures)
        try:
            structures = read(structures, index=":")
        except Exception as reason:  # every ASE reader has errors of its own
            raise DataError(f"{where}: not readable by ASE ({type(reason).__name__}: {reason})") from None
    frames = list(structures)
    if not frames:
        raise DataError(f"{where}: expected at least one frame, found none")
    for k, atoms in enumerate(frames):
        if list(atoms.symbols) != list(frames[0].symbols) or (atoms.pbc != frames[0].pbc).any():
            raise DataError(
                f"{where}: expected one composition, order of atoms and periodicity, found "
                f"{frames[0].symbols} pbc {frames[0].pbc.tolist()} in frame 0 and "
                f"{atoms.symbols} pbc {atoms.pbc.tolist()} in frame {k}; label them apart"
            )
    return frames


def _stored_frames(out):
    """set: Keys of the frames that are in ``out``."""
    path, group = split_address(out)
    if not path.exists():
        return set()
    systems = [s for s in read_systems(path) if group is None or split_address(s.name)[1] == group]
    return {
        _key([s.type_map[t] for t in s.atype], coord, None if s.box is None else s.box[k], s.pbc)
        for s in systems
        for k, coord in enumerate(s.coord)
    }


def _key(symbols, coord, box, pbc):
    """tuple: What tells one frame from another; the cell counts where there is an axis to repeat along."""
    cell = np.asarray(box, dtype=np.float64).tobytes() if np.any(pbc) else b""
    return tuple(symbols), np.asarray(coord, dtype=np.float64).tobytes(), cell, tuple(map(bool, pbc))


def _label_one(atoms, calc, out, name):
    """bool: Whether the frame got its labels and is stored."""
    atoms = atoms.copy()
    atoms.calc = calc
    try:
        energy, force = float(atoms.get_potential_energy()), atoms.get_forces(apply_constraint=False)
        virial = _virial(atoms)
    except NotImplementedError as reason:
        raise DataError(f"{name}: the calculator gives no energy or forces ({reason})") from None
    except (CalculatorError, RuntimeError) as reason:
        warnings.warn(f"{name} skipped: {type(reason).__name__}: {reason}", FrameSkipped, stacklevel=3)
        return False
    if not all(np.isfinite(x).all() for x in (energy, force, 0.0 if virial is None else virial)):
        warnings.warn(f"{name} skipped: its labels are not finite", FrameSkipped, stacklevel=3)
        return False
    append_frame(
        out,
        symbols=list(atoms.symbols),
        coord=atoms.positions,
        box=atoms.cell[:] if atoms.pbc.any() else None,
        pbc=atoms.pbc,
        energy=energy,
        force=force,
        virial=virial,
    )
    return True


def _virial(atoms):
    """np.ndarray (3, 3) or None: -V σ, eV; None without three periodic axes or without stress."""
    if not atoms.pbc.all():
        return None
    try:
        return -atoms.get_volume() * atoms.get_stress(voigt=False, apply_constraint=False)
    except NotImplementedError:
        return None
