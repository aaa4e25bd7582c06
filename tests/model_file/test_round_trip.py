"""A model file read, written and read again is the same model, in the versions DeePMD-kit 3.x reads."""

import errno
import json
import os
from dataclasses import fields, is_dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from deepmd_lite.errors import ModelFileError
from deepmd_lite.model_file import read_model, write_model

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ["one_sided_triclinic", "two_sided_small_cell", "cluster_nopbc"]


def assert_same(a, b, where="model"):
    """Bitwise equality of two trees of dataclasses, lists and arrays."""
    assert type(a) is type(b), where
    if is_dataclass(a):
        for f in fields(a):
            if f.name != "definition":
                assert_same(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for k, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{where}[{k}]")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), where
    else:
        assert a == b, where


def tree_of(path):
    with h5py.File(path) as file:
        return json.loads(file.attrs["json"]), {name: file[name][()] for name in file}


@pytest.mark.parametrize("name", NAMES)
def test_read_write_read(name, tmp_path):
    model = read_model(GOLDEN / f"{name}.dp")
    model.metadata = {"note": "é", "frames": 3}
    write_model(tmp_path / "again.dp", model)
    again = read_model(tmp_path / "again.dp")
    assert_same(model, again)
    write_model(tmp_path / "third.dp", again)
    assert read_model(tmp_path / "third.dp").definition == again.definition


@pytest.mark.parametrize("name", NAMES)
def test_arrays_survive_bitwise(name, tmp_path):
    """All arrays of DeePMD-kit's file are in ours, and no others."""
    write_model(tmp_path / "again.dp", read_model(GOLDEN / f"{name}.dp"))
    _, theirs = tree_of(GOLDEN / f"{name}.dp")
    _, ours = tree_of(tmp_path / "again.dp")
    assert sorted(ours) == sorted(theirs)
    assert sorted(a.tobytes() for a in ours.values()) == sorted(a.tobytes() for a in theirs.values())


def test_header_is_the_known_one():
    model = read_model(GOLDEN / "two_sided_small_cell.dp")
    d, f = model.descriptor, model.fitting
    assert model.type_map == ("O", "H", "C")
    assert (d.rcut, d.rcut_smth, d.sel, d.neuron, d.axis_neuron) == (6.0, 2.0, (60, 60, 60), (8, 16, 32), 4)
    assert not d.type_one_side and d.resnet_dt and d.precision == "float64" and d.dim == 128
    assert len(d.nets) == 9 and [layer.w.shape for layer in d.nets[0]] == [(1, 8), (8, 16), (16, 32)]
    assert d.nets[0][0].idt is None and d.nets[0][1].idt.shape == (16,)
    assert (
        f.neuron == (40, 40, 40) and f.nets[2][-1].w.shape == (40, 1) and f.nets[2][-1].activation == "none"
    )
    assert f.atom_ener is None and f.bias_atom_e.shape == model.out_bias.shape == (3,)
    assert d.davg.shape == d.dstd.shape == (3, 4)
    assert model.min_nbor_dist == pytest.approx(1.13, abs=0.01)  # Å


def test_oldest_versions_are_written(tmp_path):
    """So that DeePMD-kit 3.0 reads the file as well; it stops at a version or a key that it does not know."""
    write_model(tmp_path / "a.dp", read_model(GOLDEN / "one_sided_triclinic.dp"))
    tree, _ = tree_of(tmp_path / "a.dp")
    model = tree["model"]
    net, fit = model["descriptor"]["embeddings"]["networks"][0], model["fitting"]["nets"]["networks"][0]
    nodes = [model, model["descriptor"], net, net["layers"][0], model["fitting"], fit]
    assert [n["@version"] for n in nodes] == [2, 2, 2, 1, 2, 1]
    assert "trainable" not in net["layers"][0]
    assert not {"dim_case_embd", "default_fparam"} & set(model["fitting"])
    assert "case_embd" not in model["fitting"]["@variables"]


def test_definition_follows_the_model_not_the_file(tmp_path):
    """model_def_script is free text in the file; what is exported says what the model is."""
    model = read_model(GOLDEN / "one_sided_triclinic.dp")
    model.definition = {"descriptor": {"rcut": 99.0, "seed": 7, "type_one_side": False}}
    write_model(tmp_path / "a.dp", model)
    script = read_model(tmp_path / "a.dp").definition
    assert script["type_map"] == ["O", "H"]
    assert script["descriptor"]["rcut"] == 5.0 and script["descriptor"]["type_one_side"] is True
    assert script["descriptor"]["seed"] == 7
    assert script["fitting_net"]["type"] == "ener" and script["fitting_net"]["neuron"] == [40, 40, 40]


def test_float32(tmp_path):
    model = read_model(GOLDEN / "cluster_nopbc.dp")
    model.descriptor.precision = model.fitting.precision = "float32"
    for net in model.descriptor.nets + model.fitting.nets:
        for layer in net:
            for key in ("w", "b", "idt"):
                value = getattr(layer, key)
                setattr(layer, key, None if value is None else value.astype(np.float32))
    model.descriptor.davg = model.descriptor.davg.astype(np.float32).astype(np.float64)
    model.descriptor.dstd = model.descriptor.dstd.astype(np.float32).astype(np.float64)
    write_model(tmp_path / "a.dp", model)
    assert_same(model, read_model(tmp_path / "a.dp"))


def test_parameters_of_frame_and_atom(tmp_path):
    model = read_model(GOLDEN / "one_sided_triclinic.dp")
    f = model.fitting
    f.numb_fparam, f.fparam_avg, f.fparam_inv_std = 2, np.array([1.0, 2.0]), np.array([3.0, 4.0])
    f.numb_aparam, f.aparam_avg, f.aparam_inv_std = 1, np.array([5.0]), np.array([6.0])
    f.atom_ener = [None, -1.5]
    for net in f.nets:
        net[0].w = np.vstack([net[0].w, np.ones((3, 40))])
    model.out_bias = np.array([1.0, -2.0])
    model.pair_exclude_types, model.atom_exclude_types, model.min_nbor_dist = [(0, 1)], [1], None
    write_model(tmp_path / "a.dp", model)
    assert_same(model, read_model(tmp_path / "a.dp"))


def test_compressed_model_reads_as_the_plain_one(tmp_path):
    """Descriptor 3 adds tables; the plain embedding nets are still there."""
    plain = read_model(GOLDEN / "one_sided_triclinic.dp")
    path = copy_with(
        tmp_path,
        lambda tree: tree["model"]["descriptor"].update(
            {"@version": 3, "compress": {"@variables": {"compress_data": ["/variable_9999"]}}}
        ),
    )
    assert_same(plain, read_model(path))


def copy_with(folder, change):
    path = folder / "changed.dp"
    path.write_bytes((GOLDEN / "one_sided_triclinic.dp").read_bytes())
    with h5py.File(path, "r+") as file:
        tree = json.loads(file.attrs["json"])
        change(tree)
        file.attrs["json"] = json.dumps(tree)
    return path


def test_training_state_rides_along(tmp_path):
    model = read_model(GOLDEN / "one_sided_triclinic.dp")
    write_model(tmp_path / "a.dp", model, training={"done": np.array(7), "exp_avg/net.0.w": np.ones((2, 3))})
    assert_same(model, read_model(tmp_path / "a.dp"))
    with h5py.File(tmp_path / "a.dp") as file:
        assert file["training/done"][()] == 7 and file["training/exp_avg/net.0.w"].shape == (2, 3)


def test_nothing_is_left_when_writing_fails(tmp_path):
    good = read_model(GOLDEN / "one_sided_triclinic.dp")
    write_model(tmp_path / "a.dp", good)
    before = (tmp_path / "a.dp").read_bytes()
    good.out_bias = np.array([np.nan, 0.0])
    with pytest.raises(ModelFileError, match=r"out_bias: expected finite"):
        write_model(tmp_path / "a.dp", good)
    assert (tmp_path / "a.dp").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.dp"]


def test_more_axes_than_neurons_are_refused(tmp_path):
    model = read_model(GOLDEN / "one_sided_triclinic.dp")
    model.descriptor.axis_neuron = 41
    with pytest.raises(ModelFileError, match="axis_neuron: expected 1 to the last of"):
        write_model(tmp_path / "a.dp", model)


def test_other_suffix_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="dp convert-backend"):
        write_model(tmp_path / "a.pth", read_model(GOLDEN / "one_sided_triclinic.dp"))


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model.dp"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*model.dp"):
        write_model(path, read_model(GOLDEN / "cluster_nopbc.dp"))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
