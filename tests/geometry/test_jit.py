"""Kernels where nothing can be written: compiled in memory."""

import numba

from deepmd_lite.jit import jit


def test_no_place_for_a_cache(monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/nowhere")

    @jit()
    def double(x):
        return 2 * x

    assert double(3) == 6
