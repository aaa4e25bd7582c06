"""The model against the plain path: the paper's equations slot by slot, differentiated by autograd.

The plain path fills all ``sel`` slots, empty ones with zero rows, and knows nothing of the closed form for
missing slots, of dG/ds, or of pair gradients. In float64 the two agree to rounding; 1e-10 is a thousand times that.
"""

import warnings

import numpy as np
import pytest
import torch

from deepmd_lite import DeepPot
from deepmd_lite.box import extend
from deepmd_lite.model import batch as batches
from deepmd_lite.model.network import activation
from deepmd_lite.neighbors import cell_list

RTOL = 1e-10
BOX = np.array([[5.0, 0.0, 0.0], [1.0, 5.5, 0.0], [-0.7, 0.4, 6.0]])  # cutoff 4 Å: atoms see their own images


@pytest.fixture
def frame():
    rng = np.random.default_rng(3)
    sites = np.stack(np.meshgrid(*[[0.1, 0.6]] * 3, indexing="ij"), -1).reshape(-1, 3)
    coord = (sites + rng.uniform(-0.05, 0.05, sites.shape)) @ BOX
    return coord, np.array([0, 1, 1, 0, 1, 1, 0, 1], np.int32)


def plain(potential, coord, strain, atype, fparam=None, aparam=None):
    """The energy (a scalar tensor), differentiable in coord (n, 3), strain (3, 3) and the weights."""
    model = potential.model
    d, ntypes = model.descriptor, len(model.type_map)
    ghosts = extend(coord.detach().numpy(), BOX, [True] * 3, d.rcut)
    table = cell_list(ghosts.coord, len(atype), d.rcut)
    shift = torch.from_numpy(ghosts.coord - coord.detach().numpy()[ghosts.owner])
    everyone = (coord[torch.from_numpy(ghosts.owner).long()] + shift) @ (torch.eye(3) + strain).to(
        torch.float64
    )
    excluded = potential.descriptor.excluded
    total = 0.0
    for i, ti in enumerate(atype):
        if ti in model.atom_exclude_types:
            continue
        neighbors = torch.from_numpy(table.index[table.first[i] : table.first[i + 1]]).long()
        a = torch.zeros(4, d.neuron[-1], dtype=torch.float64)
        for tj in range(ntypes):
            mine = neighbors[[atype[ghosts.owner[j]] == tj for j in neighbors]]
            if (ti, tj) in potential.excluded:
                mine = mine[:0]
            vec = everyone[mine] - everyone[i]
            r = vec.norm(dim=1, keepdim=True)
            u = ((r - d.rcut_smth) / (d.rcut - d.rcut_smth)).clamp(0, 1)
            s = (1 - 10 * u**3 + 15 * u**4 - 6 * u**5) / r
            rows = torch.zeros(d.sel[tj], 4, dtype=torch.float64)
            rows = torch.cat((torch.cat((s, s * vec / r), 1), rows[len(vec) :]))
            rows = (rows - torch.tensor(d.davg[ti])) / torch.tensor(d.dstd[ti])
            if (ti, tj) not in excluded:
                net = potential.descriptor.nets[tj if d.type_one_side else ti + ntypes * tj]
                a = a + rows.T @ net(rows[:, :1])
        a = a / sum(d.sel)
        descriptor = (a.T @ a[:, : d.axis_neuron]).reshape(1, -1)
        extra = {"fparam": fparam, "aparam": None if aparam is None else aparam[i : i + 1]}
        total = total + potential.fitting(descriptor, int(ti), **extra)[0]
    return total


