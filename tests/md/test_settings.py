"""md.json: defaults, overrides, paths, and one line for everything that cannot be meant."""

import json

import pytest

from deepmd_lite.errors import ConfigError
from deepmd_lite.md.settings import Settings, describe, load_settings, parse_settings

LEAST = {
    "structure": "start.extxyz",
    "model": "model.dp",
    "steps": 10000,
    "ensemble": {"type": "langevin", "temperature": 300},
}


def refuse(source, match, overrides=()):
    with pytest.raises(ConfigError, match=match) as caught:
        parse_settings(source, overrides)
    assert "\n" not in str(caught.value)


def test_defaults():
    s = parse_settings(LEAST)
    assert s.structure == "start.extxyz" and s.model == ["model.dp"] and s.frame == -1
    assert (s.replicate, s.precision, s.skin, s.threads, s.grid) == ([1, 1, 1], "float64", 1.0, 1, None)
    assert (s.dt, s.steps, s.seed, s.velocities, s.remove_drift, s.fixed) == (0.5, 10000, 0, None, None, [])
    e = s.ensemble
    assert (e.temperature, e.tau, e.chain, e.pressure) == ((300.0, 300.0), 100.0, 3, None)
    assert (e.pressure_tau, e.compressibility, e.coupling) == (1000.0, 4.57e-5, "isotropic")
    assert s.trajectory == [] and s.model_deviation is None
    assert [(key, o.file) for key, o in s.outputs()] == [
        ("log", "md.log"),
        ("restart", "md.restart.h5"),
        ("safety", "last_good.extxyz"),
    ]
    assert (s.safety.max_force, s.safety.max_displacement, s.safety.max_temperature) == (1000.0, 0.5, None)


