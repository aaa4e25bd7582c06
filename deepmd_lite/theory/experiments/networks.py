"""Networks of any depth: scalings, path norms, the flow limit, and learning with a small norm."""

import numpy as np
import scipy.stats

from deepmd_lite.theory.barron import BarronNetwork, EuclideanNorm
from deepmd_lite.theory.barron_regressor import BarronRegressor, a_priori_bound
from deepmd_lite.theory.experiment import Experiment, Outcome, at_least, at_most, near, slope
from deepmd_lite.theory.norms import path_norm, weighted_path_norm


def tensor(array):
    import torch

    return torch.tensor(array, dtype=torch.float64)


# B6: f is the same, ∂f/∂a = σ against σ/m, and ∂f/∂w does not know the scaling.


def gradients(net, x, y):
    """Gradients (array by name) of the mean squared error, and the outputs."""
    net.zero_grad()
    f = net(x)
    ((f - y) ** 2).mean().backward()
    return {name: p.grad.numpy().copy() for name, p in net.named_parameters()}, f.detach().numpy()


def scalings(full, rng):
    from deepmd_lite.theory.networks import TwoLayerNet

    d, sizes = 5, 2 ** np.arange(4, 15 if full else 12)
    x, y = tensor(rng.standard_normal((50, d))), tensor(rng.standard_normal(50))
    sizes_of, outputs, ratios, inner = [], [], [], []
    for m in sizes:
        net = TwoLayerNet(d, int(m), rng=rng)
        (mean, f), (usual, g) = gradients(net, x, y), gradients(net.map_scaling(), x, y)
        outputs.append(abs(f - g).max())
        ratios.append(abs(usual["a"] - m * mean["a"]).max() / abs(usual["a"]).max())
        inner.append(abs(usual["w"] - mean["w"]).max() / abs(usual["w"]).max())
        sizes_of.append([np.linalg.norm(part[name]) for part in (mean, usual) for name in ("a", "w")])
    found = np.array(sizes_of)
    checks = [
        at_most("largest difference of outputs", max(outputs), 1e-12),
        at_most("relative difference of ∂R/∂a and m times ∂R/∂a of mean field", max(ratios), 1e-12),
        at_most("relative difference of ∂R/∂w", max(inner), 1e-12),
        near(
            "exponent in m of |∂R/∂a|, usual against mean field",
            slope(sizes, found[:, 2] / found[:, 0]),
            1,
            tol=1e-9,
        ),
    ]

    def draw(ax):
        for k, name in ((0, "∂R/∂a, scaled by 1/m"), (2, "∂R/∂a, usual"), (1, "∂R/∂w, either")):
            ax.loglog(sizes, found[:, k], "o-", label=name)
        ax.set(xlabel="width m", ylabel="norm of the gradient")
        ax.set_title("Two scalings: the outer layer moves m times faster")
        ax.legend()

    return Outcome(checks, draw)


# B11


def path_norms(full, rng):
    from deepmd_lite.theory.networks import TwoLayerNet

    net = TwoLayerNet(7, 50, rng=rng)
    (w, b), (a, _) = net.layers()
    c = np.exp(rng.standard_normal(50))
    scaled = BarronNetwork(50 * a[:, 0] / c, c[:, None] * w.T, c * b)
    x = rng.standard_normal((20, 7))
    dims, sizes, repeats = (2, 10, 100), np.array([4, 16, 64, 256, 1024]), 200 if full else 40
    norms = {
        d: np.array(
            [
                [path_norm(EuclideanNorm(d).sample_barron_network(m, rng)) for _ in range(repeats)]
                for m in sizes
            ]
        )
        / (2 * d)
        for d in dims
    }
    change = abs(net(tensor(x)).detach().numpy() - scaled(x)).max()
    checks = [
        at_most("w → cw, a → a/c: change of the function", change, 1e-12),
        near("w → cw, a → a/c: ratio of path norms", path_norm(scaled) / path_norm(net), 1, tol=1e-12),
    ]
    checks += [
        near(f"|x|, d = {d}: path norm of 1024 neurons / 2d, farthest", _farthest(norms[d][-1]), 1, tol=0.05)
        for d in dims
    ]

    def draw(ax):
        for k, (d, norm) in enumerate(norms.items()):
            jitter = sizes * 1.12 ** (k - 1)
            ax.errorbar(jitter, norm.mean(axis=1), norm.std(axis=1), fmt="o", capsize=3, label=f"d = {d}")
        ax.axhline(1, color="k", lw=1)
        ax.set(xscale="log", xlabel="neurons m", ylabel="path norm / 2d")
        ax.set_title("The path norm does not grow with the width")
        ax.legend(title="networks drawn for |x|, ± 1 σ")

    return Outcome(checks, draw)


