"""Energy, forces and virial as linear functions of the last layer of the fitting nets.

With h_i, what the last layer of the net of type t_i reads (H numbers), its weights w_t and its bias b_t,

    E = Σ_i (h_i · w_ti + b_ti) + e,    F_k = -Σ_i ∂h_i/∂x_k · w_ti,    Ξ_ab = -Σ_ij (∂h_i/∂x_ij)_a (x_ij)_b · w_ti

so that, with the coefficients c = (w_0, b_0, w_1, b_1, ...), K = ntypes (H + 1) numbers, each is a row of features
times c, and e, the energies of the elements, is all that c does not reach. `Features` makes these rows. Derivatives
go forward from the neighbors to h, in the 3n directions of the n neighbors of an atom at once::

    ∂A/∂x_ij (3n, 4M)  ─> times ∂z/∂A (4M, n₁), z of the first layer  ─> layer after layer  ─> ∂h/∂x_ij (3n, H)

all as matrix products of BLAS. D is quadratic in A, so the first layer needs no ∂D, which would be four times as
wide: with its weights W_(mb),k, ∂z_k/∂A_cm = Σ_b W_(mb),k A_cb + [m < M₂] Σ_a W_(am),k A_ca.
"""

import copy
from dataclasses import replace
from typing import NamedTuple

import numba
import numpy as np

from deepmd_lite.box import extend
from deepmd_lite.contract import MIN_DISTANCE, refuse_overlap
from deepmd_lite.engine import kernels, network
from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.errors import ConfigError
from deepmd_lite.jit import jit
from deepmd_lite.model_file import Layer
from deepmd_lite.neighbors import cell_list
from deepmd_lite.workers import run_on_threads

BLOCK = 8  # atoms whose ∂z/∂A, 0.8 MB each for nets of 240 on M = 100, are one matrix product
NO_POSTERIOR = (
    "the model holds no covariance of its last layer, from which uncertainties come: put it there with "
    "dplite refit model.dp -s FRAMES --keep-weights -o model.dp, where FRAMES are those it was trained on"
)


class Rows(NamedTuple):
    """Features of one structure: energy = ``energy`` · c + ``constant`` and so on, in eV and Å."""

    energy: np.ndarray  # (K,)
    force: np.ndarray  # (natoms, 3, K)
    virial: np.ndarray  # (3, 3, K)
    constant: float  # eV


class Hidden(NamedTuple):
    """The fitting nets without their last layers as the kernel reads them; float64."""

    nets: network.Networks
    turned: np.ndarray  # (ntypes, M₂, M n₁): weights of the first layer for D_mb, b first


class Work(NamedTuple):
    """Of a block of n atoms, and of one atom at a time with at most m neighbors."""

    near: np.ndarray  # (3, m + 1) int64, as in `kernels`
    pair: np.ndarray  # (12, m + 1), likewise
    count: np.ndarray  # (ntypes,) int64, likewise
    spare: np.ndarray  # (1, 4, M), likewise
    g: np.ndarray  # (2, M): G and dG/dx of a pair
    a: np.ndarray  # (n, 4, M): A
    x: np.ndarray  # (n, nin): D, and what follows it
    slopes: np.ndarray  # as in `network`
    values: np.ndarray  # likewise
    q: np.ndarray  # (n, 4, M, n₁): ∂z/∂A
    more: np.ndarray  # (4 n M₂ n₁,)
    tangents: np.ndarray  # (3, size): derivatives by all x_ij, of A, and of two layers in turn


class Sums(NamedTuple):
    """Results, by worker."""

    energy: np.ndarray  # (nworkers, K), zeros
    force: np.ndarray  # (nworkers, natoms, 3, K), zeros
    virial: np.ndarray  # (nworkers, 3, 3, K), zeros
    closest: np.ndarray  # (nworkers, 3): r² of the closest pair, and its two atoms