def test_everything_said(tmp_path):
    source = LEAST | {
        "_comment": "read by people",
        "ensemble": {"type": "npt", "temperature": [300, 600], "pressure": [0, -5.5], "tau": 50},
        "model": ["a.dp", "/abs/b.dp"],
        "replicate": [2, 1, 3],
        "grid": [1, 2, 2],
        "velocities": {"temperature": 300},
        "fixed": [0, 7],
        "trajectory": [{"file": "a.h5", "velocities": True, "interval": 5}, {"file": "b.traj"}],
        "safety": {"max_force": None, "max_deviation": 2},
    }
    (tmp_path / "md.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(source).encode())
    s = load_settings(tmp_path / "md.json")
    assert s.ensemble.temperature == (300.0, 600.0) and s.ensemble.pressure == (0.0, -5.5)
    assert s.model == [f"{tmp_path}/a.dp", "/abs/b.dp"] and s.structure == f"{tmp_path}/start.extxyz"
    assert [(t.file, t.interval, t.velocities, t.forces) for t in s.trajectory] == [
        (f"{tmp_path}/a.h5", 5, True, False),
        (f"{tmp_path}/b.traj", 100, False, False),
    ]
    assert s.model_deviation.file == f"{tmp_path}/model_devi.out"  # a committee: written by default
    assert s.safety.max_force is None and s.safety.max_deviation == 2.0
    assert load_settings(tmp_path / "md.json", ["model_deviation=null", "safety={}"]).model_deviation is None


def test_one_trajectory_needs_no_list():
    assert [t.file for t in parse_settings(LEAST | {"trajectory": {"file": "a.h5"}}).trajectory] == ["a.h5"]
    assert parse_settings(LEAST | {"trajectory": None}).trajectory == []


@pytest.mark.parametrize("folder", ["with space", "é", "a=b", "line\nbreak"])
def test_paths_are_relative_to_the_file(tmp_path, folder):
    home = tmp_path / folder
    home.mkdir()
    (home / "md.json").write_text(json.dumps(LEAST | {"structure": "../w.h5#/water"}))
    s = load_settings(home / "md.json", ["model=sub/a=b.dp"])
    assert s.structure == f"{home}/../w.h5#/water" and s.model == [f"{home}/sub/a=b.dp"]
    assert s.restart.file == f"{home}/md.restart.h5"


@pytest.mark.parametrize(
    "text, place, value",
    [
        ("steps=5", "steps", 5),
        ("ensemble.temperature=[300, 500]", "ensemble.temperature", (300.0, 500.0)),
        ("ensemble.type=bussi", "ensemble.type", "bussi"),
        ('ensemble={"type": "nve"}', "ensemble.temperature", None),
        ("velocities.temperature=1e2", "velocities.temperature", 100.0),
        ("structure=a b.extxyz", "structure", "a b.extxyz"),
        ('structure="300"', "structure", "300"),
        ('model=["a.dp", "b.dp"]', "model", ["a.dp", "b.dp"]),
        ("precision=float32", "precision", "float32"),
        ("grid=null", "grid", None),
        ("trajectory.file=x.traj", "trajectory", None),
    ],
)
def test_overrides(text, place, value):
    source = json.loads(json.dumps(LEAST))
    found = parse_settings(source, [text])
    for name in place.split("."):
        found = getattr(found, name)
    assert found == value or (value is None and found[0].file == "x.traj")
    assert source == LEAST


def test_the_last_override_counts():
    assert parse_settings(LEAST, ["dt=1", "dt=2"]).dt == 2.0


@pytest.mark.parametrize(
    "text, message",
    [
        ("steps", "expected key=value"),
        ("=5", "expected key=value"),
        ("ensemble.=5", "expected key=value"),
        ("stepz=5", "^stepz: unknown key; did you mean steps?"),
        ("ensembel.tau=5", "^ensembel: unknown key; did you mean ensemble?"),
        ("ensemble.tau=NaN", "expected finite numbers, found NaN"),
        ("ensemble.tau=1e400", "expected finite numbers, found 1e400"),
        ('ensemble={"tau": 1, "tau": 2}', "expected each key once"),
        ("steps=five", "^steps: expected integer, found 'five'"),
        ("model.path=a", "expected an object at model, found 'model.dp'"),
        ("ensemble.temperature=" + "9" * 400, "^ensemble.temperature: expected a number"),
        ("fixed=" + "[" * 10000, "^fixed: expected list"),
    ],
)
def test_bad_overrides(text, message):
    refuse(LEAST, message.replace("?", r"\?"), [text])


@pytest.mark.parametrize(
    "place, message",
    [
        ("temperature", "unknown key; it belongs in ensemble or velocities"),
        ("timestep", "unknown key; did you mean steps?"),
        ("ensemble.temprature", "ensemble.temprature: unknown key; did you mean temperature?"),
        ("max_force", "it belongs in safety"),
        ("log.seed", "log.seed: unknown key; it belongs in the top level"),
        ("trajectory.intervall", "trajectory.intervall: unknown key; did you mean interval?"),
        ("xyzzy", "xyzzy: unknown key$"),
    ],
)
def test_unknown_keys(place, message):
    refuse(LEAST, message.replace("?", r"\?"), [f"{place}=1"])


def test_unknown_key_in_a_list():
    refuse(LEAST | {"trajectory": [{"fiel": "a.h5"}]}, r"trajectory.0.fiel: unknown key; did you mean file\?")


@pytest.mark.parametrize(
    "place, value",
    [
        ("structure", ""),
        ("structure", 3),
        ("structure", "a\0b"),
        ("model", []),
        ("model", ["a", 3]),
        ("replicate", [1, 1]),
        ("replicate", [1, 1, 0]),
        ("grid", 4),
        ("precision", "float16"),
        ("skin", -0.1),
        ("threads", 0),
        ("ensemble", None),
        ("ensemble.type", "nvt"),
        ("ensemble.temperature", [1, 2, 3]),
        ("ensemble.temperature", True),
        ("ensemble.temperature", "300"),
        ("ensemble.tau", 0),
        ("ensemble.chain", 0),
        ("ensemble.coupling", "xy"),
        ("dt", 0),
        ("dt", -1.0),
        ("dt", True),
        ("steps", -1),
        ("steps", 1e6),
        ("seed", -1),
        ("seed", 2**63),
        ("velocities", 300),
        ("velocities.temperature", -1),
        ("remove_drift", 0),
        ("fixed", [-1]),
        ("fixed", 3),
        ("log.interval", 0),
        ("log.file", ""),
        ("trajectory", "a.h5"),
        ("trajectory", [{"interval": 5}]),
        ("trajectory.file", "a.xtc"),
        ("trajectory", {"file": "a.h5", "velocities": 1}),
        ("safety.max_force", 0),
    ],
)
def test_values(place, value):
    refuse(LEAST, rf"^{place.replace('.', '[.](0[.])?')}.*: .*expected", [f"{place}={json.dumps(value)}"])


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"ensemble": {"type": "bussi"}},
            r"ensemble: expected temperature \(K\) with type bussi, found none",
        ),
        ({"ensemble": {"type": "npt", "temperature": 300}}, r"expected pressure \(bar\) with type npt"),
        ({"ensemble": {"type": "nve", "temperature": 300}}, "expected no temperature with type nve"),
        ({"ensemble": {"type": "bussi", "temperature": 1, "chain": 2}}, "expected no chain with type bussi"),
        ({"ensemble": {"type": "langevin", "temperature": [300, -1]}}, "temperatures above 0 K.*found -1 K"),
        ({"ensemble": {"type": "nose_hoover", "temperature": [300, 0]}}, "temperatures above 0 K.*found 0 K"),
        ({"model_deviation": {}}, "^expected several models with model_deviation, found one"),
        ({"safety": {"max_deviation": 1}}, "^expected model_deviation with safety.max_deviation"),
        ({"log": {"file": "start.extxyz"}}, "^log.file: expected a file of its own.*that of structure"),
        ({"restart": {"file": "./model.dp"}}, "^restart.file: .*that of model"),
        ({"trajectory": [{"file": "a.h5"}, {"file": "b/../a.h5"}]}, "^trajectory.1.file.* of trajectory.0"),
        ({"trajectory": {"file": "last_good.extxyz"}}, "that of safety"),
        ({"structure": "w.h5#/x", "trajectory": {"file": "w.h5"}}, "that of structure"),
    ],
)
def test_contradictions(change, message):
    refuse(LEAST | change, message)


