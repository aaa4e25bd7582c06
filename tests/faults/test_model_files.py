"""FAULTS 9-12 and their neighbors: model files that are damaged, unsafe, lying or from the future.

Each must be refused with a message that names the file and the cause, quickly and without running or
allocating anything. The size and time of the refusal are held by an address-space limit in a subprocess.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from deepmd_lite.errors import ModelFileError
from deepmd_lite.model_file import Layer, read_model, write_model

GOLDEN = Path(__file__).parents[1] / "golden"
ONE_SIDED, TWO_SIDED = GOLDEN / "one_sided_triclinic.dp", GOLDEN / "two_sided_small_cell.dp"


@pytest.fixture
def bad(tmp_path):
    """A writable copy of a good model; call it with a change of the open file."""
    path = tmp_path / "bad.dp"

    def make(change, source=ONE_SIDED):
        path.write_bytes(source.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


@pytest.fixture
def lying(bad):
    """The same for a change of the JSON tree."""

    def make(change, source=ONE_SIDED):
        def edit(file):
            tree = json.loads(file.attrs["json"])
            change(tree)
            file.attrs["json"] = json.dumps(tree)

        return bad(edit, source)

    return make


def refuse(path, match):
    with pytest.raises(ModelFileError, match=match) as caught:
        read_model(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def at(tree, where):
    for key in where.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


# ---- damaged or another kind of file


@pytest.mark.parametrize("keep", [0, 1, 8, 100, 0.5, -1])
def test_truncated(tmp_path, keep):
    whole = ONE_SIDED.read_bytes()
    size = int(keep * len(whole)) if isinstance(keep, float) else keep
    path = tmp_path / "cut.dp"
    path.write_bytes(whole[:size])
    refuse(path, "truncated|HDF5")


def test_missing_and_directory(tmp_path):
    refuse(tmp_path / "none.dp", "no such file")
    refuse(tmp_path, "directory")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pb", ".yaml", ".savedmodel"])
def test_other_backends_name_the_converter(tmp_path, suffix):
    path = tmp_path / f"water{suffix}"
    path.write_bytes(b"x")
    refuse(path, f"dp convert-backend water{suffix} water.dp")


def test_hdf5_without_a_model(tmp_path):
    path = tmp_path / "frames.dp"
    with h5py.File(path, "w") as file:
        file["coord"] = np.zeros(3)
    refuse(path, "json")


class Canary:
    """Runs code when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".dp", ".pt", ".pth", ".npz", ".joblib"])
def test_pickle_is_not_opened(tmp_path, suffix):
    canary, path = tmp_path / "canary", tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Canary(canary)))
    refuse(path, "expected a .dp|HDF5")
    assert not canary.exists()


