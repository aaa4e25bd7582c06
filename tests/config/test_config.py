"""input.json: DeePMD-kit's keys and defaults, aliases, keys without effect, paths, and the schedule."""

import json

import pytest

from deepmd_lite.config import load_config, parse_config
from deepmd_lite.errors import ConfigError

WATER = {
    "_comment": "the water example",
    "model": {
        "type_map": ["O", "H"],
        "descriptor": {
            "type": "se_e2_a",
            "sel": [46, 92],
            "rcut": 6,
            "neuron": [25, 50, 100],
            "axis_neuron": 16,
        },
        "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1, "_comment": " that's all"},
    },
    "learning_rate": {"type": "exp", "decay_steps": 5000, "start_lr": 0.001, "stop_lr": 3.51e-8},
    "loss": {
        "type": "ener",
        "start_pref_e": 0.02,
        "limit_pref_e": 1,
        "start_pref_f": 1000,
        "limit_pref_f": 1,
    },
    "training": {
        "training_data": {"systems": ["../data/data_0/", "../data/data_1/"], "batch_size": "auto"},
        "validation_data": {"systems": "../data/data_3", "batch_size": 1, "numb_btch": 3},
        "numb_steps": 1000000,
        "seed": 10,
        "disp_file": "lcurve.out",
        "disp_freq": 100,
        "save_freq": 1000,
    },
}


def with_value(path, value):
    """The water input with one key set; a value of `...` removes it."""
    tree = json.loads(json.dumps(WATER))
    *sections, key = path.split(".")
    section = tree
    for name in sections:
        section = section.setdefault(name, {})
    section[key] = value
    if value is ...:
        del section[key]
    return tree


def test_water_example():
    c = parse_config(WATER)
    assert c.model.type_map == ["O", "H"]
    assert c.model.descriptor.sel == [46, 92] and c.model.descriptor.rcut == 6.0
    assert isinstance(c.model.descriptor.rcut, float)
    assert c.model.fitting_net.neuron == [240, 240, 240] and c.model.fitting_net.seed == 1
    assert c.training.training_data.systems == ["../data/data_0/", "../data/data_1/"]
    assert (
        c.training.validation_data.systems == ["../data/data_3"] and c.training.validation_data.numb_btch == 3
    )
    assert c.loss.limit_pref_e == 1.0 and c.loss.start_pref_v == 0.0
    assert c.ignored == [] and c.source == WATER


def test_defaults_are_those_of_deepmd_kit():
    """3.2.0: argument tables of se_e2_a, ener, exp and training."""
    c = parse_config({"model": {}, "training": {"training_data": {"systems": "."}, "numb_steps": 1}})
    d, f, lr, loss, t = c.model.descriptor, c.model.fitting_net, c.learning_rate, c.loss, c.training
    assert (d.sel, d.rcut, d.rcut_smth, d.neuron, d.axis_neuron) == ("auto", 6.0, 0.5, [10, 20, 40], 4)
    assert (d.resnet_dt, d.type_one_side, d.activation_function, d.precision) == (
        False,
        False,
        "tanh",
        "float64",
    )
    assert (d.exclude_types, d.env_protection, d.set_davg_zero, d.trainable) == ([], 0.0, False, True)
    assert (f.neuron, f.resnet_dt, f.numb_fparam, f.atom_ener) == ([120, 120, 120], True, 0, [])
    assert (lr.type, lr.decay_steps, lr.last_lr, lr.warmup_steps, lr.warmup_start_factor) == (
        "exp",
        5000,
        5e-8,
        0,
        0,
    )
    assert (loss.start_pref_e, loss.limit_pref_e, loss.start_pref_f, loss.limit_pref_f) == (0.02, 1, 1000, 1)
    assert (t.disp_file, t.disp_freq, t.save_freq, t.seed) == ("lcurve.out", 1000, 1000, None)
    assert (loss.loss_func, loss.use_huber, loss.huber_delta) == ("mse", False, [0.01, 0.01, 0.01])
    assert (loss.f_use_norm, loss.relative_f, loss.intensive_ener_virial) == (False, None, False)
    assert (lr.decay_phase_ratio, lr.decay_type, f.trainable) == (0.1, "inverse_linear", True)
    assert t.validation_data is None and t.training_data.batch_size == "auto"
    assert t.training_data.auto_prob == "prob_sys_size" and t.gradient_max_norm == 0


@pytest.mark.parametrize(
    "path, alias",
    [
        ("training.numb_steps", "stop_batch"),
        ("training.numb_steps", "num_steps"),
        ("model.descriptor.axis_neuron", "n_axis_neuron"),
        ("model.fitting_net.neuron", "n_neuron"),
        ("training.training_data.auto_prob", "auto_prob_style"),
        ("training.validation_data.numb_btch", "numb_batch"),
    ],
)
def test_aliases(path, alias):
    values = {
        "training.numb_steps": 7,
        "model.fitting_net.neuron": [3],
        "training.training_data.auto_prob": "prob_uniform",
    }
    value = values.get(path, 2)
    tree = with_value(path, ...) if path != "training.training_data.auto_prob" else with_value("_x", 1)
    section = tree
    for name in path.split(".")[:-1]:
        section = section[name]
    section[alias] = value
    found = parse_config(tree)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    section[path.split(".")[-1]] = value
    with pytest.raises(ConfigError, match="under two names"):
        parse_config(tree)


