"""`dplite learning-curve`: nested subsets, points that are not trained twice, and a run that goes on."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from deepmd_lite import write_system
from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate import sample_curve as s
from deepmd_lite.evaluate.decomposition import teacher_frames
from deepmd_lite.evaluate.sample_curve_report import SampleCurve
from deepmd_lite.signals import Stopped


@pytest.fixture
def source():
    return {
        "model": {
            "descriptor": {"rcut": 3.5, "neuron": [4, 8], "axis_neuron": 2, "type_one_side": True},
            "fitting_net": {"n_neuron": [6, 6], "seed": 3},
        },
        "learning_rate": {"start_lr": 0.01, "stop_lr": 1e-4, "decay_steps": 2},
        "training": {
            "training_data": {"systems": ["cu.h5#/a", "cu.h5#/b"], "batch_size": 1},
            "stop_batch": 8,
            "seed": 7,
        },
    }


@pytest.fixture
def write(tmp_path, source):
    """write(**changes of training): an input.json beside 6 and 4 frames of four copper atoms."""
    rng = np.random.default_rng(0)
    for name, n in (("a", 6), ("b", 4)):
        frames = teacher_frames(bulk("Cu", cubic=True), EMT(), n, displacement=0.1, strain=0.02, rng=rng)
        write_system(f"{tmp_path}/cu.h5#/{name}", frames)

    def make(**training):
        source["training"] |= training
        path = tmp_path / "input.json"
        path.write_text(json.dumps(source))
        return path

    return make


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def energies(systems):
    return set(np.concatenate([system.labels["energy"] for system in systems]))


def test_subsets_are_nested_and_none_is_tested_on(write, tmp_path):
    plan = s.make_plan(write(), tmp_path / "out")
    assert len(energies(plan.pool)) == 8 and len(energies(plan.test)) == 2  # a fifth is held back
    assert not energies(plan.pool) & energies(plan.test)
    sets = [energies(plan.subset(n, 0)) for n in (1, 3, 8)]
    assert [len(x) for x in sets] == [1, 3, 8]
    assert sets[0] < sets[1] < sets[2] == energies(plan.pool)
    assert energies(plan.subset(3, 1)) != sets[1]
    plan = s.make_plan(write(validation_data={"systems": "cu.h5#/b"}), tmp_path / "other")
    assert len(energies(plan.pool)) == 10 and len(energies(plan.test)) == 4


def test_points_tables_and_picture(write, tmp_path):
    path, told = write(), []
    options = {"frames": [2, 4], "widths": [3, 6], "repeats": 2}
    curve = s.sample_curve(path, tmp_path / "out", **options, progress=lambda *x: told.append(x))
    shapes = [(p.frames, p.neuron) for p in curve.points]
    assert shapes == 2 * [(2, (6, 6)), (4, (6, 6)), (4, (3, 3))]  # the input's width is not trained twice
    assert told[-1][:2] == (48, 48) and sum(p is not None for *_, p in told) == 6
    assert [steps for steps, *_ in told] == sorted(steps for steps, *_ in told)
    models = [path.read_bytes() for path in (tmp_path / "out/points").glob("2_*/model.dp")]
    assert len(models) == 2 and models[0] != models[1]
    assert not list((tmp_path / "out").rglob("*.h5")) and not list((tmp_path / "out").rglob("*.ckpt.dp"))
    written = curve.write(tmp_path / "out", {"force": 40.0})
    found = json.loads(written[1].read_text())
    assert len(found["points"]) == 6 and {law["n"] for law in found["laws"]} == {"frames", "width"}
    assert "meV/Å" in written[0].read_text() and written[2].read_bytes().startswith(b"\x89PNG")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("result.json")}
    again = s.sample_curve(path, tmp_path / "out", **options)
    assert again == curve and stamps == {p: p.stat().st_mtime_ns for p in stamps}


def test_a_stopped_run_goes_on_as_if_it_had_not_been(write, tmp_path):
    path = write()

    def stop(done, total, point):
        if done == 11:  # the third step of the second point
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        s.sample_curve(path, tmp_path / "stopped", frames=[2, 4], repeats=1, progress=stop)
    assert [p.parent.name for p in (tmp_path / "stopped").rglob("result.json")] == ["2_6-6_0"]
    told = []
    late = s.sample_curve(
        path, tmp_path / "stopped", frames=[2, 4], repeats=1, progress=lambda done, *_: told.append(done)
    )
    assert told[:2] == [8, 12]  # the first point is there, the second goes on after its third step
    whole = s.sample_curve(path, tmp_path / "whole", frames=[2, 4], repeats=1)
    for a, b in zip(late.points, whole.points):
        assert (a.energy, a.force, a.training_force) == (b.energy, b.force, b.training_force)


def test_what_cannot_be_is_refused(write, tmp_path):
    path, out = write(), tmp_path / "out"
    with pytest.raises(ConfigError, match="expected at most 8 frames to train on, found 9"):
        s.sample_curve(path, out, frames=[2, 9])
    with pytest.raises(ConfigError, match="positive numbers of frames"):
        s.sample_curve(path, out, frames=[0, 2])
    with pytest.raises(ConfigError, match="--frames 2,x: expected whole numbers"):
        s.numbers("2,x", "--frames")
    with pytest.raises(ConfigError, match="found others; choose another folder"):
        s.make_plan(path, out, steps=9)
    source = json.loads(path.read_text())
    source["training"]["training_data"]["weights"] = [1.0, 2.0]
    path.write_text(json.dumps(source))
    with pytest.raises(ConfigError, match=r"training_data\.weights"):
        s.make_plan(path, out)


def test_laws_of_known_points():
    """Errors that follow 10 + 300 n^-0.5 meV/Å exactly: the law, and the 900 frames that 20 meV/Å takes."""
    points = [
        SimpleNamespace(
            frames=n, neuron=(9, 9), force=1e-3 * (10 + 300 * n**-0.5) * (1 + r), energy=None, seconds=1.0,
            training_force=1e-3, training_energy=None, repeat=0,
        )
        for n in (25, 50, 100, 200, 400)
        for r in (-1e-3, 1e-3)
    ]  # fmt: skip
    curve = SampleCurve(points, (9, 9), 80)
    assert curve.axes() == ["frames"] and curve.law("frames", "energy") is None
    law = curve.law("frames", "force")
    assert law.exponent == pytest.approx(0.5, abs=0.01) and law.floor == pytest.approx(10, rel=0.05)
    assert law.n_for(20) == pytest.approx(900, rel=0.05)
    assert curve.law_table({"force": 9.0}).row_count == 1
