"""Sums over neighbors in a training step, as fused kernels: nothing of the size (pairs × M) is ever stored.

G depends on the scalar x = R~_ij[0] alone, so a step evaluates the embedding net on knots x_k and interpolates;
with Lagrange's weights w_a(x) of six knots around x, and w'_a = dw_a/dx,

    G_ij = Σ_a w_a T_a,   dG_ij/dx = Σ_a w'_a T_a,   T_k = net(x_k)                        (K, M) for each net

A training step needs four passes over the pairs. A dot is the derivative along a displacement of the atoms, in
which the loss's gradient with respect to the forces is turned (fused.py)::

    gather    A_i = 1/nsel Σ_j R~_ij ⊗ G_ij
    forces    ∂E/∂R~_ij = 1/nsel (P_i G_ij + (R~_ijᵀ P_i dG_ij/dx, 0, 0, 0)),  P_i = ∂E/∂A_i
    tangent   Ȧ_i = 1/nsel Σ_j (R~̇_ij ⊗ G_ij + R~_ij ⊗ dG_ij/dx ẋ_ij)
    scatter   ∂S/∂T_a of a scalar S(A, Ȧ), from ∂S/∂A_i and ∂S/∂Ȧ_i

Empty slots, sel[tj] less the neighbors there are, count as in model/descriptor.py. Knots lie evenly in
√(x - x_0 + δ): closer where s → 0, where most neighbors are and trained nets are steepest.
"""

from typing import NamedTuple

import numba
import numpy as np

BEFORE, AFTER = 2, 3  # knots used on either side of the interval that x is in
# Weights of six knots for h times the derivative half way between the third and the fourth.
HALF_WAY = np.array([-9, 125, -2250, 2250, -125, 9]) / 1920

# rows of `Work.v`: R~ (4), x_ij (3), r², x on the scale of knots, s'/r, t, t'/r, w (6), w' (6)
ROW, VEC, RR, PLACE, DS, TT, DT, WEIGHT, DWEIGHT, ROWS = 0, 4, 7, 8, 9, 10, 11, 12, 18, 24
# rows of `Work.k`: the first of six knots, counted over all nets; the atom that j is an image of; the net
KNOT, OTHER, NET = range(3)


class Geometry(NamedTuple):
    """What the descriptor is made of, apart from its nets."""

    cutoff: np.ndarray  # (3,) T: rcut, rcut_smth, env_protection, Å
    davg: np.ndarray  # (ntypes,) T
    inverse_std: np.ndarray  # (ntypes, 2) T: of s and of the other three columns
    sel: np.ndarray  # (ntypes,) T
    axis: np.ndarray  # (1,) int64: M₂
    net: np.ndarray  # (ntypes, ntypes) int64: embedding net of (ti, tj); -1: they do not see each other
    empty: np.ndarray  # (ntypes, ntypes) int64: the same for empty slots
    start: np.ndarray  # (nnets,) T: x_0
    shift: np.ndarray  # (nnets,) T: δ
    step: np.ndarray  # (nnets,) T: distance of knots in √(x - x_0 + δ)
    nknots: np.ndarray  # (1,) int64: K


class Frames(NamedTuple):
    """Atoms of a batch, as in `model.batch.Batch`."""

    coord: np.ndarray  # (nall, 3) float64
    atype: np.ndarray  # (nall,) int32
    owner: np.ndarray  # (nall,) int32
    frame: np.ndarray  # (natoms,) int32
    row: np.ndarray  # (natoms,) int32
    first: np.ndarray  # (natoms + 1,) int64
    index: np.ndarray  # (npairs,) int32
    extra: np.ndarray  # (natoms, numb_fparam + numb_aparam) T, on the scale of their spread


class Work(NamedTuple):
    """Of one atom at a time."""

    v: np.ndarray  # (ROWS, most) T
    k: np.ndarray  # (3, most) int64
    count: np.ndarray  # (ntypes,) int64: pairs by type of neighbor
    slot: np.ndarray  # (ROWS, 1) T: for an empty slot
    g: np.ndarray  # (2, M) T