def test_keys_without_effect_are_listed():
    tree = with_value("training.stat_file", "stat.hdf5")
    tree["training"]["save_ckpt"] = "ckpt"
    tree["model"]["data_stat_nbatch"] = 20
    tree["validating"] = {"full_validation": False}
    tree["nvnmd"] = {"enable": False, "version": 0}
    tree["training"]["validation_data"]["auto_prob"] = "prob_uniform"
    assert parse_config(tree).ignored == [
        "model.data_stat_nbatch",
        "training.validation_data.auto_prob",
        "training.stat_file",
        "training.save_ckpt",
        "validating",
    ]


@pytest.mark.parametrize(
    "path, value",
    [
        ("model.type", "standard"),
        ("model.spin", None),
        ("model.fitting_net.dim_case_embd", 0),
        ("loss.start_pref_ae", 0.0),
        ("loss.numb_generalized_coord", 0),
        ("training.opt_type", "Adam"),
        ("training.mixed_precision", {}),
        ("training.training_data.set_prefix", "set"),
        ("optimizer", {"type": "Adam", "adam_beta1": 0.9, "weight_decay": 0.0}),
    ],
)
def test_neutral_values_of_unsupported_keys(path, value):
    assert parse_config(with_value(path, value)).ignored == []


def test_numbers_of_all_kinds():
    c = parse_config(with_value("model.descriptor.sel", "auto:1.2"))
    assert c.model.descriptor.sel == "auto:1.2"
    c = parse_config(with_value("training.training_data.batch_size", "auto:64"))
    assert c.training.training_data.batch_size == "auto:64"
    c = parse_config(with_value("training.training_data.batch_size", [1, 2]))
    assert c.training.training_data.batch_size == [1, 2]
    c = parse_config(with_value("model.fitting_net.atom_ener", [None, -13.6]))
    assert c.model.fitting_net.atom_ener == [None, -13.6]
    assert parse_config(with_value("model.descriptor.activation_function", "SiLUT:3.0")).model.descriptor
    assert (
        parse_config(with_value("model.descriptor.precision", "single")).model.descriptor.precision
        == "float32"
    )


def test_schedule():
    tree = with_value(
        "learning_rate", {"type": "cosine", "start_lr": 2e-3, "stop_lr_ratio": 0.01, "warmup_ratio": 0.1}
    )
    s = parse_config(tree).schedule()
    assert s["type"] == "cosine" and s["start_lr"] == 2e-3 and s["warmup_steps"] == 100_000
    assert s["stop_lr"] == pytest.approx(2e-5, rel=1e-15)
    assert parse_config(WATER).schedule() == {
        "type": "exp",
        "start_lr": 1e-3,
        "stop_lr": 3.51e-8,
        "decay_steps": 5000,
        "decay_rate": None,
        "smooth": False,
        "decay_phase_ratio": 0.1,
        "decay_type": "inverse_linear",
        "warmup_steps": 0,
        "warmup_start_factor": 0.0,
    }


def test_trained_layers():
    """A switch is that of every layer; a list gives them one by one, the output last."""
    assert parse_config(WATER).model.fitting_net.trained_layers == [True] * 4
    c = parse_config(with_value("model.fitting_net.trainable", False))
    assert c.model.fitting_net.trained_layers == [False] * 4
    c = parse_config(with_value("model.fitting_net.trainable", [False, False, True, True]))
    assert c.model.fitting_net.trained_layers == [False, False, True, True]


def test_one_huber_delta_is_that_of_all_terms():
    c = parse_config(with_value("loss.huber_delta", 1))
    assert c.loss.huber_delta == [1.0, 1.0, 1.0]
    assert parse_config(with_value("loss.huber_delta", [1, 2.0, 3])).loss.huber_delta == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("folder", ["plain", "with space", "é", "line\nbreak", "a[1]"])
def test_paths_are_relative_to_the_file(tmp_path, folder):
    home = tmp_path / folder
    home.mkdir()
    tree = with_value(
        "training.training_data.systems", ["data é/a b", "/abs/x", "water.h5#/liquid", "../up", "d*"]
    )
    (home / "input.json").write_text(json.dumps(tree))
    systems = load_config(home / "input.json").training.training_data.systems
    assert systems == [
        f"{home}/data é/a b",
        "/abs/x",
        f"{home}/water.h5#/liquid",
        f"{home}/../up",
        f"{home}/d*",
    ]


def test_byte_order_mark(tmp_path):
    (tmp_path / "input.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(WATER).encode())
    assert load_config(tmp_path / "input.json").training.numb_steps == 1_000_000


def test_parsing_does_not_change_the_source():
    before = json.dumps(WATER)
    parse_config(WATER).training.training_data.systems.append("x")
    assert json.dumps(WATER) == before
