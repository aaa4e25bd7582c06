"""The blend of a pair table into the energies of close atoms (model/shortrange.py has the equations), in Numba.

Around the kernel for the nets, which models without a table run alone, a worker goes through its atoms twice::

    weigh   1 - w(σ_i): by this the kernel multiplies the forces of the nets, ∂E_dp,i/∂x_ij
    blend   E_i from E_pair,i and E_dp,i, and the forces of the table and of the switch

The closest neighbor alone tells most atoms that w = 0: they need no exponential, and `blend` passes them over.
"""

from typing import NamedTuple

import numba
import numpy as np

from deepmd_lite.contract import MIN_DISTANCE
from deepmd_lite.jit import jit

NOTHING = np.zeros((0, 0))


class Table(NamedTuple):
    """A `model_file.ShortRange` as kernels read it; float64."""

    coefficients: np.ndarray  # (ntypes, ntypes, nintervals, 4), eV
    grid: np.ndarray  # (3,): first distance and where energies end, Å; 1/step
    switch: np.ndarray  # (3,): smin_alpha, sw_rmin, sw_rmax, Å
    rcut: np.ndarray  # (1,), Å
    seen: np.ndarray  # (ntypes, ntypes) bool: False where pair_exclude_types says so
    bias: np.ndarray  # (ntypes,), eV: what energies count from


def prepare(model):
    """`Table` of a `model_file.Model`; None without one."""
    t, rcut, ntypes = model.shortrange, model.descriptor.rcut, len(model.type_map)
    if t is None:
        return None
    seen = np.ones((ntypes, ntypes), bool)
    for a, b in model.pair_exclude_types:
        seen[a, b] = seen[b, a] = False
    return Table(
        np.ascontiguousarray(t.coefficients, float),
        np.array([t.start, min(rcut, t.start + t.step * t.coefficients.shape[2]), 1 / t.step]),
        np.array([t.smin_alpha, t.sw_rmin, t.sw_rmax]),
        np.array([rcut]),
        seen,
        np.asarray(model.out_bias, float),
    )


def blended(kernel, table, below):
    """A kernel of nets with a table around it.

    Parameters
    ----------
    kernel : kernels.evaluate64 or kernels.evaluate32
    table : Table
    below : (nworkers, 3) array of inf
        Filled like ``Sums.closest`` with a pair that is closer than the table begins.

    Returns
    -------
    function
        With the arguments of `kernel`; ``frame.weight`` is (nloc,).
    """

    def evaluate(worker, potential, frame, order, blocks, sums):
        bare = frame._replace(extra=NOTHING)  # one type of it, whatever the precision
        weigh(worker, table, bare, order, blocks, sums)
        kernel(worker, potential, frame, order, blocks, sums)
        blend(worker, table, bare, order, blocks, sums, below)

    return evaluate


@numba.njit
def _workspace(frame):
    """Places for the neighbors of one atom: their numbers, and two numbers for each."""
    most = 0
    for i in range(len(frame.first) - 1):
        most = max(most, frame.first[i + 1] - frame.first[i])
    return np.empty(most + 1, np.int64), np.empty((2, most + 1))


@numba.njit
def _neighbors(i, table, frame, near, pair):
    """Neighbors that i sees within rcut into ``near``, their r² into ``pair[0]``; their number, and the least r²."""
    coord, seen, limit = frame.coord, table.seen[frame.atype[i]], table.rcut[0] ** 2
    x, y, z = coord[i]
    closest, n = np.inf, 0
    for k in range(frame.first[i], frame.first[i + 1]):
        j = frame.index[k]
        dx, dy, dz = coord[j, 0] - x, coord[j, 1] - y, coord[j, 2] - z
        rr = dx * dx + dy * dy + dz * dz
        near[n], pair[0, n] = j, rr
        if rr < limit and seen[frame.atype[j]]:
            closest = min(closest, rr)
            n += 1
    return n, closest


@numba.njit
def _softmin(n, closest, alpha, pair):
    """σ_i of n neighbors; turns r² in ``pair[0]`` into r, and puts e_j / Σ e into ``pair[1]``."""
    total, sigma = 0.0, 0.0
    for k in range(n):
        pair[0, k] = np.sqrt(pair[0, k])
        pair[1, k] = np.exp((np.sqrt(closest) - pair[0, k]) / alpha)
        total += pair[1, k]
    for k in range(n):
        pair[1, k] /= total
        sigma += pair[1, k] * pair[0, k]
    return sigma


