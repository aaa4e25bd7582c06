"""The ASE calculator ``DP``: one Deep Potential, or a committee of them; what they are uncertain about.

    atoms.calc = DP("model.dp")
    atoms.calc = DP(["a.dp", "b.dp", "c.dp"])      mean; energy_std and forces_std in ``calc.results``
    atoms.calc = DP("model.dp", uncertainty=True)    the same of one model that ``dplite refit`` has been at

ASE's names and signs live here alone: positions, forces, stress = -(virial + virialᵀ) / 2V in the order
xx, yy, zz, yz, xz, xy (eV/Å³).
"""

from collections import Counter
from os import PathLike

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress

from deepmd_lite.backends import load_potential
from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.engine.last_layer import NO_POSTERIOR, sampled
from deepmd_lite.engine.shared import SharedPot
from deepmd_lite.errors import ConfigError
from deepmd_lite.neighbors import NeighborList

SAMPLES = 8  # last layers drawn for an uncertainty


class DP(Calculator):
    """ASE calculator of a Deep Potential.

    Energies in eV, forces in eV/Å, stress in eV/Å³. ``stress`` exists only where all three axes are periodic;
    elsewhere ASE raises PropertyNotImplementedError.

    Parameters
    ----------
    model : str, Path, CompiledPot, DeepPot, or a sequence of them
        Of several, the mean is the result; ``results["energy_std"]`` (eV) and ``results["forces_std"]``
        (natoms, 3) (eV/Å) are the standard deviations over the models.
    precision : "float64" or "float32"
        Of the arithmetic. float32 takes about half the time; energies and forces are summed in float64.
    threads : int, optional
        As many as there are cores (``NUMBA_NUM_THREADS``) when left out.
    backend : "numba" or "torch"
        The engine, or the reference implementation. These three are for models given as paths.
    comm : mpi4py communicator, optional
        Ranks that share the work: run the same script on each, with the same random numbers; every rank gets the
        whole result.
    fparam : (numb_fparam,) array, optional
        Needed exactly when the model was trained with it; change it by ``calc.set(fparam=...)``.
    aparam : (natoms, numb_aparam) array, optional
        Likewise.
    skin : float, Å
        Of the neighbor list: how much larger than the cutoff it is, so as to last for several steps. The list
        is made again as soon as an unlisted pair could be within the cutoff.
    uncertainty : bool or int
        ``energy_std`` and ``forces_std`` of one model, from the covariance of its last layer that its file holds: the
        spreads over so many last layers drawn from it (True: 8). Each costs a step in float32, far less than exact
        standard deviations (`evaluate.last_layer.LastLayer.std`), about which they scatter by 1/sqrt(2 n) for a
        component and 1/sqrt(6 n) for an atom. The draws are the same in every run.

    Raises
    ------
    ModelFileError
        A model file that cannot be used.
    ConfigError
        uncertainty of a model without a covariance, or of several.
        When evaluated: elements that the model does not know; fparam or aparam missing.
    DomainError
        When evaluated: a degenerate cell, non-finite positions, atoms on top of each other.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]
    default_parameters = {"fparam": None, "aparam": None}
    discard_results_on_any_change = True

    def __init__(
        self,
        model,
        *,
        precision="float64",
        threads=None,
        backend="numba",
        comm=None,
        fparam=None,
        aparam=None,
        skin=1.0,
        uncertainty=False,
    ):
        models = list(model) if isinstance(model, (list, tuple)) else [model]
        if not models:
            raise ConfigError("expected a model, or several, found an empty list")
        self.models = [
            load_potential(m, backend, precision, threads) if isinstance(m, (str, PathLike)) else m
            for m in models
        ]
        self.deviations = self._deviations(uncertainty) if uncertainty else []
        if comm is not None:
            if not all(hasattr(m, "sums") for m in self.models):
                raise ConfigError("comm: expected backend numba, found torch; leave out one of them")
            self.models, self.deviations = (
                [SharedPot(m, comm) for m in several] for several in (self.models, self.deviations)
            )
        self.neighbors = NeighborList(max(m.rcut for m in self.models), skin)
        super().__init__(fparam=fparam, aparam=aparam)

    def _deviations(self, count):
        """Potentials whose energies and forces are deviations drawn from the posterior of the only model."""
        count = SAMPLES if count is True else count
        if len(self.models) != 1 or not isinstance(count, int) or count < 1:
            raise ConfigError(
                f"uncertainty = {count}: expected one model, and True or a number of samples; found "
                f"{len(self.models)} models (of several, the spread is in the results anyway)"
            )
        model = self.models[0].model
        if model.posterior is None:
            raise ConfigError(f"uncertainty: {NO_POSTERIOR}")
        one = CompiledPot(model, "float32", getattr(self.models[0], "threads", None))
        return sampled(one, count, np.random.default_rng(0))

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fill ``results`` with everything there is; ASE calls this when atoms have changed."""
        super().calculate(atoms, properties, system_changes)
        predictions = self._predict([*self.models, *self.deviations])
        predictions, deviations = predictions[: len(self.models)], predictions[len(self.models) :]
        energy, energies, force, virial, _ = predictions[0]
        if len(predictions) > 1:
            energy, energies, force, virial = (np.mean([p[k] for p in predictions], axis=0) for k in range(4))
        self.results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": force}
        if self.atoms.pbc.all():
            stress = -(virial + virial.T) / (2 * self.atoms.get_volume())
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)
        if len(predictions) > 1:
            self.results["energy_std"] = np.std([p.energy for p in predictions])
            self.results["forces_std"] = np.std([p.force for p in predictions], axis=0)
        elif deviations:
            scale = self.models[0].model.posterior.scale
            self.results["energy_std"] = scale[0] * np.sqrt(np.mean([p.energy**2 for p in deviations]))
            self.results["forces_std"] = scale[1] * np.sqrt(np.mean([p.force**2 for p in deviations], axis=0))

    def check_state(self, atoms, tol=1e-15):
        """ASE's comparison with the atoms of the last call, after a faster one of all that a model reads."""
        old = self.atoms
        if old is not None and all(
            np.array_equal(a, b)
            for a, b in (
                (old.positions, atoms.positions),
                (old.numbers, atoms.numbers),
                (old.cell.array, atoms.cell.array),
                (old.pbc, atoms.pbc),
            )
        ):
            return []
        return super().check_state(atoms, tol)

    def _predict(self, models):
        """One `Prediction` per model, for ``self.atoms``."""
        atoms, parameters = self.atoms, self.parameters
        types = [atom_types(atoms, m.type_map) for m in models]
        ghosts, table = self.neighbors.update(atoms.positions, atoms.cell[:], atoms.pbc)
        return [
            model.evaluate_neighbors(ghosts, table, atype, parameters["fparam"], parameters["aparam"])
            for model, atype in zip(models, types)
        ]


def atom_types(atoms, type_map):
    """The index of each atom's element in ``type_map``: (natoms,) int32; ConfigError names those missing."""
    types = np.full(max(atomic_numbers.values()) + 1, -1, np.int32)
    for t, symbol in enumerate(type_map):
        if symbol in atomic_numbers:
            types[atomic_numbers[symbol]] = t
    unknown = Counter(atoms.symbols[types[atoms.numbers] < 0])
    if unknown:
        found = ", ".join(f"{symbol} ({count})" for symbol, count in sorted(unknown.items()))
        raise ConfigError(f"the model was trained for {', '.join(type_map)}; found {found} among the atoms")
    return types[atoms.numbers]
