"""What learning theory says of a trained potential: ``dplite show --diagnostics``.

======================  ===================================================================================
path norm               1ᵀ Π_l (|idt_l| |W_l| + copies) 1 of a net, by which its generalization is bounded
generalization gap      RMSE on frames not seen minus RMSE on those trained on; interval by drawing frames anew
Rademacher complexity   (Q/n) E |Φᵀξ|: how well pure noise ξ = ±1 is fitted by a last layer with weights of the
                        same norm Q = |c|; |mean |error| on other frames - on these| is about twice that at most
noise absorbed          rank Φ / n: R² that a refit of the last layer would reach on labels that are pure noise
leverage                φᵀ A⁻¹ φ, A = Φᵀ Φ: how far a frame is from what the last layer was fitted to; its mean over
                        the frames that A is made of is K / n
======================  ===================================================================================

n rows Φ (n, K) of forces, or of energies per atom; the last layers of all fitting nets have K weights c together
(engine/last_layer.py). The bounds are vacuous: they hold and are far above the errors that are found. What they are
good for is a comparison of models of one kind on the same frames. That of Rad takes the hidden layers as
given, whereas they were trained on these frames, too. Gap and leverage are measurements.

References
----------
E, Ma and Wu, Commun. Math. Sci. 17, 1407 (2019); Bartlett and Mendelson, JMLR 3, 463 (2002); Zhang et al.,
Understanding deep learning requires rethinking generalization, ICLR 2017 (labels that are noise).
"""

from dataclasses import dataclass, replace

import numpy as np
from rich.table import Table

from deepmd_lite.backends import load_potential
from deepmd_lite.engine.last_layer import Features, coefficients
from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.evaluate.frame_errors import UNITS, Gap, frame_errors, generalization_gap, picked
from deepmd_lite.frames.store import read_systems
from deepmd_lite.model.network import random_layers
from deepmd_lite.model_file import read_model
from deepmd_lite.theory.norms import path_norm_of_layers
from deepmd_lite.theory.ridge import NormalEquations

NOISES = 64  # draws of ξ
LOOKED_AT = (
    100  # frames for figures of the last layer, at most: their features take a good part of a second each
)
RIDGE = 1e-10  # of the largest eigenvalue of A: directions below it are rounding


@dataclass(frozen=True)
class Norm:
    """Path norm of a net, as trained and with random weights that training could have started from."""

    net: str
    shape: str
    trained: float
    random: float


@dataclass(frozen=True)
class Complexity:
    """Of the last layer on the frames trained on.

    Attributes
    ----------
    quantity : str
    frames, rows, size : int
        Frames looked at, n and K.
    norm : float
        Q = |c|.
    rademacher, se : float
        meV/atom or meV/Å.
    absorbed : float
        rank Φ / n.
    gap : float or None
        |mean |error| on other frames - on these|, the measured counterpart of twice ``rademacher``.
    """

    quantity: str
    frames: int
    rows: int
    size: int
    norm: float
    rademacher: float
    se: float
    absorbed: float
    gap: float | None


