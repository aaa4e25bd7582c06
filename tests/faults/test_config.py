"""FAULTS 13 and its neighbors: inputs that cannot be used get one line that names the key or the line."""

import json

import pytest

from deepmd_lite.config import load_config, parse_config
from deepmd_lite.errors import ConfigError


def tree_with(path="", value=None):
    tree = {
        "model": {"type_map": ["O", "H"], "descriptor": {"sel": [4, 8]}, "fitting_net": {}},
        "training": {"training_data": {"systems": ["a"]}, "numb_steps": 10},
    }
    *sections, key = path.split(".")
    section = tree
    for name in sections:
        section = section.setdefault(name, {})
    if path:
        section[key] = value
    return tree


def refuse(call, match):
    with pytest.raises(ConfigError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_base_is_good():
    assert parse_config(tree_with()).training.numb_steps == 10


@pytest.mark.parametrize(
    "path, message",
    [
        ("model.descriptor.sle", "model.descriptor.sle: unknown key; did you mean sel?"),
        ("model.descriptor.rcut_smooth", "did you mean rcut_smth?"),
        ("modle", "modle: unknown key; did you mean model?"),
        ("training.numb_step5", "did you mean numb_step"),
        ("learning_rate.start_learning", "learning_rate.start_learning: unknown key; did you mean start_lr?"),
        ("numb_steps", "numb_steps: unknown key; it belongs in training"),
        ("model.rcut", "model.rcut: unknown key; it belongs in model.descriptor"),
        ("training.systems", "training.systems: unknown key; it belongs in training.training_data"),
        ("training.model", "it belongs at the top"),
        ("model.descriptor.xyzzy", "model.descriptor.xyzzy: unknown key$"),
    ],
)
def test_unknown_keys(path, message):
    refuse(lambda: parse_config(tree_with(path, 1)), message.replace("?", r"\?"))


@pytest.mark.parametrize(
    "path, value",
    [
        ("model.descriptor.rcut", -1.0),
        ("model.descriptor.rcut", 0),
        ("model.descriptor.rcut", 30.1),
        ("model.descriptor.rcut", "6"),
        ("model.descriptor.rcut", True),
        ("model.descriptor.rcut", None),
        ("model.descriptor.rcut", float("inf")),
        ("model.descriptor.rcut_smth", -0.1),
        ("model.descriptor.sel", 0),
        ("model.descriptor.sel", [0, 8]),
        ("model.descriptor.sel", [4, 8.0]),
        ("model.descriptor.sel", []),
        ("model.descriptor.sel", "auto:0.5"),
        ("model.descriptor.sel", "automatic"),
        ("model.descriptor.neuron", []),
        ("model.descriptor.neuron", [10, 0]),
        ("model.descriptor.axis_neuron", 0),
        ("model.descriptor.type", "dpa1"),
        ("model.descriptor.activation_function", "tanhh"),
        ("model.descriptor.precision", "float16"),
        ("model.descriptor.exclude_types", [[0]]),
        ("model.descriptor.seed", -1),
        ("model.fitting_net.type", "dipole"),
        ("model.fitting_net.atom_ener", ["x", None]),
        ("model.type_map", []),
        ("model.type_map", ["O", ""]),
        ("model.type_map", "OH"),
        ("model.fitting_net.trainable", 1),
        ("model.fitting_net.trainable", []),
        ("model.fitting_net.trainable", [True, 0]),
        ("learning_rate.type", "step"),
        ("learning_rate.decay_type", "sqrt"),
        ("learning_rate.decay_phase_ratio", 0),
        ("learning_rate.start_lr", 0.0),
        ("learning_rate.decay_rate", 1.5),
        ("learning_rate.decay_steps", 0),
        ("loss.start_pref_e", -1),
        ("loss.type", "dos"),
        ("loss.loss_func", "rmse"),
        ("loss.huber_delta", 0),
        ("loss.huber_delta", True),
        ("loss.huber_delta", [0.1, 0.1]),
        ("loss.relative_f", 0.0),
        ("training.numb_steps", -1),
        ("training.numb_steps", 0),
        ("training.numb_steps", 1e6),
        ("training.numb_steps", "1000"),
        ("training.disp_freq", 0),
        ("training.disp_file", ""),
        ("training.gradient_max_norm", -1.0),
        ("training.training_data.batch_size", 0),
        ("training.training_data.batch_size", "filter:x"),
        ("training.ema_decay", 1.0),
        ("optimizer.adam_beta1", 1.0),
        ("optimizer.type", "LKF"),
        ("training.training_data.batch_size", "auto:0"),
        ("training.training_data.batch_size", True),
        ("training.training_data.systems", []),
        ("training.training_data.systems", [""]),
        ("training.training_data.systems", 3),
        ("training.validation_data.systems", [3]),
        ("training.training_data", []),
        ("training", 3),
        ("model", None),
    ],
)
def test_values(path, value):
    refuse(
        lambda: parse_config(tree_with(path, value)),
        f"{path.replace('.', '[.]')}.*: .*(expected|List|String)",
    )


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("model.descriptor.rcut_smth", 6.0, "model.descriptor: expected rcut_smth < rcut, found"),
        ("model.descriptor.axis_neuron", 41, "expected axis_neuron <= 40"),
        ("model.descriptor.sel", [4], "model: expected 2 numbers in descriptor.sel"),
        ("model.descriptor.exclude_types", [[0, 2]], "expected excluded types from 0 to 1, found 2"),
        ("model.fitting_net.atom_ener", [0.0], "expected 2 numbers in fitting_net.atom_ener"),
        ("model.type_map", ["O", "O"], "distinct names"),
        ("model.atom_exclude_types", [5], "found 5"),
        ("learning_rate", {"stop_lr": 1e-5, "stop_lr_ratio": 0.1}, "found both"),
        ("learning_rate", {"warmup_steps": 5, "warmup_ratio": 0.1}, "found both"),
        ("learning_rate", {"warmup_steps": 10}, "warmup_steps < training.numb_steps, found 10 and 10"),
        ("learning_rate", {"warmup_steps": 10}, "^expected learning_rate.warmup_steps"),
        ("learning_rate", {"type": "cosine", "decay_rate": 0.9}, "expected decay_rate with type exp only"),
        ("learning_rate", {"type": "wsd", "smooth": True}, "expected smooth with type exp only"),
        ("learning_rate", {"decay_type": "linear"}, "expected decay_type with type wsd only, found"),
        ("loss", {"use_huber": True, "loss_func": "mae"}, "expected use_huber or loss_func mae, found both"),
        ("loss", {"use_huber": True, "relative_f": 1.0}, "expected use_huber or relative_f, found both"),
        ("loss", {"f_use_norm": True}, "expected f_use_norm with use_huber or loss_func mae"),
        ("model.fitting_net.trainable", [True, False], "expected 4 values in trainable, .* found 2"),
        (
            "model",
            {"descriptor": {"trainable": False}, "fitting_net": {"trainable": False}},
            "^model: expected a net that is trainable",
        ),
        ("model.descriptor.rcut", 60, "model.descriptor.rcut: expected at most 30 Å, found 60"),
        ("model", None, "^model: expected an object, found null$"),
        ("learning_rate", {"start_lr": 1e-8}, "expected stop_lr <= start_lr"),
        ("loss", {f"{e}_pref_{t}": 0 for e in ("start", "limit") for t in "ef"}, "nothing would be learned"),
        ("training.training_data", {"systems": "a", "sys_probs": [0.5, 0.6]}, "add up to 1, found 1.1"),
    ],
)
def test_contradictions(path, value, message):
    refuse(lambda: parse_config(tree_with(path, value)), message)


