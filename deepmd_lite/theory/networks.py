"""Neural networks of the lecture as torch modules, in float64.

    TwoLayerNet   f(x) = (1/m) Σ_j a_j σ(w_j·x + b_j)                  mean-field scaling; conventional: no 1/m
    MLP           f(x) = σ(... σ(x W_1 + b_1) ...) W_L + b_L
    ResNetFlow    z_{l+1} = z_l + (1/Lm) U_l σ(W_l z_l),  z_0 = V x,  f = α·z_L

As L → ∞ along a smooth path of parameters U(t), W(t), the last becomes the flow dz/dt = (1/m) U(t) σ(W(t) z).

References
----------
E, Ma and Wu, "Barron space and the flow-induced function spaces for neural network models",
Constr. Approx. 55, 369 (2022).
"""

from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import nn

from deepmd_lite.errors import ConfigError

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def _parameter(array):
    return nn.Parameter(torch.tensor(array, dtype=torch.float64))


def _checked(sizes, activation):
    if activation not in ACTIVATIONS or min(sizes) < 1:
        raise ConfigError(
            f"network: expected sizes >= 1 and one of {', '.join(ACTIVATIONS)}, found {sizes}, {activation!r}"
        )
    return ACTIVATIONS[activation]


class TwoLayerNet(nn.Module):
    """A two-layer network.

    Parameters
    ----------
    d, m : int
        Dimension of x; width.
    scaling : "mean_field" or "conventional"
        With the factor 1/m or without.
    activation : "relu" or "tanh"
    bias : bool
    rng : numpy.random.Generator
        Draws w uniformly on the unit sphere, b ~ U(-1, 1) and a ~ N(0, 1), conventional N(0, 1/m).

    Attributes
    ----------
    a : (m,)
    w : (m, d)
    b : (m,) or None
    """

    def __init__(self, d, m, *, scaling="mean_field", activation="relu", bias=True, rng):
        super().__init__()
        if scaling not in ("mean_field", "conventional"):
            raise ConfigError(f"network: expected scaling mean_field or conventional, found {scaling!r}")
        self.sigma = _checked((d, m), activation)
        self.scaling, self.factor = scaling, 1 / m if scaling == "mean_field" else 1.0
        w = rng.standard_normal((m, d))
        self.w = _parameter(w / np.linalg.norm(w, axis=1, keepdims=True))
        self.b = _parameter(rng.uniform(-1, 1, m)) if bias else None
        self.a = _parameter(rng.standard_normal(m) / (1 if scaling == "mean_field" else np.sqrt(m)))
        self.activation = activation

    def forward(self, x):
        """f (n,) of points x (n, d)."""
        z = x @ self.w.T
        z = z if self.b is None else z + self.b
        return self.factor * (self.sigma(z) @ self.a)

    def layers(self):
        """[(W (nin, nout), b (nout,) or None)] as arrays; the factor 1/m is in the last W."""
        b = None if self.b is None else self.b.detach().numpy()
        return [(self.w.detach().numpy().T, b), (self.factor * self.a.detach().numpy()[:, None], None)]

    def map_scaling(self):
        """The same function in the other scaling: a/m in the place of a, or m a."""
        m, d = self.w.shape
        other = "conventional" if self.scaling == "mean_field" else "mean_field"
        net = TwoLayerNet(
            d,
            m,
            scaling=other,
            activation=self.activation,
            bias=self.b is not None,
            rng=np.random.default_rng(0),
        )
        net.load_state_dict(self.state_dict())
        with torch.no_grad():
            net.a.mul_(self.factor / net.factor)
        return net


class MLP(nn.Module):
    """A fully connected network of any depth.

    Parameters
    ----------
    widths : sequence of int
        From the dimension of x to that of f: (d, m_1, ..., 1).
    activation : "relu" or "tanh"
    bias : bool
    rng : numpy.random.Generator
        Draws W ~ N(0, 2/nin) (He et al. 2015) and b ~ N(0, 0.01).
    """

    def __init__(self, widths, *, activation="relu", bias=True, rng):
        super().__init__()
        self.sigma = _checked(widths, activation)
        shapes = list(pairwise(widths))
        self.weights = nn.ParameterList(
            _parameter(rng.standard_normal(shape) * np.sqrt(2 / shape[0])) for shape in shapes
        )
        self.biases = (
            nn.ParameterList(_parameter(0.1 * rng.standard_normal(n)) for _, n in shapes) if bias else None
        )

    def forward(self, x):
        """f (n, outputs) of points x (n, d)."""
        for number, w in enumerate(self.weights):
            x = x if number == 0 else self.sigma(x)
            x = x @ w if self.biases is None else x @ w + self.biases[number]
        return x

    def layers(self):
        """[(W (nin, nout), b (nout,) or None)] as arrays."""
        biases = (
            [None] * len(self.weights) if self.biases is None else [b.detach().numpy() for b in self.biases]
        )
        return [(w.detach().numpy(), b) for w, b in zip(self.weights, biases)]


class ParameterPath:
    """Smooth parameters U(t) (D, m) and W(t) (m, D) for t in [0, 1], with V (D, d) and α (D,).

    U(t) = U_0 + U_1 sin 2πt + U_2 cos 2πt with Gaussian coefficients, and W alike.

    Parameters
    ----------
    d, D, m : int
        Dimension of x, of z, and width of the nonlinearity.
    scale : float
        Of U.
    rng : numpy.random.Generator
    """

    def __init__(self, d, D, m, *, scale=1.0, rng):
        _checked((d, D, m), "relu")
        self.v = rng.standard_normal((D, d)) / np.sqrt(d)
        self.alpha = rng.standard_normal(D) / np.sqrt(D)
        self._u = scale * rng.standard_normal((3, D, m))
        self._w = rng.standard_normal((3, m, D)) / np.sqrt(D)

    def __call__(self, t):
        """U(t), W(t)."""
        basis = np.array([1, np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)])
        return np.tensordot(basis, self._u, 1), np.tensordot(basis, self._w, 1)

    def limit(self, x):
        """f (n,) of the flow, L = ∞, at points x (n, d), to about 1e-9."""

        def velocity(t, z):
            u, w = self(t)
            z = z.reshape(len(x), -1)
            return (np.maximum(z @ w.T, 0) @ u.T / u.shape[1]).ravel()

        start = (x @ self.v.T).ravel()
        z = solve_ivp(velocity, (0, 1), start, method="DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
        return z.reshape(len(x), -1) @ self.alpha


class ResNetFlow(nn.Module):
    """A residual network of L layers whose layer l has the parameters of a `ParameterPath` at t = l/L."""

    def __init__(self, path, L):
        super().__init__()
        if L < 1:
            raise ConfigError(f"residual network: expected L >= 1 layers, found {L}")
        u, w = zip(*(path(l / L) for l in range(L)))
        self.u, self.w = _parameter(np.array(u)), _parameter(np.array(w))
        self.v, self.alpha = _parameter(path.v), _parameter(path.alpha)

    def forward(self, x):
        """f (n,) of points x (n, d)."""
        z = x @ self.v.T
        for u, w in zip(self.u, self.w):
            z = z + torch.relu(z @ w.T) @ u.T / (len(self.u) * u.shape[1])
        return z @ self.alpha
