"""Three frames of each golden model with known errors put on top of their predictions."""

from pathlib import Path

import numpy as np
import pytest

from deepmd_lite.frames.store import write_system
from deepmd_lite.frames.system import System

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = {"periodic": "one_sided_triclinic", "cluster": "cluster_nopbc"}


def read(kind):
    with np.load(GOLDEN / f"{NAMES[kind]}.npz") as z:
        return dict(z)


@pytest.fixture
def golden():
    return GOLDEN


@pytest.fixture
def noise():
    """Differences of labels from predictions, by label, for (nframes, natoms)."""

    def make(nframes, natoms):
        rng = np.random.default_rng(3)
        shapes = {"energy": (nframes,), "force": (nframes, natoms, 3), "virial": (nframes, 3, 3)}
        return {label: rng.normal(size=shape) for label, shape in shapes.items()}

    return make


@pytest.fixture
def frames(tmp_path, noise):
    """Write golden frames whose labels are the prediction plus noise; returns the address."""

    def make(kind="periodic", labels=("energy", "force", "virial"), found=None, name="data.h5#/sys"):
        z = {key: v[:3] if key not in ("atype", "type_map") else v for key, v in read(kind).items()}
        nframes, natoms = z["force"].shape[:2]
        shift = noise(nframes, natoms)
        periodic = kind == "periodic"
        system = System(
            name="",
            type_map=tuple(str(s) for s in z["type_map"]),
            atype=z["atype"].astype(np.int32),
            coord=z["coord"],
            box=z["box"] if periodic else None,
            pbc=np.full(3, periodic),
            labels={label: z[label] + shift[label] for label in labels},
            found={label: np.ones(nframes, bool) if found is None else found for label in labels},
        )
        write_system(f"{tmp_path}/{name}", system)
        return f"{tmp_path}/{name}"

    return make
