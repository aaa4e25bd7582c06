"""Statistics, loss, learning rate and batches, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from deepmd_lite import read_systems
from deepmd_lite.config import parse_config
from deepmd_lite.errors import DataError, NeighborOverflowError
from deepmd_lite.model.potential import Prediction
from deepmd_lite.train.dataset import (
    Sampler,
    batch_size,
    check_labels,
    check_sel,
    collate,
    max_neighbors,
    prepare,
    system_probabilities,
)
from deepmd_lite.train.loss import Labels, Loss
from deepmd_lite.train.schedule import Schedule
from deepmd_lite.train.start import choose_sel
from deepmd_lite.train.statistics import energy_bias, env_mat_statistics


@pytest.fixture
def prepared(frames):
    return prepare(read_systems(f"{frames}#/train", ("O", "H")), 4.0, 2)


def test_exponential_decay_is_a_staircase():
    lr = Schedule("exp", start_lr=1e-3, stop_lr=1e-5, numb_steps=1000, decay_steps=100)
    assert lr(0) == lr(99) == 1e-3
    assert lr(100) == pytest.approx(1e-3 * 0.01**0.1, rel=1e-14)
    assert lr(999) == pytest.approx(1e-3 * 0.01**0.9, rel=1e-14)


def test_given_decay_rate():
    lr = Schedule("exp", start_lr=1e-3, stop_lr=3e-4, numb_steps=1000, decay_steps=10, decay_rate=0.5)
    assert [lr(9), lr(10), lr(25)] == [1e-3, 0.5e-3, 3e-4]


@pytest.mark.parametrize("numb_steps, used", [(2000, 100), (500, 6)])
def test_decay_steps_beyond_the_run(numb_steps, used):
    lr = Schedule("exp", start_lr=1e-3, stop_lr=1e-5, numb_steps=numb_steps, decay_steps=numb_steps)
    assert lr(used - 1) == 1e-3 > lr(used)


def test_cosine_and_warm_up():
    lr = Schedule("cosine", 1e-2, 1e-4, 110, warmup_steps=10, warmup_start_factor=0.5)
    assert [lr(0), lr(5), lr(10)] == pytest.approx([0.5e-2, 0.75e-2, 1e-2])
    assert lr(60) == pytest.approx((1e-2 + 1e-4) / 2)


def test_loss_by_hand(task):
    """Two atoms: ΔE = 0.2, ΔF = 0.1 in every component, ΔΞ = 0.6 in one; lr = start, so p = start_pref."""
    section = parse_config({**task, "loss": {"start_pref_e": 3, "start_pref_f": 5, "start_pref_v": 7}}).loss
    labels = Labels(
        natoms=torch.tensor([2.0], dtype=torch.float64),
        frame=torch.zeros(2, dtype=torch.int32),
        energy=torch.tensor([1.0], dtype=torch.float64),
        force=torch.zeros(2, 3, dtype=torch.float64),
        virial=torch.zeros(1, 3, 3, dtype=torch.float64),
        found={k: torch.tensor([True]) for k in ("energy", "force", "virial")},
    )
    virial = torch.zeros(1, 3, 3, dtype=torch.float64)
    virial[0, 1, 2] = 0.6
    found = Prediction(labels.energy + 0.2, None, labels.force + 0.1, virial, None)
    errors = Loss(section, 1e-3)(found, labels, 1e-3)
    assert float(errors.loss) == pytest.approx(3 * 0.04 / 2 + 5 * 0.01 + 7 * 0.36 / (9 * 2), rel=1e-14)
    assert float(errors.energy) == pytest.approx(0.01)
    assert float(errors.virial) == pytest.approx(0.36 / 9 / 4)


def test_missing_labels_do_not_count(task):
    section = parse_config(task).loss
    labels = Labels(
        natoms=torch.full((2,), 2.0, dtype=torch.float64),
        frame=torch.tensor([0, 0, 1, 1], dtype=torch.int32),
        energy=torch.zeros(2, dtype=torch.float64),
        force=torch.zeros(4, 3, dtype=torch.float64),
        virial=torch.zeros(2, 3, 3, dtype=torch.float64),
        found={
            "energy": torch.tensor([True, False]),
            "force": torch.tensor([False, True]),
            "virial": torch.tensor([False, False]),
        },
    )
    one = torch.ones(4, 3, dtype=torch.float64)
    found = Prediction(torch.tensor([0.2, 9.0], dtype=torch.float64), None, one, torch.ones(2, 3, 3), None)
    errors = Loss(section, 1e-3)(found, labels, 1e-3)
    assert (float(errors.energy), float(errors.force), errors.virial) == (pytest.approx(0.01), 1.0, None)


def test_env_mat_statistics(prepared):
    """Mean and spread over all sel slots, empty ones as zeros; xyz pooled."""
    sel = [4, 8]
    davg, dstd = env_mat_statistics(prepared, 4.0, 0.5, sel)
    values, xyz = [], []
    for f in prepared[0]:
        coord = f.batch.coord.numpy()
        for i in np.flatnonzero(np.array([0, 1, 1] * 3) == 0):
            vec = np.delete(coord, i, axis=0) - coord[i]
            r = np.linalg.norm(vec, axis=1)
            u = np.clip((r - 0.5) / 3.5, 0, 1)
            s = (1 - 10 * u**3 + 15 * u**4 - 6 * u**5) / r
            values.append(np.r_[s, np.zeros(12 - len(s))])
            xyz.append(np.r_[(s[:, None] * vec / r[:, None]), np.zeros((12 - len(s), 3))])
    values, xyz = np.array(values), np.array(xyz)
    assert davg[0] == pytest.approx([values.mean(), 0, 0, 0], rel=1e-12)
    spread = math.sqrt((xyz**2).mean() - xyz.mean() ** 2)
    assert dstd[0] == pytest.approx([values.std(), spread, spread, spread], rel=1e-12)


def test_energy_bias_fixed_and_least_norm(prepared):
    mean = np.mean([float(f.labels.energy) for f in prepared[0]])
    assert energy_bias(prepared, 2) == pytest.approx(
        np.array([3, 6]) * mean / 45
    )  # least norm of 3 a + 6 b = E
    assert energy_bias(prepared, 2, [1.0, None]) == pytest.approx([1.0, (mean - 3) / 6])


def test_sel_too_small_names_what_is_needed(prepared):
    largest, _ = max_neighbors(prepared)
    check_sel(prepared, largest)
    with pytest.raises(NeighborOverflowError, match=rf"frame \d+ needs \[{largest[0]}, {largest[1]}\]"):
        check_sel(prepared, [largest[0], largest[1] - 1])
    assert choose_sel("auto", prepared) == tuple(int(-(-n * 1.1 // 4) * 4) for n in largest)


def test_every_frame_once_per_epoch_and_batches_depend_on_the_step_alone(prepared):
    sampler = Sampler(prepared, 3, seed=5)
    epoch = [sampler(k) for k in range(3)]
    assert sorted(f.index for batch in epoch for f in batch) == list(range(8))
    again = Sampler(prepared, 3, seed=5)
    assert [f.index for f in again(2)] == [f.index for f in epoch[2]]
    assert [f.index for f in again(0)] == [f.index for f in epoch[0]]


def test_batch_size_rules():
    assert [batch_size(b, 9) for b in (2, "auto", "auto:10")] == [2, 4, 2]


def test_system_probabilities():
    assert system_probabilities("prob_sys_size", [1, 3]) is None
    assert system_probabilities("prob_uniform", [1, 3]) == pytest.approx([0.5, 0.5])
    assert system_probabilities("prob_sys_size;0:1:0.8;1:3:0.2", [5, 1, 3]) == pytest.approx(
        [0.8, 0.05, 0.15]
    )


def test_collate_keeps_labels_with_their_frames(prepared):
    batch, labels = collate(prepared[0][:3])
    assert batch.nframes == 3
    assert labels.energy.tolist() == [float(f.labels.energy) for f in prepared[0][:3]]
    assert torch.equal(labels.force[9:18], prepared[0][1].labels.force)


def test_labels_must_be_there_for_the_loss(frames, task):
    (system,) = read_systems(f"{frames}#/train", ("O", "H"))
    check_labels([system], parse_config(task).loss)
    system.labels, system.found = {}, {"energy": np.ones(8, bool)}
    only_force = parse_config({**task, "loss": {"start_pref_e": 0, "limit_pref_e": 0}}).loss
    with pytest.raises(DataError, match="the loss counts force, the frames have energy"):
        check_labels([system], only_force)
