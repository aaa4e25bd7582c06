"""What an experiment is: a statement of the lecture, the numbers that test it, and a picture of them.

An experiment is a function ``run(full, rng)`` that returns an `Outcome`. Its checks are made by `near`, `at_most`
and `at_least`, so that what passed follows from what was measured and nothing else. Upper bounds of the lecture
are one-sided: a rate that is better than its theorem passes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Check:
    """A measured number beside its prediction."""

    quantity: str
    measured: float
    predicted: float | None
    criterion: str
    passed: bool


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes
    ----------
    checks : list of Check
    draw : function of a matplotlib Axes
        Draws the one picture of the experiment, with title and labels.
    """

    checks: list[Check]
    draw: Callable


@dataclass(frozen=True)
class Experiment:
    """A statement of the lecture and how to test it.

    Attributes
    ----------
    id : str
        Its row in docs/theory.md: A1, B7, ...
    name : str
        What ``dplite theory run`` calls it: words joined by hyphens.
    statement : str
        One line: what the lecture says.
    run : function of (full: bool, rng: numpy.random.Generator)
        Returns an `Outcome`; ``full`` asks for larger samples, minutes in place of seconds.
    """

    id: str
    name: str
    statement: str
    run: Callable


def near(quantity, measured, predicted, *, rel=None, tol=None):
    """Check that a number is within a relative or an absolute tolerance of the predicted one."""
    allowed = tol if rel is None else rel * abs(predicted)
    words = f"± {tol:g}" if rel is None else f"± {100 * rel:g} %"
    return Check(
        quantity, float(measured), float(predicted), words, bool(abs(measured - predicted) <= allowed)
    )


def at_most(quantity, measured, bound, predicted=None):
    """Check that a number is no larger than a bound."""
    predicted = None if predicted is None else float(predicted)
    return Check(quantity, float(measured), predicted, f"≤ {bound:.4g}", bool(measured <= bound))


def at_least(quantity, measured, bound, predicted=None):
    """Check that a number is no smaller than a bound."""
    predicted = None if predicted is None else float(predicted)
    return Check(quantity, float(measured), predicted, f"≥ {bound:.4g}", bool(measured >= bound))


def slope(x, y):
    """The exponent p of y ∝ x^p: least squares of log y on log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
