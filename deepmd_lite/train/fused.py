"""The potential as training runs it on a CPU: the same numbers as `model.potential.DeepPot`, several times faster.

The loss L depends on the parameters θ through energies, forces and virials. With ∂L/∂E, λ = ∂L/∂F and Λ = ∂L/∂Ξ
at hand, its gradient is that of a scalar in which forces no longer occur, because F and Ξ are themselves
derivatives of E, and E moves along (λ, Λ) at a rate linear in them::

    ∇_θ L = ∇_θ S,   S = Σ_frames ∂L/∂E E + Σ_i Ė_i(A_i, Ȧ_i)

where a dot is the derivative as the vectors x_ij move along λ_i - λ_j - Λ x_ij, and A_i, of model/descriptor.py, is
what E_i depends on. So one pass forward along that direction and one back are enough: no graph over pairs, and no
second derivatives of the embedding nets. Those are evaluated at knots (pairs.py), through which gradients return
to their weights.
"""

import copy
from contextlib import contextmanager

import numpy as np
import torch

from deepmd_lite.contract import Prediction
from deepmd_lite.engine.network import flatten
from deepmd_lite.errors import DomainError
from deepmd_lite.model.descriptor import radial
from deepmd_lite.train import kernels, pairs
from deepmd_lite.workers import run_on_threads

SMOOTH = ("tanh", "sigmoid", "softplus", "silu", "gelu", "gelu_tf", "none", "linear")  # can be interpolated
KNOTS, MOST_KNOTS = 256, 2**14
TOLERANCE = {"float64": 1e-9, "float32": 3e-5}  # of dG/dx between knots


def can_fuse(potential):
    """Whether `FusedPot` can stand for a potential: on a CPU, smooth embedding nets, one precision, no table."""
    descriptor = potential.descriptor
    names = {layer.act_name.lower() for net in descriptor.nets for layer in net.layers}
    alike = descriptor.dtype == potential.fitting.dtype and potential.shortrange is None
    return descriptor.davg.device.type == "cpu" and names <= set(SMOOTH) and alike


