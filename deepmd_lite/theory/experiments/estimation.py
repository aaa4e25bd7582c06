"""Supervised learning, the error that a finite sample makes, and what bounds it."""

import math
from functools import partial

import numpy as np

from deepmd_lite.errors import ConfigError
from deepmd_lite.theory.classifier import RandomFeatureClassifier, mesh_nodes, smooth_images
from deepmd_lite.theory.decomposition import error_decomposition, least_squares, linear_fit
from deepmd_lite.theory.double_descent import double_descent_curve
from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near
from deepmd_lite.theory.integration import grid_quadrature
from deepmd_lite.theory.interpolation import KuhnInterpolant
from deepmd_lite.theory.random_features import RandomFeatures
from deepmd_lite.theory.risk import SupervisedProblem, generalization_gap, learn


def cube(d, n, rng):
    """n points of [-1, 1]^d."""
    return rng.uniform(-1, 1, (n, d))


def wave(x):
    """A smooth function of x (n, d) in the cube that depends on all coordinates alike."""
    return np.sin(x.sum(axis=1) / np.sqrt(x.shape[1] / 3))  # the argument has unit variance


def mesh_fit(n_cells):
    """The ``fit`` of a piecewise linear function on the Kuhn mesh of [0, 1]²."""

    def number(nodes):
        return np.rint(nodes * n_cells).astype(int) @ [1, n_cells + 1]

    def fit(x, y):
        hats = [
            KuhnInterpolant(lambda nodes, hat=hat: 1.0 * (number(nodes) == hat), n_cells, 2)(x)
            for hat in range((n_cells + 1) ** 2)
        ]
        c = least_squares(np.transpose(hats), y)
        return KuhnInterpolant(lambda nodes: c[number(nodes)], n_cells, 2)

    return fit


def net_fit(m, steps, rng):
    """The ``fit`` of a two-layer network by Adam."""
    import torch

    from deepmd_lite.theory.networks import TwoLayerNet

    def fit(x, y):
        net = TwoLayerNet(x.shape[1], m, scaling="conventional", rng=rng)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        x, y = torch.tensor(x), torch.tensor(y)
        for _ in range(steps):
            optimizer.zero_grad()
            ((net(x) - y) ** 2).mean().backward()
            optimizer.step()
        return lambda points: net(torch.tensor(points)).detach().numpy()

    return fit


def pipeline(full, rng):
    """Four hypothesis spaces, one target in two dimensions."""
    seed = int(rng.integers(2**32))
    noise = 0.05
    problem = SupervisedProblem(
        lambda x: np.cos(np.pi * (x[:, 0] + 2 * x[:, 1])) + x[:, 0] * x[:, 1],
        lambda n, rng: rng.uniform(size=(n, 2)),
        noise,
    )
    degree = np.polynomial.legendre.legvander2d

    def table():
        rng = np.random.default_rng(seed)
        fits = {
            "random features": linear_fit(RandomFeatures(2, 100, bias=True, rng=rng), ridge=1e-6),
            "two-layer net": net_fit(100, 2000 if full else 500, rng),
            "polynomial": linear_fit(lambda x: degree(2 * x[:, 0] - 1, 2 * x[:, 1] - 1, [7, 7])),
            "Kuhn mesh": mesh_fit(8),
        }
        return {name: learn(problem, fit, 500, rng, n_test=40_000) for name, fit in fits.items()}

    found, again = table(), table()
    exact = {
        name: grid_quadrature(lambda x, f=f: (f.model(x) - problem.target(x)) ** 2, 2, 400)
        for name, f in found.items()
    }
    off = max(abs(f.population.value - exact[name]) / f.population.se for name, f in found.items())
    variance = np.var(problem.target(problem.draw(10_000, rng)))
    checks = [
        # largest of four normal variables: beyond 4 once in 4000 times
        at_most("Monte Carlo - quadrature of the population risk, in standard errors", off, 4),
        at_most("largest risk of a space / variance of the target", max(exact.values()) / variance, 0.05),
        near(
            "risks that change when the seed does not",
            sum(found[k][1:] != again[k][1:] for k in found),
            0,
            tol=0,
        ),
    ]

    def draw(ax):
        place = np.arange(len(found))
        ax.bar(place - 0.2, [f.empirical for f in found.values()], 0.4, label="empirical risk")
        ax.bar(place + 0.2, [exact[name] for name in found], 0.4, label="population risk", color="C1")
        error = [f.population.se for f in found.values()]
        ax.errorbar(
            place + 0.2, [f.population.value for f in found.values()], error, fmt="k_", label="Monte Carlo"
        )
        ax.axhline(noise**2, color="gray", ls=":", label="variance of the noise")
        ax.set(
            yscale="log",
            ylabel="mean squared error",
            title="Four hypothesis spaces, 500 noisy samples in d = 2",
        )
        ax.set_xticks(place, list(found))
        ax.legend()

    return Outcome(checks, draw)


