"""Dense layers with residual connections, and their forward-mode derivative.

A layer maps x to ``y = idt * act(x w + b) [+ x | + (x, x)]``: the residual term is there when the layer
keeps or doubles the width (He et al., 2016; Zhang et al., NeurIPS 2018, eq. 11). ``jvp`` carries a tangent
along: the embedding net has one scalar input, so one tangent gives the whole derivative dG/ds in the same pass.
"""

import itertools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from deepmd_lite import model_file

DTYPES = {"float64": torch.float64, "float32": torch.float32, "default": torch.float64}


def _tanh(x):
    y = torch.tanh(x)
    return y, 1 - y * y


def _relu(x):
    return torch.relu(x), (x > 0).to(x.dtype)


def _relu6(x):
    return functional.relu6(x), ((x > 0) & (x < 6)).to(x.dtype)


def _sigmoid(x):
    y = torch.sigmoid(x)
    return y, y * (1 - y)


def _softplus(x):
    return functional.softplus(x), torch.sigmoid(x)


def _silu(x):
    s = torch.sigmoid(x)
    return x * s, s * (1 + x * (1 - s))


def _gelu(x):
    """The tanh approximation of Hendrycks & Gimpel (2016), which DeePMD-kit calls gelu and gelu_tf."""
    c = math.sqrt(2 / math.pi)
    t = torch.tanh(c * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x**2)


def _silut(threshold):
    """silu below the threshold T, above it ``tanh(silu'(T) (x - T)) + silu(T)``."""
    value, slope = (float(v) for v in _silu(torch.tensor(threshold, dtype=torch.float64)))

    def silut(x):
        y, dy = _silu(x)
        t = torch.tanh(slope * (x - threshold))
        return torch.where(x < threshold, y, t + value), torch.where(x < threshold, dy, slope * (1 - t * t))

    return silut


def _identity(x):
    return x, torch.ones_like(x)


_ACTIVATIONS = {
    "tanh": _tanh,
    "relu": _relu,
    "relu6": _relu6,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tf": _gelu,
    "none": _identity,
    "linear": _identity,
}


def activation(name):
    """The function x -> (act(x), act'(x)) of an activation's name; ``silut:T`` carries its threshold."""
    kind, _, argument = name.lower().partition(":")
    return _silut(float(argument or 3.0)) if kind == "silut" else _ACTIVATIONS[kind]


class Layer(nn.Module):
    """One dense layer; ``w`` is (nin, nout), ``b`` and ``idt`` are (nout,) or None."""

    def __init__(self, w, b, idt, act, resnet):
        super().__init__()
        self.w = nn.Parameter(w)
        self.b = None if b is None else nn.Parameter(b)
        self.idt = None if idt is None else nn.Parameter(idt)
        self.act_name, self.act = act, activation(act)
        self.resnet = resnet
        nin, nout = w.shape
        self.copies = nout // nin if resnet and nout in (nin, 2 * nin) else 0  # of x in the residual term

    def forward(self, x):
        z = x @ self.w if self.b is None else torch.addmm(self.b, x, self.w)
        y = self.act(z)[0]
        return self._residual(y if self.idt is None else y * self.idt, x)

    def jvp(self, x, dx):
        """The layer at x (n, nin) and its derivative along dx (n, nin): two (n, nout)."""
        z = x @ self.w if self.b is None else torch.addmm(self.b, x, self.w)
        y, slope = self.act(z)
        dy = slope * (dx @ self.w)
        if self.idt is not None:
            y, dy = y * self.idt, dy * self.idt
        return self._residual(y, x), self._residual(dy, dx)

    def _residual(self, y, x):
        """y with x added as often as it fits: not at all, once or twice."""
        if self.copies == 0:
            return y
        return y + (x if self.copies == 1 else torch.cat((x, x), dim=1))


class Network(nn.Module):
    """A chain of layers, (n, nin) to (n, nout)."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    @property
    def dtype(self):
        return self.layers[0].w.dtype

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def jvp(self, x, dx):
        """Value and derivative along dx, both (n, nout)."""
        for layer in self.layers:
            x, dx = layer.jvp(x, dx)
        return x, dx


def random_layers(widths, *, act, resnet_dt, rng, last_linear=False):
    """Layers (`model_file.Layer`, float64) with DeePMD-kit's initial distribution.

    Parameters
    ----------
    widths : sequence of int
        Widths from the input to the output.
    act : str
        Activation of the hidden layers.
    resnet_dt : bool
        Give every residual layer its time step idt.
    rng : numpy.random.Generator
    last_linear : bool
        The last layer is linear, without residual connection (a fitting net's).

    Notes
    -----
    w ~ N(0, 1/(nin + nout)), b ~ N(0, 1), idt ~ N(0.1, 0.001²).
    """
    layers = []
    for k, (nin, nout) in enumerate(itertools.pairwise(widths)):
        linear = last_linear and k == len(widths) - 2
        residual = not linear and nout in (nin, 2 * nin)
        layers.append(
            model_file.Layer(
                w=rng.normal(0, 1 / math.sqrt(nin + nout), (nin, nout)),
                b=rng.normal(0, 1, nout),
                idt=rng.normal(0.1, 0.001, nout) if resnet_dt and residual else None,
                activation="none" if linear else act,
                resnet=not linear,
            )
        )
    return layers


def from_layers(layers, precision):
    """`model_file.Layer` records as a `Network` of the given precision."""

    def tensor(array):
        return None if array is None else torch.tensor(np.asarray(array), dtype=DTYPES[precision])

    return Network([Layer(tensor(l.w), tensor(l.b), tensor(l.idt), l.activation, l.resnet) for l in layers])


def to_layers(network):
    """The inverse of `from_layers`: arrays in the precision of the net."""

    def array(tensor):
        return None if tensor is None else tensor.detach().cpu().numpy().copy()

    return [
        model_file.Layer(w=array(l.w), b=array(l.b), idt=array(l.idt), activation=l.act_name, resnet=l.resnet)
        for l in network.layers
    ]