class Features:
    """The rows of features of a model.

    Parameters
    ----------
    model : model_file.Model
    threads : int, optional
        As many as Numba has when left out.

    Raises
    ------
    ConfigError
        As `check_linear`.
    """

    def __init__(self, model, threads=None):
        check_linear(model)
        self.model, self.width = model, len(model.fitting.nets[0][-1].w)
        self._potential = CompiledPot(model, threads=threads, block=BLOCK)
        self._hidden = _prepare(model)
        ignored = [t in model.atom_exclude_types for t in range(len(model.type_map))]
        self._constant = np.where(ignored, 0, model.fitting.bias_atom_e + model.out_bias)

    @property
    def size(self):
        """K."""
        return len(self.model.type_map) * (self.width + 1)

    def __call__(self, coord, atype, box, pbc, fparam=None, aparam=None):
        """`Rows` of one structure; arguments as for `CompiledPot.evaluate`.

        Raises
        ------
        DomainError
            Two atoms closer than 0.01 Å.
        """
        potential, natoms = self._potential, len(atype)
        ghosts = extend(coord, box, pbc, potential.rcut)
        table = cell_list(ghosts.coord, natoms, potential.rcut)
        frame = potential.frame(ghosts, table, atype, fparam, aparam)
        order, blocks = potential._blocks(frame.atype[:natoms], 1)
        nworkers = min(potential.threads, max(1, len(blocks)))
        sums = Sums(
            np.zeros((nworkers, self.size)),
            np.zeros((nworkers, natoms, 3, self.size)),
            np.zeros((nworkers, 3, 3, self.size)),
            np.full((nworkers, 3), np.inf),
        )
        run_on_threads(features, nworkers, potential._potential, self._hidden, frame, order, blocks, sums)
        rr, i, j = min(sums.closest.tolist())
        if rr < MIN_DISTANCE**2:
            refuse_overlap(frame.coord, int(i), int(j), frame.owner)
        energy, force, virial = (x[0] if nworkers == 1 else x.sum(axis=0) for x in sums[:3])
        return Rows(energy, force, virial, float(self._constant[np.asarray(atype)].sum()))


def check_linear(model):
    """Raise ConfigError where the energy is not linear in the last layers, or not in them alone."""
    if model.shortrange is not None:
        raise ConfigError(
            "the last layer of a model with a pair table (use_srtab): the part of the nets in its energy changes "
            "with the distances, which is not supported; use a model without a table"
        )
    for net in model.fitting.nets:
        last = net[-1]
        if len(net) < 2 or last.b is None or last.idt is not None or (last.resnet and len(last.w) == 1):
            raise ConfigError(
                "the last layer of the fitting nets: expected hidden layers and then y = x w + b, found another shape"
            )


def coefficients(model):
    """c (K,) of a model."""
    return np.concatenate([x.ravel() for net in model.fitting.nets for x in (net[-1].w, net[-1].b)]).astype(
        float
    )


def with_coefficients(model, c):
    """The model with other coefficients c (K,), rounded to the precision of its nets."""
    fitting, nets = model.fitting, []
    for net, part in zip(fitting.nets, np.reshape(c, (len(fitting.nets), -1))):
        part = part.astype(fitting.precision)
        nets.append([*net[:-1], replace(net[-1], w=part[:-1, None].copy(), b=part[-1:].copy())])
    return replace(model, fitting=replace(fitting, nets=nets))


def sampled(potential, count, rng):
    """Random deviations from a `CompiledPot` whose model has a posterior: energies and forces φ · L ξ, ξ ~ N(0, 1).

    They share all but the last layer with it, its tables too.
    """
    check_linear(potential.model)
    p, factor, found = potential._potential, potential.model.posterior.factor, []
    for _ in range(count):
        weights = p.fitting.weights.copy()
        parts = np.reshape(factor @ rng.standard_normal(len(factor)), (len(p.fitting.layers), -1))
        for (_, _, w, b, *_), part in zip(p.fitting.layers[:, -1], parts):
            weights[w : w + len(part) - 1], weights[b] = part[:-1], part[-1]
        twin = copy.copy(potential)
        fitting = p.fitting._replace(weights=weights)
        twin._potential = p._replace(fitting=fitting, bias=np.zeros_like(p.bias))
        found.append(twin)
    return found


def _prepare(model):
    """`Hidden` of a model. Where a net passes D on, the unit matrix becomes its first layer."""
    d, nets, turned = model.descriptor, [], []
    for net in model.fitting.nets:
        hidden = net[:-1]
        nin, nout = net[0].w.shape
        if hidden[0].resnet and nout in (nin, 2 * nin):
            hidden = [Layer(w=np.eye(nin), b=None, idt=None, activation="none", resnet=False), *hidden]
        nets.append(hidden)
        w = hidden[0].w[: d.dim].astype(float).reshape(d.neuron[-1], d.axis_neuron, -1)
        turned.append(w.transpose(1, 0, 2).reshape(d.axis_neuron, -1))
    return Hidden(network.flatten(nets), np.array(turned))


