"""Radial distributions and coordination numbers of a trajectory, all pairs of elements in one pass."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from rich.table import Table
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from deepmd_lite.box import complete_cell, face_distances
from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.evaluate.dynamics import _distances

REACH = 6.0, 8.0  # Å: least and largest range of g(r), unless it is given
APART = 20.0  # fs: frames closer to one another add nothing to g(r)
SMOOTH, NOTABLE = 0.05, 0.05  # Å: Gaussian that g(r) is smoothed with to find shells; height that counts


def _elements(symbols):
    """dict of str to (n,) int array: The atoms of each element, elements in the order they come in."""
    symbols = np.asarray(symbols)
    return {str(s): np.flatnonzero(symbols == s) for s in dict.fromkeys(symbols.tolist())}


def _write(path, columns):
    """Path: The text file written, a column for each title; its folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    header = "\n".join(f"{k} {title}" for k, title in enumerate(columns, 1))
    np.savetxt(path, np.column_stack(list(columns.values())), fmt="%.8g", header=header, encoding="utf-8")
    return Path(path)


@dataclass(frozen=True)
class PairDistribution:
    """Radial distribution of two elements A and B.

    Attributes
    ----------
    pair : (str, str)
    r : (nbins,) array, Å
        Centers of the bins.
    g : (nbins,) array
        As from `dynamics.radial_distribution`.
    neighbors : (nbins,) array
        n(r), the mean number of B around an A up to the outer edge of each bin.
    ratio : float
        Number of A over number of B: n(r) times it counts A around a B.
    crystal_like : bool
        Whether g is relative to an ideal gas; a distribution of area 1, in 1/Å, otherwise.
    """

    pair: tuple[str, str]
    r: np.ndarray
    g: np.ndarray
    neighbors: np.ndarray
    ratio: float
    crystal_like: bool

    def shell(self):
        """The first shell: its peak r and g, the minimum r behind it and n(r) there; None where there is none."""
        smooth = gaussian_filter1d(self.g, SMOOTH / (self.r[1] - self.r[0]), mode="constant")
        least = min(NOTABLE * smooth.max(), NOTABLE if self.crystal_like else np.inf)
        peaks = find_peaks(smooth, prominence=least)[0]
        if len(peaks) == 0:
            return None
        peak, behind = peaks[0], smooth[peaks[0] :]
        minima = find_peaks(-behind, prominence=least)[0]  # the middle where g is 0 between shells
        nothing = np.flatnonzero(behind < 1e-3 * behind[0])
        if len(minima):
            minimum = peak + minima[0]
        elif len(nothing):
            minimum = peak + nothing[0]
        else:
            return None
        return (
            float(self.r[peak]),
            float(self.g[peak]),
            float(self.r[minimum]),
            float(self.neighbors[minimum]),
        )


@dataclass(frozen=True)
class RadialDistributions:
    """Radial distributions of several pairs, averaged over `nframes` frames."""

    pairs: list[PairDistribution]
    nframes: int

    def table(self):
        """rich.table.Table: One row per pair: the first shell."""
        caption = f"{self.nframes} frames; neighbors up to the first minimum of g(r)"
        table = Table(title="First shells", caption=caption)
        table.add_column("pair A-B")
        height = "g at peak" if self.pairs[0].crystal_like else "height (1/Å)"
        for name in ("peak (Å)", height, "minimum (Å)", "B around A", "A around B"):
            table.add_column(name, justify="right")
        for p in self.pairs:
            shell = p.shell()
            figures = ["-"] * 5
            if shell is not None:
                peak, height, minimum, n = shell
                figures = [f"{peak:.2f}", f"{height:.3g}", f"{minimum:.2f}", f"{n:.2f}", f"{n * p.ratio:.2f}"]
            table.add_row("-".join(p.pair), *figures)
        return table

    def write(self, path):
        """Write r, and g(r) and n(r) of each pair, as columns; list of Path."""
        columns = {"r (Å): center of the bin; n counts up to its outer edge": self.pairs[0].r}
        for p in self.pairs:
            name = "-".join(p.pair)
            columns[f"{'g' if p.crystal_like else 'distribution (1/Å)'} {name}"] = p.g
            columns[f"n {name}"] = p.neighbors
        return [_write(path, columns)]


