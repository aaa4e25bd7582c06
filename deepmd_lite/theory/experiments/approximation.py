"""Approximation with the curse of dimensionality and without: meshes, integrals, waves, polynomials."""

import math

import numpy as np
import scipy.special

from deepmd_lite.theory.complexity import rademacher_lipschitz
from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near, slope
from deepmd_lite.theory.fourier import RandomFourier, product_fourier_grid
from deepmd_lite.theory.integration import hoeffding_bound, monte_carlo, product_quadrature
from deepmd_lite.theory.interpolation import KuhnInterpolant, PolynomialInterpolant

DIMS = (1, 2, 4, 8, 20)
SAMPLES = np.array([16, 64, 256])
CELLS = np.array([4, 8, 16, 32])


def rms(values, axis=None):
    return np.sqrt(np.mean(np.square(values), axis=axis))


# A1: f = |x|². On a mesh of side h its error is h² Σ_i t_i (1 - t_i), t uniform: the mean square is
# h⁴ (d/180 + d²/36).


def mesh_errors(d, points, rng):
    """RMS error of the Kuhn interpolant of |x|², for each of `CELLS` on an axis."""
    x = rng.random((points, d))
    return np.array([rms(KuhnInterpolant(square, n, d)(x) - square(x)) for n in CELLS])


def square(x):
    return np.einsum("ki,ki->k", x, x)


def piecewise_linear(full, rng):
    checks, errors = [], {}
    for d in (1, 2, 4, 8):
        errors[d] = mesh_errors(d, 500_000 if full else 200_000, rng)
        constant, wanted = errors[d] * CELLS**2, math.sqrt(d / 180 + d**2 / 36)
        worst = constant[np.argmax(abs(constant - wanted))]
        power = slope(CELLS.astype(float) ** d, errors[d])
        tenfold = math.log10(KuhnInterpolant(square, 1, d).cells_for(10))
        checks += [
            near(f"d = {d}: RMS error · N²", worst, wanted, rel=0.005),
            near(f"d = {d}: exponent of the error in m = N^d", power, -2 / d, tol=0.03),
            near(f"d = {d}: log10 of the cells for a tenth of the error", -1 / power, tenfold, rel=0.05),
        ]

    def draw(ax):
        for k, (d, error) in enumerate(errors.items()):
            m = CELLS.astype(float) ** d
            ax.loglog(m, error, "o", color=f"C{k}", label=f"d = {d}")
            ax.loglog(m, math.sqrt(d / 180 + d**2 / 36) * m ** (-2 / d), color=f"C{k}", lw=1)
        ax.set(
            xlabel="cells m = N^d",
            ylabel="RMS error",
            title="Piecewise linear mesh: the error falls as m^(-2/d)",
        )
        ax.legend(title="lines: exact")

    return Outcome(checks, draw)


# A2: g = Π_i cos(x_i/√d) on [0, 1]^d, whose integral and variance are products too.


def midpoint_and_simpson(d):
    """Number of nodes on an axis and relative error, for either rule."""
    exact = (math.sqrt(d) * math.sin(1 / math.sqrt(d))) ** d
    factors = [lambda x: np.cos(x / math.sqrt(d))] * d
    found = {}
    # Simpson's m counts nodes, its h intervals, one less: at small n they would differ
    for rule, n in (("midpoint", [4, 8, 16, 32]), ("simpson", [33, 65, 129])):
        found[rule] = np.array(n, float), [abs(product_quadrature(factors, k, rule) / exact - 1) for k in n]
    return found


def monte_carlo_errors(d, repeats, rng):
    """RMS error of the mean of m samples of g, for m in `SAMPLES`, relative to g's integral; g's deviation, too."""
    mean = (math.sqrt(d) * math.sin(1 / math.sqrt(d))) ** d
    second = (0.5 + math.sqrt(d) / 4 * math.sin(2 / math.sqrt(d))) ** d

    def g(x):
        return np.cos(x / math.sqrt(d)).prod(axis=1)

    def uniform(m, rng):
        return rng.random((m, d))

    errors = [[monte_carlo(g, uniform, m, rng).value - mean for _ in range(repeats)] for m in SAMPLES]
    return rms(errors, axis=1) / mean, math.sqrt(second - mean**2) / mean


