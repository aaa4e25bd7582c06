"""The smooth two-body embedding descriptor se_e2_a (DeepPot-SE; Zhang et al., NeurIPS 2018).

For a center i of type ti and a neighbor j of type tj at the vector x_ij, r = |x_ij|::

    s(r)  = w(u) / r,   w(u) = 1 - 10 u³ + 15 u⁴ - 6 u⁵,   u = (r - rcut_smth) / (rcut - rcut_smth) in [0, 1]
    R_ij  = (s, s x/r, s y/r, s z/r)                                  environment matrix, eq. 3 of the paper
    R~_ij = (R_ij - davg[ti]) / dstd[ti]
    G_ij  = net_{ti,tj}(R~_ij[0])                                     embedding net, M outputs
    A_i   = 1/nsel Σ_j R~_ij ⊗ G_ij                                   (4, M)
    D_i   = A_iᵀ A_i[:, :M₂]                                          (M, M₂), eq. 8

Two facts carry the implementation. *G depends on the scalar s alone*, so the net returns dG/ds in the same
pass (`Network.jvp`) and the force needs no reverse pass through it: with P_i = ∂E/∂A_i from the fitting net,

    ∂E/∂R~_ij = 1/nsel (P_i G_ij + (R~_ijᵀ P_i dG_ij/ds, 0, 0, 0)).

*Empty slots count*: DeePMD-kit fills each center's neighbors of type tj up to sel[tj] with R = 0, that is
R~ = -davg/dstd, and divides by nsel = Σ sel. We pad only to the largest number present, k, and add the
remaining (sel[tj] - k) identical slots as one constant. Beyond sel the constant turns negative, and the same
closed form goes on smoothly: nothing is ever truncated.

======  ==================================  =================================
symbol  code                                shape
======  ==================================  =================================
x_ij    vec                                 (n, k, 3), n centers, k slots
R~, G   row, g                              (n, k, 4), (n, k, M)
A, D    a, the result of `descriptor`       (n, 4, M), (n, M·M₂)
P       p                                   (n, 4, M)
======  ==================================  =================================
"""

from typing import NamedTuple

import torch
from torch import nn

from deepmd_lite.model.network import DTYPES, from_layers, to_layers


class Radial(NamedTuple):
    """s(r) and t(r) = s/r with their derivatives, each (n, k); a row of R is (s, t x, t y, t z)."""

    r: torch.Tensor
    s: torch.Tensor
    ds: torch.Tensor
    t: torch.Tensor
    dt: torch.Tensor


def radial(vec, rcut_smth, rcut, protection=0.0):
    """The radial functions of the environment matrix at vec (..., 3), Å.

    ``protection`` is DeePMD-kit's ``env_protection``: r + protection stands for r in the denominators.
    """
    r = torch.linalg.vector_norm(vec, dim=-1)
    u = ((r - rcut_smth) / (rcut - rcut_smth)).clamp(0, 1)
    w = 1 + u**3 * (-10 + u * (15 - 6 * u))
    dw = -30 * (u * (1 - u)) ** 2 / (rcut - rcut_smth)
    q = 1 / (r + protection)
    s = w * q
    ds = (dw - s) * q
    t = s * q
    return Radial(r, s, ds, t, (ds - t) * q)


class Pairs(NamedTuple):
    """The neighbors of one type of n centers: what the forward pass leaves for the forces."""

    vec: torch.Tensor
    radial: Radial
    row: torch.Tensor
    g: torch.Tensor
    dg: torch.Tensor


class Descriptor(nn.Module):
    """se_e2_a; ``record`` is a `model_file.Descriptor`."""

    def __init__(self, record, ntypes):
        super().__init__()
        self.record, self.ntypes, self.nsel = record, ntypes, sum(record.sel)
        self.dtype = DTYPES[record.precision]
        self.register_buffer("davg", torch.tensor(record.davg, dtype=torch.float64))
        self.register_buffer("dstd", torch.tensor(record.dstd, dtype=torch.float64))
        self.nets = nn.ModuleList(from_layers(net or [], record.precision) for net in record.nets)
        excluded = [(int(i), int(j)) for i, j in record.exclude_types]
        self.excluded = {*excluded, *((j, i) for i, j in excluded)}

    def net(self, ti, tj):
        """The embedding net of neighbors tj around centers ti."""
        return self.nets[tj if self.record.type_one_side else ti + self.ntypes * tj]

    def pairs(self, vec, empty, ti, tj):
        """R~, G and dG/ds of the slots of neighbors tj around centers ti: `Pairs`.

        Parameters
        ----------
        vec : (n, k, 3) tensor, Å
        empty : (n, k) bool tensor
            Slots without a neighbor; their ``vec`` is not read.
        """
        d = self.record
        vec = torch.where(empty[..., None], 2 * d.rcut, vec)
        f = radial(vec, d.rcut_smth, d.rcut, d.env_protection)
        row = torch.cat((f.s[..., None], f.t[..., None] * vec), dim=-1)
        row = ((row - self.davg[ti]) / self.dstd[ti]).to(self.dtype)
        x = row[..., 0].reshape(-1, 1)
        g, dg = self.net(ti, tj).jvp(x, torch.ones_like(x))
        return Pairs(vec, f, row, g.view(*row.shape[:2], -1), dg.view(*row.shape[:2], -1))

    def empty_slots(self, count, ti, tj):
        """What ``count`` empty slots add to nsel·A_i: (4, M)."""
        row = (-self.davg[ti] / self.dstd[ti]).to(self.dtype)
        return count * torch.outer(row, self.net(ti, tj)(row[:1, None])[0])

    def gather(self, neighbors, ti, n):
        """A_i (n, 4, M) from the `Pairs` of each neighbor type; None stands for no neighbors of a type."""
        a = torch.zeros(1, 4, self.record.neuron[-1], dtype=self.dtype, device=self.davg.device)
        for tj, pairs in enumerate(neighbors):
            if (ti, tj) in self.excluded:
                continue
            missing = self.record.sel[tj]
            if pairs is not None:
                missing -= pairs.row.shape[1]
                a = a + pairs.row.mT @ pairs.g
            a = a + self.empty_slots(missing, ti, tj)
        return (a / self.nsel).expand(n, -1, -1)

    def descriptor(self, a):
        """D_i, (n, M·M₂), from A_i (n, 4, M)."""
        return (a.mT @ a[..., : self.record.axis_neuron]).flatten(1)

    def pair_gradient(self, pairs, p, ti):
        """∂E/∂x_ij (n, k, 3) float64, eV/Å, from P_i = ∂E/∂A_i (n, 4, M)."""
        q = pairs.g @ p.mT  # (n, k, 4): ∂E/∂R~ at fixed G
        through_g = ((pairs.dg @ p.mT) * pairs.row).sum(-1)
        q = torch.cat((q[..., :1] + through_g[..., None], q[..., 1:]), dim=-1).to(torch.float64)
        q = q / (self.nsel * self.dstd[ti])  # ∂E/∂R
        f = pairs.radial
        along = q[..., 0] * f.ds + (q[..., 1:] * pairs.vec).sum(-1) * f.dt
        return (along / f.r)[..., None] * pairs.vec + f.t[..., None] * q[..., 1:]

    def to_record(self):
        """The descriptor as plain arrays, with its present weights."""
        return self.record.__class__(
            **{
                **vars(self.record),
                "davg": self.davg.cpu().numpy().copy(),
                "dstd": self.dstd.cpu().numpy().copy(),
                "nets": [to_layers(net) or None for net in self.nets],
            }
        )
