"""Write ``.dp`` files.

Versions written: Model 2, Descriptor 2, EmbeddingNetwork 2, Fitting 2, FittingNetwork 1, NetworkCollection 1,
Layer 1, PairTab 1; the oldest ones, so that every DeePMD-kit 3.x reads the file.
DeePMD-kit ignores groups: ``/training`` of a checkpoint, ``/last_layer`` of a model with a `Posterior`.
"""

from __future__ import annotations

import datetime
import io
import json
import os
from pathlib import Path

import h5py
import numpy as np

from deepmd_lite import __version__
from deepmd_lite.errors import ModelFileError
from deepmd_lite.model_file.arrays import Descriptor, Fitting, Layer, Model, ShortRange
from deepmd_lite.model_file.check import check_model


def write_model(path, model: Model, training: dict | None = None) -> None:
    """Write a ``.dp`` file: beside the target, synced, then renamed, so that it is whole or not there.

    Parameters
    ----------
    path : str or Path
        Must end in ``.dp``.
    model : Model
    training : dict of str to array, optional
        What a restart of training needs; goes into the group ``/training``, which DeePMD-kit ignores.

    Raises
    ------
    ModelFileError
        If the model contradicts itself (nothing is written), or `path` does not end in ``.dp``.
    OSError
        If the file cannot be written, as when the disk is full; what was there before is kept.
    """
    path = Path(path)
    if path.suffix != ".dp":
        raise ModelFileError(
            f"{path}: expected a name that ends in .dp; convert afterwards with dp convert-backend"
        )
    check_model(model)
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        tree = _store(_tree(model), file)
        file.attrs["json"] = json.dumps(tree, separators=(",", ":"), allow_nan=False)
        if model.posterior is not None:
            for name, array in vars(model.posterior).items():
                file[f"last_layer/{name}"] = array
        for name, array in (training or {}).items():
            file[f"training/{name}"] = array
    _replace(path, image.getbuffer())


def _tree(model: Model) -> dict:
    """The tree of FORMATS with arrays still in place."""
    nets = {"descriptor": _descriptor(model), "fitting": _fitting(model)}
    if model.shortrange is None:
        whole = {**_model(model, "standard"), **nets}
    else:
        whole = _blend(model, {**_model(model, "standard", part=True), **nets})
    return {
        "software": "deepmd_lite",
        "version": __version__,
        "time": str(datetime.datetime.now(tz=datetime.timezone.utc)),
        "backend": "deepmd_lite",
        "model": whole,
        "model_def_script": _definition(model),
        "deepmd_lite": model.metadata,
        "@variables": {}
        if model.min_nbor_dist is None
        else {"min_nbor_dist": np.float64(model.min_nbor_dist)},
    }


def _model(model: Model, kind: str, part: bool = False) -> dict:
    """What every model begins with; without biases and exclusions for a part of a blend."""
    ntypes = len(model.type_map)
    bias = np.zeros(ntypes) if part else model.out_bias
    spread = np.ones(ntypes) if part or model.out_std is None else model.out_std
    return {
        "@class": "Model",
        "@version": 2,
        "type": kind,
        "type_map": list(model.type_map),
        "atom_exclude_types": [] if part else list(model.atom_exclude_types),
        "pair_exclude_types": [] if part else [list(pair) for pair in model.pair_exclude_types],
        "rcond": None,
        "preset_out_bias": None,
        "@variables": {"out_bias": bias[None, :, None], "out_std": spread[None, :, None]},
    }


def _blend(model: Model, nets: dict) -> dict:
    """The model of nets and table."""
    t, rcut, ntypes = model.shortrange, float(model.descriptor.rcut), len(model.type_map)
    count = t.coefficients.shape[2]
    upper = t.coefficients[np.triu_indices(ntypes)]
    energies = np.concatenate((upper[:, :, 3], upper[:, -1:].sum(axis=2)), axis=1)  # at the knots
    distances = t.start + t.step * np.arange(count + 1)
    tab = {
        "@class": "PairTab",
        "@version": 1,
        "rmin": float(t.start),
        "rmax": float(distances[-1]),
        "hh": float(t.step),
        "ntypes": ntypes,
        "rcut": rcut,
        "nspline": count,
        "@variables": {
            "vdata": np.column_stack((distances, energies.T)),
            "tab_info": np.array([t.start, t.step, count, ntypes], float),
            "tab_data": t.coefficients.ravel(),
        },
    }
    table = {
        **_model(model, "pairtab", part=True),
        "tab": tab,
        "rcut": rcut,
        "sel": sum(model.descriptor.sel),
    }
    return {
        **_model(model, "zbl"),
        "models": [nets, table],
        "weights": "mean",
        **_switch(t),
    }


def _switch(t: ShortRange) -> dict:
    return {key: float(getattr(t, key)) for key in ("smin_alpha", "sw_rmin", "sw_rmax")}


def _descriptor(model: Model) -> dict:
    d, ntypes = model.descriptor, len(model.type_map)
    nnei = (ntypes, sum(d.sel), 4)
    return {
        "@class": "Descriptor",
        "type": "se_e2_a",
        "@version": 2,
        **_descriptor_options(d),
        "trainable": True,
        "spin": None,
        "env_mat": {"rcut": d.rcut, "rcut_smth": d.rcut_smth},
        "type_map": list(model.type_map),
        "embeddings": _collection(d.nets, ntypes, 1 if d.type_one_side else 2, "embedding_network", d),
        "@variables": {
            key: np.broadcast_to(values[:, None], nnei).astype(d.precision)
            for key, values in (("davg", d.davg), ("dstd", d.dstd))
        },
    }


