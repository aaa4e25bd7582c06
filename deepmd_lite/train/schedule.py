"""The learning rate as a function of the step, and the loss prefactors that follow it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then an exponential or cosine decay to ``stop_lr`` at ``numb_steps``.

    Notes
    -----
    With t counted from the end of the warm-up and T = numb_steps - warmup_steps::

        exp      lr(t) = start_lr · decay_rate^⌊t / decay_steps⌋   (without ⌊⌋ when ``smooth``)
                 decay_rate = (stop_lr / start_lr)^(decay_steps / T) unless given; never below stop_lr
        cosine   lr(t) = stop_lr + (start_lr - stop_lr) (1 + cos(π t / T)) / 2

    During the warm-up the rate grows from ``warmup_start_factor · start_lr`` to ``start_lr``. A ``decay_steps`` of T
    or more would never decay: as in DeePMD-kit, 100 takes its place, or T/100 in a run of less than 1,010 steps.
    """

    type: str
    start_lr: float
    stop_lr: float
    numb_steps: int
    decay_steps: int = 5000
    decay_rate: float | None = None
    smooth: bool = False
    warmup_steps: int = 0
    warmup_start_factor: float = 0.0

    def __call__(self, step):
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            f = self.warmup_start_factor
            return self.start_lr * (f + (1 - f) * step / self.warmup_steps)
        t, total = step - self.warmup_steps, max(1, self.numb_steps - self.warmup_steps)
        if self.type == "cosine":
            return (
                self.stop_lr
                + (self.start_lr - self.stop_lr) * (1 + math.cos(math.pi * min(1, t / total))) / 2
            )
        decay_steps = self.decay_steps
        if decay_steps >= total:
            decay_steps = 100 if total // 10 > 100 else total // 100 + 1
        rate = self.decay_rate or (self.stop_lr / self.start_lr) ** (decay_steps / total)
        periods = t / decay_steps if self.smooth else t // decay_steps
        return max(self.stop_lr, self.start_lr * rate**periods)


def prefactor(start, limit, lr_ratio):
    """p = limit (1 - lr/lr₀) + start lr/lr₀ (Zhang et al., PRL 120, 143001 (2018), eq. 6)."""
    return limit * (1 - lr_ratio) + start * lr_ratio
