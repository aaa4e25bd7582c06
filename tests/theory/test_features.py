"""Random features and kernels: exact identities, and Monte Carlo within four standard errors."""

import numpy as np
import pytest

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.experiment import slope
from deepmd_lite.theory.kernels import (
    RBF,
    ArcCosine,
    KernelFunction,
    feature_kernel,
    interpolant_norm,
    rkhs_norm,
)
from deepmd_lite.theory.random_features import (
    RandomFeatureRegressor,
    RandomFeatures,
    approximation_curve,
    coefficient_growth,
    combination,
    projected,
    representation_norm,
    sampled,
)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("outputs", [None, 2])
def test_regressor_is_kernel_ridge(rng, outputs):
    x, new, ridge = rng.uniform(-1, 1, (40, 3)), rng.uniform(-1, 1, (10, 3)), 1e-2
    y = rng.standard_normal(40 if outputs is None else (40, outputs))
    model = RandomFeatureRegressor(m=60, ridge=ridge, bias=True, random_state=rng).fit(x, y)
    k = feature_kernel(model.features_, x)
    inverse = np.linalg.inv(k + 40 * ridge * np.eye(40))
    assert np.allclose(
        model.predict(new), feature_kernel(model.features_, new, x) @ inverse @ y, rtol=0, atol=1e-10
    )
    assert model.effective_dimension_ == pytest.approx(np.trace(k @ inverse), rel=1e-10)


def test_left_out_residuals_are_those_of_fits_without_the_sample(rng):
    x, y = rng.uniform(-1, 1, (15, 2)), rng.standard_normal(15)
    model = RandomFeatureRegressor(m=30, ridge=1e-2, random_state=3).fit(x, y)
    for i in (0, 8):
        rest = np.delete(np.arange(15), i)
        # λ (n-1) of the smaller fit must be the λ n of the larger
        other = RandomFeatureRegressor(m=30, ridge=1e-2 * 15 / 14, random_state=3).fit(x[rest], y[rest])
        assert model.loo_residuals_[i] == pytest.approx(y[i] - other.predict(x[i : i + 1])[0], rel=1e-9)


def test_interpolant_has_the_smallest_norm(rng):
    x, y = rng.uniform(-1, 1, (10, 4)), rng.standard_normal(10)
    model = RandomFeatureRegressor(m=50, random_state=rng).fit(x, y)
    assert model.predict(x) == pytest.approx(y, abs=1e-9)
    assert model.norm_ == pytest.approx(interpolant_norm(feature_kernel(model.features_, x), y), rel=1e-8)


@pytest.mark.parametrize(
    "activation, distribution, bias, kernel",
    [
        ("relu", "sphere", False, lambda x: ArcCosine(1)(x)),
        ("relu", "gaussian", False, lambda x: ArcCosine(1)(x)),
        ("sign", "gaussian", False, lambda x: ArcCosine(0)(x)),
        ("cos", "gaussian", True, lambda x: RBF(2.0)(x) / 2),
    ],
)
def test_features_average_to_the_kernel(rng, activation, distribution, bias, kernel):
    m, d = 40_000, 4
    x = rng.uniform(-1, 1, (6, d))
    features = RandomFeatures(d, m, activation=activation, distribution=distribution, bias=bias, rng=rng)
    products = features(x)[:, None] * features(x)
    error = np.std(products, axis=2) / np.sqrt(m)
    assert (abs(feature_kernel(features, x) - kernel(x)) < 4.5 * error).all()  # 21 pairs


def test_arc_cosine_at_special_angles():
    x = np.array([[2.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [0.0, 0.0]])
    # θ = 0, π/2, π, and a point at the origin
    assert ArcCosine(1)(x)[0] == pytest.approx([4 / 4, 6 / (4 * np.pi), 0, 0], abs=1e-12)
    assert ArcCosine(0)(x)[0] == pytest.approx([1 / 2, 1 / 4, 0, 0], abs=1e-7)  # arccos near 1: √eps


def test_kernel_function_and_its_density(rng):
    d, m = 3, 200_000
    points, alpha = rng.standard_normal((4, d)), rng.standard_normal(4)
    f = KernelFunction(alpha, points, ArcCosine(1))
    features = RandomFeatures(d, m, distribution="sphere", rng=rng)
    a, x = f.density(features), rng.standard_normal((5, d))
    error = np.std(features(x) * a, axis=1) / np.sqrt(m)
    assert (abs(combination(features, a)(x) - f(x)) < 4 * error).all()
    assert f.norm == rkhs_norm(alpha, ArcCosine(1)(points))
    assert abs(representation_norm(a) ** 2 - f.norm**2) < 4 * np.std(a**2) / np.sqrt(m)


def test_interpolants_see_the_norm_from_below(rng):
    f = KernelFunction(rng.standard_normal(3), rng.standard_normal((3, 2)), RBF(1.0))
    x = np.vstack([rng.uniform(-2, 2, (6, 2)), f.points])
    norms = [interpolant_norm(RBF(1.0)(x[:n]), f(x[:n])) for n in range(1, 10)]
    assert (np.diff(norms) > -1e-9).all()
    assert norms[-1] == pytest.approx(
        f.norm, rel=1e-6
    )  # the centers are among the samples: conditioning 1e-16 · 1e8


def test_best_coefficients_are_no_worse_than_sampled(rng):
    f = KernelFunction(rng.standard_normal(3), rng.standard_normal((3, 2)), ArcCosine(1))
    x, sizes = rng.standard_normal((200, 2)), [8, 32, 128]
    seeds = np.random.SeedSequence(1).spawn(1)[0]
    errors = []
    for fit in (sampled, lambda f, features: projected(f, features, x)):
        draws = np.random.default_rng(seeds)

        def network(m, fit=fit, draws=draws):
            return fit(f, RandomFeatures(2, m, rng=draws))

        error = approximation_curve(f, x, network, sizes, 100)
        assert error.shape == (3, 100, 200)
        errors.append(np.sqrt(np.mean(error**2, axis=2)))
    assert (errors[1] <= errors[0]).all()
    # 100 draws: each point of the curve within 7 %, the exponent over 2 · ln 4 within 0.04
    assert slope(sizes, np.sqrt(np.mean(errors[0] ** 2, axis=1))) == pytest.approx(-0.5, abs=0.15)


def test_coefficients_grow_for_the_step_alone(rng):
    x = np.linspace(-1, 1, 64)[:, None]
    y = np.column_stack([np.sin(np.pi * x[:, 0]), np.sign(x[:, 0])])
    error, largest, norm = coefficient_growth(x, y, [64, 512], ridge=0.01, repeats=3, rng=rng)
    assert (error[1] < error[0]).all()
    assert largest[1, 0] < 2 * largest[0, 0]
    assert norm[1, 1] > 2 * norm[0, 1]


def test_refusals(rng):
    with pytest.raises(ConfigError, match="expected d >= 1"):
        RandomFeatures(0, 3, rng=rng)
    with pytest.raises(ConfigError, match="found 'sine'"):
        RandomFeatures(1, 3, activation="sine", rng=rng)
    with pytest.raises(ConfigError, match="order 0"):
        ArcCosine(2)
    with pytest.raises(ConfigError, match="length > 0"):
        RBF(0.0)
    with pytest.raises(DataError, match="finite"):
        RandomFeatureRegressor(m=3).fit(np.ones((2, 1)), np.array([1.0, np.nan]))
    with pytest.raises(DataError, match=r"\(2, 1\)"):
        RandomFeatureRegressor(m=3).fit(np.ones((2, 1)), np.ones(3))
