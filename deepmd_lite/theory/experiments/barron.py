"""Barron space: what it holds, what it does not, and how fast networks come near."""

from itertools import pairwise

import numpy as np

from deepmd_lite.theory.barron import CoordinateDistance, EuclideanNorm, mean_abs_coordinate
from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near, slope
from deepmd_lite.theory.norms import path_norm
from deepmd_lite.theory.radial import RoundedDistance, min_path_norm_fit, radon_norm_radial, shells
from deepmd_lite.theory.random_features import approximation_curve
from deepmd_lite.theory.spectral import GaussianBump, PlaneWave, fourier_barron_network, spectral_barron_norm


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


# B7


def euclidean_norm(full, rng):
    checks, measured = [], {}
    dims, m, repeats = (2, 3, 10, 30, 100), 64, 4000 if full else 1000
    for d in dims:
        f = EuclideanNorm(d)
        net = f.sample_barron_network(20_000, rng)
        x = rng.standard_normal((8, d))
        error = approximation_curve(f, x, lambda m, f=f: f.sample_barron_network(m, rng), [m], repeats)[0]
        measured[d] = m * np.mean(error**2 / np.sum(x**2, axis=1))
        checks += [
            near(f"d = {d}: E |a| |w|_1", path_norm(net), 2 * d, rel=0.02),
            near(
                f"d = {d}: m E(f - f_m)² / |x|²",
                measured[d],
                f.variance(x[:1])[0] / np.sum(x[0] ** 2),
                rel=0.2,
            ),
        ]
    checks += [
        near("d = 3: E |a| |w|_2", EuclideanNorm(3).mass_l2, 4, tol=1e-12),
        near("d = 100: E |a| |w|_2", EuclideanNorm(100).mass_l2, 25.0037, tol=1e-4),
    ]

    def draw(ax):
        every = np.arange(2, 121)
        exact = [2 / (d * mean_abs_coordinate(d) ** 2) - 1 for d in every]
        ax.semilogx(every, exact, "k-", lw=1, label="2 / (d E|w_1|²) - 1")
        ax.semilogx(list(measured), list(measured.values()), "o", label=f"m = {m}, {repeats} networks")
        ax.axhline(np.pi - 1, color="k", ls=":", label="π - 1")
        ax.set(
            xlabel="d",
            ylabel="m E(f - f_m)² / |x|²",
            title="|x| costs as many neurons in d = 100 as in d = 10",
        )
        ax.legend()

    return Outcome(checks, draw)


# B8


