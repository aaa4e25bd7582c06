"""Starting from a trained model: energies per element, and elements that the model does not know."""

import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from deepmd_lite import DeepPot, read_model, read_systems, write_system
from deepmd_lite.cli import app
from deepmd_lite.config import load_config
from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.errors import ConfigError, DataError, ModelFileError, NeighborOverflowError
from deepmd_lite.frames.store import System, open_systems
from deepmd_lite.model_file import write_model
from deepmd_lite.train.bias import change_bias, fit
from deepmd_lite.train.dataset import Frames
from deepmd_lite.train.finetune import _stand_ins, extended
from deepmd_lite.train.lcurve import read_lcurve
from deepmd_lite.train.trainer import Trainer

ELEMENTS = ("O", "H", "C")
NEW = ("O", "H", "C", "N")


pytestmark = pytest.mark.usefixtures("one_thread")


def crystal(ntypes, seed=0):
    """Positions, types and cell of 24 atoms about 2 Å apart."""
    rng = np.random.default_rng(seed)
    grid = 2.0 * np.stack(np.meshgrid(range(3), range(4), range(2)), -1).reshape(-1, 3)
    atype = (np.arange(24) % ntypes).astype(np.int32)
    return grid + rng.uniform(-0.3, 0.3, (24, 3)), atype, np.diag([8.0, 6.0, 6.0]), np.ones(3, bool)


def with_elements(model, names):
    """`extended` with statistics at random and 12 slots for each new type."""
    rng, more = np.random.default_rng(1), len(names) - len(model.type_map)
    davg = np.zeros((len(names), 4))
    davg[:, 0] = rng.uniform(0.05, 0.2, len(names))
    dstd = rng.uniform(0.1, 0.3, (len(names), 1)).repeat(4, axis=1)
    sel = (*model.descriptor.sel, *[12] * more)
    return extended(model, names, sel, (davg, dstd), range(more), np.arange(more) > 0, rng)


# Tolerance: energies of about 10 eV and forces of about 1 eV/Å in float64, 1e-14 of which is rounding, times the
# condition of a few hundred sums; a slot that is left out or counted once too often changes them by 1e-3.
@pytest.mark.parametrize("one_side", [True, False])
@pytest.mark.parametrize("act, resnet_dt", [("tanh", False), ("tanh", True), ("gelu", True), ("silu", False)])
def test_new_elements_leave_the_old_ones_as_they_are(random_model, tmp_path, one_side, act, resnet_dt):
    model = random_model(one_side=one_side, act=act, resnet_dt=resnet_dt)
    write_model(tmp_path / "new.dp", with_elements(model, NEW))
    atoms = crystal(2)
    before, after = (DeepPot(m).evaluate(*atoms) for m in (model, read_model(tmp_path / "new.dp")))
    assert after.energy == pytest.approx(before.energy, abs=1e-10, rel=0)
    np.testing.assert_allclose(after.atom_energy, before.atom_energy, atol=1e-10, rtol=0)
    np.testing.assert_allclose(after.force, before.force, atol=1e-10, rtol=0)
    np.testing.assert_allclose(after.virial, before.virial, atol=1e-10, rtol=0)


@pytest.mark.parametrize("one_side", [True, False])
def test_old_centers_see_new_neighbors(random_model, one_side):
    """An embedding net that vanished everywhere would also leave the old elements as they are."""
    model = with_elements(random_model(one_side=one_side), ELEMENTS)
    coord, atype, box, pbc = crystal(3)
    moved = coord + (atype == 2)[:, None] * np.array([0.2, 0.0, 0.0])
    first, last = (CompiledPot(model).evaluate(x, atype, box, pbc).atom_energy for x in (coord, moved))
    assert abs(first - last)[atype < 2].max() > 1e-4