def _fitting(model: Model) -> dict:
    d, f, ntypes = model.descriptor, model.fitting, len(model.type_map)
    return {
        "@class": "Fitting",
        "type": "ener",
        "@version": 2,
        "var_name": "energy",
        "dim_out": 1,
        "ntypes": ntypes,
        "dim_descrpt": d.dim,
        **_fitting_options(f),
        "rcond": None,
        "mixed_types": False,
        "exclude_types": [],
        "type_map": list(model.type_map),
        "tot_ener_zero": False,
        "trainable": [True] * (len(f.neuron) + 1),
        "layer_name": None,
        "use_aparam_as_mask": False,
        "spin": None,
        "nets": _collection(f.nets, ntypes, 1, "fitting_network", f),
        "@variables": {
            "bias_atom_e": f.bias_atom_e[:, None],
            **{
                key: getattr(f, key)
                for key in ("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std")
            },
        },
    }


def _descriptor_options(d: Descriptor) -> dict:
    return {
        "rcut": float(d.rcut),
        "rcut_smth": float(d.rcut_smth),
        "sel": list(d.sel),
        "neuron": list(d.neuron),
        "axis_neuron": d.axis_neuron,
        "resnet_dt": d.resnet_dt,
        "type_one_side": d.type_one_side,
        "exclude_types": [list(pair) for pair in d.exclude_types],
        "env_protection": float(d.env_protection),
        "set_davg_zero": d.set_davg_zero,
        "activation_function": d.activation_function,
        "precision": d.precision,
    }


def _fitting_options(f: Fitting) -> dict:
    return {
        "neuron": list(f.neuron),
        "resnet_dt": f.resnet_dt,
        "numb_fparam": f.numb_fparam,
        "numb_aparam": f.numb_aparam,
        "activation_function": f.activation_function,
        "precision": f.precision,
        "atom_ener": f.atom_ener,
    }


def _definition(model: Model) -> dict:
    """``model_def_script``: what was asked for, corrected by what the model is."""
    asked = model.definition

    def part(key: str, **options) -> dict:
        return {**(asked[key] if isinstance(asked.get(key), dict) else {}), **options}

    fitting = _fitting_options(model.fitting)
    fitting["atom_ener"] = fitting["atom_ener"] or []
    return {
        **asked,
        "type_map": list(model.type_map),
        "descriptor": part("descriptor", type="se_e2_a", **_descriptor_options(model.descriptor)),
        "fitting_net": part("fitting_net", type="ener", **fitting),
        "pair_exclude_types": [list(pair) for pair in model.pair_exclude_types],
        "atom_exclude_types": list(model.atom_exclude_types),
        **(_switch(model.shortrange) if model.shortrange else {}),
    }


def _collection(nets: list, ntypes: int, ndim: int, kind: str, owner: Descriptor | Fitting) -> dict:
    if kind == "embedding_network":
        header = {"@class": "EmbeddingNetwork", "@version": 2, "in_dim": 1, "bias": True}
    else:
        header = {"@class": "FittingNetwork", "@version": 1, "in_dim": nets[0][0].w.shape[0], "out_dim": 1}
        header["bias_out"] = True
    header |= {
        "neuron": list(owner.neuron),
        "activation_function": owner.activation_function,
        "resnet_dt": owner.resnet_dt,
        "precision": owner.precision,
    }
    return {
        "@class": "NetworkCollection",
        "@version": 1,
        "ndim": ndim,
        "ntypes": ntypes,
        "network_type": kind,
        "networks": [
            {**header, "layers": [_layer(layer, owner.precision) for layer in net or _blank_net(owner)]}
            for net in nets
        ],
    }


def _blank_net(descriptor: Descriptor) -> list[Layer]:
    """Zero weights for a pair of types without a net: DeePMD-kit 3.2 misreads a model with a missing one."""
    widths = (1, *descriptor.neuron)
    zeros = [np.zeros(shape, descriptor.precision) for shape in zip(widths, descriptor.neuron)]
    return [Layer(w, w[0].copy(), None, descriptor.activation_function, True) for w in zeros]


def _layer(layer: Layer, precision: str) -> dict:
    return {
        "@class": "Layer",
        "@version": 1,
        "bias": layer.b is not None,
        "use_timestep": layer.idt is not None,
        "activation_function": layer.activation,
        "resnet": layer.resnet,
        "precision": precision,
        "@variables": {"w": layer.w, "b": layer.b, "idt": layer.idt},
    }


def _store(tree, file: h5py.File):
    """The same tree with every array written to `file` and replaced by the name of its dataset."""
    if isinstance(tree, np.ndarray | np.generic):
        return file.create_dataset(f"variable_{len(file):04d}", data=tree).name
    if isinstance(tree, dict):
        return {key: _store(value, file) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_store(value, file) for value in tree]
    return tree


def _replace(path: Path, content) -> None:
    """Write `content` beside `path`, sync it and rename it over `path`; an OSError names `path`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as reason:
        raise OSError(reason.errno, reason.strerror, str(path)) from None
    finally:
        beside.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
