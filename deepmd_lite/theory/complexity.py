"""Rademacher complexity: how well a class of functions fits pure noise.

    Rad_S(H) = E_ξ sup_{h∈H} (1/n) Σ_i ξ_i h(x_i),    ξ_i = ±1, independent

of the samples S = (x_1 ... x_n); all functions here return an `Estimate`, with se = 0 where it is exact.

===================================  =======================================================================
continuous functions, |h| ≤ B        B on distinct points, whatever n: no learning
Lipschitz functions                  ~ n^(-1/d) for d ≥ 3 (n^(-1/2) for d = 1, with a logarithm for d = 2):
                                     the curse of dimensionality
RKHS, ‖h‖ ≤ Q                        (Q/n) E |Φᵀξ| ≤ Q sqrt(tr K)/n
Barron space, ‖h‖ ≤ Q                ≤ 2Q sqrt(2 ln(2d)/n) on [-1, 1]^d
===================================  =======================================================================

`barron_complexity` has the last row; `bounds` draws conclusions for learning.

References
----------
Bartlett and Mendelson, Rademacher and Gaussian complexities, JMLR 3, 463 (2002); von Luxburg and Bousquet, JMLR 5,
669 (2004) for Lipschitz functions; E, Ma and Wu, The Barron space and the flow-induced function spaces (2019).
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import gammaln

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.integration import Estimate

ENUMERABLE = 20  # samples whose 2^n signs are summed over


def rademacher_erm(sup_oracle, X, n_draws, rng):
    """Rademacher complexity of a class that can be fitted to signs.

    Parameters
    ----------
    sup_oracle : function of (xi, X)
        sup_h (1/n) Σ_i ξ_i h(x_i) for each row of ξ (n_draws, n): (n_draws,).
    X : (n, ...)
        Samples, or whatever else of length n the oracle wants.
    n_draws : int or None
        Draws of ξ; None sums over all 2^n of them and is exact.
    rng : numpy.random.Generator or None

    Notes
    -----
    |Σ_i ξ_i|, whose mean is known, serves as control variate: most classes hold nearly constant functions.
    """
    n = len(X)
    if n < 1 or (n_draws is None and n > ENUMERABLE) or (n_draws is not None and n_draws < 3):
        raise ConfigError(
            f"Rademacher complexity: expected samples and n_draws >= 3, or None for n <= {ENUMERABLE}; "
            f"found n = {n}, n_draws = {n_draws}"
        )
    if n_draws is None:
        sup = sup_oracle(2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1, X)
        return Estimate(float(np.mean(sup)), 0.0, 2**n)
    xi = rng.choice([-1.0, 1.0], size=(n_draws, n))
    sup = np.asarray(sup_oracle(xi, X))
    control = np.abs(xi.sum(axis=1)) - mean_walk(n)
    centered = control - control.mean()
    sup = sup - control * (centered @ sup) / max(centered @ centered, 1e-300)
    return Estimate(float(sup.mean()), float(sup.std(ddof=2) / np.sqrt(n_draws)), n_draws)


def mean_walk(n):
    """E|ξ_1 + ... + ξ_n| = 2 Γ(k + 1/2) / (√π Γ(k)) with k = ⌈n/2⌉; n may be an array of integers."""
    k = np.ceil(np.asarray(n) / 2)
    return 2 * np.exp(gammaln(k + 0.5) - gammaln(k)) / np.sqrt(np.pi)


def sup_finite(xi, values):
    """sup over the columns of ``values`` (n, functions), h_k(x_i): an oracle for `rademacher_erm`."""
    return (xi @ values).max(axis=1) / len(values)


def rademacher_sup_ball(X, B=1.0):
    """Continuous functions with |h| ≤ B: B on distinct points X (n, d), less where some coincide."""
    count = np.unique(np.asarray(X), axis=0, return_counts=True)[1]
    return Estimate(float(B * mean_walk(count).sum() / count.sum()), 0.0, 1)


def sup_lipschitz(xi, distance, L, B):
    """max Σ_i ξ_i h_i with |h_i - h_j| ≤ L r_ij and |h_i| ≤ B, for one ξ (n,) and distances r (n, n).

    Any such values are those of a Lipschitz function (McShane). The dual of this linear program transports one unit
    from each point with ξ = 1 to a point with ξ = -1 at the cost L r, or to or from a reservoir, which is the bound
    |h| ≤ B, at the cost B: what is cheaper of L r and 2B for each pair, B for each point that has no partner. Its
    vertices are integer, so that the optimum is an assignment.
    """
    cost = np.minimum(L * distance[np.ix_(xi > 0, xi < 0)], 2 * B)
    return cost[linear_sum_assignment(cost)].sum() + B * abs(xi.sum())


def rademacher_lipschitz(X, L, B, rng, n_draws):
    """Functions with Lipschitz constant ≤ L and |h| ≤ B on points X (n, d), exactly for each ξ."""
    distance = cdist(X, X)

    def sup(xi, X):
        return np.array([sup_lipschitz(signs, distance, L, B) for signs in xi]) / len(X)

    return rademacher_erm(sup, X, n_draws, rng)


def rademacher_linear(phi, Q, rng, n_draws):
    """h(x) = c·φ(x) with |c| ≤ Q: (Q/n) E |Φᵀξ|, from features Φ (n, m), however many samples.

    The RKHS ball of K = ΦΦᵀ. For f = (1/m) Σ a_j φ_j with sqrt(mean a²) ≤ Q give Φ/√m.
    """
    return rademacher_erm(lambda xi, phi: Q * np.linalg.norm(xi @ phi, axis=1) / len(phi), phi, n_draws, rng)


def rademacher_rkhs(K, Q, rng, n_draws):
    """‖h‖_H ≤ Q: (Q/n) E sqrt(ξᵀKξ), from the kernel matrix K (n, n); DataError unless positive semidefinite."""
    low, high = np.linalg.eigvalsh(K)[[0, -1]]
    if not low >= -1e-10 * high:
        raise DataError(f"kernel: expected a positive semidefinite matrix, found the eigenvalue {low:.3g}")

    def sup(xi, K):
        return Q * np.sqrt(np.maximum(np.einsum("ki,ki->k", xi @ K, xi), 0)) / len(K)

    return rademacher_erm(sup, K, n_draws, rng)
