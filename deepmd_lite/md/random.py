"""Random numbers as functions of what they are for, not of how many were drawn before.

`normal` is a function of (seed, step, id, stream) alone: an atom gets the same noise on whatever rank it
lives, in whatever order the rank keeps its atoms, and after every restart; there is no state to save.
`generator` gives numbers that all ranks share, one NumPy generator per (seed, step, stream).

Both are counter-based: a keyed bijection scrambles a counter, as a block cipher would. For `normal` this is
Philox4x32-10, ten rounds of

    (c₀, c₁, c₂, c₃)  <-  (hi(M₁ c₂) ^ c₁ ^ k₀,  lo(M₁ c₂),  hi(M₀ c₀) ^ c₃ ^ k₁,  lo(M₀ c₀))

on 32-bit words, with Weyl increments of the key (k₀, k₁) in between. Different arguments never share a
counter:

    key       k₀ k₁   the seed
    counter   c₀ c₁   block + 2 id + 2⁴⁸ stream, as each atom takes two blocks
              c₂ c₃   the step

Streams in use: 0 for the noise of single atoms, 1 for the thermostat, 2 for the cell (integrators.py).

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, Parallel random numbers: as easy as 1, 2, 3, Proc. SC
(2011).
"""

import numba
import numpy as np

from deepmd_lite.errors import ConfigError
from deepmd_lite.jit import jit

SEEDS, STEPS, STREAMS = 2**64, 2**64, 2**16  # so many of each; of ids 2⁴⁷

# All uint64: Numba makes a float of a uint64 and an int.
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
ONE, ELEVEN, WORD, STREAM = np.uint64(1), np.uint64(11), np.uint64(32), np.uint64(48)  # widths of shifts


@numba.njit
def _philox(low, high, key):
    """Philox4x32-10 of the counter (low, high): two uint64, the first word of each pair in the low bits."""
    c0, c1, c2, c3 = low & LOW, low >> WORD, high & LOW, high >> WORD
    k0, k1 = key & LOW, key >> WORD
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> WORD) ^ c1 ^ k0, p1 & LOW, (p0 >> WORD) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0 | c1 << WORD, c2 | c3 << WORD


@numba.njit
def _box_muller(low, high, key):
    """Two independent standard normal numbers, from two uniform ones of 53 bits: the first in (0, 1]."""
    a, b = _philox(low, high, key)
    radius = np.sqrt(-2 * np.log(np.float64((a >> ELEVEN) + ONE) * 2.0**-53))
    angle = 2 * np.pi * (np.float64(b >> ELEVEN) * 2.0**-53)
    return radius * np.cos(angle), radius * np.sin(angle)


@jit()
def _normal(key, high, stream, ids, out):
    for i in range(len(ids)):
        low = np.uint64(ids[i]) << ONE | stream << STREAM
        out[i, 0], out[i, 1] = _box_muller(low, high, key)
        out[i, 2] = _box_muller(low | ONE, high, key)[0]


@jit()
def _blocks(key, high, low, out):
    """The words of Philox4x32-10 for each counter (low[i], high), to be compared with known answers."""
    for i in range(len(low)):
        out[i] = _philox(low[i], high, key)


def normal(seed, step, ids, stream=0):
    """Three standard normal numbers per atom, which depend on (seed, step, id, stream) alone.

    Parameters
    ----------
    seed : int
        0 <= seed < 2⁶⁴.
    step : int
        0 <= step < 2⁶⁴.
    ids : (n,) array of int64
        0 <= id < 2⁴⁷; in any order.
    stream : int
        0 <= stream < 2¹⁶: for independent numbers of the same atom in the same step.

    Returns
    -------
    (n, 3) array of float64

    Notes
    -----
    Box and Muller's transform of uniform numbers of 53 bits: no value is beyond √(2 · 53 ln 2) = 8.57, which
    cuts off less than 1e-16 of the distribution.
    """
    seed, step, stream = _checked(seed, step, stream)
    ids = np.ascontiguousarray(ids, np.int64)
    out = np.empty((len(ids), 3))
    _normal(np.uint64(seed), np.uint64(step), np.uint64(stream), ids, out)
    return out


def generator(seed, step, stream):
    """A NumPy generator for numbers that all ranks share: a function of (seed, step, stream) alone.

    Parameters
    ----------
    seed, step, stream : int
        Ranges as for `normal`; never the same numbers as `normal` gives.

    Returns
    -------
    numpy.random.Generator
        Philox4x64-10 with the key (seed, stream), from the counter (0, 0, step, 0) on. NumPy may change what
        its distributions make of the bits from one release to another.
    """
    seed, step, stream = _checked(seed, step, stream)
    key, counter = np.array([seed, stream], np.uint64), np.array([0, 0, step, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _checked(seed, step, stream):
    """The three as Python's integers; raises ConfigError where one is out of range."""
    for name, value, end in (("seed", seed, SEEDS), ("step", step, STEPS), ("stream", stream, STREAMS)):
        if not 0 <= value < end:
            raise ConfigError(f"{name} = {value}: expected 0 <= {name} < {end}")
    return int(seed), int(step), int(stream)
