"""Barron functions, path norms and networks: exact values, invariances and rates."""

import numpy as np
import pytest
import torch

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.barron import BarronNetwork, CoordinateDistance, EuclideanNorm, mean_abs_coordinate
from deepmd_lite.theory.barron_regressor import BarronRegressor, a_priori_bound, penalty
from deepmd_lite.theory.experiment import slope
from deepmd_lite.theory.networks import MLP, ParameterPath, ResNetFlow, TwoLayerNet
from deepmd_lite.theory.norms import path_norm, path_norm_of_layers, weighted_path_norm
from deepmd_lite.theory.radial import RoundedDistance, min_path_norm_fit, radon_norm_radial, shells
from deepmd_lite.theory.spectral import GaussianBump, PlaneWave, fourier_barron_network, spectral_barron_norm


@pytest.fixture
def rng():
    return np.random.default_rng(11)


# Barron functions


def test_mean_abs_coordinate():
    assert mean_abs_coordinate(1) == pytest.approx(1)
    assert mean_abs_coordinate(2) == pytest.approx(2 / np.pi)
    assert mean_abs_coordinate(3) == pytest.approx(1 / 2)
    assert EuclideanNorm(100).mass_l2 == pytest.approx(25.0037, abs=1e-4)


@pytest.mark.parametrize("d", [2, 7])
@pytest.mark.parametrize("target", [EuclideanNorm, CoordinateDistance])
def test_sampled_networks(rng, target, d):
    f, m = target(d), 100_000
    net, x = f.sample_barron_network(m, rng), rng.uniform(-1, 1, (5, d))
    assert (abs(net(x) - f(x)) < 4.5 * np.sqrt(f.variance(x) / m)).all()
    neurons = np.maximum(x @ net.w.T + net.b, 0) * net.a
    # the variance of a variance: kurtosis below 10, so 1 % at m = 100,000
    assert np.var(neurons, axis=1) == pytest.approx(f.variance(x), rel=0.05)
    assert path_norm(net) == pytest.approx(f.mass, rel=0.01)


def test_spectral_norms(rng):
    assert GaussianBump(1, 2.0).spectral_norm == pytest.approx(1 / 4)
    f = GaussianBump(3, 0.5)
    size = np.abs(f.frequencies(200_000, rng)).sum(axis=1) ** 2
    assert abs(size.mean() - f.spectral_norm) < 4 * size.std() / np.sqrt(len(size))
    assert spectral_barron_norm(np.array([[1.0, -2.0], [3.0, 0.0]]), np.array([0.5, -1])) == 4.5 + 9
    assert PlaneWave([1, -2]).spectral_norm == pytest.approx(4 * np.pi**2 * 9)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_weighted_frequencies(rng, d):
    f, k = GaussianBump(d, 1.5), 200_000
    for test in (lambda w: w[:, 0] ** 2, lambda w: np.cos(w.sum(axis=1)), lambda w: np.abs(w).sum(axis=1)):
        plain, weighted = f.frequencies(k, rng), test(f.weighted_frequencies(k, rng))
        expected = test(plain) * np.abs(plain).sum(axis=1) ** 2 / f.spectral_norm
        error = np.hypot(expected.std(), weighted.std()) / np.sqrt(k)
        assert abs(weighted.mean() - expected.mean()) < 4 * error


@pytest.mark.parametrize("target", [GaussianBump(1), GaussianBump(4), PlaneWave([0.3, -0.2])])
def test_fourier_networks(rng, target):
    m = 200_000
    x = rng.uniform(-1, 1, (5, target.d if hasattr(target, "d") else 2))
    net = fourier_barron_network(target, m, rng)
    error = np.std(np.maximum(x @ net.w.T + net.b, 0) * net.a, axis=1) / np.sqrt(m)
    assert (abs(net(x) - target(x)) < 4.5 * error).all()
    assert np.mean(np.abs(net.a) * np.abs(net.w).sum(axis=1)) <= 2 * target.spectral_norm


# Radial functions


@pytest.mark.parametrize("eps", [0.3, 0.01])
def test_norm_of_the_cone(eps):
    f = RoundedDistance(0, eps)
    assert radon_norm_radial(f.d1, f.d2, f.grid()) == pytest.approx(4, rel=1e-5)  # (h/2)² on a grid of 20,000


