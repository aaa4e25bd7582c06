"""A training step of one worker's atoms, as two kernels: forward to energies and forces, backward to gradients.

For the atoms of each type in turn::

    forward    neighbors ─> A_i ─> D_i ─> E, ∂E/∂D (all at once) ─> P_i = ∂E/∂A_i ─> forces, virial
    backward   neighbors ─> Ȧ_i ─> Ḋ_i ─> ∂S/∂weights, ∂S/∂D (all at once) ─> ∂S/∂A_i ─> ∂S/∂T at the knots

pairs.py has the sums over neighbors, second.py the nets, fused.py what S is. ∂S/∂Ȧ_i is P_i, ∂S/∂Ḋ is ∂E/∂D.
Pairs are made four times, which is cheaper than to carry them through memory.
"""

from typing import NamedTuple

import numba
import numpy as np

from deepmd_lite.engine.network import Networks
from deepmd_lite.jit import jit
from deepmd_lite.train import pairs
from deepmd_lite.train.pairs import Geometry
from deepmd_lite.train.second import GRADIENT, INPUT, block, energies, layout, second


class Potential(NamedTuple):
    """A model as the kernels read it."""

    geometry: Geometry
    tables: np.ndarray  # (nnets K, M) T: embedding nets at their knots
    fitting: Networks
    vacuum: np.ndarray  # (ntypes,) bool: the energy counts from that at D = 0


class Shares(NamedTuple):
    """Which atoms a worker has: order[cuts[t, worker] : cuts[t, worker + 1]] of type t."""

    order: np.ndarray  # (natoms,) int64
    cuts: np.ndarray  # (ntypes, nworkers + 1) int64


class Results(NamedTuple):
    """Of the forward kernel; what the backward kernel needs of it."""

    energy: np.ndarray  # (natoms,) float64, without the energies of elements
    force: np.ndarray  # (nworkers, natoms, 3) float64, zeros
    virial: np.ndarray  # (nworkers, nframes, 3, 3) float64, zeros
    outside: np.ndarray  # (nworkers,) int64: pairs beyond the knots
    a: np.ndarray  # (natoms, 4, M) T
    p: np.ndarray  # (natoms, 4, M) T: ∂E/∂A
    space: np.ndarray  # (nworkers, size) T: of second.py, type after type
    spare: np.ndarray  # (nworkers, 2, size) T
    turned: np.ndarray  # (natoms, 4, M) T: Ȧ


class Gradients(NamedTuple):
    """What comes back, and what it comes from."""

    energy: np.ndarray  # (nframes,) float64: ∂L/∂E
    force: np.ndarray  # (natoms, 3) float64: ∂L/∂F
    virial: np.ndarray  # (nframes, 3, 3) float64: ∂L/∂Ξ
    tables: np.ndarray  # (nworkers, nnets K, M) T: ∂L/∂T, written
    fitting: np.ndarray  # (nworkers, nweights) T: ∂L/∂weights, written


@numba.njit
def _rows(t, worker, vacuum, cuts):
    """Rows of the fitting net for a worker's atoms of type t: two for each where energies count from D = 0."""
    return (cuts[t, worker + 1] - cuts[t, worker]) * (2 if vacuum[t] else 1)


@jit()
def sizes(layers, vacuum, cuts):
    """What a worker needs at most of ``Results.space`` and ``spare``; arguments as in `Potential` and `Shares`."""
    space = spare = 0
    for worker in range(cuts.shape[1] - 1):
        total = 0
        for t in range(len(cuts)):
            n = _rows(t, worker, vacuum, cuts)
            total += layout(layers[t], n)[1]
            spare = max(spare, n * layers[t, :, :2].max())
        space = max(space, total)
    return space, spare


@numba.njit(fastmath={"contract"})
def _descriptor(a, axis, d):
    """D_i, flat (M·M₂,), from A_i (4, M)."""
    for m in range(a.shape[1]):
        a0, a1, a2, a3 = a[0, m], a[1, m], a[2, m], a[3, m]
        for b in range(axis):
            d[m * axis + b] = a0 * a[0, b] + a1 * a[1, b] + a2 * a[2, b] + a3 * a[3, b]


@numba.njit(fastmath={"contract"})
def _descriptor_tangent(a, da, axis, d):
    """Ḋ_i from A_i and Ȧ_i."""
    for m in range(a.shape[1]):
        a0, a1, a2, a3 = a[0, m], a[1, m], a[2, m], a[3, m]
        b0, b1, b2, b3 = da[0, m], da[1, m], da[2, m], da[3, m]
        for b in range(axis):
            d[m * axis + b] = (
                a0 * da[0, b] + a1 * da[1, b] + a2 * da[2, b] + a3 * da[3, b]
                + b0 * a[0, b] + b1 * a[1, b] + b2 * a[2, b] + b3 * a[3, b]
            )  # fmt: skip


@numba.njit(fastmath=True)
def _add_transposed(a, dd, axis, out):
    """Add ∂S/∂A (4, M) to ``out``, from ∂S/∂D ``dd`` (M·M₂,)."""
    for m in range(a.shape[1]):
        row = dd[m * axis : (m + 1) * axis]
        for c in range(4):
            factor, total = a[c, m], row[0] - row[0]
            for b in range(axis):
                total += row[b] * a[c, b]
                out[c, b] += row[b] * factor
            out[c, m] += total


