"""Wide nets in two scalings: the tangent kernel, and the mean field."""

import numpy as np

from deepmd_lite.theory import descent, mean_field, tangent
from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near, slope


def sphere(n, d, rng):
    """Points (n, d), uniform on the unit sphere."""
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def gram_matrix(full, rng):
    n, d, repeats, m_list = 20, 5, 2000 if full else 200, [64, 256, 1024, 4096]
    x = sphere(n, d, rng)
    k = tangent.gram_matrix(x)
    squares = np.maximum(sphere(200_000, d, rng) @ x.T, 0) ** 2
    constant = np.sum(squares.T @ squares / len(squares) / n**2 - k**2)  # m E|K_m - K|²
    errors = []
    for m in m_list:
        phi = (np.maximum(sphere(m, d, rng) @ x.T, 0) for _ in range(repeats))
        errors.append([np.linalg.norm(p.T @ p / (n * m) - k) for p in phi])
    rms = np.sqrt(np.mean(np.square(errors), axis=1))
    least = np.array([np.linalg.eigvalsh(tangent.gram_matrix(sphere(n, d, rng)))[0] for _ in range(200)])
    checks = [
        at_least("least eigenvalue λ_n of K, of 200 draws of x", least.min(), 0),
        near("log10 λ_n, median of 200 draws", np.log10(np.median(least)), np.log10(4.2e-5), tol=0.3),
        near("|K_m - K|: power of m", slope(m_list, rms), -0.5, tol=0.05),
        near("m E|K_m - K|²", np.mean(m_list * rms**2), constant, rel=0.15),
    ]

    def draw(ax):
        ax.loglog(m_list, rms, "o", label=f"measured, {repeats} draws of w")
        ax.loglog(m_list, np.sqrt(constant / m_list), "k-", lw=1, label="predicted")
        ax.axhline(np.linalg.eigvalsh(k)[0], color="C1", ls="--", label="λ$_n$ of K")
        ax.set(
            xlabel="m",
            ylabel="|K$_m$ - K| (Frobenius)",
            title="Gram matrix of m neurons: error m$^{-1/2}$, far above λ$_n$",
        )
        ax.legend()

    return Outcome(checks, draw)


def lazy_problem(rng):
    x, x_test = sphere(20, 5, rng), sphere(200, 5, rng)
    return x, np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2], x_test


def tangent_kernel(full, rng):
    x, y, x_test = lazy_problem(rng)
    m_list = [128, 512, 2048, 8192] if full else [128, 512, 2048]
    runs = tangent.ntk_comparison(x, y, m_list, x_test, rng, horizon=1e5 if full else 2e4)
    least = np.linalg.eigvalsh(tangent.gram_matrix(x))[0]
    distance, moved = [r.distance.max() for r in runs], [r.moved[-1] for r in runs]
    checks = [
        at_most(
            "R(t) / (e^{-m λ_n t} R(0)), at worst",
            max((r.risk * np.exp(r.m * least * r.t)).max() / r.risk[0] for r in runs),
            1 + 1e-9,
        ),
        at_most("largest |net - random feature model|: power of m", slope(m_list, distance), -0.5),
        at_most("rms |w(t) - w(0)|: power of m", slope(m_list, moved), -0.5),
    ]

    def draw(ax):
        for number, r in enumerate(runs):
            ax.loglog(r.m * r.t[1:], r.risk[1:], f"C{number}-", label=f"net, m = {r.m}")
            ax.loglog(r.m * r.t[1::3], r.frozen_risk[1::3], f"C{number}o", ms=4)
        ax.loglog([], [], "ko", ms=4, label="its random feature model")
        s = runs[0].m * runs[0].t[1:]
        ax.loglog(s, runs[0].risk[0] * np.exp(-least * s), "k--", label="bound e$^{-mλt}$ R(0)")
        ax.set(xlabel="m t", ylabel="R", title="A wide net is its random feature model")
        ax.legend()

    return Outcome(checks, draw)


