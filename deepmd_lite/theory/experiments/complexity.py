"""Rademacher complexity of the lecture's classes of functions, and the bounds that follow from it."""

import math

import numpy as np

from deepmd_lite.theory import barron_complexity, bounds, complexity
from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near, slope
from deepmd_lite.theory.experiments.estimation import cube
from deepmd_lite.theory.kernels import ArcCosine
from deepmd_lite.theory.random_features import RandomFeatures


def rademacher(full, rng):
    """Finite classes of random signs, up to all of them; the linear ball."""
    n = 12
    all_signs = 2.0 * (np.arange(2**n) >> np.arange(n)[:, None] & 1) - 1
    sizes = 2 ** np.arange(1, n + 1)
    values = all_signs[:, rng.permutation(2**n)]
    exact = [complexity.rademacher_erm(complexity.sup_finite, values[:, :size], None, None) for size in sizes]
    drawn = [
        complexity.rademacher_erm(complexity.sup_finite, values[:, :size], 4000 if full else 1000, rng)
        for size in sizes[:-1]
    ]
    massart = [bounds.massart_bound(values[:, :size]) for size in sizes]
    x = rng.standard_normal((n, 2))
    angle = np.linspace(0, 2 * np.pi, 721)
    searched = complexity.rademacher_erm(
        complexity.sup_finite, x @ [np.cos(angle), np.sin(angle)], None, None
    )
    signs = all_signs.T
    ball = np.linalg.norm(signs @ x, axis=1).mean() / n
    off = [(b.value - a.value) / b.se for a, b in zip(exact, drawn)]
    checks = [
        # largest of eleven: beyond 4 once in 1400 times
        at_most("sampled - enumerated, largest in standard errors", np.max(np.abs(off)), 4),
        near("class of all signs", exact[-1].value, 1, tol=1e-12),
        at_most("largest complexity / Massart's bound", max(a.value / b for a, b in zip(exact, massart)), 1),
        # directions every half degree: less by at most 1 - cos(1/4 degree)
        near("linear l2 ball, 720 directions, over E|Σ ξ x|/n", searched.value / ball, 1, tol=1e-5),
    ]

    def draw(ax):
        ax.loglog(sizes, [a.value for a in exact], "o-", base=2, label="all $2^{12}$ signs")
        error = [4 * b.se for b in drawn]
        ax.errorbar(
            sizes[:-1], [b.value for b in drawn], error, fmt="C1x", label="sampled signs, 4 standard errors"
        )
        ax.loglog(sizes, massart, "k--", label=r"Massart: $\sqrt{2\ln N/n}$")
        ax.axhline(1, color="gray", ls=":", label="fits any noise")
        ax.set(
            xlabel="functions N in the class",
            ylabel="Rademacher complexity",
            title="Richer classes fit noise, n = 12",
        )
        ax.legend()

    return Outcome(checks, draw)


def lipschitz_ball(full, rng):
    """Lipschitz functions on cubes of several dimensions."""
    d_list, n_list = [1, 2, 3, 4, 6, 10], [32, 64, 128, 256] + [512] * full
    sets, draws = (20, 100) if full else (10, 30)
    found = np.array(
        [
            [
                np.mean(
                    [
                        complexity.rademacher_lipschitz(rng.uniform(size=(n, d)), 1, 1, rng, draws)
                        for _ in range(sets)
                    ],
                    0,
                )[0]
                for n in n_list
            ]
            for d in d_list
        ]
    )
    slopes = [slope(n_list, row) for row in found]
    reference = [0.079, 0.109, 0.151, 0.235, 0.370]
    off = found[1:, 3] / reference
    high = np.array(d_list) >= 3
    checks = [
        near(
            "continuous functions on distinct points",
            complexity.rademacher_sup_ball(rng.uniform(size=(256, 2)))[0],
            1,
            tol=1e-12,
        ),
        at_least("steepness: smallest decrease from one d to the next", np.min(np.diff(slopes)), 0),
        at_most("slope + 1/d, largest for d >= 3", np.max(np.abs(slopes + 1 / np.array(d_list))[high]), 0.15),
        near(
            "complexity at n = 256 over its reference, furthest from 1",
            off[np.argmax(np.abs(off - 1))],
            1,
            rel=0.15,
        ),
    ]

    def draw(ax):
        for k, d in enumerate(d_list):
            ax.loglog(n_list, found[k], "o", color=f"C{k}", label=f"d = {d}: slope {slopes[k]:.2f}")
            power = -1 / max(d, 2)
            ax.loglog(
                n_list, found[k, -1] * (np.array(n_list) / n_list[-1]) ** power, "--", color=f"C{k}", lw=1
            )
        ax.axhline(1, color="k", ls=":", label="|h| ≤ 1, any continuous h")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="samples n", ylabel="Rademacher complexity")
        ax.set_ylim(0.02, 1.3)
        ax.set_title("Lipschitz functions: $n^{-1/d}$ (dashed), the curse")
        ax.legend(loc="lower left", ncol=2)

    return Outcome(checks, draw)


