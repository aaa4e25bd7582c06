"""Errors of a model frame by frame, and how sure they are: intervals by drawing frames anew (the bootstrap)."""

import itertools
from dataclasses import dataclass

import numpy as np

from deepmd_lite.evaluate.predict import predict

UNITS = {"energy": "meV/atom", "force": "meV/Å"}
LEVEL = 0.9  # of intervals
DRAWS = 2000  # of frames for an interval


def picked(systems, numbers):
    """list of System: The frames of these numbers, counted over all systems; systems without any are left out."""
    first = np.cumsum([0, *(s.nframes for s in systems)])
    parts = [np.sort(numbers[(numbers >= a) & (numbers < b)]) - a for a, b in itertools.pairwise(first)]
    return [s.select(part) for s, part in zip(systems, parts) if len(part)]


@dataclass(frozen=True)
class FrameErrors:
    """Errors of frames, by quantity: sums of squares and of absolute values, and how many numbers those are of.

    Energies count per atom. Frames without the label have 0 numbers.
    """

    squares: dict[str, np.ndarray]  # (nframes,) (eV/atom)², (eV/Å)²
    absolute: dict[str, np.ndarray]  # (nframes,) eV/atom, eV/Å
    counts: dict[str, np.ndarray]  # (nframes,)

    def rmse(self, key):
        """eV/atom or eV/Å; None without labels."""
        return float(np.sqrt(self.squares[key].sum() / n)) if (n := self.counts[key].sum()) else None

    def mae(self, key):
        """eV/atom or eV/Å; None without labels."""
        return float(self.absolute[key].sum() / n) if (n := self.counts[key].sum()) else None

    def resampled(self, key, rng):
        """RMSE (DRAWS,) of as many frames drawn with replacement from those that have the label."""
        there = self.counts[key] > 0
        n = int(there.sum())
        often = rng.multinomial(n, np.full(n, 1 / n), DRAWS)
        return np.sqrt((often @ self.squares[key][there]) / (often @ self.counts[key][there]))


def frame_errors(potential, systems):
    """`FrameErrors` of a potential (of `backends.load_potential`) on all frames of a list of System."""
    rows = {key: [] for key in UNITS}
    for system in systems:
        p = predict(potential, system)
        for key, per, width in (("energy", system.natoms, 1), ("force", 1, 3 * system.natoms)):
            reference, prediction = p.against(key)
            residual = (prediction - reference).reshape(-1, width) / per
            sums = np.zeros((system.nframes, 3))
            found = system.found.get(key, np.zeros(system.nframes, bool))
            sums[found] = np.column_stack(
                [(residual**2).sum(1), np.abs(residual).sum(1), np.full(len(residual), width)]
            )
            rows[key].append(sums)
    columns = {key: np.concatenate(parts).T for key, parts in rows.items()}
    return FrameErrors(*({key: c[k] for key, c in columns.items()} for k in range(3)))


@dataclass(frozen=True)
class Gap:
    """RMSE on the frames trained on, on others, and the difference, each with its interval; meV/atom, meV/Å."""

    quantity: str
    training: tuple[float, float, float]
    validation: tuple[float, float, float] | None
    gap: tuple[float, float, float] | None


def generalization_gap(key, errors, rng):
    """`Gap` from the `FrameErrors` of the frames trained on and, where there are some, of others."""
    parts = [e for e in errors if e.counts[key].any()]
    values, draws = [e.rmse(key) for e in parts], [e.resampled(key, rng) for e in parts]
    if len(parts) > 1:
        values.append(values[1] - values[0])
        draws.append(draws[1] - draws[0])
    edges = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    rows = [(1e3 * v, *(1e3 * np.quantile(d, edges))) for v, d in zip(values, draws)]
    return Gap(key, *rows, *[None] * (3 - len(rows)))