def time_scales(full, rng):
    x, y, x_test = lazy_problem(rng)
    m_list = [128, 512, 2048, 8192] if full else [128, 512, 2048]
    runs = tangent.ntk_comparison(x, y, m_list, x_test, rng, horizon=1000.0)
    ratios = np.array([tangent.timescale_ratio(r.t, r.a, r.w) for r in runs])
    size = np.array([np.sqrt(np.mean(r.a[1:] ** 2, axis=1)) for r in runs])  # of a; |w| is 1
    level = np.exp(np.log(ratios).mean(axis=1))  # mean over m t, the same points for all m
    relative = np.exp(np.log(ratios * size).mean(axis=1))
    checks = [
        at_most("rms |dw/dt| / rms |da/dt|: power of m", slope(m_list, level), -0.9, -1),
        at_least(
            "relative rates of w and a: least fall per 4 times m", (relative[:-1] / relative[1:]).min(), 8, 16
        ),
    ]

    def draw(ax):
        for number, (r, ratio) in enumerate(zip(runs, ratios)):
            ax.loglog(r.m * r.t[2:], ratio[1:], f"C{number}", label=f"m = {r.m}")
            ax.loglog(r.m * r.t[2::3], ratios[0][1::3] * m_list[0] / r.m, "k.", ms=3)
        ax.loglog([], [], "k.", ms=3, label=f"m = {m_list[0]}, scaled by 1/m")
        ax.set(
            xlabel="m t",
            ylabel="rms |dw/dt| / rms |da/dt|",
            title="Inner weights are m times slower than outer ones",
        )
        ax.legend()

    return Outcome(checks, draw)


def linearized_net(full, rng):
    import torch

    from deepmd_lite.theory.networks import TwoLayerNet

    x, y, _ = lazy_problem(rng)
    steps, runs = 300, {}
    for m in (256, 1024, 4096, 16384) if full else (256, 1024, 4096):
        for factor in (0.1, 0.9, 1.1):
            net = TwoLayerNet(x.shape[1], m, scaling="conventional", activation="tanh", bias=False, rng=rng)
            start = net(torch.as_tensor(x)).detach().numpy()
            kernel = tangent.empirical_ntk(net, x)
            lr = factor * tangent.max_learning_rate(kernel)
            predict = tangent.LinearizedPredictor(kernel, y - start, lr)
            risk = descent.train(net, x, y, lr, steps)
            linear = 0.5 * np.mean((predict(risk.t) - (y - start)) ** 2, axis=1)
            runs[m, factor] = risk, linear
    off = {key: np.abs(risk.values / linear - 1).max() for key, (risk, linear) in runs.items() if key[1] < 1}
    largest = {key: risk.values.max() / risk.values[0] for key, (risk, _) in runs.items()}
    checks = [
        at_most("m = 4096, 0.1 of the limit: relative error of the risk", off[4096, 0.1], 0.02),
        at_most("m = 4096, 0.9 of the limit: relative error of the risk", off[4096, 0.9], 0.02),
        at_most("0.9 of the largest rate: largest R / R(0)", largest[4096, 0.9], 1),
        at_least("1.1 of the largest rate: largest R / R(0)", largest[4096, 1.1], 100),
    ]

    def draw(ax):
        for color, factor in zip(("C0", "C1", "C3"), (0.1, 0.9, 1.1)):
            risk, linear = runs[4096, factor]
            ax.loglog(risk.t[1:], risk.values[1:], color, label=f"{factor:g} of 2n/λ$_{{max}}$")
            ax.loglog(risk.t[1::8], linear[1::8], "o", color=color, ms=4)
        ax.loglog([], [], "ko", ms=4, label="predicted from the kernel at the start")
        ax.set(
            xlabel="steps",
            ylabel="R",
            ylim=(1e-3, 1e5),
            title="A wide net (m = 4096) trains as its tangent kernel says",
        )
        ax.legend()

    return Outcome(checks, draw)


