"""Pictures of what `analyze` finds, in the style of plots.py: shells, diffusion, vibrations."""

from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.ticker import AutoMinorLocator, MaxNLocator

from deepmd_lite.evaluate.plots import COLORS, FAINT, INK, TEXT_BOX, picture

TALL = 3.0  # times the height of all that follows: a peak that is cut off, so that the rest can be seen
LEGEND = {"loc": "best", "frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 0.8}
EDGE = 0.99  # of the density of states that is shown


def draw_rdf(rdf, path):
    """g(r) of each pair in a panel of its own, with n(r) on the right axis and the first shell marked.

    Parameters
    ----------
    rdf : RadialDistributions
    path : str or Path

    Returns
    -------
    Path
    """
    count = len(rdf.pairs)
    ncols = count if count <= 3 else 2 if count == 4 else 3
    nrows = -(-count // ncols)
    size = (6.4, 4.0) if count == 1 else (4.4, 3.3)
    reach = max(p.r[p.g > 0][-1] for p in rdf.pairs)
    with picture(path, ncols=ncols, nrows=nrows, size=size) as axes:
        for k, (ax, p, color) in enumerate(zip(axes.flat, rdf.pairs, cycle(COLORS))):
            right = _shell_panel(ax, p, color)
            ax.set_xlim(0, min(p.r[-1], 1.1 * reach))
            if k % ncols == 0:
                ax.set_ylabel("g(r)" if p.crystal_like else "distribution (1/Å)")
            if k % ncols == ncols - 1 or k == count - 1:
                right.set_ylabel("neighbors n(r), dashed")
        for ax in axes.flat[count:]:
            ax.set_axis_off()
    return Path(path)


def _shell_panel(ax, p, color):
    top = _top(p)
    ax.plot(p.r, p.g, color=color, zorder=3)
    ax.fill_between(p.r, p.g, color=color, alpha=0.12, linewidth=0)
    if p.crystal_like:
        ax.axhline(1.0, color=FAINT, linewidth=1.0, zorder=1)
    ax.set(title="–".join(p.pair), ylim=(0, top))
    ax.set_xlabel("r (Å)")
    ax.xaxis.set_minor_locator(AutoMinorLocator())
    ax.yaxis.set_major_locator(MaxNLocator(5))
    right = ax.twinx()
    shell = p.shell()
    reach = 3.0 * shell[3] if shell else 0.6 * p.neighbors[-1]
    right.plot(p.r, p.neighbors, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    right.set_ylim(0, reach)
    right.spines["right"].set_visible(True)
    right.grid(False)
    right.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    highest = p.g.max()
    if highest > top:
        at = p.r[np.argmax(p.g)]
        ax.annotate(f"↑ {highest:.3g}", (at, top), (6, -2), textcoords="offset points", va="top", color=color)
    if shell:
        _, _, minimum, n = shell
        right.plot([minimum], [n], "o", color=INK, markersize=4.5, zorder=4)
        text = f"{n:.1f} {p.pair[1]} within {minimum:.2f} Å"
        right.text(0.97, 0.95, text, transform=right.transAxes, ha="right", va="top", bbox=TEXT_BOX)
    return right


def _top(p):
    """The upper end of the axis of g: a bond's peak far above all that follows is cut off."""
    shell = p.shell()
    highest = p.g.max()
    if shell:
        later = p.g[p.r > shell[2]]
        if len(later) and 0 < TALL * later.max() < highest:
            return max(1.25 * TALL * later.max() / 2, 1e-9)
    return 1.12 * highest


def draw_msd(displacement, path):
    """Mean square displacements with the fitted lines; beside them the same with logarithmic axes.

    Parameters
    ----------
    displacement : Displacement
    path : str or Path

    Returns
    -------
    Path
    """
    lag = displacement.lag
    end = min(2.0 * max(d.end for d in displacement.diffusion.values()), lag[-1])
    shown = lag <= end
    with picture(path, ncols=2, size=(5.0, 4.0)) as axes:
        linear, logarithmic = axes[0]
        for (element, msd), color in zip(displacement.msd.items(), cycle(COLORS)):
            d = displacement.diffusion[element]
            note = "" if d.linear else ", not straight"
            linear.plot(lag[shown], msd[shown], color=color, label=f"{element}  {d.text()}{note}")
            line = np.array([d.start, d.end])
            linear.plot(
                line, 6 * d.coefficient * line + d.offset, color=INK, linewidth=1.0, linestyle="--", zorder=4
            )
            logarithmic.plot(lag[1:], msd[1:], color=color, label=element)
            fitted = (lag >= d.start) & (lag <= d.end) & (msd > 0)
            logarithmic.plot(
                lag[fitted], msd[fitted], color=color, linewidth=4.5, alpha=0.3, solid_capstyle="butt"
            )
        linear.set(title="Mean square displacement", xlim=(0, end), ylim=(0, None))
        linear.legend(title="D (10⁻⁵ cm²/s)", alignment="left", **LEGEND)
        for axis in (linear.xaxis, linear.yaxis):
            axis.set_minor_locator(AutoMinorLocator())
        logarithmic.set(title="All lags", xscale="log", yscale="log", xlim=(lag[1], lag[-1]))
        _slope(logarithmic, lag, displacement.msd.values())
        logarithmic.legend(**LEGEND)
        for ax in axes[0]:
            ax.set(xlabel="lag (ps)", ylabel="MSD (Å²)")
    return Path(path)


def _slope(ax, lag, msds):
    """A guide below the curves over the last two octaves: MSD ∝ t, as atoms diffuse."""
    line = np.geomspace(max(lag[1], 0.25 * lag[-1]), lag[-1], 2)
    y = 0.4 * min(msd[-1] for msd in msds) * line / lag[-1]
    if y[0] > 0:
        ax.plot(line, y, color=FAINT, linewidth=1.2, linestyle="--")
        ax.annotate(
            "∝ t", (line[0], y[0]), (-4, 0), textcoords="offset points", ha="right", va="center", color=FAINT
        )


def draw_vacf(vibrations, path):
    """Velocity autocorrelations, and the vibrational density of states with each element's part.

    Parameters
    ----------
    vibrations : Vibrations
    path : str or Path

    Returns
    -------
    Path
    """
    nu, total = vibrations.frequency, sum(vibrations.spectrum.values())
    edge = nu[np.searchsorted(np.cumsum(total) / total.sum(), EDGE)]
    with picture(path, nrows=2, size=(7.2, 3.3)) as axes:
        upper, lower = axes[:, 0]
        for (element, c), color in zip(vibrations.correlation.items(), cycle(COLORS)):
            if c[0] > 0:
                upper.plot(1e3 * vibrations.lag, c / c[0], color=color, linewidth=1.2, label=element)
            part = 1e3 * vibrations.spectrum[element]
            if len(vibrations.spectrum) > 1:
                lower.plot(nu, part, color=color, linewidth=1.2, label=element)
            lower.fill_between(nu, part, color=color, alpha=0.15, linewidth=0)
        lower.plot(nu, 1e3 * total, color=INK, linewidth=1.2, label="total", zorder=4)
        upper.axhline(0.0, color=FAINT, linewidth=1.0, zorder=1)
        upper.set(xlabel="lag (fs)", ylabel="C(t) / C(0)", xlim=(0, _settled(vibrations)))
        upper.set(title="Velocity autocorrelation")
        lower.set(title="Vibrational density of states", xlim=(0, min(nu[-1], 1.15 * edge)), ylim=(0, None))
        lower.set(xlabel="wave number (cm⁻¹)", ylabel="density (10⁻³/cm⁻¹)")
        thz = vibrations.thz[-1] / nu[-1]
        top = lower.secondary_xaxis("top", functions=(lambda x: x * thz, lambda x: x / thz))
        top.set_xlabel("frequency (THz)")
        for ax in axes.flat:
            ax.xaxis.set_minor_locator(AutoMinorLocator())
            ax.legend()
    return Path(path)


def _settled(vibrations):
    """fs: Up to where correlations are shown: half as far again as any is above 5 %, or 30 mean periods."""
    large = [np.flatnonzero(np.abs(c) > 0.05 * c[0])[-1] for c in vibrations.correlation.values() if c[0] > 0]
    last = min(len(vibrations.lag) - 1, int(1.5 * max(large, default=0)) + 10)
    total = sum(vibrations.spectrum.values())
    period = total.sum() / abs(vibrations.thz @ total)  # ps
    return 1e3 * min(vibrations.lag[last], 30 * period)
