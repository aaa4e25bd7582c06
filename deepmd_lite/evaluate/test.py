"""Errors of a model against reference data: ``dplite test``.

    RMSE = sqrt(mean |x_pred - x_ref|²),   MAE = mean |x_pred - x_ref|

over frames for the energy per atom, over components for the force and for the virial per atom. Frames
without a label do not count for it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table

from deepmd_lite.backends import load_potential
from deepmd_lite.errors import DataError
from deepmd_lite.evaluate.plots import check_picture, parity
from deepmd_lite.evaluate.predict import predict
from deepmd_lite.frames.store import read_systems

QUANTITIES = ("energy", "force", "virial")
COLUMNS = {  # of the detail files, DeePMD-kit's names
    "energy": ("e",),
    "force": ("fx", "fy", "fz"),
    "virial": tuple(f"v{a}{b}" for a in "xyz" for b in "xyz"),
}


@dataclass(frozen=True)
class Error:
    """Errors over `count` numbers; eV/atom for energies and virials, eV/Å for forces."""

    count: int
    rmse: float
    mae: float

    @classmethod
    def of(cls, residual):
        """From an array of differences; None where it is empty."""
        if residual.size == 0:
            return None
        return cls(residual.size, float(np.sqrt(np.mean(residual**2))), float(np.mean(np.abs(residual))))


@dataclass(frozen=True)
class SystemErrors:
    """Errors of one system, or of all together."""

    name: str
    nframes: int
    natoms: int | None  # None for all together
    energy: Error | None  # eV/atom
    force: Error | None  # eV/Å
    virial: Error | None  # eV/atom


@dataclass(frozen=True)
class Report:
    """The errors of a model.

    Attributes
    ----------
    model : str
    systems : list of SystemErrors
    total : SystemErrors
        Over all numbers of all systems.
    elements : dict of str to Error
        Of the force on the atoms of each element, eV/Å.
    """

    model: str
    systems: list[SystemErrors]
    total: SystemErrors
    elements: dict[str, Error]

    def table(self):
        """rich.table.Table: One row per system, then all together; meV."""
        table = Table(title=f"Errors of {self.model}", caption="RMSE / MAE over all frames with the label")
        table.add_column("system", overflow="fold")
        for name in ("frames", "atoms", "energy (meV/atom)", "force (meV/Å)", "virial (meV/atom)"):
            table.add_column(name, justify="right")
        several = len(self.systems) > 1
        for row in [*self.systems, self.total] if several else self.systems:
            if row is self.total:
                table.add_section()
            figures = [_figures(getattr(row, key)) for key in QUANTITIES]
            table.add_row(row.name, str(row.nframes), "" if row.natoms is None else str(row.natoms), *figures)
        return table

    def element_table(self):
        """rich.table.Table: The error of the force by element; meV/Å. An empty Group without forces."""
        if not self.elements:
            return Group()
        table = Table(title=f"Force errors of {self.model} by element")
        for name in ("element", "atoms", "RMSE / MAE (meV/Å)"):
            table.add_column(name, justify="right" if name != "element" else "left")
        for element, error in self.elements.items():
            table.add_row(element, str(error.count // 3), _figures(error))
        return table


def _figures(error):
    return "-" if error is None else f"{1e3 * error.rmse:.4g} / {1e3 * error.mae:.4g}"


def test_model(model, systems, detail=None, plots=None, backend="numba", precision="float64"):
    """Compare a model with reference data.

    Parameters
    ----------
    model : str or Path
        A ``.dp`` file.
    systems : str, Path or sequence of them
        Frames, as for `read_systems`.
    detail : str or Path, optional
        Prefix P of files with every reference and prediction: ``P.e.out``, ``P.e_peratom.out``, ``P.f.out``,
        ``P.v.out``, ``P.v_peratom.out``, in DeePMD-kit's columns.
    plots : str or Path, optional
        File for the parity plots.
    backend, precision : str
        As for `backends.load_potential`.

    Returns
    -------
    Report

    Raises
    ------
    ConfigError
        If `plots` does not end like a picture.
    ModelFileError, DataError
        If the model or the frames cannot be used, or no frame has a label to compare with.
    """
    if plots is not None:
        check_picture(plots)
    potential = load_potential(model, backend, precision)
    predictions = [predict(potential, s) for s in read_systems(systems, potential.type_map)]
    rows = [_errors(p.system.name, [p], p.system.natoms) for p in predictions]
    total = _errors("all", predictions, None)
    if not any(getattr(total, key) for key in QUANTITIES):
        raise DataError(f"{predictions[0].system.name}: expected energy, force or virial labels, found none")
    if detail is not None:
        write_detail(detail, predictions)
    if plots is not None:
        parity(predictions, plots)
    return Report(str(model), rows, total, _by_element(predictions, potential.type_map))


def _errors(name, predictions, natoms):
    residuals = {key: np.concatenate([_residual(p, key).ravel() for p in predictions]) for key in QUANTITIES}
    nframes = sum(p.system.nframes for p in predictions)
    return SystemErrors(name, nframes, natoms, **{key: Error.of(r) for key, r in residuals.items()})


def _residual(p, label):
    """Prediction minus reference of one system, (n, ...); energy and virial per atom."""
    reference, prediction = p.against(label)
    return (prediction - reference) / (1 if label == "force" else p.system.natoms)


def _by_element(predictions, type_map):
    parts = {element: [np.zeros(0)] for element in type_map}
    for p in predictions:
        residual = _residual(p, "force")
        for t, element in enumerate(type_map):
            parts[element].append(residual[:, p.system.atype == t].ravel())
    errors = {element: Error.of(np.concatenate(values)) for element, values in parts.items()}
    return {element: error for element, error in errors.items() if error}


def write_detail(prefix, predictions):
    """Write reference and prediction side by side, one file per quantity, in DeePMD-kit's columns.

    Parameters
    ----------
    prefix : str or Path
    predictions : list of Predictions
    """
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    for label, columns in COLUMNS.items():
        for per_atom in (False, True) if label != "force" else (False,):
            name = f"{prefix}.{label[0]}{'_peratom' if per_atom else ''}.out"
            with open(name, "w", encoding="utf-8") as file:
                for p in predictions:
                    _write_rows(file, p, label, columns, p.system.natoms if per_atom else 1)


def _write_rows(file, p, label, columns, divisor):
    reference, prediction = p.against(label)
    if len(reference) == 0:
        return
    rows = np.hstack([x.reshape(-1, len(columns)) for x in (reference, prediction)]) / divisor
    names = " ".join(f"{side}_{column}" for side in ("data", "pred") for column in columns)
    np.savetxt(file, rows, header=f"{' '.join(p.system.name.split())}: {names}")
