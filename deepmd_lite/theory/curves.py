"""How an error falls with the size of what it depends on: samples, features, width.

    e(n) = floor + C n^(-p),   floor >= 0, C >= 0

At a given p this is linear: floor and C follow in closed form, and the least χ² is a function of p alone. Its minimum
is the fit, its rise gives the interval: with ν = points - parameters and s² = χ²_min / ν,

    {p : χ²(p) - χ²_min <= s² t²},   t the quantile of Student's distribution with ν degrees of freedom.

Unlike the delta method this knows that floor >= 0, and says so where the points leave p open. The size at which a
target is reached has its interval from the same set of parameters.

References
----------
Bates and Watts, Nonlinear Regression Analysis and Its Applications (1988), section 6.1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm
from scipy.stats import t as student

from deepmd_lite.errors import ConfigError, DataError

EXPONENTS = np.geomspace(0.01, 20, 1000)  # where p is looked for
GRID = 201  # values of p, and of the floor, among which the extremes of n are looked for
ROUNDS = 20  # of weighing errors by the fitted instead of the measured values


class Points(NamedTuple):
    """Measured errors (k,) at n (k,); sigma (k,), their standard deviations, up to a factor."""

    n: np.ndarray
    error: np.ndarray
    sigma: np.ndarray
    floor: bool  # whether one is fitted

    def scaled(self, p):
        """(n / n₀)^(-p), (..., k) at exponents p (...), with n₀ the geometric mean of n: no over- or underflow."""
        return np.exp(-np.multiply.outer(p, np.log(self.n) - self.center))

    @property
    def center(self):
        """log n₀."""
        return np.log(self.n).mean()

    def sums(self, x):
        """Σw, Σwx, Σwx², Σwe, Σwxe over points, with w = 1/σ²."""
        w, e = self.sigma**-2.0, self.error
        return w.sum(), x @ w, x**2 @ w, w @ e, x @ (w * e)

    def chi2(self, floor, c, x):
        """Σ (e - floor - c x)² / σ²."""
        return (((self.error - np.expand_dims(floor, -1) - np.expand_dims(c, -1) * x) / self.sigma) ** 2).sum(
            -1
        )

    def best(self, p):
        """Floor, C n₀^(-p) and the least χ², (...) each, at exponents p (...)."""
        x = self.scaled(np.asarray(p, float))
        s0, s1, s2, y0, y1 = self.sums(x)
        determinant = s0 * s2 - s1**2
        floor = np.clip((s2 * y0 - s1 * y1) / determinant, 0, None) * self.floor
        c = (y1 - floor * s1) / s2
        rising = c < 0
        floor, c = np.where(rising, y0 / s0 * self.floor, floor), np.where(rising, 0, c)
        return floor, c, self.chi2(floor, c, x)


@dataclass(frozen=True)
class PowerLaw:
    """e(n) = floor + prefactor n^(-exponent).

    Attributes
    ----------
    exponent : float
    ci : (float, float)
        Interval of the exponent: 0 and infinity where the points do not bound it.
    prefactor, floor : float
        In the unit of the error.
    level : float
        Of the intervals.
    points : Points
    limit : float
        The largest χ² within the intervals.
    """

    exponent: float
    ci: tuple[float, float]
    prefactor: float
    floor: float
    level: float
    points: Points
    limit: float

    def __call__(self, n):
        """The error at n."""
        return self.floor + self.prefactor * np.asarray(n, float) ** -self.exponent

    def n_for(self, target):
        """The n at which the error is ``target``; infinity where no n reaches it."""
        if target <= self.floor:
            return np.inf
        with np.errstate(over="ignore"):
            return float((self.prefactor / (target - self.floor)) ** (1 / self.exponent))

    def n_interval(self, target):
        """Interval (low, high) of `n_for`; infinity where the points allow a floor above the target."""
        if np.isinf(self.limit):
            return 0.0, np.inf
        p = np.geomspace(*np.clip(self.ci, EXPONENTS[0], EXPONENTS[-1]), GRID)[:, None]
        x = self.points.scaled(p)
        s0, s1, s2, _, y1 = self.points.sums(x)
        middle, _, least = self.points.best(p)
        reach = np.sqrt(np.clip(self.limit - least, 0, None) / (s0 - s1**2 / s2))
        floor = np.clip(middle + reach * np.linspace(-1, 1, GRID), 0, None) if self.points.floor else 0 * p
        c = (y1 - floor * s1) / s2  # the best at this p and floor, (p, floor)
        room = self.limit - self.points.chi2(floor, c, x)
        c = np.clip(c + np.sqrt(np.clip(room, 0, None) / s2) * np.array([-1, 1])[:, None, None], 0, None)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            n = np.exp(self.points.center) * (c / (target - floor)) ** (1 / p)
        n = np.where(floor >= target, np.inf, n)[:, room >= 0]
        best = self.n_for(target)
        return float(min(best, n.min(initial=np.inf))), float(max(best, n.max(initial=0)))


def fit_power_law(n, error, se=None, *, floor=True, level=0.9):
    """Fit a power law to errors measured at some sizes.

    Parameters
    ----------
    n, error : (k,)
        Positive; an n may come several times, once for each repeat.
    se : (k,), optional
        Standard errors of ``error``. By default they are taken to be proportional to the error, and their size is
        found from the scatter of the points.
    floor : bool
        Whether the error may tend to something other than 0.
    level : float
        Of the intervals.

    Returns
    -------
    PowerLaw

    Raises
    ------
    ConfigError
        A level that is not between 0 and 1.
    DataError
        Numbers that are not finite and positive; fewer sizes than parameters.
    """
    n, error = np.asarray(n, float), np.asarray(error, float)
    sigma = error if se is None else np.asarray(se, float)
    if not 0 < level < 1:
        raise ConfigError(f"power law: expected a level between 0 and 1, found {level}")
    if n.ndim != 1 or not n.shape == error.shape == sigma.shape:
        raise DataError(
            f"power law: expected as many sizes as errors, found {n.shape}, {error.shape}, {sigma.shape}"
        )
    if not all((np.isfinite(x) & (x > 0)).all() for x in (n, error, sigma)):
        raise DataError("power law: expected finite, positive sizes and errors, found others")
    if len(np.unique(n)) < 2 + floor:
        raise DataError(f"power law: expected {2 + floor} different sizes or more, found {len(np.unique(n))}")
    points = Points(n, error, sigma, floor)
    p, least = _exponent(points)
    for _ in range(ROUNDS if se is None else 0):
        before, (a, c, _) = p, points.best(p)
        points = points._replace(sigma=a + c * points.scaled(p))
        p, least = _exponent(points)
        if abs(p - before) < 1e-6 * p:
            break
    a, c, _ = points.best(p)
    free = len(n) - 2 - floor
    if se is not None:
        allowed = norm.ppf((1 + level) / 2) ** 2
    else:
        allowed = least / free * student.ppf((1 + level) / 2, free) ** 2 if free else np.inf
    limit = least + allowed
    return PowerLaw(
        p, _interval(points, p, limit), float(c * np.exp(points.center * p)), float(a), level, points, limit
    )


def _exponent(points):
    """The p of the least χ², and that χ²."""
    k = int(np.clip(np.argmin(points.best(EXPONENTS)[2]), 1, len(EXPONENTS) - 2))
    found = minimize_scalar(
        lambda p: float(points.best(p)[2]),
        bounds=(EXPONENTS[k - 1], EXPONENTS[k + 1]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.x), float(found.fun)


def _interval(points, p, limit):
    """The outermost exponents at which χ² is within the limit; 0 and infinity beyond the ends of EXPONENTS."""

    def rise(q):
        return float(points.best(q)[2]) - limit

    within = np.append(EXPONENTS[points.best(EXPONENTS)[2] <= limit], p)
    ends = []
    for inner, outside, beyond in (
        (within.min(), EXPONENTS[EXPONENTS < within.min()][-1:], 0.0),
        (within.max(), EXPONENTS[EXPONENTS > within.max()][:1], np.inf),
    ):
        bracketed = len(outside) and rise(inner) < 0
        ends.append(brentq(rise, inner, outside[0]) if bracketed else inner if len(outside) else beyond)
    return float(ends[0]), float(ends[1])