SHAPES = {
    "one-sided": {},
    "two-sided": {"one_side": False},
    "resnet_dt": {"resnet_dt": True},
    "davg zero": {"davg": False},
    "many empty slots": {"sel": 60},
    "atom_ener": {"atom_ener": [None, 1.0]},
    "fparam, aparam": {"fparam": 2, "aparam": 1},
    "pair_exclude_types": {"pair_exclude_types": [(0, 1)]},
    "atom_exclude_types": {"atom_exclude_types": [1]},
    "exclude_types": {"exclude_types": [(0, 1)], "davg": False, "one_side": False},
    **{act: {"act": act} for act in ("gelu", "softplus", "sigmoid", "silu", "silut:1.0", "linear")},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_energy_force_virial_and_weight_gradients(random_model, frame, shape):
    shape = {"sel": 50, **shape}
    coord, atype = frame
    potential = DeepPot(random_model(**shape))
    rng = np.random.default_rng(1)
    fparam = torch.from_numpy(rng.normal(size=(1, 2))) if "fparam" in shape else None
    aparam = torch.from_numpy(rng.normal(size=(len(atype), 1))) if "aparam" in shape else None

    x = torch.tensor(coord, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    energy = plain(potential, x, strain, atype, fparam, aparam)
    dx, dstrain = torch.autograd.grad(energy, (x, strain), create_graph=True)
    batch = batches.from_frame(coord, atype, BOX, [True] * 3, potential.rcut, 2, fparam, aparam)
    found = potential(batch, atom_virial=True)

    scale = 1 + energy.detach().abs()
    assert (found.energy[0] - energy).abs() < RTOL * scale
    torch.testing.assert_close(found.force, -dx, rtol=RTOL, atol=RTOL)
    torch.testing.assert_close(found.virial[0], -dstrain, rtol=RTOL, atol=RTOL)
    torch.testing.assert_close(found.atom_virial.sum(0), found.virial[0], rtol=RTOL, atol=RTOL)

    def weight_gradients(e, f, v):
        loss = e**2 + (f**2).sum() + (v**2).sum()
        return torch.autograd.grad(
            loss, list(potential.parameters()), allow_unused=True, materialize_grads=True
        )

    ours = weight_gradients(found.energy[0], found.force, found.virial[0])
    theirs = weight_gradients(energy, -dx, -dstrain)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=RTOL, atol=RTOL * (1 + float(b.abs().max())))


@pytest.mark.parametrize(
    "name", ["tanh", "relu", "relu6", "gelu", "softplus", "sigmoid", "silu", "silut:2", "none"]
)
def test_activation_derivative(name):
    x = torch.linspace(-7.01, 7.01, 101, dtype=torch.float64, requires_grad=True)
    y, dy = activation(name)(x)
    (exact,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(dy, exact, rtol=1e-13, atol=1e-13)


def test_batch_equals_frames_one_by_one(random_model, frame):
    coord, atype = frame
    potential = DeepPot(random_model(sel=50))
    rng = np.random.default_rng(5)
    coords = [coord, coord + rng.normal(0, 0.1, coord.shape), coord[:5]]
    frames = [batches.from_frame(c, atype[: len(c)], BOX, [True] * 3, potential.rcut, 2) for c in coords]
    together = potential(batches.collate(frames), atom_virial=True)
    apart = [potential(f, atom_virial=True) for f in frames]
    for key in ("energy", "atom_energy", "force", "virial", "atom_virial"):
        joined = torch.cat([getattr(p, key) for p in apart])
        torch.testing.assert_close(getattr(together, key), joined, rtol=1e-12, atol=1e-12)


def test_memory_blocks_change_nothing(random_model, frame, monkeypatch):
    coord, atype = frame
    potential = DeepPot(random_model(sel=50))
    whole = potential.evaluate(coord, atype, BOX, [True] * 3, atom_virial=True)
    monkeypatch.setattr("deepmd_lite.model.potential.PAIRS_AT_ONCE", 1)
    parts = potential.evaluate(coord, atype, BOX, [True] * 3, atom_virial=True)
    for a, b in zip(whole, parts):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_more_neighbors_than_sel_warns_once(random_model, frame):
    coord, atype = frame
    potential = DeepPot(random_model(sel=4))
    with pytest.warns(UserWarning, match="more than the model's sel"):
        potential.evaluate(coord, atype, BOX, [True] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        potential.evaluate(coord, atype, BOX, [True] * 3)
