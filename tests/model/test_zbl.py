"""A pair table blended into the energies of close atoms: torch, model file, input, training.

The golden model (golden_zbl/README.md) has pairs from 0.3 Å, forces of 200 eV/Å, and all regions of the switch.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from deepmd_lite import DeepPot, read_model
from deepmd_lite.config import load_config, parse_config
from deepmd_lite.errors import ConfigError, DomainError, ModelFileError
from deepmd_lite.model.batch import from_frame
from deepmd_lite.model_file import write_model
from deepmd_lite.train.fused import can_fuse
from deepmd_lite.train.pair_table import pair_table, screened_coulomb
from deepmd_lite.train.trainer import Trainer

FOLDER = Path(__file__).parent / "golden_zbl"
KEYS = ("energy", "atom_energy", "force", "virial")
BAR = 1e-10  # eV, eV/Å: summation order alone differs, 1e-12 of forces of 200 eV/Å
PAIR = np.zeros((2, 3)), np.array([0, 1]), None, [False] * 3


@pytest.fixture
def model():
    return read_model(FOLDER / "zbl.dp")


def section(**changes):
    """What `pair_table` reads of an input's model section."""
    asked = {"use_srtab": str(FOLDER / "pairs.tab"), "smin_alpha": 0.1, "sw_rmin": 0.8, "sw_rmax": 1.4}
    return SimpleNamespace(**(asked | {"descriptor": SimpleNamespace(rcut=4.0)} | changes))


def pair(potential, r, atype=(0, 1)):
    return potential.evaluate(
        np.array([[0.0, 0, 0], [0.6 * r, 0, 0.8 * r]]), np.array(atype), None, [False] * 3
    )


def with_switch(model, **changes):
    return replace(model, shortrange=replace(model.shortrange, **changes))


@pytest.mark.parametrize("backend", ["pt", "tf"])
@pytest.mark.parametrize("boundary", ["pbc", "open"])
def test_equals_deepmd_kit(model, backend, boundary):
    if backend == "tf":
        switch = {
            k: float(np.float32(getattr(model.shortrange, k))) for k in ("smin_alpha", "sw_rmin", "sw_rmax")
        }
        model = with_switch(model, **switch)
    potential = DeepPot(model)
    with np.load(FOLDER / "predictions.npz") as golden:
        for k, coord in enumerate(golden["coord"]):
            box = golden["box"][k] if boundary == "pbc" else None
            found = potential.evaluate(coord, golden["atype"], box, [boundary == "pbc"] * 3)
            for key in KEYS:
                expected = golden[f"{backend}_{boundary}_{key}"][k]
                np.testing.assert_allclose(getattr(found, key), expected, rtol=0, atol=BAR, err_msg=key)


def test_a_pair_is_the_table_when_close_and_the_nets_when_not(model):
    """σ of a pair is its distance; energies count from those of lone atoms."""
    nets, blended = DeepPot(replace(model, shortrange=None)), DeepPot(model)
    for r in (1.4, 1.7):
        assert pair(blended, r).energy == pair(nets, r).energy
        np.testing.assert_array_equal(pair(blended, r).force, pair(nets, r).force)
    table = np.loadtxt(FOLDER / "pairs.tab")
    for row in (3, 20, 39):  # 0.08, 0.42, 0.8 Å: knots, where a cubic has the values of the table
        energy = pair(blended, table[row, 0]).energy
        assert energy == pytest.approx(table[row, 2] + model.out_bias.sum(), rel=1e-12)


@pytest.mark.parametrize("at, closest", [("sw_rmin", 2.0), ("sw_rmax", 2.0), ("rcut", 1.1), ("end", 1.1)])
def test_no_jump(model, at, closest):
    """Energy and force on both sides of a distance, 2e-13 Å apart, times slopes below 100 eV/Å².

    A pair crosses rcut and the end of the table while another one, at 1.1 Å, has its atoms between nets and table.
    """
    distance = (vars(model.shortrange) | {"rcut": 4.0, "end": 2.0})[at]
    potential = DeepPot(model)
    others = np.array([[-closest, 0, 0], [-3.0, 1, 0], [-2.5, -1.5, 1]])
    sides = []
    for r in distance + np.array([-1e-13, 1e-13, -0.2]):
        coord = np.concatenate((np.zeros((1, 3)), [[r, 0, 0]], others))
        sides.append(potential.evaluate(coord, np.array([0, 1, 0, 1, 1]), None, [False] * 3))
    for below, above, far in zip(*(side[:3] for side in sides)):
        assert np.abs(below - above).max() < 1e-10  # eV, eV/Å
        assert np.abs(below - far).max() > 1e-7