def images(full, rng):
    """Ten classes of noisy pictures in d = 3072."""
    problem = smooth_images(10, 5.0, rng)
    train, test = problem.sample(4000 if full else 1500, rng), problem.sample(2000, rng)
    m_list = [10, 30, 100, 300, 1000] + [3000] * full
    accuracy = [
        RandomFeatureClassifier(m=m, ridge=0.1, random_state=rng).fit(*train).score(*test) for m in m_list
    ]
    nearest = np.mean((test[0] @ problem.templates.T).argmax(axis=1) == test[1])
    d = problem.templates.shape[1]
    try:
        refusal = str(mesh_nodes(d, 2))
    except ConfigError as error:
        refusal = str(error)
    checks = [
        at_least(f"accuracy of {m_list[-1]} random features in d = {d}", accuracy[-1], 0.9),
        near(
            "log10 of the nodes of the coarsest mesh",
            math.log10(KuhnInterpolant(None, 1, d).nodes),
            924.76,
            tol=0.01,
        ),
        at_least("that mesh is refused and called 2^3072", float("are 2^3072" in refusal), 1),
    ]

    def draw(ax):
        ax.semilogx(m_list, accuracy, "o-", label="random features, ridge regression")
        ax.axhline(nearest, color="gray", ls="--", label="nearest template (best possible)")
        ax.axhline(0.1, color="gray", ls=":", label="chance")
        ax.set(xlabel="features m", ylabel="accuracy on unseen pictures", ylim=(0, 1.02))
        ax.set_title(f"Random features learn pictures in d = {d}")
        ax.legend()

    return Outcome(checks, draw)


def decomposition(full, rng):
    """Approximation, estimation and optimization error of random features.

    Estimation goes as (noise² + approximation) m/n: it need not grow while approximation still falls fast, m < 20.
    """
    d, n, repeats = 5, 400, 20 if full else 5
    m_list, n_list, steps_list = [5, 10, 20, 40, 80, 160], [200, 400, 800, 1600], [10, 100, 1000, 10_000]
    problem = SupervisedProblem(wave, partial(cube, d), noise=0.3)
    sweeps = {
        "m": [(n, m, 1000) for m in m_list],
        "n": [(n, 80, np.inf) for n in n_list],
        "steps": [(n, 80, steps) for steps in steps_list],
    }
    errors = {name: [] for name in sweeps}
    for _ in range(repeats):
        features = RandomFeatures(d, max(m_list), bias=True, rng=rng)
        seed = rng.integers(2**32)  # one population and one sample for all of a sweep
        for name, settings in sweeps.items():
            found = [
                error_decomposition(problem, features, *s, np.random.default_rng(seed)) for s in settings
            ]
            errors[name].append(found)
    errors = {name: np.array(found) for name, found in errors.items()}  # (repeats, settings, 5)
    every = np.concatenate([found.reshape(-1, 5) for found in errors.values()])
    mean = {name: found.mean(axis=0) for name, found in errors.items()}
    checks = [
        at_most("sum of the parts / total - 1", np.max(np.abs(every[:, :4].sum(1) / every[:, 4] - 1)), 1e-10),
        at_most("approximation: largest ratio as m doubles", _ratios(mean["m"][:, 0]).max(), 1),
        at_least("estimation: smallest ratio as m doubles, m >= 20", _ratios(mean["m"][2:, 1]).min(), 1),
        at_most("estimation: largest ratio as n doubles", _ratios(mean["n"][:, 1]).max(), 1),
        at_most("optimization: largest ratio as steps grow tenfold", _ratios(mean["steps"][:, 2]).max(), 1),
    ]

    def draw(ax):
        names = ("approximation", "estimation", "optimization (1000 steps)")
        for k, name in enumerate(names):
            ax.loglog(m_list, mean["m"][:, k], "o-", label=name)
        ax.loglog(m_list, mean["m"][:, 4], "ks--", label="total")
        ax.set(xlabel="features m", ylabel="squared $L^2$ distance")
        ax.set_title(f"Approximation falls with m, estimation grows (n = {n})")
        ax.legend()

    return Outcome(checks, draw)


def _ratios(values):
    return values[1:] / values[:-1]


