"""Starting from a trained model: energies per element fitted to other frames, and elements that are new to it.

A new element must not change what the model says of frames without it. With nsel = Σ sel slots a center has

    A_i = 1/nsel Σ_slots R~ ⊗ G(R~_0),    R~ = (R - davg) / dstd,    R = 0 in an empty slot

(model/descriptor.py). The slots of new neighbors, empty in those frames, would change A_i twice, and both changes
are undone:

* *They count.* Each adds R~ ⊗ G(x0), with x0 = -davg/dstd of the center as R~_0 and zero for the rest of R~. So the
  embedding net of a new neighbor is made to vanish at the x0 of every old center that it serves (`_vanishing`).
* *nsel grows* to nsel'. With c = nsel/nsel', dstd becomes c dstd, and the weights w of each embedding net's first
  layer, whose input is one number, become c w. Then R~ is larger by nsel'/nsel; G and A_i stay.
"""

import dataclasses

import numpy as np
import torch

from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.errors import ConfigError, ModelFileError, NeighborOverflowError
from deepmd_lite.model.network import activation, from_layers, random_layers
from deepmd_lite.train.bias import energies_of, evaluate, fit, report, shifted
from deepmd_lite.train.start import check_same_model, choose_sel
from deepmd_lite.train.statistics import env_mat_statistics

VANISHED = 1e-12  # of an embedding net, whose values are of order 1
SEEN = 100  # frames that choose which element stands in for a new one, at most


def finetuned(model, config, type_map, frames, found):
    """The model that training on other frames starts from.

    Parameters
    ----------
    model : model_file.Model
    config : config.Config
    type_map : tuple of str
        The model's, then elements that are new to it.
    frames : dataset.Frames
    found : statistics.Survey
        Of the frames.

    Returns
    -------
    model : model_file.Model
        The same, with the new elements and with energies per element that fit the frames.
    shift : bias.Shift

    Raises
    ------
    ConfigError
        An input that describes another model; new elements for a model that cannot take them.
    NeighborOverflowError
        More neighbors of an old type than the model's ``sel``.
    """
    old, sel = len(model.type_map), model.descriptor.sel
    if tuple(type_map[:old]) != tuple(model.type_map):
        raise ConfigError(
            f"model.type_map: expected it to begin with that of the model file, {list(model.type_map)}, "
            f"found {list(type_map)}"
        )
    if (found.neighbors[:old] > np.array(sel)).any():
        needed = np.maximum(found.neighbors[:old], sel).tolist()
        raise NeighborOverflowError(
            f"{found.crowded} needs sel = {needed} for {list(model.type_map)}, and the model has {list(sel)}: its "
            "descriptor is divided by it, so that another sel is another model; leave out the frames of such "
            "density, or train a new model"
        )
    if len(type_map) > old:
        model = _with_new_elements(model, config.model, type_map, frames, found)
    check_same_model(model, config.model)
    closest = [r for r in (model.min_nbor_dist, found.closest) if r is not None and np.isfinite(r)]
    model = dataclasses.replace(
        model, min_nbor_dist=min(closest, default=None), metadata={"input": config.source}
    )
    energies, shift = energies_of(model, frames), np.zeros(len(type_map))
    if energies is not None:
        shift = fit(energies.counts, energies.label - energies.prediction, first=range(old, len(type_map)))
    return shifted(model, shift), report(model, shift, energies)


def _with_new_elements(model, section, type_map, frames, found):
    """`extended` by what an input's model section and a `Survey` of the frames say."""
    old, sel = len(model.type_map), choose_sel(section.descriptor.sel, found)
    if len(sel) != len(type_map):
        raise ConfigError(
            f"model.descriptor.sel: expected {len(type_map)} numbers for {list(type_map)}, found {len(sel)}"
        )
    absent = [e for e, n in zip(type_map[old:], found.atoms[old:]) if n == 0]
    if absent:
        raise ConfigError(
            f"model.type_map: {', '.join(absent)}: neither in the model file nor in the frames; leave it out"
        )
    sel = (*model.descriptor.sel, *sel[old:])
    statistics, more = env_mat_statistics(found, sel), len(type_map) - old
    rng = np.random.default_rng((section.fitting_net.seed or 0, 3))
    candidates = [
        extended(model, type_map, sel, statistics, [t] * more, [True] * more, rng) for t in range(old)
    ]
    like, good = _stand_ins(candidates, frames)
    return extended(model, type_map, sel, statistics, like[old:], good[old:], rng)