def test_yaml_object_is_not_built(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "model.yaml"
    path.write_text(f"model: !!python/object/apply:pathlib.Path.touch [{canary}]\n")
    refuse(path, "convert-backend")
    assert not canary.exists()


# ---- unsafe HDF5


def replace(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def test_links_are_refused(bad, tmp_path):
    """Even to data of the right shape."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["w"] = np.zeros((1, 10))
    refuse(bad(replace("variable_0002", h5py.ExternalLink("../other.h5", "/w"))), "link")
    refuse(bad(replace("variable_0002", h5py.ExternalLink(str(tmp_path / "other.h5"), "/w"))), "link")
    refuse(bad(replace("variable_0002", h5py.SoftLink("/variable_0004"))), "link")
    refuse(bad(replace("variable_0002", h5py.SoftLink("/nowhere"))), "link")


def test_storage_elsewhere_is_refused(bad, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(80))

    def external(file):
        del file["variable_0002"]
        file.create_dataset("variable_0002", (1, 10), "f8", external=[(str(tmp_path / "secret.bin"), 0, 80)])

    def virtual(file):
        del file["variable_0002"]
        layout = h5py.VirtualLayout((1, 10), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "w", (1, 10))
        file.create_virtual_dataset("variable_0002", layout)

    refuse(bad(external), "external")
    refuse(bad(virtual), "virtual")


def test_group_text_and_empty_instead_of_an_array(bad):
    def group(file):
        del file["variable_0002"]
        file.create_group("variable_0002")

    refuse(bad(group), "variable_0002")
    refuse(bad(replace("variable_0002", "text")), "variable_0002")
    refuse(bad(replace("variable_0002", h5py.Empty("f8"))), "variable_0002")


@pytest.mark.parametrize("dtype", ["f2", "i4", "u8", "?", "c16", "S3"])
def test_dtypes(bad, dtype):
    refuse(bad(replace("variable_0002", np.zeros((1, 10), dtype))), "float|numbers")


def test_big_endian_is_read(bad):
    def swap(file):
        values = file["variable_0004"][()]
        replace("variable_0004", values.astype(">f8"))(file)

    model, same = read_model(bad(swap)), read_model(ONE_SIDED)
    w = model.descriptor.nets[0][1].w
    assert w.dtype.isnative and np.array_equal(w, same.descriptor.nets[0][1].w)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
from deepmd_lite.errors import ModelFileError
from deepmd_lite.model_file import read_model
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_model(sys.argv[1])
except ModelFileError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used, error)
"""


def refuse_cheaply(path):
    """Refused within 10 s of processor time (start included) and with less than 500 MB more memory."""
    run = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and path.name in run.stdout, run.stderr
    grown, message = run.stdout.split(" ", 1)
    assert int(grown) < 500_000, f"{grown} kB to refuse: {message}"


def test_huge_declared_dataset(bad):
    def declare(file):
        del file["variable_0002"]
        file.create_dataset("variable_0002", (2**20, 2**20), "f8")  # 8 TiB, nothing stored

    path = bad(declare)
    refuse(path, "declares 8796093022208 bytes")
    refuse_cheaply(path)


def test_deflated_bomb(bad):
    def declare(file):
        del file["variable_0002"]
        file.create_dataset("variable_0002", data=np.zeros(2**25), chunks=(2**22,), compression="gzip")

    refuse(bad(declare), "268435456 bytes.*at most")  # 256 MiB


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"model":' * 100_000 + "1" + "}" * 100_000,
        json.dumps({"model": {"@class": "Model", "names": [f"/variable_{k:07d}" for k in range(1_000_000)]}}),
        "[" + "[]," * 2_500_000 + "[]]",
    ],
    ids=["deep lists", "deep objects", "a million names", "a million lists"],
)
def test_monstrous_json(bad, text):
    path = bad(lambda file: file.attrs.modify("json", text))
    refuse(path, "nested|longer|JSON object|model.type")
    refuse_cheaply(path)


def test_names_outside_the_scheme(lying):
    def change(tree, name):
        at(tree, "model.descriptor.embeddings.networks.0.layers.0")["@variables"]["w"] = name

    for name in [
        "/etc/passwd",
        "../variable_0002",
        "variable_2",
        3,
        ["/variable_0002"],
        {"a": 1},
        "/variable_0002/x",
    ]:
        refuse(lying(lambda tree, name=name: change(tree, name)), "expected the name of a dataset")
    refuse(lying(lambda tree: change(tree, "/variable_0099")), "variable_0099: not in the file")
    refuse(lying(lambda tree: change(tree, "/variable_0004")), "used twice")


@pytest.mark.parametrize(
    "text", ['{"model": NaN}', '{"model": 1e400}', '{"model": {}, "model": {}}', "{", "", "\ud800"]
)
def test_bad_json(bad, text):
    refuse(bad(lambda file: file.attrs.modify("json", text.encode("utf-8", "surrogatepass"))), "json")


def test_json_of_another_kind(bad):
    refuse(bad(lambda file: file.attrs.create("json", 3.0)), "string")
    refuse(bad(lambda file: file.attrs.create("json", ["a", "b"])), "string")
    refuse(bad(lambda file: file.attrs.modify("json", "[]")), "JSON object")
    refuse(bad(lambda file: file.attrs.modify("json", '{"model": []}')), "no 'model'")


# ---- from the future, unknown, unsupported


@pytest.mark.parametrize(
    "where, version",
    [
        ("model", 3),
        ("model", 1),
        ("model.descriptor", 4),
        ("model.fitting", 5),
        ("model.descriptor.embeddings", 2),
        ("model.descriptor.embeddings.networks.0", 1),
        ("model.fitting.nets.networks.0", 2),
        ("model.fitting.nets.networks.0.layers.0", 3),
        ("model", "2"),
        ("model", None),
        ("model", True),
    ],
)
def test_versions(lying, where, version):
    refuse(
        lying(lambda tree: at(tree, where).update({"@version": version})), f"{where.split('.')[0]}.*version"
    )