@dataclass(frozen=True)
class Diagnostics:
    """What `diagnose` found.

    Attributes
    ----------
    model : str
    norms : list of Norm
    gaps : list of Gap
    complexities : list of Complexity
    leverage : (float, float) or None
        Of the forces of the frames not trained on, in units of that of those trained on: mean and largest.
    notes : list of str
    """

    model: str
    norms: list[Norm]
    gaps: list[Gap]
    complexities: list[Complexity]
    leverage: tuple[float, float] | None
    notes: list[str]

    def tables(self):
        """list of rich.table.Table"""
        found = [self._norm_table()]
        if self.gaps:
            found.append(self._gap_table())
        if self.complexities:
            found.append(self._complexity_table())
        return found

    def lines(self):
        """list of str: What is no table."""
        found = list(self.notes)
        if self.leverage:
            mean, largest = (f"{ratio:.3g}" for ratio in self.leverage)
            found.append(
                f"leverage of the other frames' forces: {mean} times that of the frames trained on, {largest} in the "
                "farthest frame; several times means extrapolation"
            )
        return found

    def _norm_table(self):
        table = Table(
            title=f"Path norms of {self.model}",
            caption="the sum of a net's outputs changes by less when no input changes by more than 1",
        )
        for name in ("net", "widths", "as trained", "random weights", "ratio"):
            table.add_column(name, justify="left" if name in ("net", "widths") else "right")
        for n in self.norms:
            table.add_row(
                n.net, n.shape, f"{n.trained:.3g}", f"{n.random:.3g}", f"{n.trained / n.random:.2g}"
            )
        return table

    def _gap_table(self):
        table = Table(
            title="Generalization",
            caption="RMSE and 90 % interval, frames drawn anew; too narrow for successive frames of a trajectory",
        )
        for name in ("quantity", "frames trained on", "other frames", "gap"):
            table.add_column(name, justify="left" if name == "quantity" else "right")
        for g in self.gaps:
            table.add_row(
                f"{g.quantity} ({UNITS[g.quantity]})", *map(_interval, (g.training, g.validation, g.gap))
            )
        return table

    def _complexity_table(self):
        table = Table(
            title=f"The last layer, on {self.complexities[0].frames} of the frames trained on",
            caption="2 Rad bounds the gap in mean absolute error; a bound far above the gap ranks models, no more",
        )
        for name in ("quantity", "rows n", "weights", "|c|", "2 Rad", "gap", "noise absorbed"):
            table.add_column(name, justify="left" if name == "quantity" else "right")
        for c in self.complexities:
            gap = "-" if c.gap is None else f"{c.gap:.3g}"
            figures = (
                f"{c.norm:.3g}",
                f"{2 * c.rademacher:.3g} ± {2 * c.se:.1g}",
                gap,
                f"{100 * c.absorbed:.3g} %",
            )
            table.add_row(f"{c.quantity} ({UNITS[c.quantity]})", f"{c.rows:,}", str(c.size), *figures)
        return table


def _interval(values):
    return "-" if values is None else "{:.4g} ({:.4g} to {:.4g})".format(*values)


def diagnose(path, systems=None, validation=None, *, seed=0):
    """Path norms of a model; with frames, errors and complexity of its last layer; with other frames, the gap.

    Parameters
    ----------
    path : str or Path
        A ``.dp`` file.
    systems : str, Path or sequence of them, optional
        Frames that it was trained on, as for `read_systems`.
    validation : str, Path or sequence of them, optional
        Frames that it was not trained on.
    seed : int
        Same seed, same intervals.

    Returns
    -------
    Diagnostics

    Raises
    ------
    ConfigError
        ``validation`` without ``systems``.
    ModelFileError, DataError
        If the model or the frames cannot be used.
    """
    if validation and not systems:
        raise ConfigError(
            "diagnostics: expected the frames trained on beside those to validate on; give -s FRAMES"
        )
    model, rng = read_model(path), np.random.default_rng(seed)
    found = Diagnostics(str(path), path_norms(model), [], [], None, [])
    if not systems:
        return found
    potential = load_potential(path)
    frames = [read_systems(s, potential.type_map) for s in (systems, validation) if s]
    errors = [frame_errors(potential, part) for part in frames]
    labelled = [key for key in UNITS if errors[0].counts[key].any()]
    if not labelled:
        raise DataError(f"{frames[0][0].name}: expected energy or force labels, found none")
    found.gaps.extend(generalization_gap(key, errors, rng) for key in labelled)
    if model.shortrange is not None:
        found.notes.append("no figures of the last layer: they are for models without a pair table")
        return found
    layer = Features(model)
    some = [_some(part) for part in frames]
    gathered = gather(layer, some[0], rng)
    found.complexities.extend(
        _complexity(key, gathered[key], coefficients(model), errors) for key in labelled
    )
    if validation and "force" in labelled:
        ratio = leverages(layer, gathered["force"].equations, some[1])
        return replace(found, leverage=(float(ratio.mean()), float(ratio.max())))
    return found


