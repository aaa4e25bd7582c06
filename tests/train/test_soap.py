"""SOAP is what its docstring says, and does what it is for."""

import numpy as np
import pytest
import torch

from deepmd_lite.train import soap


def by_hand(w, gradients, lr, eps, longest):
    """The update rule in numpy; eigenvectors and QR are unique up to signs, which cancel."""
    bases = [np.eye(n) for n in w.shape]
    sums = [np.zeros((n, n)) for n in w.shape]
    mean, square = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        left, right = bases
        mean = 0.95 * mean + 0.05 * g
        square = 0.95 * square + 0.05 * (left.T @ g @ right) ** 2
        step = left @ ((left.T @ mean @ right) / (np.sqrt(square) + eps)) @ right.T
        w = w - lr * np.sqrt(1 - 0.95**t) / (1 - 0.95**t) * step
        for side, rows in enumerate((g, g.T)):
            if len(rows) > longest:
                continue
            sums[side] = 0.95 * sums[side] + 0.05 * rows @ rows.T
            if t == 1:
                bases[side] = np.linalg.eigh(sums[side])[1][:, ::-1]
            elif t % 10 == 0:
                image = sums[side] @ bases[side]
                order = np.argsort(-np.diag(bases[side].T @ image))
                square = np.take(square, order, side)
                bases[side] = np.linalg.qr(image[:, order])[0]
    return w


@pytest.mark.parametrize(("rows", "longest"), [(4, 8), (6, 5), (6, 3)])
def test_the_update_rule(rows, longest, monkeypatch):
    """35 steps of a matrix of 4 columns: both sides turned, one, none (Adam)."""
    monkeypatch.setattr(soap, "LARGEST", longest)
    rng = np.random.default_rng(0)
    start, scale = rng.normal(size=(rows, 4)), 10.0 ** rng.uniform(-2, 0, (rows, 1))
    gradients = [rng.normal(size=(rows, rows)) @ (scale * rng.normal(size=(rows, 4))) for _ in range(35)]
    weights = torch.nn.Parameter(torch.tensor(start))
    optimizer = soap.SOAP([weights], lr=0.01)
    for g in gradients:
        weights.grad = torch.tensor(g)
        optimizer.step()
    expected = by_hand(start, gradients, 0.01, 1e-8, longest)
    # rounding, 1e-16 of the largest gradients, over the smallest that are divided by their own size, a hundredth, and
    # enlarged by as much at each of three turns
    np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=0, atol=1e-9)
    if longest < 4:
        adam = torch.nn.Parameter(torch.tensor(start))
        other = torch.optim.Adam([adam], lr=0.01, betas=(0.95, 0.95), eps=0)
        for g in gradients:
            adam.grad = torch.tensor(g)
            other.step()
        # ε = 1e-8 over gradients of about 0.01 changes each of 35 steps of 0.01 by 1e-6 of it
        torch.testing.assert_close(weights, adam, rtol=0, atol=1e-6)


def test_axes_that_are_not_those_of_the_loss():
    """‖A (W - C)‖² with condition number 10⁴: after 300 steps below a tenth of what Adam leaves."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    axes, _ = torch.linalg.qr(draw(20, 20))
    a, c = axes @ torch.diag(torch.logspace(0, -2, 20, dtype=torch.float64)) @ axes.T, draw(20, 10)
    left = {}
    for kind in (soap.SOAP, torch.optim.Adam):
        w = torch.nn.Parameter(torch.zeros(20, 10, dtype=torch.float64))
        optimizer = kind([w], lr=0.3)
        for step in range(300):
            for group in optimizer.param_groups:
                group["lr"] = 0.3 * (1 - step / 300)
            optimizer.zero_grad()
            loss = ((a @ (w - c)) ** 2).mean()
            loss.backward()
            optimizer.step()
        left[kind] = float(loss.detach())
    assert left[soap.SOAP] < 0.1 * left[torch.optim.Adam]


def test_weight_decay_alone():
    w = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = soap.SOAP([w], lr=0.1, weight_decay=0.5)
    w.grad = torch.zeros(3, 2)
    for _ in range(2):
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full((3, 2), 0.95**2))
