"""The command line from structures to a tested model, and what it says when something is wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write


def dplite(*arguments, cwd, code=0):
    """Run a command; its standard output and error."""
    command = [sys.executable, "-m", "deepmd_lite", *map(str, arguments)]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout, run.stderr


def test_from_structures_to_a_tested_model(tmp_path):
    rng = np.random.default_rng(0)
    frames = [bulk("Cu", cubic=True) for _ in range(12)]
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
    write(tmp_path / "cu.xyz", frames)
    structures = (tmp_path / "cu.xyz").read_bytes()

    dplite("label", "cu.xyz", "-c", "emt", "-o", "cu.h5#/bulk", cwd=tmp_path)
    again, _ = dplite("label", "cu.xyz", "-c", "emt", "-o", "cu.h5#/bulk", cwd=tmp_path)
    assert "0 frames labelled, 12 were there" in again
    checked, _ = dplite("check", "cu.h5", "--rcut", 4, cwd=tmp_path)
    assert "energy" in checked and "virial" in checked
    said, _ = dplite("split", "cu.h5", "-o", "cu.h5", "--fractions", "0.5,0.25,0.25", cwd=tmp_path)
    assert "training: 6 frames in cu_training.h5" in said
    options = ["--rcut", 4, "--size", "small", "--steps", 20, "-o", "input.json"]
    dplite("init", "cu_training.h5", "--validation", "cu_validation.h5", *options, cwd=tmp_path)
    said, _ = dplite("train", "input.json", cwd=tmp_path)
    assert "6 frames to train on, 3 to validate" in said.replace("\n", " ")
    for name in ("model.dp", "model.ckpt.dp", "model-best.dp", "lcurve.out", "lcurve.png"):
        assert (tmp_path / name).exists(), name
    said, _ = dplite(
        "test", "-m", "model.dp", "-s", "cu_test.h5", "-d", "detail", "--plots", "parity.png", cwd=tmp_path
    )
    assert "virial" in said
    columns = np.loadtxt(tmp_path / "detail.f.out")
    assert columns.shape == (3 * 4, 6)
    said, _ = dplite("model-devi", "-m", "model.dp", "-m", "model-best.dp", "-s", "cu_test.h5", cwd=tmp_path)
    assert np.loadtxt(tmp_path / "model_devi.out").shape == (3, 8)
    seen, unseen = ("-s", "cu_training.h5"), ("--validation", "cu_validation.h5")
    said, _ = dplite("refit", "model.dp", *seen, *unseen, "-o", "refit.dp", cwd=tmp_path)
    assert "wrote refit.dp" in said
    dplite("model-devi", "-m", "refit.dp", "-s", "cu_test.h5", "-o", "one.out", cwd=tmp_path)
    assert np.loadtxt(tmp_path / "one.out").shape == (3, 8)
    said, _ = dplite("show", "refit.dp", "--diagnostics", *seen, *unseen, cwd=tmp_path)
    assert "Cu" in said and "uncertainty" in said and "gap" in said
    dplite("rf-fit", "input.json", "-o", "random.dp", cwd=tmp_path)
    assert (tmp_path / "random.dp").exists()
    assert (tmp_path / "cu.xyz").read_bytes() == structures  # inputs stay as they were


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "nothing.json"], "nothing.json"),
        (["test", "-m", "nothing.dp", "-s", "x.h5"], "nothing.dp"),
        (["init", "nothing.h5"], "nothing.h5"),
        (["check", "nothing.h5"], "nothing.h5"),
        (["convert", "nothing.xyz", "-o", "x.h5"], "nothing.xyz"),
        (["label", "nothing.xyz", "-c", "emt", "-o", "x.h5#/x"], "nothing.xyz"),
        (["split", "x.h5", "-o", "y.h5", "--fractions", "a,b"], "--fractions a,b"),
        (["show"], "Missing argument"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(tmp_path, arguments, message):
    out, err = dplite(*arguments, cwd=tmp_path, code=2)
    assert message in out + err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(tmp_path):
    _, err = dplite("--debug", "train", "nothing.json", cwd=tmp_path, code=1)
    assert "Traceback" in err


def test_a_diverging_run_exits_1_and_says_where(tmp_path):
    rng = np.random.default_rng(0)
    frames = [bulk("Cu", cubic=True) for _ in range(2)]
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    write(tmp_path / "cu.xyz", frames)
    dplite("label", "cu.xyz", "-c", "emt", "-o", "cu.h5#/bulk", cwd=tmp_path)
    dplite("init", "cu.h5", "--rcut", 4, "--size", "small", "--steps", 10, cwd=tmp_path)
    source = json.loads((tmp_path / "input.json").read_text())
    source["loss"]["start_pref_e"] = 1e308
    (tmp_path / "input.json").write_text(json.dumps(source))
    _, err = dplite("train", "input.json", cwd=tmp_path, code=1)
    assert "the loss is inf on" in err and "frame" in err


def test_help_needs_no_torch(tmp_path):
    code = "import sys; sys.argv = ['dplite', '--help']\nfrom deepmd_lite.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'numba', 'ase', 'mpi4py')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path).returncode == 0