@pytest.mark.parametrize(
    "path, value",
    [
        ("model.type", "zbl"),
        ("model.type_embedding", {"neuron": [2]}),
        ("model.spin", {"use_spin": [True, False]}),
        ("model.modifier", {"type": "dipole_charge"}),
        ("model.preset_out_bias", {"energy": [None, 1.0]}),
        ("model.fitting_net.tot_ener_zero", True),
        ("loss.start_pref_ae", 1.0),
        ("loss.use_default_pf", True),
        ("loss.limit_pref_pf", 0.5),
        ("training.numb_epoch", 10),
        ("training.opt_type", "LKF"),
        ("training.mixed_precision", {"output_prec": "float32"}),
        ("training.training_data.min_pair_dist", 0.5),
        ("nvnmd", {"enable": True}),
    ],
)
def test_keys_of_deepmd_kit_that_change_the_model_are_not_ignored(path, value):
    refuse(lambda: parse_config(tree_with(path, value)), f"{path.replace('.', '[.]')} = .*: not supported")


@pytest.mark.parametrize(
    "text, message",
    [
        ('{\n "model": {},\n "training": {"numb_steps": 3,}\n}', "line 3: trailing comma; remove it"),
        ('{\n "model": {},\n "training": [1, 2,\n ]\n}', "line 3: trailing comma; remove it"),
        ('{\n "model": {},\n}', "line 2: trailing comma; remove it"),
        ('{"model": {} "training": {}}', "line 1, column 14: expected JSON"),
        ('{"model": {}', "line 1, column 13: expected JSON"),
        ("", "line 1, column 1: expected JSON"),
        ("{'model': 1}", "line 1, column 2: expected JSON"),
        ('{"training": {"numb_steps": NaN}}', "expected finite numbers, found NaN"),
        ('{"training": {"numb_steps": -Infinity}}', "expected finite numbers, found -Infinity"),
        ('{"a": "1e400",\n "b": [1, 1e400]}', "line 2: expected finite numbers, found 1e400"),
        ('{"seed": "seed",\n "a": 1,\n "seed": 2}', "lines 1, 3: expected each key once, found 'seed' twice"),
        ('{"é": 1, "\\u00e9": 2}', "line 1: expected each key once, found 'é' twice"),
        ('{"a": [%s {"b": 1, "b": 1}]}' % (9 * '{"b": 1},\n'), "lines 1, 2, 3, 4, 5 ...: expected each key"),
        ('{"training": ' + "9" * 5000 + "}", "expected JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "expected a JSON object, found a list"),
    ],
)
def test_text(tmp_path, text, message):
    path = tmp_path / "input.json"
    path.write_text(text)
    refuse(lambda: load_config(path), message)


def test_files(tmp_path):
    refuse(lambda: load_config(tmp_path / "none.json"), "none.json: cannot be read")
    refuse(lambda: load_config(tmp_path), "cannot be read")
    (tmp_path / "latin.json").write_bytes('{"é": 1}'.encode("latin-1"))
    refuse(
        lambda: load_config(tmp_path / "latin.json"), "latin.json: expected UTF-8 text, found byte 0xe9 at 2"
    )
    (tmp_path / "a\nb.json").write_text(json.dumps(tree_with("x", 1)))
    refuse(lambda: load_config(tmp_path / "a\nb.json"), "unknown key")
