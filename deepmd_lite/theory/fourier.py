"""A function as a sum of m waves: frequencies on a grid, or drawn at random.

    f(x) = ∫ f̂(ω) e^{iω·x} dω
    grid    f_m(x) = Δω^d Σ_j f̂(ω_j) e^{iω_j·x}                     error ~ m^(-α/d)
    random  f_m(x) = (1/m) Σ_j a(ω_j) e^{iω_j·x},  ω_j ~ π,         a = f̂/π,
            E |f - f_m|² = (E_π |a|² - |f|²)/m                      error ~ m^(-1/2)

The second is a two-layer network of activation e^{iz} whose inner weights are random, and its rate knows no d.
The α of the first is the smoothness of f̂ (α = 2 for the midpoint rule). Where f̂ is analytic, a Gaussian for
instance, the error falls faster than any power as soon as the waves resolve f, but that alone takes n^d of them.

Functions are real here, and the real part of a sum is taken: then E (f - f_m)² at x is, for a real a = 1,
((1 + f(2x))/2 - f(x)²)/m.

References
----------
Weinan E, A mathematical perspective on machine learning, Proc. ICM 2022.
"""

import numpy as np

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.integration import grid_quadrature, rule_on_axis


def fourier_grid(f_hat, x, n, radius):
    """Sum of the n^d waves with frequencies at the midpoints of a grid on [-radius, radius]^d.

    Parameters
    ----------
    f_hat : function of frequencies (k, d)
        f̂ (k,), real or complex.
    x : (p, d)
    n : int
        Frequencies on an axis.
    radius : float

    Returns
    -------
    (p,)

    Raises
    ------
    ConfigError
        If the grid is too large to be summed (see `integration.NODE_LIMIT`).
    """
    _positive(radius)

    def wave(u):
        omega = radius * (2 * u - 1)
        return np.real(f_hat(omega)[:, None] * np.exp(1j * (omega @ x.T)))

    d = x.shape[1]
    return (2 * radius) ** d * grid_quadrature(wave, d, n)


def product_fourier_grid(f_hat, x, n, radius):
    """What `fourier_grid` gives for f̂(ω) = Π_i g(ω_i), for any d.

    Parameters
    ----------
    f_hat : function of frequencies (n,)
        g (n,).
    x, n, radius
        As for `fourier_grid`.
    """
    _positive(radius)
    u, c = rule_on_axis(n)
    omega = radius * (2 * u - 1)
    factors = np.exp(1j * x[:, :, None] * omega) @ (2 * radius * c * f_hat(omega))  # (p, d)
    return np.real(factors.prod(axis=1))


class RandomFourier:
    """The mean of m waves of random frequencies.

    Parameters
    ----------
    sampler : function of (m, rng)
        Draws ω (m, d) from π.
    amplitude : function of frequencies (m, d)
        a = f̂/π (m,), real or complex.
    m : int
    rng : numpy.random.Generator

    Attributes
    ----------
    omega : (m, d)
    a : (m,)
    """

    def __init__(self, sampler, amplitude, m, rng):
        if m < 1:
            raise ConfigError(f"random waves: expected m >= 1, found {m}")
        self.omega = sampler(m, rng)
        self.a = np.asarray(amplitude(self.omega))
        if not np.isfinite(self.a).all():
            raise DataError("random waves: expected finite amplitudes, found NaN or infinity")

    def __call__(self, x):
        """f_m (p,) at points x (p, d)."""
        return np.real(np.exp(1j * (x @ self.omega.T)) @ self.a) / len(self.a)


def _positive(radius):
    if not radius > 0:
        raise ConfigError(f"Fourier grid: expected a radius > 0, found {radius}")