@pytest.mark.parametrize(
    "where",
    [
        "model",
        "model.descriptor",
        "model.fitting",
        "model.fitting.nets",
        "model.fitting.nets.networks.1.layers.3",
    ],
)
def test_unknown_keys(lying, where):
    refuse(lying(lambda tree: at(tree, where).update({"warp": 1})), "unknown key 'warp'")
    refuse(lying(lambda tree: at(tree, where).update({"@class": "Warp"})), "expected an object with @class")


def test_unknown_top_level_keys_are_ignored(lying):
    read_model(lying(lambda tree: tree.update(warp=1, backend="Other")))


@pytest.mark.parametrize(
    "where, key, value",
    [
        ("model", "type", "linear"),
        ("model", "type", None),
        ("model.descriptor", "type", "dpa1"),
        ("model.descriptor", "spin", {}),
        ("model.descriptor", "spin", {"use_spin": [True]}),
        ("model.fitting", "type", "dipole"),
        ("model.fitting", "mixed_types", True),
        ("model.fitting", "dim_case_embd", 2),
        ("model.fitting", "exclude_types", [0]),
        ("model.fitting", "use_aparam_as_mask", True),
        ("model.fitting", "layer_name", ["a"]),
        ("model.fitting", "dim_out", 3),
    ],
)
def test_unsupported_options(lying, where, key, value):
    path = lying(lambda tree: at(tree, where).update({key: value}))
    if value == {}:  # as good as null
        read_model(path)
    else:
        refuse(path, f"{where}.{key}: expected .*; nothing else is supported")


# ---- contradictions


@pytest.mark.parametrize(
    "where, key, value, match",
    [
        ("model", "type_map", ["O"], "type_map"),
        ("model", "type_map", ["O", "O"], "type_map"),
        ("model", "type_map", ["H", "O"], "type_map"),
        ("model", "type_map", "OH", "expected list"),
        ("model.descriptor", "rcut", -1.0, "rcut"),
        ("model.descriptor", "rcut", "6", "expected float"),
        ("model.descriptor", "rcut_smth", 7.0, "rcut_smth"),
        ("model.descriptor", "sel", [60, 61], "davg"),
        ("model.descriptor", "sel", [120], "sel"),
        ("model.descriptor", "sel", [-1, 121], "sel"),
        ("model.descriptor", "sel", [60.0, 60.0], "list of int"),
        ("model.descriptor", "sel", [10**30, 60], "davg"),
        ("model.descriptor", "neuron", [10, 20, 41], "neuron"),
        ("model.descriptor", "neuron", [], "neuron"),
        ("model.descriptor", "axis_neuron", 41, "dim_descrpt"),
        ("model.descriptor", "axis_neuron", 7, "dim_descrpt"),
        ("model.fitting", "dim_descrpt", 321, "dim_descrpt"),
        ("model.fitting.nets.networks.1", "in_dim", 321, "in_dim"),
        ("model.descriptor", "type_one_side", False, "ndim"),
        ("model.descriptor", "type_one_side", "yes", "expected bool"),
        ("model.descriptor", "activation_function", "relu", "activation_function"),
        ("model.descriptor", "precision", "float16", "float16"),
        ("model.descriptor", "precision", "float32", "expected float32"),
        ("model.descriptor", "env_protection", -1.0, "env_protection"),
        ("model.descriptor", "exclude_types", [[0, 2]], "exclude_types"),
        ("model.descriptor", "exclude_types", [[0, 1]], "would jump"),
        ("model.descriptor.embeddings.networks.0", "layers", [], "expected 3 layers"),
        ("model.descriptor.embeddings.networks.0.layers.1", "use_timestep", True, "use_timestep"),
        ("model.descriptor.embeddings.networks.0.layers.1", "activation_function", "os.system", "os.system"),
        ("model.descriptor.embeddings", "ntypes", 3, "ntypes"),
        ("model.fitting.nets", "networks", [None, None], "fitting"),
        ("model.fitting", "numb_fparam", 2, "in_dim"),
        ("model.fitting", "numb_fparam", -1, "in_dim"),
        ("model.fitting", "atom_ener", [0.0], "atom_ener"),
        ("model.fitting", "atom_ener", ["x", None], "atom_ener"),
        ("model", "atom_exclude_types", [5], "excluded types"),
        ("model", "pair_exclude_types", [[0, -1]], "excluded types"),
        ("model", "pair_exclude_types", [[0]], "pairs"),
        ("model", "descriptor", [], "model.descriptor"),
        ("model", "fitting", None, "model.fitting"),
    ],
)
def test_lies(lying, where, key, value, match):
    refuse(lying(lambda tree: at(tree, where).update({key: value})), match)


