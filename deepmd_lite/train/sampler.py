"""Which frames make the batch of a step: a function of the seed and the step alone."""

import numpy as np

from deepmd_lite.errors import ConfigError


def batch_size(setting, natoms):
    """Frames per batch of a system: a number; ``auto`` (= ``auto:32``) or ``auto:N``, at least N atoms; ``max:N``, at
    most N atoms, but one frame; one for ``mixed:N``, see `Sampler`."""
    if isinstance(setting, int):
        return setting
    rule, _, number = setting.partition(":")
    if rule == "mixed":
        return 1
    atoms = int(number or 32)
    return max(1, atoms // natoms) if rule == "max" else -(-atoms // natoms)


class Sampler:
    """The order of frames: ``sampler(step)`` is a list of (system, frame).

    Every epoch draws systems in proportion to their number of batches (or to ``probabilities``), and each
    system's frames in an order of their own; the last batch of a system may be smaller. With ``mixed:N`` single
    frames are drawn in this way, and N draws make a batch.

    Parameters
    ----------
    counts, natoms : list of int
        Frames of each system, and atoms of each frame.
    size : int, str or list of int
        As in `batch_size`; a list has one for each system.
    seed : int
    probabilities : list of float, optional
    """

    def __init__(self, counts, natoms, size, seed, probabilities=None):
        sizes = size if isinstance(size, list) else [size] * len(counts)
        if len(sizes) != len(counts):
            raise ConfigError(
                f"batch_size: expected {len(counts)} numbers, one for each system, found {len(sizes)}"
            )
        self.frames = np.array(counts)
        self.sizes = np.array([batch_size(b, n) for b, n in zip(sizes, natoms)])
        self.counts = -(-self.frames // self.sizes)  # batches of each system, (nsystems,)
        self.joined = int(size.partition(":")[2]) if str(size).startswith("mixed") else 1
        self.seed, self.probabilities = seed, probabilities
        self._epoch = None

    def __call__(self, step):
        draws = int(self.counts.sum())
        epoch, k = divmod(step, -(-draws // self.joined))
        if epoch != self._epoch:
            self._epoch = epoch
            self._plan(epoch)
        first = k * self.joined
        return [
            place for draw in range(first, min(first + self.joined, draws)) for place in self._drawn(draw)
        ]

    def _plan(self, epoch):
        """The system of each draw of an epoch, how often it was drawn before, and the orders of its frames."""
        rng = np.random.default_rng((self.seed, epoch))
        self._system = np.repeat(np.arange(len(self.counts)), self.counts)
        if self.probabilities is None:
            rng.shuffle(self._system)
        else:
            self._system = rng.choice(len(self.counts), size=len(self._system), p=self.probabilities)
        often = np.bincount(self._system, minlength=len(self.counts))
        self._turn = np.empty_like(self._system)
        before = np.repeat(np.cumsum(often) - often, often)
        self._turn[np.argsort(self._system, kind="stable")] = np.arange(len(before)) - before
        self._order = [[] for _ in self.counts]
        for s in self._system[self._turn % self.counts[self._system] == 0]:  # has no frame left, or none yet
            self._order[s].append(rng.permutation(self.frames[s]))

    def _drawn(self, draw):
        s = int(self._system[draw])
        again, k = divmod(int(self._turn[draw]), int(self.counts[s]))
        size = int(self.sizes[s])
        return [(s, int(i)) for i in self._order[s][again][k * size : (k + 1) * size]]


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
