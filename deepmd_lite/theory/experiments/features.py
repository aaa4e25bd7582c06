"""Random features: their kernel, its norm, and what they approximate well."""

import numpy as np

from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near, slope
from deepmd_lite.theory.kernels import RBF, ArcCosine, KernelFunction, feature_kernel, interpolant_norm
from deepmd_lite.theory.random_features import (
    RandomFeatureRegressor,
    RandomFeatures,
    approximation_curve,
    coefficient_growth,
    projected,
    representation_norm,
    sampled,
)

DIMS = (2, 10, 50, 100)


def on_sphere(n, d, rng):
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rms(values, axis=None):
    return np.sqrt(np.mean(np.square(values), axis=axis))


def wave(x):
    return np.sin(3 * x.sum(axis=1) / np.sqrt(x.shape[1]))


# B1: ridge regression over m coefficients is kernel ridge regression over n samples.


def random_feature_model(full, rng):
    n, ridge, checks = 100, 1e-3, []
    for d in (1, 10):
        x, new = rng.uniform(-1, 1, (n, d)), rng.uniform(-1, 1, (200, d))
        y = wave(x) + 0.1 * rng.standard_normal(n)
        model = RandomFeatureRegressor(m=2000 if full else 500, ridge=ridge, bias=True, random_state=rng).fit(
            x, y
        )
        k = feature_kernel(model.features_, x)
        alpha = np.linalg.solve(k + n * ridge * np.eye(n), y)
        difference = model.predict(new) - feature_kernel(model.features_, new, x) @ alpha
        checks += [
            at_most(f"d = {d}: ridge solution - kernel form", abs(difference).max(), 1e-8),
            near(f"d = {d}: mean a² / αᵀKα", model.norm_**2 / (alpha @ k @ alpha), 1, tol=1e-8),
        ]
    x = np.linspace(-1, 1, 40)[:, None]
    y, new = wave(x) + 0.1 * rng.standard_normal(40), np.linspace(-1, 1, 400)[:, None]
    fits = {
        m: RandomFeatureRegressor(m=m, ridge=1e-5, bias=True, random_state=rng).fit(x, y).predict(new)
        for m in (5, 20, 5000)
    }

    def draw(ax):
        ax.plot(x[:, 0], y, "k.", label="samples")
        for m, fit in fits.items():
            ax.plot(new[:, 0], fit, label=f"m = {m}")
        ax.set(xlabel="x", ylabel="f", title="Random features converge to the kernel's answer")
        ax.legend()

    return Outcome(checks, draw)


# B2: with points in the cube |x|²/d is a third, so that φφ' has a deviation below 0.6 for all features here:
# 4/√m is beyond six of them.


def kernel_limit(full, rng):
    d, sizes, repeats = 10, np.array([100, 1000, 10_000, 100_000]), 20 if full else 5
    x = rng.uniform(-1, 1, (20, d))
    cases = {
        "relu, N(0, I/d)": ("relu", "gaussian", False, ArcCosine(1)(x)),
        "relu, sphere": ("relu", "sphere", False, ArcCosine(1)(x)),
        "step, sphere": ("sign", "sphere", False, ArcCosine(0)(x)),
        "cos, N(0, I/d)": ("cos", "gaussian", True, RBF(np.sqrt(d))(x) / 2),
    }
    errors = {}
    for name, (activation, distribution, bias, exact) in cases.items():
        found = [
            [
                feature_kernel(
                    RandomFeatures(
                        d, m, activation=activation, distribution=distribution, bias=bias, rng=rng
                    ),
                    x,
                )
                for _ in range(repeats)
            ]
            for m in sizes
        ]
        errors[name] = abs(np.array(found) - exact)  # (sizes, repeats, 20, 20)
    checks = []
    for name, error in errors.items():
        worst = (error.max(axis=(1, 2, 3)) * np.sqrt(sizes)).max()
        checks += [
            at_most(f"{name}: largest error · √m", worst, 4),
            near(
                f"{name}: exponent of the RMS error", slope(sizes, rms(error, axis=(1, 2, 3))), -0.5, tol=0.1
            ),
        ]

    def draw(ax):
        for name, error in errors.items():
            ax.loglog(sizes, error.max(axis=(1, 2, 3)), "o-", label=name)
        ax.loglog(sizes, 4 / np.sqrt(sizes), "k--", label="4/√m")
        ax.set(
            xlabel="features m", ylabel="largest |k_m - k|", title="Random features average to their kernel"
        )
        ax.legend()

    return Outcome(checks, draw)


