"""Pictures are written, hold the figures they claim, and leave matplotlib's global state alone."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from deepmd_lite.evaluate import plots, show
from deepmd_lite.evaluate.predict import Predictions
from deepmd_lite.frames.system import System
from deepmd_lite.model_file import read_model, write_model

HEADER = (
    "#  step      rmse_val    rmse_trn    rmse_e_val  rmse_e_trn    rmse_f_val  rmse_f_trn         lr\n"
    "# If there is no available reference data, rmse_*_{val,trn} will print nan\n"
)


@pytest.fixture
def words(monkeypatch):
    """All text of the figures saved in a test."""
    seen = []
    save = Figure.savefig

    def spy(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        seen.extend(t.get_text() for t in figure.findobj(matplotlib.text.Text))

    monkeypatch.setattr(Figure, "savefig", spy)
    return seen


def predictions(nframes, natoms, symbols=("H",), offset=-100.0):
    rng = np.random.default_rng(0)
    labels = {
        "energy": offset + rng.normal(size=nframes),
        "force": rng.normal(size=(nframes, natoms, 3)),
        "virial": rng.normal(size=(nframes, 3, 3)),
    }
    found = {key: np.ones(nframes, bool) for key in labels}
    atype = np.zeros(natoms, np.int32)
    system = System("s", symbols, atype, labels["force"], None, np.zeros(3, bool), labels, found)
    return Predictions(system, **{key: value + 0.5 for key, value in labels.items()})


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_parity(tmp_path, words):
    before = dict(matplotlib.rcParams)
    crowd, few = predictions(50, 20), predictions(3, 5, ("He",), offset=1e4)
    assert is_png(plots.parity([crowd, few], tmp_path / "deep" / "er" / "parity.png"))
    assert dict(matplotlib.rcParams) == before
    text = " ".join(words)
    for word in (
        "Energy",
        "Force",
        "Virial",
        "reference force component (eV/Å)",
        "RMSE 500 meV/Å",
        "3,045 points",
    ):
        assert word in text


def test_parity_of_one_number(tmp_path):
    single = predictions(1, 1)
    for label in ("force", "virial"):
        del single.system.labels[label], single.system.found[label]
    assert is_png(plots.parity([single], tmp_path / "one.png"))


def test_energies_share_a_panel_whatever_their_composition():
    """1e4 eV between the two compositions must not hide errors of 1 eV."""
    x, y = plots._pairs([predictions(4, 5), predictions(3, 5, ("He",), offset=1e4)], "energy", True)
    assert np.abs(x).max() < 2 and np.allclose(y - x, 0.5 / 5, rtol=0, atol=1e-11)


def write_lcurve(path, rows):
    row = "  2.00e+01 2.10e+01  1.00e-01 1.10e-01  5.00e-01 5.10e-01  1.0e-03\n"
    path.write_text(HEADER + "".join(f"{k * 10:7d}{row}" for k in range(rows)))
    return path


@pytest.mark.parametrize("rows", [1, 50])
def test_learning_curve(tmp_path, words, rows):
    lcurve = write_lcurve(tmp_path / "lcurve.out", rows)
    assert is_png(plots.learning_curve(lcurve, tmp_path / "a.png"))
    assert {"validation, last 500", "training, last 510"} <= set(words)


def test_learning_curves_are_compared(tmp_path, words):
    both = {"ours": write_lcurve(tmp_path / "a.out", 9), "theirs": write_lcurve(tmp_path / "b.out", 9)}
    assert is_png(plots.learning_curve(both, tmp_path / "b.png"))
    assert {"ours validation, last 100", "theirs validation, last 100"} <= set(words)


def test_learning_curve_without_validation_or_energies(tmp_path, words):
    text = "#  step  rmse_trn  rmse_e_trn rmse_f_trn  lr\n#\n      1  2.0e+01  nan  5.0e-01  1.0e-03\n"
    (tmp_path / "lcurve.out").write_text(text)
    plots.learning_curve(tmp_path / "lcurve.out", tmp_path / "a.png")
    assert "training, last 500" in words and "Force" in words and "Energy" not in words


def test_trajectory(tmp_path, words):
    time = np.arange(200) * 0.1
    ripple = 1e-3 * np.sin(7 * time)
    args = (time, -50 + 1e-4 * time + ripple, -60 + ripple, 300 + 1e3 * ripple)
    assert is_png(plots.energy_against_time(*args, tmp_path / "nve.png", natoms=10, title="NVE"))
    drift = next(w for w in words if w.startswith("drift"))
    assert drift.endswith("meV/atom/ns") and float(drift.split()[1]) == pytest.approx(10, rel=0.1)
    curves = {"O–O": (np.linspace(0, 6, 50), np.ones(50)), "O–H": (np.linspace(0, 6, 50), np.zeros(50))}
    assert is_png(plots.radial_distributions(curves, tmp_path / "rdf.png", title="water"))
    assert {"O–O", "O–H", "r (Å)", "g(r)", "water", "time (ps)"} <= set(words)


def test_show(golden):
    rows = dict(show.show(golden / "two_sided_small_cell.dp").rows)
    assert rows["elements"] == "O H C" and rows["sel"] == "O 60, H 60, C 60"
    assert rows["range"] == "rcut 6 Å, smooth from 2 Å"
    assert rows["embedding nets"] == "9 of 8-16-32, tanh, resnet_dt, float64, axis_neuron 4"
    embedding = 9 * ((1 + 1) * 8 + (8 + 2) * 16 + (16 + 2) * 32)
    fitting = 3 * ((128 + 1) * 40 + 2 * (40 + 2) * 40 + 40 + 1)
    assert rows["parameters"] == f"{embedding + fitting:,}"
    assert show.show(golden / "cluster_nopbc.dp").table().row_count >= 9


def test_show_leaves_the_input_in_the_file(golden, tmp_path):
    model = read_model(golden / "cluster_nopbc.dp")
    model.metadata = {"input": {"model": {"descriptor": {"seed": 12345}}}}
    write_model(tmp_path / "model.dp", model)
    rows = dict(show.show(tmp_path / "model.dp").rows)
    assert rows["trained by"] == "deepmd_lite; the file holds its input"
    assert not any("12345" in value for value in rows.values())