def _farthest(values, center=1):
    return values[np.argmax(abs(values - center))]


# B13


def residual_flow(full, rng):
    from deepmd_lite.theory.networks import ParameterPath, ResNetFlow

    d, D, m, depths = 4, 8, 8, 2 ** np.arange(2, 9)
    x = rng.standard_normal((20, d))
    errors = []
    for _ in range(20 if full else 5):
        path = ParameterPath(d, D, m, rng=rng)
        limit = path.limit(x)
        f = np.array([ResNetFlow(path, int(L))(tensor(x)).detach().numpy() for L in depths])
        errors.append(np.sqrt(np.mean((f - limit) ** 2, axis=1)) / np.std(limit))
    error = np.sqrt(np.mean(np.square(errors), axis=0))
    seed, size = rng.integers(2**32), 200 if full else 60
    classes = [
        class_of_flows(d, D, m, scale, size, np.random.default_rng(seed)) for scale in (0.5, 1, 2, 4, 8)
    ]
    norms, complexity = np.array(classes).T
    bound = 3 * norms * np.sqrt(2 * np.log(2 * d) / 100)
    checks = [
        near("exponent in L of the distance to the flow", slope(depths[2:], error[2:]), -1, tol=0.1),
        near(
            "rank correlation of complexity and norm",
            scipy.stats.spearmanr(norms, complexity)[0],
            1,
            tol=1e-9,
        ),
        at_most("Rademacher complexity / 3Q sqrt(2 ln 2d / n)", (complexity / bound).max(), 1),
    ]

    def draw(ax):
        ax.loglog(depths, error, "o", label="root mean square of f_L - f, of f's deviation")
        ax.loglog(depths, error[-1] * depths[-1] / depths, "k-", lw=1, label="1/L")
        ax.set(xlabel="layers L", ylabel="relative error", title="Deep residual networks become a flow")
        ax.legend()

    return Outcome(checks, draw)


def class_of_flows(d, D, m, scale, size, rng):
    """Largest weighted path norm among random flows, and the Rademacher complexity of the class on 100 samples."""
    from deepmd_lite.theory.networks import ParameterPath, ResNetFlow

    x = tensor(rng.uniform(-1, 1, (100, d)))
    nets = [ResNetFlow(ParameterPath(d, D, m, scale=scale, rng=rng), 8) for _ in range(size)]
    values = np.array([net(x).detach().numpy() for net in nets])
    signs = rng.choice([-1.0, 1.0], (2000, 100))
    return max(map(weighted_path_norm, nets)), np.abs(signs @ values.T).max(axis=1).mean() / 100


# B14: no relu or tanh network changes faster than its path norm, however deep.


def deep_path_norm(full, rng):
    from deepmd_lite.theory.networks import MLP

    tiny = [rng.standard_normal(shape) for shape in ((3, 4), (4, 2), (2, 3), (3, 1))]
    scaled = [tiny[0] * 5, tiny[1] / 5 * 0.3, tiny[2] / 0.3 * 7, tiny[3] / 7]
    checks = [
        near("path norm / sum over all paths", path_norm(tiny) / sum_over_paths(tiny), 1, tol=1e-12),
        near("layers rescaled: ratio of path norms", path_norm(scaled) / path_norm(tiny), 1, tol=1e-12),
    ]
    depths, found = np.arange(2, 11 if full else 8), []
    for depth in depths:
        net = MLP((10, *[30] * (depth - 1), 1), bias=False, rng=rng)
        x = tensor(rng.uniform(-1, 1, (2000, 10))).requires_grad_()
        net(x).sum().backward()
        steepest = float(x.grad.abs().sum(dim=1).max())
        weights = [w for w, _ in net.layers()]
        # |W x|_2 ≤ ‖W‖ |x|_2 layer by layer, and |x|_2 ≤ √d |x|_∞
        spectral = np.sqrt(10) * np.prod([np.linalg.norm(w, 2) for w in weights])
        found.append((steepest, path_norm(weights), spectral))
    found = np.array(found)
    checks.append(at_most("largest |∇f|_1 / path norm", (found[:, 0] / found[:, 1]).max(), 1))

    def draw(ax):
        for k, name in enumerate(("largest |∇f|_1 found", "path norm", "√d times product of spectral norms")):
            ax.semilogy(depths, found[:, k], "o-", label=name)
        ax.set(xlabel="layers", ylabel="change of f per change of |x|_∞")
        ax.set_title("The path norm bounds slopes, loosely when deep")
        ax.legend()

    return Outcome(checks, draw)