def _stand_ins(candidates, frames):
    """Which candidate's forces are nearest to the labels in the frames that have an element, for each element.

    Parameters
    ----------
    candidates : list of model_file.Model
    frames : dataset.Frames

    Returns
    -------
    best : (ntypes,) int array
    good : (ntypes,) bool array
        Whether those forces are nearer to the labels than no forces at all.
    """
    ntypes = frames.ntypes
    potentials = [CompiledPot(model) for model in candidates]
    error, nothing = np.zeros((len(candidates), ntypes)), np.zeros(ntypes)
    some = np.unique(np.linspace(0, len(frames) - 1, SEEN).astype(int))
    for frame in (frames.frame(*frames.place(number)) for number in some):
        if bool(frame.labels.found["force"]):
            label = frame.labels.force.numpy()
            there = np.bincount(frame.batch.atype, minlength=ntypes) > 0
            nothing[there] += (label**2).sum()
            for t, potential in enumerate(potentials):
                error[t, there] += ((evaluate(potential, frame.batch).force - label) ** 2).sum()
    return error.argmin(axis=0), error.min(axis=0) < nothing


def extended(model, type_map, sel, statistics, like, good, rng):
    """A model with new types, which says what it said of frames without them.

    Parameters
    ----------
    model : model_file.Model
    type_map : tuple of str
        The model's, then the new ones.
    sel : (ntypes,) tuple of int
        The model's, then neighbors of the new types.
    statistics : davg, dstd, (ntypes, 4) each
        Of the environment matrix; those of the new types count.
    like : (ntypes - old,) int array
        For each new type, the old type whose embedding nets it starts from.
    good : (ntypes - old,) bool array
        Whether its fitting net starts from that type's, too; otherwise it is random.
    rng : numpy.random.Generator

    Returns
    -------
    model_file.Model

    Raises
    ------
    ModelFileError
        A model to which types cannot be added without a change for the old ones.
    """
    d, old, ntypes = model.descriptor, len(model.type_map), len(type_map)
    obstacles = {
        "a pair table (use_srtab)": model.shortrange is not None,
        "descriptor.exclude_types": d.exclude_types,
        "embedding nets that begin with 1 or 2 neurons and so pass their input on": d.neuron[0] <= 2,
    }
    for obstacle in (name for name, there in obstacles.items() if there):
        new = ", ".join(type_map[old:])
        raise ModelFileError(
            f"a model with {obstacle} cannot take new elements, found {new}; train a new model"
        )
    davg, dstd = (np.concatenate((mine, new[old:])) for mine, new in zip((d.davg, d.dstd), statistics))
    if d.set_davg_zero:
        davg[:] = 0
    source = [*range(old), *like]
    nets = [_embedding(d, ti, tj, source, -davg[:old, 0] / dstd[:old, 0]) for ti, tj in _net_pairs(d, ntypes)]
    c = sum(d.sel) / sum(sel)
    nets = [net and [dataclasses.replace(net[0], w=c * net[0].w), *net[1:]] for net in nets]
    descriptor = dataclasses.replace(
        d,
        sel=tuple(map(int, sel)),
        davg=davg.astype(d.precision),
        dstd=(c * dstd).astype(d.precision),
        nets=[net and [_cast(layer, d.precision) for layer in net] for net in nets],
    )
    zeros = np.zeros(ntypes - old)
    return dataclasses.replace(
        model,
        type_map=tuple(type_map),
        descriptor=descriptor,
        fitting=_more_fitting(model.fitting, d.dim, like, good, rng),
        out_bias=np.concatenate((model.out_bias, zeros)),
        out_std=None if model.out_std is None else np.concatenate((model.out_std, zeros + 1)),
    )