def path_norms(model):
    """list of Norm: Of every net of a `model_file.Model`."""
    d, f, names = model.descriptor, model.fitting, model.type_map
    pairs = names if d.type_one_side else [f"{a}-{b}" for b in names for a in names]  # at ti + ntypes tj
    nets = [(f"embedding {name}", net, d) for name, net in zip(pairs, d.nets) if net]
    nets += [(f"fitting {name}", net, f) for name, net in zip(names, f.nets)]
    norms = []
    for name, net, options in nets:
        widths = [net[0].w.shape[0], *(layer.w.shape[1] for layer in net)]
        start = random_layers(
            widths,
            act=options.activation_function,
            resnet_dt=options.resnet_dt,
            rng=np.random.default_rng(0),
            last_linear=options is f,
        )
        norms.append(Norm(name, "-".join(map(str, widths)), _path_norm(net), _path_norm(start)))
    return norms


def _path_norm(net):
    return path_norm_of_layers([(layer.w.astype(float), layer.idt, _copies(layer)) for layer in net])


def _copies(layer):
    """How often the input of a layer is added to its output (model/network.py)."""
    nin, nout = layer.w.shape
    return nout // nin if layer.resnet and nout in (nin, 2 * nin) else 0


def _some(systems):
    """list of System: LOOKED_AT of their frames, evenly spread, or all."""
    total = sum(s.nframes for s in systems)
    return picked(systems, np.linspace(0, total - 1, min(LOOKED_AT, total)).astype(int))


@dataclass
class Gathered:
    """Rows Φ of one quantity, summed up: ΦᵀΦ, and ξᵀΦ (NOISES, K) of noises ξ; and of how many frames."""

    equations: NormalEquations
    noise: np.ndarray
    frames: int = 0


def gather(layer, systems, rng):
    """`Gathered` by quantity, from one pass over the frames; ``layer`` is engine.last_layer.Features."""
    found = {key: Gathered(NormalEquations(layer.size), np.zeros((NOISES, layer.size))) for key in UNITS}
    for system, k, rows in feature_rows(layer, systems):
        for key, phi in rows.items():
            if key in system.labels and system.found[key][k]:
                found[key].equations.add(phi, np.zeros(len(phi)))
                found[key].frames += 1
                found[key].noise += rng.choice([-1.0, 1.0], (NOISES, len(phi))) @ phi
    return found


def feature_rows(layer, systems):
    """Yield (system, frame, {"energy": (1, K) per atom, "force": (3 natoms, K)}) of all frames."""
    fitting = layer.model.fitting
    parameters = [key for key in ("fparam", "aparam") if getattr(fitting, f"numb_{key}")]
    for s in systems:
        for k in range(s.nframes):
            given = {key: s.labels[key][k] for key in parameters if key in s.labels}
            rows = layer(s.coord[k], s.atype, None if s.box is None else s.box[k], s.pbc, **given)
            yield s, k, {"energy": rows.energy[None] / s.natoms, "force": rows.force.reshape(-1, layer.size)}


def _complexity(key, gathered, c, errors):
    n, q = gathered.equations.rows, float(np.linalg.norm(c))
    length = np.linalg.norm(gathered.noise, axis=1)  # |Φᵀξ|
    rademacher, se = 1e3 * q / n * length.mean(), 1e3 * q / n * length.std(ddof=1) / np.sqrt(NOISES)
    rank = gathered.equations.effective_dimension(0.0)
    gap = None
    if len(errors) > 1 and errors[1].counts[key].any():
        gap = 1e3 * abs(errors[1].mae(key) - errors[0].mae(key))
    return Complexity(key, gathered.frames, n, len(c), q, float(rademacher), float(se), rank / n, gap)


def leverages(layer, equations, systems):
    """Mean leverage of the forces of each frame over that of the frames in ``equations``: (nframes,)."""
    ridge = RIDGE * equations.eigen[0][-1]
    factor, usual = equations.factor(ridge), equations.effective_dimension(ridge) / equations.rows
    found = [
        np.mean(np.sum((rows["force"] @ factor) ** 2, axis=1)) for *_, rows in feature_rows(layer, systems)
    ]
    return np.array(found) / usual
