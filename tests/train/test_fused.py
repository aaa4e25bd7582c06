"""The fused training step against the torch model: the same losses, the same gradients.

In float64 what differs is the error of the knots, of which there are enough here to make it 1e-10.
"""

import numpy as np
import pytest
import torch

from deepmd_lite import DeepPot
from deepmd_lite.errors import DomainError
from deepmd_lite.model import batch as batches
from deepmd_lite.train.fused import FusedPot, can_fuse

RTOL = 1e-10
BOX = np.array([[5.0, 0.0, 0.0], [1.0, 5.5, 0.0], [-0.7, 0.4, 6.0]])  # cutoff 4 Å: atoms see their own images
SHAPES = {
    "one-sided": {},
    "two-sided": {"one_side": False},
    "three types": {"ntypes": 3},
    "resnet_dt": {"resnet_dt": True},
    "davg zero": {"davg": False},
    "more neighbors than sel": {"sel": 4},
    "atom_ener": {"atom_ener": [None, 1.0]},
    "fparam, aparam": {"fparam": 2, "aparam": 1},
    "pair_exclude_types": {"pair_exclude_types": [(0, 1)]},
    "atom_exclude_types": {"atom_exclude_types": [1]},
    "exclude_types": {"exclude_types": [(0, 1)], "davg": False, "one_side": False},
    **{act: {"act": act} for act in ("gelu", "softplus", "sigmoid", "silu", "linear")},
}


def make_batch(shape, ntypes):
    """Two frames of unequal size, with neighbors of all types."""
    rng = np.random.default_rng(3)
    sites = np.stack(np.meshgrid(*[[0.1, 0.6]] * 3, indexing="ij"), -1).reshape(-1, 3)
    frames = []
    for n in (8, 5):
        coord = (sites[:n] + rng.uniform(-0.05, 0.05, (n, 3))) @ BOX
        fparam = rng.normal(size=2) if "fparam" in shape else None
        aparam = rng.normal(size=(n, 1)) if "aparam" in shape else None
        atype = np.array([0, 1, 1, 0, 1, 1, 0, 1], np.int32)[:n]
        frames.append(batches.from_frame(coord, atype, BOX, [True] * 3, 4.0, ntypes, fparam, aparam))
    return batches.collate(frames)


def loss_and_gradients(potential, parameters, batch):
    """A loss of energies, forces and virials with weights that no symmetry hides."""
    rng = np.random.default_rng(7)
    found = potential(batch)
    terms = [
        (torch.from_numpy(rng.normal(1, 0.3, value.shape)) * value**2).sum()
        for value in (found.energy, found.force, found.virial)
    ]
    loss = sum(terms)
    return found, torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_torch_model(random_model, shape, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    potential = DeepPot(random_model(**{"sel": 50, **shape}))
    parameters, batch = list(potential.parameters()), make_batch(shape, potential.ntypes)
    assert can_fuse(potential)
    found, ours = loss_and_gradients(FusedPot(potential, closest=1.5, nknots=2048), parameters, batch)
    expected, theirs = loss_and_gradients(potential, parameters, batch)
    for key in ("energy", "atom_energy", "force", "virial"):
        torch.testing.assert_close(getattr(found, key), getattr(expected, key), rtol=RTOL, atol=RTOL)
    largest = max(float(b.abs().max()) for b in theirs)
    assert largest > 1e-3
    for a, b in zip(ours, theirs):  # relative to the parameter's gradient, unless all of it cancels
        torch.testing.assert_close(a, b, rtol=0, atol=RTOL * max(float(b.abs().max()), 1e-4 * largest))


def test_float32_nets(random_model):
    """The rounding of float32, 6e-8, over knots 1/256 of the range apart; relative to the largest terms."""
    model = random_model(sel=50)
    exact, batch = DeepPot(model), make_batch({}, 2)
    model.descriptor.precision = model.fitting.precision = "float32"
    fused = FusedPot(DeepPot(model), closest=1.5)
    assert fused.nknots == 256
    found, ours = loss_and_gradients(fused, list(fused.potential.parameters()), batch)
    expected, theirs = loss_and_gradients(exact, list(exact.parameters()), batch)
    torch.testing.assert_close(found.energy, expected.energy, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.force, expected.force, rtol=0, atol=1e-5)
    largest = max(float(b.abs().max()) for b in theirs)
    for a, b in zip(ours, theirs):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5 * largest)


def test_backward_comes_before_the_next_forward(random_model):
    potential, batch = DeepPot(random_model(sel=50)), make_batch({}, 2)
    fused = FusedPot(potential, closest=1.5)
    first, _ = fused(batch), fused(batch)
    with pytest.raises(RuntimeError, match="the next batch"):
        first.energy.sum().backward()


def test_frozen_parts_get_no_gradient(random_model):
    potential, batch = DeepPot(random_model(sel=50)), make_batch({}, 2)
    potential.descriptor.nets.requires_grad_(False)
    FusedPot(potential, closest=1.5)(batch).force.square().sum().backward()
    assert all(p.grad is None for p in potential.descriptor.parameters())
    assert all(p.grad is not None for p in potential.fitting.parameters())


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "torch"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_frozen_layers_get_no_gradient_and_the_others_keep_theirs(random_model, layer, fused):
    potential, batch = DeepPot(random_model(sel=50)), make_batch({}, 2)
    evaluate = FusedPot(potential, closest=1.5) if fused else potential
    _, free = loss_and_gradients(evaluate, list(potential.parameters()), batch)
    for net in potential.fitting.nets:
        net.layers[layer].requires_grad_(False)
    frozen = [p for net in potential.fitting.nets for p in net.layers[layer].parameters()]
    trained = [p for p in potential.parameters() if p.requires_grad]
    _, kept = loss_and_gradients(evaluate, trained, batch)
    assert all(p.grad is None for p in frozen)
    expected = [g for g, p in zip(free, potential.parameters()) if p.requires_grad]
    assert len(frozen) and all(torch.equal(a, b) for a, b in zip(kept, expected))


def test_kinks_are_not_interpolated(random_model):
    for act in ("relu", "relu6", "silut:1.0"):
        assert not can_fuse(DeepPot(random_model(act=act)))


def test_pairs_closer_than_announced_are_refused(random_model):
    potential = DeepPot(random_model(sel=50))
    with pytest.raises(DomainError, match="closer than 3"):
        FusedPot(potential, closest=3.5)(make_batch({}, 2))


def test_knots_are_doubled_until_they_resolve_the_nets(random_model):
    potential = DeepPot(random_model(sel=50))
    with torch.no_grad():
        potential.descriptor.nets[0].layers[0].w *= 100
    fused = FusedPot(potential, closest=1.5, nknots=64)
    before = fused.error()
    fused.refine()
    assert fused.nknots > 64 and fused.error() < before / 1000
    assert fused.error() < 1e-9
