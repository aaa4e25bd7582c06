"""The learning rate as a function of the step, and the loss prefactors that follow it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a decay to ``stop_lr`` at ``numb_steps``: exponential, cosine, or late (``wsd``).

    Notes
    -----
    With t counted from the end of the warm-up and T = numb_steps - warmup_steps::

        exp      lr(t) = start_lr · decay_rate^⌊t / decay_steps⌋   (without ⌊⌋ when ``smooth``)
                 decay_rate = (stop_lr / start_lr)^(decay_steps / T) unless given; never below stop_lr
        cosine   lr(t) = stop_lr + (start_lr - stop_lr) (1 + cos(π t / T)) / 2
        wsd      lr(t) = start_lr up to t = T - D, D = decay_phase_ratio · numb_steps; then with τ from 0 to 1
                 inverse_linear   1 / lr = (1 - τ) / start_lr + τ / stop_lr
                 cosine           as above, with τ for t / T
                 linear           lr = (1 - τ) start_lr + τ stop_lr

    During the warm-up the rate grows from ``warmup_start_factor · start_lr`` to ``start_lr``. Without a
    ``decay_rate``, ``decay_steps`` of T or more would never decay: as in DeePMD-kit, 100 takes their place, or
    ⌊T/100⌋ + 1 where T < 1,010.

    References
    ----------
    wsd, warm-up - stable - decay: Hu et al., arXiv:2404.06395.
    """

    type: str
    start_lr: float
    stop_lr: float
    numb_steps: int
    decay_steps: int = 5000
    decay_rate: float | None = None
    smooth: bool = False
    decay_phase_ratio: float = 0.1
    decay_type: str = "inverse_linear"
    warmup_steps: int = 0
    warmup_start_factor: float = 0.0

    def __call__(self, step):
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            f = self.warmup_start_factor
            return self.start_lr * (f + (1 - f) * step / self.warmup_steps)
        t, total = step - self.warmup_steps, max(1, self.numb_steps - self.warmup_steps)
        if self.type == "exp":
            return self._exponential(t, total)
        if self.type == "cosine":
            return self._between(min(1, t / total), "cosine")
        decaying = max(1, min(int(self.decay_phase_ratio * self.numb_steps), total))
        return self._between(min(1, max(0, t - total + decaying) / decaying), self.decay_type)

    def _exponential(self, t, total):
        steps = self.decay_steps
        if self.decay_rate is None and steps >= total:
            steps = 100 if total // 10 > 100 else total // 100 + 1
        rate = self.decay_rate or (self.stop_lr / self.start_lr) ** (steps / total)
        return max(self.stop_lr, self.start_lr * rate ** (t / steps if self.smooth else t // steps))

    def _between(self, tau, shape):
        """From start_lr at τ = 0 to stop_lr at τ = 1."""
        if shape == "inverse_linear":
            return self.start_lr / (1 - tau + tau * self.start_lr / self.stop_lr)
        share = (1 + math.cos(math.pi * tau)) / 2 if shape == "cosine" else 1 - tau
        return share * self.start_lr + (1 - share) * self.stop_lr


def prefactor(start, limit, lr_ratio):
    """p = limit (1 - lr/lr₀) + start lr/lr₀ (Zhang et al., PRL 120, 143001 (2018), eq. 6)."""
    return limit * (1 - lr_ratio) + start * lr_ratio
