"""Double descent: as many features as samples is the worst choice.

Least squares with m features on n samples has its largest test error at m = n, where the smallest eigenvalue of
ΦΦᵀ (of ΦᵀΦ for m < n) dips to zero and noise, or what the features cannot represent, is amplified without bound. On
isotropic Gaussian features the variance is known: σ² times

    m / (n - m - 1)  for m < n - 1,        n / (m - n - 1)  for m > n + 1.

Ridge regression and gradient descent that stops early do not see the small eigenvalues and have no peak.

References
----------
Belkin, Hsu and Xu, Two models of double descent for weak features (2020), theorem 1; Ma, Wu and E, The slow
deterioration of the generalization error of the random feature model (2020).
"""

from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError
from deepmd_lite.theory.decomposition import least_squares


class DoubleDescent(NamedTuple):
    """Test and training error and the smallest eigenvalue, each (len(m_list),)."""

    test: np.ndarray
    train: np.ndarray
    smallest: np.ndarray


def double_descent_curve(problem, features, n, m_list, rng, *, ridge=0.0, steps=np.inf, n_test=1000):
    """Errors of random feature models of many widths, all fitted to the same n samples.

    Parameters
    ----------
    problem : risk.SupervisedProblem
    features : function of (m, rng=)
        Draws m features, a function of x; ``functools.partial(RandomFeatures, d)`` is one.
    n : int
    m_list : sequence of int
    rng : numpy.random.Generator
    ridge, steps : float
        λ for c = a/√m and steps of gradient descent, as for `decomposition.least_squares`.
    n_test : int
        Fresh points, without noise.

    Returns
    -------
    DoubleDescent
        ``smallest`` is of the min(m, n) eigenvalues of ΦΦᵀ/(nm).
    """
    x, y = problem.sample(n, rng)
    points = problem.draw(n_test, rng)
    target = problem.target(points)
    rows = []
    for m in m_list:
        phi = features(m, rng=rng)
        seen = phi(x) / np.sqrt(m)
        c = least_squares(seen, y, ridge, steps)
        smallest = np.linalg.svd(seen, compute_uv=False)[-1] ** 2 / n
        unseen = phi(points) @ c / np.sqrt(m)
        rows.append((np.mean((unseen - target) ** 2), np.mean((seen @ c - y) ** 2), smallest))
    return DoubleDescent(*np.transpose(rows))


class Resonance(NamedTuple):
    """``amplification`` of the noise's variance, and whether it exceeds one: n/2 < m < 2n, nearly."""

    amplification: float
    near: bool


def resonance_check(m, n):
    """How much a fit of m free coefficients to n samples amplifies noise, if features were isotropic and Gaussian.

    Parameters
    ----------
    m : float
        Features; with a ridge, the effective dimension tr(A (A + λ)⁻¹), which then takes their place. (Without a
        ridge an interpolant's effective dimension is n however wide it is: give the number of features.)
    n : int
        Samples.

    Returns
    -------
    Resonance
    """
    if not (m > 0 and n > 0):
        raise ConfigError(f"resonance check: expected m > 0 and n > 0, found m = {m}, n = {n}")
    room = abs(m - n) - 1
    amplification = min(m, n) / room if room > 0 else np.inf
    return Resonance(float(amplification), bool(amplification > 1))
