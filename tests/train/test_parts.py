"""Statistics of frames, against values worked out by hand."""

import math

import numpy as np
import pytest

from deepmd_lite.errors import NeighborOverflowError
from deepmd_lite.frames.store import open_systems
from deepmd_lite.train.dataset import Frames
from deepmd_lite.train.start import choose_sel
from deepmd_lite.train.statistics import (
    Moments,
    Survey,
    check_sel,
    energy_bias,
    energy_spread,
    env_mat_statistics,
    survey,
)


@pytest.fixture
def prepared(frames):
    return Frames(open_systems(f"{frames}#/train", ("O", "H")), 4.0, 2)


@pytest.fixture
def found(prepared):
    return survey(prepared, 0.5)


def test_env_mat_statistics(prepared, found):
    """Mean and spread over all sel slots, empty ones as zeros; xyz pooled."""
    sel = [4, 8]
    davg, dstd = env_mat_statistics(found, sel)
    values, xyz = [], []
    for f in prepared.map(lambda frame: frame):
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


def test_energy_bias_fixed_and_least_norm(prepared, found):
    mean = np.mean(list(prepared.map(lambda frame: float(frame.labels.energy))))
    assert energy_bias(found) == pytest.approx(np.array([3, 6]) * mean / 45)  # least norm of 3 a + 6 b = E
    assert energy_bias(found, [1.0, None]) == pytest.approx([1.0, (mean - 3) / 6])


def test_energies_count_frames_not_systems(found):
    """Three frames of O₂H with 10 eV and one of OH with 7, and of each as much again: least squares over all."""
    found.energies = {}
    rows, energies = np.array([[2, 1]] * 3 + [[1, 1]] + [[1, 0]] * 2, float), [9.0, 10.0, 11.0, 7.0, 3.0, 4.0]
    for row, energy in zip(rows, energies):
        part = Survey(2)
        part.energies[tuple(row)] = Moments(1, np.array([energy]), np.zeros(1))
        found.add(part)
    expected = np.linalg.lstsq(rows, energies, rcond=None)[0]
    assert energy_bias(found) == pytest.approx(expected, rel=1e-12)
    rest = (energies - rows @ expected) / np.sqrt(rows.sum(1))
    assert energy_spread(found) == pytest.approx(np.sqrt((rest**2).mean()), rel=1e-12)
    assert np.isnan(energy_spread(Survey(2)))


def test_sel_too_small_names_what_is_needed(found):
    largest = found.neighbors
    check_sel(found, largest)
    with pytest.raises(NeighborOverflowError, match=rf"frame \d+ needs \[{largest[0]}, {largest[1]}\]"):
        check_sel(found, [largest[0], largest[1] - 1])
    assert choose_sel("auto", found) == tuple(int(-(-n * 1.1 // 4) * 4) for n in largest)


def test_closest_pair(prepared, found):
    """Both molecules are in open space: all pairs are neighbors."""
    distances = []
    for coord in prepared.map(lambda frame: frame.batch.coord.numpy()):
        distances.append(np.linalg.norm(coord[:, None] - coord, axis=-1)[~np.eye(9, dtype=bool)].min())
    assert found.closest == pytest.approx(min(distances), rel=1e-14)
