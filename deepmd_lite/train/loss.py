"""The training loss and the errors it is made of.

    L = p_e mean_frames N ρ(ΔE/N) + p_f mean_3N ρ(ΔF) + p_v mean_frames N/9 Σ_9 ρ(ΔΞ/N),   ρ(x) = x²

over the frames that have the label and all their atoms; each prefactor runs from ``start_pref`` to ``limit_pref``
with the learning rate (Zhang et al., PRL 120, 143001 (2018), eq. 6). With ``loss_func: mae`` ρ(x) = |x|, with
``use_huber`` it is Huber's (Ann. Math. Statist. 35, 73 (1964)); then, as with ``intensive_ener_virial``, the
factors N are left out.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from deepmd_lite.train.schedule import prefactor


class Counts(NamedTuple):
    """How many labels of each kind a batch has: what sums over it are divided by."""

    energy: int  # frames
    force: int  # atoms
    virial: int  # frames


@dataclass
class Labels:
    """What quantum mechanics says about a batch; ``found`` tells which frames have each label."""

    natoms: torch.Tensor  # (nframes,) atoms per frame
    frame: torch.Tensor  # (natoms,) the frame of each atom
    energy: torch.Tensor  # (nframes,) eV
    force: torch.Tensor  # (natoms, 3) eV/Å
    virial: torch.Tensor  # (nframes, 3, 3) eV
    weight: torch.Tensor  # (nframes,) of each frame's terms in the loss
    found: dict[str, torch.Tensor]  # "energy", "force", "virial": (nframes,) bool
    counts: Counts | None = None  # of ``found``, taken while that is in reach: reading from a device stops it

    def __post_init__(self):
        if self.counts is None:
            frames = {k: int(v.sum()) for k, v in self.found.items()}
            atoms = int(self.natoms[self.found["force"]].sum())
            self.counts = Counts(frames["energy"], atoms, frames["virial"])

    def to(self, device):
        tensors = {k: v for k, v in vars(self).items() if k not in ("found", "counts")}
        return replace(
            self,
            **{k: v.to(device, non_blocking=True) for k, v in tensors.items()},
            found={k: v.to(device, non_blocking=True) for k, v in self.found.items()},
        )


class Errors(NamedTuple):
    """The loss, and mean squared errors: energy and virial per atom, force; None without labels."""

    loss: torch.Tensor
    energy: torch.Tensor | None  # (eV/atom)²
    force: torch.Tensor | None  # (eV/Å)²
    virial: torch.Tensor | None  # (eV/atom)²


def huber(x, delta):
    """x²/2 up to |x| = δ, and from there on the straight line that continues it."""
    size = x.abs()
    return torch.where(size <= delta, 0.5 * x**2, delta * (size - 0.5 * delta))


class Loss:
    """The loss of an input's ``loss`` section (`config.Loss`), and the learning rate it starts from."""

    def __init__(self, section, start_lr):
        self.section, self.start_lr = section, start_lr
        mean_square = section.loss_func == "mse" and not section.use_huber
        self.extensive = mean_square and not section.intensive_ener_virial

    def prefactors(self, lr):
        """(p_e, p_f, p_v) at a learning rate."""
        s, ratio = self.section, lr / self.start_lr
        return tuple(
            prefactor(getattr(s, f"start_pref_{k}"), getattr(s, f"limit_pref_{k}"), ratio)
            for k in ("e", "f", "v")
        )

    def __call__(self, prediction, labels, lr, counts=None):
        """The `Errors` of a `Prediction` at a learning rate; ``loss`` is the scalar to differentiate.

        Parameters
        ----------
        prediction : Prediction
        labels : Labels
        lr : float
        counts : Counts, optional
            Those of the whole batch where this is a part of it: losses and errors of the parts then add up to
            those of the whole. By default the batch's own.

        Notes
        -----
        No number is read back from the device. Weights of frames count in the loss, not in the errors.
        """
        counts = counts or labels.counts
        n, total, errors = labels.natoms[:, None], prediction.energy.sum() * 0, {}
        p_e, p_f, p_v = self.prefactors(lr)
        for key, width, count, p in (("energy", 1, counts.energy, p_e), ("virial", 9, counts.virial, p_v)):
            if count:
                x = (getattr(prediction, key) - getattr(labels, key)).reshape(-1, width)
                x = x.masked_fill(~labels.found[key][:, None], 0) / n
                errors[key] = (x.detach() ** 2).mean(1).sum() / count
                terms = self._rho(x, key).mean(1) * labels.weight
                total = total + p * ((terms * labels.natoms if self.extensive else terms).sum() / count)
        if counts.force:
            x, found = prediction.force - labels.force, labels.found["force"][labels.frame]
            x = x.masked_fill(~found[:, None], 0)
            errors["force"] = (x.detach() ** 2).mean(1).sum() / counts.force
            terms = self._of_forces(x, labels.force).mean(1) * labels.weight[labels.frame]
            total = total + p_f * (terms.sum() / counts.force)
        return Errors(total, *(errors.get(k) for k in Counts._fields))

    def _of_forces(self, x, force):
        """ρ of errors x (natoms, 3): of their components, or of the length of each."""
        if self.section.relative_f is not None:
            x = x / (torch.linalg.vector_norm(force, dim=1, keepdim=True) + self.section.relative_f)
        if self.section.f_use_norm:
            x = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return self._rho(x, "force")

    def _rho(self, x, key):
        if self.section.loss_func == "mae":
            return x.abs()
        if self.section.use_huber:
            return huber(x, self.section.huber_delta[Counts._fields.index(key)])
        return x**2
