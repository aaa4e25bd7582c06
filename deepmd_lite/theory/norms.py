"""Path norms: the size of a network that its generalization follows, whatever its width.

For two layers, with |x|_∞ ≤ 1 and the bias as the weight of one more, constant input,

    ‖θ‖_P = (1/m) Σ_j |a_j| (|w_j|_1 + |b_j|)

and for more layers the sum over all paths from an input, or from a bias, to the output of the product of
weights: 1ᵀ |W_1| |W_2| ... |W_L| 1. Activations that are 1-Lipschitz with σ(0) = 0 (relu, tanh) change neither the
bound |f(x)| ≤ ‖θ‖_P nor its Lipschitz form. Multiplying a relu neuron's inputs by c > 0 and dividing its outputs
by c changes neither the function nor the norm.

References
----------
Neyshabur, Tomioka and Srebro, COLT 2015; E, Ma and Wu, Commun. Math. Sci. 17, 1407 (2019); E, Ma and Wang,
arXiv:1903.02154 (weighted path norm of residual networks).
"""

import numpy as np

from deepmd_lite.errors import ConfigError


def path_norm(model):
    """Path norm of a network.

    Parameters
    ----------
    model : TwoLayerNet, MLP, BarronNetwork, or sequence of (nin, nout) arrays
        Matrices alone are a network without biases, first layer first.

    Returns
    -------
    float
    """
    layers = model.layers() if hasattr(model, "layers") else [(w, None) for w in model]
    carried = np.ones(len(layers[0][0]))
    for w, b in layers:
        carried = carried @ np.abs(w) + (0 if b is None else np.abs(b))
    return float(carried.sum())


def path_norm_of_layers(layers):
    """Path norm of layers with shortcuts, y = idt σ(x W + b) + shortcut, biases apart.

    It bounds how much Σ y can change when no input changes by more than one.

    Parameters
    ----------
    layers : sequence of (w, idt, copies)
        w (nin, nout); idt (nout,) or None; how many times the input is added to the output: 0, 1 (nin = nout),
        or 2, as (x, x) (2 nin = nout).

    Returns
    -------
    float

    Raises
    ------
    ConfigError
        A layer whose shortcut does not fit its shape.
    """
    carried = np.ones(len(layers[0][0]))
    for number, (w, idt, copies) in enumerate(layers):
        if copies not in (0, 1, 2) or (copies and w.shape[1] != copies * w.shape[0]):
            raise ConfigError(
                f"path norm: layer {number} of shape {w.shape} with {copies} copies of its input; "
                "expected 0, 1 (nout = nin) or 2 (nout = 2 nin)"
            )
        branch = carried @ np.abs(w) * (1 if idt is None else np.abs(idt))
        carried = branch + np.tile(carried, copies) if copies else branch
    return float(carried.sum())


def weighted_path_norm(resnet):
    """‖ |α|ᵀ Π_l (I + 3 |U_l| |W_l| / (L m)) |V| ‖_1 of a `ResNetFlow`.

    The weight 3 for every nonlinearity on a path is what lets Rademacher complexity be bounded by the norm
    without a factor that grows with depth.
    """
    u, w, v, alpha = (np.abs(p.detach().numpy()) for p in (resnet.u, resnet.w, resnet.v, resnet.alpha))
    carried = v.sum(axis=1)  # |V| 1
    for u_l, w_l in zip(u, w):
        carried = carried + 3 * u_l @ (w_l @ carried) / (len(u) * u.shape[2])
    return float(alpha @ carried)