@pytest.mark.parametrize("name", range(38))
@pytest.mark.parametrize("damage", ["nan", "shape"])
def test_every_array_is_checked(bad, name, damage):
    """Each array of the file once with a NaN and once with one more axis, or one row more."""
    name = f"variable_{name:04d}"

    def change(file):
        values = file[name][()]
        if damage == "shape":
            values = np.stack([values, values])
        elif values.ndim:
            values.flat[-1] = np.nan
        else:
            values = np.float64(np.nan)
        replace(name, values)(file)

    refuse(bad(change), "expected|min_nbor_dist")


def test_davg_that_varies_over_slots(bad):
    def change(file):
        file["variable_0014"][0, 5, 0] += 1e-12

    refuse(bad(change), "every neighbor slot")


def test_davg_of_a_direction_and_zero_deviation(bad):
    def tilt(file):
        file["variable_0014"][0, :, 2] = 0.1

    def flat(file):
        file["variable_0015"][1, :, 0] = 0.0

    refuse(bad(tilt), "zero xyz means")
    refuse(bad(flat), "positive deviations")


def test_a_pair_without_a_net(lying):
    where = "model.descriptor.embeddings.networks"
    refuse(
        lying(lambda tree: at(tree, where).__setitem__(3, None), TWO_SIDED), "no network for the types 0, 1"
    )


def test_exclusion_with_blank_nets_or_zero_mean_is_accepted(tmp_path):
    model = read_model(TWO_SIDED)
    model.descriptor.exclude_types = [(0, 1)]
    with pytest.raises(ModelFileError, match=r"holds \[0, 1\] while davg"):
        write_model(tmp_path / "a.dp", model)
    for net in (model.descriptor.nets[0 + 3 * 1], model.descriptor.nets[1 + 3 * 0]):
        for layer in net:
            layer.w[:], layer.b[:] = 0, 0
    write_model(tmp_path / "a.dp", model)
    model = read_model(ONE_SIDED)
    model.descriptor.exclude_types, model.descriptor.davg[:] = [(1, 1)], 0
    write_model(tmp_path / "b.dp", model)
    assert read_model(tmp_path / "b.dp").descriptor.exclude_types == [(1, 1)]


def test_a_missing_net_needs_zero_mean(tmp_path):
    """Where davg = 0 it has nothing to act on; it is written as zeros (DeePMD-kit misreads a missing one)."""
    model = read_model(TWO_SIDED)
    model.descriptor.exclude_types = [(0, 1)]
    model.descriptor.nets[0 + 3 * 1] = model.descriptor.nets[1 + 3 * 0] = None
    with pytest.raises(ModelFileError, match=r"holds \[0, 1\] while davg"):
        write_model(tmp_path / "a.dp", model)
    model.descriptor.davg[:] = 0
    write_model(tmp_path / "a.dp", model)
    blank = read_model(tmp_path / "a.dp").descriptor.nets[3]
    assert [layer.w.shape for layer in blank] == [(1, 8), (8, 16), (16, 32)]
    assert not any(layer.w.any() or layer.b.any() for layer in blank)


@pytest.mark.parametrize("neuron, activation", [((2, 4), "tanh"), ((4, 8), "softplus")])
def test_blank_weights_that_do_not_return_zero(tmp_path, neuron, activation):
    """Without weights a skip from the input, or act(0) > 0, still lets something through."""
    model = read_model(ONE_SIDED)
    d = model.descriptor
    d.neuron, d.axis_neuron, d.activation_function, d.exclude_types = neuron, 2, activation, [(0, 1)]
    widths = (1, *neuron)
    d.nets = [
        [Layer(np.zeros((n, m)), np.zeros(m), None, activation, True) for n, m in zip(widths, neuron)]
        for _ in range(2)
    ]
    for net in model.fitting.nets:
        net[0].w = np.zeros((d.dim, 40))
    with pytest.raises(ModelFileError, match="while davg"):
        write_model(tmp_path / "a.dp", model)