def knots(start, stop, count):
    """Knots x_k (nnets, count) that cover each [start, stop] (nnets,), with BEFORE and AFTER more; δ; the step."""
    shift = 0.02 * (stop - start)
    step = (np.sqrt(stop - start + shift) - np.sqrt(shift)) / (count - BEFORE - AFTER - 1.001)
    places = np.sqrt(shift)[..., None] + step[..., None] * (np.arange(count) - BEFORE)
    return (start - shift)[..., None] + places**2, shift, step


@numba.njit
def workspace(geometry, frames, width):
    """A `Work` for any atom of the frames; M is ``width``."""
    most, dtype = 1, geometry.davg.dtype
    for i in range(len(frames.row)):
        most = max(most, frames.first[i + 1] - frames.first[i])
    return Work(
        np.empty((ROWS, most), dtype),
        np.empty((3, most), np.int64),
        np.zeros(len(geometry.sel), np.int64),
        np.empty((ROWS, 1), dtype),
        np.empty((2, width), dtype),
    )


@numba.njit
def _lagrange(u, slope, v, n):
    """Lagrange's weights of the knots -2 ... 3 at u, and ``slope`` times their derivatives, into v[WEIGHT:, n]."""
    T = v.dtype.type
    a, b, c, d, e, f = u + T(2), u + T(1), u, u - T(1), u - T(2), u - T(3)
    ab, cd, ef = a * b, c * d, e * f
    d_ab, d_cd, d_ef = a + b, c + d, e + f  # by u
    abcd, abef, cdef = ab * cd, ab * ef, cd * ef
    d_abcd, d_abef, d_cdef = d_ab * cd + ab * d_cd, d_ab * ef + ab * d_ef, d_cd * ef + cd * d_ef
    tail, middle, near = T(1 / 120), T(1 / 24), T(1 / 12)
    v[WEIGHT, n], v[DWEIGHT, n] = -tail * b * cdef, -tail * slope * (cdef + b * d_cdef)
    v[WEIGHT + 1, n], v[DWEIGHT + 1, n] = middle * a * cdef, middle * slope * (cdef + a * d_cdef)
    v[WEIGHT + 2, n], v[DWEIGHT + 2, n] = -near * d * abef, -near * slope * (abef + d * d_abef)
    v[WEIGHT + 3, n], v[DWEIGHT + 3, n] = near * c * abef, near * slope * (abef + c * d_abef)
    v[WEIGHT + 4, n], v[DWEIGHT + 4, n] = -middle * f * abcd, -middle * slope * (abcd + f * d_abcd)
    v[WEIGHT + 5, n], v[DWEIGHT + 5, n] = tail * e * abcd, tail * slope * (abcd + e * d_abcd)


@numba.njit(error_model="numpy")  # a division that may raise is not vectorized
def _knots_of(n, v, k, g):
    """Rows of ``v`` and ``k`` that hold the knots of n pairs and their weights, from ROW and NET."""
    T, nknots = v.dtype.type, g.nknots[0]
    for p in range(n):
        net = k[NET, p]
        root = np.sqrt(max(v[ROW, p] - g.start[net] + g.shift[net], T(0)))
        step = g.step[net]
        v[PLACE, p] = (root - np.sqrt(g.shift[net])) / step
        v[RR, p] = T(0.5) / (root * step)  # d(place)/dx
    for p in range(n):
        whole = int(max(v[PLACE, p], T(0)))
        k[KNOT, p] = whole
        _lagrange(v[PLACE, p] - T(whole), v[RR, p], v, p)
    outside = 0
    for p in range(n):
        outside += k[KNOT, p] + BEFORE + AFTER + 1 > nknots
        k[KNOT, p] = k[NET, p] * nknots + min(k[KNOT, p], nknots - BEFORE - AFTER - 1)
    return outside


