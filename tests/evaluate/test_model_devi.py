"""Model deviation against its formulas written out, and its file against DeePMD-kit's layout."""

import numpy as np
import pytest

from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate.model_devi import deviation, model_deviation
from deepmd_lite.evaluate.predict import Predictions
from deepmd_lite.frames.system import System
from deepmd_lite.model_file import read_model, write_model


@pytest.fixture
def three():
    """Random predictions of three models, 4 frames of 5 atoms, and the system."""
    rng = np.random.default_rng(0)
    labels = {
        "energy": rng.normal(size=4),
        "force": rng.normal(size=(4, 5, 3)),
        "virial": rng.normal(size=(4, 3, 3)),
    }
    found = {key: np.ones(4, bool) for key in labels}
    coord = rng.normal(size=(4, 5, 3))
    system = System("s", ("H",), np.zeros(5, np.int32), coord, None, np.zeros(3, bool), labels, found)
    return [
        Predictions(system, **{k: v + rng.normal(size=v.shape) for k, v in labels.items()}) for _ in range(3)
    ]


def test_formulas(three):
    """Loops over atoms and components; 1e-13 relative is the rounding of sums of a few numbers of size 1."""
    columns, atoms = deviation(three)
    for k in range(4):
        f = np.array([p.force[k] for p in three])
        devi_f = [
            np.sqrt(np.mean([np.sum((f[m, i] - f[:, i].mean(0)) ** 2) for m in range(3)])) for i in range(5)
        ]
        v = np.array([p.virial[k].ravel() for p in three]) / 5
        devi_v = [np.std(v[:, c]) for c in range(9)]
        e = np.std([p.energy[k] for p in three]) / 5
        expected = [max(devi_v), min(devi_v), np.sqrt(np.mean(np.square(devi_v))), max(devi_f), min(devi_f)]
        np.testing.assert_allclose(columns[k], [*expected, np.mean(devi_f), e], rtol=1e-13)
        np.testing.assert_allclose(atoms[k], devi_f, rtol=1e-13)


def test_relative(three):
    _, plain = deviation(three)
    columns, atoms = deviation(three, relative=0.5, relative_v=0.25)
    mean = np.mean([p.force for p in three], axis=0)
    np.testing.assert_allclose(atoms, plain / (np.linalg.norm(mean, axis=-1) + 0.5), rtol=1e-13)
    np.testing.assert_allclose(columns[:, 3], atoms.max(axis=1), rtol=1e-13)
    v = np.array([p.virial.reshape(4, 9) for p in three]) / 5
    level = np.linalg.norm(v.mean(axis=0), axis=1) + 0.25
    np.testing.assert_allclose(columns[:, 0], v.std(axis=0).max(axis=1) / level, rtol=1e-13)


def test_real_error_needs_no_second_model(three):
    columns, atoms = deviation(three[:1], real_error=True)
    residual = three[0].force - three[0].system.labels["force"]
    np.testing.assert_allclose(atoms, np.linalg.norm(residual, axis=-1), rtol=1e-13)
    del three[0].system.labels["virial"]
    columns, _ = deviation(three[:1], real_error=True)
    assert np.isnan(columns[:, :3]).all() and np.isfinite(columns[:, 3:]).all()


def test_file(golden, frames, tmp_path):
    model = read_model(golden / "one_sided_triclinic.dp")
    for net in model.fitting.nets:
        net[-1].w += 0.1
    write_model(tmp_path / "other.dp", model)
    paths = [golden / "one_sided_triclinic.dp", tmp_path / "other.dp"]
    result = model_deviation(paths, frames(), frequency=10)
    assert result.systems[0].columns.min() > 0
    result.write(tmp_path / "model_devi.out")
    lines = open(tmp_path / "model_devi.out").read().splitlines()
    assert lines[0].startswith("# ") and lines[0].endswith("#/sys") and len(lines) == 5
    names = "# step max_devi_v min_devi_v avg_devi_v max_devi_f min_devi_f avg_devi_f devi_e"
    assert " ".join(lines[1].split()) == names and len(lines[3]) == 12 + 7 * 19
    table = np.loadtxt(tmp_path / "model_devi.out")
    assert table[:, 0].tolist() == [0, 10, 20]
    np.testing.assert_allclose(table[:, 1:], result.systems[0].columns, rtol=1e-6)  # seven digits are written
    result.write(tmp_path / "new" / "model_devi.out", atomic=True)
    assert np.loadtxt(tmp_path / "new" / "model_devi.out").shape == (3, 8 + 24)
    assert result.table().row_count == 1


def test_models_that_do_not_fit_are_refused(golden, frames):
    one = golden / "one_sided_triclinic.dp"
    with pytest.raises(ConfigError, match="two or more models, or one that holds"):
        model_deviation([one], frames())
    with pytest.raises(ConfigError, match="type_map"):
        model_deviation([one, golden / "two_sided_small_cell.dp"], frames())


@pytest.mark.parametrize("level", [{"relative": -1.0}, {"relative_v": float("nan")}])
def test_levels_are_not_negative(golden, frames, level):
    with pytest.raises(ConfigError, match="expected a level of 0 or more"):
        model_deviation([golden / "one_sided_triclinic.dp"] * 2, frames(), **level)