def integration(full, rng):
    checks, grids, randoms, deviation = [], {}, {}, {}
    for d in DIMS:
        grids[d] = midpoint_and_simpson(d)
        randoms[d], deviation[d] = monte_carlo_errors(d, 20_000 if full else 4000, rng)
        ratio = np.mean(randoms[d] ** 2 * SAMPLES) / deviation[d] ** 2
        powers = {rule: slope(n**d, error) for rule, (n, error) in grids[d].items()}
        checks += [
            near(f"d = {d}: exponent of the midpoint rule", powers["midpoint"], -2 / d, rel=0.05),
            near(f"d = {d}: exponent of Simpson's rule", powers["simpson"], -4 / d, rel=0.05),
            near(f"d = {d}: Monte Carlo, mean square error · m/var", ratio, 1, rel=0.1),
            near(f"d = {d}: exponent of Monte Carlo", slope(SAMPLES, randoms[d]), -0.5, tol=0.04),
        ]
    average = np.mean([slope(SAMPLES, error) for error in randoms.values()])
    for rule, wanted in (("midpoint", 4), ("simpson", 8)):
        alpha = np.mean([d * slope(n**d, error) for d, n, error in ((d, *grids[d][rule]) for d in DIMS)])
        checks.append(near(f"d from which Monte Carlo beats {rule}", alpha / average, wanted, rel=0.05))

    def draw(ax):
        for k, d in enumerate(DIMS):
            n, error = grids[d]["midpoint"]
            ax.loglog(n**d, error, "s-", color=f"C{k}", label=f"midpoint, d = {d}")
            ax.loglog(SAMPLES, randoms[d], "o", color=f"C{k}", mfc="none")
            m = np.array([10, 1e14])
            ax.loglog(m, deviation[d] / np.sqrt(m), "--", color=f"C{k}", lw=1)
        ax.loglog([], [], "ko--", mfc="none", lw=1, label="Monte Carlo and sqrt(var/m)")
        ax.set(xlim=(2, 1e16), ylim=(1e-6, 1), xlabel="nodes or samples m", ylabel="relative RMS error")
        ax.set_title("Grids lose to random points beyond d = 4")
        ax.legend(fontsize="small")

    return Outcome(checks, draw)


# A3: f = exp(-|x|²/8), ω ~ N(0, I/4), for random waves; f = Π sin(x_i)/x_i, ω ~ U[-1, 1]^d, for the rate of a grid,
# which a Gaussian f̂ hides. On |x| = 2 a wave of the Gaussian has the same variance for every d.

WIDTH = 2.0
ACCURACY = 0.01


def gaussian(x):
    return np.exp(-square(x) / (2 * WIDTH**2))


def sinc(x):
    return np.sinc(x / np.pi).prod(axis=1)


def gaussian_density(omega):
    return WIDTH / math.sqrt(2 * math.pi) * np.exp(-((WIDTH * omega) ** 2) / 2)


def uniform_density(omega):
    return np.full(len(omega), 0.5)


def waves_on_axis(f, density, x, radius):
    """Smallest number of frequencies on an axis whose grid reaches `ACCURACY`."""
    return next(
        n for n in range(1, 100) if rms(product_fourier_grid(density, x, n, radius) - f(x)) < ACCURACY
    )


def random_wave_errors(x, repeats, rng):
    """Mean square error · m/variance of the mean of m random waves of the Gaussian at x, for m in `SAMPLES`."""
    variance = (1 + gaussian(2 * x)) / 2 - gaussian(x) ** 2

    def sampler(m, rng):
        return rng.standard_normal((m, x.shape[1])) / WIDTH

    def one(omega):
        return np.ones(len(omega))

    errors = [[RandomFourier(sampler, one, m, rng)(x) - gaussian(x) for _ in range(repeats)] for m in SAMPLES]
    return rms(errors, axis=(1, 2)) ** 2 * SAMPLES / variance.mean(), variance.mean()


def fourier(full, rng):
    checks, needed = [], {"grid, Π sin(x)/x": [], "grid, Gaussian": [], "random, Gaussian": []}
    n = np.array([4, 8, 16, 32])
    for d in DIMS:
        x = rng.standard_normal((2, d))
        x *= 2 / np.linalg.norm(x, axis=1, keepdims=True)
        ratio, variance = random_wave_errors(x, 20_000 if full else 4000, rng)
        grid = [rms(product_fourier_grid(uniform_density, x, k, 1.0) - sinc(x)) for k in n]
        needed["grid, Π sin(x)/x"].append(d * math.log10(waves_on_axis(sinc, uniform_density, x, 1.0)))
        needed["grid, Gaussian"].append(
            d * math.log10(waves_on_axis(gaussian, gaussian_density, x, 4 / WIDTH))
        )
        needed["random, Gaussian"].append(math.log10(ratio.mean() * variance / ACCURACY**2))
        checks += [
            near(f"d = {d}: random waves, mean square error · m/var", ratio.mean(), 1, rel=0.1),
            near(
                f"d = {d}: exponent of random waves", slope(SAMPLES, np.sqrt(ratio / SAMPLES)), -0.5, tol=0.04
            ),
            near(f"d = {d}: exponent of a grid", slope(n.astype(float) ** d, grid), -2 / d, rel=0.05),
        ]
    first, last = ({key: value[k] for key, value in needed.items()} for k in (0, -1))
    key = "random, Gaussian"
    checks += [
        at_least("d = 20: log10 of the grid's waves for an error of 0.01", last["grid, Gaussian"], 10),
        near("d = 20: log10 of the random waves for an error of 0.01", last[key], first[key], tol=0.1),
    ]

    def draw(ax):
        for marker, (key, value) in zip("sDo", needed.items()):
            ax.semilogy(DIMS, 10.0 ** np.array(value), marker + "-", label=key)
        ax.set(xlabel="dimension d", ylabel=f"waves for an RMS error of {ACCURACY:g}", xticks=DIMS)
        ax.set_title("Random frequencies: as many in 20 dimensions as in one")
        ax.legend()

    return Outcome(checks, draw)


