"""Frames made ready for training: ghosts and neighbors found once, batches as a function of the step alone.

Because batch number k depends only on the seed and on k, a restarted run needs no stored random state.
"""

from dataclasses import dataclass

import numpy as np
import torch

from deepmd_lite.errors import ConfigError, DataError, DomainError, NeighborOverflowError
from deepmd_lite.model import batch as batches
from deepmd_lite.train.loss import Labels


@dataclass
class Frame:
    """One frame: where it came from, what the model reads and what it should predict."""

    system: str
    index: int
    batch: batches.Batch
    labels: Labels


def prepare(systems, rcut, ntypes, numb_fparam=0, numb_aparam=0):
    """Ghosts, neighbors and labels of every frame: a list of `Frame` per system.

    Parameters
    ----------
    systems : list of frames.store.System
        Their types index the model's type_map.
    rcut : float, Å
    ntypes, numb_fparam, numb_aparam : int

    Raises
    ------
    DataError
        No frames, overlapping atoms, or missing fparam / aparam; names the system and frame.
    """
    if not systems or all(len(s.coord) == 0 for s in systems):
        raise DataError("no frames to train on: expected at least one system with one frame")
    return [
        [_frame(s, k, rcut, ntypes, numb_fparam, numb_aparam) for k in range(len(s.coord))] for s in systems
    ]


def check_labels(systems, loss):
    """Raise DataError where a system has none of the labels that the loss (`config.Loss`) counts."""
    wanted = [
        k
        for k in ("energy", "force", "virial")
        if any(getattr(loss, f"{p}_pref_{k[0]}") for p in ("start", "limit"))
    ]
    for s in systems:
        if not any(s.found[k].any() for k in wanted if k in s.found):
            found = [k for k in s.found if s.found[k].any()]
            raise DataError(
                f"{s.name}: the loss counts {', '.join(wanted)}, the frames have {', '.join(found) or 'no labels'}; "
                "set the prefactors of the labels that are there"
            )


def _frame(s, k, rcut, ntypes, numb_fparam, numb_aparam):
    natoms = len(s.atype)
    parameters = {}
    for name, wanted, size in (
        ("fparam", numb_fparam, numb_fparam),
        ("aparam", numb_aparam, natoms * numb_aparam),
    ):
        if wanted:
            if name not in s.labels or s.labels[name][k].size != size:
                raise DataError(
                    f"{s.name}: the model has numb_{name} = {wanted}, but frame {k} has no such {name}"
                )
            parameters[name] = s.labels[name][k]
    try:
        box = None if s.box is None else s.box[k]
        batch = batches.from_frame(s.coord[k], s.atype, box, s.pbc, rcut, ntypes, **parameters)
    except DomainError as e:
        raise DataError(f"{s.name}, frame {k}: {e}") from None

    def label(name, shape):
        values = s.labels[name][k] if name in s.labels else np.zeros(shape)
        found = bool(s.found[name][k]) if name in s.found else False
        return torch.as_tensor(values, dtype=torch.float64).reshape(shape), torch.tensor([found])

    (energy, e), (force, f), (virial, v) = (
        label("energy", (1,)),
        label("force", (natoms, 3)),
        label("virial", (1, 3, 3)),
    )
    n = torch.tensor([float(natoms)], dtype=torch.float64)
    found = {"energy": e, "force": f, "virial": v}
    return Frame(s.name, k, batch, Labels(n, batch.frame, energy, force, virial, found))


def max_neighbors(prepared):
    """The largest number of neighbors of each type in any frame, (ntypes,), and the frame that needs it."""
    largest, where = None, None
    for frame in (f for frames in prepared for f in frames):
        n = np.array(frame.batch.max_neighbors())
        if largest is None or (n > largest).any():
            where = f"{frame.system}, frame {frame.index}"
            largest = n if largest is None else np.maximum(n, largest)
    return largest, where


def check_sel(prepared, sel):
    """Raise NeighborOverflowError where an atom has more neighbors than ``sel``."""
    largest, where = max_neighbors(prepared)
    if (largest > np.array(sel)).any():
        needed = np.maximum(largest, sel).tolist()
        raise NeighborOverflowError(
            f"sel = {list(sel)} is too small: {where} needs {needed}; set model.descriptor.sel"
        )


