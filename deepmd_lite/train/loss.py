"""The training loss and the errors it is made of.

    L = p_e (ΔE)²/N + p_f mean_3N (ΔF)² + p_v Σ_9 (ΔΞ)²/(9N)

averaged over the frames that have the label; each prefactor runs from ``start_pref`` to ``limit_pref`` with
the learning rate (Zhang et al., PRL 120, 143001 (2018), eq. 6).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from deepmd_lite.train.schedule import prefactor


@dataclass
class Labels:
    """What quantum mechanics says about a batch; ``found`` tells which frames have each label."""

    natoms: torch.Tensor  # (nframes,) atoms per frame
    frame: torch.Tensor  # (natoms,) the frame of each atom
    energy: torch.Tensor  # (nframes,) eV
    force: torch.Tensor  # (natoms, 3) eV/Å
    virial: torch.Tensor  # (nframes, 3, 3) eV
    found: dict[str, torch.Tensor]  # "energy", "force", "virial": (nframes,) bool

    def to(self, device):
        move = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if k != "found"}
        return replace(
            self, **move, found={k: v.to(device, non_blocking=True) for k, v in self.found.items()}
        )


class Errors(NamedTuple):
    """The loss, and mean squared errors: energy and virial per atom, force; None without labels."""

    loss: torch.Tensor
    energy: torch.Tensor | None  # (eV/atom)²
    force: torch.Tensor | None  # (eV/Å)²
    virial: torch.Tensor | None  # (eV/atom)²


class Loss:
    """The loss of an input's ``loss`` section (`config.Loss`), and the learning rate it starts from."""

    def __init__(self, section, start_lr):
        self.section, self.start_lr = section, start_lr

    def prefactors(self, lr):
        """(p_e, p_f, p_v) at a learning rate."""
        s, ratio = self.section, lr / self.start_lr
        return tuple(
            prefactor(getattr(s, f"start_pref_{k}"), getattr(s, f"limit_pref_{k}"), ratio)
            for k in ("e", "f", "v")
        )

    def __call__(self, prediction, labels, lr):
        """The `Errors` of a `Prediction` at a learning rate; ``loss`` is the scalar to differentiate."""
        p_e, p_f, p_v = self.prefactors(lr)
        found, n = labels.found, labels.natoms
        total, errors = prediction.energy.sum() * 0, {}
        if found["energy"].any():
            de = (prediction.energy - labels.energy)[found["energy"]]
            n_e = n[found["energy"]]
            total = total + p_e * (de**2 / n_e).mean()
            errors["energy"] = ((de / n_e) ** 2).mean()
        if found["force"].any():
            atoms = found["force"][labels.frame]
            errors["force"] = ((prediction.force - labels.force)[atoms] ** 2).mean()
            total = total + p_f * errors["force"]
        if found["virial"].any():
            dv = (prediction.virial - labels.virial)[found["virial"]].flatten(1)
            n_v = n[found["virial"]][:, None]
            total = total + p_v * (dv**2 / n_v).mean()
            errors["virial"] = ((dv / n_v) ** 2).mean()
        detached = {k: v.detach() for k, v in errors.items()}
        return Errors(total, *(detached.get(k) for k in ("energy", "force", "virial")))
