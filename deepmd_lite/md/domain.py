"""Domain decomposition: which rank owns an atom, and whose atoms are whose ghosts.

The cell is cut in fractional coordinates, one axis after the other: slabs along the first axis, each slab into
columns along the second, each column into boxes along the third, so that every rank owns the same number of atoms
wherever they are (a half-empty box, a droplet)::

      ┌────────┬─────┬──────┐
      │   1    │  3  │      │       cuts are quantiles of the atoms, not of the volume;
      │        ├─────┤  5   │       the neighbors of a box need not be aligned with it
      ├────────┤     ├──────┤
      │   0    │  2  │  4   │
      └────────┴─────┴──────┘

Four verbs (Plimpton, J. Comput. Phys. 117, 1, 1995; the names are miniMD's):

    exchange   atoms move to the rank in whose box they are now; count and ids are checked
    borders    every image of an own atom that lies within the reach of another box (or of the own one) becomes a
               ghost there; who sends what to whom is remembered
    forward    positions of atoms  -> their ghosts
    reverse    forces on ghosts    -> their atoms

A ghost is sent straight to each rank that needs it. Boxes thinner than the reach, several images of one atom, empty
ranks, open axes and any cell are then no special cases: more ranks and shifts have to be asked, nothing else.
"""

import itertools

import numpy as np

from deepmd_lite.box import ROUNDING, face_distances, wrap
from deepmd_lite.errors import ConfigError, DomainError
from deepmd_lite.jit import jit
from deepmd_lite.neighbors import cell_list

BINS = 4096  # of the histograms from which quantiles are taken
MIGRATING = ("coord", "velocity", "image", "id", "atype", "mass", "mobile")  # of a `State`
IMBALANCE = 1.1  # most atoms of a rank over the mean, from which on boxes are cut anew
ODD = np.uint64(
    0x9E3779B97F4A7C15
)  # spreads ids over 64 bits: a checksum that notices a lost and a doubled atom