@numba.njit
def _switch(sigma, switch):
    """w and dw/dσ."""
    width = switch[2] - switch[1]
    u = min(max((sigma - switch[1]) / width, 0.0), 1.0)
    return 1 + u**3 * (-10 + u * (15 - 6 * u)), -30 * (u * (1 - u)) ** 2 / width


@numba.njit
def _energy(r, grid, coefficients):
    """V and dV/dr of a pair from the intervals of its types; the first one goes on below its beginning."""
    if r >= grid[1]:
        return 0.0, 0.0
    place = (r - grid[0]) * grid[2]
    k = min(max(int(place), 0), len(coefficients) - 1)
    c, u = coefficients[k], place - k
    v = c[3] + u * (c[2] + u * (c[1] + u * c[0]))
    return v, (c[2] + u * (2 * c[1] + u * 3 * c[0])) * grid[2]


@jit(nogil=True)
def weigh(worker, table, frame, order, blocks, sums):
    """``frame.weight``, 1 - w, of one worker's atoms."""
    near, pair = _workspace(frame)
    for begin, end, _ in blocks[worker :: len(sums.force)]:
        for i in order[begin:end]:
            n, closest = _neighbors(i, table, frame, near, pair)
            frame.weight[i] = 1.0
            if closest < table.switch[2] ** 2:
                sigma = _softmin(n, closest, table.switch[0], pair)
                frame.weight[i] = 1 - _switch(sigma, table.switch)[0]


@jit(nogil=True)
def blend(worker, table, frame, order, blocks, sums, below):
    """Blend the table into ``sums`` of one worker, whose energies and weighted forces of the nets are there."""
    if sums.closest[worker, 0] < MIN_DISTANCE**2:
        return  # the kernel stopped there
    near, pair = _workspace(frame)
    for begin, end, ti in blocks[worker :: len(sums.force)]:
        for i in order[begin:end]:
            if frame.weight[i] < 1:
                n, closest = _neighbors(i, table, frame, near, pair)
                nets = sums.energy[i] - table.bias[ti]
                whole = _along(i, n, closest, nets, table, frame, near, pair, below[worker])
                sums.energy[i] = table.bias[ti] + whole
                _add_forces(
                    i, n, frame, near, pair, sums.force[worker], sums.virial[worker], sums.atom_virial[worker]
                )


@numba.njit
def _along(i, n, closest, nets, table, frame, near, pair, below):
    """E_i - b of an atom with the energy ``nets`` = E_dp,i - b, and ∂E_i/∂r_ij / r_ij into ``pair[1]``."""
    alpha, energies = table.switch[0], table.coefficients[frame.atype[i]]
    sigma = _softmin(n, closest, alpha, pair)
    w, dw = _switch(sigma, table.switch)
    total = 0.0
    for k in range(n):
        total += _energy(pair[0, k], table.grid, energies[frame.atype[near[k]]])[0] / 2
        if pair[0, k] < table.grid[0] and pair[0, k] < below[0]:
            below[0], below[1], below[2] = pair[0, k], i, near[k]
    for k in range(n):
        r = pair[0, k]
        _, dv = _energy(r, table.grid, energies[frame.atype[near[k]]])
        dsigma = pair[1, k] * (1 - (r - sigma) / alpha)
        pair[1, k] = (w * dv / 2 + dw * (total - nets) * dsigma) / r
    return w * total + (1 - w) * nets


@numba.njit
def _add_forces(i, n, frame, near, pair, force, virial, shares):
    """Forces and virial of the n neighbors of i from ∂E_i/∂r_ij / r_ij in ``pair[1]``."""
    own, vector = frame.owner[i], np.empty(3)
    for k in range(n):
        j, along = near[k], pair[1, k]
        to = frame.owner[j]
        for d in range(3):
            vector[d] = frame.coord[j, d] - frame.coord[i, d]
        for a in range(3):
            gradient = along * vector[a]
            force[own, a] += gradient
            force[to, a] -= gradient
            for b in range(3):
                virial[3 * a + b] -= gradient * vector[b]
                if len(shares):
                    shares[to, 3 * a + b] -= gradient * vector[b]