def spectral_norm(full, rng):
    checks, curves, constants = [], {}, {}
    dims, sizes = (2, 5, 10, 20), np.array([32, 128, 512, 2048])
    for d in dims:
        f = GaussianBump(d)
        estimate = spectral_barron_norm(f.frequencies(1_000_000 // d, rng), d / 1_000_000)
        net = fourier_barron_network(f, 50_000, rng)
        x = rng.uniform(-1, 1, (16, d))
        errors = approximation_curve(
            f, x, lambda m, f=f: fourier_barron_network(f, m, rng), sizes, 1000 if full else 200
        )
        curves[d] = np.sqrt(np.mean(errors**2, axis=(1, 2)))
        constants[d] = rms(curves[d] * np.sqrt(sizes)) / f.spectral_norm
        mass = np.mean(np.abs(net.a) * np.abs(net.w).sum(axis=1))
        checks += [
            near(f"d = {d}: C_f of sampled frequencies", estimate, f.spectral_norm, rel=0.03),
            at_most(f"d = {d}: E |a| |w|_1 / 2 C_f", mass / (2 * f.spectral_norm), 1),
            near(f"d = {d}: exponent of the error", slope(sizes, curves[d]), -0.5, tol=0.05),
        ]
    steps = [constants[b] / constants[a] for a, b in pairwise(dims)]
    wave = PlaneWave([0.25, -0.5])
    net = fourier_barron_network(wave, 100_000, rng)
    x = rng.uniform(-1, 1, (100, 2))
    bound = 5 * 2 * wave.spectral_norm / np.sqrt(len(net.a))
    checks += [
        at_most("error · √m / C_f: largest increase with d", max(steps), 1),
        near("cos(2πb·x): C_f", wave.spectral_norm, 4 * np.pi**2 * 0.75**2, rel=1e-12),
        at_most("cos(2πb·x): largest error of 100,000 neurons", abs(net(x) - wave(x)).max(), bound),
    ]

    def draw(ax):
        for k, d in enumerate(dims):
            cf = GaussianBump(d).spectral_norm
            ax.loglog(sizes, curves[d] / cf, "o", color=f"C{k}", label=f"d = {d}, C_f = {cf:.3g}")
            ax.loglog(sizes, constants[d] / np.sqrt(sizes), "-", color=f"C{k}", lw=1)
        ax.loglog(sizes, 2 / np.sqrt(sizes), "k--", label="2 m^(-1/2)")
        ax.set(xlabel="neurons m", ylabel="RMS error / C_f", ylim=(1e-4, None))
        ax.set_title("The spectral norm bounds the error in any dimension")
        ax.legend(loc="lower left", ncols=2)

    return Outcome(checks, draw)


# B9: along ε → 0 the cone keeps its norm, the sphere's grows as 4/ε + 4 |f'(0)|.


def structural_theorem(full, rng):
    widths = 0.2 / 2.0 ** np.arange(9 if full else 6)
    norms = {}
    for name, radius in (("distance to a point", 0), ("distance to a sphere", 1)):
        shapes = [RoundedDistance(radius, eps) for eps in widths]
        norms[name] = np.array([radon_norm_radial(f.d1, f.d2, f.grid()) for f in shapes])
    cone, sphere = norms.values()
    checks = [
        near("point: norm for every ε", cone[np.argmax(abs(cone - 4))], 4, tol=0.001),
        near("sphere: exponent of norm - 4 in ε", slope(widths, sphere - 4), -1, tol=0.02),
        near("sphere: norm at ε = 0.05", sphere[2], 84.3, rel=0.01),
        near("sphere: norm at ε = 0.00625", sphere[5], 644.0, rel=0.001),
    ]

    def draw(ax):
        for name, norm in norms.items():
            ax.loglog(widths, norm, "o", label=name)
        ax.loglog(widths, 4 / widths + 4, "k-", lw=1, label="4/ε + 4")
        ax.axhline(4, color="k", ls="--", lw=1, label="4")
        ax.invert_xaxis()
        ax.set(xlabel="ε, over which the kink is rounded", ylabel="smallest path norm")
        ax.set_title("A kink on a point is Barron, on a sphere it is not (d = 3)")
        ax.legend()

    return Outcome(checks, draw)


# B10: rounding over ε = 2 tol, and half of it taken off, is within tol: the norm of that is an upper bound. The
# cone is one shell of neurons with b = 0, of norm 4, on any ball.


def smallest_path_norm(full, rng):
    tolerances = 10.0 ** np.linspace(-1, -2.5, 7 if full else 4)
    r = np.linspace(0, 2, 801 if full else 401)[1:]
    phi = shells(r, np.linspace(-2, 2, 801 if full else 401)[:-1])
    needed = {}
    for name, radius in (("distance to a point", 0), ("distance to a sphere", 1)):
        fits = [min_path_norm_fit(phi, abs(r - radius), tol) for tol in tolerances]
        needed[name] = np.array([np.abs(c).sum() for c, _ in fits])
    cone, sphere = needed.values()
    shapes = [RoundedDistance(1, 2 * tol) for tol in tolerances]
    bound = np.array([radon_norm_radial(f.d1, f.d2, f.grid()) for f in shapes])
    decade = 10 ** -slope(tolerances, sphere)
    checks = [
        at_most("point: path norm / analytic norm 4", cone.max() / 4, 1.0 + 1e-6),
        at_least("sphere: growth of the path norm per decade of the tolerance", decade, 2),
        at_most("sphere: path norm / norm of the rounded function", (sphere / bound).max(), 1.0),
    ]

    def draw(ax):
        for name, norm in needed.items():
            ax.loglog(tolerances, norm, "o-", label=name)
        ax.loglog(tolerances, bound, "k--", lw=1, label="rounded by hand: 2/δ + 4")
        ax.invert_xaxis()
        ax.set(xlabel="largest error δ on |x| ≤ 2", ylabel="smallest path norm of any network")
        ax.set_title("Closer to the distance to a sphere, larger norms")
        ax.legend()

    return Outcome(checks, draw)


# B12


def barron_direct(full, rng):
    checks, curves = [], {}
    dims, sizes, repeats = (2, 10, 30, 100), np.array([32, 64, 128, 256, 512, 1024]), 2000 if full else 400
    for d in dims:
        for name, f in (("|x|", EuclideanNorm(d)), ("Σ|x_i - 1/2|", CoordinateDistance(d))):
            x = rng.uniform(-1, 1, (16, d))
            norms = []

            def network(m, f=f, norms=norms):
                net = f.sample_barron_network(m, rng)
                norms.append(path_norm(net))
                return net

            sd = np.sqrt(f.variance(x).mean())
            error = approximation_curve(f, x, network, sizes, repeats)
            curves[name, d] = np.sqrt(np.mean(error**2, axis=(1, 2))) / sd
            constant = rms(curves[name, d] * np.sqrt(sizes))
            checks += [
                near(f"{name}, d = {d}: exponent", slope(sizes, curves[name, d]), -0.5, tol=0.05),
                near(f"{name}, d = {d}: error · √m / sqrt(variance)", constant, 1, rel=0.1),
                at_most(f"{name}, d = {d}: largest path norm / mass", max(norms) / f.mass, 1.2),
            ]

    def draw(ax):
        for k, d in enumerate(dims):
            ax.loglog(sizes, curves["|x|", d], "o", color=f"C{k}", label=f"d = {d}")
            ax.loglog(sizes, curves["Σ|x_i - 1/2|", d], "x", color=f"C{k}")
        ax.loglog(sizes, sizes**-0.5, "k-", lw=1, label="m^(-1/2)")
        ax.set(xlabel="neurons m", ylabel="RMS error / sqrt(variance)")
        ax.set_title("Barron functions: m^(-1/2), with bounded path norm")
        ax.legend(title="circles: |x|, crosses: Σ|x_i - 1/2|")

    return Outcome(checks, draw)


EXPERIMENTS = [
    Experiment(
        "B7",
        "euclidean-norm",
        "|x| is a Barron function: one mean over neurons, of norm 2d.",
        euclidean_norm,
    ),
    Experiment(
        "B8",
        "spectral-norm",
        "A function with ∫ |f̂| |ω|_1² dω = C_f < ∞ is a Barron function, of norm at most 2 C_f.",
        spectral_norm,
    ),
    Experiment(
        "B9",
        "structural-theorem",
        "Barron functions are smooth except along affine subspaces: the distance to a sphere is none.",
        structural_theorem,
    ),
    Experiment(
        "B10",
        "smallest-path-norm",
        "Networks that come near a function outside Barron space have path norms without bound.",
        smallest_path_norm,
    ),
    Experiment(
        "B12",
        "barron-direct",
        "Direct theorem: m neurons, of bounded path norm, come within m^(-1/2) of any Barron function.",
        barron_direct,
    ),
]