def test_norm_is_the_integral_of_the_paper():
    # f = exp(-r²/2): 3f'' + r f''' = (-3 + 6 r² - r⁴) exp(-r²/2)
    from scipy.integrate import quad

    integral = quad(lambda r: abs(-3 + 6 * r**2 - r**4) * np.exp(-(r**2) / 2), 0, 12, points=[0.742, 2.334])[
        0
    ]
    r = np.linspace(0, 12, 20001)
    found = radon_norm_radial(
        lambda r: -r * np.exp(-(r**2) / 2), lambda r: (r**2 - 1) * np.exp(-(r**2) / 2), r
    )
    assert found == pytest.approx(2 * integral, rel=1e-5)


def test_sphere_has_no_norm():
    widths = np.array([0.1, 0.05, 0.025, 0.0125])
    norms = [radon_norm_radial(f.d1, f.d2, f.grid()) for f in (RoundedDistance(1, eps) for eps in widths)]
    assert norms == pytest.approx([44.5, 84.3, 164.1, 324.1], abs=0.1)


def test_shells_are_means_over_the_sphere(rng):
    w = rng.standard_normal((400_000, 3))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    b = np.array([-2.0, -0.4, 0.0, 0.7, 1.5])
    neurons = np.maximum(1.2 * w[:, 2:] - b, 0)
    error = neurons.std(axis=0) / np.sqrt(len(w)) + 1e-12
    assert (abs(neurons.mean(axis=0) - shells([1.2], b)[0]) < 4 * error).all()


def test_smallest_path_norm(rng):
    r, b = np.linspace(0.02, 2, 100), np.linspace(-2, 1.9, 79)
    c, offset = min_path_norm_fit(shells(r, b), r + 3, 1e-3)
    assert abs(shells(r, b) @ c + offset - r - 3).max() < 1e-3 + 1e-6  # the program is solved to 1e-7
    assert 3.9 < np.abs(c).sum() <= 4 + 1e-6  # the cone: one shell with b = 0 and weight 4
    with pytest.raises(DataError, match="no combination of 79 neurons"):
        min_path_norm_fit(shells(r, b), rng.standard_normal(100), 1e-3)


# Path norms


def test_path_norm_is_the_sum_over_paths(rng):
    w = [rng.standard_normal(shape) for shape in ((3, 2), (2, 4), (4, 1))]
    every = sum(
        abs(w[0][i, j] * w[1][j, k] * w[2][k, 0]) for i in range(3) for j in range(2) for k in range(4)
    )
    assert path_norm(w) == pytest.approx(every, rel=1e-12)


