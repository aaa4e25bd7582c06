"""Time by phase of a simulation."""

import time
from contextlib import contextmanager

PHASES = ("force", "neighbor", "comm", "integrate", "output")


class Clock:
    """``with clock("force"): ...`` adds to ``clock.seconds["force"]``; phases do not nest."""

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, phase):
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - begin

    def total(self):
        return sum(self.seconds.values())