@numba.njit
def _forward(worker, potential, frames, shares, results):
    g, layers, axis = potential.geometry, potential.fitting.layers, potential.geometry.axis[0]
    width, per_slot, dtype = results.a.shape[2], 1 / g.sel.sum(), results.a.dtype
    work, extra, begin = pairs.workspace(g, frames, width), frames.extra.shape[1], 0
    slopes = np.empty((4, width), dtype)
    for t in range(len(layers)):
        atoms = shares.order[shares.cuts[t, worker] : shares.cuts[t, worker + 1]]
        n = _rows(t, worker, potential.vacuum, shares.cuts)
        table, size = layout(layers[t], n)
        space, energy = results.space[worker, begin : begin + size], np.empty(n, dtype)
        begin += size
        if n == 0:
            continue
        nin = layers[t, 0, 0]
        x, dx = block(space, table[0, INPUT], n, nin), block(space, table[-1, GRADIENT], n, nin)
        for k in range(n):
            i = atoms[k % len(atoms)]
            x[k, nin - extra :] = frames.extra[i]
            if k < len(atoms):
                results.outside[worker] += pairs.gather(i, g, frames, potential.tables, work, results.a[i])
                results.a[i] *= per_slot
                _descriptor(results.a[i], axis, x[k])
            else:
                x[k, : nin - extra] = 0
        energies(n, layers[t], potential.fitting.weights, space, table, energy)
        for k in range(len(atoms)):
            i = atoms[k]
            results.energy[i] = energy[k] - (energy[len(atoms) + k] if potential.vacuum[t] else 0)
            results.p[i] = 0
            _add_transposed(results.a[i], dx[k], axis, results.p[i])
            slopes[:] = results.p[i]
            slopes *= per_slot
            virial = results.virial[worker, frames.frame[i]]
            pairs.forces(i, g, frames, potential.tables, work, slopes, results.force[worker], virial)


@numba.njit
def _backward(worker, potential, frames, shares, results, gradients):
    g, layers, axis = potential.geometry, potential.fitting.layers, potential.geometry.axis[0]
    width, per_slot, dtype = results.a.shape[2], 1 / g.sel.sum(), results.a.dtype
    work, begin = pairs.workspace(g, frames, width), 0
    to_a, to_b = np.empty((4, width), dtype), np.empty((4, width), dtype)
    gradients.tables[worker], gradients.fitting[worker] = 0, 0
    for t in range(len(layers)):
        atoms = shares.order[shares.cuts[t, worker] : shares.cuts[t, worker + 1]]
        n = _rows(t, worker, potential.vacuum, shares.cuts)
        table, size = layout(layers[t], n)
        space = results.space[worker, begin : begin + size]
        begin += size
        if n == 0:
            continue
        nin = layers[t, 0, 0]
        dx = block(space, table[0, INPUT] + n * nin, n, nin)
        slopes = block(space, table[-1, GRADIENT], n, nin)
        weight, turned = np.empty(n, dtype), results.turned
        for k in range(n):
            i = atoms[k % len(atoms)]
            weight[k] = gradients.energy[frames.frame[i]]
            dx[k] = 0
            if k < len(atoms):
                d_virial = gradients.virial[frames.frame[i]]
                pairs.tangent(i, g, frames, potential.tables, work, gradients.force, d_virial, turned[i])
                turned[i] *= per_slot
                _descriptor_tangent(results.a[i], turned[i], axis, dx[k])
            else:
                weight[k] *= -1
        spare, gradient = results.spare[worker], gradients.fitting[worker]
        second(n, layers[t], potential.fitting.weights, space, table, weight, spare, gradient)
        bar = block(spare[1], 0, n, nin)
        for k in range(len(atoms)):
            i = atoms[k]
            to_a[:], to_b[:] = 0, results.p[i]
            _add_transposed(results.a[i], bar[k], axis, to_a)
            _add_transposed(turned[i], slopes[k], axis, to_a)
            to_a *= per_slot
            to_b *= per_slot
            d_virial = gradients.virial[frames.frame[i]]
            pairs.scatter(i, g, frames, work, gradients.force, d_virial, to_a, to_b, gradients.tables[worker])


@jit(nogil=True)
def forward64(worker, potential, frames, shares, results):
    """One worker's share of ``results``, in float64."""
    _forward(worker, potential, frames, shares, results)


@jit(nogil=True)
def forward32(worker, potential, frames, shares, results):
    """One worker's share of ``results``, in float32."""
    _forward(worker, potential, frames, shares, results)


@jit(nogil=True)
def backward64(worker, potential, frames, shares, results, gradients):
    """One worker's share of ``gradients``, in float64."""
    _backward(worker, potential, frames, shares, results, gradients)


@jit(nogil=True)
def backward32(worker, potential, frames, shares, results, gradients):
    """One worker's share of ``gradients``, in float32."""
    _backward(worker, potential, frames, shares, results, gradients)