# A4: three exponents beside 1/d.


def lipschitz_exponent(d, full, rng):
    """p of Rad_n ~ n^-p of the functions on [0, 1]^d of Lipschitz constant 1, bounded by 1."""
    n = np.array([32, 64, 128, 256, 512] if full else [32, 64, 128, 256])
    found = [[rademacher_lipschitz(rng.random((k, d)), 1.0, 1.0, rng, 40).value for k in n] for _ in range(4)]
    return -slope(n, np.mean(found, axis=0))


def curse(full, rng):
    dims = (1, 2, 3, 4, 6, 10)
    mesh = [-slope(CELLS.astype(float) ** d, mesh_errors(d, 20_000, rng)) for d in dims]
    estimate = [lipschitz_exponent(d, full, rng) for d in dims]
    average = [-slope(SAMPLES, monte_carlo_errors(d, 4000, rng)[0]) for d in dims]
    checks = [at_most("Lipschitz ball: largest change of the exponent with d", max(np.diff(estimate)), 0)]
    for d, *found in zip(dims, mesh, estimate, average):
        checks += [
            near(f"d = {d}: exponent of the mesh", found[0], 2 / d, tol=0.03),
            near(f"d = {d}: exponent of the Lipschitz ball", found[1], min(1 / d, 0.5), tol=0.15),
            near(f"d = {d}: exponent of Monte Carlo", found[2], 0.5, tol=0.04),
        ]

    def draw(ax):
        d = np.linspace(1, 10, 100)
        ax.loglog(dims, mesh, "s", color="C0", label="piecewise linear mesh: error in cells")
        ax.loglog(d, 2 / d, color="C0", lw=1, label="2/d")
        ax.loglog(dims, estimate, "D", color="C1", label="Lipschitz ball: Rademacher complexity in samples")
        ax.loglog(d, np.minimum(1 / d, 0.5), color="C1", lw=1, label="1/d, at most 1/2")
        ax.loglog(dims, average, "o", color="C2", label="Monte Carlo: error in samples")
        ax.axhline(0.5, color="C2", lw=1, label="1/2")
        ax.set(xlabel="dimension d", ylabel="exponent p of m^-p", xticks=dims, xticklabels=dims)
        ax.set_title("Exponents that fall as 1/d, and one that does not")
        ax.legend(fontsize="small")

    return Outcome(checks, draw)


# A5: n fair coins. The t lie between the values that |mean - 1/2| can take.