# B3


def rkhs(full, rng):
    d, m = 5, 1_000_000 if full else 100_000
    kernel = ArcCosine(1)
    f = KernelFunction(rng.standard_normal(10), on_sphere(10, d, rng), kernel)
    a = f.density(RandomFeatures(d, m, activation="relu", distribution="sphere", rng=rng))
    error = np.std(a**2) / np.sqrt(m)
    x = on_sphere(1000 if full else 300, d, rng)
    sizes = np.unique(np.geomspace(2, len(x), 12).astype(int))
    norms = np.array([interpolant_norm(kernel(x[:n]), f(x[:n])) for n in sizes])
    checks = [
        near("(E a² - αᵀKα) / standard error", (representation_norm(a) ** 2 - f.norm**2) / error, 0, tol=4),
        at_least("smallest increase of sqrt(yᵀK⁻¹y) with n, of ‖f‖", np.diff(norms).min() / f.norm, -1e-9),
        at_most("largest sqrt(yᵀK⁻¹y) / ‖f‖", norms.max() / f.norm, 1 + 1e-9),
    ]

    def draw(ax):
        ax.semilogx(sizes, norms, "o-", label="sqrt(yᵀK⁻¹y) of n samples")
        ax.axhline(f.norm, color="k", ls="--", label="‖f‖ = sqrt(αᵀKα)")
        ax.axhline(representation_norm(a), color="C1", lw=1, label=f"sqrt(E a²), {m:,} features")
        ax.set(xlabel="samples n", ylabel="norm", title="Samples see the RKHS norm from below")
        ax.legend()

    return Outcome(checks, draw)


# B4: sampled coefficients have E |f_m - f|² = (E a²φ² - f²)/m at every x; the best ones can only do better than
# the bound 2‖f‖/√m (1 + sqrt(ln 1/δ)), δ = 0.05. Their exponent is taken from m = d on: fewer features do not see
# every direction, and their error, though far below the bound, falls slowly.

SIZES, FEW = np.array([32, 64, 128, 256, 512, 1024]), np.array([8, 16, 32, 64])
DOUBLED = np.array([1, 2, 4, 8])


def direct_curves(d, full, rng):
    """RMS errors over the standard deviation, with sampled and with the best a; 95 % quantile over the bound."""

    def features(m):
        return RandomFeatures(d, m, activation="relu", distribution="sphere", rng=rng)

    f = KernelFunction(rng.standard_normal(8), on_sphere(8, d, rng), ArcCosine(1))
    x, cloud = on_sphere(16, d, rng), on_sphere(2000, d, rng)
    many = features(400_000 if full else 100_000)
    sd = np.sqrt(np.mean((f.density(many) * many(x)) ** 2) - np.mean(f(x) ** 2))
    error = approximation_curve(f, x, lambda m: sampled(f, features(m)), SIZES, 2000 if full else 400)
    few = approximation_curve(f, cloud[:500], lambda m: projected(f, features(m), cloud[:500]), FEW, 40)
    bound = 2 * f.norm / np.sqrt(FEW) * (1 + np.sqrt(np.log(1 / 0.05)))
    ratio = (np.quantile(rms(few, axis=2), 0.95, axis=1) / bound).max()
    draws = (2000 if full else 200) // d
    best = approximation_curve(f, cloud, lambda m: projected(f, features(m), cloud), d * DOUBLED, draws)
    return rms(error, axis=(1, 2)) / sd, rms(best, axis=(1, 2)) / sd, ratio


