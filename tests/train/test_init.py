"""What dplite init chooses by the frames."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from deepmd_lite import write_system
from deepmd_lite.frames.store import System, open_systems
from deepmd_lite.train.dataset import Frames
from deepmd_lite.train.init import choose_rcut, make_input
from deepmd_lite.train.statistics import survey


def chain(length):
    """Ten atoms of neon from 0 to ``length`` Å, in vacuum."""
    return Atoms("Ne10", np.linspace(0, length, 10)[:, None] * [1, 0, 0])


def write_frames(path, name, atoms, energy):
    """As many frames of the same atoms as there are energies."""
    type_map, n = tuple(dict.fromkeys(atoms.symbols)), len(energy)
    system = System(
        name=name,
        type_map=type_map,
        atype=np.array([type_map.index(s) for s in atoms.symbols], np.int32),
        coord=np.repeat(atoms.positions[None], n, 0),
        box=np.repeat(np.array(atoms.cell)[None], n, 0) if atoms.pbc.all() else None,
        pbc=atoms.pbc,
        labels={"energy": energy},
        found={"energy": np.ones(n, bool)},
        source_dtype={},
    )
    write_system(f"{path}#/{name}", system)
    return type_map


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
    type_map = write_frames(tmp_path / "frames.h5", "only", atoms, np.zeros(1))
    systems = open_systems([str(tmp_path / "frames.h5")], None)
    chosen, found = choose_rcut(systems, len(type_map))
    assert chosen == rcut
    assert (found.neighbors == survey(Frames(systems, rcut, len(type_map)), 0.5).neighbors).all()


@pytest.mark.parametrize(("spread", "limit"), [(0.4, 1), (0.6, 20)])
def test_energies_of_several_structures_weigh_more(spread, limit, tmp_path):
    """Frames of 4 and of 8 atoms, whose energies scatter by ``spread`` √N eV about 3 eV an atom."""
    for natoms in (4, 8):
        energy = 3.0 * natoms + spread * np.sqrt(natoms) * np.array([-1, 1, 1, -1])
        write_frames(
            tmp_path / "frames.h5", f"of_{natoms}", bulk("Cu", cubic=True) * (natoms // 4, 1, 1), energy
        )
    loss = make_input([str(tmp_path / "frames.h5")], rcut=3.0, steps=1)["loss"]
    assert loss["limit_pref_e"] == limit and loss["limit_pref_v"] == 0
