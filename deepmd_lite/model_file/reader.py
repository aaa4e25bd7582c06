"""Read ``.dp`` files and believe nothing.

Every array must be stored in this very file, in full, once, with the shape that the header implies; every key
must be one whose meaning is known. What cannot be represented exactly is refused by name.

Versions read: Model 2, Descriptor 1-3, EmbeddingNetwork 2, Fitting 1-4, FittingNetwork 1,
NetworkCollection 1, Layer 1-2, PairTab 1.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from deepmd_lite import strict_json
from deepmd_lite.config import PRECISIONS
from deepmd_lite.errors import ModelFileError
from deepmd_lite.hdf5_guard import open_guarded
from deepmd_lite.model_file.arrays import DTYPES, Descriptor, Fitting, Layer, Model, Posterior, ShortRange
from deepmd_lite.model_file.check import check_model

OTHER_FORMATS = set(".pb .pth .pt .pt2 .pte .savedmodel .hlo .jax .json .yaml .yml".split())
MAX_JSON = 8 * 2**20  # bytes; a two-sided model of 20 elements needs 0.4 MB


def read_model(path) -> Model:
    """Read a ``.dp`` file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Model

    Raises
    ------
    ModelFileError
        If the file is missing, of another kind, damaged, unsafe, of an unknown version, contradicts itself,
        or uses an option that deepmd_lite cannot reproduce exactly. The message names the file and the place.
    """
    path = Path(path)
    if path.suffix in OTHER_FORMATS:
        raise ModelFileError(
            f"{path}: expected a .dp model, found {path.suffix}; convert it with DeePMD-kit: "
            f"dp convert-backend {path.name} {path.stem}.dp"
        )
    try:
        with open_guarded(path, ModelFileError) as root:
            tree = _parse(root.text_attribute("json"))
            variables = _Variables(root, path.stat().st_size)
            model = _read_tree(tree, variables)
            model.posterior = _read_posterior(root, variables.left)
        check_model(model)
    except ModelFileError as error:
        message = str(error)
        raise ModelFileError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    return model


def _parse(text: str) -> dict:
    if len(text) > MAX_JSON:
        raise ModelFileError(f"'json' is longer than {MAX_JSON} bytes")
    try:
        tree = strict_json.parse(text, ModelFileError)
    except ModelFileError as error:
        raise ModelFileError(f"'json': {error}") from None
    if not isinstance(tree.get("model"), dict):
        raise ModelFileError("'json' holds no 'model': not a .dp model")
    return tree


class _Variables:
    """The arrays of a file, each read once; together at most the size of the file, or 64 MiB."""

    def __init__(self, root, size: int):
        self.root, self.left, self.seen = root, max(size, 64 * 2**20), set()

    def read(self, name, where: str) -> np.ndarray:
        if not isinstance(name, str) or not re.fullmatch(r"/?variable_\d{4,9}", name):
            raise ModelFileError(
                f"{where}: expected the name of a dataset like /variable_0000, found {name!r:.60}"
            )
        name = name.lstrip("/")
        if name in self.seen:
            raise ModelFileError(f"{where}: dataset {name} is used twice")
        self.seen.add(name)
        values = self.root.array(name, max_bytes=self.left)
        self.left -= values.nbytes
        if values.dtype.newbyteorder("=") not in (np.float64, np.float32):
            raise ModelFileError(f"{where}: expected float64 or float32, found {values.dtype} in {name}")
        return np.asarray(values, values.dtype.newbyteorder("="))


_REQUIRED = object()
_MODEL = "type type_map atom_exclude_types pair_exclude_types rcond preset_out_bias"
_KNOWN = {  # class, and which kind of it: (versions, keys)
    "Model": ((2,), f"{_MODEL} descriptor fitting"),
    "Model zbl": ((2,), f"{_MODEL} models weights sw_rmin sw_rmax smin_alpha"),
    "Model pairtab": ((2,), f"{_MODEL} tab rcut sel"),
    "PairTab": ((1,), "rmin rmax hh ntypes rcut nspline"),
    "Descriptor": (
        (1, 2, 3),
        "type rcut rcut_smth sel neuron axis_neuron resnet_dt trainable type_one_side exclude_types "
        "env_protection set_davg_zero activation_function precision spin env_mat type_map embeddings "
        "compress",
    ),
    "Fitting": (
        (1, 2, 3, 4),
        "type var_name dim_out ntypes dim_descrpt neuron resnet_dt numb_fparam numb_aparam dim_case_embd "
        "default_fparam rcond activation_function precision mixed_types exclude_types type_map atom_ener "
        "tot_ener_zero trainable layer_name use_aparam_as_mask spin nets",
    ),
    "NetworkCollection": ((1,), "ndim ntypes network_type networks"),
    "EmbeddingNetwork": ((2,), "in_dim neuron activation_function resnet_dt bias precision layers"),
    "FittingNetwork": ((1,), "in_dim out_dim neuron activation_function resnet_dt precision bias_out layers"),
    "Layer": ((1, 2), "bias use_timestep activation_function resnet precision trainable"),
}


class _Node:
    """A cursor on one object of the tree: knows its class, its place and where its arrays are."""

    def __init__(self, tree, where: str, kind: str, variables: _Variables, **expected):
        name = kind.split()[0]
        if not isinstance(tree, dict) or tree.get("@class") != name:
            raise ModelFileError(f"{where}: expected an object with @class {name}")
        self.tree, self.where, self.variables = tree, where, variables
        self.expect(**expected)
        versions, keys = _KNOWN[kind]
        if type(tree.get("@version")) is not int or tree["@version"] not in versions:
            raise ModelFileError(
                f"{where}: {kind} version {tree.get('@version')!r:.40} is not one of {versions}; "
                f"the file is newer or older than this deepmd_lite"
            )
        unknown = set(tree) - set(keys.split()) - {"@class", "@version", "@variables"}
        if unknown:
            raise ModelFileError(
                f"{where}: unknown key {min(unknown)!r:.60}; the file is newer than this deepmd_lite"
            )
        self.arrays = tree.get("@variables", {})
        if not isinstance(self.arrays, dict):
            raise ModelFileError(f"{where}.@variables: expected an object")

    def get(self, key: str, kind: type, default=_REQUIRED):
        value = self.tree.get(key, default)
        if value is _REQUIRED:
            raise ModelFileError(f"{self.where}: expected the key {key!r}, found none")
        if value is default:
            return value
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(value) is not kind or (kind is float and not np.isfinite(value)):
            raise ModelFileError(f"{self.where}.{key}: expected {kind.__name__}, found {value!r:.60}")
        return value

    def items(self, key: str, kind: type, default=_REQUIRED) -> tuple:
        values = self.get(key, list, default)
        if any(type(value) is not kind for value in values):
            raise ModelFileError(
                f"{self.where}.{key}: expected a list of {kind.__name__}, found {values!r:.60}"
            )
        return tuple(values)

    def pairs(self, key: str) -> list[tuple[int, int]]:
        pairs = self.items(key, list, [])
        if any(len(pair) != 2 or any(type(t) is not int for t in pair) for pair in pairs):
            raise ModelFileError(f"{self.where}.{key}: expected pairs of types, found {pairs!r:.60}")
        return [tuple(pair) for pair in pairs]

    def precision(self) -> str:
        name = self.get("precision", str, "default")
        if name not in PRECISIONS:
            raise ModelFileError(f"{self.where}.precision: expected float64 or float32, found {name!r:.40}")
        return PRECISIONS[name]

    def child(self, key: str, kind: str, **expected) -> _Node:
        return _Node(self.tree.get(key), f"{self.where}.{key}", kind, self.variables, **expected)

    def array(self, key: str) -> np.ndarray | None:
        name = self.arrays.get(key)
        return None if name is None else self.variables.read(name, f"{self.where}.{key}")

    def vector(self, key: str) -> np.ndarray | None:
        """As float64, without axes of length 1."""
        values = self.array(key)
        return None if values is None else np.atleast_1d(values.astype(np.float64).squeeze())

    def expect(self, **values):
        """Refuse options that would change the numbers."""
        for key, expected in values.items():
            found = self.tree.get(key, expected)
            if found != expected and not (not expected and not found):
                raise ModelFileError(
                    f"{self.where}.{key}: expected {expected!r:.60}, found {found!r:.60}; "
                    f"nothing else is supported here"
                )


def _read_tree(tree: dict, variables: _Variables) -> Model:
    blend = tree["model"].get("type") == "zbl"
    whole = _Node(tree["model"], "model", "Model zbl" if blend else "Model", variables)
    type_map = whole.items("type_map", str)
    node = _sub_model(whole, 0, "Model", type_map) if blend else whole
    node.expect(type="standard")
    extra, definition, metadata = (tree.get(key) for key in ("@variables", "model_def_script", "deepmd_lite"))
    shortest = extra.get("min_nbor_dist") if isinstance(extra, dict) else None
    if shortest is not None:
        shortest = variables.read(shortest, "min_nbor_dist")
        if shortest.size != 1:
            raise ModelFileError(f"min_nbor_dist: expected one number, found shape {shortest.shape}")
        shortest = shortest.item()
    descriptor = _read_descriptor(node.child("descriptor", "Descriptor", type="se_e2_a"), type_map)
    return Model(
        type_map=type_map,
        descriptor=descriptor,
        fitting=_read_fitting(node.child("fitting", "Fitting", type="ener"), type_map, descriptor.dim),
        out_bias=whole.vector("out_bias"),
        out_std=whole.vector("out_std"),
        pair_exclude_types=whole.pairs("pair_exclude_types"),
        atom_exclude_types=list(whole.items("atom_exclude_types", int, [])),
        shortrange=_read_shortrange(whole, type_map, descriptor.rcut) if blend else None,
        min_nbor_dist=shortest,
        definition=definition if isinstance(definition, dict) else {},
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _read_posterior(root, left: int) -> Posterior | None:
    """What ``dplite refit`` puts into the group ``/last_layer``."""
    if "last_layer" not in root:
        return None
    group, arrays = root.group("last_layer"), {}
    for name in ("factor", "scale"):
        values = group.array(name, max_bytes=left)
        if values.dtype != np.float64:
            raise ModelFileError(f"last_layer/{name}: expected float64, found {values.dtype}")
        arrays[name] = values
    return Posterior(**arrays)


def _sub_model(whole: _Node, k: int, kind: str, type_map: tuple[str, ...]) -> _Node:
    """One of the two models of a blend. What counts for both of them must stand outside."""
    trees = whole.get("models", list)
    if len(trees) != 2:
        raise ModelFileError(f"{whole.where}.models: expected 2 models, found {len(trees)}")
    node = _Node(trees[k], f"{whole.where}.models[{k}]", kind, whole.variables)
    node.expect(type_map=list(type_map), pair_exclude_types=[], atom_exclude_types=[])
    if np.any(node.array("out_bias")):
        raise ModelFileError(f"{node.where}.out_bias: expected zeros; nothing else is supported here")
    return node


def _read_shortrange(whole: _Node, type_map: tuple[str, ...], rcut: float) -> ShortRange:
    node = _sub_model(whole, 1, "Model pairtab", type_map)
    node.expect(type="pairtab", rcut=rcut)
    tab = node.child("tab", "PairTab", ntypes=len(type_map), rcut=rcut)
    start, step, count = tab.get("rmin", float), tab.get("hh", float), tab.get("nspline", int)
    info, data = tab.vector("tab_info"), tab.vector("tab_data")
    if info is None or info.tolist() != [start, step, count, len(type_map)]:
        raise ModelFileError(f"{tab.where}.tab_info: expected rmin, hh, nspline and ntypes, found {info}")
    shape = (len(type_map), len(type_map), count, 4)
    if data is None or data.size != np.prod(shape, dtype=object) or count < 1:
        found = None if data is None else data.size
        raise ModelFileError(f"{tab.where}.tab_data: expected {shape} numbers, found {found}")
    return ShortRange(
        start=start,
        step=step,
        coefficients=data.reshape(shape),
        **{key: whole.get(key, float) for key in ("smin_alpha", "sw_rmin", "sw_rmax")},
    )


def _read_descriptor(node: _Node, type_map: tuple[str, ...]) -> Descriptor:
    node.expect(spin=None, type_map=list(type_map))
    one_side = node.get("type_one_side", bool)
    neuron, activation = node.items("neuron", int), node.get("activation_function", str)
    if not neuron:
        raise ModelFileError(f"{node.where}.neuron: expected widths of layers, found none")
    header = {"in_dim": 1, "neuron": list(neuron), "activation_function": activation, "bias": True}
    return Descriptor(
        rcut=node.get("rcut", float),
        rcut_smth=node.get("rcut_smth", float),
        sel=node.items("sel", int),
        neuron=neuron,
        axis_neuron=node.get("axis_neuron", int),
        davg=_one_slot(node, "davg"),
        dstd=_one_slot(node, "dstd"),
        nets=_read_nets(node, "embeddings", "EmbeddingNetwork", len(type_map), 1 if one_side else 2, header),
        resnet_dt=node.get("resnet_dt", bool),
        type_one_side=one_side,
        exclude_types=node.pairs("exclude_types"),
        env_protection=node.get("env_protection", float, 0.0),
        set_davg_zero=node.get("set_davg_zero", bool, False),
        activation_function=activation,
        precision=node.precision(),
    )


def _one_slot(node: _Node, key: str) -> np.ndarray:
    """(ntypes, nsel, 4), identical over the slots -> (ntypes, 4)."""
    values = node.array(key)
    nsel = sum(node.items("sel", int))
    if values is None or values.ndim != 3 or values.shape[1:] != (nsel, 4) or nsel == 0:
        found = None if values is None else values.shape
        raise ModelFileError(f"{node.where}.{key}: expected shape (ntypes, {nsel}, 4), found {found}")
    if not np.array_equal(values, np.broadcast_to(values[:, :1], values.shape)):
        raise ModelFileError(f"{node.where}.{key}: expected the same finite values in every neighbor slot")
    return values[:, 0].astype(np.float64)


def _read_fitting(node: _Node, type_map: tuple[str, ...], dim: int) -> Fitting:
    node.expect(
        type_map=list(type_map), ntypes=len(type_map), var_name="energy", dim_out=1, mixed_types=False
    )
    node.expect(
        dim_descrpt=dim,
        spin=None,
        layer_name=None,
        exclude_types=[],
        use_aparam_as_mask=False,
        dim_case_embd=0,
    )
    atom_ener = node.get("atom_ener", list, None) or None
    if atom_ener and any(value is not None and type(value) not in (int, float) for value in atom_ener):
        raise ModelFileError(f"{node.where}.atom_ener: expected numbers or null, found {atom_ener!r:.60}")
    neuron, activation = node.items("neuron", int), node.get("activation_function", str)
    numb_fparam, numb_aparam = node.get("numb_fparam", int, 0), node.get("numb_aparam", int, 0)
    header = {"in_dim": dim + numb_fparam + numb_aparam, "out_dim": 1, "bias_out": True}
    header |= {"neuron": list(neuron), "activation_function": activation}
    return Fitting(
        neuron=neuron,
        bias_atom_e=node.vector("bias_atom_e"),
        nets=_read_nets(node, "nets", "FittingNetwork", len(type_map), 1, header),
        resnet_dt=node.get("resnet_dt", bool),
        activation_function=activation,
        precision=node.precision(),
        atom_ener=atom_ener,
        numb_fparam=numb_fparam,
        numb_aparam=numb_aparam,
        **{key: node.vector(key) for key in ("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std")},
    )


def _read_nets(owner: _Node, key: str, kind: str, ntypes: int, ndim: int, header: dict) -> list:
    """A NetworkCollection; `header` is what each of its networks must say of itself."""
    name = "embedding_network" if kind == "EmbeddingNetwork" else "fitting_network"
    node = owner.child(key, "NetworkCollection", ndim=ndim, ntypes=ntypes, network_type=name)
    trees = node.get("networks", list)
    if len(trees) != ntypes**ndim:
        raise ModelFileError(f"{node.where}: expected {ntypes**ndim} networks, found {len(trees)}")
    nets = []
    for k, tree in enumerate(trees):
        where = f"{node.where}.networks[{k}]"
        net = None if tree is None else _Node(tree, where, kind, node.variables, **header)
        nets.append(net and [_read_layer(layer, net, i) for i, layer in enumerate(net.get("layers", list))])
    return nets


def _read_layer(tree, net: _Node, index: int) -> Layer:
    node = _Node(tree, f"{net.where}.layers[{index}]", "Layer", net.variables)
    layer = Layer(
        w=node.array("w"),
        b=node.array("b"),
        idt=node.array("idt"),
        activation=node.get("activation_function", str),
        resnet=node.get("resnet", bool),
    )
    node.expect(bias=layer.b is not None, use_timestep=layer.idt is not None)
    if layer.w is None or layer.w.dtype != DTYPES[node.precision()]:
        raise ModelFileError(f"{node.where}.w: expected an array of {node.precision()}")
    return layer