@numba.njit
def _first_layer(a, layer, weights, turned, q, spare):
    """∂z/∂A of the first layer for each of n atoms into q (n, 4, M, n₁), from A (n, 4, M); ``spare`` is flat."""
    n, width, axis, nout = len(a), a.shape[2], len(turned), layer[1]
    some = np.ascontiguousarray(a[:, :, :axis]).reshape(4 * n, axis)
    np.dot(some, turned, q.reshape(4 * n, width * nout))
    w = weights[layer[2] : layer[2] + width * axis * nout].reshape(width, axis * nout)
    more = spare[: 4 * n * axis * nout].reshape(4 * n, axis * nout)
    np.dot(a.reshape(4 * n, width), w, more)
    q.reshape(4 * n, width * nout)[:, : axis * nout] += more


@numba.njit(fastmath={"contract"})
def _directions(n, t, p, near, pair, spare, g, da):
    """∂A/∂x_ij of the n neighbors of an atom of type t: da (3n, 4M); ``g`` is (2, M)."""
    scale, scales = p.inverse_std[t, 0] * p.per_slot[0], p.inverse_std[t, 1] * p.per_slot[0]
    width = g.shape[1]
    for k in range(n):
        part, u, inverse = kernels._place(pair[kernels.ROW, k], near[1, k], p.tables)
        c = p.tables.coefficients
        if part < 0:
            kernels._from_net(pair[kernels.ROW, k], near[1, k], p.embedding, spare)
            c, part, inverse = spare, 0, 1.0
        for m in range(width):
            g[0, m] = c[part, 0, m] + u * (c[part, 1, m] + u * (c[part, 2, m] + u * c[part, 3, m]))
            g[1, m] = inverse * (c[part, 1, m] + u * (2 * c[part, 2, m] + u * (3 * c[part, 3, m])))
        along_s, along_t = (
            pair[kernels.DS, k] * pair[kernels.INV, k],
            pair[kernels.DT, k] * pair[kernels.INV, k],
        )
        for x in range(3):
            row = da[3 * k + x]
            place = pair[kernels.X + x, k]
            ds = scale * along_s * place  # of R~_0, which moves all rows through G
            for y in range(4):
                if y == 0:
                    direct = ds
                else:
                    direct = scales * along_t * place * pair[kernels.X + y - 1, k]
                    if y == x + 1:
                        direct += scales * pair[kernels.TT, k]
                through = ds * pair[kernels.ROW + y, k]
                for m in range(width):
                    row[y * width + m] = direct * g[0, m] + through * g[1, m]


@numba.njit(fastmath={"contract"})
def _add(n, i, column, h, frame, near, pair, force, virial):
    """Add forces and virial of ∂h_i/∂x_ij = h (3n, H) to the columns from ``column`` on."""
    own, width = frame.owner[i], h.shape[1]
    for k in range(n):
        to = frame.owner[near[0, k]]
        for x in range(3):
            row = h[3 * k + x]
            mine, other = force[own, x], force[to, x]
            for c in range(width):
                mine[column + c] += row[c]
                other[column + c] -= row[c]
            for y in range(3):
                place, share = pair[kernels.X + y, k], virial[x, y]
                for c in range(width):
                    share[column + c] -= row[c] * place


@numba.njit
def _pass(t, hidden, slopes, places, k, q, tangents, n):
    """∂h/∂x_ij (3n, H) of atom k of a block; ``tangents`` (3, size) has ∂A/∂x_ij (3n, 4M) in its first row."""
    layers, weights, rows, now = hidden.nets.layers[t], hidden.nets.weights, 3 * n, 0
    nin = q.shape[0] * q.shape[1]
    for level in range(len(layers)):
        nout, w = layers[level, 1], layers[level, 2]
        x = tangents[now, : rows * nin].reshape(rows, nin)
        y = tangents[1 + level % 2, : rows * nout].reshape(rows, nout)
        if level == 0:
            np.dot(x, q.reshape(nin, nout), y)
        else:
            np.dot(x, weights[w : w + nin * nout].reshape(nin, nout), y)
        place = places[level] + k * nout
        slope = slopes[place : place + nout]
        for row in range(rows):
            for c in range(nout):
                y[row, c] *= slope[c]
        if level > 0:
            network._add_residual(x, layers[level, 5], y)
        nin, now = nout, 1 + level % 2
    return tangents[now, : rows * nin].reshape(rows, nin)


