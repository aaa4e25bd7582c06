"""`dplite test`: the errors that were put on top of a model's own predictions are found again.

Tolerance: predictions reproduce the golden ones within 1e-10 eV and eV/Å (PROMISES), labels are stored in
float64, so errors of size 1 must come back within 1e-9 relative.
"""

import numpy as np
import pytest
from rich.console import Console

from deepmd_lite.errors import ConfigError, DataError, ModelFileError
from deepmd_lite.evaluate import test as evaluation

CLOSE = 1e-9


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


def text(table):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    console.print(table)
    return console.export_text()


def test_errors_come_back(golden, frames, noise):
    report = evaluation.test_model(golden / "one_sided_triclinic.dp", frames())
    shift = noise(3, 24)
    (system,) = report.systems
    assert (system.nframes, system.natoms) == (3, 24)
    assert system.energy.rmse == pytest.approx(rms(shift["energy"] / 24), rel=CLOSE)
    assert system.force.rmse == pytest.approx(rms(shift["force"]), rel=CLOSE)
    assert system.force.mae == pytest.approx(np.abs(shift["force"]).mean(), rel=CLOSE)
    assert system.virial.mae == pytest.approx(np.abs(shift["virial"]).mean() / 24, rel=CLOSE)
    assert (system.energy.count, system.force.count, system.virial.count) == (3, 3 * 24 * 3, 3 * 9)
    assert report.total.force == system.force
    atype = np.load(golden / "one_sided_triclinic.npz")["atype"]
    for t, element in enumerate("OH"):
        assert report.elements[element].rmse == pytest.approx(rms(shift["force"][:, atype == t]), rel=CLOSE)


def test_total_is_over_all_numbers_of_all_systems(golden, frames, noise):
    """Three frames with forces and three without: the total is not the mean of the systems' errors."""
    model = golden / "one_sided_triclinic.dp"
    addresses = [frames(name="data.h5#/a"), frames(labels=("energy",), name="data.h5#/b")]
    report = evaluation.test_model(model, addresses)
    assert report.total.nframes == 6 and report.total.energy.count == 6
    assert report.systems[1].force is None and report.total.force == report.systems[0].force
    assert report.total.energy.rmse == pytest.approx(rms(noise(3, 24)["energy"]) / 24, rel=CLOSE)
    shown = text(report.table())
    assert "all" in shown and " - " in shown and "meV/Å" in shown and "#/b" in shown
    assert "O " in text(report.element_table())


def test_missing_labels_do_not_count(golden, frames, noise):
    found = np.array([True, False, True])
    report = evaluation.test_model(golden / "one_sided_triclinic.dp", frames(found=found))
    shift = noise(3, 24)
    assert report.total.energy.count == 2 and report.total.nframes == 3
    assert report.total.force.rmse == pytest.approx(rms(shift["force"][found]), rel=CLOSE)


def test_open_boundaries(golden, frames, noise):
    report = evaluation.test_model(golden / "cluster_nopbc.dp", frames("cluster", labels=("energy", "force")))
    assert report.total.virial is None
    assert report.total.force.rmse == pytest.approx(rms(noise(3, 17)["force"]), rel=CLOSE)


def test_detail_files_have_the_columns_of_deepmd_kit(golden, frames, noise, tmp_path):
    prefix = tmp_path / "new folder" / "out.v1"
    evaluation.test_model(golden / "one_sided_triclinic.dp", frames(), detail=prefix)
    shift, z = noise(3, 24), np.load(golden / "one_sided_triclinic.npz")
    names = ["e.out", "e_peratom.out", "f.out", "v.out", "v_peratom.out"]
    assert sorted(p.name for p in prefix.parent.iterdir()) == [f"out.v1.{name}" for name in names]
    table = {name: np.loadtxt(f"{prefix}.{name}") for name in names}
    assert [t.shape for t in table.values()] == [(3, 2), (3, 2), (72, 6), (3, 18), (3, 18)]
    np.testing.assert_allclose(table["e.out"][:, 1], z["energy"][:3], rtol=0, atol=1e-10)  # eV
    np.testing.assert_allclose(table["e_peratom.out"], table["e.out"] / 24, rtol=1e-14)
    np.testing.assert_allclose(
        table["f.out"][:, :3] - table["f.out"][:, 3:], shift["force"].reshape(-1, 3), atol=1e-9
    )
    np.testing.assert_allclose(table["v.out"][:, 9:], z["virial"][:3].reshape(3, 9), rtol=0, atol=1e-9)  # eV
    header = open(f"{prefix}.f.out").readline()
    assert header.endswith("#/sys: data_fx data_fy data_fz pred_fx pred_fy pred_fz\n")


def test_no_labels_and_wrong_model_are_refused(golden, frames, tmp_path):
    with pytest.raises(DataError, match="expected energy, force or virial labels, found none"):
        evaluation.test_model(golden / "one_sided_triclinic.dp", frames(labels=()))
    with pytest.raises(ModelFileError, match="no such file"):
        evaluation.test_model(tmp_path / "none.dp", frames())


def test_no_table_of_elements_without_forces(golden, frames):
    report = evaluation.test_model(golden / "one_sided_triclinic.dp", frames(labels=("energy",)))
    assert text(report.element_table()) == ""


@pytest.mark.parametrize("name", ["p.xyz", "p"])
def test_a_picture_is_refused_before_the_model_is_read(tmp_path, name):
    with pytest.raises(ConfigError, match="expected a picture such as"):
        evaluation.test_model(tmp_path / "none.dp", tmp_path, plots=tmp_path / name)
