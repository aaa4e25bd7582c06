"""Fused kernels: from neighbors to energies, forces and virial without an array over all pairs.

For a block of atoms of one type, small enough for the cache, a worker goes through the equations of
model/descriptor.py in turn::

    forward   row of neighbors ─> R~_ij ─> G_ij from its table ─> A_i = 1/nsel Σ_j R~_ij ⊗ G_ij ─> D_i
    fitting   E, ∂E/∂D of all atoms of the block at once, as matrix products
    backward  ∂E/∂D_i ─> P_i = ∂E/∂A_i ─> ∂E/∂x_ij of each neighbor, from R~_ij and G_ij made again

Pairs are made twice because that is cheaper than to carry them through memory, and bounds memory by the block.

D_i is symmetric in its first M₂ columns, so only D_ab with a >= b is kept (M = 100, M₂ = 16: 1,480 numbers in
place of 1,600); the first layer of the fitting net has the rows of D_ab and D_ba added (compiled.py).

Arithmetic is in T, float64 or float32, the type of ``Potential.padding``; positions, distances and all sums over
atoms are float64. Every worker has its own sums, added in a fixed order: the same numbers at each run.
"""

from typing import NamedTuple

import numba
import numpy as np

from deepmd_lite.contract import MIN_DISTANCE
from deepmd_lite.engine.network import Networks, energy_and_gradient, jvp, workspace
from deepmd_lite.engine.tables import Tables
from deepmd_lite.jit import jit

# rows of the work array of pairs
X, Y, Z, RR, ROW, ROWX, ROWY, ROWZ, DS, TT, DT, INV = range(12)


class Potential(NamedTuple):
    """A model as kernels read it."""

    cutoff: np.ndarray  # (3,) float64: rcut, rcut_smth, env_protection, Å
    davg: np.ndarray  # (ntypes,) T: mean of s by type of the center
    inverse_std: np.ndarray  # (ntypes, 2) T: 1/dstd of s and of the other three columns
    net: np.ndarray  # (ntypes, ntypes) int64: embedding net of (ti, tj); -1: they do not see each other
    slot: np.ndarray  # (ntypes, ntypes, M) T: an empty slot's R~ ⊗ G, whose first row alone is not zero
    padding: np.ndarray  # (ntypes, M) T: Σ sel[tj] slot[ti, tj]
    per_slot: np.ndarray  # (1,) T: 1/nsel
    axis: np.ndarray  # (1,) int64: M₂
    tables: Tables
    embedding: Networks  # float64
    fitting: Networks  # T
    from_zero: np.ndarray  # (ntypes,) bool: the energy counts from that at D = 0
    bias: np.ndarray  # (ntypes,) float64, eV


class Frame(NamedTuple):
    """Atoms, their ghosts and neighbors; parameters that the fitting net takes beside D."""

    coord: np.ndarray  # (nall, 3) float64, Å
    atype: np.ndarray  # (nall,) int32
    owner: np.ndarray  # (nall,) int32: where the force on an atom or ghost is added
    first: np.ndarray  # (nloc + 1,) int64
    index: np.ndarray  # (npairs,) int32
    extra: np.ndarray  # (nloc, numb_fparam + numb_aparam) T
    weight: np.ndarray = np.zeros(0)  # (nloc,) float64: factors of the forces from each E_i, or none


class Sums(NamedTuple):
    """Results; all but the first by worker."""

    energy: np.ndarray  # (nloc,) float64
    force: np.ndarray  # (nworkers, nowners, 3) float64
    virial: np.ndarray  # (nworkers, 9) float64
    atom_virial: np.ndarray  # (nworkers, nowners, 9) float64, or no owners: not wanted
    most: np.ndarray  # (nworkers, ntypes) int64: largest number of neighbors by type
    closest: np.ndarray  # (nworkers, 3) float64: r² of the closest pair, and its two atoms


