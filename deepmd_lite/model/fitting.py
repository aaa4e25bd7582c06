"""The fitting net: from the descriptor of an atom to its energy.

    E_i = net_{ti}(D_i [, fparam, aparam]) + bias_atom_e[ti] + out_bias[ti]

(Zhang et al., NeurIPS 2018, eq. 1-2). Both biases count: DeePMD-kit keeps the energy of an element in one or
in the other, depending on the backend that trained the model.
"""

import torch
from torch import nn

from deepmd_lite.model.network import DTYPES, from_layers, to_layers


class Fitting(nn.Module):
    """One net per type; ``record`` is a `model_file.Fitting`, ``out_bias`` (ntypes,) eV."""

    def __init__(self, record, out_bias):
        super().__init__()
        self.record = record
        self.dtype = DTYPES[record.precision]
        self.nets = nn.ModuleList(from_layers(net, record.precision) for net in record.nets)
        for name, value in {
            "bias_atom_e": record.bias_atom_e,
            "out_bias": out_bias,
            "fparam_avg": record.fparam_avg,
            "fparam_inv_std": record.fparam_inv_std,
            "aparam_avg": record.aparam_avg,
            "aparam_inv_std": record.aparam_inv_std,
        }.items():
            self.register_buffer(name, None if value is None else torch.tensor(value, dtype=torch.float64))
        self.no_vacuum = [e is not None for e in record.atom_ener or [None] * len(record.nets)]

    def forward(self, d, ti, fparam=None, aparam=None):
        """E_i (n,) float64, eV, of atoms of type ti.

        Parameters
        ----------
        d : (n, M·M₂) tensor
        ti : int
        fparam, aparam : (n, numb_fparam) and (n, numb_aparam) tensors
            Given exactly when the model has them.
        """
        x = self._inputs(d, fparam, aparam)
        energy = self.nets[ti](x)[:, 0]
        if self.no_vacuum[ti]:
            energy = energy - self.nets[ti](self._vacuum(x))[:, 0]
        return energy.to(torch.float64) + self.bias_atom_e[ti] + self.out_bias[ti]

    def _inputs(self, d, fparam=None, aparam=None):
        """What the net reads, (n, nin): D, and parameters of frame and atom on the scale of their spread."""
        x = [d.to(self.dtype)]
        if self.record.numb_fparam:
            x.append(((fparam - self.fparam_avg) * self.fparam_inv_std).to(self.dtype))
        if self.record.numb_aparam:
            x.append(((aparam - self.aparam_avg) * self.aparam_inv_std).to(self.dtype))
        return torch.cat(x, dim=1) if len(x) > 1 else x[0]

    def _vacuum(self, x):
        """The net's input at D = 0: where atom_ener is given, the energy counts from there."""
        extra = self.record.numb_fparam + self.record.numb_aparam
        zero = torch.zeros_like(x)
        zero[:, x.shape[1] - extra :] = x[:, x.shape[1] - extra :]
        return zero

    def to_record(self):
        """The fitting nets as plain arrays, with their present weights and biases."""
        arrays = {k: v.cpu().numpy().copy() for k, v in self.named_buffers(recurse=False) if k != "out_bias"}
        return self.record.__class__(
            **{**vars(self.record), **arrays, "nets": [to_layers(n) for n in self.nets]}
        )