@pytest.mark.parametrize("key", ["structure", "model", "steps", "ensemble"])
def test_required(key):
    refuse({k: v for k, v in LEAST.items() if k != key}, f"^{key}: expected this key, found none")


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"steps": 1,}', "line 1: trailing comma"),
        ('{\n"dt": 1e400}', "line 2: expected finite"),
        ('{"dt": 1,\n "dt": 2}', "lines 1, 2: expected each key once"),
        ("[]", "expected a JSON object"),
        ("", "line 1, column 1: expected JSON"),
    ],
)
def test_files_that_are_no_settings(tmp_path, text, message):
    (tmp_path / "md.json").write_text(text)
    with pytest.raises(ConfigError, match=f"md.json: {message}"):
        load_settings(tmp_path / "md.json")
    with pytest.raises(ConfigError, match=r"none.json: cannot be read"):
        load_settings(tmp_path / "none.json")


def test_describe_lists_every_key():
    text = describe()
    lines = text.splitlines()
    assert "  dt: number > 0, fs; default 0.5" in lines
    assert "  temperature: number or [start, end] or null, K; default null" in lines
    assert "  structure: path; required" in lines
    assert '  file: path; default "md.log"' in lines
    assert "  trajectory: object or list of objects; default []" in lines
    for name in Settings.model_fields:
        assert f"  {name}: " in text
    assert max(map(len, lines)) <= 110
