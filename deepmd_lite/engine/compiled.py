"""A model made ready for the kernels: `CompiledPot`.

What is fixed by the weights alone is worked out here once, in float64: tables of the embedding nets, the constant
of empty slots, the first layer of the fitting net for the symmetric half of D.
"""

import numba
import numpy as np

from deepmd_lite import model_file
from deepmd_lite.box import extend
from deepmd_lite.contract import MIN_DISTANCE, Prediction, checked_parameter, refuse_overlap, tell_overflow
from deepmd_lite.engine import kernels, shortrange
from deepmd_lite.engine.network import flatten, jvp
from deepmd_lite.engine.tables import CLOSEST, NEAREST, TableError, tabulate
from deepmd_lite.errors import ConfigError
from deepmd_lite.model_file import Layer
from deepmd_lite.neighbors import cell_list
from deepmd_lite.workers import run_on_threads

BLOCK = 192  # atoms of one type whose fitting nets are one matrix product
TOLERANCE = {"float64": TableError(3e-11, 3e-9), "float32": TableError(1e-7, 1e-5)}


class CompiledPot:
    """A Deep Potential evaluated by Numba kernels.

    Parameters
    ----------
    model : model_file.Model
    precision : "float64" or "float32"
        Of the arithmetic; energies and forces are summed in float64 in either case.
    threads : int, optional
        As many as Numba has (``NUMBA_NUM_THREADS``, the cores by default) when left out.
    block : int
        Atoms that go through the fitting net together; memory grows with it, results do not depend on it.
    tolerance : (float, float), optional
        Largest error of G and of dG/dx in the tables; what was reached is ``table_error``.

    Raises
    ------
    ConfigError
        An unknown precision; fewer than one thread, or than one atom in a block.
    """

    def __init__(self, model, precision="float64", threads=None, block=BLOCK, tolerance=None):
        if precision not in TOLERANCE:
            raise ConfigError(f"precision {precision!r}: expected float64 or float32")
        threads = numba.config.NUMBA_NUM_THREADS if threads is None else threads
        if threads < 1:
            raise ConfigError(f"threads = {threads}: expected 1 or more")
        if block < 1:
            raise ConfigError(f"block = {block}: expected 1 or more")
        self.model, self.precision, self.threads, self.block = model, precision, int(threads), int(block)
        self._potential, self.table_error = _prepare(
            model, np.dtype(precision), TableError(*(tolerance or TOLERANCE[precision]))
        )
        self._shortrange = shortrange.prepare(model)
        self._overflow_told = False

    @classmethod
    def load(cls, path, **options):
        """Read a ``.dp`` file; raises ModelFileError."""
        return cls(model_file.read_model(path), **options)

    @property
    def type_map(self):
        return tuple(self.model.type_map)

    @property
    def ntypes(self):
        return len(self.model.type_map)

    @property
    def rcut(self):
        return self.model.descriptor.rcut

    @property
    def sel(self):
        return tuple(self.model.descriptor.sel)

    def evaluate(self, coord, atype, box, pbc, fparam=None, aparam=None, atom_virial=False):
        """Energy, forces and virial of one structure; as `model.potential.DeepPot.evaluate`."""
        ghosts = extend(coord, box, pbc, self.rcut)
        table = cell_list(ghosts.coord, len(atype), self.rcut)
        return self.evaluate_neighbors(ghosts, table, atype, fparam, aparam, atom_virial)

    def evaluate_neighbors(self, ghosts, table, atype, fparam=None, aparam=None, atom_virial=False):
        """As `evaluate`, for ghosts and a neighbor table that are known; pairs beyond rcut do not count."""
        frame = self.frame(ghosts, table, atype, fparam, aparam)
        sums = self.sums(frame, len(atype), len(atype), atom_virial)
        shares = sums.atom_virial.sum(axis=0).reshape(-1, 3, 3) if atom_virial else None
        virial = sums.virial.sum(axis=0).reshape(3, 3)
        return Prediction(float(sums.energy.sum()), sums.energy, sums.force.sum(axis=0), virial, shares)

    def frame(self, ghosts, table, atype, fparam=None, aparam=None):
        """`kernels.Frame` of a structure whose forces on ghosts go to their owners."""
        atype = np.ascontiguousarray(atype, np.int32)
        extra = self._extra(fparam, aparam, len(atype))
        return kernels.Frame(ghosts.coord, atype[ghosts.owner], ghosts.owner, table.first, table.index, extra)

    def sums(self, frame, nloc, nowners, atom_virial=False, names=None, share=(0, 1)):
        """Run the kernel: `kernels.Sums` of a `kernels.Frame`, a table of close pairs blended in.

        Parameters
        ----------
        frame : kernels.Frame
        nloc, nowners : int
            Atoms whose energies are wanted; places for forces, which ``frame.owner`` points into.
        atom_virial : bool
        names : (nall,) int array, optional
            What a message calls atoms and ghosts; ``frame.owner`` when left out.
        share : (int, int)
            Which of how many equal shares of the atoms to evaluate.

        Raises
        ------
        DomainError
            Two atoms closer than 0.01 Å, or than the model's table begins.
        """
        order, blocks = self._blocks(frame.atype[:nloc], share[1])
        blocks = np.ascontiguousarray(blocks[share[0] :: share[1]])
        nworkers = min(self.threads, max(1, len(blocks)))
        sums = kernels.Sums(
            np.zeros(nloc),
            np.zeros((nworkers, nowners, 3)),
            np.zeros((nworkers, 9)),
            np.zeros((nworkers, nowners if atom_virial else 0, 9)),
            np.zeros((nworkers, self.ntypes), np.int64),
            np.full((nworkers, 3), np.inf),
        )
        kernel = kernels.evaluate64 if self.precision == "float64" else kernels.evaluate32
        below = np.full((nworkers, 3), np.inf)
        if self._shortrange is not None:
            frame = frame._replace(weight=np.ones(nloc))
            kernel = shortrange.blended(kernel, self._shortrange, below)
        share = (self._potential, frame, order, blocks, sums)
        run_on_threads(kernel, nworkers, *share)
        rr, i, j = min(sums.closest.tolist())
        if rr < MIN_DISTANCE**2:
            refuse_overlap(frame.coord, int(i), int(j), frame.owner if names is None else names)
        r, i, j = min(below.tolist())
        if r < np.inf:
            begin = self._shortrange.grid[0]
            refuse_overlap(frame.coord, int(i), int(j), frame.owner if names is None else names, begin)
        if not self._overflow_told:
            self._overflow_told = tell_overflow(sums.most.max(axis=0), self.sel, self.rcut)
        return sums

    def _blocks(self, atype, shares):
        """Atoms sorted by type, and blocks (begin, end, type) of them, as many of each type for every worker."""
        workers = self.threads * shares
        order = np.argsort(atype, kind="stable").astype(np.int32)
        count = np.bincount(atype, minlength=self.ntypes)
        blocks, begin = [], 0
        for t, n in enumerate(count):
            if n and t not in self.model.atom_exclude_types:
                parts = min(n, workers * -(-n // (workers * self.block)))
                edges = begin + n * np.arange(parts + 1) // parts
                blocks.append(np.column_stack((edges[:-1], edges[1:], np.full(parts, t))))
            begin += n
        return order, np.concatenate(blocks) if blocks else np.zeros((0, 3), np.int64)

    def _extra(self, fparam, aparam, natoms):
        """What the fitting net takes beside D, (natoms, numb_fparam + numb_aparam)."""
        columns = [np.zeros((natoms, 0))]
        for name, value, rows in (("fparam", fparam, 1), ("aparam", aparam, natoms)):
            value = checked_parameter(self.model.fitting, name, value, rows)
            if value is not None:
                average, inverse = (getattr(self.model.fitting, f"{name}_{k}") for k in ("avg", "inv_std"))
                columns.append(np.broadcast_to((value - average) * inverse, (natoms, value.shape[1])))
        return np.concatenate(columns, axis=1).astype(self.precision)


def _prepare(model, dtype, tolerance):
    """`kernels.Potential` of a model, and the error of its tables."""
    d, f, ntypes = model.descriptor, model.fitting, len(model.type_map)
    symmetric = lambda pairs: {(int(a), int(b)) for pair in pairs for a, b in (pair, pair[::-1])}  # noqa: E731
    unseen, removed = symmetric(d.exclude_types), symmetric(model.pair_exclude_types)
    embedding = flatten(d.nets)
    nearest = NEAREST * (model.min_nbor_dist or CLOSEST)
    ranges = np.full((len(d.nets), 2), np.nan)
    net = np.full((ntypes, ntypes), -1)
    slot = np.zeros((ntypes, ntypes, d.neuron[-1]))
    padding = np.zeros((ntypes, d.neuron[-1]))
    for ti, tj in np.ndindex(ntypes, ntypes):
        if (ti, tj) in unseen:
            continue
        k = tj if d.type_one_side else ti + ntypes * tj
        low, high = (np.array([0.0, _largest_s(d, nearest)]) - d.davg[ti, 0]) / d.dstd[ti, 0]
        ranges[k] = np.fmin(ranges[k, 0], low), np.fmax(ranges[k, 1], high)
        g = jvp(np.full(1, low), embedding.layers[k], embedding.weights)[0][0]
        slot[ti, tj] = low * g
        padding[ti] += d.sel[tj] * slot[ti, tj]
        net[ti, tj] = -1 if (ti, tj) in removed else k
    tables, error = tabulate(embedding, ranges, tolerance, dtype)
    nets = [_half(layers, d) for layers in f.nets]
    from_zero = np.array([e is not None for e in f.atom_ener or [None] * ntypes])
    potential = kernels.Potential(
        cutoff=np.array([d.rcut, d.rcut_smth, d.env_protection], float),
        davg=d.davg[:, 0].astype(dtype),
        inverse_std=(1 / d.dstd[:, :2]).astype(dtype),
        net=net,
        slot=slot.astype(dtype),
        padding=padding.astype(dtype),
        per_slot=np.array([1 / sum(d.sel)], dtype),
        axis=np.array([d.axis_neuron]),
        tables=tables,
        embedding=embedding,
        fitting=flatten(nets, dtype),
        from_zero=from_zero,
        bias=np.asarray(f.bias_atom_e + model.out_bias, float),
    )
    return potential, error


def _largest_s(d, r):
    """s(r) of a descriptor record, 1/Å."""
    u = np.clip((r - d.rcut_smth) / (d.rcut - d.rcut_smth), 0, 1)
    return (1 + u**3 * (-10 + u * (15 - 6 * u))) / (r + d.env_protection)


def _half(layers, d):
    """Layers of a fitting net that take D_ab (b < M₂, a >= b, b first) in place of all D_ab (a first).

    The rows of D_ab and D_ba are added. Where the first layer passes its input on, an exact linear layer that
    restores D goes before it instead.
    """
    width, axis = d.neuron[-1], d.axis_neuron
    first = layers[0]
    nin, nout = first.w.shape
    passes = first.resnet and nout in (nin, 2 * nin)
    w = np.eye(nin) if passes else np.asarray(first.w, float)
    rows = []
    for b in range(axis):
        block = w[np.arange(b, width) * axis + b]
        block[1 : axis - b] += w[b * axis + np.arange(b + 1, axis)]
        rows.append(block)
    w = np.concatenate([*rows, w[width * axis :]])
    if passes:
        return [Layer(w=w, b=None, idt=None, activation="none", resnet=False), *layers]
    return [Layer(w=w, b=first.b, idt=first.idt, activation=first.activation, resnet=False), *layers[1:]]
