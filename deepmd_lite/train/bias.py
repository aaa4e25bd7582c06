"""Energies per element fitted to other frames, with all else of a model as it is: ``dplite change-bias``.

Predictions are the engine's. The shift goes to ``out_bias``, which a pair table (use_srtab) leaves alone.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from deepmd_lite.box import Ghosts
from deepmd_lite.engine.compiled import CompiledPot
from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames.store import open_systems
from deepmd_lite.model_file import read_model, write_model
from deepmd_lite.neighbors import NeighborTable
from deepmd_lite.train.dataset import Frames


@dataclass(frozen=True)
class Shift:
    """A change of the energies per element.

    Attributes
    ----------
    elements : tuple of str
    before, after : (ntypes,) eV
    nframes : int
        Frames with an energy that it was fitted to, or compared with.
    rmse : (float, float) or None
        Of their energies before and after, eV/atom; None without frames.
    """

    elements: tuple[str, ...]
    before: np.ndarray
    after: np.ndarray
    nframes: int
    rmse: tuple[float, float] | None

    def table(self):
        """rich.table.Table: One row per element."""
        caption = None
        if self.rmse:
            first, last = (f"{1e3 * e:.4g}" for e in self.rmse)
            caption = f"energy RMSE of {self.nframes} frames: {first} meV/atom before, {last} after"
        table = Table(title="Energies per element (eV)", caption=caption)
        for name in ("element", "before", "shift", "after"):
            table.add_column(name, justify="left" if name == "element" else "right")
        for element, e, f in zip(self.elements, self.before, self.after):
            table.add_row(element, f"{e:.6f}", f"{f - e:+.6f}", f"{f:.6f}")
        return table


@dataclass(frozen=True)
class Energies:
    """Of frames with an energy: atoms of each type (n, ntypes) that have one; label and prediction (n,), eV."""

    natoms: np.ndarray
    counts: np.ndarray
    label: np.ndarray
    prediction: np.ndarray

    def rmse(self, shift):
        """RMSE of the energy per atom, eV, with energies per element shifted by (ntypes,)."""
        return float(
            np.sqrt(np.mean(((self.label - self.prediction - self.counts @ shift) / self.natoms) ** 2))
        )


def change_bias(path, data, out, *, mode="change", values=None):
    """Write a model with other energies per element.

    Parameters
    ----------
    path, out : str or Path
        The ``.dp`` files to read and to write.
    data : list of str
        Frames, as for `read_systems`; may be empty when there are ``values``.
    mode : {"change", "set"}
        Fit what the model misses of the energies, or the energies alone; by least squares on the composition.
    values : str, optional
        The energies per element, eV: a number for each type, with commas or spaces between.

    Returns
    -------
    Shift

    Raises
    ------
    ConfigError
        Another mode, no frames, other numbers than the model has types.
    ModelFileError, DataError
        If the model or the frames cannot be used, or no frame has an energy.
    """
    if mode not in ("change", "set"):
        raise ConfigError(f"--mode {mode}: expected change or set")
    if not data and values is None:
        raise ConfigError("expected frames to fit (-s), or energies per element (-b), found neither")
    model = read_model(path)
    before, energies = model.fitting.bias_atom_e + model.out_bias, None
    if data:
        d, f, ntypes = model.descriptor, model.fitting, len(model.type_map)
        systems = open_systems(data, model.type_map)
        energies = energies_of(model, Frames(systems, d.rcut, ntypes, f.numb_fparam, f.numb_aparam))
        if energies is None:
            raise DataError(f"{systems[0].name}: expected frames with an energy, found none")
    if values is not None:
        after = _numbers(values, model.type_map)
    elif mode == "set":
        after = fit(energies.counts, energies.label)
    else:
        after = before + fit(energies.counts, energies.label - energies.prediction)
    write_model(out, shifted(model, after - before))
    return report(model, after - before, energies)


def _numbers(text, type_map):
    try:
        values = np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError:
        raise ConfigError(f"-b {text}: expected numbers, eV") from None
    if len(values) != len(type_map) or not np.isfinite(values).all():
        raise ConfigError(f"-b {text}: expected {len(type_map)} numbers, for {', '.join(type_map)}")
    return values


def shifted(model, shift):
    """The model with energies per element larger by ``shift`` (ntypes,), eV."""
    return dataclasses.replace(model, out_bias=model.out_bias + shift)


def report(model, shift, energies):
    """The `Shift` of a model by (ntypes,), eV; `Energies` or None."""
    before = model.fitting.bias_atom_e + model.out_bias
    rmse = None if energies is None else (energies.rmse(np.zeros_like(shift)), energies.rmse(shift))
    nframes = 0 if energies is None else len(energies.label)
    return Shift(tuple(model.type_map), before, before + shift, nframes, rmse)


def evaluate(potential, batch):
    """`Prediction` of an engine's potential for a batch of one frame."""
    ghosts = Ghosts(batch.coord.numpy(), batch.owner.numpy(), None)
    parameters = (None if p is None else p.numpy() for p in (batch.fparam, batch.aparam))
    table = NeighborTable(batch.first, batch.index)
    return potential.evaluate_neighbors(ghosts, table, batch.atype[batch.row], *parameters)


def energies_of(model, frames):
    """`Energies` of a `dataset.Frames`; None where no frame has an energy."""
    potential = CompiledPot(model, threads=1)  # `Frames.map` has threads of its own

    def compare(frame):
        if not bool(frame.labels.found["energy"]):
            return None
        counts = np.bincount(frame.batch.atype[frame.batch.row], minlength=potential.ntypes)
        return counts.sum(), counts, float(frame.labels.energy), evaluate(potential, frame.batch).energy

    rows = [row for row in frames.map(compare) if row is not None]
    if not rows:
        return None
    natoms, counts, label, prediction = map(np.array, zip(*rows))
    counts[:, list(model.atom_exclude_types)] = 0  # those have no energy, whatever their bias
    return Energies(natoms, counts.astype(float), label, prediction)


def fit(counts, energy, first=()):
    """Energies per element (ntypes,), eV: least squares of energies (n,) on compositions counts (n, ntypes).

    Where compositions do not tell elements apart, types ``first`` take all that they can, and among the rest it is
    the solution of least norm.
    """
    shift = np.zeros(counts.shape[1])
    for types in (list(first), list(range(len(shift)))):
        if types:
            shift[types] += np.linalg.lstsq(counts[:, types], energy - counts @ shift, rcond=1e-10)[0]
    return shift