@numba.njit(error_model="numpy")
def pairs_of(i, g, frames, work):
    """Fill ``work`` with the pairs of atom i that see each other: (their number, how many are beyond the knots)."""
    v, k, T = work.v, work.k, work.v.dtype.type
    center = frames.row[i]
    ti, n = frames.atype[center], 0
    x, y, z = frames.coord[center]
    work.count[:] = 0
    for p in range(frames.first[i], frames.first[i + 1]):
        j = frames.index[p]
        net = g.net[ti, frames.atype[j]]
        dx, dy, dz = frames.coord[j, 0] - x, frames.coord[j, 1] - y, frames.coord[j, 2] - z
        v[VEC, n], v[VEC + 1, n], v[VEC + 2, n] = T(dx), T(dy), T(dz)
        v[RR, n] = T(dx * dx + dy * dy + dz * dz)
        k[OTHER, n], k[NET, n] = frames.owner[j], net
        work.count[frames.atype[j]] += net >= 0
        n += net >= 0
    rcut, smooth, protection = g.cutoff
    width, mean, scale, scales = (
        T(1) / (rcut - smooth),
        g.davg[ti],
        g.inverse_std[ti, 0],
        g.inverse_std[ti, 1],
    )
    for p in range(n):
        r = np.sqrt(v[RR, p])
        u = min(max((r - smooth) * width, T(0)), T(1))
        slope = u * (T(1) - u)
        q = T(1) / (r + protection)
        s = (T(1) + u * u * u * (u * (T(15) - T(6) * u) - T(10))) * q
        ds = (T(-30) * slope * slope * width - s) * q
        t = s * q
        v[ROW, p] = (s - mean) * scale
        v[DS, p], v[TT, p], v[DT, p] = ds / r, t, (ds - t) * q / r
        t *= scales
        v[ROW + 1, p], v[ROW + 2, p], v[ROW + 3, p] = t * v[VEC, p], t * v[VEC + 1, p], t * v[VEC + 2, p]
    return n, _knots_of(n, v, k, g)


@numba.njit
def _empty_slots(ti, tj, g, work):
    """Of the empty slots of tj around an atom: their number times x; the first knot. Weights go into work.slot."""
    T = work.v.dtype.type
    x = -g.davg[ti] * g.inverse_std[ti, 0]
    work.slot[ROW, 0], work.k[NET, 0] = x, g.empty[ti, tj]
    _knots_of(1, work.slot, work.k, g)
    return (g.sel[tj] - T(work.count[tj])) * x, work.k[KNOT, 0]


@numba.njit(fastmath={"contract"})
def _interpolate(tables, knot, v, n, g):
    """G into g (M,)."""
    w0, w1, w2 = v[WEIGHT, n], v[WEIGHT + 1, n], v[WEIGHT + 2, n]
    w3, w4, w5 = v[WEIGHT + 3, n], v[WEIGHT + 4, n], v[WEIGHT + 5, n]
    t0, t1, t2, t3, t4, t5 = (
        tables[knot], tables[knot + 1], tables[knot + 2], tables[knot + 3], tables[knot + 4], tables[knot + 5],
    )  # fmt: skip
    for m in range(len(g)):
        g[m] = w0 * t0[m] + w1 * t1[m] + w2 * t2[m] + w3 * t3[m] + w4 * t4[m] + w5 * t5[m]


@numba.njit(fastmath={"contract"})
def _interpolate_both(tables, knot, v, n, g):
    """G into g[0], dG/dx into g[1]; g is (2, M)."""
    w0, w1, w2 = v[WEIGHT, n], v[WEIGHT + 1, n], v[WEIGHT + 2, n]
    w3, w4, w5 = v[WEIGHT + 3, n], v[WEIGHT + 4, n], v[WEIGHT + 5, n]
    d0, d1, d2 = v[DWEIGHT, n], v[DWEIGHT + 1, n], v[DWEIGHT + 2, n]
    d3, d4, d5 = v[DWEIGHT + 3, n], v[DWEIGHT + 4, n], v[DWEIGHT + 5, n]
    t0, t1, t2, t3, t4, t5 = (
        tables[knot], tables[knot + 1], tables[knot + 2], tables[knot + 3], tables[knot + 4], tables[knot + 5],
    )  # fmt: skip
    value, slope = g[0], g[1]
    for m in range(len(value)):
        value[m] = w0 * t0[m] + w1 * t1[m] + w2 * t2[m] + w3 * t3[m] + w4 * t4[m] + w5 * t5[m]
        slope[m] = d0 * t0[m] + d1 * t1[m] + d2 * t2[m] + d3 * t3[m] + d4 * t4[m] + d5 * t5[m]


