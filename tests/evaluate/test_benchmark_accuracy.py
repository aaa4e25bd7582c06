"""scripts/benchmark_accuracy.py: the units of its errors, and the page it writes."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_accuracy.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_accuracy", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_errors_are_over_frames_and_components(script, tmp_path):
    """Two frames of two atoms: energies off by 1 and 3 eV, one force component of twelve by 0.6 eV/Å."""
    force = np.zeros((4, 6))
    force[2, 4] = -0.6
    np.savetxt(tmp_path / "t.e.out", [[-10, -9], [-11, -14]], header="data_e pred_e")
    np.savetxt(tmp_path / "t.e_peratom.out", [[-5, -4.5], [-5.5, -7]])
    np.savetxt(tmp_path / "t.f.out", force)
    (tmp_path / "t.v_peratom.out").write_text("")
    found = script.errors(tmp_path / "t")
    assert found == {
        "energy": {"count": 2, "rmse": pytest.approx(1000 * 5**0.5), "mae": pytest.approx(2000)},
        "energy_per_atom": {"count": 2, "rmse": pytest.approx(500 * 5**0.5), "mae": pytest.approx(1000)},
        "force": {"count": 12, "rmse": pytest.approx(600 / 12**0.5), "mae": pytest.approx(50)},
    }


def test_the_page_has_every_set_in_its_unit(script):
    def error(number):
        return {"count": 1, "rmse": number, "mae": number + 0.5}

    tests = {"energy": error(1), "energy_per_atom": error(2), "force": error(3), "virial_per_atom": error(4)}
    results = {
        name: {
            "tests": {next(iter(b.tests)): tests},  # acac: without frames at 600 K
            "frames": "Trained on A, tested on B.",
            "minutes": 60,
            "seconds": 3500.0,
            "steps": 70000,
            "peak_memory_MB": 800,
            "hardware": "2 threads",
        }
        for name, b in script.BENCHMARKS.items()
    }
    page = script.render(results).splitlines()
    ours = [[cell.strip(" *") for cell in row.split("|")[2:-1]] for row in page if "deepmd_lite**" in row]
    assert ours == [["2", "3"], ["2.5", "3.5"], ["2.5", "3.5", "4.5"], ["1.5", "3.5"], ["1", "3", "–", "–"]]
    assert any("58.3 min | 70,000 | 50.0 ms | 800 MB" in row for row in page)
    for row, following in pairwise(page):  # rows of a table have as many cells
        if row.startswith("|") and following.startswith("|"):
            assert row.count("|") == following.count("|"), row
