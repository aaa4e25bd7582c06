"""The frames of a training: read from disk and made ready when their turn comes, ahead of it in the background.

Ready is a frame with its ghosts, neighbors and labels. Batch number k depends only on the seed and on k, so a
restarted run needs no stored random state, and threads can prepare the batches that will be wanted next. Ready
frames stay in memory as long as there is room for them: small sets are read and prepared once, and the memory of
large ones does not grow with their number.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Lock

import numpy as np
import torch

from deepmd_lite.box import extend
from deepmd_lite.errors import ConfigError, DataError, DomainError
from deepmd_lite.frames.system import validate
from deepmd_lite.model import batch as batches
from deepmd_lite.neighbors import cell_list
from deepmd_lite.train.loss import Labels

ROOM = 2**29  # bytes of ready frames that are kept, of each data section
OBJECTS = 9_000  # bytes of a ready frame beside those of its arrays: tensors and objects, as measured
AHEAD = 4  # batches that are prepared before they are wanted
BLOCK = 2**21, 32  # bytes of positions, and frames, that a pass over all frames reads at once, at most


@dataclass
class Frame:
    """One frame: where it came from, what the model reads and what it should predict."""

    system: str
    index: int
    batch: batches.Batch
    labels: Labels

    @property
    def nbytes(self):
        """int: Memory that it takes."""
        values = [*vars(self.batch).values(), *vars(self.labels).values(), *self.labels.found.values()]
        return OBJECTS + sum(v.nbytes for v in values if hasattr(v, "nbytes"))


@cache
def _pool(threads):
    return ThreadPoolExecutor(threads, thread_name_prefix="frames")


class Frames:
    """The frames of some systems, ready for training.

    Parameters
    ----------
    systems : list of frames.stored.StoredSystem
        Their types index the model's type_map.
    rcut : float, Å
    ntypes, numb_fparam, numb_aparam : int
    weights : list of float, optional
        One for each system, a factor of the weights of its frames.

    Notes
    -----
    What is in the way of a frame's use (overlapping atoms, missing fparam or aparam, numbers that are not finite)
    raises DataError that names the system and the frame; `map` meets all of it.
    """

    def __init__(self, systems, rcut, ntypes, numb_fparam=0, numb_aparam=0, weights=None):
        self.systems, self.rcut, self.ntypes = systems, rcut, ntypes
        self.numb_fparam, self.numb_aparam = numb_fparam, numb_aparam
        self.weights = weights or [1.0] * len(systems)
        if len(self.weights) != len(systems):
            raise ConfigError(
                f"training_data.weights: expected {len(systems)} numbers, one for each system, "
                f"found {len(self.weights)}"
            )
        self._first = np.cumsum([0, *(s.nframes for s in systems)])
        self._kept, self._room, self._lock = {}, ROOM, Lock()

    def __len__(self):
        return int(self._first[-1])

    def place(self, number):
        """(system, frame) of a frame that is counted over all systems."""
        s = int(np.searchsorted(self._first, number, side="right")) - 1
        return s, int(number - self._first[s])

    def frame(self, s, k):
        """`Frame` k of system s."""
        found = self._kept.get((s, k))
        if found is None:
            found = self._ready(self.systems[s].read(k, k + 1), 0, s, k)
            # The first to come stay: in a new order each epoch, those used last are no likelier to come again.
            with self._lock:
                if (s, k) not in self._kept and found.nbytes <= self._room:
                    self._kept[s, k] = found
                    self._room -= found.nbytes
        return found

    def map(self, function):
        """Yield function(frame) of all frames, in order; threads make, check, use and forget one after another."""
        pool, waiting = _pool(torch.get_num_threads()), deque()
        try:
            for s, system in enumerate(self.systems):
                step = max(1, min(BLOCK[0] // (24 * system.natoms), BLOCK[1]))
                for start in range(0, system.nframes, step):
                    waiting.append(pool.submit(self._block, s, start, start + step, function))
                    if len(waiting) > 2 * torch.get_num_threads():
                        yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for block in waiting:
                block.cancel()

    def _block(self, s, start, stop, function):
        system = self.systems[s].read(start, stop)
        validate(system, start)
        return [function(self._ready(system, j, s, start + j)) for j in range(system.nframes)]

    def _ready(self, system, j, s, k):
        """Row j of a `System` in memory, frame k of system s, as a `Frame`."""
        try:
            box = None if system.box is None else system.box[j]
            ghosts = extend(system.coord[j], box, system.pbc, self.rcut)
            table = cell_list(ghosts.coord, system.natoms, self.rcut, threads=False)
            parameters = self._parameters(system, j, k)
            batch = batches.from_neighbors(ghosts, table, system.atype, self.ntypes, **parameters)
        except DomainError as e:
            raise DataError(f"{system.name}, frame {k}: {e}") from None
        return Frame(system.name, k, batch, _labels(system, j, k, batch.frame, self.weights[s]))

    def _parameters(self, system, j, k):
        """dict: fparam and aparam, as far as the model reads them."""
        parameters = {}
        for name, wanted, size in (
            ("fparam", self.numb_fparam, self.numb_fparam),
            ("aparam", self.numb_aparam, system.natoms * self.numb_aparam),
        ):
            if wanted:
                if (
                    name not in system.labels
                    or not system.found[name][j]
                    or system.labels[name][j].size != size
                ):
                    raise DataError(
                        f"{system.name}: the model has numb_{name} = {wanted}, but frame {k} has no such {name}"
                    )
                parameters[name] = system.labels[name][j]
        return parameters


def _labels(system, j, k, frame, weight):
    """`Labels` of row j of a `System`, frame k of its own; its weight, 1 where it has none, times ``weight``."""
    shapes = {"energy": (1,), "force": (system.natoms, 3), "virial": (1, 3, 3)}
    values, found = {}, {}
    for key, shape in shapes.items():
        there = key in system.labels
        value = system.labels[key][j] if there else np.zeros(shape)
        values[key] = torch.as_tensor(value, dtype=torch.float64).reshape(shape)
        found[key] = torch.tensor([bool(there and system.found[key][j])])
    if "weight" in system.labels and system.found["weight"][j]:
        own = float(system.labels["weight"][j])
        if not own > 0:
            raise DataError(f"{system.name}: weight of frame {k} is {own}; expected a positive number")
        weight = weight * own
    natoms, weight = (torch.tensor([float(v)], dtype=torch.float64) for v in (system.natoms, weight))
    return Labels(natoms, frame, **values, weight=weight, found=found)


class Loader:
    """Frames of each step, made ready before it comes: ``loader(step)`` is a list of `Frame`.

    Parameters
    ----------
    frames : Frames
    draw : callable
        draw(step) is a list of (system, frame), the same whenever it is asked.
    """

    def __init__(self, frames, draw):
        self.frames, self.draw = frames, draw
        self._coming = {}  # step: its frames, or the promise of them

    def __call__(self, step):
        """The frames of a step; what was in their way, in whatever thread, is raised here."""
        pool, coming = _pool(torch.get_num_threads()), self._coming
        self._coming = {
            k: coming[k] if k in coming else pool.submit(self._load, self.draw(k))
            for k in range(step, step + AHEAD + 1)
        }
        return self._coming[step].result()

    def _load(self, places):
        return [self.frames.frame(s, k) for s, k in places]


def collate(frames):
    """A list of `Frame` as one (`Batch`, `Labels`)."""
    batch = batches.collate([f.batch for f in frames])
    parts = [f.labels for f in frames]
    keys = ("natoms", "energy", "force", "virial", "weight")
    joined = {k: torch.cat([getattr(p, k) for p in parts]) for k in keys}
    found = {k: torch.cat([p.found[k] for p in parts]) for k in parts[0].found}
    return batch, Labels(frame=batch.frame, found=found, **joined)


def check_labels(systems, loss):
    """Raise DataError where a system has none of the labels that the loss (`config.Loss`) counts."""
    wanted = [
        k
        for k in ("energy", "force", "virial")
        if any(getattr(loss, f"{p}_pref_{k[0]}") for p in ("start", "limit"))
    ]
    for s in systems:
        if not s.found & set(wanted):
            raise DataError(
                f"{s.name}: the loss counts {', '.join(wanted)}, the frames have "
                f"{', '.join(sorted(s.found)) or 'no labels'}; set the prefactors of the labels that are there"
            )
