"""Shares of frames: every frame in one part, sizes within one frame of the fractions, blocks kept whole."""

import numpy as np
import pytest

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames.split import split, write_split
from deepmd_lite.frames.store import read_systems


def frame_numbers(part, system):
    """Which frames of a system a part holds, by their energies (all different)."""
    number = {e: k for k, e in enumerate(system.labels["energy"])}
    return [number[e] for s in part for e in s.labels["energy"]]


@pytest.mark.parametrize("blocks", [None, 10])
def test_every_frame_once(make_water, blocks):
    system = make_water(nframes=97)
    parts = split([system], (0.7, 0.2, 0.1), seed=3, blocks=blocks)
    numbers = [frame_numbers(part, system) for part in parts]
    assert sorted(k for part in numbers for k in part) == list(range(97))
    room = 1 if blocks is None else 10  # one frame, or one block of at most ten
    for have, want in zip(numbers, (67.9, 19.4, 9.7)):
        assert abs(len(have) - want) <= room
        assert have == sorted(have)


def test_blocks_stay_whole(make_water):
    system = make_water(nframes=100)
    for part in split([system], (0.5, 0.3, 0.2), blocks=10):
        numbers = np.array(frame_numbers(part, system))
        tens, counts = np.unique(numbers // 10, return_counts=True)
        assert (counts == 10).all(), tens


def test_seed_decides(make_water):
    system = make_water(nframes=50)
    same, again, other = (frame_numbers(split([system], seed=s).test, system) for s in (1, 1, 2))
    assert same == again != other


def test_small_systems_share(make_water):
    """Twenty systems of one frame: fractions hold over the whole, not frame by frame."""
    parts = split([make_water(nframes=1, seed=k) for k in range(20)], (0.8, 0.1, 0.1))
    assert [len(p) for p in parts] == [16, 2, 2]


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (0.5, 0.2, 0.2, 0.1), (float("nan"), 1, 0)])
def test_fractions_must_add_up(water, fractions):
    with pytest.raises(ConfigError, match="add up to 1"):
        split([water], fractions)


def test_negative_seed_is_refused(water):
    with pytest.raises(ConfigError, match="seed = -1: expected 0 or more"):
        split([water], seed=-1)


def test_empty_part_is_refused(make_water):
    with pytest.raises(DataError, match=r"validation frames are to be 0.1 of 2"):
        split([make_water(nframes=2)])


def test_written_beside_one_another(tmp_path, make_water):
    systems = [make_water(nframes=10, seed=1), make_water(nframes=10, pbc=(False, False, False))]
    written = write_split(split(systems), tmp_path / "data.h5")
    assert {k: sum(s.nframes for s in read_systems(v)) for k, v in written.items()} == {
        "training": 16,
        "validation": 2,
        "test": 2,
    }
    with pytest.raises(DataError, match="exists"):
        write_split(split(systems), tmp_path / "data.h5")
