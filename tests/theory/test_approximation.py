"""Quadrature, Monte Carlo, Hoeffding, interpolation and Fourier sums against exact values.

Rounding: a sum of k terms of order one is good to k · 2e-16 at worst, so 1e-12 leaves room where k ~ 1000.
Random numbers: a mean is allowed five standard errors, which it exceeds once in two million.
"""

import math

import numpy as np
import pytest
import scipy.special

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.fourier import RandomFourier, fourier_grid, product_fourier_grid
from deepmd_lite.theory.integration import (
    BLOCK,
    grid_quadrature,
    hoeffding_bound,
    monte_carlo,
    product_quadrature,
)
from deepmd_lite.theory.interpolation import KuhnInterpolant, PolynomialInterpolant


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def uniform(d):
    return lambda m, rng: rng.random((m, d))


def test_rules_are_exact_where_they_should_be():
    """Midpoint: ∫x² = 1/3 - h²/12. Simpson: exact for cubics, and ∫x⁴ = 1/5 + 2h⁴/15, nodes h apart."""
    assert grid_quadrature(lambda x: x[:, 0] ** 2, 1, 10) == pytest.approx(1 / 3 - 0.01 / 12, rel=1e-14)
    assert grid_quadrature(lambda x: x[:, 0] ** 3, 1, 3, "simpson") == pytest.approx(1 / 4, rel=1e-14)
    assert grid_quadrature(lambda x: x[:, 0] ** 4, 1, 11, "simpson") == pytest.approx(
        1 / 5 + 2e-4 / 15, rel=1e-14
    )


@pytest.mark.parametrize("rule, n", [("midpoint", 30), ("simpson", 29)])
def test_a_grid_of_many_blocks_visits_every_node_once(rule, n):
    """x y² z³ distinguishes the axes: the integral by Simpson's rule is 1/24."""
    assert n**3 > BLOCK
    factors = [lambda x: x, lambda x: x**2, lambda x: x**3]
    value = grid_quadrature(lambda x: x[:, 0] * x[:, 1] ** 2 * x[:, 2] ** 3, 3, n, rule)
    assert value == pytest.approx(product_quadrature(factors, n, rule), rel=1e-12)
    assert value == pytest.approx(1 / 24, rel=1e-12 if rule == "simpson" else 3 / n**2)


def test_several_functions_at_once():
    both = grid_quadrature(lambda x: x, 2, 11, "simpson")
    np.testing.assert_allclose(both, [0.5, 0.5], rtol=1e-14)


@pytest.mark.parametrize("d", [1, 20])
def test_grid_rates_fall_as_one_over_d(d):
    """Halving h quarters the midpoint error up to a relative h² of order 1 %."""
    exact = (math.e - 1) ** d
    error = [product_quadrature([np.exp] * d, n) / exact - 1 for n in (40, 80)]
    assert math.log(error[0] / error[1]) / math.log(2**d) == pytest.approx(2 / d, rel=0.01)


def test_a_grid_that_is_too_large_is_refused():
    assert grid_quadrature(lambda x: np.ones(len(x)), 100, 1) == 1
    with pytest.raises(
        ConfigError, match=r"10 nodes on each of 8 axes are n\^d = 10\^8.0 nodes.*monte_carlo"
    ):
        grid_quadrature(lambda x: x[:, 0], 8, 10)
    with pytest.raises(ConfigError, match=r"10\^924.8"):
        grid_quadrature(lambda x: x[:, 0], 3072, 2)
    for n, rule in ((0, "midpoint"), (4, "simpson"), (1, "simpson"), (5, "gauss")):
        with pytest.raises(ConfigError, match="found '" + rule):
            grid_quadrature(lambda x: x[:, 0], 1, n, rule)
    with pytest.raises(ConfigError, match="d >= 1, found 0"):
        grid_quadrature(lambda x: x[:, 0], 0, 3)