@contextmanager
def _one_thread_of_torch():
    """A context for small work: other threads would spin on after theirs, on cores that the kernels need."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class FusedPot:
    """A potential to train.

    Parameters
    ----------
    potential : DeepPot
        Its parameters are the ones that gradients go to. Those of the fitting nets become parts of one array.
    closest : float, Å
        The shortest distance that will be met.
    nknots : int, optional
        Knots of each embedding net; as many as it takes (`refine`) when left out.
    """

    def __init__(self, potential, closest, nknots=None):
        self.potential, self.closest = potential, closest
        self.dtype = potential.descriptor.dtype
        self.real = np.dtype(str(self.dtype).removeprefix("torch."))
        kind = "64" if self.dtype == torch.float64 else "32"
        self._forward, self._backward = (getattr(kernels, f"{way}{kind}") for way in ("forward", "backward"))
        self._buffers, self.turn = {}, 0  # memory used again at every step; how often that was
        self._flatten()
        self.set_knots(nknots or KNOTS)
        if nknots is None:
            self.refine()

    def _flatten(self):
        """Let the parameters of the fitting nets share one array, which the kernels read."""
        record = self.potential.fitting.to_record()
        self._fitting = flatten(record.nets, self.real)
        flat, self._parts = torch.from_numpy(self._fitting.weights), []
        for net, rows in zip(self.potential.fitting.nets, self._fitting.layers):
            for layer, (_, _, *places) in zip(net.layers, rows.tolist()):
                for parameter, place in zip((layer.w, layer.b, layer.idt), places):
                    if parameter is not None:
                        parameter.data = flat[place : place + parameter.numel()].view_as(parameter)
                        self._parts.append((parameter, place))
        self._vacuum = np.array(self.potential.fitting.no_vacuum)

    @property
    def nknots(self):
        return int(self._geometry.nknots[0])

    def set_knots(self, nknots):
        """Place so many knots for each net between the cutoff and the closest pair."""
        model, ntypes = self.potential, self.potential.ntypes
        d, record = model.descriptor, model.descriptor.record
        davg, dstd = d.davg.numpy(), d.dstd.numpy()
        net, empty = np.full((ntypes, ntypes), -1), np.full((ntypes, ntypes), -1)
        ranges = np.full((len(d.nets), 2), np.nan)
        nearest = torch.tensor([self.closest, 0, 0], dtype=torch.float64)
        largest = float(radial(nearest, record.rcut_smth, record.rcut, record.env_protection).s)
        for ti, tj in np.ndindex(ntypes, ntypes):
            if (ti, tj) in d.excluded or ti in model.model.atom_exclude_types:
                continue
            k = empty[ti, tj] = tj if record.type_one_side else ti + ntypes * tj
            net[ti, tj] = -1 if (ti, tj) in model.excluded else k
            low, high = (np.array([0.0, largest]) - davg[ti, 0]) / dstd[ti, 0]
            ranges[k] = np.fmin(ranges[k, 0], low), np.fmax(ranges[k, 1], high)
        self._used = ~np.isnan(ranges[:, 0])
        start, stop = np.where(self._used, ranges.T, [[0.0], [1.0]])
        x, shift, step = pairs.knots(start, stop, nknots)
        self._x = torch.from_numpy(x).to(self.dtype)[..., None]  # (nnets, K, 1)
        self._geometry = pairs.Geometry(
            cutoff=np.array([record.rcut, record.rcut_smth, record.env_protection], self.real),
            davg=davg[:, 0].astype(self.real),
            inverse_std=(1 / dstd[:, :2]).astype(self.real),
            sel=np.array(record.sel, self.real),
            axis=np.array([record.axis_neuron]),
            net=net,
            empty=empty,
            start=start.astype(self.real),
            shift=shift.astype(self.real),
            step=step.astype(self.real),
            nknots=np.array([nknots]),
        )

    @torch.no_grad()
    def error(self):
        """Largest error of dG/dx half way between knots; relative to 1 or, where it is larger, dG/dx."""
        worst, g = 0.0, self._geometry
        slopes = torch.tensor(pairs.HALF_WAY, dtype=torch.float64)
        for k in np.flatnonzero(self._used):
            net = copy.deepcopy(self.potential.descriptor.nets[k]).double()
            root = np.sqrt(float(g.shift[k])) + float(g.step[k]) * (np.arange(self.nknots - 5) + 0.5)
            x = torch.from_numpy(g.start[k] - g.shift[k] + root**2)[:, None]
            windows = net(self._x[k].double()).unfold(0, 6, 1)  # (K - 5, M, 6)
            exact = net.jvp(x, torch.ones_like(x))[1]
            found = windows @ slopes / torch.from_numpy(2 * root * g.step[k])[:, None]
            worst = max(worst, float(((found - exact).abs() / exact.abs().clamp(min=1)).max()))
        return worst

    def refine(self):
        """Double the number of knots until they resolve the nets; at most MOST_KNOTS."""
        while self.error() > TOLERANCE[self.real.name] and self.nknots < MOST_KNOTS:
            self.set_knots(2 * self.nknots)

    def __call__(self, batch):
        """`Prediction` of a batch; energy, force and virial are differentiable in the parameters.

        Raises
        ------
        DomainError
            Two atoms closer than ``closest``.
        """
        trained = [p for p in self.potential.parameters() if p.requires_grad]
        energy, atom_energy, force, virial = _Step.apply(self, batch, trained, *trained)
        return Prediction(energy, atom_energy, force, virial, None)

    def buffer(self, name, *shape):
        """An array of this shape, not cleared, in memory that is kept for the next one of this name."""
        size = int(np.prod(shape))
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, self.real)
        return self._buffers[name][:size].reshape(shape)

    def tables(self):
        """The embedding nets at their knots, a list of (K, M) tensors with their graphs."""
        d = self.potential.descriptor
        nothing = torch.zeros(self.nknots, d.record.neuron[-1], dtype=self.dtype)
        return [net(x) if used else nothing for net, x, used in zip(d.nets, self._x, self._used)]

    def frames(self, batch):
        """`pairs.Frames` of a batch."""
        fitting, columns = self.potential.fitting, [np.zeros((batch.natoms, 0))]
        if batch.fparam is not None:
            fparam = (batch.fparam - fitting.fparam_avg) * fitting.fparam_inv_std
            columns.append(fparam[batch.frame].numpy())
        if batch.aparam is not None:
            columns.append(((batch.aparam - fitting.aparam_avg) * fitting.aparam_inv_std).numpy())
        return pairs.Frames(
            batch.coord.numpy(),
            batch.atype,
            batch.owner.numpy(),
            batch.frame.numpy(),
            batch.row,
            batch.first,
            batch.index,
            np.concatenate(columns, axis=1).astype(self.real),
        )

    def shares(self, batch):
        """`kernels.Shares`: each thread has as many atoms of each type as the others; and the number of threads."""
        local = batch.atype[batch.row]
        count = np.bincount(local, minlength=self.potential.ntypes)
        count[list(self.potential.model.atom_exclude_types)] = 0
        begin = np.searchsorted(np.sort(local), np.arange(self.potential.ntypes))
        nworkers = max(1, min(torch.get_num_threads(), batch.natoms))
        cuts = begin[:, None] + count[:, None] * np.arange(nworkers + 1) // nworkers
        return kernels.Shares(np.argsort(local, kind="stable"), cuts), nworkers


class _Step(torch.autograd.Function):
    """Energies, forces and virials of a batch (forward), and what they pass on to the parameters (backward)."""

    @staticmethod
    def forward(ctx, fused, batch, trained, *_):
        fitting, natoms = fused.potential.fitting, batch.natoms
        fused.turn += 1
        with _one_thread_of_torch(), torch.enable_grad():
            tables = fused.tables()
        rows = torch.cat(tables).detach().numpy()
        potential = kernels.Potential(fused._geometry, rows, fused._fitting, fused._vacuum)
        frames, (shares, nworkers) = fused.frames(batch), fused.shares(batch)
        space, spare = kernels.sizes(potential.fitting.layers, potential.vacuum, shares.cuts)
        per_atom = natoms, 4, rows.shape[1]
        results = kernels.Results(
            energy=np.zeros(natoms),
            force=np.zeros((nworkers, natoms, 3)),
            virial=np.zeros((nworkers, batch.nframes, 3, 3)),
            outside=np.zeros(nworkers, np.int64),
            a=fused.buffer("a", *per_atom),
            p=fused.buffer("p", *per_atom),
            space=fused.buffer("space", nworkers, space),
            spare=fused.buffer("spare", nworkers, 2, spare),
            turned=fused.buffer("turned", *per_atom),
        )
        run_on_threads(fused._forward, nworkers, potential, frames, shares, results)
        if results.outside.any():
            raise DomainError(
                f"expected no atoms closer than {fused.closest:.4g} Å, found {results.outside.sum()} pairs; make the "
                "FusedPot with the shortest distance of all frames"
            )
        counted = np.ones(fused.potential.ntypes)
        counted[list(fused.potential.model.atom_exclude_types)] = 0
        of_element = (fitting.bias_atom_e + fitting.out_bias) * torch.from_numpy(counted)
        atom_energy = torch.from_numpy(results.energy) + of_element[batch.atype[batch.row]]
        energy = torch.zeros(batch.nframes, dtype=torch.float64).index_add(0, batch.frame, atom_energy)
        ctx.state = fused, fused.turn, trained, tables, (nworkers, potential, frames, shares, results)
        ctx.mark_non_differentiable(atom_energy)
        return (
            energy,
            atom_energy,
            torch.from_numpy(results.force.sum(0)),
            torch.from_numpy(results.virial.sum(0)),
        )

    @staticmethod
    def backward(ctx, d_energy, _, d_force, d_virial):
        fused, turn, trained, tables, (nworkers, potential, *state) = ctx.state
        if fused.turn != turn:
            raise RuntimeError(
                "expected backward() before the next batch is evaluated: both use the same memory"
            )
        gradients = kernels.Gradients(
            *(d.contiguous().numpy() for d in (d_energy, d_force, d_virial)),
            tables=fused.buffer("tables", nworkers, *potential.tables.shape),
            fitting=fused.buffer("fitting", nworkers, len(potential.fitting.weights)),
        )
        run_on_threads(fused._backward, nworkers, potential, *state, gradients)
        flat = torch.from_numpy(gradients.fitting).sum(0)
        found = {p: flat[place : place + p.numel()].view_as(p) for p, place in fused._parts}
        of_knots = torch.from_numpy(gradients.tables).sum(0).split(fused.nknots)
        used = [(t, g) for t, g in zip(tables, of_knots) if t.requires_grad]
        weights = [p for p in fused.potential.descriptor.nets.parameters() if p.requires_grad]
        if used:
            tensors, given = zip(*used)
            found.update(zip(weights, torch.autograd.grad(tensors, weights, given, allow_unused=True)))
        return None, None, None, *(found.get(p) for p in trained)