def _more_fitting(f, dim, like, good, rng):
    """A `model_file.Fitting` with a net for each new type: that of the type ``like`` where it is ``good``."""
    widths = (dim + f.numb_fparam + f.numb_aparam, *f.neuron, 1)
    options = {"act": f.activation_function, "resnet_dt": f.resnet_dt, "rng": rng, "last_linear": True}
    new = [f.nets[t] if copied else random_layers(widths, **options) for t, copied in zip(like, good)]
    return dataclasses.replace(
        f,
        nets=[*f.nets, *([_cast(layer, f.precision) for layer in net] for net in new)],
        bias_atom_e=np.concatenate((f.bias_atom_e, np.zeros(len(new)))),
        atom_ener=f.atom_ener and [*f.atom_ener, *[None] * len(new)],
    )


def _net_pairs(d, ntypes):
    """(center, neighbor) of each embedding net in a file's order; no center where nets go by neighbor alone."""
    centers = [None] if d.type_one_side else range(ntypes)
    return [(ti, tj) for tj in range(ntypes) for ti in centers]


def _embedding(d, ti, tj, source, x0):
    """The embedding net of neighbors tj around centers ti, from the net of their ``source`` types.

    ``x0`` (old,) is what the empty slots of old centers feed to a net; where it is zero, R~ is zero and they add
    nothing.
    """
    old = len(x0)
    centers = range(old) if ti is None else [ti] if ti < old else []
    net = d.nets[source[tj] if ti is None else source[ti] + old * source[tj]]
    points = np.unique([x0[t] for t in centers if x0[t] != 0])
    return net if tj < old or net is None or len(points) == 0 else _vanishing(net, points)


def _vanishing(net, points):
    """An embedding net (layers, float64) as a given one, but zero where its input is one of ``points`` (n,).

    Its second layer cancels what the skip connection brings it from the first, h:

        act(h w + b) + (h, h) = 0    at each point: n linear equations for w and b, with the smallest change of them

    and the later ones, without their b, return zero for zero. While act does not reach down to -h, the first layer
    is halved.

    Raises
    ------
    ModelFileError
        An activation that does not take such values (relu, sigmoid, softplus).
    """
    layers = [_cast(layer, "float64") for layer in net]
    first, k = layers[0], min(1, len(layers) - 1)
    layer, act = layers[k], activation(layers[k].activation)
    layer.idt = None if layer.idt is None else np.ones_like(layer.idt)
    for later in layers[k + 1 :]:
        later.b = None if later.b is None else np.zeros_like(later.b)
    w, b = layer.w, np.zeros(layer.w.shape[1]) if layer.b is None else layer.b
    x, (nin, nout) = torch.from_numpy(points[:, None]), w.shape
    for _ in range(10):
        with torch.no_grad():
            h = from_layers(layers[:k], "float64")(x)
        skips = nout // nin if layer.resnet and nout in (nin, 2 * nin) else 0
        passed = torch.cat([h] * skips, dim=1) if skips else torch.zeros(len(h), nout, dtype=h.dtype)
        z = torch.zeros_like(passed)
        for _ in range(100):  # Newton
            value, slope = act(z)
            z = z - (value + passed) / slope
        if torch.isfinite(z).all():
            inputs = np.column_stack((h, np.ones(len(h))))
            change = np.linalg.lstsq(inputs, z.numpy() - h.numpy() @ w - b, rcond=None)[0]
            layer.w, layer.b = w + change[:-1], b + change[-1]
            with torch.no_grad():
                if from_layers(layers, "float64")(x).abs().max() < VANISHED:
                    return layers
        first.w, first.b = first.w / 2, None if first.b is None else first.b / 2
    raise ModelFileError(
        f"activation_function {layer.activation} with davg: no embedding net of a new element can leave the old ones "
        "as they are; expected tanh, gelu or silu, or a model with set_davg_zero"
    )


def _cast(layer, precision):
    """A layer of one's own, in another precision."""
    arrays = {key: getattr(layer, key) for key in ("w", "b", "idt")}
    arrays = {key: None if value is None else value.astype(precision) for key, value in arrays.items()}
    return dataclasses.replace(layer, **arrays)
