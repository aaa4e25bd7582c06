"""A Deep Potential of random features: random nets, and one least-squares fit of the last layer.

The random feature model of the lecture (theory/random_features.py) with energies, forces and the descriptor of a Deep
Potential: a baseline in seconds, and a start for training. What is random:

* embedding nets: the distribution that training starts from, the weights of the first layer `STEEP` times as large;
* the first layer of the fitting nets reads D through the principal components z_k of its spread over atoms of that
  type, with variances λ_k, as γ Σ_k ξ_nk z_k / λ_k^(1/4) up to a factor, ξ ~ N(0, 1), plus a bias ~ N(0, 1). So
  directions in which D hardly varies count more than by their size and less than if all were made equal; and γ is
  small, since energies are smooth in D;
* all other layers: the distribution that training starts from.

Since nothing below the last layer has seen the labels, errors on frames left out (last_layer.py) are those on any
frames of the same kind.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.table import Table

from deepmd_lite.config import load_config
from deepmd_lite.evaluate.last_layer import LastLayer
from deepmd_lite.frames.store import open_systems
from deepmd_lite.model import batch as batches
from deepmd_lite.model.potential import DeepPot
from deepmd_lite.model_file import Model, write_model
from deepmd_lite.train.dataset import Frames, check_labels
from deepmd_lite.train.start import new_model
from deepmd_lite.train.statistics import check_sel, survey

STEEP, GAMMA = 3.0, 0.05  # of 0.5 to 6 and 0.025 to 3, the best or near it for the forces of water
ROWS = 15  # numbers to fit, per coefficient
LEFT_OUT = 8, 5000  # frames left out in turn for the errors: so many, and enough for so many numbers
ATOMS = 500  # of each type, whose descriptors say how D is spread


@dataclass(frozen=True)
class Fitted:
    """A potential of random features.

    Attributes
    ----------
    model : model_file.Model
    nframes, size : int
        Frames fitted to; coefficients.
    energy, force : float
        RMSE on frames left out in turn, eV/atom and eV/Å; NaN without labels.
    seconds : float
    """

    model: Model
    nframes: int
    size: int
    energy: float
    force: float
    seconds: float

    def table(self):
        """rich.table.Table: Two columns."""
        table = Table(title="Random features", show_header=False)
        table.add_column(style="bold")
        table.add_column()
        for row in (
            ("frames fitted to", str(self.nframes)),
            ("coefficients", str(self.size)),
            ("force RMSE, left out", f"{1e3 * self.force:.4g} meV/Å"),
            ("energy RMSE, left out", f"{1e3 * self.energy:.4g} meV/atom"),
            ("seconds", f"{self.seconds:.1f}"),
        ):
            table.add_row(*row)
        return table


def random_potential(path, out=None, *, nframes=None, seed=None):
    """Fit random features to the training frames of an input.

    Parameters
    ----------
    path : str or Path
        ``input.json``: its model section, training data, and last prefactors of the loss.
    out : str or Path, optional
        The ``.dp`` file to write.
    nframes : int, optional
        Frames to fit to, spread evenly over all; as many as give `ROWS` numbers per coefficient when left out.
    seed : int, optional
        That of fitting_net in the input when left out.

    Returns
    -------
    Fitted

    Raises
    ------
    ConfigError, DataError, NeighborOverflowError
        If the input or the frames cannot be used.
    """
    begin, config = time.monotonic(), load_config(path)
    model, stored = _start(config)
    rng = np.random.default_rng(config.model.fitting_net.seed or 0 if seed is None else seed)
    size = len(model.type_map) * (model.fitting.neuron[-1] + 1)
    rows = 1 + 3 * max(s.natoms for s in stored)
    if nframes is None:
        nframes = -(-ROWS * size // rows)
    systems = _spread(stored, nframes)
    model = randomized(model, systems, rng)
    weights = {f"w_{k}": getattr(config.loss, f"limit_pref_{k[0]}") for k in ("energy", "force", "virial")}
    layer = LastLayer(model, **weights).fit(systems)
    model = replace(layer.refit().model, posterior=None)
    found = [layer.leave_one_out([s])[0] for s in _spread(systems, max(LEFT_OUT[0], LEFT_OUT[1] // rows))]
    energy = np.concatenate([v.energy / v.system.natoms for v in found])
    force = np.concatenate([v.force.ravel() for v in found])
    if out is not None:
        write_model(out, model)
    count = sum(s.nframes for s in systems)
    return Fitted(model, count, size, _rms(energy), _rms(force), time.monotonic() - begin)


def _start(config):
    """The model that training would start from, and the `StoredSystem`s of the frames."""
    data = config.training.training_data
    names = config.model.type_map
    stored = open_systems(data.systems, names and tuple(names))
    type_map = tuple(names or dict.fromkeys(e for s in stored for e in s.head.type_map))
    check_labels(stored, config.loss)
    d, f = config.model.descriptor, config.model.fitting_net
    stored = [s.remapped(type_map) for s in stored]
    frames = Frames(stored, d.rcut, len(type_map), f.numb_fparam, f.numb_aparam)
    found = survey(frames, d.rcut_smth, d.env_protection)
    model = new_model(config, type_map, found)
    check_sel(found, model.descriptor.sel)
    return model, stored


def _spread(systems, count):
    """Frames of systems, in memory or stored, ``count`` in all and spread evenly: list of System."""
    first = np.cumsum([0, *(s.nframes for s in systems)])
    chosen = np.unique(np.linspace(0, first[-1] - 1, min(count, first[-1])).astype(int))
    parts = []
    for s, a, b in zip(systems, first[:-1], first[1:]):
        mine = chosen[(chosen >= a) & (chosen < b)] - a
        if len(mine):
            parts.append((s.read() if hasattr(s, "read") else s).select(mine))
    return parts


def randomized(model, systems, rng):
    """The model with random nets, and zeros in the last layers.

    Parameters
    ----------
    model : model_file.Model
        With nets as they are drawn for training.
    systems : list of System
        Frames that say how D is spread.
    rng : numpy.random.Generator
    """
    nets = [net and [replace(net[0], w=STEEP * net[0].w), *net[1:]] for net in model.descriptor.nets]
    model = replace(model, descriptor=replace(model.descriptor, nets=nets))
    nets, seen = [], _descriptors(model, systems)
    for t, net in enumerate(model.fitting.nets):
        first, last = net[0], net[-1]
        if len(seen[t]) > 1:
            w, b = first.w.copy(), rng.standard_normal(len(first.b))
            w[: model.descriptor.dim], shift = _projections(seen[t], len(b), rng)
            first = replace(first, w=w, b=b + shift)
        nets.append([first, *net[1:-1], replace(last, w=0 * last.w, b=0 * last.b)])
    return _rounded(replace(model, fitting=replace(model.fitting, nets=nets)))


def _projections(d, width, rng):
    """Weights (dim, width) and biases (width,) of projections of D with the spread γ, from samples d (n, dim)."""
    mean, std = d.mean(axis=0), d.std(axis=0)
    std[std == 0] = np.inf  # what does not vary is not read
    z = (d - mean) / std
    _, s, components = np.linalg.svd(z, full_matrices=False)
    known = s > 1e-3 * s[0]
    w = (components[known] / np.sqrt(s[known, None])).T @ rng.standard_normal((known.sum(), width))
    w *= GAMMA / (z @ w).std(axis=0) / std[:, None]
    return w, -mean @ w


def _descriptors(model, systems):
    """D of some atoms of each type: list of (n, dim)."""
    potential, found = DeepPot(model), [[] for _ in model.type_map]
    with torch.no_grad():
        for s in _spread(systems, 8):
            for k in range(s.nframes):
                box = None if s.box is None else s.box[k]
                batch = batches.from_frame(s.coord[k], s.atype, box, s.pbc, potential.rcut, potential.ntypes)
                for t, d in enumerate(potential.descriptors(batch)):
                    found[t].append(d.numpy().astype(float))
    found = [np.concatenate(parts) for parts in found]
    return [d[np.linspace(0, len(d) - 1, min(ATOMS, len(d))).astype(int)] for d in found]


def _rounded(model):
    """The model with nets in the precision that it says."""
    return replace(DeepPot(model).to_model(), metadata=model.metadata)


def _rms(values):
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")
