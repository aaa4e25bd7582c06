"""How many steps a training does in a given time: measured by the first steps of that very training."""

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from deepmd_lite.config import parse_config
from deepmd_lite.errors import ConfigError
from deepmd_lite.train.trainer import Trainer

MEASURED = 30  # steps
ROWS, SAVES = 200, 20  # of a run: rows of lcurve.out, checkpoints
SHARE = 0.05  # of the time that the rows may take, and as much that the checkpoints may


class Cost(NamedTuple):
    """Seconds of the parts of a training."""

    start: float  # frames read, neighbors found
    step: float
    row: float  # of lcurve.out, with its validation batches
    save: float  # a checkpoint, with the errors on all validation frames


class _Clock:
    """A `Trainer`'s progress that notes when each step, and each row, was done."""

    def __init__(self):
        self.steps, self.rows = [], []

    def advance(self, step):
        self.steps.append(perf_counter())

    def report(self, step, lr, training, validation):
        self.rows.append(perf_counter())


def measure(made):
    """The `Cost` of training an input (a dict in the schema of `config`), from MEASURED steps of it."""
    trial, clock = deepcopy(made), _Clock()
    trial["training"] |= {"numb_steps": MEASURED, "disp_freq": MEASURED + 1, "save_freq": MEASURED}
    with TemporaryDirectory() as folder:
        begin = perf_counter()
        trainer = Trainer(parse_config(trial), Path(folder), progress=clock)
        ready = perf_counter()
        trainer.run()
        end = perf_counter()
    step = (clock.steps[-1] - clock.rows[0]) / (MEASURED - 1)  # the only row follows the first step
    return Cost(
        start=ready - begin,  # without the first step, in which kernels may be compiled, once for all runs
        step=step,
        row=clock.rows[0] - clock.steps[0],
        save=end - clock.steps[-1],
    )


def plan(seconds, cost):
    """``numb_steps``, ``disp_freq`` and ``save_freq`` of a training that takes so long.

    Notes
    -----
    With ROWS rows and SAVES checkpoints, or fewer where those would take more than SHARE of the time each::

        steps = (seconds - start - rows · row - saves · save) / step

    Raises
    ------
    ConfigError
        Less time than the start, a row, a checkpoint and one step take.
    """
    rows, saves = (
        max(1, min(most, int(SHARE * seconds / each)))
        for most, each in ((ROWS, cost.row), (SAVES, cost.save))
    )
    fixed = cost.start + rows * cost.row + saves * cost.save
    steps = int((seconds - fixed) / cost.step)
    if steps < 1:
        raise ConfigError(
            f"--minutes {seconds / 60:.3g}: the start of this training takes {cost.start:.2g} s, a step "
            f"{cost.step:.2g} s, a row of lcurve.out {cost.row:.2g} s, a checkpoint {cost.save:.2g} s; give more time"
        )
    return {"numb_steps": steps, "disp_freq": -(-steps // rows), "save_freq": -(-steps // saves)}


def steps_within(seconds, made):
    """`plan` for an input, with the cost that it is measured to have here, with as many threads as now."""
    return plan(seconds, measure(made))
