"""The cutoff that dplite init chooses."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from deepmd_lite import write_system
from deepmd_lite.frames.store import System, open_systems
from deepmd_lite.train.dataset import Frames
from deepmd_lite.train.init import choose_rcut
from deepmd_lite.train.statistics import survey


def chain(length):
    """Ten atoms of neon from 0 to ``length`` Å, in vacuum."""
    return Atoms("Ne10", np.linspace(0, length, 10)[:, None] * [1, 0, 0])


@pytest.mark.parametrize(
    ("atoms", "rcut"),
    [
        (bulk("Cu", cubic=True), 6),  # 78 neighbors within 6 Å
        (bulk("Si", cubic=True), 7),  # 46; 86 within 7 Å
        (bulk("Po", "sc", a=3.4), 8),  # 26, 32, 56
        (molecule("CH3CH2OH"), 6),  # smaller than any cutoff
        (chain(12.2), 7),  # the ends are 6.8 Å from the middle
        (chain(90.0), 6),  # no neighbors at all
    ],
    ids=str,
)
def test_the_cutoff_follows_the_number_of_neighbors(atoms, rcut, tmp_path):
    type_map = tuple(dict.fromkeys(atoms.symbols))
    system = System(
        name="test",
        type_map=type_map,
        atype=np.array([type_map.index(s) for s in atoms.symbols], np.int32),
        coord=atoms.positions[None],
        box=np.array(atoms.cell)[None] if atoms.pbc.all() else None,
        pbc=atoms.pbc,
        labels={"energy": np.zeros(1)},
        found={"energy": np.ones(1, bool)},
        source_dtype={},
    )
    write_system(f"{tmp_path}/frames.h5#/only", system)
    systems = open_systems([str(tmp_path / "frames.h5")], None)
    chosen, found = choose_rcut(systems, len(type_map))
    assert chosen == rcut
    assert (found.neighbors == survey(Frames(systems, rcut, len(type_map)), 0.5).neighbors).all()