@numba.njit(fastmath={"contract"})
def _add_dyad(r0, r1, r2, r3, g, a):
    """a (4, M) += (r0, r1, r2, r3) ⊗ g."""
    for m in range(len(g)):
        a[0, m] += r0 * g[m]
        a[1, m] += r1 * g[m]
        a[2, m] += r2 * g[m]
        a[3, m] += r3 * g[m]


@numba.njit
def gather(i, g, frames, tables, work, a):
    """nsel A_i into a (4, M), after `pairs_of`; returns what that returned."""
    v, ti = work.v, frames.atype[frames.row[i]]
    n, outside = pairs_of(i, g, frames, work)
    a[:] = 0
    for p in range(n):
        _interpolate(tables, work.k[KNOT, p], v, p, work.g[0])
        _add_dyad(v[0, p], v[1, p], v[2, p], v[3, p], work.g[0], a)
    for tj in range(len(g.sel)):
        if g.empty[ti, tj] >= 0:
            x, knot = _empty_slots(ti, tj, g, work)
            _interpolate(tables, knot, work.slot, 0, work.g[0])
            for m in range(a.shape[1]):
                a[0, m] += x * work.g[0, m]
    return outside


@numba.njit(fastmath=True)
def _contract(r0, r1, r2, r3, g, p):
    """(p G for each row of p; rᵀ p dG/dx): sums over outputs, in any order."""
    q0 = q1 = q2 = q3 = along = r0 - r0
    value, slope = g[0], g[1]
    for m in range(len(value)):
        q0 += p[0, m] * value[m]
        q1 += p[1, m] * value[m]
        q2 += p[2, m] * value[m]
        q3 += p[3, m] * value[m]
        along += (r0 * p[0, m] + r1 * p[1, m] + r2 * p[2, m] + r3 * p[3, m]) * slope[m]
    return q0, q1, q2, q3, along


@numba.njit
def forces(i, g, frames, tables, work, slopes, force, virial):
    """Add the forces and the virial of the pairs of i, from ``slopes`` = ∂E/∂(nsel A_i) (4, M)."""
    v = work.v
    n, _ = pairs_of(i, g, frames, work)
    scale, scales = g.inverse_std[frames.atype[frames.row[i]]]
    fx = fy = fz = 0.0
    for p in range(n):
        _interpolate_both(tables, work.k[KNOT, p], v, p, work.g)
        q0, q1, q2, q3, along = _contract(v[0, p], v[1, p], v[2, p], v[3, p], work.g, slopes)
        q0, q1, q2, q3 = (q0 + along) * scale, q1 * scales, q2 * scales, q3 * scales
        x, y, z = v[VEC, p], v[VEC + 1, p], v[VEC + 2, p]
        radial = q0 * v[DS, p] + (q1 * x + q2 * y + q3 * z) * v[DT, p]
        gx = np.float64(radial * x + v[TT, p] * q1)
        gy = np.float64(radial * y + v[TT, p] * q2)
        gz = np.float64(radial * z + v[TT, p] * q3)
        fx, fy, fz = fx + gx, fy + gy, fz + gz
        j = work.k[OTHER, p]
        force[j, 0] -= gx
        force[j, 1] -= gy
        force[j, 2] -= gz
        virial[0, 0] -= gx * x
        virial[0, 1] -= gx * y
        virial[0, 2] -= gx * z
        virial[1, 0] -= gy * x
        virial[1, 1] -= gy * y
        virial[1, 2] -= gy * z
        virial[2, 0] -= gz * x
        virial[2, 1] -= gz * y
        virial[2, 2] -= gz * z
    force[i, 0] += fx
    force[i, 1] += fy
    force[i, 2] += fz


@numba.njit
def _turn(i, p, scale, scales, v, j, d_force, d_virial):
    """R~̇ of pair p: along the displacement ∂L/∂F_i - ∂L/∂F_j - ∂L/∂Ξ x_ij of its vector."""
    T = v.dtype.type
    x, y, z, w = v[VEC, p], v[VEC + 1, p], v[VEC + 2, p], d_virial
    dx = T(d_force[i, 0] - d_force[j, 0] - (w[0, 0] * x + w[0, 1] * y + w[0, 2] * z))
    dy = T(d_force[i, 1] - d_force[j, 1] - (w[1, 0] * x + w[1, 1] * y + w[1, 2] * z))
    dz = T(d_force[i, 2] - d_force[j, 2] - (w[2, 0] * x + w[2, 1] * y + w[2, 2] * z))
    along, t = x * dx + y * dy + z * dz, v[TT, p]
    turn = along * v[DT, p]
    return (
        scale * along * v[DS, p],
        scales * (turn * x + t * dx),
        scales * (turn * y + t * dy),
        scales * (turn * z + t * dz),
    )


