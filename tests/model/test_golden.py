"""The model reproduces what DeePMD-kit 3.2.0 predicts (tests/golden)."""

from pathlib import Path

import numpy as np
import pytest

from deepmd_lite import DeepPot

GOLDEN = Path(__file__).parents[1] / "golden"
BAR = 1e-10  # eV, eV/Å: summation order alone differs, about 1e-14


@pytest.mark.parametrize("name", ["one_sided_triclinic", "two_sided_small_cell", "cluster_nopbc"])
def test_equals_deepmd_kit(name):
    potential = DeepPot.load(GOLDEN / f"{name}.dp")
    with np.load(GOLDEN / f"{name}.npz") as golden:
        periodic = golden["box"].size > 0
        for k, coord in enumerate(golden["coord"]):
            box = golden["box"][k] if periodic else None
            found = potential.evaluate(coord, golden["atype"], box, [periodic] * 3)
            for key in ("energy", "atom_energy", "force", "virial"):
                np.testing.assert_allclose(getattr(found, key), golden[key][k], rtol=0, atol=BAR, err_msg=key)
