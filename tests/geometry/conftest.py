"""Neighbor tables as sets, the form in which lists are compared."""

import numpy as np
import pytest


def as_set(i, j, shift):
    """{(i, j, shift)}: x_j + shift @ box is a neighbor of x_i; each must be listed once."""
    rows = [tuple(row) for row in np.column_stack((i, j, np.reshape(shift, (-1, 3)))).astype(int).tolist()]
    assert len(set(rows)) == len(rows), "a pair is listed twice"
    return set(rows)


def table_pairs(ghosts, table, rcut=np.inf):
    """The pairs of a table that are closer than rcut, as `as_set`."""
    centers = np.repeat(np.arange(len(table.first) - 1), np.diff(table.first))
    vec = ghosts.coord[table.index] - ghosts.coord[centers]
    near = np.einsum("kd,kd->k", vec, vec) < rcut**2
    centers, index = centers[near], table.index[near]
    return as_set(centers, ghosts.owner[index], ghosts.shift[index] - ghosts.shift[centers])


@pytest.fixture(name="as_set", scope="session")
def _as_set():
    return as_set


@pytest.fixture(name="table_pairs", scope="session")
def _table_pairs():
    return table_pairs