def test_path_norm_of_two_layers(rng):
    for scaling, factor in (("mean_field", 1 / 6), ("conventional", 1)):
        net = TwoLayerNet(3, 6, scaling=scaling, rng=rng)
        a, w, b = (p.detach().abs() for p in (net.a, net.w, net.b))
        assert path_norm(net) == pytest.approx(factor * float((a * (w.sum(dim=1) + b)).sum()), rel=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_path_norm_bounds_functions(rng, activation):
    net = MLP((4, 9, 9, 1), activation=activation, rng=rng)
    x = torch.tensor(rng.uniform(-1, 1, (500, 4)))
    assert net(x).abs().max() <= path_norm(net)
    wide = TwoLayerNet(4, 9, activation=activation, bias=False, rng=rng)
    assert wide(x).abs().max() <= path_norm(wide)


def test_path_norm_of_layers_with_shortcuts(rng):
    w1, w2, w3 = rng.standard_normal((2, 4)), rng.standard_normal((4, 4)), rng.standard_normal((4, 1))
    idt = rng.standard_normal(4)
    doubled, same = np.hstack([np.eye(2), np.eye(2)]), np.eye(4)
    # every layer as the matrix of its paths
    matrices = [np.abs(w1) + doubled, np.abs(w2) * np.abs(idt) + same, np.abs(w3)]
    assert path_norm_of_layers([(w1, None, 2), (w2, idt, 1), (w3, None, 0)]) == pytest.approx(
        path_norm(matrices), rel=1e-12
    )
    with pytest.raises(ConfigError, match=r"layer 1 of shape \(4, 1\) with 2 copies"):
        path_norm_of_layers([(w1, None, 2), (w3, None, 2)])


def test_weighted_path_norm(rng):
    path = ParameterPath(2, 3, 4, rng=rng)
    net = ResNetFlow(path, 3)
    product = np.abs(path.v)
    for l in range(3):
        u, w = path(l / 3)
        product = (np.eye(3) + 3 * np.abs(u) @ np.abs(w) / 12) @ product
    assert weighted_path_norm(net) == pytest.approx((np.abs(path.alpha) @ product).sum(), rel=1e-12)


# Networks


@pytest.mark.parametrize("bias", [True, False])
def test_map_scaling(rng, bias):
    net, x = (
        TwoLayerNet(3, 16, bias=bias, activation="tanh", rng=rng),
        torch.tensor(rng.standard_normal((9, 3))),
    )
    other = net.map_scaling()
    assert torch.allclose(net(x), other(x), rtol=0, atol=1e-14)
    assert torch.allclose(other.map_scaling().a, net.a, rtol=1e-14)
    for model in (net, other):
        model(x).square().sum().backward()
    assert torch.allclose(other.a.grad, 16 * net.a.grad, rtol=1e-12)
    assert torch.allclose(other.w.grad, net.w.grad, rtol=1e-12, atol=1e-14)


def test_residual_networks_become_a_flow(rng):
    path, x = ParameterPath(3, 5, 4, rng=rng), rng.standard_normal((10, 3))
    depths = [32, 64, 128]
    errors = [
        abs(ResNetFlow(path, L)(torch.tensor(x)).detach().numpy() - path.limit(x)).max() for L in depths
    ]
    assert slope(depths, errors) == pytest.approx(-1, abs=0.15)


# Regularised regression


def test_gradient_of_the_objective(rng):
    from deepmd_lite.theory.barron_regressor import _gradient

    x, y, weight = rng.uniform(-1, 1, (30, 2)), rng.standard_normal(30), 0.3
    theta = rng.standard_normal((5, 4))

    def objective(theta):
        net = BarronNetwork(theta[:, -1], theta[:, :-2], theta[:, -2])
        return np.mean((net(x) - y) ** 2) + weight * path_norm(net)

    found = _gradient(theta, np.column_stack([x, np.ones(30)]), y, weight) / 5
    for index in np.ndindex(theta.shape):
        step = np.zeros_like(theta)
        step[index] = 1e-6
        assert found[index] == pytest.approx(
            (objective(theta + step) - objective(theta - step)) / 2e-6, abs=1e-7
        )


def test_regulariser_keeps_the_path_norm_small(rng):
    x = rng.uniform(-1, 1, (100, 5))
    y = np.abs(x[:, 0])  # mass 2
    loose, tight = (
        BarronRegressor(m=100, lam=lam, init=5.0, steps=600, random_state=1).fit(x, y) for lam in (0, 0.1)
    )
    assert tight.path_norm_ < 1.2 * 2 < loose.path_norm_
    assert tight.score(x, y) > 0.9
    assert tight.objective_ == pytest.approx(
        np.mean((tight.predict(x) - y) ** 2) + penalty(0.1, 100, 5) * tight.path_norm_
    )
    assert tight.objective_ < a_priori_bound(2.0, n=100, d=5, m=100, lam=0.1, sup=1.0).objective
    again = BarronRegressor(m=100, lam=0.1, init=5.0, steps=600, random_state=1).fit(x, y)
    assert np.array_equal(again.predict(x), tight.predict(x))


def test_a_priori_bound_falls_with_samples_and_width():
    options = {"d": 10, "lam": 0.1, "sup": 1.0}
    few = a_priori_bound(2.0, n=100, m=10**6, **options)
    many = a_priori_bound(2.0, n=400, m=10**6, **options)
    assert few.objective == pytest.approx(4e-6 + 2 * penalty(0.1, 100, 10))
    assert few.risk / many.risk == pytest.approx(2, rel=1e-3)
    assert a_priori_bound(2.0, n=100, m=10, **options).path_norm > few.path_norm


def test_refusals(rng):
    for bad in (
        lambda: EuclideanNorm(0),
        lambda: GaussianBump(2, 0.0),
        lambda: PlaneWave([0, 0]),
        lambda: RoundedDistance(1, 0),
        lambda: TwoLayerNet(2, 0, rng=rng),
        lambda: TwoLayerNet(2, 3, scaling="half", rng=rng),
        lambda: MLP((2, 3, 1), activation="cubic", rng=rng),
        lambda: ResNetFlow(ParameterPath(2, 2, 2, rng=rng), 0),
        lambda: BarronRegressor(m=0).fit(np.ones((2, 1)), np.ones(2)),
        lambda: a_priori_bound(1.0, n=10, d=2, m=5, lam=0, sup=1),
    ):
        with pytest.raises(ConfigError, match="expected"):
            bad()
    with pytest.raises(DataError, match="finite"):
        BarronRegressor().fit(np.ones((2, 1)), np.array([1, np.inf]))
