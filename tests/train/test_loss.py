"""The loss: by hand, and against the numbers of DeePMD-kit 3.2.0."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepmd_lite.config import parse_config
from deepmd_lite.contract import Prediction
from deepmd_lite.train.loss import Counts, Labels, Loss

KEYS = ("energy", "force", "virial")
PREFACTORS = {
    **{"start_pref_e": 3, "limit_pref_e": 1, "start_pref_f": 50, "limit_pref_f": 2},
    **{"start_pref_v": 7, "limit_pref_v": 1},
}
START_LR, LR = 1e-3, 4e-4

# Settings, the loss, and the sums of |gradient| by energy, force and virial, of the frames of `random_frames`.
DEEPMD_KIT = {
    "mse": ({}, [0.108081144020826, 0.079749185202162, 1.71468144114025, 0.430127231867835]),
    "intensive": (
        {"intensive_ener_virial": True},
        [0.06970352865633, 0.0321344905312073, 1.71468144114025, 0.154038413085929],
    ),
    "mae": ({"loss_func": "mae"}, [1.11227892910512, 0.6, 21.2, 1.13333333333333]),
    "mae of lengths": (
        {"loss_func": "mae", "f_use_norm": True},
        [1.94797301580897, 0.6, 31.5297511296281, 1.13333333333333],
    ),
    "huber": (
        {"use_huber": True, "huber_delta": 0.03},
        [0.0231793883711855, 0.0128700510349368, 0.495686599423976, 0.0302244900080117],
    ),
    "huber, default": (
        {"use_huber": True},
        [0.00985248813838405, 0.00584832435577703, 0.197670376815345, 0.0109200005489088],
    ),
    "huber, three deltas": (
        {"use_huber": True, "huber_delta": [0.02, 0.05, 0.01]},
        [0.0250398960049804, 0.00987005103493685, 0.703899666519155, 0.0109200005489088],
    ),
    "huber of lengths": (
        {"use_huber": True, "huber_delta": 0.03, "f_use_norm": True},
        [0.0468686061858476, 0.0128700510349368, 0.945892533888843, 0.0302244900080117],
    ),
    "huber has no factor N to leave out": (
        {"use_huber": True, "huber_delta": 0.03, "intensive_ener_virial": True},
        [0.0231793883711855, 0.0128700510349368, 0.495686599423976, 0.0302244900080117],
    ),
    "relative": (
        {"relative_f": 0.5},
        [0.0709867190414545, 0.079749185202162, 0.452044442770444, 0.430127231867835],
    ),
    "relative mae of lengths": (
        {"relative_f": 0.5, "loss_func": "mae", "f_use_norm": True},
        [1.07313989425609, 0.6, 15.5879336709603, 1.13333333333333],
    ),
}


def make_loss(task, **settings):
    return Loss(parse_config({**task, "loss": {**PREFACTORS, **settings}}).loss, START_LR)


def random_frames(natoms=(4, 4, 2)):
    """Labels of frames of unequal size, and a prediction that is off by 0.1 eV, 0.05 eV/Å and 0.2 eV."""
    rng, n = np.random.RandomState(0), sum(natoms)  # a stream that NumPy never changes
    shapes = {"energy": (3,), "force": (n, 3), "virial": (3, 3, 3)}
    label = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    off = {"energy": 0.1, "force": 0.05, "virial": 0.2}
    predicted = {key: value + off[key] * rng.normal(size=value.shape) for key, value in label.items()}
    labels = Labels(
        natoms=torch.tensor(natoms, dtype=torch.float64),
        frame=torch.repeat_interleave(torch.arange(3), torch.tensor(natoms)),
        **{key: torch.from_numpy(value) for key, value in label.items()},
        weight=torch.ones(3, dtype=torch.float64),
        found={key: torch.ones(3, dtype=torch.bool) for key in KEYS},
    )
    return labels, predict(*(torch.from_numpy(predicted[key]) for key in KEYS))


def predict(energy, force, virial):
    return Prediction(
        energy.requires_grad_(), None, force.requires_grad_(), virial.requires_grad_(), atom_virial=None
    )


def gradients(loss, prediction):
    return torch.autograd.grad(loss, [getattr(prediction, key) for key in KEYS])


def part(labels, prediction, frames):
    """Some of the frames."""
    frames = torch.tensor(frames, dtype=torch.long)
    atoms = torch.isin(labels.frame, frames)
    cut = Labels(
        natoms=labels.natoms[frames],
        frame=torch.searchsorted(frames, labels.frame[atoms]),
        energy=labels.energy[frames],
        force=labels.force[atoms],
        virial=labels.virial[frames],
        weight=labels.weight[frames],
        found={key: value[frames] for key, value in labels.found.items()},
    )
    return cut, prediction._replace(
        energy=prediction.energy[frames], force=prediction.force[atoms], virial=prediction.virial[frames]
    )


@pytest.mark.parametrize("settings, expected", DEEPMD_KIT.values(), ids=DEEPMD_KIT)
def test_losses_of_deepmd_kit(task, settings, expected):
    """Its EnergyStdLoss of the same frames, padded and masked; to the 15 digits given, over sums of 30 terms."""
    labels, prediction = random_frames()
    errors = make_loss(task, **settings)(prediction, labels, LR)
    found = [errors.loss, *(g.abs().sum() for g in gradients(errors.loss, prediction))]
    assert [v.item() for v in found] == pytest.approx(expected, rel=1e-13)


def test_errors_are_root_mean_squares_whatever_the_loss(task):
    labels, prediction = random_frames()
    plain, other = (
        make_loss(task, **settings)(prediction, labels, LR)
        for settings in ({}, {"loss_func": "mae", "f_use_norm": True, "relative_f": 0.5})
    )
    assert plain[1:] == other[1:]
    assert plain.force.item() == pytest.approx(((prediction.force - labels.force) ** 2).mean().item())


def test_loss_by_hand(task):
    """Two atoms: ΔE = 0.2, ΔF = 0.1 in every component, ΔΞ = 0.6 in one; lr = start, so p = start_pref."""
    labels = Labels(
        natoms=torch.tensor([2.0], dtype=torch.float64),
        frame=torch.zeros(2, dtype=torch.int32),
        energy=torch.tensor([1.0], dtype=torch.float64),
        force=torch.zeros(2, 3, dtype=torch.float64),
        virial=torch.zeros(1, 3, 3, dtype=torch.float64),
        weight=torch.ones(1, dtype=torch.float64),
        found={k: torch.tensor([True]) for k in KEYS},
    )
    virial = torch.zeros(1, 3, 3, dtype=torch.float64)
    virial[0, 1, 2] = 0.6
    errors = make_loss(task)(predict(labels.energy + 0.2, labels.force + 0.1, virial), labels, START_LR)
    assert float(errors.loss) == pytest.approx(3 * 0.04 / 2 + 50 * 0.01 + 7 * 0.36 / (9 * 2), rel=1e-14)
    assert float(errors.energy) == pytest.approx(0.01)
    assert float(errors.virial) == pytest.approx(0.36 / 9 / 4)


def test_missing_labels_do_not_count(task):
    labels, prediction = random_frames()
    for key, found in (("energy", [1, 0, 0]), ("force", [0, 1, 1]), ("virial", [0, 0, 0])):
        labels.found[key] = torch.tensor(found, dtype=torch.bool)
    labels.energy[1:], labels.force[:4] = float("nan"), float("nan")
    labels = replace(labels, counts=None)
    errors = make_loss(task)(prediction, labels, LR)
    assert labels.counts == Counts(energy=1, force=6, virial=0)
    de, df = prediction.energy[0] - labels.energy[0], prediction.force[4:] - labels.force[4:]
    assert errors.energy.item() == pytest.approx((de / 4).item() ** 2)
    assert errors.force.item() == pytest.approx((df**2).mean().item())
    assert errors.virial is None
    energy, force = torch.autograd.grad(errors.loss, [prediction.energy, prediction.force])
    assert energy[1:].tolist() == [0, 0] and not force[:4].any() and force[4:].all()


@pytest.mark.parametrize("settings", [{}, {"use_huber": True}], ids=["mse", "huber"])
def test_weights_multiply_the_terms_of_frames(task, settings):
    """Σ w · term / number of frames: for a frame alone w times its loss, for a batch the sum over its frames."""
    labels, prediction = random_frames()
    loss = make_loss(task, **settings)
    expected = 0.0
    for k, w in enumerate((2.0, 0.0, 0.5)):
        labels.weight[k] = w
        one, predicted = part(labels, prediction, [k])
        one.weight[:] = 1
        alone = loss(predicted, one, LR, labels.counts).loss
        expected += w * float(alone)
    weighted = loss(prediction, labels, LR)
    assert float(weighted.loss) == pytest.approx(expected, rel=1e-13)
    labels.weight[:] = 1
    assert loss(prediction, labels, LR)[1:] == weighted[1:]  # errors are those of the frames as they are


@pytest.mark.parametrize("settings", [v[0] for v in DEEPMD_KIT.values()], ids=DEEPMD_KIT)
def test_parts_of_a_batch_add_up_to_it(task, settings):
    """Also where a part has none of some label, or no frames at all."""
    labels, prediction = random_frames()
    labels.found["virial"][2] = labels.found["force"][0] = False
    labels, prediction = part(labels, prediction, [0, 1, 2])
    labels.weight[1] = 3.0
    loss = make_loss(task, **settings)
    whole = loss(prediction, labels, LR)
    parts = [
        loss(predicted, some, LR, labels.counts)
        for some, predicted in (part(labels, prediction, frames) for frames in ([0, 1], [], [2]))
    ]
    for k, name in enumerate(whole._fields):
        assert sum(float(p[k]) for p in parts) == pytest.approx(float(whole[k]), rel=1e-13), name
    torch.testing.assert_close(
        gradients(sum(p.loss for p in parts), prediction),
        gradients(whole.loss, prediction),
        rtol=1e-13,
        atol=0,
    )


@pytest.mark.parametrize("settings", [v[0] for v in DEEPMD_KIT.values()], ids=DEEPMD_KIT)
def test_nothing_is_read_from_the_device(task, settings):
    """Tensors of the device "meta" have no numbers: reading one, as a GPU would have to wait for, is an error."""
    labels, prediction = random_frames()
    far = labels.to("meta")
    assert far.counts == labels.counts == Counts(3, 10, 3) and far.weight.is_meta
    predicted = predict(*(getattr(prediction, key).detach().to("meta") for key in KEYS))
    errors = make_loss(task, **settings)(predicted, far, LR)
    errors.loss.backward()
    assert errors.loss.is_meta and predicted.force.grad.shape == (10, 3)


@pytest.mark.parametrize("settings", [v[0] for v in DEEPMD_KIT.values()], ids=DEEPMD_KIT)
def test_no_error_is_no_loss_and_no_gradient(task, settings):
    """The length of a vector, and |x|, have no derivative at zero; zero stands for it."""
    labels, _ = random_frames()
    prediction = predict(*(getattr(labels, key).clone() for key in KEYS))
    errors = make_loss(task, **settings)(prediction, labels, LR)
    assert float(errors.loss) == 0 and not any(g.any() for g in gradients(errors.loss, prediction))
