"""Counter-based random numbers.

Seeds are fixed, so each test gives the same verdict every time. Statistics are compared at 4 standard errors,
1/√n for the correlation of n pairs of independent numbers, and distributions at p > 0.01.
"""

import numpy as np
import pytest
from scipy import stats

from deepmd_lite.errors import ConfigError
from deepmd_lite.md import random

N = 100_000
IDS = np.arange(N)


def words(counter, key):
    """The four words of one block, as hexadecimal numbers."""
    low, high, key = (np.uint64(a | b << 32) for a, b in (counter[:2], counter[2:], key))
    out = np.empty((1, 2), np.uint64)
    random._blocks(key, high, np.array([low]), out)
    return " ".join(f"{int(word) >> shift & 0xFFFFFFFF:08x}" for word in out[0] for shift in (0, 32))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers_of_random123(counter, key, expected):
    assert words(counter, key) == expected


def test_a_number_is_a_function_of_its_id():
    """Whatever the order, the number and the layout of ids."""
    whole = random.normal(7, 3, IDS)
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(random.normal(7, 3, order), whole[order])
    np.testing.assert_array_equal(random.normal(7, 3, IDS[::3]), whole[::3])
    np.testing.assert_array_equal(random.normal(7, 3, IDS[5:6]), whole[5:6])
    assert random.normal(7, 3, IDS[:0]).shape == (0, 3)


@pytest.mark.parametrize("stream", [0, 1])
def test_standard_normal(stream):
    x = random.normal(11, 5, IDS, stream)
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    # The mean k-th power of n numbers has the variance ((2k - 1)!! - m²)/n, m = (k - 1)!! for even k, or 0.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(x**power) - mean) < 4 * np.sqrt(variance / x.size)


def test_axes_ids_steps_seeds_and_streams_are_independent():
    x = random.normal(11, 5, IDS)
    others = {
        "another axis": np.roll(x, 1, axis=1),
        "the next id": np.roll(x, 1, axis=0),
        "the next axis of the next id": np.roll(x, (1, 1), axis=(0, 1)),
        "the next step": random.normal(11, 6, IDS),
        "a late step": random.normal(11, 2**62, IDS),
        "the next seed": random.normal(12, 5, IDS),
        "a long seed": random.normal(11 + 2**32, 5, IDS),
        "the next stream": random.normal(11, 5, IDS, 1),
        "seed and step exchanged": random.normal(5, 11, IDS),
    }
    for name, y in others.items():
        for f in (lambda z: z, lambda z: z**2 - 1):  # f(x) has zero mean
            a, b = f(x).ravel(), f(y).ravel()
            correlation = np.mean(a * b) / np.sqrt(np.mean(a**2) * np.mean(b**2))
            assert abs(correlation) < 4 / np.sqrt(N), (
                name
            )  # 3 N pairs; N, as "another axis" uses each pair twice


def test_an_atom_draws_anew_in_every_step():
    x = np.array([random.normal(2, step, [4])[0] for step in range(3000)])
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.mean(x[1:] * x[:-1], axis=0)).max() < 4 / np.sqrt(len(x))


def test_no_two_arguments_share_a_counter():
    """Ends of each range: different (step, id, stream), different numbers."""
    drawn = [
        random.normal(2**64 - 1, step, np.array([0, 1, 2**46, 2**47 - 1]), stream)
        for step in (0, 1, 2**32, 2**64 - 1)
        for stream in (0, 1, 2**16 - 1)
    ]
    assert len(np.unique(np.concatenate(drawn))) == 4 * 3 * 4 * 3


def test_generator_is_a_function_of_its_arguments():
    x = random.generator(5, 9, 1).standard_normal(8)
    np.testing.assert_array_equal(random.generator(5, 9, 1).standard_normal(8), x)
    for other in ((6, 9, 1), (5, 10, 1), (5, 9, 2), (5 + 2**32, 9, 1), (5, 9 + 2**32, 1)):
        assert not np.isin(random.generator(*other).standard_normal(1000), x).any()


def test_generators_of_successive_steps_are_independent():
    x = np.array([random.generator(1, step, 1).standard_normal(3) for step in range(3000)])
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.mean(x[1:] * x[:-1], axis=0)).max() < 4 / np.sqrt(len(x))


@pytest.mark.parametrize(
    "bad", [(-1, 0, 0), (2**64, 0, 0), (0, -1, 0), (0, 2**64, 0), (0, 0, -1), (0, 0, 2**16)]
)
def test_out_of_range(bad):
    seed, step, stream = bad
    with pytest.raises(ConfigError, match="expected 0 <="):
        random.normal(seed, step, [0], stream)
    with pytest.raises(ConfigError, match="expected 0 <="):
        random.generator(seed, step, stream)
