"""From Rademacher complexity to learning: the uniform deviation of means from expectations.

    D = sup_{h∈H} |E h - (1/n) Σ_i h(x_i)|

With values of all h in an interval of width B and probability at least 1 - δ,

    D ≤ 2 Rad   + B sqrt(ln(2/δ)/(2n))              Rad = E_S Rad_S, the expected complexity
    D ≤ 2 Rad_S + 3B sqrt(ln(4/δ)/(2n))             Rad_S of the samples at hand
    D ≥ Rad/2   - B/(4√n) - B sqrt(ln(1/δ)/(2n))
    D ≥ Rad_S/2 - B/(4√n) - 3B/2 sqrt(ln(2/δ)/(2n))

The lecture gives the constants of the first for Rad_S too; they are those of the expected complexity. In its lower
bound B/(4√n) is missing, the complexity of constants, which deviate by nothing: {B/2, -B/2} has D = 0 and Rad > 0.

Why: replacing one sample changes D by at most B/n, so that D is near its mean (McDiarmid); the mean is at most 2 Rad
and, for h - E h, at least half the complexity (symmetrisation); E_ξ sup_h (E h) ξ̄ ≤ (B/2)/√n separates E h. Rad_S
changes by at most B/n as well, and δ is shared between the two events.

References
----------
Bartlett and Mendelson, JMLR 3, 463 (2002), theorem 8; Mohri, Rostamizadeh and Talwalkar, Foundations of Machine
Learning, 2nd ed. (2018), theorem 3.3; Wainwright, High-Dimensional Statistics (2019), propositions 4.11 and 4.12.
"""

import numpy as np

from deepmd_lite.errors import ConfigError


def generalization_bound(rademacher, sup, n, delta, empirical=True):
    """The upper bound of the uniform deviation D.

    Parameters
    ----------
    rademacher : float
        Rad_S, or Rad if not ``empirical``.
    sup : float
        B, width of the interval that holds all values: B for 0 ≤ h ≤ B, 2Q for |h| ≤ Q.
    n : int
    delta : float
        δ, in (0, 1).
    empirical : bool
    """
    _check(sup, n, delta)
    factor, events = (3, 4) if empirical else (1, 2)
    return 2 * rademacher + factor * sup * np.sqrt(np.log(events / delta) / (2 * n))


def deviation_lower_bound(rademacher, sup, n, delta, empirical=True):
    """The lower bound of the uniform deviation D, for arguments as in `generalization_bound`; it may be negative."""
    _check(sup, n, delta)
    factor, events = (1.5, 2) if empirical else (1, 1)
    noise = factor * sup * np.sqrt(np.log(events / delta) / (2 * n))
    return rademacher / 2 - sup / (4 * np.sqrt(n)) - noise


def massart_bound(values):
    """max_k |h_k|₂ sqrt(2 ln N)/n ≥ Rad_S of N functions with values (n, N) on the samples."""
    n, functions = values.shape
    return float(np.linalg.norm(values, axis=0).max() * np.sqrt(2 * np.log(functions)) / n)


def _check(sup, n, delta):
    if not (sup >= 0 and n >= 1 and 0 < delta < 1):
        raise ConfigError(f"bound: expected sup >= 0, n >= 1 and 0 < δ < 1, found {sup}, {n}, {delta}")
