"""Training, validation and test frames: at random, or by whole blocks of a trajectory.

Consecutive frames of a trajectory resemble one another, so that a random split tests on what was trained on.
With ``blocks`` each system is cut into stretches of consecutive frames, and a stretch goes to one part whole.
"""

from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames.store import read_systems
from deepmd_lite.frames.system import System
from deepmd_lite.frames.write import HDF5_SUFFIXES, write_systems


class Split(NamedTuple):
    """Three lists of systems; a system without frames in a part is not in its list."""

    training: list[System]
    validation: list[System]
    test: list[System]


def split(systems, fractions=(0.8, 0.1, 0.1), *, seed=0, blocks=None):
    """Share out the frames of each system.

    Parameters
    ----------
    systems : list of System
    fractions : sequence of float
        Of training, validation and test frames; they add up to 1. Two numbers leave out the test.
    seed : int
        Same seed, same split; frames keep their order within a part.
    blocks : int, optional
        Cut each system into this many stretches and share out those.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        Fractions that are negative or do not add up to 1, a negative seed, fewer than one block.
    DataError
        A part that should hold frames holds none.
    """
    fractions = np.array([*fractions, 0.0][:3] if len(fractions) == 2 else fractions, dtype=float)
    if fractions.shape != (3,) or (fractions < 0).any() or not np.isclose(fractions.sum(), 1.0, atol=1e-9):
        raise ConfigError(f"fractions {fractions.tolist()}: expected two or three that add up to 1")
    if seed < 0:
        raise ConfigError(f"seed = {seed}: expected 0 or more")
    if blocks is not None and blocks < 1:
        raise ConfigError(f"blocks = {blocks}: expected 1 or more")
    parts = Split([], [], [])
    carry = np.zeros(3)  # frames owed to a part from smaller systems
    for number, system in enumerate(systems):
        rng = np.random.default_rng([seed, number])
        units = np.array_split(np.arange(system.nframes), min(blocks or system.nframes, system.nframes))
        owed = carry + fractions * len(units)
        counts = _rounded(owed, len(units))
        carry = owed - counts
        owner = rng.permutation(np.repeat(np.arange(3), counts))
        for part in range(3):
            mine = [unit for unit, o in zip(units, owner) if o == part]
            if mine:
                parts[part].append(system.select(np.concatenate(mine)))
    for name, fraction, part in zip(Split._fields, fractions, parts):
        if fraction > 0 and not part:
            total = sum(s.nframes for s in systems)
            raise DataError(
                f"{name} frames are to be {fraction:.3g} of {total}, which leaves none; "
                "give more frames, or more blocks"
            )
    return parts


def _rounded(owed, total):
    """np.ndarray: Non-negative integers near ``owed`` with the sum ``total``, largest remainders first."""
    counts = np.maximum(np.floor(owed), 0).astype(int)
    while counts.sum() < total:
        counts[np.argmax(owed - counts)] += 1
    while counts.sum() > total:
        counts[np.argmin(np.where(counts > 0, owed - counts, np.inf))] -= 1
    return counts


def split_files(data, out, fractions, *, seed=0, blocks=None):
    """Split the frames at some addresses and write the parts: ``dplite split``.

    Parameters
    ----------
    data : list of str
        As for `read_systems`.
    out : str or Path
        As for `write_split`.
    fractions : str
        Of the parts: ``"0.8,0.1,0.1"``.
    seed, blocks
        As for `split`.

    Returns
    -------
    list of (str, int, str)
        Name of each part, its number of frames, where it was written.
    """
    try:
        numbers = [float(f) for f in fractions.split(",")]
    except ValueError:
        raise ConfigError(f"--fractions {fractions}: expected numbers like 0.8,0.1,0.1") from None
    parts = split(read_systems(data), numbers, seed=seed, blocks=blocks)
    written = write_split(parts, out).items()
    return [(part, sum(s.nframes for s in getattr(parts, part)), path) for part, path in written]


def write_split(parts, out):
    """Write a split as ``<stem>_training``, ``<stem>_validation`` and ``<stem>_test`` beside one another.

    Parameters
    ----------
    parts : Split
    out : str or Path
        ``name.h5`` gives ``name_training.h5`` ...; a directory gives ``name_training/`` ...

    Returns
    -------
    dict
        Name of the part to path.
    """
    out = str(out)
    suffix = next((s for s in HDF5_SUFFIXES if out.endswith(s)), "")
    stem = out.removesuffix(suffix)
    written = {}
    for name, part in zip(Split._fields, parts):
        if part:
            written[name] = f"{stem}_{name}{suffix}"
            write_systems(written[name], part)
    return written
