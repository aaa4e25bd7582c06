"""Time by phase of a simulation."""

import time
from contextlib import contextmanager

PHASES = ("force", "neighbor", "comm", "integrate", "output")


class Clock:
    """``with clock("force"): ...`` adds to ``clock.seconds["force"]``; a phase within another is taken out of it."""

    def __init__(self):
        self.restart()

    def restart(self):
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._begin = time.perf_counter()
        self._inner = 0.0

    def wall(self):
        """Seconds since `restart`."""
        return time.perf_counter() - self._begin

    @contextmanager
    def __call__(self, phase):
        begin, outer, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.seconds[phase] += spent - self._inner
            self._inner = outer + spent
