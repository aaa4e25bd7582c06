"""Rademacher complexity of the unit ball of Barron space: no curse of dimensionality.

Relu networks without bias, Σ|a_j||w_j|_1 ≤ Q on [-1, 1]^d, have at most

    Rad_S ≤ 2Q sqrt(2 ln(2d)/n)

(with a bias, the weight of one more input that is always one, ln(2(d+1))). The supremum over the ball is that of one
neuron, Q max |Σ_i ξ_i σ(w·x_i)|/n over |w|_1 ≤ 1, which is not a convex problem: a search bounds it from below.

References
----------
E, Ma and Wu, A priori estimates of the population risk for two-layer neural networks (2019); Duchi,
Shalev-Shwartz, Singer and Chandra, Efficient projections onto the l1-ball, ICML 2008.
"""

import numpy as np

from deepmd_lite.errors import ConfigError
from deepmd_lite.theory.complexity import rademacher_erm


def vertex_neurons(xi, X):
    """max over neurons of one input, |Σ_i ξ_i σ(±x_ik)|/n, and which: (draws,) and w (draws, d)."""
    d = X.shape[1]
    value = np.abs(xi @ np.maximum(np.hstack([X, -X]), 0)) / len(X)  # (draws, 2d)
    return value.max(axis=1), np.vstack([np.eye(d), -np.eye(d)])[value.argmax(axis=1)]


def rademacher_barron(X, Q, rng, n_draws=32, starts=8, steps=60):
    """A lower bound of the complexity of the ball of radius Q, by projected gradient ascent for each draw of ξ.

    Parameters
    ----------
    X : (n, d)
        Samples; with a column of ones the neurons have a bias.
    Q : float
    rng : numpy.random.Generator
    n_draws, starts, steps : int
        Draws of ξ; neurons to start from, the first of them the best of a single input; steps of ascent.

    Returns
    -------
    Estimate
    """

    def sup(xi, X):
        best, vertex = vertex_neurons(xi, X)
        random = rng.standard_normal((len(xi), starts - 1, X.shape[1]))
        w = _onto_l1_sphere(np.concatenate([vertex[:, None], random], axis=1))  # (draws, starts, d)
        for step in range(steps):
            z = w @ X.T  # (draws, starts, n)
            slope = (xi[:, None] * (z > 0)) @ X
            value = np.einsum("ksd,ksd->ks", slope, w) / len(X)  # σ(z) = 1{z>0} z
            best = np.maximum(best, np.abs(value).max(axis=1))
            uphill = np.sign(value)[..., None] * slope
            size = np.linalg.norm(uphill, axis=-1, keepdims=True)
            w = _onto_l1_sphere(w + 0.5 * 0.93**step * uphill / np.maximum(size, 1e-300))
        return Q * best

    return rademacher_erm(sup, X, n_draws, rng)


def _onto_l1_sphere(w):
    """The nearest points with |w|_1 = 1 and the same signs, for vectors w (..., d) without zeros or |w|_1 ≥ 1."""
    size = -np.sort(-np.abs(w), axis=-1)
    excess = (np.cumsum(size, axis=-1) - 1) / np.arange(1, w.shape[-1] + 1)
    last = (size > excess).sum(axis=-1, keepdims=True) - 1
    shift = np.take_along_axis(excess, last, axis=-1)
    return np.sign(w) * np.maximum(np.abs(w) - shift, 0)


def barron_rademacher_bound(Q, n, d, bias=False):
    """2Q sqrt(2 ln(2d)/n) for |x|_∞ ≤ 1; with a bias, another input that is one, ln(2(d+1))."""
    if not (Q >= 0 and n >= 1 and d >= 1):
        raise ConfigError(f"Barron ball: expected Q >= 0, n >= 1 and d >= 1, found Q = {Q}, n = {n}, d = {d}")
    return 2 * Q * np.sqrt(2 * np.log(2 * (d + bias)) / n)