def hoeffding(full, rng):
    n, repeats = 100, 1_000_000 if full else 100_000
    t = (np.arange(20) + 0.5) / n
    far = abs(rng.binomial(n, 0.5, repeats) / n - 0.5)
    tail = (far[:, None] >= t).mean(axis=0)
    tight, lecture = hoeffding_bound(n, t, 0, 1), hoeffding_bound(n, t, 0, 1, tight=False)
    exact = 2 * scipy.special.bdtrc(n // 2 + np.arange(20), n, 0.5)
    sizes = np.array([10, 100, 1000, 10_000])
    spread = [rms(rng.binomial(k, 0.5, repeats) / k - 0.5) for k in sizes]
    checks = [
        at_most("largest P(|mean - 1/2| ≥ t) / Hoeffding's bound, 20 t", max(tail / tight), 1),
        at_most("largest Hoeffding's bound / the lecture's", max(tight / lecture), 1),
        at_most(
            "largest deviation from the binomial tail, in standard errors",
            max(abs(tail - exact) / np.sqrt(exact * (1 - exact) / repeats)),
            5,
        ),
        near("exponent of the law of large numbers", slope(sizes, spread), -0.5, tol=0.01),
    ]

    def draw(ax):
        ax.semilogy(t, tail, "o", label=f"measured, {repeats:,} times {n} coins")
        ax.semilogy(t, exact, "k", lw=1, label="binomial, exact")
        ax.semilogy(t, tight, "C1", label="Hoeffding: 2 exp(-2nt²)")
        ax.semilogy(t, lecture, "C3--", label="lecture: 2 exp(-nt²)")
        ax.set(
            xlabel="t",
            ylabel="P(|mean - 1/2| ≥ t)",
            title="Hoeffding's bound holds, and its exponent is the coin's",
        )
        ax.legend()

    return Outcome(checks, draw)


# E2: f = 1/(1 + 25x²), poles at ±i/5. For even n, f - f_n in Chebyshev's points is
# 5 x T_{n+1}(x) / ((1 + 25x²) sinh((n+1) asinh(1/5))) up to sign, inside and outside [-1, 1]. A potential is in the
# same position: its error on frames like those it was fitted to says nothing about hotter or denser ones.

OUTSIDE = 1.2


def runge_function(x):
    return 1 / (1 + 25 * x**2)


def runge(full, rng):
    degrees = np.arange(2, 41, 2)
    x, outside = np.linspace(-1, 1, 200_001 if full else 20_001), np.array([OUTSIDE])
    worst = {key: [] for key in ("equispaced", "chebyshev", "outside")}
    for n in degrees:
        for nodes in ("equispaced", "chebyshev"):
            p = PolynomialInterpolant(runge_function, n, nodes)
            worst[nodes].append(np.max(abs(p(x) - runge_function(x))))
        worst["outside"].append(abs(p(outside) - runge_function(outside))[0])
    worst = {key: np.array(value) for key, value in worst.items()}
    grown = np.cosh((degrees + 1) * np.arccosh(OUTSIDE)) / np.sinh((degrees + 1) * np.arcsinh(0.2))
    exact = 5 * OUTSIDE * runge_function(OUTSIDE) * grown
    known = {10: (1.9156, 0.10915), 20: (59.82, 0.015334), 30: (2388, 0.0020616)}
    checks = []
    for n, (equispaced, chebyshev) in known.items():
        (k,) = np.flatnonzero(degrees == n)
        checks += [
            near(f"n = {n}: largest error, equispaced points", worst["equispaced"][k], equispaced, rel=0.01),
            near(f"n = {n}: largest error, Chebyshev points", worst["chebyshev"][k], chebyshev, rel=0.01),
            near(
                f"n = {n}: error at x = {OUTSIDE}, Chebyshev points", worst["outside"][k], exact[k], rel=0.01
            ),
        ]
    rate = np.exp(np.polyfit(degrees[9:], np.log(worst["chebyshev"][9:]), 1)[0])
    checks.append(near("error per degree, Chebyshev points", rate, 1 / (0.2 + math.sqrt(1.04)), rel=0.01))

    def draw(ax):
        ax.semilogy(degrees, worst["equispaced"], "s-", label="equispaced points, on [-1, 1]")
        ax.semilogy(degrees, worst["outside"], "D", color="C3", label=f"Chebyshev points, at x = {OUTSIDE}")
        ax.semilogy(degrees, exact, color="C3", lw=1, label="the same, exact")
        ax.semilogy(degrees, worst["chebyshev"], "o-", color="C2", label="Chebyshev points, on [-1, 1]")
        ax.set(
            xlabel="degree n",
            ylabel="largest error",
            title="1/(1 + 25x²): what fits well inside says nothing outside",
        )
        ax.legend()

    return Outcome(checks, draw)


EXPERIMENTS = [
    Experiment(
        "A1",
        "piecewise-linear",
        "A piecewise linear mesh needs m cells for an error m^(-2/d).",
        piecewise_linear,
    ),
    Experiment(
        "A2",
        "integration",
        "A quadrature grid of m nodes errs by m^(-α/d), the mean of m random samples by sqrt(var/m).",
        integration,
    ),
    Experiment(
        "A3", "fourier", "m waves: on a grid an error m^(-α/d), at random m^(-1/2) for every d.", fourier
    ),
    Experiment(
        "A4",
        "curse",
        "Approximation on a mesh and estimation in a Lipschitz ball have exponents ~ 1/d.",
        curse,
    ),
    Experiment("A5", "hoeffding", "P(|mean of n - expectation| ≥ t) ≤ 2 exp(-2nt²/(b-a)²).", hoeffding),
    Experiment(
        "E2", "runge", "Through equispaced points polynomials diverge; outside the data all do.", runge
    ),
]
