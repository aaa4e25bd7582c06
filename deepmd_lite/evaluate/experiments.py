"""The lecture's experiments as a person runs them: ``dplite theory list`` and ``dplite theory run``."""

import difflib
import math
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate.plots import picture
from deepmd_lite.theory.experiment import Experiment, Outcome
from deepmd_lite.theory.experiments import EXPERIMENTS


@dataclass(frozen=True)
class Finding:
    """An experiment, what it found, and how long it took (seconds)."""

    experiment: Experiment
    outcome: Outcome
    seconds: float

    @property
    def passed(self):
        return all(check.passed for check in self.outcome.checks)

    def table(self):
        """rich.table.Table: a row per check."""
        e = self.experiment
        table = Table(
            title=f"{e.id} {e.name}", caption=f"{e.statement} ({self.seconds:.1f} s)", title_justify="left"
        )
        table.add_column("quantity", overflow="fold")
        for name in ("measured", "predicted", "criterion"):
            table.add_column(name, justify="right")
        table.add_column("")
        for c in self.outcome.checks:
            predicted = "" if c.predicted is None else f"{c.predicted:.4g}"
            verdict = "[green]pass[/]" if c.passed else "[red]fail[/]"
            table.add_row(c.quantity, f"{c.measured:.4g}", predicted, c.criterion, verdict)
        return table

    def as_dict(self):
        """For JSON; numbers that are not finite become None."""
        e = self.experiment
        checks = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(c).items()}
            for c in self.outcome.checks
        ]
        head = {"id": e.id, "name": e.name, "statement": e.statement}
        return {**head, "passed": self.passed, "seconds": round(self.seconds, 2), "checks": checks}

    def draw(self, folder, dpi=200):
        """Draw the picture of the experiment, folder/NAME.png: its path."""
        path = Path(folder) / f"{self.experiment.name}.png"
        with picture(path, size=(6.4, 4.2), dpi=dpi) as axes:
            self.outcome.draw(axes[0, 0])
        return path


def listing():
    """rich.table.Table: All experiments."""
    table = Table("id", "name", "statement")
    for e in EXPERIMENTS:
        table.add_row(e.id, e.name, e.statement)
    return table


def choose(names):
    """The experiments of these names or ids, in their order; ConfigError for one that is unknown."""
    known = {key: e for e in EXPERIMENTS for key in (e.name, e.id.lower())}
    for name in names:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, 1)
            hint = f"did you mean {near[0]}?" if near else "dplite theory list names them"
            raise ConfigError(f"expected the name or id of an experiment, found {name}; {hint}")
    return [known[name.lower()] for name in names]


def run(experiment, full=False, seed=0):
    """Run one experiment; the same seed gives the same numbers, whatever else runs: a `Finding`."""
    rng = np.random.default_rng([seed, zlib.crc32(experiment.name.encode())])
    begin = time.perf_counter()
    outcome = experiment.run(full, rng)
    return Finding(experiment, outcome, time.perf_counter() - begin)
