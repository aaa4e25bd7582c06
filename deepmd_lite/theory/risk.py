"""Supervised learning: a target, samples of it, a hypothesis space, a risk to minimise, an optimizer.

    population risk  R(f)   = E_x (f(x) - f*(x))²
    empirical risk   R_n(f) = (1/n) Σ_i (f(x_i) - y_i)²,    y_i = f*(x_i) + noise

For a fixed f their difference is of the order n^(-1/2), the law of large numbers. For f that was fitted to the
samples it is not, and what bounds it is the complexity of the hypothesis space.

References
----------
E, Ma, Wojtowytsch and Wu, Towards a mathematical understanding of neural network-based machine learning (2020),
section 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.integration import Estimate, monte_carlo


@dataclass(frozen=True)
class SupervisedProblem:
    """What there is to learn.

    Attributes
    ----------
    target : function of x (n, d)
        f*, (n,).
    draw : function of (n, rng)
        Points x (n, d) of the distribution P.
    noise : float
        Standard deviation of y - f*(x).
    """

    target: Callable
    draw: Callable
    noise: float = 0.0

    def sample(self, n, rng):
        """x (n, d) and y (n,); ConfigError for n < 1, DataError for a target that is not finite or not (n,)."""
        if n < 1:
            raise ConfigError(f"supervised problem: expected n >= 1 samples, found {n}")
        x = self.draw(n, rng)
        y = np.asarray(self.target(x), float)
        if y.shape != (n,) or not np.isfinite(y).all():
            raise DataError(f"target: expected {n} finite values, found shape {y.shape}, {y}")
        return x, y + self.noise * rng.standard_normal(n)


def empirical_risk(model, x, y):
    """R_n of ``model``, a function of x (n, d), on samples x (n, d), y (n,)."""
    return float(np.mean((model(x) - y) ** 2))


def population_risk(model, problem, n, rng):
    """R of ``model`` from n fresh points without noise: Estimate."""
    return monte_carlo(lambda x: (model(x) - problem.target(x)) ** 2, problem.draw, n, rng)


class Learned(NamedTuple):
    """What the pipeline gives: a function of x, its empirical and its population risk."""

    model: Callable
    empirical: float
    population: Estimate


def learn(problem, fit, n, rng, n_test=100_000):
    """Draw n samples, fit, and judge: the pipeline of supervised learning.

    Parameters
    ----------
    problem : SupervisedProblem
    fit : function of (x, y)
        Hypothesis space and optimizer: returns the model, a function of points (n, d), as `decomposition.linear_fit`
        does for a linear space.
    n, n_test : int
        Samples to learn from; fresh points for the population risk.
    rng : numpy.random.Generator

    Returns
    -------
    Learned
    """
    x, y = problem.sample(n, rng)
    model = fit(x, y)
    return Learned(model, empirical_risk(model, x, y), population_risk(model, problem, n_test, rng))


def generalization_gap(model, train, test, n_boot, rng):
    """R_test - R_train of one model, with the bootstrap's standard error.

    Both sets are resampled, the model stays: the error bar is that of the two means and says nothing about how much
    another training set would have changed the model.

    Parameters
    ----------
    model : function of x (n, d)
    train, test : (x, y)
    n_boot : int
        Resamples.
    rng : numpy.random.Generator

    Returns
    -------
    Estimate
        n is the number of training samples.
    """
    squares = [(model(x) - y) ** 2 for x, y in (train, test)]
    means = [s[rng.integers(len(s), size=(n_boot, len(s)))].mean(axis=1) for s in squares]
    gap = squares[1].mean() - squares[0].mean()
    return Estimate(float(gap), float((means[1] - means[0]).std(ddof=1)), len(squares[0]))
