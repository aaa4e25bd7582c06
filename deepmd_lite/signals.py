"""Signals that ask a run to stop: noticed between steps, when everything is whole."""

import signal
from contextlib import contextmanager

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # the last is a queue's warning


class Stopped(Exception):
    """A signal asked the run to stop. ``code`` is the exit code: 130 after Ctrl-C, else 143."""

    def __init__(self, number, step):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}; checkpoint written")
        self.code = 130 if number == signal.SIGINT else 143


@contextmanager
def collected():
    """A list that grows by the number of each signal of `ASKING`, instead of the process being ended by it."""
    received = []
    before = [signal.signal(n, lambda number, _: received.append(number)) for n in ASKING]
    try:
        yield received
    finally:
        for number, handler in zip(ASKING, before):
            signal.signal(number, handler)