def test_monte_carlo_knows_its_error(rng):
    """The mean of 3 uniform x_i has variance 1/36; its sample deviation scatters by sqrt((κ - 1)/4m), κ ≤ 3."""
    m = 100_000
    found = monte_carlo(lambda x: x.mean(axis=1), uniform(3), m, rng)
    assert found.n == m
    assert found.se == pytest.approx(1 / 6 / math.sqrt(m), rel=5 * math.sqrt(0.5 / m))
    assert found.value == pytest.approx(0.5, abs=5 * found.se)


def test_monte_carlo_refuses(rng):
    with pytest.raises(ConfigError, match="m >= 2 samples, found 1"):
        monte_carlo(lambda x: x[:, 0], uniform(1), 1, rng)
    with pytest.raises(DataError, match="found NaN or infinity"):
        monte_carlo(lambda x: np.where(x[:, 0] > 0.5, np.inf, 0), uniform(1), 100, rng)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_hoeffding_bounds_every_binomial_tail(p):
    """P(|S/n - p| ≥ t) exactly, for all values |k/n - p| of t; the bound of [0, 2] is that of t/2 on [0, 1]."""
    for n in (1, 7, 40):
        k = np.arange(n + 1)
        weight = scipy.special.binom(n, k) * p**k * (1 - p) ** (n - k)
        t = abs(k / n - p)
        tail = np.array([weight[t >= s].sum() for s in t])
        tight = hoeffding_bound(n, t, 0, 1)
        assert (tail <= tight).all() and (tight <= hoeffding_bound(n, t, 0, 1, tight=False)).all()
        np.testing.assert_allclose(hoeffding_bound(n, t, -1, 1), hoeffding_bound(n, t / 2, 0, 1))


def test_hoeffding_values():
    assert hoeffding_bound(100, 0.1, 0, 1) == pytest.approx(2 * math.exp(-2))
    assert hoeffding_bound(100, 0.1, 0, 1, tight=False) == pytest.approx(2 * math.exp(-1))
    for n, t, b in ((0, 0.1, 1), (10, -0.1, 1), (10, 0.1, 0)):
        with pytest.raises(ConfigError, match="expected n >= 1, t >= 0 and a < b"):
            hoeffding_bound(n, t, 0, b)


@pytest.mark.parametrize("d", [1, 3, 6])
def test_mesh_reproduces_affine_functions_and_nodes(d, rng):
    slope, x = rng.standard_normal(d), rng.random((200, d))
    mesh = KuhnInterpolant(lambda x: 2 + x @ slope, 5, d)
    np.testing.assert_allclose(mesh(x), 2 + x @ slope, atol=1e-13)

    def wild(x):
        return np.sin(40 * x @ slope)

    nodes = rng.integers(0, 8, (200, d)) / 7  # 7 cubes on an axis, the far faces among the nodes
    np.testing.assert_allclose(KuhnInterpolant(wild, 7, d)(nodes), wild(nodes), atol=1e-12)


def test_mesh_on_one_cube_of_kuhn(rng):
    """At the vertices of a simplex Π x_i is 1 at (1, ..., 1) alone, max x_i is 0 at the origin alone."""
    x = rng.random((500, 4))
    product, largest = (lambda x: x.prod(axis=1)), (lambda x: x.max(axis=1))
    np.testing.assert_allclose(KuhnInterpolant(product, 1, 4)(x), x.min(axis=1), atol=1e-14)
    np.testing.assert_allclose(KuhnInterpolant(largest, 1, 4)(x), x.max(axis=1), atol=1e-14)


def test_mesh_error_of_a_quadratic(rng):
    """f_N - |x|² = h² Σ t_i (1 - t_i) with t = x/h modulo 1."""
    x, n = rng.random((500, 3)), 6
    t = x * n % 1
    error = KuhnInterpolant(lambda x: (x**2).sum(axis=1), n, 3)(x) - (x**2).sum(axis=1)
    np.testing.assert_allclose(error, (t * (1 - t)).sum(axis=1) / n**2, atol=1e-14)


