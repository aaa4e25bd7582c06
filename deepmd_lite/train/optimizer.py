"""What turns gradients into steps: optimizers of torch, and the running average of the weights."""

from contextlib import contextmanager

import torch

from deepmd_lite.train.soap import SOAP


def make_optimizer(section, potential):
    """Optimizers of an input's ``optimizer`` section (`config.Optimizer`) for the parameters that are trained.

    Returns
    -------
    list of torch.optim.Optimizer
        One, or two that share the parameters: with SOAP and with Muon the matrices of hidden layers, and Adam for all
        else. `SOAP` is Adam in the eigenbasis of Shampoo's preconditioner. Muon (Jordan et al., 2024; Liu et al.,
        arXiv:2502.16982) makes the update of a matrix orthogonal, here scaled to the size of Adam's, so that one
        learning rate serves both.
    """
    trained = [p for p in potential.parameters() if p.requires_grad]
    betas = {"betas": (section.adam_beta1, section.adam_beta2), "fused": True}
    matrices = [p for p in trained if p.ndim == 2 and min(p.shape) > 1]
    if section.type == "AdamW":
        return [torch.optim.AdamW(trained, weight_decay=section.weight_decay, **betas)]
    if section.type == "Adam" or not matrices:
        return [torch.optim.Adam(trained, weight_decay=section.weight_decay, **betas)]
    others = [p for p in trained if p.ndim < 2 or min(p.shape) == 1]
    if section.type == "SOAP":
        first = SOAP(matrices, weight_decay=section.weight_decay)
    else:
        first = torch.optim.Muon(
            matrices,
            momentum=section.momentum,
            weight_decay=section.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
    return [first, torch.optim.Adam(others, **betas)] if others else [first]


class Average:
    """The exponential moving average of a potential's weights over the steps of a training.

    Parameters
    ----------
    potential : DeepPot
    decay : float
        β of ``average ← β average + (1 - β) weights``; smaller, k/(k + 9), in the first steps k, so that the
        random start is forgotten.
    """

    def __init__(self, potential, decay):
        self.decay = decay
        self.names, self.parameters = zip(*potential.named_parameters())
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step):
        """Take in the weights after so many steps."""
        beta = min(self.decay, step / (step + 9))
        torch._foreach_lerp_(self.values, list(self.parameters), 1 - beta)

    @contextmanager
    def in_place(self):
        """A context in which the potential has the averaged weights."""
        kept = [p.detach().clone() for p in self.parameters]
        self._put(self.values)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values):
        for parameter, value in zip(self.parameters, values):
            parameter.copy_(value)