@numba.njit(fastmath={"contract"})
def _add_dyads(r0, r1, r2, r3, d0, d1, d2, d3, g, b):
    """b (4, M) += (d0, d1, d2, d3) ⊗ G + d0 (r0, r1, r2, r3) ⊗ dG/dx."""
    value, slope = g[0], g[1]
    r0, r1, r2, r3 = d0 * r0, d0 * r1, d0 * r2, d0 * r3
    for m in range(len(value)):
        b[0, m] += d0 * value[m] + r0 * slope[m]
        b[1, m] += d1 * value[m] + r1 * slope[m]
        b[2, m] += d2 * value[m] + r2 * slope[m]
        b[3, m] += d3 * value[m] + r3 * slope[m]


@numba.njit
def tangent(i, g, frames, tables, work, d_force, d_virial, b):
    """nsel Ȧ_i into b (4, M)."""
    v = work.v
    n, _ = pairs_of(i, g, frames, work)
    scale, scales = g.inverse_std[frames.atype[frames.row[i]]]
    b[:] = 0
    for p in range(n):
        _interpolate_both(tables, work.k[KNOT, p], v, p, work.g)
        d0, d1, d2, d3 = _turn(i, p, scale, scales, v, work.k[OTHER, p], d_force, d_virial)
        _add_dyads(v[0, p], v[1, p], v[2, p], v[3, p], d0, d1, d2, d3, work.g, b)


@numba.njit(fastmath={"contract"})
def _adjoint(r0, r1, r2, r3, d0, d1, d2, d3, a, b, g):
    """∂S/∂G into g[0], ∂S/∂(dG/dx) into g[1], from a = ∂S/∂A, b = ∂S/∂Ȧ."""
    value, slope = g[0], g[1]
    for m in range(len(value)):
        b0, b1, b2, b3 = b[0, m], b[1, m], b[2, m], b[3, m]
        value[m] = (
            r0 * a[0, m] + r1 * a[1, m] + r2 * a[2, m] + r3 * a[3, m] + d0 * b0 + d1 * b1 + d2 * b2 + d3 * b3
        )
        slope[m] = d0 * (r0 * b0 + r1 * b1 + r2 * b2 + r3 * b3)


@numba.njit(fastmath={"contract"})
def _spread(v, n, g, gradient, knot):
    """Add w_a g[0] + w'_a g[1] to the gradients of the six knots."""
    value, slope = g[0], g[1]
    for a in range(6):
        w, dw, row = v[WEIGHT + a, n], v[DWEIGHT + a, n], gradient[knot + a]
        for m in range(len(row)):
            row[m] += w * value[m] + dw * slope[m]


@numba.njit
def scatter(i, g, frames, work, d_force, d_virial, a, b, gradient):
    """Add ∂S/∂T, from a = ∂S/∂(nsel A_i) and b = ∂S/∂(nsel Ȧ_i)."""
    v, ti = work.v, frames.atype[frames.row[i]]
    n, _ = pairs_of(i, g, frames, work)
    scale, scales = g.inverse_std[ti]
    for p in range(n):
        d0, d1, d2, d3 = _turn(i, p, scale, scales, v, work.k[OTHER, p], d_force, d_virial)
        _adjoint(v[0, p], v[1, p], v[2, p], v[3, p], d0, d1, d2, d3, a, b, work.g)
        _spread(v, p, work.g, gradient, work.k[KNOT, p])
    for tj in range(len(g.sel)):
        if g.empty[ti, tj] >= 0:
            x, knot = _empty_slots(ti, tj, g, work)
            for m in range(a.shape[1]):
                work.g[0, m], work.g[1, m] = x * a[0, m], x - x
            _spread(work.slot, 0, work.g, gradient, knot)