@numba.njit
def _workspace(p, layers, frame, n):
    """A `Work` for blocks of up to n atoms; ``layers`` are those of any net."""
    width, most = p.padding.shape[1], 1
    for i in range(len(frame.first) - 1):
        most = max(most, frame.first[i + 1] - frame.first[i])
    first, widest = layers[0, 1], layers[:, 1].max()
    slopes, values = network.workspace(layers, n, np.float64)
    return Work(
        np.empty((3, most + 1), np.int64),
        np.empty((12, most + 1)),
        np.zeros(len(p.net), np.int64),
        np.zeros((1, 4, width)),
        np.empty((2, width)),
        np.empty((n, 4, width)),
        np.zeros((n, layers[0, 0])),
        slopes,
        values,
        np.empty((n, 4, width, first)),
        np.empty(4 * n * p.axis[0] * first),
        np.empty((3, 3 * most * max(4 * width, widest))),
    )


@numba.njit
def _add_hidden(x, t, sign, hidden, work, energy):
    """Add ± h of rows x (n, nin) to the columns of type t; returns where the slopes of each layer begin."""
    h, places = network.forward(x, hidden.nets.layers[t], hidden.nets.weights, work.slopes, work.values)
    width = h.shape[1]
    column = t * (width + 1)
    for k in range(len(h)):
        for c in range(width):
            energy[column + c] += sign * h[k, c]
    energy[column + width] += sign * len(h)
    return places


@numba.njit
def _energies(atoms, t, p, hidden, frame, work, energy, closest):
    """Energies of a block of atoms of type t; leaves A and slopes in ``work``, and returns where those begin.

    Atoms on top of each other end it early; ``closest`` tells.
    """
    x, axis, width = work.x[: len(atoms)], p.axis[0], p.padding.shape[1]
    for k in range(len(atoms)):
        x[k, axis * width :] = frame.extra[atoms[k]]
    if p.from_zero[t]:
        x[:, : axis * width] = 0
        _add_hidden(x, t, -1, hidden, work, energy)
    for k in range(len(atoms)):
        i, a, d = atoms[k], work.a[k], x[k]
        rr = kernels._forward(i, t, p, frame, work.near, work.pair, work.count, work.spare, a)
        if rr < closest[0]:
            closest[0], closest[1], closest[2] = rr, i, work.near[2, 0]
        if rr < MIN_DISTANCE**2:
            break
        for m in range(width):
            for b in range(axis):
                d[m * axis + b] = (
                    a[0, m] * a[0, b] + a[1, m] * a[1, b] + a[2, m] * a[2, b] + a[3, m] * a[3, b]
                )
    return _add_hidden(x, t, 1, hidden, work, energy)


@jit(nogil=True)
def features(worker, p, hidden, frame, order, blocks, sums):
    """One worker's share of ``sums``; p is a `kernels.Potential` in float64, the rest as in `kernels`."""
    nworkers, width, n = len(sums.energy), p.padding.shape[1], 0
    for begin, end, _ in blocks[worker::nworkers]:
        n = max(n, end - begin)
    work, closest = _workspace(p, hidden.nets.layers[0], frame, n), sums.closest[worker]
    near, pair = work.near, work.pair
    for begin, end, t in blocks[worker::nworkers]:
        atoms, layers = order[begin:end], hidden.nets.layers[t]
        places = _energies(atoms, t, p, hidden, frame, work, sums.energy[worker], closest)
        if closest[0] < MIN_DISTANCE**2:
            return
        q = work.q[: len(atoms)]
        _first_layer(work.a[: len(atoms)], layers[0], hidden.nets.weights, hidden.turned[t], q, work.more)
        for k in range(len(atoms)):
            found, _ = kernels._neighbors(atoms[k], p, frame, near, pair, work.count)
            kernels._rows(found, t, p, pair)
            da = work.tangents[0, : 3 * found * 4 * width].reshape(3 * found, 4 * width)
            _directions(found, t, p, near, pair, work.spare, work.g, da)
            dh = _pass(t, hidden, work.slopes, places, k, q[k], work.tangents, found)
            column = t * (dh.shape[1] + 1)
            _add(found, atoms[k], column, dh, frame, near, pair, sums.force[worker], sums.virial[worker])
