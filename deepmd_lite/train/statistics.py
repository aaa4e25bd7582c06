"""What is measured on the training frames before training: env_mat mean and spread, energy per element.

All frames count (DeePMD-kit samples ``data_stat_nbatch`` batches).
"""

import numpy as np
import torch

from deepmd_lite.model.descriptor import radial


def env_mat_statistics(prepared, rcut, rcut_smth, sel, protection=0.0):
    """Mean ``davg`` and standard deviation ``dstd`` of the environment matrix by center type, (ntypes, 4) each.

    Notes
    -----
    Over all slots, the empty ones (zero rows) included. The three directions share one spread, their mean is 0.
    A spread below 0.01 is raised to 0.01; a type without data gets 0.1.
    """
    ntypes = len(sel)
    count, sums = np.zeros(ntypes), np.zeros((ntypes, 4))  # Σs, Σs², Σ(x+y+z)/3, Σ(x²+y²+z²)/3
    for batch in (f.batch for frames in prepared for f in frames):
        count += sum(sel) * np.bincount(batch.atype[batch.row], minlength=ntypes)
        center, vec = pair_vectors(batch)
        f = radial(torch.from_numpy(vec), rcut_smth, rcut, protection)
        s, xyz = f.s.numpy(), f.t.numpy()[:, None] * vec
        for k, values in enumerate((s, s**2, xyz.sum(1) / 3, (xyz**2).sum(1) / 3)):
            sums[:, k] += np.bincount(batch.atype[center], values, minlength=ntypes)
    davg, dstd = np.zeros((ntypes, 4)), np.full((ntypes, 4), 0.1)
    for ti in np.flatnonzero(count):
        s, s2, a, a2 = sums[ti] / count[ti]
        davg[ti, 0] = s
        dstd[ti] = np.maximum(np.sqrt(np.maximum([s2 - s * s] + [a2 - a * a] * 3, 0)), 1e-2)
    return davg, dstd


def pair_vectors(batch):
    """Of all pairs of a batch, the row of the center (npairs,) and the vector to the neighbor (npairs, 3), Å."""
    coord, center = batch.coord.numpy(), np.repeat(batch.row, np.diff(batch.first))
    return center, coord[batch.index] - coord[center]


def closest_pair(prepared):
    """The smallest distance of two atoms in any frame, Å; DeePMD-kit needs it to compress a model."""
    vectors = (pair_vectors(f.batch)[1] for frames in prepared for f in frames)
    return min((float(np.linalg.norm(v, axis=1).min(initial=np.inf)) for v in vectors), default=np.inf)


def energy_bias(prepared, ntypes, fixed=None):
    """Energy per element, (ntypes,) eV: least squares of the frames' energies on their composition.

    Parameters
    ----------
    prepared : list of list of dataset.Frame
    ntypes : int
    fixed : list of float or None, optional
        Energies that are given (``atom_ener``); the others are fitted to the rest.

    Notes
    -----
    The solution of least norm where compositions do not tell the elements apart (water: twice as much for H as
    for O, since every frame has two H for one O).
    """
    counts, energy = [], []
    for frame in (f for frames in prepared for f in frames):
        if bool(frame.labels.found["energy"]):
            counts.append(np.bincount(frame.batch.atype[frame.batch.row], minlength=ntypes))
            energy.append(float(frame.labels.energy))
    bias = np.zeros(ntypes)
    free = np.ones(ntypes, bool)
    for t, e in enumerate(fixed or []):
        if e is not None:
            bias[t], free[t] = e, False
    if energy and free.any():
        counts = np.array(counts, float)
        bias[free] = np.linalg.lstsq(counts[:, free], np.array(energy) - counts @ bias, rcond=1e-10)[0]
    return bias


def parameter_statistics(prepared, name, width):
    """Mean and inverse spread of fparam or aparam over the training frames, (width,) each."""
    if width == 0:
        return None, None
    values = torch.cat([getattr(f.batch, name) for frames in prepared for f in frames]).numpy()
    return values.mean(0), 1 / np.maximum(values.std(0), 1e-2)
