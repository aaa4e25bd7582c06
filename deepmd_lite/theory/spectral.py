"""The spectral norm, by which a Fourier transform shows that a function is in Barron space.

    f(x) = ∫ f̂(ω) e^{iω·x} dω,    C_f = ∫ |f̂(ω)| |ω|_1² dω,    ‖f - f(0) - x·∇f(0)‖ ≤ 2 C_f   (|x|_∞ ≤ 1)

the last for E |a| |w|_1, from the integral remainder of the exponential: for |z| ≤ c

    e^{iz} - iz - 1 = -∫_0^c [relu(z - u) e^{iu} + relu(-z - u) e^{-iu}] du

with z = ω·x, c = |ω|_1 and u = t c. The targets here are even with f̂ > 0, so that ∇f(0) = 0 and real parts do.

References
----------
Barron, IEEE Trans. Inf. Theory 39, 930 (1993); Klusowski and Barron, IEEE Trans. Inf. Theory 64, 7649 (2018).
"""

import numpy as np

from deepmd_lite.errors import ConfigError
from deepmd_lite.theory.barron import BarronNetwork


def spectral_barron_norm(frequencies, amplitudes):
    """C_f = Σ_j |c_j| |ω_j|_1² of f = Σ_j c_j e^{iω_j·x}, for ω (k, d) and c (k,) or one for all.

    With k samples ω_j of a probability density f̂ and c = 1/k, the Monte Carlo estimate of C_f.
    """
    size = np.abs(frequencies).sum(axis=1)
    return float(np.sum(np.abs(amplitudes) * size**2))


class GaussianBump:
    """f(x) = exp(-|x|² / 2s²): f̂ is the density of N(0, I/s²).

    Attributes
    ----------
    spectral_norm : float
        C_f = (d + 2d(d-1)/π) / s².
    """

    def __init__(self, d, width=1.0):
        if d < 1 or not width > 0:
            raise ConfigError(f"Gaussian: expected d >= 1 and width > 0, found d = {d}, width = {width}")
        self.d, self.width = d, width
        self.spectral_norm = (d + 2 * d * (d - 1) / np.pi) / width**2

    def __call__(self, x):
        """f (n,) of points x (n, d)."""
        return np.exp(-np.sum(x**2, axis=1) / (2 * self.width**2))

    def frequencies(self, k, rng):
        """ω (k, d) with density f̂."""
        return rng.standard_normal((k, self.d)) / self.width

    def weighted_frequencies(self, k, rng):
        """ω (k, d) with density f̂(ω) |ω|_1² / C_f.

        |ω|_1² = Σ_ij |ω_i| |ω_j| makes it a mixture over i and j: |ω_i| is chi-distributed with three degrees of
        freedom if i = j, both are with two if not, and the others stay half normal.
        """
        d, rows = self.d, np.arange(k)
        size = np.abs(rng.standard_normal((k, d)))
        i = rng.integers(d, size=k)
        j = (i + rng.integers(1, max(d, 2), size=k)) % d
        same = rng.random(k) < 1 / (1 + 2 * (d - 1) / np.pi)
        size[rows, j] = np.where(same, size[rows, j], np.sqrt(rng.chisquare(2, k)))
        size[rows, i] = np.sqrt(rng.chisquare(np.where(same, 3, 2)))
        return size * rng.choice([-1.0, 1.0], (k, d)) / self.width


class PlaneWave:
    """f(x) = cos(2π b·x), with C_f = 4π² |b|_1²."""

    def __init__(self, b):
        self.b = np.asarray(b, float)
        if not np.any(self.b):
            raise ConfigError("plane wave: expected b other than zero")
        self.spectral_norm = spectral_barron_norm(2 * np.pi * self.b[None], 1.0)

    def __call__(self, x):
        """f (n,) of points x (n, d)."""
        return np.cos(2 * np.pi * x @ self.b)

    def weighted_frequencies(self, k, rng):
        """ω (k, d): one and the same, for `BarronNetwork` draws the signs."""
        return np.tile(2 * np.pi * self.b, (k, 1))


def fourier_barron_network(target, m, rng):
    """A network of m neurons with E f_m = f on |x|_∞ ≤ 1.

    f - f(0) = 2 C_f E[-cos(t |ω|_1) relu(±ω·x/|ω|_1 - t)], over ω ~ |f̂| |ω|_1² / C_f, t ~ U(0, 1) and the sign.

    Parameters
    ----------
    target : GaussianBump or PlaneWave
    m : int
    rng : numpy.random.Generator

    Returns
    -------
    BarronNetwork
        Its mean |a| |w|_1 is at most 2 C_f.
    """
    omega = target.weighted_frequencies(m, rng)
    size = np.abs(omega).sum(axis=1)
    t = rng.random(m)
    sign = rng.choice([-1.0, 1.0], m)
    a = -2 * target.spectral_norm * np.cos(t * size)
    return BarronNetwork(a, (sign / size)[:, None] * omega, -t, offset=1.0)
