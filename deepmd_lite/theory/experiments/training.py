"""Gradient descent, and what gradients cannot see."""

import math

import numpy as np
from scipy.stats import qmc

from deepmd_lite.theory import descent, mean_field
from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near


def gradient_descent(full, rng):
    n, d, lr, steps, runs = 200, 5, 0.1, 300, 20_000 if full else 3000
    eigenvalues = np.array([1, 0.7, 0.5, 0.3, 0.1])
    left, right = np.linalg.qr(rng.standard_normal((n, d)))[0], np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = left * np.sqrt(n * eigenvalues) @ right.T
    problem = descent.LeastSquares(x, x @ rng.standard_normal(d) + 0.5 * rng.standard_normal(n))
    start = problem.minimizer + 2 * right.sum(axis=1)  # every mode takes part
    least, k = problem.least, np.arange(steps + 1)
    gd = descent.gradient_descent(problem, start, lr, steps).values
    path = problem.descent_path(start, lr, steps)
    size = np.linalg.norm(gd - problem.minimizer, axis=1)
    fast = descent.gradient_descent(problem, start, 1.0, 60).values - problem.minimizer
    rate = np.linalg.norm(fast[-1]) / np.linalg.norm(fast[-2])
    sgd = descent.stochastic_gradient_descent(problem, np.tile(start, (runs, 1)), lr, steps, rng).values
    off = sgd[-1].mean(axis=0) - gd[-1]
    z = np.sqrt(runs * off @ np.linalg.solve(np.cov(sgd[-1].T), off) / d)
    risks, expected = problem.risk(sgd), problem.expected_risk(start, lr, steps)
    tail = risks[steps // 2 :].mean(axis=0)
    checks = [
        at_most(
            "GD: |θ - spectral formula| / |θ - θ*|, at worst",
            (np.linalg.norm(gd - path, axis=1) / size).max(),
            1e-8,
        ),
        near("GD, η = 1: factor per step after 60 steps", rate, 1 - eigenvalues[-1], tol=1e-8),
        at_most("mean of SGD - GD, root mean square in standard errors", z, 3),
        near(
            "SGD: mean risk of the second half",
            tail.mean(),
            expected[steps // 2 :].mean(),
            tol=4 * tail.std() / np.sqrt(runs),
        ),
    ]

    def draw(ax):
        ax.semilogy(k, risks[:, 0] - least, color="0.8", label="SGD, one run")
        ax.semilogy(k[::15], risks.mean(axis=1)[::15] - least, "C0o", ms=4, label=f"SGD, mean of {runs}")
        ax.semilogy(k, expected - least, "C0", lw=1, label="SGD, predicted")
        ax.semilogy(k[::15], problem.risk(gd)[::15] - least, "C1s", ms=4, label="GD")
        ax.semilogy(k, problem.risk(path) - least, "C1", lw=1, label="GD, predicted")
        ax.set(xlabel="step", ylabel="R - min R", title="GD goes to the minimum, SGD to a floor of order η")
        ax.legend()

    return Outcome(checks, draw)


def box(d, k):
    return descent.Cosines(np.indices((k,) * d).reshape(d, -1).T + 1)


def gradient_variance(full, rng):
    from torch import float64, nn

    from deepmd_lite.theory.networks import TwoLayerNet

    nets = 20 if full else 5
    found = {}  # (k, d) -> mean variance and bound
    for k, deepest in ((2, 6), (3, 5), (4, 4)):
        for d in range(1, deepest + 1):
            functions = box(d, k)
            x = functions.grid()
            found[k, d] = [
                descent.gradient_variance(TwoLayerNet(d, 32, rng=rng), functions, x) for _ in range(nets)
            ]
    functions = box(2, 4)
    values = functions(functions.grid())
    one = nn.utils.skip_init(nn.Linear, 1, 1, bias=False, dtype=float64)  # h = θ f_1
    tight = descent.gradient_variance(one, lambda _: values, values[:, :1])
    mean = {key: np.mean([v.variance for v in of], axis=0) for key, of in found.items()}
    bound = {key: np.mean([v.bound for v in of]) for key, of in found.items()}
    checks = [
        at_most(
            "variance / (4Q/M), at worst", max(v.variance / v.bound for of in found.values() for v in of), 1
        ),
        near("h = θ f_1: variance M / 4Q", tight.variance / tight.bound, 1 - 1 / functions.size, tol=1e-12),
    ]
    for k in (2, 3, 4):
        d = [d for kk, d in found if kk == k]
        rate = np.polyfit(d, np.log([mean[k, i] for i in d]), 1)[0]
        checks.append(at_most(f"d log variance / dd, b in {{1..{k}}}^d", rate, 0, -math.log(k)))

    def draw(ax):
        for k, color in ((2, "C0"), (3, "C1"), (4, "C2")):
            d = [d for kk, d in found if kk == k]
            ax.semilogy(d, [bound[k, i] for i in d], "--", color=color)
            ax.semilogy(d, [mean[k, i] for i in d], "o-", color=color, label=f"b in {{1..{k}}}$^d$")
        ax.semilogy([], [], "k--", label="4Q/M")
        ax.set(xlabel="d", ylabel="variance of the gradient over targets cos(2π b·x)")
        ax.set_title("The gradient forgets its target exponentially in d")
        ax.legend()

    return Outcome(checks, draw)


def cosine_class(full, rng):
    functions = descent.CosineClass(4, 8)
    values = functions(functions.grid())
    off = np.abs(values.T @ values / len(values) - np.eye(functions.size)).max()
    ratio = min(math.comb((1 + s) * d, d) / (1 + s) ** d for s in (1, 2, 3) for d in range(1, 21))
    draws, n, m, dt, steps = (10, 2048, 48, 0.05, 2400) if full else (6, 1024, 32, 0.075, 1200)
    curves = []
    for d in range(1, 6):
        targets = descent.CosineClass(d, 2 * d)
        chosen = rng.choice(targets.size, min(draws, targets.size), replace=False)
        x = qmc.Sobol(d, rng=rng).random(n)
        inputs = np.column_stack([2 * x - 1, np.ones(n)])
        flow = mean_field.ParticleFlow(inputs, targets(x)[:, chosen].T, m, dt=dt, rng=rng)
        # from f = 0: each neuron beside its negative
        flow.a[:, m // 2 :], flow.w[:, m // 2 :] = -flow.a[:, : m // 2], flow.w[:, : m // 2]
        curves.append(flow.run(steps, every=10))
    halved = [np.median([first_half(c.t, risk) for risk in c.values.T]) / dt for c in curves]
    left = [np.mean(c.values[-1] / c.values[0]) for c in curves]
    checks = [
        at_most("Gram matrix of 70 cosines in 4-d: distance to 1", off, 1e-12),
        at_least("C((1+s)d, d) / (1+s)^d, at least, s <= 3, d <= 20", ratio, 1),
        at_most(
            "largest spectral norm / 4π² m²",
            functions.spectral_norms.max() / (4 * np.pi**2 * 8**2),
            1 + 1e-12,
        ),
    ]
    for d in range(2, 6):
        checks.append(
            at_least(f"steps to half the risk (at most {steps}), d = {d}", halved[d - 1], halved[d - 2])
        )
    checks.append(at_most("part of the risk left after training, d = 1", left[0], left[1]))
    checks += [
        at_least(f"part of the risk left after training, d = {d}", left[d - 1], 0.8) for d in (3, 4, 5)
    ]

    def draw(ax):
        for number, c in enumerate(curves):
            ax.plot(c.t / dt, c.values / c.values[0], f"C{number}", lw=1)
            ax.plot(
                [],
                [],
                f"C{number}",
                label=f"d = {number + 1}: {math.comb(2 * number + 2, number + 1)} functions",
            )
        ax.axhline(0.5, color="k", ls=":", lw=1)
        ax.set(xlabel="steps of gradient descent", ylabel="R / R(0)", ylim=(0, 1.1))
        ax.set_title("cos(2π b·x), |b|$_1$ <= 2d: not learned beyond d = 2")
        ax.legend()

    return Outcome(checks, draw)


def first_half(t, risk):
    """The first time at which the risk is half of that of the start; the last time if there is none."""
    below = np.flatnonzero(risk <= risk[0] / 2)
    return t[below[0]] if len(below) else t[-1]


EXPERIMENTS = [
    Experiment(
        "T1",
        "gradient-descent",
        "GD contracts mode by mode; SGD is GD in the mean, plus noise of order η.",
        gradient_descent,
    ),
    Experiment(
        "T2",
        "gradient-variance",
        "Over M orthonormal targets the gradient varies by 4Q/M at most.",
        gradient_variance,
    ),
    Experiment(
        "T3",
        "cosine-class",
        "(1+s)^d orthonormal cosines of moderate norm that gradients do not find.",
        cosine_class,
    ),
]