def test_files_hold_the_same_model(model, tmp_path):
    write_model(tmp_path / "a.dp", model)
    again = read_model(tmp_path / "a.dp")
    for key, value in vars(model.shortrange).items():
        assert np.array_equal(getattr(again.shortrange, key), value), key
    assert np.array_equal(again.out_bias, model.out_bias) and model.out_bias.all()
    trees = [tree(path)["model"] for path in (FOLDER / "zbl.dp", tmp_path / "a.dp")]
    assert [set(t) for t in trees[0]["models"]] == [set(t) for t in trees[1]["models"]]
    assert set(trees[0]) == set(trees[1]) and trees[1]["type"] == "zbl" and trees[1]["@version"] == 2
    tabs = [t["models"][1]["tab"] for t in trees]
    assert set(tabs[0]) == set(tabs[1]) and set(tabs[0]["@variables"]) == set(tabs[1]["@variables"])
    with h5py.File(FOLDER / "zbl.dp") as theirs, h5py.File(tmp_path / "a.dp") as ours:
        arrays = [f[t["@variables"]["vdata"]][()] for f, t in zip((theirs, ours), tabs)]
    np.testing.assert_allclose(arrays[1], arrays[0], rtol=1e-12, atol=1e-12)


def tree(path):
    with h5py.File(path) as file:
        return json.loads(file.attrs["json"])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m.update(sw_rmax=0.5), "expected 0 <= sw_rmin < sw_rmax"),
        (lambda m: m.update(smin_alpha=0.0), "smin_alpha > 0"),
        (lambda m: m.update(smin_alpha=0.5), "would jump as a neighbor crosses rcut"),
        (lambda m: m.update(warp=1), "unknown key 'warp'"),
        (lambda m: m["models"].pop(), "expected 2 models, found 1"),
        (lambda m: m["models"].reverse(), "unknown key"),
        (lambda m: m["models"][0].update(pair_exclude_types=[[0, 1]]), "pair_exclude_types: expected"),
        (
            lambda m: m["models"][0]["@variables"].update(out_bias=m["@variables"].pop("out_bias")),
            "expected zeros",
        ),
        (lambda m: m["models"][1].update(rcut=5.0), "rcut: expected 4.0"),
        (lambda m: m["models"][1]["tab"].update(ntypes=3), "ntypes: expected 2"),
        (lambda m: m["models"][1]["tab"].update(hh=0.03), "tab_info: expected rmin"),
        (lambda m: m["models"][1]["tab"]["@variables"].pop("tab_data"), "tab_data: expected"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, message):
    path = tmp_path / "a.dp"
    path.write_bytes((FOLDER / "zbl.dp").read_bytes())
    changed = tree(path)
    change(changed["model"])
    with h5py.File(path, "r+") as file:
        file.attrs["json"] = json.dumps(changed)
    with pytest.raises(ModelFileError, match=message):
        read_model(path)


def test_closer_than_the_table_is_refused(model):
    with pytest.raises(DomainError, match=r"0\.015 Å apart; expected at least 0\.02 Å"):
        pair(DeepPot(model), 0.015)
    pair(DeepPot(model), 0.0201)


# ---- tables


def test_a_file_gives_deepmd_kits_coefficients(model):
    table = pair_table(section(), ["O", "H"])
    assert (table.start, table.step) == (model.shortrange.start, model.shortrange.step)
    np.testing.assert_allclose(
        table.coefficients, model.shortrange.coefficients, rtol=0, atol=1e-11
    )  # of 3000 eV


def test_the_universal_potential():
    """-dV/dr in eV/Å of LAMMPS's pair_style zbl, whose e² has 8 digits."""
    for z1, z2, r, force in (
        (8, 1, 1.0, 15.2334869436),
        (1, 8, 2.0, 0.777849775939),
        (74, 74, 1.0, 1951.10200541),
    ):
        assert -screened_coulomb(np.array([r]), z1, z2)[1][0] == pytest.approx(force, rel=1e-7)


def test_the_universal_table(model):
    """The potential itself up to sw_rmin, nothing at rcut.

    Cubics miss V by h⁴/384 V⁽⁴⁾ and dV/dr by h³/125 V⁽⁴⁾ (engine/tables.py); V⁽⁴⁾ is 24 V / r⁴ for V ~ 1/r.
    """
    table = pair_table(section(use_srtab="zbl"), ["O", "H"])
    potential = DeepPot(replace(model, shortrange=table))
    for r in (0.0512, 0.1012, 0.79):
        x = 0.005 / (r - 0.005)  # h over the least r of the interval
        exact = screened_coulomb(np.array([r]), 1, 8)
        found = pair(potential, r)
        assert found.energy - model.out_bias.sum() == pytest.approx(exact[0][0], rel=24 / 384 * x**4)
        assert np.linalg.norm(found.force[0]) == pytest.approx(-exact[1][0], rel=24 / 125 * x**3)
    c = table.coefficients
    assert np.isclose(table.start + c.shape[2] * table.step, 4.0) and abs(c[:, :, -1].sum(-1)).max() < 1e-12
    np.testing.assert_allclose(c[:, :, :-1].sum(-1), c[:, :, 1:, 3], rtol=1e-12, atol=1e-12)  # continuous