def sum_over_paths(weights):
    """Σ over paths of the product of |weights|, one path at a time."""
    widths = [len(weights[0]), *(w.shape[1] for w in weights)]
    total = 0.0
    for path in np.ndindex(*widths):
        total += np.prod([abs(w[i, j]) for w, i, j in zip(weights, path, path[1:])])
    return total


# E9: the target is 2 relu(u_1) + 2 relu(u_2) - 2 relu(u_3), each u the half sum or difference of two coordinates:
# ‖f‖_B ≤ 6. Without regularisation and from a large start, training ends at a larger network of the same samples.


def teacher(d, rng):
    """The target, and the mass E |a| |w|_1 of its representation."""
    w = np.zeros((3, d))
    w[np.repeat(range(3), 2), rng.permutation(d)[:6]] = rng.choice([-0.5, 0.5], 6)
    net = BarronNetwork(np.array([6.0, 6.0, -6.0]), w, np.zeros(3))
    return net, path_norm(net)


def path_norm_regularisation(full, rng):
    d, n, lam, steps = 10, 200, 0.05, 3000 if full else 1500
    f, mass = teacher(d, rng)
    samples = np.array([50, 100, 200, 400, 800, 1600] if full else [50, 200, 800])
    widths = np.array([50, 150, 500, 1500, 5000] if full else [50, 200, 800])
    x, new = rng.uniform(-1, 1, (samples[-1], d)), rng.uniform(-1, 1, (4000, d))

    def fit(m, n, **options):
        model = BarronRegressor(m=int(m), steps=steps, lr=0.05, random_state=rng, **options).fit(
            x[:n], f(x[:n])
        )
        return model, float(np.mean((model.predict(new) - f(new)) ** 2))

    fits, risks = zip(*(fit(m, n, lam=lam) for m in widths))
    loose, loose_risks = zip(*(fit(m, n, lam=0, init=20.0) for m in widths))
    learning = [fit(200, k, lam=lam)[1] for k in samples]
    bounds = [a_priori_bound(mass, n=n, d=d, m=int(m), lam=lam, sup=mass) for m in widths]
    objective = max(model.objective_ / bound.objective for model, bound in zip(fits, bounds))
    checks = [
        at_most("test error of the widest / of the best width", risks[-1] / min(risks), 1.3),
        at_most("path norm / ‖f‖_B", max(model.path_norm_ for model in fits) / mass, 2),
        at_least("path norm without regularisation / with", loose[-1].path_norm_ / fits[-1].path_norm_, 3),
        at_most("exponent of the test error in n", slope(samples, learning), -0.4),
        at_most("objective / a-priori bound", objective, 1),
        at_most("test error / a-priori bound", max(r / b.risk for r, b in zip(risks, bounds)), 1),
    ]

    def draw(ax):
        ax.loglog(widths, loose_risks, "s-", color="C1", label="not regularised, large start")
        ax.loglog(widths, risks, "o-", color="C0", label="path norm regularised")
        ax.set(
            xlabel="width m", ylabel="test error", title=f"Width does no harm to a small path norm (n = {n})"
        )
        ax.set_xticks(widths, widths)
        ax.minorticks_off()
        ax.legend()

    return Outcome(checks, draw)


EXPERIMENTS = [
    Experiment(
        "B6",
        "scalings",
        "Two-layer networks scaled by 1/m and unscaled are one set of functions with different dynamics.",
        scalings,
    ),
    Experiment(
        "B11",
        "path-norm",
        "The path norm is the Barron norm of a network: blind to rescaling and to width.",
        path_norms,
    ),
    Experiment(
        "B13",
        "residual-flow",
        "Residual networks converge to flows as L grows; the weighted path norm is their complexity.",
        residual_flow,
    ),
    Experiment(
        "B14",
        "deep-path-norm",
        "The path norm of deep networks: 1ᵀ |W_1| ... |W_L| 1, the sum over all paths.",
        deep_path_norm,
    ),
    Experiment(
        "E9",
        "path-norm-regularisation",
        "With path-norm regularisation the error is bounded a priori and does not grow with the width.",
        path_norm_regularisation,
    ),
]
