"""Gradient descent, stochastic gradient descent, and what a gradient cannot know.

    θ_{k+1} = θ_k - η ∇R(θ_k);    SGD: the gradient of a few samples in the place of ∇R

On least squares both are solved exactly: GD multiplies mode λ of the Hessian by 1 - ηλ a step, the mean of SGD is
GD, and its second moment obeys a linear recursion that ends at a risk of order η above the least.

The gradient may say little about the target: if f is one of M orthonormal functions and R_f = E (h - f)²,

    Var_f ∇R_f = (4/M) Σ_j |<f_j, ∇h> - mean|² <= 4Q/M,    Q = E |∇h|²

by Bessel's inequality. (For the loss ½ E (h - f)² it is Q/M, the constant often quoted for both; h = θ f_1 has
4Q/M (1 - 1/M).) Among cos(2π b·x) with b >= 1, |b|_1 <= m, which are smooth, of spectral norm <= 4π² m², there are
C(m, d) >= (m/d)^d such functions: no method that looks at gradients alone finds the right one in high dimension.

References
----------
Shalev-Shwartz, Shamir and Shammah, "Failures of gradient-based deep learning", ICML 2017 (theorem 1).
Barron, IEEE Trans. Inf. Theory 39, 930 (1993), section IX: the cosines.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError, DataError


class Trajectory(NamedTuple):
    """Values (k, ...) at times t (k,)."""

    t: np.ndarray
    values: np.ndarray


class LeastSquares:
    """R(θ) = (1/2n) Σ_i (x_i·θ - y_i)².

    Parameters
    ----------
    x, y : (n, d), (n,)

    Attributes
    ----------
    hessian : (d, d)
        XᵀX/n.
    minimizer : (d,)
        θ*, of the smallest norm if there are several.
    least : float
        R(θ*).
    """

    def __init__(self, x, y):
        if x.ndim != 2 or y.shape != (len(x),) or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError(
                f"least squares: expected finite x (n, d) and y (n,), found {x.shape} and {y.shape}"
            )
        self.x, self.y = x, y
        self.hessian = x.T @ x / len(x)
        self.minimizer = np.linalg.lstsq(x, y, rcond=None)[0]
        self.least = 0.5 * np.mean((x @ self.minimizer - y) ** 2)

    def risk(self, theta):
        """R (...) of θ (..., d): R(θ*) + ½ (θ - θ*)ᵀ H (θ - θ*)."""
        off = theta - self.minimizer
        return self.least + 0.5 * np.sum((off @ self.hessian) * off, axis=-1)

    def gradient(self, theta, samples=None):
        """∇R (..., d) of θ (..., d), from all samples or from those of the indices ``samples`` (..., batch)."""
        if samples is None:
            return (theta - self.minimizer) @ self.hessian
        x = self.x[samples]  # (..., batch, d)
        residual = (x @ theta[..., None])[..., 0] - self.y[samples]
        return np.mean(residual[..., None] * x, axis=-2)

    def descent_path(self, theta, lr, steps):
        """What GD from θ (d,) does, in eigenvectors: θ_k = θ* + (1 - ηH)^k (θ_0 - θ*) (steps + 1, d)."""
        values, vectors = np.linalg.eigh(self.hessian)
        powers = (1 - lr * values) ** np.arange(steps + 1)[:, None]
        return self.minimizer + powers * ((theta - self.minimizer) @ vectors) @ vectors.T

    def expected_risk(self, theta, lr, steps, batch=1):
        """E R(θ_k) (steps + 1,) of SGD from θ (d,), exactly.

        With e = θ - θ*, r_i = x_i·θ* - y_i, C = E e eᵀ and S = E_i[x_i x_iᵀ E (x_i·e + r_i)²]:

            C ← (1 - ηH) C (1 - ηH) + (η²/batch) (S - H C H),    E R = R(θ*) + ½ tr H C
        """
        shrink = np.eye(len(theta)) - lr * self.hessian
        r = self.x @ self.minimizer - self.y
        mean = theta - self.minimizer
        c, excess = np.outer(mean, mean), []
        for _ in range(steps + 1):
            excess.append(0.5 * np.trace(self.hessian @ c))
            squares = np.einsum("ij,jk,ik->i", self.x, c, self.x) + 2 * r * (self.x @ mean) + r**2
            s = (self.x * squares[:, None]).T @ self.x / len(self.x)
            c = shrink @ c @ shrink + lr**2 / batch * (s - self.hessian @ c @ self.hessian)
            mean = shrink @ mean
        return self.least + np.array(excess)


def gradient_descent(problem, theta, lr, steps):
    """GD: Trajectory of θ (steps + 1, ..., d), from θ (..., d)."""
    path = [np.asarray(theta, float)]
    for _ in range(steps):
        path.append(path[-1] - lr * problem.gradient(path[-1]))
    return Trajectory(np.arange(steps + 1), np.array(path))


def stochastic_gradient_descent(problem, theta, lr, steps, rng, batch=1):
    """SGD: as `gradient_descent`, with ``batch`` samples a step, drawn with replacement, for each θ of its own."""
    if batch < 1:
        raise ConfigError(f"SGD: expected a batch of 1 or more, found {batch}")
    path = [np.asarray(theta, float)]
    for _ in range(steps):
        samples = rng.integers(len(problem.x), size=(*path[-1].shape[:-1], batch))
        path.append(path[-1] - lr * problem.gradient(path[-1], samples))
    return Trajectory(np.arange(steps + 1), np.array(path))


def train(model, x, y, lr, steps):
    """GD of a torch module h on R = (1/2n) Σ_i (h(x_i) - y_i)²: Trajectory of R (steps + 1,), R(0) first.

    It ends early where R is no longer finite.
    """
    import torch

    x, y = torch.as_tensor(x), torch.as_tensor(y)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    risks = []
    for _ in range(steps + 1):
        risk = 0.5 * torch.mean((model(x) - y) ** 2)
        risks.append(float(risk.detach()))
        if len(risks) > steps or not np.isfinite(risks[-1]):
            break
        optimizer.zero_grad()
        risk.backward()
        optimizer.step()
    return Trajectory(np.arange(len(risks)), np.array(risks))


class Cosines:
    """The functions √2 cos(2π b·x) on [0, 1]^d, orthonormal for different b > 0.

    Parameters
    ----------
    frequencies : (M, d) int
        The b, positive.

    Attributes
    ----------
    size : int
        M.
    spectral_norms : (M,)
        ∫ |ω|_1² |f^(ω)| dω = 4π² |b|_1² of cos(2π b·x); √2 times that with the factor √2.
    """

    def __init__(self, frequencies):
        self.frequencies = np.asarray(frequencies)
        if self.frequencies.ndim != 2 or not (self.frequencies > 0).all():
            raise ConfigError(
                f"cosines: expected positive frequencies (M, d), found shape {self.frequencies.shape}"
            )
        self.size = len(self.frequencies)
        self.spectral_norms = 4 * np.pi**2 * self.frequencies.sum(axis=1) ** 2

    def __call__(self, x):
        """Their values (n, M) at points x (n, d)."""
        return np.sqrt(2) * np.cos(2 * np.pi * x @ self.frequencies.T)

    def grid(self):
        """A tensor grid (N^d, d) over which the mean of products of two of them is exact: N = 2 max b + 1."""
        d, nodes = self.frequencies.shape[1], 2 * int(self.frequencies.max()) + 1
        return np.indices((nodes,) * d).reshape(d, -1).T / nodes


class CosineClass(Cosines):
    """All b >= 1 in d dimensions with b_1 + ... + b_d <= m: C(m, d) functions, of spectral norm <= 4π² m²."""

    def __init__(self, d, m):
        if not 1 <= d <= m or math.comb(m, d) > 10**6:
            raise ConfigError(
                f"cosine class: expected 1 <= d <= m and C(m, d) <= 10⁶, found d = {d}, m = {m}"
            )
        # their partial sums are the subsets of {1, ..., m} of size d
        super().__init__(np.diff(list(combinations(range(1, m + 1), d)), axis=1, prepend=0))


def jacobian(model, x):
    """∂h(x_i)/∂θ (n, p) of a torch module h with one output, at points x (n, d)."""
    import torch
    from torch.func import functional_call, grad, vmap

    theta = {name: p.detach() for name, p in model.named_parameters()}
    points = torch.as_tensor(np.asarray(x), dtype=next(iter(theta.values())).dtype)

    def output(theta, point):
        return functional_call(model, theta, (point[None],)).squeeze()

    blocks = vmap(grad(output), (None, 0))(theta, points)
    return torch.cat([block.flatten(1) for block in blocks.values()], dim=1).numpy()


class GradientVariance(NamedTuple):
    """Var_f ∇R_f, summed over parameters; Q = E |∇h|²; and the lemma's bound 4Q/M."""

    variance: float
    q: float
    bound: float


def gradient_variance(model, function_class, x):
    """How much ∇R_f, R_f = E_x (h - f)², depends on which function f of a class is the target.

    ∇R_f = 2 E[h ∇h] - 2 E[f ∇h], so its variance over f is four times that of the class's projections of ∇h.

    Parameters
    ----------
    model : torch.nn.Module
        h.
    function_class : function of (n, d) that returns (n, M)
        M functions, orthonormal in the mean over x: `Cosines` on its grid, for instance.
    x : (n, d)

    Returns
    -------
    GradientVariance
    """
    slopes = jacobian(model, x)
    values = function_class(x)
    q = float(np.mean(np.sum(slopes**2, axis=1)))
    variance = 4 * float(np.sum(np.var(values.T @ slopes / len(x), axis=0)))
    return GradientVariance(variance, q, 4 * q / values.shape[1])