@numba.njit
def _neighbors(i, p, frame, near, pair, count):
    """Pairs of i within rcut: fills near (atom, net; the closest at [2, 0]) and pair (vector, r²); counts by type."""
    atype = frame.atype
    nets = p.net[atype[i]]
    x, y, z = frame.coord[i]
    limit = p.cutoff[0] ** 2
    closest, n = np.inf, 0
    count[:] = 0
    for k in range(frame.first[i], frame.first[i + 1]):
        j = frame.index[k]
        dx, dy, dz = frame.coord[j, 0] - x, frame.coord[j, 1] - y, frame.coord[j, 2] - z
        rr = dx * dx + dy * dy + dz * dz
        t = atype[j]
        inside = rr < limit
        if inside and rr < closest:
            closest, near[2, 0] = rr, j
        count[t] += inside
        near[0, n], near[1, n] = j, nets[t]
        pair[X, n], pair[Y, n], pair[Z, n], pair[RR, n] = dx, dy, dz, rr
        n += inside and nets[t] >= 0
    return n, closest


@numba.njit(error_model="numpy")  # a division that may raise is not vectorized
def _rows(n, t, p, pair):
    """Rows of the environment matrix, and what their derivatives need, for n pairs of a center of type t."""
    T = pair.dtype.type
    rcut, smooth, protection = T(p.cutoff[0]), T(p.cutoff[1]), T(p.cutoff[2])
    width = T(1) / (rcut - smooth)
    mean, scale, scales = p.davg[t], p.inverse_std[t, 0], p.inverse_std[t, 1]
    one, zero, six, ten, fifteen, thirty = T(1), T(0), T(6), T(10), T(15), T(30)
    for k in range(n):
        r = np.sqrt(pair[RR, k])
        u = min(max((r - smooth) * width, zero), one)
        w = one + u * u * u * (u * (fifteen - six * u) - ten)
        slope = u * (one - u)
        q = one / (r + protection)
        s = w * q
        ds = (-thirty * slope * slope * width - s) * q
        t = s * q
        pair[INV, k] = one / r
        pair[DS, k], pair[TT, k], pair[DT, k] = ds, t, (ds - t) * q
        pair[ROW, k] = (s - mean) * scale
        t *= scales
        pair[ROWX, k], pair[ROWY, k], pair[ROWZ, k] = t * pair[X, k], t * pair[Y, k], t * pair[Z, k]


@numba.njit
def _place(x, net, tables):
    """Where x lies in the table of a net: (part, u, 1/length of the part); part -1 where the net itself is asked."""
    place = (x - tables.start[net]) * tables.inverse[net]
    whole = int(place)
    interval = tables.first[net] + whole
    if interval >= tables.first[net + 1]:
        return -1, 0.0, 0.0
    place = (place - whole) * tables.parts[interval]
    whole = int(place)
    part = tables.begin[interval] + whole
    if tables.exact[part]:
        return -1, 0.0, 0.0
    return part, place - whole, tables.inverse[net] * tables.parts[interval]


@numba.njit
def _from_net(x, net, embedding, c):
    """The net at x as coefficients (1, 4, M) of a straight line at u = 0, with 1/h = 1."""
    g, dg = jvp(np.full(1, np.float64(x)), embedding.layers[net], embedding.weights)
    c[0, 0], c[0, 1], c[0, 2:] = g[0], dg[0], 0


@numba.njit(fastmath={"contract"})  # a * b + c in one instruction
def _add_dyad(c, k, u, r0, r1, r2, r3, a):
    """a += R~ ⊗ G(u) with the coefficients c[k] (4, M)."""
    for m in range(a.shape[1]):
        g = c[k, 0, m] + u * (c[k, 1, m] + u * (c[k, 2, m] + u * c[k, 3, m]))
        a[0, m] += r0 * g
        a[1, m] += r1 * g
        a[2, m] += r2 * g
        a[3, m] += r3 * g


