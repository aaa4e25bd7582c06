"""What the points of a learning curve say: power laws, sizes for a target, tables, a picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import LogFormatter, ScalarFormatter
from rich.console import Console
from rich.table import Table

from deepmd_lite.errors import DataError
from deepmd_lite.evaluate.frame_errors import UNITS
from deepmd_lite.evaluate.plots import COLORS, FAINT, INK, picture
from deepmd_lite.theory.curves import fit_power_law

WITH_FLOOR = 4  # different sizes that a law with a floor needs, here
BEYOND = 30  # times the largest size: up to there the picture goes to show where a target is reached


@dataclass(frozen=True)
class SampleCurve:
    """Points, the shape of the fitting net that the curve over frames is for, and the number of test frames."""

    points: list
    neuron: tuple[int, ...]
    test_frames: int

    def series(self, axis, key):
        """Sizes and errors (meV/atom, meV/Å) of the points of a curve, two (k,) arrays.

        Parameters
        ----------
        axis : "frames" or "width"
            Of the net of ``neuron``; of the nets whose layers have one width, on the most frames.
        key : str
            ``energy``, ``force``, ``training_energy`` or ``training_force``.
        """
        most = max(p.frames for p in self.points)
        if axis == "frames":
            found = [(p.frames, getattr(p, key)) for p in self.points if p.neuron == self.neuron]
        else:
            uniform = [p for p in self.points if p.frames == most and len(set(p.neuron)) == 1]
            found = [(p.neuron[0], getattr(p, key)) for p in uniform]
        sizes, errors = np.array([(n, 1e3 * e) for n, e in found if e is not None]).reshape(-1, 2).T
        return sizes, errors

    def axes(self):
        """list of str: Along which of frames and width there are several sizes."""
        return [a for a in ("frames", "width") if any(len(set(self.series(a, k)[0])) > 1 for k in UNITS)]

    def law(self, axis, key):
        """theory.curves.PowerLaw in meV/atom or meV/Å, or None; a floor is fitted to WITH_FLOOR sizes or more."""
        sizes, errors = self.series(axis, key)
        try:
            return fit_power_law(sizes, errors, floor=len(set(sizes)) >= WITH_FLOOR)
        except DataError:
            return None

    def table(self):
        """rich.table.Table: A row for each number of frames and net."""
        table = Table(
            title="Errors against training frames",
            caption=f"RMSE on {self.test_frames} test frames, in brackets on those trained on; mean ± standard "
            "deviation of the repeats",
        )
        for name in (
            "frames",
            "fitting net",
            "repeats",
            *(f"{k} ({u})" for k, u in UNITS.items()),
            "s/training",
        ):
            table.add_column(name, justify="left" if name == "fitting net" else "right")
        for frames, neuron in dict.fromkeys((p.frames, p.neuron) for p in self.points):
            group = [p for p in self.points if (p.frames, p.neuron) == (frames, neuron)]
            figures = [_figures(group, key) for key in UNITS]
            seconds = np.mean([p.seconds for p in group])
            table.add_row(
                str(frames), "-".join(map(str, neuron)), str(len(group)), *figures, f"{seconds:.0f}"
            )
        return table

    def law_table(self, targets):
        """rich.table.Table: The laws, and the sizes at which the targets (meV/atom, meV/Å by key) are reached."""
        table = Table(title="error = floor + C n^(-p)", caption="90 % intervals in brackets")
        for name in ("n", "error", "p", "floor", "target", "n for the target"):
            table.add_column(name, justify="left" if name in ("n", "error") else "right")
        for axis in self.axes():
            for key, unit in UNITS.items():
                law = self.law(axis, key)
                if law is None:
                    continue
                floor = f"{law.floor:.3g} {unit}" if law.points.floor else "not fitted"
                target, reached = "", ""
                if key in targets:
                    target, reached = f"{targets[key]:g} {unit}", _reached(law, targets[key])
                table.add_row(axis, key, _exponent(law), floor if _known(law) else "open", target, reached)
        return table

    def as_dict(self, targets):
        """dict: Points (eV/atom, eV/Å), laws and targets (meV/atom, meV/Å), for JSON; infinite numbers are null."""
        laws = []
        for axis in self.axes():
            for key in UNITS:
                law = self.law(axis, key)
                if law is not None:
                    found = {"n": axis, "error": key, "exponent": law.exponent, "interval": law.ci}
                    found |= {"prefactor": law.prefactor, "floor": law.floor if law.points.floor else None}
                    if key in targets:
                        found["target"] = targets[key]
                        found["n_for_target"] = law.n_for(targets[key])
                        found["n_interval"] = law.n_interval(targets[key])
                    laws.append(found)
        points = [asdict(p) for p in self.points]
        return _finite({"test_frames": self.test_frames, "points": points, "laws": laws})

    def write(self, folder, targets):
        """Write curve.txt, curve.json and curve.png; returns their paths."""
        text, data, drawing = (Path(folder) / f"curve.{kind}" for kind in ("txt", "json", "png"))
        with open(text, "w", encoding="utf-8") as file:
            console = Console(file=file, width=120)
            console.print(self.table(), self.law_table(targets))
        data.write_text(json.dumps(self.as_dict(targets), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return [text, data, draw(self, targets, drawing)]


def _figures(points, key):
    mean, spread, training = (
        f([1e3 * getattr(p, k) for p in points if getattr(p, k) is not None] or [np.nan])
        for f, k in ((np.mean, key), (np.std, key), (np.mean, f"training_{key}"))
    )
    spread = f" ± {spread:.2g}" if len(points) > 1 else ""
    return "-" if np.isnan(mean) else f"{mean:.3g}{spread} ({training:.3g})"


def _known(law):
    """Whether the points say anything about the exponent."""
    return law.ci != (0, np.inf)


def _exponent(law):
    low, high = (_number(x, 2) for x in law.ci)
    return f"{law.exponent:.2f} ({low}–{high})" if _known(law) else "open (0–∞)"


def _reached(law, target):
    """The size at which a target is reached, with its interval."""
    interval = law.n_interval(target)
    if np.isinf(interval[0]):
        return "never"
    low, high = map(_number, interval)
    return f"{_number(law.n_for(target)) if _known(law) else 'open'} ({low}–{high})"


def _number(value, digits=None):
    """A size or an exponent in words."""
    if np.isinf(value):
        return "never" if digits is None else "∞"
    if digits is None:
        return "> 1e9" if value > 1e9 else f"{value:.2g}" if value >= 1e6 else f"{round(value)}"
    return f"{value:.{digits}f}"


def _finite(value):
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def draw(curve, targets, path):
    """Errors against frames, and against width where it varies: points, fitted laws, and where targets are reached.

    Parameters
    ----------
    curve : SampleCurve
    targets : dict
        As for `SampleCurve.law_table`.
    path : str or Path

    Returns
    -------
    Path
    """
    rows = curve.axes() or ["frames"]
    with picture(path, ncols=2, nrows=len(rows), size=(5.0, 4.0)) as axes:
        for row, axis in zip(axes, rows):
            for ax, (key, unit) in zip(row, UNITS.items()):
                _panel(ax, curve, axis, key, targets.get(key))
                names = {"frames": "training frames", "width": "width of the fitting net"}
                ax.set(title=key.capitalize(), xlabel=names[axis], ylabel=f"RMSE ({unit})")
    return Path(path)


def _panel(ax, curve, axis, key, target):
    ax.set(xscale="log", yscale="log")
    for name, color, marker in ((f"training_{key}", COLORS[1], "s"), (key, COLORS[0], "o")):
        sizes, errors = curve.series(axis, name)
        where = np.unique(sizes)
        ax.plot(sizes, errors, marker, color=color, markersize=4, alpha=0.35, markeredgewidth=0)
        means = [errors[sizes == n].mean() for n in where]
        label = "on the frames trained on" if name != key else "on test frames"
        ax.plot(where, means, marker, color=color, markersize=6, label=label)
    law = curve.law(axis, key)
    if law is not None:
        reached = law.n_for(target) if target else 0
        end = (
            np.clip(1.3 * reached, 1.5 * where[-1], BEYOND * where[-1])
            if np.isfinite(reached)
            else 3 * where[-1]
        )
        n = np.geomspace(where[0], end, 200)
        floor = f", floor {law.floor:.3g}" if law.points.floor and _known(law) else ""
        ax.plot(n, law(n), color=COLORS[0], linewidth=1.2, label=f"p = {_exponent(law)}{floor}")
        if target:
            _target(ax, law, target, reached, end)
    for which in (ax.xaxis, ax.yaxis):
        which.set_major_formatter(ScalarFormatter())
        which.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.6)))
    ax.legend(loc="best")


def _target(ax, law, target, reached, end):
    ax.axhline(
        target, color=FAINT, linewidth=1.0, zorder=1, label=f"target {target:g}: n = {_reached(law, target)}"
    )
    if reached <= end:
        ax.plot([reached], [target], "*", color=INK, markersize=11, zorder=5)
