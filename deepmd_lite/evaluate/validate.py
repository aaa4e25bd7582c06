"""The engine against the reference, on the same frames: ``dplite validate``.

Whatever has `evaluate` as contract.py says can be compared. Differences are per atom for the energy and the
virial. Relative to a number x of the reference they are taken as |difference| / max(|x|, floor), the floor being
the root mean square of all such numbers: a force that happens to vanish has no relative error of interest.
"""

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from deepmd_lite.backends import load_potential
from deepmd_lite.evaluate.predict import predict
from deepmd_lite.evaluate.test import QUANTITIES
from deepmd_lite.frames.store import read_systems

UNITS = {"energy": "eV/atom", "force": "eV/Å", "virial": "eV/atom"}


@dataclass(frozen=True)
class Difference:
    """Between two predictions of one quantity.

    Attributes
    ----------
    largest : float
        Largest difference of a number; eV/atom, eV/Å.
    median_relative : float
        Median of the differences relative to the larger of the number itself and the floor.
    """

    largest: float
    median_relative: float


@dataclass(frozen=True)
class Validation:
    """Differences over all frames: by quantity, `energy`, `force` and `virial`."""

    nframes: int
    differences: dict[str, Difference]

    def table(self):
        """rich.table.Table: One row per quantity."""
        table = Table(title=f"Engine against reference, {self.nframes} frames")
        for name in ("quantity", "unit", "largest difference", "median, relative"):
            table.add_column(name, justify="left" if name in ("quantity", "unit") else "right")
        for key, d in self.differences.items():
            table.add_row(key, UNITS[key], f"{d.largest:.1e}", f"{d.median_relative:.1e}")
        return table


def compare(reference, other, systems):
    """Evaluate frames with two implementations.

    Parameters
    ----------
    reference, other : DeepPot, CompiledPot, or whatever keeps their contract
    systems : list of System
        With the type_map of both.

    Returns
    -------
    Validation
    """
    differences = {}
    pairs = [(predict(reference, s), predict(other, s)) for s in systems]
    for key in QUANTITIES:
        scale = [1 if key == "force" else a.system.natoms for a, _ in pairs]
        x = np.concatenate([getattr(a, key).ravel() / n for (a, _), n in zip(pairs, scale)])
        y = np.concatenate([getattr(b, key).ravel() / n for (_, b), n in zip(pairs, scale)])
        floor = max(np.sqrt(np.mean(x**2)), np.finfo(float).tiny)
        relative = np.abs(x - y) / np.maximum(np.abs(x), floor)
        differences[key] = Difference(float(np.abs(x - y).max()), float(np.median(relative)))
    return Validation(sum(s.nframes for s in systems), differences)


def validate_model(model, systems, precision="float64", threads=None):
    """The engine against torch for one model file.

    Parameters
    ----------
    model : str or Path
        A ``.dp`` file.
    systems : str, Path or sequence of them
        Frames, as for `read_systems`.
    precision, threads
        Of the engine, as for `backends.load_potential`.

    Returns
    -------
    Validation

    Raises
    ------
    ModelFileError, DataError, ConfigError
        If the model, the frames or the options cannot be used.
    """
    reference = load_potential(model, "torch")
    engine = load_potential(model, "numba", precision, threads)
    return compare(reference, engine, read_systems(systems, reference.type_map))
