"""Fitting nets and the derivatives that a loss of forces needs, as kernels on blocks of atoms.

A layer is z = x w + b, y = idt σ(z) + (x, as often as it fits); engine/network.py has the table of layers. The scalar
whose gradient is wanted is

    S = Σ_i e_i E(x_i) + Ė(x_i, ẋ_i),   ẏ = idt σ'(z) ż + ẋ,   ż = ẋ w

with weights e and a direction ẋ. Going back, a bar is the derivative of S; that of a dotted quantity is what
plain backpropagation of ΣE gives, g = ∂ΣE/∂y, h = ∂ΣE/∂z = idt σ'(z) g, since Ė = Σ ∂E/∂x ẋ::

    z̄ = idt (σ'(z) ȳ + σ''(z) ż g)        x̄ = z̄ wᵀ + ȳ
    w̄ = xᵀ z̄ + ẋᵀ h                       b̄ = Σ z̄,  idt̄ = Σ (σ(z) ȳ + σ'(z) ż g)

so six matrix products do for a layer: one each for y, g, ẏ and x̄, two at once for w̄. Reverse mode over reverse
mode would take nine.

`space` holds, layer by layer, what a pass leaves for the next: x and ẋ as one matrix of 2n rows, ż (later z̄) and h as
another, then y (without x), σ', σ'' and g; at its end ∂E/∂x of the net's input.
"""

import numba
import numpy as np

from deepmd_lite.activations import activate_twice

INPUT, PULLED, VALUE, SLOPE, CURVATURE, GRADIENT = range(6)


@numba.njit
def layout(layers, n):
    """Where each part of each layer begins in a space for n rows, (nlayers + 1, 6), and the size of the space."""
    table, size = np.zeros((len(layers) + 1, 6), np.int64), 0
    for k in range(len(layers)):
        for part in range(6):
            table[k, part] = size
            width = layers[k, 0] if part == INPUT else layers[k, 1]
            size += n * width * (2 if part <= PULLED else 1)
    table[len(layers), GRADIENT] = size
    return table, size + n * layers[0, 0]


@numba.njit
def block(flat, place, n, width):
    """Part of a flat array as a matrix (n, width)."""
    return flat[place : place + n * width].reshape(n, width)


@numba.njit(fastmath={"contract"})
def _residual(values, x, weights, idt, copies, y):
    """y = idt values + (x, as often as it fits)."""
    n, nin = x.shape
    for i in range(n):
        if idt >= 0:
            for c in range(values.shape[1]):
                y[i, c] = values[i, c] * weights[idt + c]
        else:
            y[i] = values[i]
        for copy in range(copies):
            for c in range(nin):
                y[i, copy * nin + c] += x[i, c]


@numba.njit
def _residual_transposed(g, copies, dx):
    """Add to dx (n, nin) what comes from g (n, nout) past the layer."""
    n, nin = dx.shape
    for i in range(n):
        for copy in range(copies):
            for c in range(nin):
                dx[i, c] += g[i, copy * nin + c]


