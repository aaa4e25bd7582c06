"""What a trajectory tells: structure, diffusion and vibrations: ``dplite analyze``.

===================  ==================================================  ==============
g(r), n(r)           density of pairs over an ideal gas's; neighbors     `RadialCounter`
MSD(t), D            ⟨|x(s+t) - x(s)|²⟩ = 6 D t + const for large t       `mean_square_displacement`
C(t), S(ν)           ⟨v(s)·v(s+t)⟩ and its spectrum                       `velocity_autocorrelation`
===================  ==================================================  ==============

⟨·⟩ is over atoms of an element and over all origins s in time, by fast Fourier transform. The motion of the
center of mass is taken out. Times of results are in ps.
"""

from dataclasses import dataclass
from pathlib import Path

from deepmd_lite.errors import DataError
from deepmd_lite.evaluate import analyze_plots
from deepmd_lite.evaluate.correlations import (
    Displacement,
    Vibrations,
    mean_square_displacement,
    velocity_autocorrelation,
)
from deepmd_lite.evaluate.structure import RadialCounter, RadialDistributions
from deepmd_lite.evaluate.trajectory import collect, open_trajectory


@dataclass(frozen=True)
class Analysis:
    """What `analyze` found: None for what was not asked for; files written; notes on what was left out."""

    rdf: RadialDistributions | None
    displacement: Displacement | None
    vibrations: Vibrations | None
    files: list[Path]
    notes: list[str]

    def tables(self):
        """list of rich.table.Table"""
        return [x.table() for x in (self.rdf, self.displacement, self.vibrations) if x is not None]


def analyze(path, folder, *, rdf=None, msd=False, vacf=False, every=1, skip=0, dt=None, rmax=None):
    """Analyze a trajectory in one pass; write ``rdf``, ``msd``, ``vacf`` as ``.txt`` and ``.png``.

    Parameters
    ----------
    path : str or Path
    folder : str or Path
        For the files; created when it is not there.
    rdf : str or sequence of (str, str), optional
        As `pairs` of `RadialCounter`.
    msd, vacf : bool
        With none of the three: all that the trajectory allows; `Analysis.notes` says what it does not.
    every, skip, dt
        As for `open_trajectory`.
    rmax : float, Å, optional
        As for `RadialCounter`.

    Returns
    -------
    Analysis

    Raises
    ------
    ConfigError
        Options that cannot be used.
    DataError
        A trajectory that cannot be read, or does not hold what was asked for.
    """
    trajectory = open_trajectory(path, every=every, skip=skip, dt=dt)
    everything, notes = not (rdf or msd or vacf), []
    if everything:
        rdf, msd, vacf = "all", trajectory.has_time, trajectory.has_time and trajectory.has_velocity
        if not trajectory.has_time:
            notes.append("no diffusion, no vibrations: the file has no time; give the fs between its frames")
        elif not vacf:
            notes.append("no vibrations: the file has no velocities")
    frames = trajectory
    if rdf:
        counter = RadialCounter(trajectory, rdf, rmax)
        frames = counter.watch(trajectory)
    if msd or vacf:
        series = collect(trajectory, frames, coord=msd, velocity=vacf)
    elif not sum(1 for _ in frames):
        raise DataError(f"{path}: expected frames, found none after the first {skip}")

    def attempt(compute, *args):
        try:
            return compute(*args)
        except DataError as reason:
            if not everything:
                raise DataError(f"{path}: {reason}") from None
            notes.append(str(reason))

    results = {"rdf": None, "msd": None, "vacf": None}
    if rdf:
        results["rdf"] = attempt(counter.result)
    if msd:
        parts = (series.time, series.coord, series.symbols, series.mass)
        results["msd"] = attempt(mean_square_displacement, *parts)
    if vacf:
        parts = (series.time, series.velocity, series.symbols, series.mass)
        results["vacf"] = attempt(velocity_autocorrelation, *parts)
    files = []
    for name, result in results.items():
        if result is not None:
            files += result.write(Path(folder) / f"{name}.txt")
            files.append(getattr(analyze_plots, f"draw_{name}")(result, Path(folder) / f"{name}.png"))
    return Analysis(*results.values(), files, notes)