@numba.njit
def _forward(i, t, p, frame, near, pair, count, spare, a):
    """A_i (4, M) into ``a``; returns the closest r², and does no more where it is too close."""
    T = pair.dtype.type
    tables, coefficients = p.tables, p.tables.coefficients
    n, closest = _neighbors(i, p, frame, near, pair, count)
    if closest < MIN_DISTANCE**2:
        return closest
    _rows(n, t, p, pair)
    a[0], a[1:] = p.padding[t], 0
    for tj in range(len(count)):
        if p.net[t, tj] >= 0:
            a[0] -= T(count[tj]) * p.slot[t, tj]
    for k in range(n):
        part, u, _ = _place(pair[ROW, k], near[1, k], tables)
        r0, r1, r2, r3 = pair[ROW, k], pair[ROWX, k], pair[ROWY, k], pair[ROWZ, k]
        if part >= 0:
            _add_dyad(coefficients, part, T(u), r0, r1, r2, r3, a)
        else:
            _from_net(pair[ROW, k], near[1, k], p.embedding, spare)
            _add_dyad(spare, 0, T(u), r0, r1, r2, r3, a)
    a *= p.per_slot[0]
    return closest


@numba.njit(fastmath={"contract"})
def _descriptor(a, axis, d):
    """D_i: for each b < M₂ the products A_a · A_b with a = b ... M-1."""
    width, place = a.shape[1], 0
    for b in range(axis):
        a0, a1, a2, a3 = a[0, b], a[1, b], a[2, b], a[3, b]
        row = d[place : place + width - b]
        for m in range(len(row)):
            row[m] = a0 * a[0, b + m] + a1 * a[1, b + m] + a2 * a[2, b + m] + a3 * a[3, b + m]
        place += width - b


@numba.njit(fastmath=True)
def _descriptor_gradient(a, axis, d, grad):
    """∂E/∂A (4, M) into ``grad`` from ∂E/∂D in ``d``."""
    width, place = a.shape[1], 0
    grad[:] = 0
    for b in range(axis):
        row = d[place : place + width - b]
        for c in range(4):
            factor, total = a[c, b], row[0] - row[0]
            for m in range(len(row)):
                grad[c, b + m] += row[m] * factor
                total += row[m] * a[c, b + m]
            grad[c, b] += total
        place += width - b


@numba.njit(fastmath=True)
def _contract(c, k, u, r0, r1, r2, r3, grad):
    """(P_row · G for the four rows; R~ᵀ P · dG/du) with the coefficients c[k]: sums over outputs, in any order."""
    q0 = q1 = q2 = q3 = along = u - u
    u2, u3 = u + u, u * u + u * u + u * u
    for m in range(grad.shape[1]):
        g = c[k, 0, m] + u * (c[k, 1, m] + u * (c[k, 2, m] + u * c[k, 3, m]))
        dg = c[k, 1, m] + u2 * c[k, 2, m] + u3 * c[k, 3, m]
        q0 += grad[0, m] * g
        q1 += grad[1, m] * g
        q2 += grad[2, m] * g
        q3 += grad[3, m] * g
        along += (r0 * grad[0, m] + r1 * grad[1, m] + r2 * grad[2, m] + r3 * grad[3, m]) * dg
    return q0, q1, q2, q3, along


@numba.njit
def _backward(i, t, p, frame, near, pair, count, spare, grad, force, virial, shares):
    """Forces and virial of the pairs of i from P_i = ``grad`` (4, M), without its factor 1/nsel."""
    T = pair.dtype.type
    tables, coefficients = p.tables, p.tables.coefficients
    n, _ = _neighbors(i, p, frame, near, pair, count)
    _rows(n, t, p, pair)
    scale, scales = p.inverse_std[t, 0], p.inverse_std[t, 1]
    fx = fy = fz = 0.0
    own = frame.owner[i]
    for k in range(n):
        part, u, inverse = _place(pair[ROW, k], near[1, k], tables)
        r0, r1, r2, r3 = pair[ROW, k], pair[ROWX, k], pair[ROWY, k], pair[ROWZ, k]
        if part >= 0:
            q0, q1, q2, q3, along = _contract(coefficients, part, T(u), r0, r1, r2, r3, grad)
            along *= T(inverse)
        else:
            _from_net(pair[ROW, k], near[1, k], p.embedding, spare)
            q0, q1, q2, q3, along = _contract(spare, 0, T(u), r0, r1, r2, r3, grad)
        q0 = (q0 + along) * scale
        q1, q2, q3 = q1 * scales, q2 * scales, q3 * scales
        x, y, z = pair[X, k], pair[Y, k], pair[Z, k]
        radial = (q0 * pair[DS, k] + (q1 * x + q2 * y + q3 * z) * pair[DT, k]) * pair[INV, k]
        gx = np.float64(radial * x + pair[TT, k] * q1)
        gy = np.float64(radial * y + pair[TT, k] * q2)
        gz = np.float64(radial * z + pair[TT, k] * q3)
        fx, fy, fz = fx + gx, fy + gy, fz + gz
        to = frame.owner[near[0, k]]
        force[to, 0] -= gx
        force[to, 1] -= gy
        force[to, 2] -= gz
        virial[0] -= gx * x
        virial[1] -= gx * y
        virial[2] -= gx * z
        virial[3] -= gy * x
        virial[4] -= gy * y
        virial[5] -= gy * z
        virial[6] -= gz * x
        virial[7] -= gz * y
        virial[8] -= gz * z
        if len(shares):
            for d, g in enumerate((gx, gy, gz)):
                shares[to, 3 * d] -= g * x
                shares[to, 3 * d + 1] -= g * y
                shares[to, 3 * d + 2] -= g * z
    force[own, 0] += fx
    force[own, 1] += fy
    force[own, 2] += fz