@pytest.mark.parametrize(
    "rows, message",
    [
        (["0.1 3 2"] * 5, "expected 4 columns"),
        (["0.1 1 1 1", "0.2 1 1 1"], "expected 4 columns of finite numbers.* in 3 rows"),
        (["0.1 1 1 1", "0.2 1 1 1", "0.4 0 0 0"], "expected equal steps"),
        (["0.1 3 3 3", "0.2 2 2 2", "0.3 1 1 1"], "expected energies that end in zeros"),
        ([f"{0.5 * k} 1 1 1" for k in range(1, 12)], "expected energies and forces that vanish"),
        (["0.1 a b c"], "expected a table of numbers"),
    ],
)
def test_tables_that_are_none(tmp_path, rows, message):
    path = tmp_path / "pairs.tab"
    path.write_text("\n".join(rows))
    with pytest.raises(ConfigError, match=message):
        pair_table(section(use_srtab=str(path)), ["O", "H"])


def test_missing_files_and_elements(tmp_path):
    with pytest.raises(ConfigError, match=r"use_srtab = .*none.tab: expected a table"):
        pair_table(section(use_srtab=str(tmp_path / "none.tab")), ["O", "H"])
    with pytest.raises(ConfigError, match="expected chemical symbols in type_map, found 'H1'"):
        pair_table(section(use_srtab="zbl"), ["O", "H1"])
    assert pair_table(section(use_srtab=None), ["O", "H"]) is None


# ---- the input, and training


def settings(**changes):
    small = {"neuron": [2, 4], "axis_neuron": 2, "type_one_side": True, "seed": 1}
    switch = {"use_srtab": "zbl", "smin_alpha": 0.1, "sw_rmin": 0.8, "sw_rmax": 1.4}
    model = {"type_map": ["O", "H"], "descriptor": {"rcut": 4.0, "rcut_smth": 1.0, **small}, **switch}
    return {
        "model": {**model, "fitting_net": {"neuron": [4, 4], "seed": 1}, **changes},
        "training": {"training_data": {"systems": ["frames"], "batch_size": 1}, "numb_steps": 3},
    }


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sw_rmax": None}, "expected sw_rmin < sw_rmax < rcut"),
        ({"sw_rmin": 1.5}, "expected sw_rmin < sw_rmax < rcut"),
        ({"sw_rmax": 4.0}, "expected sw_rmin < sw_rmax < rcut"),
        ({"use_srtab": None}, "expected smin_alpha with use_srtab only"),
        ({"use_srtab": "pairs.tab", "type_map": None}, "expected a type_map, in the order"),
        ({"srtab_add_bias": False}, "srtab_add_bias: expected true"),
    ],
)
def test_inputs_that_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(settings(**changes))


def write_frames(folder):
    """The golden frames, with the energies and forces that DeePMD-kit found, as a system."""
    (folder / "frames/set.000").mkdir(parents=True)
    with np.load(FOLDER / "predictions.npz") as golden:
        arrays = {"coord": golden["coord"], "box": golden["box"]}
        arrays |= {key: golden[f"pt_pbc_{key}"] for key in ("energy", "force")}
        np.savetxt(folder / "frames/type.raw", golden["atype"], fmt="%d")
    for key, values in arrays.items():
        np.save(folder / f"frames/set.000/{key}.npy", values.reshape(3, -1))
    (folder / "frames/type_map.raw").write_text("O\nH\n")


def test_training_with_a_table(tmp_path):
    """From a file beside input.json; the energies of elements stay outside; another table is no restart."""
    write_frames(tmp_path)
    (tmp_path / "pairs.tab").write_bytes((FOLDER / "pairs.tab").read_bytes())
    (tmp_path / "input.json").write_text(json.dumps(settings(use_srtab="pairs.tab")))
    config = load_config(tmp_path / "input.json")
    trainer = Trainer(config, tmp_path)
    assert not can_fuse(trainer.potential)
    model = read_model(trainer.run())
    assert model.shortrange.sw_rmax == 1.4 and model.out_bias.all() and not model.fitting.bias_atom_e.any()
    (tmp_path / "input.json").write_text(json.dumps(settings()))
    with pytest.raises(ConfigError, match="another table"):
        Trainer(load_config(tmp_path / "input.json"), tmp_path, restart=tmp_path / "model.ckpt.dp")
    (tmp_path / "input.json").write_text(json.dumps(settings(use_srtab="pairs.tab")))
    Trainer(load_config(tmp_path / "input.json"), tmp_path, restart=tmp_path / "model.ckpt.dp")


def test_the_gradient_of_a_loss(model):
    """∂/∂θ of energies and forces, through the blend, against (L(θ + h) - L(θ - h)) / 2h: error h² ≈ 1e-8."""
    potential = DeepPot(model)
    with np.load(FOLDER / "predictions.npz") as golden:
        batch = from_frame(golden["coord"][0], golden["atype"], golden["box"][0], [True] * 3, 4.0, 2)

    def loss():
        out = potential(batch)
        return out.energy.sum() + (out.force**2).sum() + out.virial.sum()

    for weight in (potential.fitting.nets[1].layers[0].w, potential.descriptor.nets[0].layers[1].w):
        (gradient,) = torch.autograd.grad(loss(), weight)
        sides = []
        for h in (1e-4, -2e-4):
            weight.data[0, 0] += h
            sides.append(loss().item())
        weight.data[0, 0] += 1e-4
        assert gradient[0, 0].item() == pytest.approx((sides[0] - sides[1]) / 2e-4, rel=1e-5)
