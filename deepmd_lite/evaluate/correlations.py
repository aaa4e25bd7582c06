"""Correlations in time along a trajectory: mean square displacement, velocity autocorrelation, spectrum."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from deepmd_lite.errors import DataError
from deepmd_lite.evaluate.structure import _elements, _write
from deepmd_lite.units import ACCELERATION, BOLTZMANN

WORKSPACE = 2**22  # numbers transformed at once
NBLOCKS, FEWEST = 10, 20  # blocks for the error of D; frames below which there is none
LINEAR = 0.1  # relative difference of slopes that passes for a straight line
CM = 1 / 2.99792458e-2  # 1/ps in cm⁻¹
CM2_S = 1e-4  # Å²/ps in cm²/s


def correlate(x, nlag):
    """Autocorrelation, summed over all columns: Σ_i mean_s x_i(s) x_i(s + t), (nlag,), of x (n, ncolumns).

    By the Wiener-Khinchin theorem, padded with zeros so that the end never meets the beginning.
    """
    n, ncolumns = x.shape
    size = next_fast_len(n + nlag, real=True)
    power = np.zeros(size // 2 + 1)
    width = max(1, WORKSPACE // size)
    for begin in range(0, ncolumns, width):
        f = rfft(np.ascontiguousarray(x[:, begin : begin + width].T), size)
        power += (f.real**2 + f.imag**2).sum(axis=0)
    return irfft(power, size)[:nlag] / (n - np.arange(nlag))


def spacing(time, natoms):
    """The time between frames in ps; DataError unless there are enough of them, (n,), fs, equally far apart."""
    if len(time) < FEWEST:
        raise DataError(f"correlation in time: expected {FEWEST} frames or more, found {len(time)}")
    if natoms < 2:
        raise DataError("correlation in time: expected two atoms or more, since their center of mass is held")
    steps = np.diff(time)
    if not steps[0] > 0:
        raise DataError(f"correlation in time: expected frames at increasing times, found {time[:2]} fs")
    dt = (time[-1] - time[0]) / len(steps)
    uneven = np.flatnonzero(~(np.abs(steps - steps[0]) < 1e-3 * steps[0] + 1e-6))
    if len(uneven):
        k = uneven[0]
        raise DataError(
            f"correlation in time: expected frames every {steps[0]:g} fs, found frames {k} and {k + 1} at "
            f"{time[k]:g} and {time[k + 1]:g} fs; use the stretches apart"
        )
    return 1e-3 * dt


def _pm(value, error):
    """A number with its standard error, two digits of it."""
    if not error:
        return f"{value:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


# diffusion


@dataclass(frozen=True)
class Diffusion:
    """Diffusion coefficient of an element, in Å²/ps."""

    coefficient: float
    error: float  # standard error, from blocks
    start: float  # ps: the lags that the line was fitted to
    end: float
    offset: float  # Å²: the line is 6 D t + offset
    linear: bool  # whether the MSD is straight there; if not, the trajectory is too short to tell D

    def text(self):
        """The coefficient and its error in 10⁻⁵ cm²/s."""
        return _pm(*(CM2_S / 1e-5 * x for x in (self.coefficient, self.error)))


@dataclass(frozen=True)
class Displacement:
    """Mean square displacements.

    Attributes
    ----------
    lag : (nlag,) array, ps
        From 0 to half the trajectory.
    msd : dict of str to (nlag,) array, Å²
        By element.
    diffusion : dict of str to Diffusion
    """

    lag: np.ndarray
    msd: dict[str, np.ndarray]
    diffusion: dict[str, Diffusion]

    def table(self):
        """rich.table.Table: One row per element."""
        table = Table(title="Diffusion", caption="straight: slopes agree over two octaves of lags or more")
        table.add_column("element")
        for name in ("D (Å²/ps)", "D (10⁻⁵ cm²/s)", "fitted (ps)", "straight"):
            table.add_column(name, justify="right")
        for element, d in self.diffusion.items():
            figures = [_pm(d.coefficient, d.error), d.text()]
            figures += f"{d.start:.3g} to {d.end:.3g}", "yes" if d.linear else "no"
            table.add_row(element, *figures, style=None if d.linear else "yellow")
        return table

    def write(self, path):
        """Write lags and MSDs as columns; list of Path."""
        columns = {"lag (ps)": self.lag}
        for element, d in self.diffusion.items():
            columns[f"MSD {element} (Å²), D = {d.coefficient:.6g} ± {d.error:.2g} Å²/ps"] = self.msd[element]
        return [_write(path, columns)]


def mean_square_displacement(time, coord, symbols, mass):
    """Mean square displacement and diffusion coefficient of each element.

    Parameters
    ----------
    time : (n,) array, fs
        Equally far apart.
    coord : (n, natoms, 3) array, Å
        Unwrapped, as in `Series`.
    symbols : (natoms,) sequence of str
    mass : (natoms,) array, amu

    Returns
    -------
    Displacement

    Raises
    ------
    DataError
        Fewer than 20 frames or two atoms, or times that are not equally far apart.

    Notes
    -----
    MSD(t) = ⟨x(s)² + x(s+t)²⟩ - 2 ⟨x(s)·x(s+t)⟩, the first by running sums, the second by `correlate` [1]_.
    The trajectory is cut into 10 blocks (fewer when it is short). D is 1/6 of the slope of a least-squares line
    through the MSD of the whole. It begins where the slope between lags t and 2t settles within 10 % of that of
    the last octave, or one standard error more, and ends at half a block; where that leaves less than two
    octaves, the last one is fitted, and the result is not `linear`. The same fit to each block gives the standard
    error. No correction for the size of the cell is made [2]_.

    References
    ----------
    .. [1] Calandrini, Pellegrini, Calligari, Hinsen, Kneller, Collection SFN 12, 201 (2011), section 4.
    .. [2] Yeh, Hummer, J. Phys. Chem. B 108, 15873 (2004): D(∞) = D(L) + 2.837297 k_B T / (6 π η L).
    """
    n, dt = len(time), spacing(time, len(symbols))
    nblocks = min(NBLOCKS, n // 10)
    size, nlag = n // nblocks, n // 2 + 1
    lag = dt * np.arange(nlag)
    center = np.einsum("kia,i->ka", coord, mass) / np.sum(mass)
    msd, diffusion = {}, {}
    for element, atoms in _elements(symbols).items():
        whole, blocks = np.zeros(nlag), np.zeros((nblocks, size // 2 + 1))
        for some in _portions(atoms, n):
            path = coord[:, some] - center[:, None]
            whole += _square_displacement(path, nlag) / len(atoms)
            for k, block in enumerate(blocks):
                block += _square_displacement(path[k * size : (k + 1) * size], len(block)) / len(atoms)
        msd[element], diffusion[element] = whole, _fit(lag, whole, blocks)
    return Displacement(lag, msd, diffusion)


def _portions(atoms, n):
    """Atoms in portions whose paths over n frames are small beside the trajectory."""
    return np.array_split(atoms, 1 + 3 * n * len(atoms) // WORKSPACE)


def _square_displacement(path, nlag):
    """Mean over origins of the square displacement, summed over atoms: (nlag,), of a path (n, natoms, 3)."""
    n = len(path)
    x = (path - path.mean(axis=0)).reshape(n, -1)  # small numbers: the two terms nearly cancel
    sums = np.concatenate([[0.0], np.cumsum(np.einsum("ki,ki->k", x, x))])
    t = np.arange(nlag)
    squares = (sums[n - t] + sums[n] - sums[t]) / (n - t) - 2 * correlate(x, nlag)
    squares[0] = 0.0
    return squares


def _fit(lag, msd, blocks):
    """Diffusion: From the MSD of the whole and of blocks (nblocks, nfit)."""
    last = blocks.shape[1] - 1
    first = np.arange(1, last // 2 + 1)
    slopes = [(m[2 * first] - m[first]) / first for m in (msd, *blocks)]  # of the octave from each lag on
    difference = np.array([slope - slope[-1] for slope in slopes])
    noise = difference[1:].std(axis=0, ddof=1) / np.sqrt(len(blocks))
    bound = 0.1 * msd[last] / last  # where nothing diffuses, slopes agree when both are next to nothing
    curved = np.flatnonzero(np.abs(difference[0]) > LINEAR * max(abs(slopes[0][-1]), bound) + noise)
    start = int(first[curved[-1]]) + 1 if len(curved) else 1
    linear = 4 * start <= last
    fit = slice(start if linear else last // 2, last + 1)
    slope, offset = np.polyfit(lag[fit], msd[fit], 1)
    of_blocks = np.polyfit(lag[fit], blocks[:, fit].T, 1)[0]
    error = of_blocks.std(ddof=1) / np.sqrt(len(blocks))
    figures = (slope / 6, error / 6, lag[fit.start], lag[last], offset)
    return Diffusion(*map(float, figures), linear)


# vibrations


@dataclass(frozen=True)
class Vibrations:
    """Velocity autocorrelation and vibrational density of states.

    Attributes
    ----------
    lag : (nlag,) array, ps
    correlation : dict of str to (nlag,) array, Å²/fs²
        ⟨v(s)·v(s+t)⟩ by element.
    weighted : (nlag,) array
        Σ m ⟨v(s)·v(s+t)⟩ over all atoms, relative to its value at lag 0.
    frequency : (nfrequency,) array, cm⁻¹
        Up to what the time between frames resolves; faster vibrations are folded back below it.
    spectrum : dict of str to (nfrequency,) array, 1/cm⁻¹
        Spectrum of the mass-weighted correlation: what each element adds to a total of area 1.
    resolution : float, cm⁻¹
        Width of a sharp line at half its height.
    temperature : dict of str to float, K
        ⟨m v²⟩ / 3 k_B, corrected for the motion of the center of mass.
    """

    lag: np.ndarray
    correlation: dict[str, np.ndarray]
    weighted: np.ndarray
    frequency: np.ndarray
    spectrum: dict[str, np.ndarray]
    resolution: float
    temperature: dict[str, float]

    @property
    def thz(self):
        """(nfrequency,) array: The frequency in THz."""
        return self.frequency / CM

    def peaks(self, element, count=4):
        """(<= count,) array, cm⁻¹: The highest peaks of an element's spectrum, in order of frequency."""
        s = gaussian_filter1d(self.spectrum[element], 8)  # 8 points are twice the resolution
        peaks, found = find_peaks(s, prominence=0.03 * s.max())
        highest = peaks[np.argsort(-found["prominences"])[:count]]
        return np.sort(self.frequency[highest])

    def table(self):
        """rich.table.Table: One row per element."""
        reach = f"resolution {self.resolution:.2g} cm⁻¹; frames resolve up to {self.frequency[-1]:.0f} cm⁻¹"
        table = Table(title="Vibrations", caption=reach)
        for name in ("element", "temperature (K)", "peaks (cm⁻¹)"):
            table.add_column(name, justify="left" if name == "element" else "right")
        for element, temperature in self.temperature.items():
            peaks = ", ".join(f"{p:.0f}" for p in self.peaks(element))
            table.add_row(element, f"{temperature:.1f}", peaks or "-")
        return table

    def write(self, path):
        """Write correlations, and the spectrum beside them with ``_spectrum`` in its name; list of Path."""
        correlations = {"lag (ps)": self.lag}
        correlations |= {f"VACF {element} (Å²/fs²)": c for element, c in self.correlation.items()}
        correlations["VACF of all, mass weighted, relative to lag 0"] = self.weighted
        spectra = {"frequency (cm⁻¹)": self.frequency, "frequency (THz)": self.thz}
        spectra |= {f"{element} (1/cm⁻¹)": s for element, s in self.spectrum.items()}
        spectra["total (1/cm⁻¹)"] = sum(self.spectrum.values())
        path = Path(path)
        return [_write(path, correlations), _write(path.with_stem(f"{path.stem}_spectrum"), spectra)]