def mean_field_flow(full, rng):
    d, n, m_list = 5, 128, [16, 64, 256, 1024] if full else [16, 64, 256]
    replicates, steps, dt = (96, 100, 0.1) if full else (64, 50, 0.2)
    x, teacher = rng.standard_normal((n, d)), sphere(5, d, rng)
    y = np.maximum(x @ teacher.T, 0) @ np.array([1, 1, 1, -1, -1]) / 2
    curves = {}
    for m in [*m_list, 4 * m_list[-1]]:
        # in groups of eight, which the cache holds
        flows = [
            mean_field.ParticleFlow(x, np.tile(y, (8, 1)), m, dt=dt, rng=rng) for _ in range(replicates // 8)
        ]
        curves[m] = np.concatenate([flow.run(steps).values for flow in flows], axis=1)
    apart = [np.mean(np.abs(curves[m] - curves[4 * m]).max(axis=0)) for m in m_list]
    flow = mean_field.ParticleFlow(x, y, 200, dt=0.02, rng=rng)
    other = mean_field.ParticleFlow(x, y, 200, dt=0.02, rng=rng)
    order = rng.permutation(200)
    other.a, other.w = flow.a[order], flow.w[order]
    path = []  # R, -dR/dt
    for _ in range(500):
        path.append((flow.risk(), flow.dissipation()))
        flow.step()
        other.step()
    risk, lost = np.array(path).T
    spent = np.concatenate([[0], np.cumsum((lost[1:] + lost[:-1]) / 2)]) * 0.02
    balance = np.diff(risk[::25]) / -np.diff(spent[::25])
    checks = [
        at_most("dR/dt against -∫|∇V|² dρ, worst of 20 intervals", np.abs(balance - 1).max(), 0.01),
        at_most("permuted particles: distance at the end", np.abs(other.w - flow.w[order]).max(), 1e-9),
        at_most("drift of a² - |w|²", np.abs(flow.invariant()).max(), 1e-3),
        at_most("sup |R_m(t) - R_4m(t)|: power of m", slope(m_list, apart), -0.4, -0.5),
    ]

    def draw(ax):
        for number, (m, c) in enumerate(curves.items()):
            ax.semilogy(dt * np.arange(steps + 1), c[:, :8], f"C{number}", lw=0.7)
            ax.semilogy([], [], f"C{number}", label=f"m = {m}")
        ax.set(
            xlabel="t",
            ylabel="R",
            title="Risk curves of m neurons meet as m grows",
        )
        ax.legend()

    return Outcome(checks, draw)


def displacement_convexity(full, rng):
    n, d, m, pairs, c = 500, 2, 4, 1000 if full else 100, 2.0
    x = rng.standard_normal((n, d))
    teacher = np.column_stack([[1.0, 1, -1, -1], sphere(m, d, rng)])
    y = np.maximum(x @ teacher[:, 1:].T, 0) @ teacher[:, 0] / m

    def rescaled(c):
        return teacher * np.column_stack([c, 1 / c, 1 / c])

    cs = np.exp(rng.uniform(-1, 1, (pairs, 2, m)))
    found = [mean_field.midpoint_convexity_test(x, y, rescaled(c0), rescaled(c1)) for c0, c1 in cs]
    anywhere = [
        mean_field.midpoint_convexity_test(x, y, *rng.standard_normal((2, m, 1 + d))) for _ in range(pairs)
    ]
    w = teacher[:1, 1:]
    one = np.maximum(x @ w[0], 0)
    u0, u1 = np.column_stack([[c], w / c]), np.column_stack([[1 / c], c * w])
    test = mean_field.midpoint_convexity_test(x, one, u0, u1)
    predicted = 0.5 * (((c + 1 / c) / 2) ** 2 - 1) ** 2 * np.mean(one**2)
    checks = [
        at_most("(2, w/2) and (1/2, 2w): R at both ends", test.mean, 1e-15),
        near("(2, w/2) and (1/2, 2w): R half way", test.displaced, predicted, rel=1e-10),
        at_least(
            "pairs of rescaled teachers, R = 0: least R half way", min(f.displaced for f in found), 1e-12
        ),
        at_most(
            "mixtures: largest R - mean of the ends", max(f.mixed - f.mean for f in found + anywhere), 1e-12
        ),
    ]
    s = np.linspace(0, 1, 101)
    along = [mean_field.cloud_risk(x, one, mean_field.displace(u0, u1, v)) for v in s]
    mixture = [mean_field.cloud_risk(x, one, np.vstack([u0, u1]), np.array([1 - v, v])) for v in s]

    def draw(ax):
        ax.plot(s, along, label="displacement: (1 - s) u$_0$ + s u$_1$")
        ax.plot(s, mixture, label="mixture: (1 - s) ρ$_0$ + s ρ$_1$")
        ax.plot(0.5, predicted, "ko", label="predicted")
        ax.set(xlabel="s", ylabel="R", title="Between two global minima: R is not displacement convex")
        ax.legend()

    return Outcome(checks, draw)


def circle_problem(count, rng):
    """64 points of a circle, and ``count`` teachers (count, 64) of four neurons, two positive and two negative.

    σ(z) = (z + |z|)/2, so teachers are told apart by directions modulo π: they are π/4 apart, within π/8.
    """
    angle = 2 * np.pi * np.arange(64) / 64
    x = np.sqrt(2) * np.column_stack([np.cos(angle), np.sin(angle)])
    angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.pi / 4 * np.arange(4)
    angle = angle + np.pi / 16 * rng.uniform(-1, 1, (count, 4))
    w = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return x, np.maximum(w @ x.T, 0).transpose(0, 2, 1) @ np.array([1.0, 1, -1, -1])


def global_convergence(full, rng):
    many, end = (100, 1500) if full else (40, 600)
    x, y = circle_problem(many, rng)
    # in larger steps a neuron may jump over a = 0, which the flow does not
    starts = [("half_cone", 400, 10, 0.05, end / 12)]
    starts += [("cone", m, count, 0.25, end) for m, count in ((400, 10), (4, many), (8, many), (64, many))]
    curves = {}
    for init, m, count, dt, stop in starts:
        flow = mean_field.ParticleFlow(x, y[:count], m, dt=dt, init=init, rng=rng)
        risk = flow.run(round(stop / dt), every=round(5 / dt))
        curves[init, m] = risk.t, risk.values / risk.values[0]
    solved = {key: np.mean(risk[-1] < 1e-4) for key, (_, risk) in curves.items()}
    checks = [
        at_least("cone, m = 400: part of 10 teachers with R < 1e-4 R(0)", solved["cone", 400], 0.9),
        at_least("half cone, m = 400: least R / R(0)", curves["half_cone", 400][1][-1].min(), 1e-2),
        at_most(f"cone, m = 4: part of {many} teachers with R < 1e-4 R(0)", solved["cone", 4], 0.5),
        at_least("the same, m = 8", solved["cone", 8], solved["cone", 4]),
        at_least("the same, m = 64", solved["cone", 64], solved["cone", 8]),
    ]

    def draw(ax):
        for key, color, label in (
            (("half_cone", 400), "C3", "m = 400, only a > 0"),
            (("cone", 4), "C1", "m = 4, as the teacher"),
            (("cone", 400), "C0", "m = 400, the whole cone"),
        ):
            t, risk = curves[key]
            ax.semilogy(t, risk[:, :10], color, lw=1)
            ax.semilogy([], [], color, label=f"{label}: {100 * solved[key]:.0f} % solved")
        ax.axhline(1e-4, color="k", ls=":", lw=1)
        ax.set(xlabel="t", ylabel="R / R(0)", title="Many neurons on the whole cone reach the global minimum")
        ax.legend()

    return Outcome(checks, draw)


EXPERIMENTS = [
    Experiment(
        "T4",
        "gram-matrix",
        "The Gram matrix of m neurons tends to K, whose least eigenvalue is positive.",
        gram_matrix,
    ),
    Experiment(
        "T5",
        "tangent-kernel",
        "Usual scaling: R <= exp(-m λ_n t) R(0), and the net is its random feature model.",
        tangent_kernel,
    ),
    Experiment(
        "T6",
        "time-scales",
        "Usual scaling: inner weights move m times slower than outer ones.",
        time_scales,
    ),
    Experiment(
        "T7",
        "linearized-net",
        "A wide net trains as the tangent kernel of its start predicts.",
        linearized_net,
    ),
    Experiment(
        "T8",
        "mean-field",
        "1/m scaling: training is the Wasserstein gradient flow of R(ρ).",
        mean_field_flow,
    ),
    Experiment(
        "T9",
        "displacement-convexity",
        "R is convex in ρ but not displacement convex.",
        displacement_convexity,
    ),
    Experiment(
        "T10",
        "global-convergence",
        "From full support the flow ends at the global minimum.",
        global_convergence,
    ),
]
