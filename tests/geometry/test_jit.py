"""Kernels: their cache, and the one signature each that keeps it free of races."""

import numba
import numpy as np

from deepmd_lite import box, neighbors
from deepmd_lite.jit import jit


def test_no_place_for_a_cache(monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/nowhere")

    @jit()
    def double(x):
        return 2 * x

    assert double(3) == 6


def test_kernels_have_one_signature_whatever_array_they_are_given():
    coord = np.random.default_rng(0).random((6, 3)) * 5
    frozen = coord.copy()
    frozen.flags.writeable = False
    skin = neighbors.NeighborList(3.0, 1.0)
    for given in (
        coord,
        frozen,
        np.asfortranarray(coord),
        coord.astype(np.float32),
        coord[::2],
        coord.tolist(),
    ):
        for pbc in ((True, True, False), [1, 1, 1], np.ones(3, bool)):
            ghosts, _ = skin.update(given, np.asfortranarray(5 * np.eye(3) + 0.1), pbc)
            neighbors.trim(neighbors.cell_list(ghosts.coord, np.int32(len(given)), 3), ghosts.coord, 2)
            skin.update(given, 5 * np.eye(3), pbc)
    kernels = [box._wrap, box._count_images, box._add_images]
    kernels += [neighbors._sweep, neighbors._keep_near, neighbors._track, neighbors._place]
    assert [len(k.signatures) for k in kernels] == [1] * 7
