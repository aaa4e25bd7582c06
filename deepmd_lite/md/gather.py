"""Values of all atoms at rank 0, rank after rank, so that no more than one share is under way at a time."""

import numpy as np


def slices(comm, ids, values):
    """On rank 0, yield (ids, values) of each rank; the others send theirs. Collective: exhaust it on all ranks."""
    ids, values = np.ascontiguousarray(ids), np.ascontiguousarray(values)
    if comm.rank > 0:
        comm.send(len(ids), dest=0)
        if len(ids):
            comm.Send(ids, dest=0)
            comm.Send(values, dest=0)
        return
    yield ids, values
    for rank in range(1, comm.size):
        n = comm.recv(source=rank)
        some_ids, some = np.empty(n, ids.dtype), np.empty((n, *values.shape[1:]), values.dtype)
        if n:
            comm.Recv(some_ids, source=rank)
            comm.Recv(some, source=rank)
        yield some_ids, some


def gathered(comm, natoms, ids, values):
    """On rank 0 the values of all atoms in order of id, (natoms, ...); None on the others. Collective."""
    whole = np.empty((natoms, *values.shape[1:]), values.dtype) if comm.rank == 0 else None
    for some_ids, some in slices(comm, ids, values):
        whole[some_ids] = some
    return whole
