"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv:2409.11321, algorithm 3)."""

import torch

FREQUENCY = 10  # steps between two turns of the bases
LARGEST = 1024  # the longest side of a matrix that gets a basis


class SOAP(torch.optim.Optimizer):
    """For matrices W, with gradients G and bases Q of their sides::

        M ← β₁ M + (1 - β₁) G,  V ← β₂ V + (1 - β₂) (Q_Lᵀ G Q_R)²
        W ← W - lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) · Q_L [(Q_Lᵀ M Q_R) / (√V + ε)] Q_Rᵀ
        L ← β₂ L + (1 - β₂) G Gᵀ,  R ← β₂ R + (1 - β₂) Gᵀ G
        Q_L ← orthonormal part of L Q_L, every FREQUENCY steps, columns sorted first; Q_R the same with R

    The bases are axes in the first step, after it the eigenvectors of L and R.

    Parameters
    ----------
    params : iterable of torch.nn.Parameter
    lr, eps, weight_decay : float
        The decay is AdamW's: lr · weight_decay of W, each step.
    betas : (float, float)

    Notes
    -----
    Sides longer than LARGEST keep their axes. The state of a parameter is a flat dict of tensors, as a checkpoint
    takes it. Where gradients leave directions open, rounding chooses the basis: runs that differ in the last bit
    differ in their weights later, not in what they learn.
    """

    def __init__(self, params, lr=0.003, betas=(0.95, 0.95), eps=1e-8, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        """One step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, self.state[parameter], **group)

    def _step(self, parameter, state, *, lr, betas, eps, weight_decay, **_):
        gradient, (beta1, beta2) = parameter.grad, betas
        if not state:
            state |= new_state(parameter)
        state["step"] = state["step"].cpu() + 1  # here, so that no step waits for a GPU
        t = int(state["step"])
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].lerp_(_turned(gradient, state).square_(), 1 - beta2)
        update = _turned(mean, state).div_(square.sqrt().add_(eps))
        size = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        parameter.mul_(1 - lr * weight_decay).add_(_turned(update, state, back=True), alpha=-size)
        for axis, (side, rows) in enumerate((("left", gradient), ("right", gradient.T))):
            if side in state:
                covariance = state[side].lerp_(rows @ rows.T, 1 - beta2)
                if t == 1:
                    state[f"{side}_basis"] = torch.linalg.eigh(covariance).eigenvectors.flip(1)
                elif t % FREQUENCY == 0:
                    _turn(state, side, axis)


def _turn(state, side, axis):
    """One step of orthogonal iteration towards the eigenvectors, those of large eigenvalues first."""
    basis = state[f"{side}_basis"]
    image = state[side] @ basis
    order = (basis * image).sum(0).argsort(descending=True)
    state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, order)
    state[f"{side}_basis"] = torch.linalg.qr(image.index_select(1, order)).Q


def new_state(parameter):
    """dict of torch.Tensor: Of a matrix before its first step; torch's names where Adam has the same."""
    state = {
        "step": torch.zeros(()),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }
    for side, n in zip(("left", "right"), parameter.shape):
        if n <= LARGEST:
            state[side] = parameter.new_zeros(n, n)
            state[f"{side}_basis"] = torch.eye(n, dtype=parameter.dtype, device=parameter.device)
    return state


def _turned(matrix, state, back=False):
    """A new matrix: Q_Lᵀ X Q_R, or Q_L X Q_Rᵀ on the way back."""
    left, right = state.get("left_basis"), state.get("right_basis")
    made = matrix.clone() if left is None and right is None else matrix
    if left is not None:
        made = (left if back else left.T) @ made
    if right is not None:
        made = made @ (right.T if back else right)
    return made