def test_new_elements_of_float32_nets(random_model):
    """As exact as the nets: 6e-8 of energies of 1 eV per atom, with a margin for sums of 60 terms."""
    model = random_model(one_side=True)
    d, f = (
        dataclasses.replace(
            part,
            precision="float32",
            nets=[
                [
                    dataclasses.replace(layer, w=layer.w.astype(np.float32), b=layer.b.astype(np.float32))
                    for layer in net
                ]
                for net in part.nets
            ],
        )
        for part in (model.descriptor, model.fitting)
    )
    model = dataclasses.replace(model, descriptor=d, fitting=f)
    atoms = crystal(2)
    before, after = (DeepPot(m).evaluate(*atoms) for m in (model, with_elements(model, ELEMENTS)))
    np.testing.assert_allclose(after.atom_energy, before.atom_energy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("act", ["relu", "sigmoid", "softplus"])
def test_activations_that_cannot_vanish(random_model, act):
    with pytest.raises(ModelFileError, match=f"activation_function {act} with davg"):
        with_elements(random_model(act=act), ELEMENTS)
    model, atoms = random_model(act=act, davg=False), crystal(2)  # R~ = 0 in empty slots: no need to
    before, after = (DeepPot(m).evaluate(*atoms).energy for m in (model, with_elements(model, ELEMENTS)))
    assert after == pytest.approx(before, abs=1e-10, rel=0)


def labelled(path, model, shift, compositions, seed=0):
    """Frames whose energies are the model's plus ``shift`` (ntypes,) per atom; one system for each composition."""
    rng, potential = np.random.default_rng(seed), CompiledPot(model)
    coord, _, box, pbc = crystal(1)
    for k, counts in enumerate(compositions):
        atype = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
        x = coord[: len(atype)] + rng.uniform(-0.2, 0.2, (2, len(atype), 3))
        energy = np.array([potential.evaluate(c, atype, box, pbc).energy for c in x]) + np.dot(counts, shift)
        system = System(
            name=str(k),
            type_map=tuple(model.type_map),
            atype=atype,
            coord=x,
            box=np.stack([box] * 2),
            pbc=pbc,
            labels={"energy": energy},
            found={"energy": np.ones(2, bool)},
            source_dtype={},
        )
        write_system(f"{path}#/{k}", system)
    return str(path)


def energies_per_element(path):
    model = read_model(path)
    return model.fitting.bias_atom_e + model.out_bias


# Tolerance: energies of 100 eV, rounding 1e-14 of them, the condition of compositions below 100.
def test_change_bias_finds_a_shift(random_model, tmp_path):
    model, shift = random_model(), np.array([1.5, -0.25])
    write_model(tmp_path / "model.dp", model)
    data = labelled(tmp_path / "frames.h5", model, shift, [(8, 8), (4, 12), (10, 3)])
    report = change_bias(tmp_path / "model.dp", [data], tmp_path / "out.dp")
    np.testing.assert_allclose(report.after - report.before, shift, atol=1e-9)
    np.testing.assert_allclose(energies_per_element(tmp_path / "out.dp"), report.after, atol=1e-12)
    assert report.nframes == 6 and report.rmse[0] > 0.1 and report.rmse[1] < 1e-9
    (first, *_) = read_systems(data, model.type_map)
    found = CompiledPot.load(tmp_path / "out.dp").evaluate(
        first.coord[0], first.atype, first.box[0], first.pbc
    )
    assert found.energy == pytest.approx(first.labels["energy"][0], abs=1e-8)


def test_change_bias_of_one_composition_has_least_norm(random_model, tmp_path):
    """4 O and 8 H that lack 10 eV: along (4, 8), the shift 10 · (4, 8) / (4² + 8²)."""
    write_model(tmp_path / "model.dp", random_model())
    data = labelled(tmp_path / "frames.h5", random_model(), np.array([2.5, 0.0]), [(4, 8)])
    report = change_bias(tmp_path / "model.dp", [data], tmp_path / "out.dp")
    np.testing.assert_allclose(report.after - report.before, [0.5, 1.0], atol=1e-9)


def test_a_new_element_takes_what_it_can():
    """3 O, 6 H and 2 C that lack 30 eV: all of it is of C; where compositions say more, they are obeyed."""
    np.testing.assert_allclose(
        fit(np.array([[3.0, 6, 2]]), np.array([30.0]), first=[2]), [0, 0, 15], atol=1e-9
    )
    counts, shift = np.array([[3.0, 6, 2], [1, 0, 0], [1, 2, 2]]), np.array([1.0, -2, 5])
    np.testing.assert_allclose(fit(counts, counts @ shift, first=[2]), shift, atol=1e-9)


def test_excluded_types_take_no_shift(random_model, tmp_path):
    model = random_model(atom_exclude_types=[1])
    write_model(tmp_path / "model.dp", model)
    data = labelled(tmp_path / "frames.h5", model, np.array([1.0, 0.0]), [(4, 8), (6, 2)])
    report = change_bias(tmp_path / "model.dp", [data], tmp_path / "out.dp")
    np.testing.assert_allclose(report.after - report.before, [1.0, 0.0], atol=1e-9)


def test_change_bias_sets_what_the_labels_say(random_model, tmp_path):
    model, zero = random_model(), random_model()
    for part in (zero.descriptor.nets, zero.fitting.nets):
        for layer in (layer for net in part for layer in net):
            layer.w, layer.b = np.zeros_like(layer.w), np.zeros_like(layer.b)
    bias = -(zero.fitting.bias_atom_e + zero.out_bias)
    data = labelled(tmp_path / "frames.h5", zero, bias + [-7.0, -3.0], [(8, 8), (4, 12)])  # -7 O - 3 H
    write_model(tmp_path / "model.dp", model)
    report = change_bias(tmp_path / "model.dp", [data], tmp_path / "out.dp", mode="set")
    np.testing.assert_allclose(report.after, [-7, -3], atol=1e-9)
    np.testing.assert_allclose(energies_per_element(tmp_path / "out.dp"), [-7, -3], atol=1e-9)


def test_change_bias_by_hand_and_on_the_command_line(random_model, tmp_path):
    write_model(tmp_path / "model.dp", random_model())
    data = labelled(tmp_path / "frames.h5", random_model(), np.zeros(2), [(4, 8)])
    files = [str(tmp_path / "model.dp"), "-o", str(tmp_path / "out.dp")]
    said = CliRunner().invoke(app, ["change-bias", *files, "-b", "-93.5 -187,"])
    assert said.exit_code == 0, said.output
    assert "-187.000000" in said.output
    np.testing.assert_allclose(energies_per_element(tmp_path / "out.dp"), [-93.5, -187], atol=1e-9)
    said = CliRunner().invoke(app, ["change-bias", *files, "-s", data, "--mode", "change"])
    assert said.exit_code == 0, said.output
    assert "energy RMSE of 2 frames" in said.output
    for message, options in {
        "--mode fit: expected change or set": {"data": [data], "mode": "fit"},
        "found neither": {"data": []},
        "-b 1 2 3: expected 2 numbers, for O, H": {"data": [], "values": "1 2 3"},
        "-b x y: expected numbers": {"data": [], "values": "x y"},
    }.items():
        with pytest.raises(ConfigError, match=message):
            change_bias(tmp_path / "model.dp", out=tmp_path / "out.dp", **options)


def test_frames_without_energies(random_model, tmp_path):
    write_model(tmp_path / "model.dp", random_model())
    (system,) = read_systems(labelled(tmp_path / "a.h5", random_model(), np.zeros(2), [(4, 8)]))
    system.labels, system.found = {"force": system.coord}, {"force": np.ones(2, bool)}
    write_system(f"{tmp_path / 'b.h5'}#/a", system)
    with pytest.raises(DataError, match="expected frames with an energy"):
        change_bias(tmp_path / "model.dp", [str(tmp_path / "b.h5")], tmp_path / "out.dp")


@pytest.fixture
def base(task, write_input, tmp_path):
    """A model of O and H, trained on the tiny task."""
    Trainer(load_config(write_input(task)), tmp_path / "base").run()
    return tmp_path / "base" / "model.dp"


@pytest.fixture
def carbon(frames, tmp_path):
    """The tiny task's frames twice: with energies -10, -2 and -5 eV of O, H and C, and C in place of some H."""
    path = tmp_path / "carbon.h5"
    (system,) = read_systems(f"{frames}#/train", ("O", "H"))
    for name, atype in {"old": system.atype, "new": np.array([0, 2, 1, 0, 1, 1, 2, 1, 1], np.int32)}.items():
        labels = {**system.labels, "energy": system.labels["energy"] + np.array([-10, -2, -5])[atype].sum()}
        part = dataclasses.replace(system, type_map=ELEMENTS, atype=atype, labels=labels)
        write_system(f"{path}#/{name}", part)
    return path


def without_model(task, data):
    """The task on other frames, its model that of the file."""
    return {**task, "model": {}, "training": {**task["training"], "training_data": {"systems": str(data)}}}


def test_finetuning_shifts_the_energies_first(task, write_input, tmp_path, base, carbon):
    source = without_model(task, f"{carbon}#/old")
    trainer = Trainer(load_config(write_input(source)), tmp_path / "run", finetune=base)
    found, model = trainer.potential.to_model(), read_model(base)
    assert trainer.step == 0 and found.type_map == model.type_map
    for part in ("descriptor", "fitting"):
        for a, b in zip(getattr(model, part).nets, getattr(found, part).nets):
            assert all(np.array_equal(x.w, y.w) and np.array_equal(x.b, y.b) for x, y in zip(a, b))
    assert trainer.shift.rmse[0] > 4 and trainer.shift.rmse[1] < 0.2  # -14 eV of three atoms are -4.7 of one
    np.testing.assert_allclose(found.out_bias - model.out_bias, trainer.shift.after - trainer.shift.before)
    assert found.metadata["input"] == source


@pytest.mark.parametrize("one_side", [True, False])
def test_training_goes_on_with_a_new_element(task, write_input, tmp_path, carbon, one_side):
    task["model"]["descriptor"]["type_one_side"] = one_side
    Trainer(load_config(write_input(task)), tmp_path / "base").run()
    base = tmp_path / "base" / "model.dp"
    config = load_config(write_input(without_model(task, carbon)))
    trainer = Trainer(config, tmp_path / "run", finetune=base)
    start = trainer.potential.to_model()
    assert start.type_map == ELEMENTS and start.descriptor.sel[:2] == (4, 8)
    shift = trainer.shift.after - trainer.shift.before
    assert trainer.shift.rmse[1] < 0.1 * trainer.shift.rmse[0]

    (old,) = read_systems(f"{carbon}#/old", ("O", "H", "C"))
    before, after = DeepPot.load(base), DeepPot(start)
    for coord in old.coord:
        a, b = (p.evaluate(coord, old.atype, None, old.pbc) for p in (before, after))
        assert b.energy - shift[old.atype].sum() == pytest.approx(a.energy, abs=1e-10, rel=0)
        np.testing.assert_allclose(b.force, a.force, atol=1e-10, rtol=0)

    # as many elements as two compositions tell apart: the mean error of each is zero, up to tables of 1e-9
    for system in read_systems(carbon, ELEMENTS):
        found = [DeepPot(start).evaluate(x, system.atype, None, system.pbc).energy for x in system.coord]
        assert np.mean(found - system.labels["energy"]) == pytest.approx(0, abs=1e-6)

    trainer.run()
    curve = read_lcurve(tmp_path / "run" / "lcurve.out")
    assert curve["rmse_f_trn"][-1] < 0.8 * curve["rmse_f_trn"][0]
    again = Trainer(config, tmp_path / "run", restart=tmp_path / "run" / "model.ckpt.dp")
    assert again.step == 20 and again.potential.type_map == ELEMENTS


def test_the_candidate_with_the_nearest_forces(random_model, tmp_path):
    """O and H in one system, O alone in the other; forces of candidate 1 in the first, none in the second."""
    candidates = [random_model(seed=seed) for seed in (0, 1, 2)]
    data = labelled(tmp_path / "pairs.h5", candidates[0], np.zeros(2), [(8, 8), (12, 0)])
    for k, system in enumerate(read_systems(data)):
        force = [
            CompiledPot(candidates[1]).evaluate(x, system.atype, system.box[0], system.pbc).force
            for x in system.coord
        ]
        system.labels["force"], system.found["force"] = np.array(force) * (k == 0), np.ones(2, bool)
        write_system(f"{tmp_path / 'forces.h5'}#/{k}", system)
    path = str(tmp_path / "forces.h5")
    both, alone = (Frames(open_systems(f"{path}#/{k}", ("O", "H")), 4.0, 2) for k in (0, 1))
    best, good = _stand_ins(candidates, both)
    assert best.tolist() == [1, 1] and good.all()
    assert not _stand_ins(candidates, alone)[1].any()  # any force is worse than none


def test_finetuning_on_the_command_line(task, write_input, tmp_path, base, carbon):
    task["training"].update(numb_steps=2, training_data={"systems": str(carbon)})
    task["model"].update(type_map=list(ELEMENTS))
    task["model"]["descriptor"]["sel"] = [4, 8, 6]
    path = str(write_input(task))
    said = CliRunner().invoke(app, ["train", path, "--finetune", str(base), "-o", str(tmp_path / "run")])
    assert said.exit_code == 0, said.output
    assert "Energies per element" in said.output
    assert read_model(tmp_path / "run" / "model.dp").descriptor.sel == (4, 8, 6)


def test_a_model_section_that_does_not_agree(task, write_input, tmp_path, base, carbon):
    """Each of these would train another model than the one to start from."""
    task["training"]["training_data"] = {"systems": str(carbon)}
    for message, section in {
        "begin with that of the model file": {"type_map": ["C", "O", "H"]},
        "N: neither in the model file nor in the frames": {"type_map": [*ELEMENTS, "N"]},
        r"sel: expected 3 numbers": {"descriptor": {"sel": [4, 8]}},
        r"model.descriptor.sel: the input says": {
            "descriptor": task["model"]["descriptor"] | {"sel": [5, 8, 6]}
        },
        r"model.fitting_net.neuron": {"fitting_net": {"neuron": [3]}},
    }.items():
        config = load_config(write_input({**task, "model": section}))
        with pytest.raises(ConfigError, match=message):
            Trainer(config, tmp_path / "run", finetune=base)
    with pytest.raises(ConfigError, match="not several"):
        Trainer(config, tmp_path / "run", finetune=base, init_model=base)
    del task["model"]
    with pytest.raises(ConfigError, match="model: expected this section"):
        Trainer(load_config(write_input(task)), tmp_path / "run")


def test_more_neighbors_than_the_model_was_made_for(task, write_input, tmp_path, base, carbon):
    model = read_model(base)
    write_model(
        tmp_path / "sparse.dp",
        dataclasses.replace(model, descriptor=dataclasses.replace(model.descriptor, sel=(1, 2))),
    )
    with pytest.raises(NeighborOverflowError, match=r"the model has \[1, 2\]"):
        Trainer(
            load_config(write_input(without_model(task, carbon))),
            tmp_path / "run",
            finetune=tmp_path / "sparse.dp",
        )
