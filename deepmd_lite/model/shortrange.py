"""A table of pair energies that takes over from the nets where atoms are close: DP-ZBL.

Nets have not seen the distances of collisions; a pair potential such as the universal one of Ziegler, Biersack and
Littmark is right there. For each atom i the two are blended by how close its nearest neighbors are::

    E_i = b_ti + w(σ_i) E_pair,i + (1 - w(σ_i)) (E_dp,i - b_ti)
    E_pair,i = 1/2 Σ_j V_{ti,tj}(r_ij)                                          cubics on the intervals of a table
    σ_i = Σ_j r_ij e_j / Σ_j e_j,   e_j = exp(-r_ij / α)                        softmin, α = smin_alpha
    w(σ) = 1 - 10 u³ + 15 u⁴ - 6 u⁵,   u = (σ - sw_rmin) / (sw_rmax - sw_rmin) in [0, 1]

over all neighbors j within rcut; w = 0 without any. b is ``out_bias``, the energy of a lone atom, which both ways
count from. With ∂σ_i/∂r_ij = e_j / Σ e (1 - (r_ij - σ_i) / α),

    ∂E_i/∂x_ij = (1 - w) ∂E_dp,i/∂x_ij + [w V'/2 + w'(σ_i) (E_pair,i - E_dp,i + b_ti) ∂σ_i/∂r_ij] x_ij / r_ij.

Distances count from the closest in e_j, so that no sum underflows. σ_i is never smaller than the closest distance:
an atom whose neighbors are all beyond sw_rmax is left to the nets, exactly.

Wang et al., Appl. Phys. Lett. 114, 244101 (2019).
"""

import torch
from torch import nn

from deepmd_lite.errors import DomainError


class ShortRange(nn.Module):
    """The blend; ``record`` is a `model_file.ShortRange`."""

    def __init__(self, record, rcut):
        super().__init__()
        self.record, self.rcut = record, rcut
        self.end = min(rcut, record.start + record.step * record.coefficients.shape[2])
        self.register_buffer("coefficients", torch.tensor(record.coefficients, dtype=torch.float64))

    def forward(self, energy, vectors, empty, ti, tj):
        """Blend the table into the energies of n atoms of type ti.

        Parameters
        ----------
        energy : (n,) tensor, eV
            E_dp,i - b.
        vectors : (n, k, 3) tensor, Å
            x_ij of all neighbors.
        empty : (n, k) bool tensor
            Slots without a neighbor; their ``vectors`` are not read.
        ti : int
        tj : (k,) int tensor
            Types of the neighbors in each column of slots.

        Returns
        -------
        energy : (n,) tensor, eV
            E_i - b.
        share : (n,) tensor
            1 - w, the factor of ∂E_dp,i/∂x_ij.
        gradient : (n, k, 3) tensor, eV/Å
            The rest of ∂E_i/∂x_ij.
        """
        vectors = torch.where(empty[..., None], 2 * self.rcut, vectors)
        r = torch.linalg.vector_norm(vectors, dim=-1)
        sigma, dsigma = self._softmin(r)
        width = self.record.sw_rmax - self.record.sw_rmin
        u = ((sigma - self.record.sw_rmin) / width).clamp(0, 1)
        w = 1 + u**3 * (-10 + u * (15 - 6 * u))
        dw = -30 * (u * (1 - u)) ** 2 / width
        if ((r < self.record.start) & (w > 0)[:, None]).any():
            raise DomainError(
                f"two atoms are {float(r.min()):.3g} Å apart; expected at least {self.record.start:g} Å, where the "
                "model's table begins: remove the overlap"
            )
        v, dv = self._pairs(r, ti, tj)
        pair = v.sum(-1) / 2
        along = w[:, None] * dv / 2 + (dw * (pair - energy))[:, None] * dsigma
        return w * pair + (1 - w) * energy, 1 - w, (along / r)[..., None] * vectors

    def _softmin(self, r):
        """σ_i (n,), infinite without neighbors, and ∂σ_i/∂r_ij (n, k)."""
        inside = r < self.rcut
        closest = torch.where(inside, r, self.rcut).amin(-1, keepdim=True)
        e = torch.where(inside, torch.exp((closest - r) / self.record.smin_alpha), 0.0)
        total = e.sum(-1, keepdim=True)
        share = e / total.clamp(min=1)  # the closest alone gives 1
        sigma = (share * r).sum(-1, keepdim=True)
        dsigma = share * (1 - (r - sigma) / self.record.smin_alpha)
        return torch.where(total > 0, sigma, torch.inf)[:, 0], dsigma

    def _pairs(self, r, ti, tj):
        """V and V' (n, k) at the distances r (n, k)."""
        t = self.record
        place = (r - t.start) / t.step
        k = place.long().clamp(0, self.coefficients.shape[2] - 1)
        c = self.coefficients[ti][tj, k]
        u = place - k
        v = c[..., 3] + u * (c[..., 2] + u * (c[..., 1] + u * c[..., 0]))
        dv = (c[..., 2] + u * (2 * c[..., 1] + u * 3 * c[..., 0])) / t.step
        inside = r < self.end
        return torch.where(inside, v, 0.0), torch.where(inside, dv, 0.0)
