"""Pictures, one style: parity, learning curve, energy against time, radial distribution.

Every function writes one file and returns its path; the suffix decides the format. Colors are those of Okabe
and Ito, which people with any color vision can tell apart.
"""

from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.ticker import AutoMinorLocator, LogFormatter, MaxNLocator, ScalarFormatter

from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate.dynamics import drift
from deepmd_lite.train.lcurve import read_lcurve

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#333333", "#9a9a9a"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
}
TEXT_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
CROWD = 2000  # points; more are drawn as a density
PANELS = {  # label: (title, axis, unit of the axis per eV or eV/Å, per atom)
    "energy": ("Energy", "energy per atom − mean (meV)", 1e3, True),
    "force": ("Force", "force component (eV/Å)", 1.0, False),
    "virial": ("Virial", "virial per atom (eV)", 1.0, True),
}


def check_picture(path):
    """Refuse the name of a picture that cannot be drawn, before work is put into it.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ConfigError
        If the suffix is none of matplotlib's formats.
    """
    suffix = Path(path).suffix
    if suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        found = suffix or "no suffix"
        raise ConfigError(f"{path}: expected a picture such as .png, .pdf or .svg, found {found}")


@contextmanager
def picture(path, ncols=1, nrows=1, size=(4.6, 4.2), dpi=200, **options):
    """A figure in the common style, written when the block ends; yields the axes."""
    check_picture(path)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(size[0] * ncols, size[1] * nrows))
        yield figure.subplots(nrows, ncols, squeeze=False, **options)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi)


def parity(predictions, path):
    """Prediction against reference: energy, force and virial, as far as there are labels.

    Parameters
    ----------
    predictions : list of Predictions
    path : str or Path

    Returns
    -------
    Path

    Notes
    -----
    From energies per atom the mean reference of the same composition is taken, so that compositions can share
    a panel. Crowded panels show the density of points.
    """
    labels = [label for label in PANELS if any(len(p.against(label)[0]) for p in predictions)]
    with picture(path, ncols=len(labels)) as axes:
        for ax, label in zip(axes[0], labels):
            title, name, scale, per_atom = PANELS[label]
            x, y = _pairs(predictions, label, per_atom)
            _parity_panel(ax, scale * x, scale * y)
            residual = 1e3 * (y - x)
            unit = "meV/atom" if per_atom else "meV/Å"
            rmse, mae = np.sqrt(np.mean(residual**2)), np.mean(np.abs(residual))
            _residual_inset(ax, residual, unit)
            text = f"RMSE {rmse:.3g} {unit}\nMAE {mae:.3g} {unit}\n{len(x):,} points"
            ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", linespacing=1.4)
            ax.set(title=title, xlabel=f"reference {name}", ylabel=f"predicted {name}")
    return Path(path)


def _pairs(predictions, label, per_atom):
    """Reference and prediction of all systems, flat; energies relative to their composition's mean."""
    pairs, groups = [], {}
    for p in predictions:
        reference, prediction = (x / (p.system.natoms if per_atom else 1) for x in p.against(label))
        pairs.append((reference, prediction))
        groups.setdefault(p.system.formula, []).append(reference.ravel())
    means = {
        formula: np.concatenate(parts).mean() for formula, parts in groups.items() if sum(map(len, parts))
    }
    shift = [means.get(p.system.formula, 0.0) if label == "energy" else 0.0 for p in predictions]
    x = np.concatenate([reference.ravel() - s for (reference, _), s in zip(pairs, shift)])
    y = np.concatenate([prediction.ravel() - s for (_, prediction), s in zip(pairs, shift)])
    return x, y


def _parity_panel(ax, x, y):
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.05 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    ax.plot(limits, limits, color=FAINT, linewidth=1.0, zorder=1)
    if len(x) > CROWD:
        ax.hexbin(x, y, gridsize=90, bins="log", mincnt=1, extent=limits * 2, linewidths=0.1, zorder=2)
    else:
        ax.scatter(x, y, s=14, color=COLORS[0], alpha=0.6, linewidths=0, zorder=2)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def _residual_inset(ax, residual, unit):
    """A histogram of the errors in the empty corner below the diagonal; the outermost 0.2 % are cut off."""
    inset = ax.inset_axes((0.66, 0.12, 0.31, 0.22))
    reach = np.quantile(np.abs(residual), 0.998) or 1.0
    inset.hist(residual, bins=41, range=(-reach, reach), color=COLORS[0], alpha=0.8)
    inset.grid(False)
    inset.spines["left"].set_visible(False)
    inset.set(yticks=[], xlim=(-reach, reach))
    inset.xaxis.set_major_locator(MaxNLocator(3))
    inset.tick_params(labelsize=8)
    inset.set_xlabel(f"error ({unit})", fontsize=8, labelpad=1)
    inset.patch.set_alpha(0.0)


