"""Power laws: exact where the points are, intervals that cover as often as they say, targets out of reach.

A share q of N replicates has the standard error sqrt(q (1 - q) / N): with q = 0.9 and N = 200 it is 2.1 %, and
0.9 ± 0.065 is three of them. An interval may also cover too often where the floor's bound at 0 cuts it.
"""

import numpy as np
import pytest

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.curves import fit_power_law

N = np.repeat([20.0, 40.0, 80.0, 160.0, 320.0], 3)


def curve(n, p=0.6, prefactor=400.0, floor=20.0):
    return floor + prefactor * n**-p


def noisy(rng, sigma=0.03, **law):
    return curve(N, **law) * np.exp(rng.normal(0, sigma, len(N)))


@pytest.mark.parametrize("law", [{}, {"p": 0.5, "floor": 0.0}, {"p": 2.0, "prefactor": 1e-3, "floor": 1e-5}])
def test_exact_points_give_the_law_back(law):
    """Rounding of 1e-16 in the errors, amplified by the conditioning of (floor, C, p): at most 1e-6 is asked for."""
    n = np.array([10.0, 30.0, 100.0, 300.0, 1000.0])
    fit = fit_power_law(n, curve(n, **law), floor=bool(law.get("floor", 1)))
    wanted = {"p": 0.6, "prefactor": 400.0, "floor": 20.0} | law
    assert fit.exponent == pytest.approx(wanted["p"], rel=1e-6)
    assert fit.prefactor == pytest.approx(wanted["prefactor"], rel=1e-5)
    assert fit.floor == pytest.approx(wanted["floor"], rel=1e-5)
    assert fit(50.0) == pytest.approx(curve(50.0, **wanted), rel=1e-7)
    assert fit.n_for(float(fit(77.0))) == pytest.approx(77.0, rel=1e-9)


def test_without_floor_it_is_the_line_through_the_logarithms():
    """Errors of 0.1 %: relative residuals and those of log e differ by 1e-3 of themselves, the slopes by 1e-6."""
    error = noisy(np.random.default_rng(0), 1e-3, floor=0.0)
    fit = fit_power_law(N, error, floor=False)
    assert fit.exponent == pytest.approx(-np.polyfit(np.log(N), np.log(error), 1)[0], abs=1e-5)
    assert fit.floor == 0


@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_the_interval_covers_as_often_as_it_says(floor, known):
    rng, hits, sizes = np.random.default_rng(1), 0, 0
    truth = {"floor": 20.0 * floor}
    target = 1.1 * curve(640.0, **truth)
    reached = (400.0 / (target - truth["floor"])) ** (1 / 0.6)
    for _ in range(200):
        fit = fit_power_law(N, noisy(rng, **truth), 0.03 * curve(N, **truth) if known else None, floor=floor)
        hits += fit.ci[0] <= 0.6 <= fit.ci[1]
        low, high = fit.n_interval(target)
        sizes += low <= reached <= high
    assert 0.835 <= hits / 200 <= 0.965
    assert 0.835 <= sizes / 200


def test_a_target_below_the_floor_is_never_reached():
    fit = fit_power_law(N, noisy(np.random.default_rng(2), 0.005))
    assert fit.floor == pytest.approx(20, abs=5)
    assert fit.n_for(10.0) == np.inf
    assert fit.n_interval(10.0)[1] == np.inf
    low, high = fit.n_interval(40.0)
    assert low < fit.n_for(40.0) < high < np.inf
    assert low < (400 / 20) ** (1 / 0.6) < high


def test_points_that_leave_the_exponent_open_say_so():
    n = np.array([10.0, 20.0, 40.0])
    fit = fit_power_law(n, curve(n))  # three points, three parameters
    assert fit.ci == (0.0, np.inf)
    assert fit.n_interval(30.0) == (0.0, np.inf)
    flat = fit_power_law(N, 5 * np.exp(np.random.default_rng(3).normal(0, 0.05, len(N))))
    assert flat.ci[1] == np.inf
    assert flat.n_interval(1.0)[1] == np.inf


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(DataError, match="3 different sizes or more, found 2"):
        fit_power_law([1, 1, 2], [3.0, 3.1, 2.0])
    with pytest.raises(DataError, match="finite, positive"):
        fit_power_law([1, 2, 3], [3.0, np.nan, 2.0])
    with pytest.raises(DataError, match="as many sizes as errors"):
        fit_power_law([1, 2, 3], [3.0, 2.0])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        fit_power_law([1, 2, 3], [3.0, 2.0, 1.5], level=90)
