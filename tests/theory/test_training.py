"""Gradient descent and SGD, the gradient-variance lemma, tangent kernels, particle flows."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from deepmd_lite.errors import ConfigError, DataError, TrainingError
from deepmd_lite.theory.descent import (
    CosineClass,
    Cosines,
    LeastSquares,
    gradient_descent,
    gradient_variance,
    stochastic_gradient_descent,
    train,
)
from deepmd_lite.theory.mean_field import ParticleFlow, cloud_risk, displace, midpoint_convexity_test
from deepmd_lite.theory.networks import TwoLayerNet
from deepmd_lite.theory.tangent import (
    LinearizedPredictor,
    empirical_ntk,
    gram_matrix,
    max_learning_rate,
    ntk_comparison,
    timescale_ratio,
)


def unit(n, d, rng):
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def problem(rng):
    x = rng.standard_normal((30, 3))
    return LeastSquares(x, x @ [1.0, -2.0, 0.5] + 0.3 * rng.standard_normal(30))


# descent


def test_gradient_is_that_of_the_risk(problem, rng):
    theta, e = rng.standard_normal(3), 1e-5
    assert problem.risk(theta) == pytest.approx(
        0.5 * np.mean((problem.x @ theta - problem.y) ** 2), rel=1e-12
    )
    numeric = [(problem.risk(theta + e * u) - problem.risk(theta - e * u)) / (2 * e) for u in np.eye(3)]
    # central differences of a quadratic: rounding alone, 1e-16 / 1e-5
    assert np.allclose(problem.gradient(theta), numeric, atol=1e-9)
    alone = problem.gradient(theta, np.arange(30)[:, None])
    assert np.allclose(
        np.mean([problem.gradient(theta, np.array([i])) for i in range(30)], 0), numeric, atol=1e-9
    )
    assert alone.shape == (30, 3)


def test_gradient_descent_follows_the_spectral_formula(problem, rng):
    start = rng.standard_normal(3)
    path = gradient_descent(problem, start, 0.3, 50).values
    assert np.allclose(path, problem.descent_path(start, 0.3, 50), rtol=0, atol=1e-12)
    assert np.array_equal(gradient_descent(problem, np.array([start, start]), 0.3, 5).values[:, 1], path[:6])


def test_second_moment_of_sgd(problem, rng):
    """Two steps with batches of one: the mean over all 30² choices of samples is exact."""
    start = rng.standard_normal(3)
    first = start - 0.2 * problem.gradient(np.tile(start, (30, 1)), np.arange(30)[:, None])
    second = [first - 0.2 * problem.gradient(first, np.full((30, 1), i)) for i in range(30)]
    expected = problem.expected_risk(start, 0.2, 2)
    assert np.allclose(
        expected, [problem.risk(start), problem.risk(first).mean(), np.mean(problem.risk(np.array(second)))]
    )
    # a batch of 2 halves the noise: all pairs
    pairs = np.indices((30, 30)).reshape(2, -1).T
    both = start - 0.2 * problem.gradient(np.tile(start, (900, 1)), pairs)
    assert problem.expected_risk(start, 0.2, 1, batch=2)[1] == pytest.approx(problem.risk(both).mean())


def test_sgd_repeats_with_its_rng(problem):
    runs = [
        stochastic_gradient_descent(problem, np.zeros((4, 3)), 0.1, 6, np.random.default_rng(s)).values
        for s in (3, 3, 4)
    ]
    assert (
        runs[0].shape == (7, 4, 3)
        and np.array_equal(runs[0], runs[1])
        and not np.array_equal(runs[0], runs[2])
    )
    with pytest.raises(ConfigError, match="batch"):
        stochastic_gradient_descent(problem, np.zeros(3), 0.1, 6, np.random.default_rng(0), batch=0)


@pytest.mark.parametrize("d, m", [(1, 4), (2, 5), (3, 6)])
def test_cosines_are_orthonormal_and_all_there(d, m):
    functions = CosineClass(d, m)
    values = functions(functions.grid())
    assert functions.size == math.comb(m, d) == len({tuple(b) for b in functions.frequencies})
    assert (functions.frequencies >= 1).all() and functions.frequencies.sum(axis=1).max() == m
    assert functions.spectral_norms.max() == pytest.approx(4 * np.pi**2 * m**2)
    assert np.allclose(values.T @ values / len(values), np.eye(functions.size), atol=1e-12)


def test_gradient_variance_is_the_variance_of_gradients(rng):
    """Against ∇R_f by autograd, for each target on its own."""
    functions, net = CosineClass(2, 4), TwoLayerNet(2, 5, activation="tanh", rng=rng)
    x = functions.grid()
    gradients = []
    for f in functions(x).T:
        net.zero_grad()
        torch.mean((net(torch.tensor(x)) - torch.tensor(f)) ** 2).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]).numpy())
    found = gradient_variance(net, functions, x)
    assert found.variance == pytest.approx(np.var(gradients, axis=0).sum(), rel=1e-10)
    assert 0 < found.variance <= found.bound == pytest.approx(4 * found.q / 6)


@pytest.mark.parametrize("size", [2, 7])
def test_gradient_variance_where_the_lemma_is_tight(size):
    """h = θ f_1: 4Q/M (1 - 1/M), above the Q/M that holds for the half loss alone."""
    functions = Cosines(np.arange(1, size + 1)[:, None])
    values = functions(functions.grid())
    h = nn.utils.skip_init(nn.Linear, 1, 1, bias=False, dtype=torch.float64)
    found = gradient_variance(h, lambda _: values, values[:, :1])
    assert found.q == pytest.approx(1, rel=1e-12)
    assert found.variance == pytest.approx(4 / size * (1 - 1 / size), rel=1e-12)


def test_cosines_refuse():
    for d, m in ((0, 3), (4, 3), (15, 60)):
        with pytest.raises(ConfigError, match="cosine class"):
            CosineClass(d, m)
    with pytest.raises(ConfigError, match="positive"):
        Cosines([[0, 1]])
    with pytest.raises(DataError, match="finite"):
        LeastSquares(np.ones((3, 1)), np.array([1, 2, np.nan]))


# tangent kernels


def test_gram_matrix_is_the_mean_over_weights(rng):
    x, w = unit(4, 3, rng), unit(400_000, 3, rng)
    for activation, phi in (("relu", np.maximum(w @ x.T, 0)), ("sign", (w @ x.T > 0).astype(float))):
        k = gram_matrix(x, activation)
        # φφ' <= 1 has variance <= 1/4; 16 entries: 5 standard errors
        assert np.abs(phi.T @ phi / len(w) - 4 * k).max() < 5 * 0.5 / np.sqrt(len(w))
        assert np.linalg.eigvalsh(k)[0] > 0
    assert np.trace(gram_matrix(x)) == pytest.approx(1 / 6)  # E σ² = |x|²/2d
    with pytest.raises(ConfigError, match="relu or sign"):
        gram_matrix(x, "tanh")


def test_empirical_ntk_of_nets_that_are_known(rng):
    x, z = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    linear = nn.utils.skip_init(nn.Linear, 3, 1, dtype=torch.float64)
    assert np.allclose(empirical_ntk(linear, x, z), x @ z.T + 1)
    net = TwoLayerNet(3, 6, scaling="conventional", bias=False, rng=rng)
    a, w = net.a.detach().numpy(), net.w.detach().numpy()
    on, on_z = x @ w.T > 0, z @ w.T > 0
    expected = np.maximum(x @ w.T, 0) @ np.maximum(z @ w.T, 0).T + (x @ z.T) * ((on * a**2) @ on_z.T)
    assert np.allclose(empirical_ntk(net, x, z), expected)
    assert np.allclose(empirical_ntk(net, x), empirical_ntk(net, x, x))


@pytest.mark.parametrize("lr", [None, 0.8])
def test_linearized_predictor_is_exact_for_a_linear_model(lr, rng):
    """f = φ(x)·a, trained from a = 0: by steps of GD, and by GD in steps so small that it is the flow."""
    phi, phi_test, y = rng.standard_normal((4, 9)), rng.standard_normal((3, 9)), rng.standard_normal(4)
    kernel = phi @ phi.T
    step, steps = (lr, 20) if lr else (1e-5, 20_000)
    rate = step if lr is None else step * max_learning_rate(kernel)
    factor = np.eye(9) - rate * phi.T @ phi / 4
    a = np.zeros(9)
    for _ in range(steps):
        a = factor @ a + rate * phi.T @ y / 4
    predict = LinearizedPredictor(kernel, y, None if lr is None else rate)
    t = steps * step if lr is None else steps
    # the flow against Euler steps: relative error λ² t step / 2 n² < 1e-4 for λ < 30 and t = 0.2
    tolerance = 1e-12 if lr else 1e-4
    assert np.allclose(predict(t), phi @ a, atol=tolerance)
    assert np.allclose(predict(t, phi_test @ phi.T), phi_test @ a, atol=tolerance)
    assert np.allclose(predict(np.array([0, t])), [np.zeros(4), predict(t)])
    assert np.allclose(predict(), y) and np.allclose(predict(1e9 if lr is None else 10**6), y)
    assert np.allclose(predict(None, phi_test @ phi.T), phi_test @ np.linalg.pinv(phi) @ y)


def test_linearized_predictor_leaves_what_the_kernel_does_not_know(rng):
    phi = rng.standard_normal((6, 2))
    predict, y = LinearizedPredictor(phi @ phi.T, np.arange(6.0)), np.arange(6.0)
    assert np.allclose(predict(), phi @ np.linalg.lstsq(phi, y, rcond=None)[0])
    assert np.allclose(predict(None, phi @ phi.T), predict())
    with pytest.raises(DataError, match="kernel"):
        LinearizedPredictor(np.eye(3), np.ones(2))
    with pytest.raises(ConfigError, match="lr"):
        LinearizedPredictor(np.eye(2), np.ones(2), lr=0)


def test_largest_learning_rate(rng):
    """Of a linear model, exactly: stable below, divergent above."""
    x, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    model = nn.utils.skip_init(nn.Linear, 2, 1, bias=False, dtype=torch.float64)
    module = nn.Sequential(model, nn.Flatten(0))
    limit = max_learning_rate(empirical_ntk(module, x))
    ends = []
    for factor in (0.98, 1.02):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        risk = train(module, x, y, factor * limit, 400).values
        ends.append(risk[-1] / risk[0])
    assert ends[0] < 1 and ends[1] > 1e3  # 0.96^800, 1.04^800


def test_train_stops_when_the_risk_is_not_finite(rng):
    net = TwoLayerNet(2, 4, rng=rng)
    risk = train(net, rng.standard_normal((5, 2)), np.ones(5), 1e200, 50)
    assert len(risk.t) < 50 and not np.isfinite(risk.values[-1]) and np.isfinite(risk.values[:-1]).all()


def test_wide_net_and_its_random_feature_model(rng):
    x, y, x_test = unit(8, 3, rng), rng.standard_normal(8), unit(20, 3, rng)
    narrow, wide = ntk_comparison(x, y, [64, 1024], x_test, rng, horizon=100.0, points=20)
    for run in (narrow, wide):
        assert run.t[0] == 0 and run.t[-1] * run.m == pytest.approx(100)
        assert run.risk[0] == run.frozen_risk[0] == pytest.approx(0.5 * np.mean(y**2))
        assert (np.diff(run.risk) < 0).all() and run.moved[0] == run.distance[0] == 0
        # along gradient flow a² - |w|² of every neuron stays: here -1; the integrator has 1e-8
        assert np.allclose(run.a**2 - np.sum(run.w**2, axis=2), -1, atol=1e-6)
    assert wide.distance.max() < narrow.distance.max() / 4  # m^-1/2 of the theorem; about m^-1 and less
    assert wide.moved[-1] < narrow.moved[-1] / 16
    ratios = [timescale_ratio(r.t, r.a, r.w)[-1] for r in (narrow, wide)]
    assert ratios[1] < ratios[0] / 4


def test_timescale_ratio_of_a_path():
    t = np.array([0.0, 1.0, 3.0])
    a, w = np.outer(t, [3.0, 4.0]), np.zeros((3, 2, 2))
    w[:, 1, 0] = 2 * t
    assert np.allclose(timescale_ratio(t, a, w), 2 / 5)


# particles


@pytest.fixture
def flow(rng):
    x = rng.standard_normal((40, 3))
    return ParticleFlow(x, np.abs(x[:, 0]), 12, dt=0.05, rng=rng)


def test_potential_is_the_derivative_of_the_risk(flow, rng):
    """R(ρ + ε δ_u) = R + ε V(u) + ε² E φ²/2: exact in central differences."""
    u, e = rng.standard_normal((2, 4)), 1e-3
    weights = np.append(np.full(12, 1 / 12), e)
    for point, v in zip(u, flow.potential(u)):
        cloud = np.vstack([flow.particles, point])
        up, down = (cloud_risk(flow.x, flow.y, cloud, weights * np.append(np.ones(12), s)) for s in (1, -1))
        assert v == pytest.approx((up - down) / (2 * e), abs=1e-12)


def test_particles_run_down_the_potential(flow):
    e, a, w = 1e-6, flow.a.copy(), flow.w.copy()
    u = flow.particles
    slopes = np.stack(
        [(flow.potential(u + e * k) - flow.potential(u - e * k)) / (2 * e) for k in np.eye(4)], axis=1
    )
    assert flow.dissipation() == pytest.approx(np.mean(np.sum(slopes**2, axis=1)), rel=1e-6)
    flow.dt = 1e-7
    flow.step()
    moved = np.column_stack([flow.a - a, flow.w - w]) / 1e-7
    assert np.allclose(moved, -slopes, atol=1e-6)


def test_energy_balance_and_conserved_quantity(flow):
    start, before = flow.invariant(), flow.risk()
    flow.dt, lost = 0.01, [flow.dissipation()]
    for _ in range(400):
        flow.step()
        lost.append(flow.dissipation())
    spent = 0.01 * (np.sum(lost) - (lost[0] + lost[-1]) / 2)
    assert before - flow.risk() == pytest.approx(spent, rel=1e-3)  # trapezoids and kinks of the relu, dt²
    assert np.abs(flow.invariant() - start).max() < 1e-4 and np.allclose(start, 0)
    assert flow.t == pytest.approx(4)


def test_permutation_and_batches(flow, rng):
    order = rng.permutation(12)
    other = ParticleFlow(flow.x, np.tile(flow.y, (2, 1)), 12, dt=0.05, rng=rng)
    other.a, other.w = np.stack([flow.a, flow.a[order]]), np.stack([flow.w, flow.w[order]])
    risk, risks = flow.run(20, every=5), other.run(20, every=5)
    assert np.allclose(risks.t, [0, 0.25, 0.5, 0.75, 1]) and np.allclose(risks.values, risk.values[:, None])
    assert np.allclose(other.w[0], flow.w) and np.allclose(other.w[1], flow.w[order])


def test_support_of_the_start(rng):
    x, y = rng.standard_normal((20, 2)), np.zeros((3, 20))
    cone, half, point = (
        ParticleFlow(x, y, 50, dt=0.1, init=i, rng=rng) for i in ("cone", "half_cone", "point")
    )
    for flow in (cone, half, point):
        assert flow.a.shape == (3, 50) and np.allclose(flow.invariant(), 0)
    assert set(np.unique(cone.a)) == {-1, 1} and set(np.unique(half.a)) == {1}
    assert np.ptp(point.w, axis=1).max() == 0 and np.ptp(half.w, axis=1).min() > 1
    half.run(50)
    point.run(5)
    assert (half.a > 0).all()  # the sign of a is conserved on the cone
    assert np.ptp(point.w, axis=1).max() < 1e-12


def test_flow_refuses(rng):
    x, y = np.ones((4, 2)), np.ones(4)
    both_signs = np.array([[1.0, 0.0], [-1.0, 0.0]])
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="take dt < 5"):
        ParticleFlow(both_signs, np.array([3.0, -3.0]), 50, dt=5, rng=rng).run(200)
    for change in ({"m": 0}, {"dt": 0}, {"init": "ball"}):
        with pytest.raises(ConfigError, match="particle flow"):
            ParticleFlow(x, y, **{"m": 3, "dt": 0.1, "rng": rng, **change})
    for bad in (np.ones(3), np.full(4, np.nan)):
        with pytest.raises(DataError, match="particle flow"):
            ParticleFlow(x, bad, 3, dt=0.1, rng=rng)


@pytest.mark.parametrize("c", [1.0, 1.5, 3.0])
def test_displacement_convexity_fails(c, rng):
    """One neuron and its rescaled copy are one function; half way there is ((c + 1/c)/2)² of it."""
    x = rng.standard_normal((200, 2))
    w = np.array([0.6, 0.8])
    y = np.maximum(x @ w, 0)
    u0, u1 = np.array([[c, *w / c]]), np.array([[1 / c, *c * w]])
    found = midpoint_convexity_test(x, y, u0, u1)
    factor = ((c + 1 / c) / 2) ** 2
    assert found.displaced == pytest.approx(0.5 * (factor - 1) ** 2 * np.mean(y**2), abs=1e-15)
    assert found.mean == pytest.approx(0, abs=1e-15) and found.mixed == pytest.approx(0, abs=1e-15)


def test_mixtures_are_convex_and_transport_is_optimal(rng):
    x = rng.standard_normal((50, 3))
    for _ in range(20):
        found = midpoint_convexity_test(x, rng.standard_normal(50), *rng.standard_normal((2, 6, 4)))
        assert found.mixed <= found.mean + 1e-12
    u = rng.standard_normal((6, 4))
    assert np.allclose(displace(u, u[rng.permutation(6)], 0.5), u)
    with pytest.raises(DataError, match="two clouds"):
        midpoint_convexity_test(x, np.zeros(50), u, u[:5])
