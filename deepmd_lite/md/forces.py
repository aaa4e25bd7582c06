"""Forces on the atoms of all ranks: ghosts forward, kernel, ghost forces back."""

from typing import NamedTuple

import numpy as np

from deepmd_lite.engine.kernels import Frame
from deepmd_lite.errors import ConfigError

COLUMNS = (  # DeePMD-kit's names, in the order of model_devi.out
    "max_devi_v",
    "min_devi_v",
    "avg_devi_v",
    "max_devi_f",
    "min_devi_f",
    "avg_devi_f",
    "devi_e",
)


class Deviation(NamedTuple):
    """Disagreement of a committee, as in DeePMD-kit's model_devi.out; and the atom where forces disagree most."""

    virial: tuple  # eV/atom: largest, smallest, root mean square component
    force: tuple  # eV/Å: largest, smallest, mean atom
    energy: float  # eV/atom
    atom: int  # id


class Forces:
    """Evaluates the models on the atoms of a `Domain`.

    Parameters
    ----------
    domain : domain.Domain
    potentials : list of CompiledPot
        The first drives; the others are asked for the deviation.

    Attributes
    ----------
    closest : (r² in Å², i, j)
        Closest pair that this rank saw in the last evaluation, places in ``domain.id``; r² is inf without pairs.

    Raises
    ------
    ConfigError
        Models with frame or atomic parameters, or with another type_map than the first.
    """

    def __init__(self, domain, potentials):
        for p in potentials:
            if p.model.fitting.numb_fparam or p.model.fitting.numb_aparam:
                raise ConfigError(
                    "molecular dynamics of models with fparam or aparam: expected a model without"
                )
            if p.type_map != potentials[0].type_map:
                raise ConfigError(
                    f"models of a committee: expected the type_map {list(potentials[0].type_map)}, "
                    f"found {list(p.type_map)}"
                )
        self.domain, self.potentials = domain, potentials

    def __call__(self, state, clock):
        """Fill ``state.force``, ``energy`` and ``virial``; ``clock`` is told the phases (force, comm)."""
        with clock("comm"):
            self.domain.forward()
        energy, force, virial, self.closest = self._evaluate(self.potentials[0], clock)
        state.force = force
        with clock("comm"):
            total = state.sum(np.append(energy, virial))
        state.energy, state.virial = float(total[0]), total[1:].reshape(3, 3)

    def deviation(self, state, clock):
        """`Deviation` of all models at the present positions; collective."""
        energies, forces, virials, _ = zip(*(self._evaluate(p, clock) for p in self.potentials))
        totals = state.sum(np.column_stack((energies, virials))) / state.natoms
        energy, virial = totals.std(axis=0)[0], totals.std(axis=0)[1:]
        spread = np.sqrt(np.var(forces, axis=0).sum(axis=1))
        mine = (spread.max(initial=-np.inf), int(state.id[spread.argmax()]) if len(spread) else -1)
        largest, atom = max(state.comm.allgather(mine))
        smallest = min(state.comm.allgather(spread.min(initial=np.inf)))
        mean = float(state.sum(spread.sum())) / state.natoms
        virial = (virial.max(), virial.min(), np.sqrt(np.mean(virial**2)))
        return Deviation(virial, (largest, smallest, mean), energy, atom)

    def _evaluate(self, potential, clock):
        """Of this rank: energy, forces on its atoms, virial (9,), closest pair (r², two places in the arrays)."""
        d = self.domain
        nloc, nall = len(d.state.id), len(d.coord)
        with clock("force"):
            frame = Frame(
                d.coord,
                d.atype,
                np.arange(nall, dtype=np.int32),
                d.table.first,
                d.table.index,
                np.zeros((nloc, 0), potential.precision),
            )
            sums = potential.sums(frame, nloc, nall, names=d.id)
            force = sums.force.sum(axis=0) if len(sums.force) > 1 else sums.force[0]
        with clock("comm"):
            d.reverse(force)
        return sums.energy.sum(), force[:nloc], sums.virial.sum(axis=0), min(sums.closest.tolist())
