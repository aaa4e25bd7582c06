"""The Deep Potential: energy, force and virial of atoms.

    E = Σ_i E_i,   F_k = -∂E/∂x_k,   Ξ_ab = -∂E/∂ε_ab = -Σ_(i,j) (∂E/∂x_ij)_a (x_ij)_b

E depends on positions only through the pair vectors x_ij = x_j - x_i, so the pair gradients of descriptor.py
give all three: +∂E/∂x_ij pulls the center, -∂E/∂x_ij the neighbor. The virial is positive when the system
wants to expand, in eV, row-major, force index first.
"""

import torch
from torch import nn

from deepmd_lite import model_file
from deepmd_lite.box import extend
from deepmd_lite.contract import Prediction, checked_parameter, tell_overflow
from deepmd_lite.model import batch as batches
from deepmd_lite.model.descriptor import Descriptor
from deepmd_lite.model.fitting import Fitting
from deepmd_lite.model.shortrange import ShortRange
from deepmd_lite.neighbors import cell_list, trim

PAIRS_AT_ONCE = 400_000  # slots evaluated together without gradients: bounds memory to about 2 GB


class DeepPot(nn.Module):
    """The energy model of a `model_file.Model`, evaluated by torch in the precision of its nets."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.descriptor = Descriptor(model.descriptor, len(model.type_map))
        self.fitting = Fitting(model.fitting, model.out_bias)
        self.shortrange = model.shortrange and ShortRange(model.shortrange, model.descriptor.rcut)
        pairs = [(int(i), int(j)) for i, j in model.pair_exclude_types]
        self.excluded = {*pairs, *((j, i) for i, j in pairs)}
        self._overflow_told = False

    @classmethod
    def load(cls, path):
        """Read a ``.dp`` file; raises ModelFileError."""
        return cls(model_file.read_model(path))

    def save(self, path):
        """Write a ``.dp`` file, atomically."""
        model_file.write_model(path, self.to_model())

    def to_model(self):
        """The model as plain arrays, with the present weights."""
        out_bias = self.fitting.out_bias.cpu().numpy().copy()
        parts = {"descriptor": self.descriptor.to_record(), "fitting": self.fitting.to_record()}
        parts["posterior"] = None  # it was that of other weights
        return self.model.__class__(**{**vars(self.model), **parts, "out_bias": out_bias})

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

    def forward(self, batch, atom_virial=False):
        """Energies, forces and virials of a batch, differentiable in the parameters when gradients are on.

        Parameters
        ----------
        batch : batch.Batch
        atom_virial : bool
            Also share out the virial among the atoms: a pair counts for its neighbor, as in DeePMD-kit.

        Returns
        -------
        Prediction
        """
        training = torch.is_grad_enabled()
        zeros = {"dtype": torch.float64, "device": batch.coord.device}
        atom_energy = torch.zeros(batch.natoms, **zeros)
        force = torch.zeros(batch.natoms, 3, **zeros)
        virial = torch.zeros(batch.nframes, 3, 3, **zeros)
        shares = torch.zeros(batch.natoms, 9, **zeros) if atom_virial else None
        for ti, rows in self._parts(batch, whole=training):
            centers, slots = batch.centers[ti][rows], [s[rows] for s in batch.slots[ti]]
            atoms = batch.owner[centers]
            energy, gradients = self._type(batch, ti, centers, slots)
            atom_energy = atom_energy.index_add(0, atoms, energy)
            for owner, vec, gradient in gradients:
                force = force.index_add(0, atoms, gradient.sum(1))
                force = force.index_add(0, owner, -gradient.flatten(0, 1))
                virial = virial.index_add(0, batch.frame[atoms], -gradient.mT @ vec)
                if atom_virial:
                    dyads = gradient[..., :, None] * vec[..., None, :]
                    shares = shares.index_add(0, owner, -dyads.view(-1, 9))
        energy = torch.zeros(batch.nframes, **zeros).index_add(0, batch.frame, atom_energy)
        shares = shares.view(-1, 3, 3) if atom_virial else None
        return Prediction(energy, atom_energy, force, virial, shares)

    def _parts(self, batch, whole):
        """(ti, slice of its centers): all of them, or as many as fit into PAIRS_AT_ONCE slots."""
        for ti, centers in enumerate(batch.centers):
            if ti in self.model.atom_exclude_types:
                continue
            width = max(1, sum(s.shape[1] for s in batch.slots[ti]))
            step = max(1, len(centers)) if whole else max(1, PAIRS_AT_ONCE // width)
            for start in range(0, len(centers), step):
                yield ti, slice(start, start + step)

    def _type(self, batch, ti, centers, slots):
        """E_i of the centers, and per neighbor type (owner of the neighbors, x_ij, ∂E/∂x_ij)."""
        origin, neighbors = batch.coord[centers][:, None], self._neighbors(batch, ti, centers, slots)
        a = self.descriptor.gather(neighbors, ti, len(centers))
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            a = a if a.requires_grad else a.detach().requires_grad_()
            energy = self._energy(batch, a, ti, batch.owner[centers])
            (p,) = torch.autograd.grad(energy.sum(), a, create_graph=training)
        gradients = [
            (batch.owner[s].flatten(), pairs.vec, self.descriptor.pair_gradient(pairs, p, ti))
            for s, pairs in zip(slots, neighbors)
            if pairs is not None
        ]
        energy = energy if training else energy.detach()
        if self.shortrange is not None:
            return self._blend(batch, ti, origin, slots, energy, gradients)
        return energy, gradients

    def _blend(self, batch, ti, origin, slots, energy, gradients):
        """Energies and pair gradients of `_type`, with the table blended in."""
        seen = [tj for tj in range(self.ntypes) if (ti, tj) not in self.excluded]
        types = [torch.full((slots[tj].shape[1],), tj, device=origin.device) for tj in seen]
        if not any(map(len, types)):
            return energy, gradients
        index = torch.cat([slots[tj] for tj in seen], dim=1)
        vec, bias = batch.coord[index] - origin, self.fitting.out_bias[ti]
        energy, share, more = self.shortrange(energy - bias, vec, index < 0, ti, torch.cat(types))
        gradients = [(owner, x, share[:, None, None] * gradient) for owner, x, gradient in gradients]
        return energy + bias, [*gradients, (batch.owner[index].flatten(), vec, more)]

    def descriptors(self, batch):
        """D of the atoms of each type of a batch: list of (n, M·M₂)."""
        found = []
        for ti, (centers, slots) in enumerate(zip(batch.centers, batch.slots)):
            neighbors = self._neighbors(batch, ti, centers, slots)
            found.append(self.descriptor.descriptor(self.descriptor.gather(neighbors, ti, len(centers))))
        return found

    def _neighbors(self, batch, ti, centers, slots):
        """`descriptor.Pairs` of centers ti by the type of their neighbors; None where there are none to be seen."""
        origin, neighbors = batch.coord[centers][:, None], []
        for tj, s in enumerate(slots):
            skip = s.shape[1] == 0 or (ti, tj) in self.excluded or (ti, tj) in self.descriptor.excluded
            neighbors.append(None if skip else self.descriptor.pairs(batch.coord[s] - origin, s < 0, ti, tj))
        return neighbors

    def _energy(self, batch, a, ti, atoms):
        fparam = None if batch.fparam is None else batch.fparam[batch.frame[atoms]]
        aparam = None if batch.aparam is None else batch.aparam[atoms]
        return self.fitting(self.descriptor.descriptor(a), ti, fparam, aparam)

    def evaluate(self, coord, atype, box, pbc, fparam=None, aparam=None, atom_virial=False):
        """Energy, forces and virial of one structure.

        Parameters
        ----------
        coord : (natoms, 3) array, Å
        atype : (natoms,) int array
            Index into ``type_map``.
        box : (3, 3) array, Å, or None
        pbc : (3,) bool array
        fparam, aparam : (numb_fparam,) and (natoms, numb_aparam) arrays
            Needed exactly when the model was trained with them.
        atom_virial : bool
            As in `forward`.

        Returns
        -------
        Prediction
            Of numpy arrays, float64.

        Raises
        ------
        DomainError
            A degenerate cell or non-finite coordinates.
        ConfigError
            fparam or aparam missing or of the wrong size.
        """
        ghosts = extend(coord, box, pbc, self.rcut)
        table = cell_list(ghosts.coord, len(atype), self.rcut)
        return self.evaluate_neighbors(ghosts, table, atype, fparam, aparam, atom_virial)

    def evaluate_neighbors(self, ghosts, table, atype, fparam=None, aparam=None, atom_virial=False):
        """As `evaluate`, for ghosts and a neighbor table that are known; pairs beyond rcut do not count."""
        parameters = [
            checked_parameter(self.model.fitting, name, value, rows)
            for name, value, rows in (("fparam", fparam, 1), ("aparam", aparam, len(atype)))
        ]
        table = trim(table, ghosts.coord, self.rcut)
        frame = batches.from_neighbors(ghosts, table, atype, self.ntypes, *parameters)
        if not self._overflow_told:
            self._overflow_told = tell_overflow(frame.max_neighbors(), self.sel, self.rcut)
        device = self.descriptor.davg.device
        with torch.no_grad():
            energy, atom_energy, force, virial, shares = self(frame.to(device), atom_virial)
        per_atom = [None if t is None else t.cpu().numpy() for t in (atom_energy, force, shares)]
        return Prediction(float(energy[0]), *per_atom[:2], virial[0].cpu().numpy(), per_atom[2])