def test_mesh_is_continuous(rng):
    """Across the faces of cubes and simplices a step of 1e-9 changes f_N by no more than 1e-9 · its slope < 1e-6."""
    mesh = KuhnInterpolant(lambda x: np.sin(9 * x @ np.array([1.0, -2.0, 3.0])), 4, 3)
    face, diagonal = rng.uniform(0.1, 0.9, (100, 3)), rng.uniform(0.1, 0.9, (100, 3))
    face[:, 0] = 0.5
    diagonal[:, 1] = diagonal[:, 0]  # equal local coordinates
    for x in (face, diagonal):
        for i in range(3):
            step = 1e-9 * np.eye(3)[i]
            np.testing.assert_allclose(mesh(x + step), mesh(x - step), atol=1e-6)


def test_mesh_is_lazy_in_any_dimension(rng):
    calls = []
    d = 3072
    mesh = KuhnInterpolant(lambda x: calls.append(len(x)) or x.mean(axis=1), 1, d)
    x = rng.random((2, d))
    np.testing.assert_allclose(mesh(x), x.mean(axis=1), rtol=1e-12)
    assert sum(calls) == 2 * (d + 1)
    assert mesh.nodes == 2**d
    assert KuhnInterpolant(None, 9, 8).cells_for(10) == pytest.approx(1e4)


def test_mesh_refuses():
    mesh = KuhnInterpolant(lambda x: x[:, 0], 3, 2)
    for x in ([[0.5, 1.01]], [[-0.01, 0.5]], [[np.nan, 0.5]], [[0.5, 0.5, 0.5]], [0.5, 0.5]):
        with pytest.raises(DataError, match=r"expected points \(k, 2\) in \[0, 1\]\^2"):
            mesh(x)
    for n_cells, d in ((0, 2), (3, 0)):
        with pytest.raises(ConfigError, match="n_cells >= 1 and d >= 1"):
            KuhnInterpolant(None, n_cells, d)


@pytest.mark.parametrize("nodes", ["equispaced", "chebyshev"])
def test_polynomial_reproduces_its_degree(nodes, rng):
    """Rounding grows by the Lebesgue constant, 90 for 13 equispaced points; outside, by |x|^12 too."""
    c = rng.standard_normal(13)
    p = PolynomialInterpolant(lambda x: np.polyval(c, x), 12, nodes)
    x = np.linspace(-1, 1, 101)
    np.testing.assert_allclose(p(x), np.polyval(c, x), atol=1e-12)
    assert (p(p.nodes) == p.values).all()
    assert p(np.array([1.1])) == pytest.approx(np.polyval(c, 1.1), rel=1e-9)


def test_chebyshev_points_against_numpy():
    x = np.linspace(-1, 1, 301)
    series = np.polynomial.chebyshev.chebinterpolate(lambda x: abs(x - 0.3), 40)
    found = PolynomialInterpolant(lambda x: abs(x - 0.3), 40, "chebyshev")(x)
    np.testing.assert_allclose(found, np.polynomial.chebyshev.chebval(x, series), atol=1e-12)


@pytest.mark.parametrize("n", [10, 20, 30])
def test_runge_error_is_known_exactly(n):
    """f - f_n = ± 5 x T_{n+1}(x) / ((1 + 25x²) sinh((n+1) asinh(1/5))) for even n."""
    x = np.linspace(-1, 1, 501)
    f = 1 / (1 + 25 * x**2)
    error = PolynomialInterpolant(lambda x: 1 / (1 + 25 * x**2), n, "chebyshev")(x) - f
    exact = 5 * x * np.cos((n + 1) * np.arccos(x)) * f / np.sinh((n + 1) * np.arcsinh(0.2))
    np.testing.assert_allclose(abs(error), abs(exact), atol=1e-13)


def test_polynomial_refuses():
    for n, nodes in ((0, "chebyshev"), (3, "gauss")):
        with pytest.raises(ConfigError, match="equispaced or chebyshev"):
            PolynomialInterpolant(np.sin, n, nodes)
    with pytest.raises(DataError, match="NaN or infinity"):
        PolynomialInterpolant(lambda x: np.full_like(x, np.nan), 3)


