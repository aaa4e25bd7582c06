"""How uncertain predictions are: ``dplite model-devi``, in the columns of DeePMD-kit's model_devi.out.

With a mean ⟨·⟩ over models, for an atom i, a virial component ab and N atoms (Zeng et al., J. Chem. Phys.
159, 054801 (2023), model deviation)::

    devi_f_i  = sqrt(⟨|F_i - ⟨F_i⟩|²⟩)          max, min, mean over atoms           eV/Å
    devi_v_ab = sqrt(⟨(Ξ_ab - ⟨Ξ_ab⟩)²⟩) / N    max, min, root mean square over ab  eV/atom
    devi_e    = sqrt(⟨(E - ⟨E⟩)²⟩) / N                                              eV/atom

One model will do if its file holds the covariance of its last layer (``dplite refit``): standard deviations σ by that
covariance (last_layer.py) then stand for the root mean squares over models, devi_f_i = sqrt(σ_x² + σ_y² + σ_z²).

Relative: devi_f_i / (|⟨F_i⟩| + level) and devi_v_ab / (|⟨Ξ⟩|/N + level). With ``real_error`` the reference
takes the place of the mean over models.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from deepmd_lite.backends import load_potential
from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate.last_layer import LastLayer
from deepmd_lite.evaluate.predict import predict
from deepmd_lite.frames.store import read_systems
from deepmd_lite.md.forces import COLUMNS


@dataclass(frozen=True)
class Deviation:
    """Deviation of several models, or of one by its posterior, on one system.

    Attributes
    ----------
    name : str
    step : (nframes,) int
    columns : (nframes, 7)
        In the order of `COLUMNS`.
    atom_devi_f : (nframes, natoms)
    """

    name: str
    step: np.ndarray
    columns: np.ndarray
    atom_devi_f: np.ndarray


@dataclass(frozen=True)
class Deviations:
    """The same on several systems."""

    systems: list[Deviation]

    def table(self):
        """rich.table.Table: Mean and largest value of the columns per system; meV."""
        table = Table(title="Model deviation", caption="mean over frames, largest in brackets")
        table.add_column("system", overflow="fold")
        shown = {"max_devi_f": "meV/Å", "avg_devi_f": "meV/Å", "max_devi_v": "meV/atom", "devi_e": "meV/atom"}
        for name in ("frames", *(f"{key} ({unit})" for key, unit in shown.items())):
            table.add_column(name, justify="right")
        for s in self.systems:
            values = [s.columns[:, COLUMNS.index(key)] for key in shown]
            table.add_row(s.name, str(len(s.step)), *map(_mean_and_max, values))
        return table

    def write(self, path, atomic=False):
        """Write ``model_devi.out`` and its folder; with ``atomic`` each atom's force deviation follows in its row."""
        titles = f"# {'step':10s}" + "".join(f"{name:19s}" for name in COLUMNS)
        titles += f"{'atm_devi_f(N)':19s}" if atomic else ""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            for s in self.systems:
                file.write(f"# {' '.join(s.name.split())}\n{titles}\n")
                rows = np.hstack([s.columns, s.atom_devi_f]) if atomic else s.columns
                for step, row in zip(s.step, rows):
                    file.write(f"{step:12d}" + "".join(f"{value:19.6e}" for value in row) + "\n")


def _mean_and_max(values):
    finite = 1e3 * values[np.isfinite(values)]
    return f"{finite.mean():.4g} ({finite.max():.4g})" if finite.size else "-"