def velocity_autocorrelation(time, velocity, symbols, mass, resolution=10.0):
    """Velocity autocorrelation by element, and its spectrum weighted by mass.

    Parameters
    ----------
    time : (n,) array, fs
        Equally far apart, and close enough for the fastest vibration: 4 fs for one of 4,000 cm⁻¹.
    velocity : (n, natoms, 3) array, Å/fs
    symbols : (natoms,) sequence of str
    mass : (natoms,) array, amu
    resolution : float, cm⁻¹
        Lags go up to 1/resolution: 3.3 ps for 10 cm⁻¹. Short trajectories resolve less: half of their length
        is the largest lag.

    Returns
    -------
    Vibrations

    Raises
    ------
    DataError
        Fewer than 20 frames or two atoms, or times that are not equally far apart.

    References
    ----------
    .. [1] Dickey, Paskin, Phys. Rev. 188, 1407 (1969): the spectrum of Σ m v(0)·v(t) is the density of states
       of harmonic vibrations.
    """
    n, dt, mass = len(time), spacing(time, len(symbols)), np.asarray(mass, float)
    nlag = min(n // 2, int(np.ceil(CM / resolution / dt)))
    total = mass.sum()
    drift = np.einsum("kia,i->ka", velocity, mass) / total
    correlation, weighted, temperature = {}, {}, {}
    for element, atoms in _elements(symbols).items():
        correlation[element], weighted[element] = np.zeros(nlag), np.zeros(nlag)
        for some in _portions(atoms, n):
            v = velocity[:, some] - drift[:, None]
            correlation[element] += correlate(v.reshape(n, -1), nlag) / len(atoms)
            v *= np.sqrt(mass[some])[:, None]
            weighted[element] += correlate(v.reshape(n, -1), nlag)
        modes = 3 * np.sum(1 - mass[atoms] / total)  # left to these atoms without that of the center of mass
        temperature[element] = float(weighted[element][0] / ACCELERATION / modes / BOLTZMANN)
    everything = sum(weighted.values())
    if not everything[0] > 0:
        raise DataError("velocity autocorrelation: expected moving atoms, found velocities of zero")
    spectrum = {}
    for element, values in weighted.items():
        frequency, spectrum[element] = power_spectrum(dt, values / everything[0])
    reached = CM / (nlag * dt)
    return Vibrations(
        dt * np.arange(nlag),
        correlation,
        everything / everything[0],
        frequency,
        spectrum,
        reached,
        temperature,
    )


def power_spectrum(dt, correlation, unit="cm"):
    """Spectrum of an autocorrelation function: S(ν) = 4 ∫ C(t) cos(2πνt) dt, whose area is C(0).

    Parameters
    ----------
    dt : float, ps
        Between lags.
    correlation : (nlag,) array
        Damped by a Hann window that ends at the last lag, so a sharp line is 1/(nlag dt) wide.
    unit : {'cm', 'THz'}
        Of the frequency, cm⁻¹ or THz.

    Returns
    -------
    frequency : (2 nlag + 1,) array
    spectrum : (2 nlag + 1,) array
        Unit of `correlation` per unit of frequency.
    """
    nlag = len(correlation)
    damped = correlation * np.cos(0.5 * np.pi * np.arange(nlag) / nlag) ** 2
    damped[0] /= 2  # trapezoid rule
    scale = {"cm": CM, "THz": 1.0}[unit]
    return scale * rfftfreq(4 * nlag, dt), 4 * dt / scale * rfft(damped, 4 * nlag).real
