"""Risks and their decomposition, double descent, classification, Rademacher complexity and the bounds from it."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory import barron_complexity, bounds, complexity
from deepmd_lite.theory.classifier import RandomFeatureClassifier, mesh_nodes, smooth_images
from deepmd_lite.theory.decomposition import error_decomposition, least_squares, linear_fit
from deepmd_lite.theory.double_descent import double_descent_curve, resonance_check
from deepmd_lite.theory.random_features import RandomFeatures
from deepmd_lite.theory.risk import (
    SupervisedProblem,
    empirical_risk,
    generalization_gap,
    learn,
    population_risk,
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def cube(n, rng, d=3):
    return rng.uniform(-1, 1, (n, d))


SUM = SupervisedProblem(lambda x: x.sum(axis=1), cube, noise=0.5)


def test_risks_of_the_zero_function(rng):
    zero = lambda x: np.zeros(len(x))  # noqa: E731
    risk = population_risk(zero, SUM, 20_000, rng)
    assert abs(risk.value - 1) < 5 * risk.se < 0.05  # E (x_1 + x_2 + x_3)² = 3/3
    # mean of 20,000 squares of variance < 4: ± 5 * 0.014
    assert abs(empirical_risk(zero, *SUM.sample(20_000, rng)) - 1.25) < 0.07


def test_pipeline_is_exact_where_the_space_holds_the_target(rng):
    free = SupervisedProblem(SUM.target, cube)
    found = learn(free, linear_fit(lambda x: x), 20, rng, n_test=100)
    assert found.empirical < 1e-25 and found.population.value < 1e-25


def test_problem_refuses(rng):
    with pytest.raises(ConfigError, match="n >= 1"):
        SUM.sample(0, rng)
    with pytest.raises(DataError, match="expected 4 finite values"):
        SupervisedProblem(lambda x: x, cube).sample(4, rng)
    with pytest.raises(DataError, match="finite"), np.errstate(invalid="ignore"):
        SupervisedProblem(lambda x: np.sqrt(x[:, 0]), cube).sample(50, rng)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_least_squares_is_gradient_descent(rng, shape, ridge):
    phi, y = rng.standard_normal(shape), rng.standard_normal(shape[0])
    n, c = len(y), np.zeros(shape[1])
    lr = 1 / (np.linalg.norm(phi, 2) ** 2 + n * ridge)
    for _ in range(37):
        c = c - lr * (phi.T @ (phi @ c - y) + n * ridge * c)
    # 37 steps on numbers of order one
    np.testing.assert_allclose(least_squares(phi, y, ridge, steps=37), c, atol=1e-13)
    if ridge:
        exact = np.linalg.solve(phi.T @ phi + n * ridge * np.eye(shape[1]), phi.T @ y)
    else:
        exact = np.linalg.lstsq(phi, y, rcond=None)[0]
    np.testing.assert_allclose(least_squares(phi, y, ridge), exact, atol=1e-12)


def test_error_decomposition(rng):
    problem = SupervisedProblem(lambda x: np.exp(x[:, 0] * x[:, 1]), cube, noise=0.2)
    features = RandomFeatures(3, 40, bias=True, rng=rng)
    parts = {
        (m, steps): error_decomposition(
            problem, features, 60, m, steps, np.random.default_rng(1), population=500
        )
        for m in (5, 20, 40)
        for steps in (0, 50, np.inf)
    }
    for (m, steps), e in parts.items():
        # float64 rounding, amplified by nothing: all parts are projections of numbers of order one
        assert abs(sum(e[:4]) - e.total) < 1e-10 * max(e.total, 1)
        assert (e.optimization == 0) == (steps == np.inf) and e.approximation == parts[m, 0].approximation
        assert steps != 0 or e.total == pytest.approx(
            np.mean(problem.target(cube(500, np.random.default_rng(1))) ** 2)
        )
    assert parts[5, 0].approximation > parts[20, 0].approximation > parts[40, 0].approximation > 0
    assert parts[20, 0].optimization > parts[20, 50].optimization
    # all of the population, without noise: nothing left to estimate
    whole = SupervisedProblem(problem.target, lambda n, rng: np.random.default_rng(1).uniform(-1, 1, (n, 3)))
    many = error_decomposition(whole, features, 200_000, 20, np.inf, rng, population=50)
    assert many.estimation < 0.02 * many.approximation
    with pytest.raises(ConfigError, match="m <= 40"):
        error_decomposition(problem, features, 60, 41, 1, rng)


def test_gap_of_a_fixed_function_has_the_error_of_two_means(rng):
    train, test = SUM.sample(300, rng), SUM.sample(1000, rng)
    gap = generalization_gap(lambda x: x[:, 0], train, test, 2000, rng)
    squares = [(x[:, 0] - y) ** 2 for x, y in (train, test)]
    se = np.sqrt(sum(s.var() / len(s) for s in squares))
    # a standard deviation of 2000 values is known to 1.6 %
    assert gap.se == pytest.approx(se, rel=0.08)
    assert gap.value == pytest.approx(squares[1].mean() - squares[0].mean()) and gap.n == 300


def test_resonance_is_the_variance_of_gaussian_features(rng):
    noise_alone = SupervisedProblem(
        lambda x: np.zeros(len(x)), lambda n, rng: rng.standard_normal((n, 80)), noise=1.0
    )
    widths = [10, 20, 80]
    first = lambda m, rng: lambda x: x[:, :m]  # noqa: E731
    found = [double_descent_curve(noise_alone, first, 40, widths, rng, n_test=200) for _ in range(300)]
    test = np.mean([f.test for f in found], axis=0)
    # values scatter by less than 60 %: 3.5 % for the mean of 300, times 4
    np.testing.assert_allclose(test, [resonance_check(m, 40).amplification for m in widths], rtol=0.14)
    assert all(f.train[-1] < 1e-20 for f in found)
    near = [resonance_check(m, 40).near for m in (10, 30, 40, 60, 100)]
    assert near == [False, True, True, True, False] and resonance_check(40, 40).amplification == np.inf
    with pytest.raises(ConfigError, match="m > 0"):
        resonance_check(0, 10)


def test_classifier(rng):
    problem = smooth_images(3, 0.5, rng, side=8, channels=1)
    np.testing.assert_allclose(np.mean(problem.templates**2, axis=1), 1)
    (x, labels), (unseen, truth) = problem.sample(200, rng), problem.sample(200, rng)
    names = np.array(["cat", "dog", "ship"])
    model = RandomFeatureClassifier(m=200, random_state=1).fit(x, names[labels])
    assert model.score(unseen, names[truth]) > 0.95 and set(model.predict(unseen)) <= set(names)
    assert 0.2 < model.score(unseen, names[rng.permutation(truth)]) < 0.47  # chance 1/3 ± 4 * 0.033
    with pytest.raises(DataError, match="two classes"):
        model.fit(x, np.zeros(200))


def test_stored_mesh():
    assert mesh_nodes(3, 10) == 1000
    with pytest.raises(ConfigError, match=r"2\^3072 ≈ 10\^925 nodes"):
        mesh_nodes(3072, 2)


def enumerate_signs(n):
    return 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1


def test_mean_walk():
    exact = [np.abs(enumerate_signs(n).sum(axis=1)).mean() for n in range(1, 12)]
    np.testing.assert_allclose(complexity.mean_walk(np.arange(1, 12)), exact, rtol=1e-13)


def test_sup_ball_counts_points_once():
    x = np.array([[0.0, 1], [2, 3], [2, 3], [2, 3], [4, 5]])
    sums = enumerate_signs(5)
    exact = (abs(sums[:, 0]) + abs(sums[:, 1:4].sum(axis=1)) + abs(sums[:, 4])).mean() / 5
    assert complexity.rademacher_sup_ball(x, B=2).value == pytest.approx(2 * exact, rel=1e-13)
    assert complexity.rademacher_sup_ball(x[[0, 1, 4]]).value == pytest.approx(1, rel=1e-13)


def test_linear_and_rkhs_balls(rng):
    x = 3 * np.linalg.qr(rng.standard_normal((8, 8)))[0]
    assert complexity.rademacher_linear(x, 2, None, None).value == pytest.approx(
        2 * 3 / np.sqrt(8), rel=1e-13
    )
    phi = rng.standard_normal((50, 20))
    pair = [
        f(a, 1.5, np.random.default_rng(3), 40)
        for f, a in ((complexity.rademacher_linear, phi), (complexity.rademacher_rkhs, phi @ phi.T))
    ]
    np.testing.assert_allclose(*pair, rtol=1e-11)
    with pytest.raises(DataError, match="positive semidefinite"):
        complexity.rademacher_rkhs(np.diag([1.0, -1]), 1, rng, 10)


def test_sampled_signs_agree_with_all_of_them(rng):
    values = rng.standard_normal((10, 15)) + 1
    values = np.hstack([values, -values])
    exact = complexity.rademacher_erm(complexity.sup_finite, values, None, None)
    found = complexity.rademacher_erm(complexity.sup_finite, values, 2000, rng)
    assert exact.n == 1024 and exact.se == 0 and abs(found.value - exact.value) < 4 * found.se
    sup = complexity.sup_finite(enumerate_signs(10), values)
    assert found.se < sup.std() / np.sqrt(2000)  # what the control variate is for
    assert exact.value == sup.mean() < bounds.massart_bound(values)
    with pytest.raises(ConfigError, match="n <= 20"):
        complexity.rademacher_erm(complexity.sup_finite, np.ones((21, 1)), None, None)


@pytest.mark.parametrize("L, B", [(1.0, 0.2), (1.0, 1.0), (0.3, 5.0), (20.0, 0.1)])
def test_lipschitz_ball_is_a_linear_program(rng, L, B):
    x = cube(9, rng, d=2)
    distance = cdist(x, x)
    i, j = np.nonzero(~np.eye(9, dtype=bool))
    rows = np.eye(9)[i] - np.eye(9)[j]
    for xi in (*enumerate_signs(9)[rng.integers(512, size=12)], np.ones(9)):
        exact = -linprog(-xi, A_ub=rows, b_ub=L * distance[i, j], bounds=(-B, B)).fun
        # HiGHS: feasible to 1e-7
        assert complexity.sup_lipschitz(xi, distance, L, B) == pytest.approx(exact, abs=1e-6)


def test_lipschitz_ball_on_two_points():
    x = np.array([[0.0], [0.7]])
    for L, B in ((1, 1), (4, 1)):
        exact = B / 2 + min(0.7 * L, 2 * B) / 4
        assert complexity.rademacher_lipschitz(x, L, B, None, None).value == pytest.approx(exact, rel=1e-14)


def test_barron_search_finds_the_best_neuron_of_two_inputs(rng):
    x = cube(40, rng, d=2)
    side = np.linspace(-1, 1, 2001)
    w = np.vstack([np.c_[side, 1 - abs(side)], np.c_[side, abs(side) - 1]])  # |w|_1 = 1
    xi = np.random.default_rng(2).choice([-1.0, 1.0], size=(32, 40))
    best = np.abs(xi @ np.maximum(x @ w.T, 0)).max(axis=1).mean() / 40
    # signs are drawn first, so both have the same
    found = barron_complexity.rademacher_barron(x, 1, np.random.default_rng(2))
    control = complexity.rademacher_erm(
        lambda xi, x: np.abs(xi @ np.maximum(x @ w.T, 0)).max(1) / 40, x, 32, np.random.default_rng(2)
    )
    assert abs(best - control.value) < 4 * control.se
    assert 0.995 * control.value < found.value < 1.001 * control.value
    assert found.value < barron_complexity.barron_rademacher_bound(1, 40, 2)


def test_barron_norm_scales(rng):
    x = cube(30, rng)
    one, five = (barron_complexity.rademacher_barron(x, Q, np.random.default_rng(1), 8) for Q in (1, 5))
    np.testing.assert_allclose(np.multiply(5, one[:2]), five[:2], rtol=1e-12)
    assert barron_complexity.barron_rademacher_bound(1, 100, 5) == pytest.approx(
        0.2 * np.sqrt(2 * np.log(10))
    )
    assert barron_complexity.barron_rademacher_bound(1, 100, 5, bias=True) == pytest.approx(
        0.2 * np.sqrt(2 * np.log(12))
    )


def test_bounds_have_the_right_constants():
    given = bounds.generalization_bound(0.1, 2, 100, 0.1)
    assert given == pytest.approx(0.2 + 6 * np.sqrt(np.log(40) / 200))
    assert bounds.generalization_bound(0.1, 2, 100, 0.1, empirical=False) == pytest.approx(
        0.2 + 2 * np.sqrt(np.log(20) / 200)
    )
    low = bounds.deviation_lower_bound(1.0, 2, 100, 0.1, empirical=False)
    assert low == pytest.approx(0.5 - 0.05 - 2 * np.sqrt(np.log(10) / 200))
    with pytest.raises(ConfigError, match="0 < δ < 1"):
        bounds.generalization_bound(0.1, 1, 100, 1.5)


def test_bounds_hold_for_the_functions_that_shatter(rng):
    """All functions from k points to {0, 1}: D = half the L1 distance of frequencies, Rad_S in closed form."""
    k, n, delta = 50, 100, 0.5
    p = np.arange(1, k + 1) / (k * (k + 1) / 2)
    count = rng.multinomial(n, p, size=4000)
    deviation = np.abs(count / n - p).sum(axis=1) / 2
    rad = complexity.mean_walk(count) * (count > 0) / (2 * n)  # E max(S, 0) = E|S|/2
    low = bounds.deviation_lower_bound(rad.sum(axis=1), 1, n, delta)
    high = bounds.generalization_bound(rad.sum(axis=1), 1, n, delta)
    assert np.mean(low <= deviation) >= 1 - delta and np.mean(deviation <= high) >= 1 - delta
    # the means obey the theorem without its noise
    rad, deviation = rad.sum(axis=1).mean(), deviation.mean()
    assert rad / 2 - 1 / (4 * np.sqrt(n)) <= deviation <= 2 * rad