@numba.njit
def energies(n, layers, weights, space, table, energy):
    """E of n rows x, which are in ``space``, into ``energy``; leaves there all that `second` needs."""
    last = len(layers) - 1
    for k in range(last + 1):
        nin, nout, w, b, idt, copies, code, parameter = layers[k]
        x, z = block(space, table[k, INPUT], n, nin), block(space, table[k, VALUE], n, nout)
        np.dot(x, block(weights, w, nin, nout), z)
        if b >= 0:
            bias = weights[b : b + nout]
            for i in range(n):
                for c in range(nout):
                    z[i, c] += bias[c]
        slope, curvature = block(space, table[k, SLOPE], n, nout), block(space, table[k, CURVATURE], n, nout)
        activate_twice(code, z.ravel(), slope.ravel(), curvature.ravel(), weights[parameter : parameter + 3])
        if k < last:
            _residual(z, x, weights, idt, copies, block(space, table[k + 1, INPUT], n, nout))
    energy[:] = z[:, 0]
    block(space, table[last, GRADIENT], n, 1)[:] = 1
    for k in range(last, -1, -1):
        nin, nout, w, _, idt, copies, _, _ = layers[k]
        g, slope = block(space, table[k, GRADIENT], n, nout), block(space, table[k, SLOPE], n, nout)
        h = block(space, table[k, PULLED] + n * nout, n, nout)
        for i in range(n):
            for c in range(nout):
                h[i, c] = slope[i, c] * g[i, c]
        if idt >= 0:
            step = weights[idt : idt + nout]
            for i in range(n):
                for c in range(nout):
                    h[i, c] *= step[c]
        dx = block(space, table[k - 1, GRADIENT] if k > 0 else table[last + 1, GRADIENT], n, nin)
        np.dot(h, block(weights, w, nin, nout).T, dx)
        _residual_transposed(g, copies, dx)


@numba.njit(fastmath={"contract"})
def _bars(n, nout, b, idt, weights, space, places, bar, dz, gradient):
    """ż becomes z̄; ∂S/∂b and ∂S/∂idt into ``gradient``."""
    slope, curvature = block(space, places[SLOPE], n, nout), block(space, places[CURVATURE], n, nout)
    value, g = block(space, places[VALUE], n, nout), block(space, places[GRADIENT], n, nout)
    if idt >= 0:
        step, sums = weights[idt : idt + nout], gradient[idt : idt + nout]
        for i in range(n):
            for c in range(nout):
                pulled = dz[i, c] * g[i, c]
                sums[c] += value[i, c] * bar[i, c] + slope[i, c] * pulled
                dz[i, c] = step[c] * (slope[i, c] * bar[i, c] + curvature[i, c] * pulled)
    else:
        for i in range(n):
            for c in range(nout):
                dz[i, c] = slope[i, c] * bar[i, c] + curvature[i, c] * (dz[i, c] * g[i, c])
    if b >= 0:
        sums = gradient[b : b + nout]
        for i in range(n):
            for c in range(nout):
                sums[c] += dz[i, c]


@numba.njit
def second(n, layers, weights, space, table, weight, spare, gradient):
    """From e = ``weight`` (n,), and ẋ in ``space``: ∂S/∂weights into ``gradient`` (zeros), ∂S/∂x into spare[1].

    ``spare`` is (2, n · the widest layer).
    """
    last = len(layers) - 1
    for k in range(last + 1):
        nin, nout, w, _, idt, copies, _, _ = layers[k]
        dx, dz = block(space, table[k, INPUT] + n * nin, n, nin), block(space, table[k, PULLED], n, nout)
        np.dot(dx, block(weights, w, nin, nout), dz)
        if k < last:
            slope, dy = block(space, table[k, SLOPE], n, nout), block(spare[0], 0, n, nout)
            for i in range(n):
                for c in range(nout):
                    dy[i, c] = slope[i, c] * dz[i, c]
            _residual(dy, dx, weights, idt, copies, block(space, table[k + 1, INPUT] + n * nout, n, nout))
    block(spare[last % 2], 0, n, 1)[:, 0] = weight
    for k in range(last, -1, -1):
        nin, nout, w, b, idt, copies, _, _ = layers[k]
        bar, dz = block(spare[k % 2], 0, n, nout), block(space, table[k, PULLED], n, nout)
        _bars(n, nout, b, idt, weights, space, table[k], bar, dz, gradient)
        x, pulled = block(space, table[k, INPUT], 2 * n, nin), block(space, table[k, PULLED], 2 * n, nout)
        np.dot(x.T, pulled, block(gradient, w, nin, nout))
        dx = block(spare[(k + 1) % 2], 0, n, nin)
        np.dot(dz, block(weights, w, nin, nout).T, dx)
        _residual_transposed(bar, copies, dx)