def model_deviation(
    models,
    systems,
    *,
    frequency=1,
    real_error=False,
    relative=None,
    relative_v=None,
    backend="numba",
    precision="float64",
):
    """Deviation of several models, or of one by its posterior, on frames.

    Parameters
    ----------
    models : sequence of str or Path
        ``.dp`` files with one type_map. One is enough for `real_error`, or if it holds a posterior.
    systems : str, Path or sequence of them
        Frames, as for `read_systems`.
    frequency : int
        Steps between two frames: frame k is step k * frequency.
    real_error : bool
        Deviation from the labels instead of from the mean of the models; NaN where a label is missing.
    relative, relative_v : float, optional
        Level of the relative deviation of force (eV/Å) and virial (eV/atom), not negative.
    backend, precision : str
        As for `backends.load_potential`.

    Returns
    -------
    Deviations

    Raises
    ------
    ConfigError
        One model without a posterior, models with different type_maps, or a negative level.
    ModelFileError, DataError
        If a model or the frames cannot be used.
    """
    models = [models] if isinstance(models, str | Path) else list(models)
    if not models:
        raise ConfigError("model deviation: expected models, found none")
    for name, level in (("relative", relative), ("relative_v", relative_v)):
        if level is not None and not level >= 0:
            raise ConfigError(f"{name} = {level}: expected a level of 0 or more")
    potentials = [load_potential(path, backend, precision) for path in models]
    type_map = potentials[0].type_map
    for path, potential in zip(models, potentials):
        if potential.type_map != type_map:
            raise ConfigError(
                f"{path}: expected the type_map {list(type_map)} of {models[0]}, "
                f"found {list(potential.type_map)}"
            )
    posterior = _posterior(potentials[0], models[0]) if len(models) == 1 and not real_error else None
    found = []
    for system in read_systems(systems, type_map):
        predictions = [predict(potential, system) for potential in potentials]
        std = posterior.std([system])[0] if posterior else None
        columns, atoms = deviation(predictions, real_error, relative, relative_v, std)
        found.append(Deviation(system.name, frequency * np.arange(system.nframes), columns, atoms))
    return Deviations(found)


def _posterior(potential, path):
    """The `LastLayer` of a model that holds a posterior; ConfigError without."""
    if potential.model.posterior is None:
        raise ConfigError(
            "model deviation: expected two or more models, or one that holds the covariance of its last layer, "
            f"found {path} without: put it there with dplite refit {path} -s FRAMES --keep-weights -o {path}"
        )
    return LastLayer(potential.model)


def deviation(predictions, real_error=False, relative=None, relative_v=None, std=None):
    """Deviation of several predictions of one system.

    Parameters
    ----------
    predictions : list of Predictions
    real_error, relative, relative_v
        As for `model_deviation`.
    std : last_layer.Values, optional
        Standard deviations of the only prediction.

    Returns
    -------
    columns : (nframes, 7)
    atom_devi_f : (nframes, natoms)
    """
    system = predictions[0].system
    values, center = {}, {}
    for key in ("energy", "force", "virial"):
        scale = 1 if key == "force" else system.natoms
        values[key] = np.stack([getattr(p, key) for p in predictions]) / scale
        center[key] = _labels(system, key) / scale if real_error else values[key].mean(axis=0)
    if std is None:
        spread = {key: ((values[key] - center[key]) ** 2).mean(axis=0) for key in values}  # mean over models
    else:
        scale = {"energy": system.natoms, "force": 1, "virial": system.natoms}
        spread = {key: (getattr(std, key) / scale[key]) ** 2 for key in values}
    f = np.sqrt(spread["force"].sum(axis=-1))  # (nframes, natoms)
    v = np.sqrt(spread["virial"]).reshape(-1, 9)
    if relative is not None:
        f = f / (np.linalg.norm(center["force"], axis=-1) + relative)
    if relative_v is not None:
        v = v / (np.linalg.norm(center["virial"].reshape(-1, 9), axis=-1)[:, None] + relative_v)
    columns = [v.max(1), v.min(1), np.linalg.norm(v, axis=1) / 3, f.max(1), f.min(1), f.mean(1)]
    return np.column_stack([*columns, np.sqrt(spread["energy"])]), f


def _labels(system, key):
    """The labels of all frames, NaN where there are none."""
    shape = {"energy": (), "force": (system.natoms, 3), "virial": (3, 3)}[key]
    labels = np.full((system.nframes, *shape), np.nan)
    if key in system.labels:
        labels[system.found[key]] = system.labels[key][system.found[key]]
    return labels