def choose_grid(size, lengths):
    """Ranks along each axis: the factors of ``size`` whose boxes have the least surface.

    Parameters
    ----------
    size : int
    lengths : (3,) array, Å
        Extent of the atoms along each axis.

    Returns
    -------
    (3,) tuple of int
    """
    triples = [
        (a, b, size // a // b)
        for a in range(1, size + 1)
        for b in range(1, size // a + 1)
        if size % a == 0 and size // a % b == 0
    ]

    def surface(grid):
        x, y, z = np.maximum(lengths, 1e-3) / grid
        return x * y + y * z + z * x

    return min(triples, key=surface)


@jit()
def _owners(frac, x, y, z, owner):
    """The rank in whose box each atom is: number of inner cuts at or below its coordinate, axis by axis."""
    for i in range(len(frac)):
        a = np.searchsorted(x[1:-1], frac[i, 0], side="right")
        b = np.searchsorted(y[a, 1:-1], frac[i, 1], side="right")
        c = np.searchsorted(z[a, b, 1:-1], frac[i, 2], side="right")
        owner[i] = (a * (y.shape[1] - 1) + b) * (z.shape[2] - 1) + c


@jit()
def _inside(frac, low, high, index):
    """Atoms in [low, high]: their number; their places into ``index`` when that has room."""
    n = 0
    for i in range(len(frac)):
        if (
            low[0] <= frac[i, 0] <= high[0]
            and low[1] <= frac[i, 1] <= high[1]
            and low[2] <= frac[i, 2] <= high[2]
        ):
            if len(index) > 0:
                index[n] = i
            n += 1
    return n


@jit()
def _pack(coord, index, shift, cell, buffer):
    """Positions of the images that are sent."""
    for k in range(len(index)):
        i = index[k]
        for d in range(3):
            move = shift[k, 0] * cell[0, d] + shift[k, 1] * cell[1, d] + shift[k, 2] * cell[2, d]
            buffer[k, d] = coord[i, d] + move


@jit()
def _add(force, index, buffer):
    """Forces that come back, in the order of sending: the same sum at every run."""
    for k in range(len(index)):
        for d in range(3):
            force[index[k], d] += buffer[k, d]


@jit()
def _largest_move(coord, coord0, deformation):
    """Largest distance of an atom from where the deformation of the cell alone would have taken it, Å."""
    largest = 0.0
    for i in range(len(coord)):
        rr = 0.0
        for d in range(3):
            home = (
                coord0[i, 0] * deformation[0, d]
                + coord0[i, 1] * deformation[1, d]
                + coord0[i, 2] * deformation[2, d]
            )
            rr += (coord[i, d] - home) ** 2
        largest = max(largest, rr)
    return np.sqrt(largest)


class Domain:
    """The box of this rank, its ghosts, and its neighbor list.

    Parameters
    ----------
    comm : mpi4py communicator
    state : state.State
        Migrations reorder its atoms and replace its arrays.
    rcut, skin : float, Å
        The list reaches to rcut + skin and is made again before a pair from beyond could come within rcut.
    grid : (3,) int, optional
        Ranks along each axis; chosen for the least surface when left out.

    Raises
    ------
    ConfigError
        A grid that does not multiply to the number of ranks.

    Attributes
    ----------
    coord : (nall, 3) array, Å
        Atoms, then ghosts; ``state.coord`` is a view of its first part.
    atype, id : (nall,) arrays
    table : neighbors.NeighborTable
    builds : int
    """

    def __init__(self, comm, state, rcut, skin, grid=None):
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.state, self.rcut, self.reach = state, rcut, rcut + skin
        self.grid = tuple(grid) if grid is not None else choose_grid(comm.size, self._lengths())
        if np.prod(self.grid) != comm.size:
            raise ConfigError(f"grid {list(self.grid)}: expected factors of {comm.size}, the number of ranks")
        self.builds = 0
        self._expected = self._checksum()
        self.settle()

    # ---- what the simulation calls ------------------------------------------------------------------------

    def settle(self):
        """Cut anew, exchange, find ghosts and neighbors: from here on everything follows from the state alone."""
        self._balance()
        self.rebuild()

    def rebuild(self):
        """Exchange, ghosts and neighbors where atoms are now; cuts are moved when ranks have become unequal."""
        self.table = self.coord = None  # with the new ones they would be the peak of memory
        self.exchange()
        most = np.array(len(self.state.id))
        largest = np.empty_like(most)
        self.comm.Allreduce(most, largest, op=_mpi().MAX)
        if self.builds and largest > IMBALANCE * self.state.natoms / self.size + 1:
            self._balance()
            self.exchange()
        self.borders()
        self.table = cell_list(self.coord, len(self.state.id), self.reach)
        self._built = self.state.coord.copy(), self.state.cell.copy()
        self.builds += 1

    def moved(self):
        """How much of the skin is used up on this rank: at 1, an unlisted pair could be within rcut."""
        coord0, cell0 = self._built
        deformation, compression = np.eye(3), 1.0
        if not np.array_equal(cell0, self.state.cell):
            deformation = np.linalg.inv(cell0) @ self.state.cell
            compression = np.linalg.svd(deformation, compute_uv=False)[-1]
        spare = compression * self.reach - self.rcut * (1 + 1e-12)
        if spare <= 0:
            return np.inf
        return 2 * _largest_move(self.state.coord, coord0, deformation) / spare

    # ---- the four verbs -----------------------------------------------------------------------------------

    def exchange(self):
        """Move atoms to the rank in whose box they are; sort them in space.

        Raises
        ------
        DomainError
            An atom was lost or doubled.
        """
        s = self.state
        s.coord, shift, frac = wrap(np.ascontiguousarray(s.coord), s.cell, s.pbc)
        s.image = s.image - shift  # coord + image @ cell stays where it is
        owner = np.empty(len(s.id), np.int32)
        _owners(frac, *self.cuts, owner)
        if self.size > 1:
            leaving = np.flatnonzero(owner != self.rank)
            leaving = leaving[np.argsort(owner[leaving], kind="stable")]
            rows = np.column_stack([getattr(s, name)[leaving] for name in MIGRATING])
            rows = self._alltoall(rows, np.bincount(owner[leaving], minlength=self.size))
            stays, column = owner == self.rank, 0
            for name in MIGRATING:  # one at a time: all of them at once would be the peak of memory
                kept = getattr(s, name)[stays]
                width = int(np.prod(kept.shape[1:]))
                came = rows[:, column : column + width].reshape(len(rows), *kept.shape[1:])
                setattr(s, name, np.concatenate((kept, came.astype(kept.dtype))))
                column += width
        self._sort()
        if not np.array_equal(self._checksum(), self._expected):
            found = self._checksum()[0]
            raise DomainError(
                f"step {s.step}: expected {self._expected[0]} atoms, each once, after a migration, found {found}"
            )

    def borders(self):
        """Find who needs images of this rank's atoms, and send them for the first time."""
        s, nloc = self.state, len(self.state.id)
        margin = self.reach / face_distances(s.cell) + ROUNDING
        frac = s.coord @ np.linalg.inv(s.cell)
        turns = [range(-int(np.ceil(m)), int(np.ceil(m)) + 1) if p else (0,) for m, p in zip(margin, s.pbc)]
        shifts = np.array(list(itertools.product(*turns)))
        low, high = self.bounds
        my_low, my_high = low[self.rank] + shifts, high[self.rank] + shifts
        asked = (my_low[None] <= (high + margin)[:, None]) & (my_high[None] >= (low - margin)[:, None])
        asked = asked.all(axis=2)
        asked[self.rank, ~shifts.any(axis=1)] = False
        index, shift, self._sent = (
            [np.zeros(0, np.int32)],
            [np.zeros((0, 3), np.int8)],
            np.zeros(self.size, int),
        )
        for rank, turn in np.argwhere(asked):
            region = low[rank] - margin - shifts[turn], high[rank] + margin - shifts[turn]
            n = _inside(frac, *region, np.empty(0, np.int32))
            if n:
                index.append(np.empty(n, np.int32))
                _inside(frac, *region, index[-1])
                shift.append(np.broadcast_to(shifts[turn].astype(np.int32), (n, 3)))
                self._sent[rank] += n
        self._index = np.concatenate(index)
        self._shift = np.concatenate(shift).astype(np.int32)
        self._received = np.empty_like(self._sent)
        self.comm.Alltoall(self._sent, self._received)
        self.coord = np.empty((nloc + self._received.sum(), 3))
        self.coord[:nloc] = s.coord
        s.coord = self.coord[:nloc]
        self.forward()
        self.atype = np.concatenate((s.atype, self._ghosts(s.atype)))
        self.id = np.concatenate((s.id, self._ghosts(s.id)))

    def forward(self):
        """Positions of atoms to their ghosts, with the present cell."""
        buffer = np.empty((len(self._index), 3))
        _pack(self.coord, self._index, self._shift, self.state.cell, buffer)
        self._transfer(buffer, self._sent, self.coord[len(self.state.id) :], self._received)

    def reverse(self, force):
        """Forces (nall, 3) on ghosts are added to those on their atoms."""
        buffer = np.empty((len(self._index), 3))
        self._transfer(force[len(self.state.id) :], self._received, buffer, self._sent)
        _add(force, self._index, buffer)

    # ---- transport ----------------------------------------------------------------------------------------

    def _transfer(self, outgoing, sent, incoming, received):
        """Rows by rank in the order of ranks: ``sent[r]`` rows to r, ``received[r]`` rows from r."""
        out, into = (np.concatenate(([0], np.cumsum(n))) for n in (sent, received))
        requests = []
        for r in np.flatnonzero(received):
            if r != self.rank:
                requests.append(self.comm.Irecv(incoming[into[r] : into[r + 1]], source=r))
        for r in np.flatnonzero(sent):
            if r != self.rank:
                requests.append(self.comm.Isend(outgoing[out[r] : out[r + 1]], dest=r))
        me = self.rank
        incoming[into[me] : into[me + 1]] = outgoing[out[me] : out[me + 1]]
        _mpi().Request.Waitall(requests)

    def _ghosts(self, values):
        """Values (nloc,) of atoms at their ghosts."""
        incoming = np.empty(self._received.sum(), values.dtype)
        self._transfer(values[self._index], self._sent, incoming, self._received)
        return incoming

    def _alltoall(self, rows, counts):
        """Rows (n, k) sorted by destination, ``counts`` of them for each rank: the rows that come in."""
        incoming = np.empty_like(counts)
        self.comm.Alltoall(counts, incoming)
        received = np.empty((incoming.sum(), rows.shape[1]))
        self._transfer(np.ascontiguousarray(rows), counts, received, incoming)
        return received

    # ---- cuts ---------------------------------------------------------------------------------------------

    def _balance(self):
        """Cut so that all boxes hold equally many atoms."""
        s = self.state
        _, _, frac = wrap(np.ascontiguousarray(s.coord), s.cell, s.pbc)
        nx, ny, nz = self.grid
        x = self._quantiles(frac, 0, np.zeros(len(frac), int), 1, nx)[0]
        a = np.searchsorted(x[1:-1], frac[:, 0], side="right")
        y = self._quantiles(frac, 1, a, nx, ny)
        b = (frac[:, 1, None] >= y[a, 1:-1]).sum(axis=1)
        z = self._quantiles(frac, 2, a * ny + b, nx * ny, nz).reshape(nx, ny, nz + 1)
        self.cuts = x, y, z
        i, j, k = np.unravel_index(np.arange(self.size), self.grid)
        self.bounds = (
            np.column_stack((x[i], y[i, j], z[i, j, k])),
            np.column_stack((x[i + 1], y[i, j + 1], z[i, j, k + 1])),
        )

    def _quantiles(self, frac, axis, group, ngroups, parts):
        """Cuts (ngroups, parts + 1) along an axis that share out the atoms of each group equally."""
        low, high = 0.0, 1.0
        if not self.state.pbc[axis]:
            ends = np.array([-np.inf, -np.inf])
            if len(frac):
                ends[:] = -frac[:, axis].min(), frac[:, axis].max()
            all_ends = np.empty_like(ends)
            self.comm.Allreduce(ends, all_ends, op=_mpi().MAX)
            low, high = -all_ends[0], all_ends[1]
        width = max(high - low, 1e-12) / BINS
        places = np.clip((frac[:, axis] - low) / width, 0, BINS - 1).astype(np.int64)
        mine = np.bincount(group * BINS + places, minlength=ngroups * BINS).reshape(ngroups, BINS)
        counts = np.empty_like(mine)
        self.comm.Allreduce(mine, counts)
        cuts = np.empty((ngroups, parts + 1))
        edges = low + width * np.arange(BINS + 1)
        for row, count in zip(cuts, counts):
            count = count if count.any() else np.ones(BINS)
            row[:] = np.interp(
                np.arange(parts + 1) / parts, np.append(0, np.cumsum(count)) / count.sum(), edges
            )
        cuts[:, 0], cuts[:, -1] = (0.0, 1.0) if self.state.pbc[axis] else (-np.inf, np.inf)
        return cuts

    # ---- order and checks ---------------------------------------------------------------------------------

    def _sort(self):
        """Atoms in space, cube by cube of half the reach, by id within a cube: a function of positions alone."""
        s = self.state
        if len(s.id) == 0:
            return
        cube = (s.coord - s.coord.min(axis=0)) // (self.reach / 2)
        order = np.lexsort((s.id, cube[:, 0], cube[:, 1], cube[:, 2]))
        for name in MIGRATING:
            setattr(s, name, np.ascontiguousarray(getattr(s, name)[order]))

    def _checksum(self):
        """Number of atoms of all ranks, and the sum of their scrambled ids modulo 2^64."""
        ids = self.state.id.astype(np.uint64)
        scrambled = (ids * ODD) ^ ((ids * ODD) >> np.uint64(29))
        mine = np.array([len(ids), scrambled.sum(dtype=np.uint64).astype(np.int64)], np.int64)
        total = np.empty_like(mine)
        self.comm.Allreduce(mine, total)
        return total

    def _lengths(self):
        """Extent of the atoms along each axis, Å."""
        s = self.state
        frac = s.coord @ np.linalg.inv(s.cell)
        ends = np.full((2, 3), -np.inf)
        if len(frac):
            ends[:] = -frac.min(axis=0), frac.max(axis=0)
        all_ends = np.empty_like(ends)
        self.comm.Allreduce(ends, all_ends, op=_mpi().MAX)
        extent = np.where(s.pbc, 1.0, all_ends.sum(axis=0))
        return extent * face_distances(s.cell)


def _mpi():
    """mpi4py.MPI, imported on first use: it starts MPI."""
    from mpi4py import MPI

    return MPI