def learning_curve(curves, path):
    """Errors of energy, force and virial against the step, and the learning rate.

    Parameters
    ----------
    curves : str, Path, or dict of str to (str or Path)
        An ``lcurve.out``, or several by the name to show.
    path : str or Path

    Returns
    -------
    Path

    Notes
    -----
    Thin: the rows of the file. Thick: their root mean square over a window of 5 % of the rows. Several curves
    are compared by their validation error.
    """
    curves = curves if isinstance(curves, dict) else {"": curves}
    tables = {name: read_lcurve(source) for name, source in curves.items()}
    units = {"e": ("Energy", "meV/atom"), "f": ("Force", "meV/Å"), "v": ("Virial", "meV/atom")}
    terms = [k for k in units if any(_errors(table, k) for table in tables.values())]
    with picture(path, ncols=len(terms) + 1, size=(4.4, 3.8)) as axes:
        for ax, term in zip(axes[0], terms):
            colors = iter(COLORS)
            for name, table in tables.items():
                for side, values in _errors(table, term, compare=len(tables) > 1).items():
                    _noisy_line(ax, table["step"], 1e3 * values, next(colors), f"{name} {side}".strip())
            title, unit = units[term]
            ax.set(title=title, ylabel=f"RMSE ({unit})")
        for (name, table), color in zip(tables.items(), COLORS):
            axes[0][-1].plot(table["step"], table["lr"], color=color, label=name or None)
        axes[0][-1].set(title="Learning rate", ylabel="learning rate")
        for ax in axes[0]:
            ax.set(xlabel="training step", yscale="log")
            ax.xaxis.set_major_locator(MaxNLocator(5))
            if ax.get_legend_handles_labels()[0]:
                ax.legend(loc="upper right")
        for ax in axes[0][:-1]:
            ax.yaxis.set_major_formatter(ScalarFormatter())
            ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.6)))
    return Path(path)


def _errors(table, term, compare=False):
    """The columns of one term that hold numbers, by name; validation alone where curves are compared."""
    sides = {"validation": f"rmse_{term}_val", "training": f"rmse_{term}_trn"}
    found = {side: table[key] for side, key in sides.items() if np.isfinite(table.get(key, [np.nan])).any()}
    return dict(list(found.items())[:1]) if compare else found


def _noisy_line(ax, x, y, color, label):
    """Rows thin, their root mean square over a sliding window thick; the legend gives its last value."""
    width = max(1, len(y) // 20)
    weight = np.convolve(np.ones(len(y)), np.ones(width), "same")
    smooth = np.sqrt(np.convolve(np.nan_to_num(y) ** 2, np.ones(width), "same") / weight)
    ax.plot(x, y, color=color, linewidth=0.6, alpha=0.4)
    ax.plot(x, smooth, color=color, label=f"{label}, last {smooth[-1]:.3g}")


def energy_against_time(time, total, potential, temperature, path, *, natoms, title=""):
    """Total energy with its drift, potential energy and temperature of a run.

    Parameters
    ----------
    time : (n,) ps
    total, potential : (n,) eV
        Conserved (or total) and potential energy.
    temperature : (n,) K
    path : str or Path
    natoms : int
    title : str

    Returns
    -------
    Path
    """
    time, total, potential, temperature = (
        np.asarray(x, float) for x in (time, total, potential, temperature)
    )
    slope, error = (1e6 * x / natoms for x in drift(time, total))  # meV/atom/ns
    total, potential = (1e3 * (x - x.mean()) / natoms for x in (total, potential))
    rows = [
        (total, COLORS[0], "total energy − mean\n(meV/atom)", f"drift {slope:.2g} ± {error:.1g} meV/atom/ns"),
        (potential, COLORS[1], "potential energy − mean\n(meV/atom)", f"σ {potential.std():.3g} meV/atom"),
        (temperature, COLORS[2], "temperature (K)", f"mean {temperature.mean():.1f} K"),
    ]
    with picture(path, nrows=3, size=(7.2, 2.1), sharex=True) as axes:
        for ax, (values, color, ylabel, text) in zip(axes[:, 0], rows):
            ax.plot(time, values, color=color, linewidth=0.6)
            ax.set(ylabel=ylabel, xlim=(time[0], time[-1]))
            ax.margins(y=0.2)
            ax.text(0.99, 0.95, text, transform=ax.transAxes, ha="right", va="top", bbox=TEXT_BOX)
            ax.xaxis.set_minor_locator(AutoMinorLocator())
        axes[0, 0].plot(time, 1e-3 * slope * (time - time.mean()), color=INK, linewidth=1.2)
        axes[0, 0].set(title=title)
        axes[2, 0].axhline(temperature.mean(), color=INK, linewidth=1.2)
        axes[2, 0].set(xlabel="time (ps)")
    return Path(path)


def radial_distributions(curves, path, *, title="", crystal_like=True):
    """Radial distribution functions, one line per pair of elements.

    Parameters
    ----------
    curves : dict of str to (r, g)
        By name, like "O-O"; r in Å, as `dynamics.radial_distribution` returns them.
    path : str or Path
    title : str
    crystal_like : bool
        Whether g is relative to an ideal gas (cells that fill space); a distribution in 1/Å otherwise.

    Returns
    -------
    Path
    """
    with picture(path, size=(6.4, 4.0)) as axes:
        ax = axes[0, 0]
        for (name, (r, g)), color in zip(curves.items(), COLORS):
            ax.plot(r, g, color=color, label=name)
            ax.fill_between(r, g, color=color, alpha=0.08, linewidth=0)
        if crystal_like:
            ax.axhline(1.0, color=FAINT, linewidth=1.0, zorder=1)
        ylabel = "g(r)" if crystal_like else "distribution (1/Å)"
        ax.set(title=title, xlabel="r (Å)", ylabel=ylabel, xlim=(0, None), ylim=(0, None))
        ax.xaxis.set_minor_locator(AutoMinorLocator())
        ax.legend()
    return Path(path)