class RadialCounter:
    """Counts pairs by distance, frame by frame; frames less than 20 fs after the last one counted are left out.

    Parameters
    ----------
    trajectory : Trajectory
    pairs : str or sequence of (str, str)
        "all" that there are, or pairs of elements: "O-O,O-H" or [("O", "O"), ("O", "H")].
    rmax : float, Å, optional
        May exceed the cell: an atom then finds its own images, too. By default half the distance of opposite
        faces, but no less than 6 and no more than 8 Å.
    nbins : int

    Raises
    ------
    ConfigError
        Pairs of elements that are not in the trajectory, rmax or nbins not positive.
    """

    def __init__(self, trajectory, pairs="all", rmax=None, nbins=200):
        self.atoms = _elements(trajectory.symbols)
        self.wanted, self.pairs = pairs, _parse_pairs(pairs, list(self.atoms))
        if not ((rmax is None or 0 < rmax < np.inf) and nbins > 1):
            raise ConfigError(
                f"radial distribution: expected rmax > 0 and nbins > 1, found {rmax} and {nbins}"
            )
        self.symbols, self.pbc, self.rmax, self.nbins = trajectory.symbols, trajectory.pbc, rmax, nbins
        self.counts = {pair: np.zeros(nbins) for pair in self.pairs}
        self.nframes, self.density, self.last = 0, 0.0, -np.inf  # density: Σ 1/V over frames, 1/Å³

    def watch(self, frames):
        """Yield frames as they come, counting their pairs."""
        for frame in frames:
            if frame.time is None or frame.time - self.last > APART - 1e-6:
                self._add(frame)
                self.last = -np.inf if frame.time is None else frame.time
            yield frame

    def _add(self, frame):
        if self.rmax is None:
            faces = face_distances(complete_cell(frame.cell, self.pbc))[self.pbc]
            self.rmax = float(np.clip(faces.min(initial=np.inf) / 2, *REACH))
        edges = np.linspace(0.0, self.rmax, self.nbins + 1)
        self.nframes += 1
        self.density += 1 / abs(np.linalg.det(frame.cell)) if self.pbc.all() else 0.0
        for a, b in self.pairs:
            chosen = self.atoms[a] if a == b else np.concatenate([self.atoms[a], self.atoms[b]])
            some = Atoms(self.symbols[chosen], frame.coord[chosen], cell=frame.cell, pbc=self.pbc)
            first, second = (np.flatnonzero(self.symbols[chosen] == element) for element in (a, b))
            self.counts[a, b] += np.histogram(_distances(some, first, second, self.rmax), edges)[0]

    def result(self):
        """RadialDistributions: Of the frames counted; DataError where there are no pairs."""
        pairs, crystal_like = [], bool(self.pbc.all())
        edges = np.linspace(0.0, self.rmax or 0.0, self.nbins + 1)
        for (a, b), counts in self.counts.items():
            if not counts.any() and self.wanted != "all":
                raise DataError(f"radial distribution: found no pair {a}-{b} within {self.rmax:g} Å")
            if not counts.any():
                continue
            na, nb = len(self.atoms[a]), len(self.atoms[b])
            partners = nb - (a == b and nb > 1)  # no partner of its own
            ideal = self.density * na * partners * 4 / 3 * np.pi * np.diff(edges**3)
            g = counts / (ideal if crystal_like else counts.sum() * edges[1])
            n = np.cumsum(counts) / (self.nframes * na)
            pairs.append(PairDistribution((a, b), (edges[1:] + edges[:-1]) / 2, g, n, na / nb, crystal_like))
        if not pairs:
            raise DataError(f"radial distribution: found no pair of atoms within {self.rmax:g} Å")
        return RadialDistributions(pairs, self.nframes)


def _parse_pairs(pairs, elements):
    """list of (str, str)."""
    if isinstance(pairs, str):
        if pairs == "all":
            return [(a, b) for k, a in enumerate(elements) for b in elements[k:]]
        pairs = [tuple(word.strip().split("-")) for word in pairs.split(",")]
    pairs = list(dict.fromkeys(map(tuple, pairs)))
    for pair in pairs:
        if len(pair) != 2 or not set(pair) <= set(elements):
            expected = f"pairs such as {elements[0]}-{elements[-1]} of the elements {', '.join(elements)}"
            raise ConfigError(f"radial distribution of {'-'.join(pair)}: expected {expected}")
    return pairs