def gap(full, rng):
    """The generalisation gap of a fixed function and of one that was fitted to the samples."""
    d, repeats, fits = 10, 20_000 if full else 4000, 21 if full else 7
    n_list = [50, 100, 200, 400, 800] if full else [50, 100, 200, 400]
    problem = SupervisedProblem(wave, partial(cube, d), noise=0.1)
    features, c = (
        RandomFeatures(d, 40, bias=True, rng=rng),
        rng.standard_normal(40) / 40,
    )  # before any sample is seen

    def loss(x, y):
        return (features(x) @ c - y) ** 2

    test = loss(*problem.sample(400_000, rng))
    risk, variance = test.mean(), test.var()
    fixed_gap, fitted_gap = [], []
    for n in n_list:
        losses = [
            loss(*problem.sample(50 * n, rng)).reshape(50, n).mean(axis=1) for _ in range(repeats // 50)
        ]
        fixed_gap.append(np.mean((np.ravel(losses) - risk) ** 2))
        fitted = []
        for _ in range(fits):
            train = problem.sample(n, rng)
            model = linear_fit(RandomFeatures(d, n, bias=True, rng=rng))(*train)
            fitted.append(generalization_gap(model, train, problem.sample(2000, rng), 100, rng).value)
        fitted_gap.append(np.median(fitted) ** 2)
    flat = np.array(fixed_gap) * n_list / variance
    checks = [
        near(
            "fixed function: n E gap² / var, furthest from 1", flat[np.argmax(np.abs(flat - 1))], 1, rel=0.15
        ),
        at_least(
            "fitted with m = n: gap / gap of the fixed, smallest",
            np.sqrt(np.divide(fitted_gap, fixed_gap).min()),
            10,
        ),
    ]

    def draw(ax):
        ax.loglog(n_list, np.sqrt(fitted_gap), "o-", label="fitted to the samples, m = n")
        ax.loglog(n_list, np.sqrt(fixed_gap), "s", label="fixed function, root mean square")
        ax.loglog(n_list, np.sqrt(variance / np.array(n_list)), "k--", label=r"$\sqrt{\mathrm{var}/n}$")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="samples n", ylabel="population risk - empirical risk")
        ax.set_title("The law of large numbers does not hold for what was fitted")
        ax.legend()

    return Outcome(checks, draw)


def double_descent(full, rng):
    """Test error of random features against their number."""
    d, n, repeats = 10, 100, 41 if full else 15
    m_list = [10, 20, 30, 50, 70, 85, 95, 100, 105, 120, 150, 200, 400, 1000, 2000]
    problem = SupervisedProblem(wave, partial(cube, d))
    features = partial(RandomFeatures, d, bias=True)

    def curve(m_list, **regularised):
        found = [
            double_descent_curve(problem, features, n, m_list, rng, **regularised) for _ in range(repeats)
        ]
        return np.median([f.test for f in found], axis=0), np.median([f.smallest for f in found], axis=0)

    test, smallest = curve(m_list)
    ridge = curve(m_list, ridge=1e-3)[0]
    stopped = curve(m_list, steps=1000)[0]
    at, plateau = m_list.index(n), test[m_list.index(20 * n)]
    peak = m_list[int(np.argmax(test))]
    checks = [
        near("m of the largest test error", peak, n, rel=0.05),
        at_least("peak / error at m = 20 n", test.max() / plateau, 20),
        at_most("with ridge 1e-3: largest for m >= n / error at m = 20 n", ridge[at:].max() / plateau, 3),
        at_most("gradient descent stopped early, m = n, / error at m = 20 n", stopped[at] / plateau, 3),
        near("m of the smallest eigenvalue's dip", m_list[int(np.argmin(smallest))], n, rel=0.05),
    ]

    def draw(ax):
        ax.loglog(m_list, test, "o-", label="least squares of the smallest norm")
        ax.loglog(m_list, ridge, "s-", ms=4, label="ridge λ = 10⁻³")
        ax.loglog(m_list, stopped, "^-", ms=4, label="gradient descent, 1000 steps")
        ax.axvline(n, color="gray", ls=":", label="m = n")
        ax.set(xlabel="features m", ylabel="test error, median")
        ax.set_title(f"The error peaks where m = n = {n}, unless regularised")
        ax.legend()

    return Outcome(checks, draw)


EXPERIMENTS = [
    Experiment(
        "F1", "pipeline", "Hypothesis space, empirical risk, optimizer: supervised learning.", pipeline
    ),
    Experiment("F2", "images", "Learning works in d = 3072, where no mesh does.", images),
    Experiment(
        "E1", "error-decomposition", "Error = approximation + estimation + optimization.", decomposition
    ),
    Experiment(
        "E3", "generalization-gap", "The gap of what was fitted does not obey the law of large numbers.", gap
    ),
    Experiment("E10", "double-descent", "Random features are at their worst for m = n.", double_descent),
]
