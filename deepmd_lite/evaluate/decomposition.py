"""Where the error of a potential comes from, when the truth is known: approximation, estimation, optimization.

The truth is an ASE calculator and frames are drawn at random, so that the error over a large sample of them stands
for the population error R. Energies and forces are linear in the weights c of the last layer. For the hidden layers
as training found them, and L the loss of training at its end,

    c_m   the minimiser of L over the population: the best that these hidden layers can do
    c_n   the minimiser of L over the n frames trained on, λ|c_n - c|² added
    c     as trained on them

    R(c) = R(c_m) + [R(c_n) - R(c_m)] + [R(c) - R(c_n)]        approximation + estimation + optimization

R(c_m) holds what the hidden layers lack, be it for their size, for want of frames or for want of steps. λ = 0 is the
minimiser of the empirical risk. For few frames it is far from the truth, training has stopped long before it, and the
optimization error is negative: stopping early is a regularisation. With the λ that frames left out in turn ask for,
c_n goes only where the frames say so, and the optimization error is what training could still have gained.

References
----------
Bottou and Bousquet, The tradeoffs of large scale learning (2007).
"""

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.evaluate.frame_errors import UNITS, frame_errors
from deepmd_lite.evaluate.last_layer import LastLayer
from deepmd_lite.frames.system import System


@dataclass(frozen=True)
class Decomposition:
    """The error of a potential, taken apart.

    Attributes
    ----------
    name : str
        What was trained, on what.
    rmse : dict of str to (float, float, float)
        For ``energy`` and ``force``, eV/atom and eV/Å over the population: with c_m, with c_n, as trained.
    loss : (float, float)
        On the frames trained on, eV² a frame: as trained, and at its minimum.
    """

    name: str
    rmse: dict[str, tuple[float, float, float]]
    loss: tuple[float, float]

    def parts(self, key):
        """Approximation, estimation and optimization error, (eV/atom)² or (eV/Å)²; their sum is the mean square."""
        best, refit, trained = (r**2 for r in self.rmse[key])
        return best, refit - best, trained - refit

    @property
    def undone(self):
        """Share of the loss on the frames trained on that a refit of the last layer takes away."""
        return 1 - self.loss[1] / self.loss[0]


def decompose(name, model, training, population, *, w_energy=1.0, w_force=1.0, ridge="loo"):
    """Take the error of a model apart.

    Parameters
    ----------
    name : str
    model : model_file.Model
        With nets in float64; rounding to float32 would add to the errors of the refits.
    training, population : list of System
        The frames it was trained on, and a large sample of others.
    w_energy, w_force : float
        As for `LastLayer`: limit_pref_e and limit_pref_f of the training.
    ridge : float or "loo"
        λ of c_n, as for `LastLayer.fit`.

    Returns
    -------
    Decomposition
    """
    weights = {"w_energy": w_energy, "w_force": w_force}
    best = LastLayer(model, **weights).fit(population, 0.0).refit()
    refit = LastLayer(model, **weights).fit(training, ridge).refit()
    errors = [frame_errors(CompiledPot(m), population) for m in (best.model, refit.model, model)]
    rmse = {key: tuple(e.rmse(key) for e in errors) for key in UNITS}
    return Decomposition(name, rmse, (refit.before, refit.after))


def decomposition_table(rows, key="force"):
    """rich.table.Table: A row for each `Decomposition`; shares are of the squared error."""
    table = Table(
        title=f"Where the error of the {key} comes from ({UNITS[key]})",
        caption="RMSE over the population with the best last layer for it, with the best for the frames trained on, "
        "as trained; in brackets what that step adds to the squared error; loss left: on the frames trained on",
    )
    for name in ("trained on", "approximation", "+ estimation", "+ optimization", "loss left"):
        table.add_column(name, justify="left" if name == "trained on" else "right")
    for row in rows:
        parts = row.parts(key)
        figures = [f"{1e3 * r:.3g} ({100 * p / sum(parts):.0f} %)" for r, p in zip(row.rmse[key], parts)]
        table.add_row(row.name, *figures, f"{100 * row.undone:.2g} %")
    return table


def teacher_frames(atoms, calculator, nframes, *, displacement, strain, rng):
    """Frames drawn at random around a crystal, with labels by the teacher.

    Parameters
    ----------
    atoms : ase.Atoms
        The crystal, periodic along three axes.
    calculator : ase.calculators.calculator.Calculator
        The truth: energy, forces, stress.
    nframes : int
    displacement : float, Å
        Standard deviation of each coordinate.
    strain : float
        Standard deviation of each entry of the strain.
    rng : numpy.random.Generator

    Returns
    -------
    System
    """
    found = {"coord": [], "box": [], "energy": [], "force": [], "virial": []}
    for _ in range(nframes):
        frame = atoms.copy()
        frame.set_cell(atoms.cell[:] @ (np.eye(3) + rng.normal(0, strain, (3, 3))), scale_atoms=True)
        frame.positions += rng.normal(0, displacement, frame.positions.shape)
        frame.calc = calculator
        found["coord"].append(frame.positions.copy())
        found["box"].append(frame.cell[:].copy())
        found["energy"].append(frame.get_potential_energy())
        found["force"].append(frame.get_forces())
        found["virial"].append(-frame.get_volume() * frame.get_stress(voigt=False))
    found = {key: np.array(values) for key, values in found.items()}
    labels = {key: found[key] for key in ("energy", "force", "virial")}
    names = tuple(dict.fromkeys(atoms.symbols))
    return System(
        name=f"{atoms.symbols} by {type(calculator).__name__}",
        type_map=names,
        atype=np.array([names.index(s) for s in atoms.symbols], np.int32),
        coord=found["coord"],
        box=found["box"],
        pbc=np.ones(3, bool),
        labels=labels,
        found={key: np.ones(nframes, bool) for key in labels},
    )