def batch_size(setting, natoms):
    """Frames per batch of a system: a number, ``auto`` (= ``auto:32``) or ``auto:N``: at least N atoms."""
    if isinstance(setting, int):
        return setting
    atoms = int(setting.partition(":")[2] or 32)
    return -(-atoms // natoms)


class Sampler:
    """Batches of frames: `sampler(step)` is the list of frames of that step.

    Every epoch draws systems in proportion to their number of batches (or to ``probabilities``), and each
    system's frames in an order of their own; the last batch of a system may be smaller.
    """

    def __init__(self, prepared, size, seed, probabilities=None):
        self.systems = [frames for frames in prepared if frames]
        sizes = size if isinstance(size, list) else [size] * len(self.systems)
        if len(sizes) != len(self.systems):
            raise ConfigError(
                f"batch_size: expected {len(self.systems)} numbers, one for each system, found {len(sizes)}"
            )
        self.sizes = [batch_size(b, frames[0].batch.natoms) for b, frames in zip(sizes, self.systems)]
        self.counts = [-(-len(frames) // b) for b, frames in zip(self.sizes, self.systems)]
        self.seed, self.probabilities = seed, probabilities
        self._epoch, self._plan = None, None

    def __call__(self, step):
        epoch, k = divmod(step, sum(self.counts))
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._make_plan(epoch)
        return self._plan[k]

    def _make_plan(self, epoch):
        rng = np.random.default_rng((self.seed, epoch))
        order = np.repeat(np.arange(len(self.systems)), self.counts)
        if self.probabilities is None:
            rng.shuffle(order)
        else:
            order = rng.choice(len(self.systems), size=len(order), p=self.probabilities)
        queues = [self._cuts(rng, s) for s in range(len(self.systems))]
        return [next(queues[s]) for s in order]

    def _cuts(self, rng, s):
        """Batches of system s without end: permutation after permutation of its frames."""
        frames, size = self.systems[s], self.sizes[s]
        while True:
            order = rng.permutation(len(frames))
            yield from ([frames[i] for i in order[k : k + size]] for k in range(0, len(order), size))


def collate(frames):
    """A list of `Frame` as one (`Batch`, `Labels`)."""
    batch = batches.collate([f.batch for f in frames])
    parts = [f.labels for f in frames]
    joined = {k: torch.cat([getattr(p, k) for p in parts]) for k in ("natoms", "energy", "force", "virial")}
    found = {k: torch.cat([p.found[k] for p in parts]) for k in parts[0].found}
    return batch, Labels(frame=batch.frame, found=found, **joined)


def system_probabilities(rule, counts):
    """Probabilities of the systems from ``auto_prob``: prob_uniform, prob_sys_size, or blocks.

    Blocks read ``prob_sys_size;0:2:0.8;2:5:0.2``: systems 0-1 share 0.8 of the draws, 2-4 share 0.2, each block
    in proportion to the systems' numbers of batches. None stands for plain prob_sys_size.
    """
    kind, *blocks = rule.split(";")
    counts = np.asarray(counts, float)
    if kind == "prob_uniform":
        return np.full(len(counts), 1 / len(counts))
    if kind != "prob_sys_size":
        raise ConfigError(f"auto_prob: expected prob_uniform or prob_sys_size[;a:b:p...], found {rule!r}")
    if not blocks:
        return None
    p = np.zeros(len(counts))
    try:
        for start, stop, weight in (b.split(":") for b in blocks):
            part = slice(int(start), int(stop))
            p[part] = float(weight) * counts[part] / counts[part].sum()
    except ValueError:
        raise ConfigError(f"auto_prob: expected blocks start:stop:weight, found {rule!r}") from None
    if not np.isfinite(p).all() or p.sum() <= 0:
        raise ConfigError(f"auto_prob: the blocks of {rule!r} do not cover the {len(counts)} systems")
    return p / p.sum()