@numba.njit
def _work(worker, p, frame, order, blocks, sums):
    """The blocks worker, worker + nworkers, ... of the atoms ``order``; a block is (begin, end, type)."""
    T = p.padding.dtype
    nworkers, ntypes, width = len(sums.force), len(p.net), p.padding.shape[1]
    rows, most = 0, 0
    for begin, end, _ in blocks[worker::nworkers]:
        rows = max(rows, end - begin)
    for i in range(len(frame.first) - 1):
        most = max(most, frame.first[i + 1] - frame.first[i])
    near, pair = np.empty((3, most + 1), np.int64), np.empty((12, most + 1), T)
    count, spare, grad = np.zeros(ntypes, np.int64), np.zeros((1, 4, width), T), np.empty((4, width), T)
    features = p.fitting.layers[0, 0, 0]
    extra = frame.extra.shape[1]
    gather, inputs, energy = np.empty((rows, 4, width), T), np.empty(rows * features, T), np.empty(rows, T)
    slopes, values = workspace(p.fitting.layers[0], rows, T)
    for begin, end, t in blocks[worker::nworkers]:
        layers, n = p.fitting.layers[t], end - begin
        d = inputs[: n * features].reshape(n, features)
        if p.from_zero[t]:
            d[:] = 0
            d[:, features - extra :] = frame.extra[order[begin:end]]
            energy_and_gradient(d, layers, p.fitting.weights, energy[:n], slopes, values)
            for k in range(n):
                sums.energy[order[begin + k]] = -energy[k]
        for k in range(n):
            i = order[begin + k]
            rr = _forward(i, t, p, frame, near, pair, count, spare, gather[k])
            if rr < sums.closest[worker, 0]:
                sums.closest[worker, 0] = rr
                sums.closest[worker, 1], sums.closest[worker, 2] = i, near[2, 0]
            if rr < MIN_DISTANCE**2:
                return
            for tj in range(ntypes):
                sums.most[worker, tj] = max(sums.most[worker, tj], count[tj])
            _descriptor(gather[k], p.axis[0], d[k])
            d[k, features - extra :] = frame.extra[i]
        energy_and_gradient(d, layers, p.fitting.weights, energy[:n], slopes, values)
        for k in range(n):
            i = order[begin + k]
            sums.energy[i] += p.bias[t] + energy[k]
            _descriptor_gradient(gather[k], p.axis[0], d[k], grad)
            grad *= p.per_slot[0]
            if len(frame.weight):
                grad *= grad.dtype.type(frame.weight[i])
            _backward(
                i, t, p, frame, near, pair, count, spare, grad,
                sums.force[worker], sums.virial[worker], sums.atom_virial[worker],
            )  # fmt: skip


@jit(nogil=True)
def evaluate64(worker, p, frame, order, blocks, sums):
    """One worker's share of ``sums`` (zeros; closest inf), in float64."""
    _work(worker, p, frame, order, blocks, sums)


@jit(nogil=True)
def evaluate32(worker, p, frame, order, blocks, sums):
    """One worker's share of ``sums``, in float32 arithmetic."""
    _work(worker, p, frame, order, blocks, sums)