def random_feature_direct(full, rng):
    checks, curves = [], {}
    for d in DIMS:
        drawn, best, ratio = curves[d] = direct_curves(d, full, rng)
        checks += [
            near(f"d = {d}: sampled, exponent", slope(SIZES, drawn), -0.5, tol=0.05),
            near(f"d = {d}: sampled, error · √m / sqrt(variance)", rms(drawn * np.sqrt(SIZES)), 1, rel=0.1),
            at_most(f"d = {d}: best coefficients, exponent", slope(DOUBLED, best), -0.45),
            at_most(f"d = {d}: best coefficients, 95 % quantile / bound", ratio, 1),
        ]

    def draw(ax):
        for k, d in enumerate(DIMS):
            ax.loglog(SIZES, curves[d][0], "o", color=f"C{k}", label=f"d = {d}")
            ax.loglog(d * DOUBLED, curves[d][1], "x:", color=f"C{k}")
        ax.loglog(SIZES, SIZES**-0.5, "k-", lw=1, label="m^(-1/2)")
        ax.set(xlabel="features m", ylabel="RMS error / sqrt(variance)")
        ax.set_title("Random features: m^(-1/2) in every dimension")
        ax.legend(title="circles: sampled a, crosses: best a", ncols=2)

    return Outcome(checks, draw)


# B5: with f'' the density of coefficients in 1-D, sin πx has a bounded one and the step has none.


def random_feature_inverse(full, rng):
    sizes = np.array([64, 256, 1024, 4096])
    x = np.linspace(-1, 1, 256)[:, None]
    y = np.column_stack([np.sin(np.pi * x[:, 0]), np.abs(x[:, 0]), np.sign(x[:, 0])])
    names = ("sin πx", "|x|", "sign x")
    error, largest, norm = coefficient_growth(x, y, sizes, ridge=0.01, repeats=25 if full else 5, rng=rng)
    growth = 2 ** -slope(error[:, 2], norm[:, 2] ** 2)
    checks = [
        at_most("sin πx: max |a| at m = 4096 / at m = 64", largest[-1, 0] / largest[0, 0], 2),
        at_least("sign x: growth of mean a² per halving of the error", growth, 4),
        at_least("sign x: max |a| at m = 4096 / at m = 64", largest[-1, 2] / largest[0, 2], 4),
    ]

    def draw(ax):
        for k, name in enumerate(names):
            ax.loglog(error[:, k], norm[:, k], "o-", label=name)
        ax.invert_xaxis()
        ax.set(xlabel="RMS error, m = 64 ... 4096", ylabel="sqrt(mean a²)")
        ax.set_title("Outside the RKHS accuracy costs large coefficients")
        ax.legend()

    return Outcome(checks, draw)


EXPERIMENTS = [
    Experiment(
        "B1",
        "random-feature-model",
        "Fixed random neurons with trained coefficients, scaled by 1/m, are kernel regression.",
        random_feature_model,
    ),
    Experiment(
        "B2",
        "kernel-limit",
        "As m grows random features average to the kernel k(x, x') = E φ(x; w) φ(x'; w).",
        kernel_limit,
    ),
    Experiment(
        "B3",
        "rkhs-norm",
        "The norm of the kernel's space is that of the coefficients: ‖f‖² = inf E a(w)².",
        rkhs,
    ),
    Experiment(
        "B4",
        "random-feature-direct",
        "Direct theorem: m random features come within m^(-1/2) of any f in the RKHS, in every dimension.",
        random_feature_direct,
    ),
    Experiment(
        "B5",
        "random-feature-inverse",
        "Inverse theorem: what random features approach with bounded coefficients is in the RKHS.",
        random_feature_inverse,
    ),
]