def rkhs_ball(full, rng):
    """The unit ball of the normalised arc-cosine kernel."""
    d, n_list, draws = 10, [25, 50, 100, 200, 400] + [800] * full, 20_000 if full else 5000
    found = {}
    for n in n_list:
        x = rng.standard_normal((n, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        K = 2 * d * ArcCosine(order=1)(x)  # k(x, x) = 1
        found[n] = complexity.rademacher_rkhs(K, 1, rng, draws)
    values = np.array([found[n].value for n in n_list])
    bound = 1 / np.sqrt(n_list)
    checks = [
        near("complexity, n = 200", found[200].value, 0.0680, rel=0.02),
        near("bound Q sqrt(tr K)/n, n = 200", bound[n_list.index(200)], 0.0707, rel=1e-3),
        at_most("complexity / bound, largest", np.divide(values, bound).max(), 1),
        at_least("complexity / bound, smallest (Khinchin)", np.divide(values, bound).min(), 1 / np.sqrt(2)),
        near("slope in n", slope(n_list, values), -0.5, tol=0.02),
    ]

    def draw(ax):
        ax.errorbar(
            n_list, values, [4 * found[n].se for n in n_list], fmt="o", label=r"$(Q/n)\,E\sqrt{\xi^TK\xi}$"
        )
        ax.loglog(n_list, bound, "k--", label=r"$Q\sqrt{\mathrm{tr}\,K}/n = Q/\sqrt{n}$")
        ax.loglog(n_list, bound / np.sqrt(2), "k:", label="Khinchin's lower bound")
        ax.set_xscale("log", base=2)
        ax.set(yscale="log", xlabel="samples n", ylabel="Rademacher complexity")
        ax.set_title(f"RKHS ball in d = {d}: $n^{{-1/2}}$, and the bound is nearly sharp")
        ax.legend()

    return Outcome(checks, draw)


def barron_ball(full, rng):
    """The unit ball of Barron space, from below and from above."""
    d_list, n_list, draws = [5, 50], [100, 200, 400] + [800] * full, 200 if full else 50
    value, vertex, bound = np.zeros((3, len(d_list), len(n_list)))
    for row, d in enumerate(d_list):
        for col, n in enumerate(n_list):
            x = cube(d, n, rng)
            seed = rng.integers(2**32)  # the same signs for search and vertices
            found = [
                barron_complexity.rademacher_barron(x, 1, np.random.default_rng(seed), draws, steps=steps)
                for steps in (60, 0)
            ]
            value[row, col], vertex[row, col] = found[0].value, found[1].value
            bound[row, col] = barron_complexity.barron_rademacher_bound(1, n, d)
    slopes = [slope(n_list, row) for row in value]
    at = [0, n_list.index(400)]
    reference = np.array([[0.429, 0.215], [0.607, 0.303]])
    checks = [
        near("bound over 0.429, 0.215, 0.607, 0.303", _furthest(bound[:, at] / reference), 1, rel=0.003),
        at_most("searched / bound, largest", (value / bound).max(), 1),
        at_least("searched / best neuron of one input, smallest", (value / vertex).min(), 1),
        at_most("slope in n, furthest from -0.5", np.max(np.abs(np.array(slopes) + 0.5)), 0.1),
        at_most(
            "ratio of d = 50 to d = 5, largest",
            (value[1] / value[0]).max(),
            2,
            math.sqrt(math.log(100) / math.log(10)),
        ),
    ]

    def draw(ax):
        for k, d in enumerate(d_list):
            ax.loglog(
                n_list,
                value[k],
                "o-",
                color=f"C{k}",
                label=f"d = {d}: found by search, slope {slopes[k]:.2f}",
            )
            ax.loglog(n_list, bound[k], "--", color=f"C{k}", label=rf"d = {d}: $2Q\sqrt{{2\ln(2d)/n}}$")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="samples n", ylabel="Rademacher complexity")
        ax.set_title("The Barron ball: $n^{-1/2}$, and $d$ only as $\\sqrt{\\ln d}$")
        ax.legend()

    return Outcome(checks, draw)


def _furthest(ratios):
    """The ratio furthest from one."""
    return ratios.ravel()[np.argmax(np.abs(ratios - 1))]


def uniform_deviation(full, rng):
    """The largest |mean - expectation| over an RKHS ball of random features, and its bounds."""
    d, m, delta, resamples = 10, 200, 0.1, 1000 if full else 200
    n_list = [50, 100, 200, 400, 800]
    phi = RandomFeatures(d, m, bias=True, rng=rng)(cube(d, 20_000, rng)) / np.sqrt(m)  # the population
    expectation, width = phi.mean(axis=0), 2 * np.linalg.norm(phi, axis=1).max()  # |h| ≤ |φ|
    rows = []
    for n in n_list:
        for _ in range(resamples):
            sample = phi[rng.integers(len(phi), size=n)]
            # the sup of c·(mean - expectation) over |c| ≤ 1
            deviation = np.linalg.norm(sample.mean(axis=0) - expectation)
            rad = complexity.rademacher_linear(sample, 1, rng, 20).value
            centered = complexity.rademacher_linear(sample - expectation, 1, rng, 20).value
            low = bounds.deviation_lower_bound(rad, width, n, delta)
            high = bounds.generalization_bound(rad, width, n, delta)
            rows.append((deviation, low, high, centered))
    deviation, low, high, centered = np.reshape(rows, (len(n_list), resamples, 4)).transpose(2, 0, 1)
    inside = np.mean((low <= deviation) & (deviation <= high), axis=1)
    ratio = deviation.mean(axis=1) / centered.mean(axis=1)
    slack = (high / deviation).mean(axis=1)
    checks = [
        at_least("share of samples with both bounds true, smallest", inside.min(), 1 - delta),
        at_most("E deviation / Rad of h - E h, largest", ratio.max(), 2),
        at_least("E deviation / Rad of h - E h, smallest", ratio.min(), 0.5),
        near("slope of the deviation in n", slope(n_list, deviation.mean(axis=1)), -0.5, tol=0.04),
        at_least("upper bound / deviation, mean: how vacuous it is", slack.mean(), 1),
    ]

    def draw(ax):
        ax.loglog(n_list, high.mean(axis=1), "k--", label=f"upper bound for one sample, δ = {delta}")
        ax.loglog(n_list, 2 * centered.mean(axis=1), "C1-.", label="2 Rad, upper bound for the mean")
        ax.fill_between(n_list, deviation.min(1), deviation.max(1), alpha=0.3, label=f"{resamples} samples")
        ax.loglog(n_list, deviation.mean(axis=1), "o-", label="largest deviation over the ball, mean")
        ax.loglog(n_list, centered.mean(axis=1) / 2, "C1:", label="Rad/2, lower bound for the mean")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="samples n", ylabel="sup |E h - mean of h|", ylim=(None, 6))
        ax.set_title("Complexity predicts the largest deviation")
        ax.set_ylim(top=20)
        ax.legend()

    return Outcome(checks, draw)


EXPERIMENTS = [
    Experiment("E4", "rademacher", "Rademacher complexity measures how well a class fits noise.", rademacher),
    Experiment(
        "E5", "lipschitz-ball", "Rad of the C⁰ ball is 1, of the Lipschitz ball ~ n^(-1/d).", lipschitz_ball
    ),
    Experiment("E6", "rkhs-ball", "Rad of the RKHS ball ≤ Q/√n.", rkhs_ball),
    Experiment("E7", "barron-ball", "Rad of the Barron ball ≤ 2Q sqrt(2 ln(2d)/n).", barron_ball),
    Experiment(
        "E8", "uniform-deviation", "Rademacher complexity bounds the uniform deviation.", uniform_deviation
    ),
]