def test_waves_on_a_grid_have_a_closed_sum(rng):
    """(1/n) Σ cos(ω_k x) over midpoints of [-1, 1] is sin(x)/(n sin(x/n))."""
    x, n = rng.uniform(-3, 3, (20, 3)), 7
    found = fourier_grid(lambda omega: np.full(len(omega), 1 / 8), x, n, 1.0)
    np.testing.assert_allclose(found, (np.sin(x) / (n * np.sin(x / n))).prod(axis=1), atol=1e-13)


def test_grid_converges_to_the_function(rng):
    """A Gaussian at b: past its edge at radius 8 lies 1e-15 of f̂, and its next image is exp(-(9.4 - 3)²/2) ~ 1e-9."""
    x, b = rng.uniform(-1.5, 1.5, (20, 2)), np.array([0.5, -1.0])

    def one_axis(omega):
        return np.exp(-(omega**2) / 2) / math.sqrt(2 * math.pi)

    found = fourier_grid(lambda omega: one_axis(omega).prod(axis=1) * np.exp(-1j * omega @ b), x, 24, 8.0)
    np.testing.assert_allclose(found, np.exp(-((x - b) ** 2).sum(axis=1) / 2), atol=1e-8)
    np.testing.assert_allclose(
        product_fourier_grid(lambda omega: one_axis(omega) * np.exp(-0.5j * omega), x, 24, 8.0),
        np.exp(-((x - 0.5) ** 2).sum(axis=1) / 2),
        atol=1e-8,
    )


def test_random_waves_have_the_mean_and_variance_of_the_theorem(rng):
    """Gaussian frequencies, a = 1: variance ((1 + f(2x))/2 - f(x)²)/m, measured to sqrt(2/R) from R sums."""
    m, repeats, x = 20, 4000, np.array([[0.3, -0.4, 1.2]])
    f, twice = (float(np.exp(-((s * x) ** 2).sum() / 2)) for s in (1, 2))

    def gauss(m, rng):
        return rng.standard_normal((m, 3))

    sums = np.array([RandomFourier(gauss, lambda w: np.ones(len(w)), m, rng)(x)[0] for _ in range(repeats)])
    variance = ((1 + twice) / 2 - f**2) / m
    assert sums.mean() == pytest.approx(f, abs=5 * math.sqrt(variance / repeats))
    assert sums.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / repeats))


def test_random_waves_from_another_density(rng):
    """f̂/π of N(0, 1) moved to b and π = N(0, 4): unbiased, |a| ≤ 2, so a standard error below 2/sqrt(m)."""
    m, b, x = 400_000, 0.7, np.array([[-0.5], [0.0], [1.0]])

    def wide(m, rng):
        return 2 * rng.standard_normal((m, 1))

    found = RandomFourier(wide, lambda w: 2 * np.exp(-3 / 8 * w[:, 0] ** 2 - 1j * b * w[:, 0]), m, rng)(x)
    np.testing.assert_allclose(found, np.exp(-((x[:, 0] - b) ** 2) / 2), atol=5 * 2 / math.sqrt(m))


def test_fourier_refuses(rng):
    x = np.zeros((1, 8))
    with pytest.raises(ConfigError, match=r"n\^d = 10\^8.0"):
        fourier_grid(lambda omega: np.ones(len(omega)), x, 10, 1.0)
    for sum_of_waves in (fourier_grid, product_fourier_grid):
        with pytest.raises(ConfigError, match="radius > 0, found 0"):
            sum_of_waves(np.ones_like, x, 2, 0)
    with pytest.raises(ConfigError, match="m >= 1, found 0"):
        RandomFourier(uniform(1), lambda w: np.ones(len(w)), 0, rng)
    with pytest.raises(DataError, match="finite amplitudes"):
        RandomFourier(uniform(1), lambda w: np.full(len(w), np.nan), 3, rng)
