"""What is wrong or odd about a data set, and the ``sel`` to use.

Errors make frames unfit for training. Warnings are what a careful person would look into: units, signs,
duplicates, energies stored too coarsely. The statistics are those that a model is set up from.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deepmd_lite.config import MAX_RCUT
from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames import sanity
from deepmd_lite.frames.geometry import ClosestPair, closest, most_neighbors, pairs, suggested_sel
from deepmd_lite.frames.layout import split_address
from deepmd_lite.frames.store import read_systems
from deepmd_lite.frames.system import validate

OVERLAP = 0.5  # Å: no bond is shorter; H–H is 0.74
DENSEST = 3.0  # atoms per Å³; hydrogen at 500 GPa has about one
COARSE = 1e-5  # eV per atom: float32 totals of large systems are coarser
NET_FORCE = 0.05  # of the root-mean-square force, per √natoms
ASYMMETRY = 1e-3  # of the largest component of the virial
EDGE = 0.01  # of a cell vector: atoms that stick out by less are inside
SAME = 1e-6  # Å: frames closer than this are one frame
FAINT_VIRIAL, SOME_FORCE = 1e-3, 0.05  # eV per atom, eV/Å
STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@dataclass
class Finding:
    """One thing to know: how bad, where, and what."""

    severity: str  # "error", "warning", "note"
    system: str
    frame: int | None
    message: str


@dataclass
class Statistics:
    """Figures of one system."""

    name: str
    formula: str
    nframes: int
    natoms: int
    periodic: str  # axes, e.g. "xyz" or "xy" or ""
    found: dict[str, int]  # label to number of frames
    closest: ClosestPair
    closest_frame: int
    neighbors: np.ndarray  # (ntypes,) the most of each type around any atom


@dataclass
class Report:
    """What `check` found."""

    rcut: float
    type_map: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    statistics: list[Statistics] = field(default_factory=list)

    @property
    def ok(self):
        """bool: No errors."""
        return all(f.severity != "error" for f in self.findings)

    @property
    def neighbors(self):
        """np.ndarray: (ntypes,) the most neighbors of each type in any frame."""
        none = np.zeros(len(self.type_map), dtype=int)
        return np.max([none, *(s.neighbors for s in self.statistics)], axis=0)

    @property
    def sel(self):
        """list of int: The ``sel`` to use, in the order of ``type_map``."""
        return suggested_sel(self.neighbors)

    def render(self):
        """rich.console.Group: A table of systems, the sel to use, and the findings."""
        table = Table(title=None)
        table.add_column("system", overflow="fold")
        for heading in ("formula", "frames", "periodic", "labels", "closest pair (Å)"):
            table.add_column(
                heading, justify="right" if heading in ("frames", "closest pair (Å)") else "left"
            )
        table.add_column(f"most neighbors in {self.rcut:g} Å", justify="right")
        for s in self.statistics:
            labels = " ".join(k if n == s.nframes else f"{k} ({n})" for k, n in s.found.items() if n)
            nearest = f"{s.closest.distance:.3f}" if np.isfinite(s.closest.distance) else "none"
            most = " ".join(f"{t} {n}" for t, n in zip(self.type_map, s.neighbors) if n)
            table.add_row(s.name, s.formula, str(s.nframes), s.periodic or "no", labels, nearest, most)
        lines = [table] if self.statistics else []
        if self.statistics:
            lines.append(
                Text(f"type_map {' '.join(self.type_map)}   sel {self.sel} for rcut {self.rcut:g} Å")
            )
        for f in sorted(self.findings, key=lambda f: list(STYLES).index(f.severity)):
            place = f.system if f.frame is None else f"{f.system}, frame {f.frame}"
            lines.append(Text.assemble((f"{f.severity}: ", STYLES[f.severity]), f"{place}: {f.message}"))
        if not self.findings:
            lines.append(Text("nothing to complain about", style="green"))
        return Group(*lines)


def check(data, rcut=6.0, type_map=None):
    """Look a data set over.

    Parameters
    ----------
    data : list of System, or addresses as for `read_systems`
        What cannot be read becomes an error of the report.
    rcut : float
        Cutoff for the neighbor statistics, Å; at most MAX_RCUT.
    type_map : sequence of str, optional
        By default the elements found, in order of first appearance.

    Returns
    -------
    Report

    Raises
    ------
    ConfigError
        A cutoff that is not positive or too large.
    """
    if not 0 < rcut <= MAX_RCUT:
        raise ConfigError(f"rcut = {rcut:g}: expected more than 0 and at most {MAX_RCUT:g} Å")
    findings = []
    systems = _usable(data, type_map, findings)
    crowded = [s for s in systems if _density(s) > DENSEST]
    for system in crowded:
        message = f"{_density(system):.3g} atoms per Å³ is denser than any matter: is the cell in nm?"
        findings.append(Finding("error", system.name, None, message))
    systems = [s for s in systems if _density(s) <= DENSEST]
    elements = type_map or dict.fromkeys(name for s in systems for name in s.type_map)
    systems = [s.remapped(elements) for s in systems]
    report = Report(rcut, tuple(elements), findings)
    for system in systems:
        report.statistics.append(_statistics(system, rcut))
        findings += _overlap(report.statistics[-1])
        findings += _transposed(system)
        findings += _labels(system)
        findings += _trajectory(system)
    findings += _units(systems)
    findings += _duplicates(systems)
    return report


def _usable(data, type_map, findings):
    """list of System: Those that can be read and pass `validate`; the others go into ``findings``."""
    systems = []
    for item in [data] if isinstance(data, str | Path) else data:
        try:
            if isinstance(item, str | Path):
                systems += read_systems(item, type_map)
            else:
                validate(item)
                systems.append(item if type_map is None else item.remapped(type_map))
        except DataError as reason:
            where = str(item) if isinstance(item, str | Path) else item.name
            findings.append(Finding("error", *_place(where, str(reason))))
    return systems


def _place(where, message):
    """(str, None, str): Where it is and what: the address that a message begins with is the exact one."""
    address, colon, what = message.partition(": ")
    if colon and address.startswith(str(split_address(where)[0])):
        return address, None, what
    return where, None, message


def _density(system):
    """float: The most atoms per Å³ in any frame; 0 unless periodic in three directions."""
    return system.natoms / np.abs(np.linalg.det(system.box)).min() if system.pbc.all() else 0.0


def _statistics(system, rcut):
    nearest, where = ClosestPair(np.inf, -1, -1), 0
    most = np.zeros(len(system.type_map), dtype=int)
    for frame in range(system.nframes):
        found = pairs(system, frame, rcut)
        most = np.maximum(most, most_neighbors(system, found))
        if closest(found) < nearest:
            nearest, where = closest(found), frame
    return Statistics(
        name=system.name,
        formula=system.formula,
        nframes=system.nframes,
        natoms=system.natoms,
        periodic="".join(axis for axis, p in zip("xyz", system.pbc) if p),
        found={key: int(value.sum()) for key, value in system.found.items()},
        closest=nearest,
        closest_frame=where,
        neighbors=most,
    )


def _overlap(statistics):
    if statistics.closest.distance >= OVERLAP:
        return
    distance, i, j = statistics.closest
    message = f"atoms {i} and {j} are {distance:.3g} Å apart; no bond is shorter than {OVERLAP} Å"
    yield Finding("warning", statistics.name, statistics.closest_frame, message)


def _transposed(system):
    """Cells written column by column: the atoms fill the transposed cell and stick out of this one."""
    if not system.pbc.all():
        return
    cells = system.box, system.box.transpose(0, 2, 1)
    inside = [np.abs(system.coord @ np.linalg.inv(c) - 0.5).max(axis=2) < 0.5 + EDGE for c in cells]
    if inside[1].all() and inside[0].mean() < 0.9:
        share = 1 - inside[0].mean()
        message = (
            f"{share:.0%} of the atoms lie outside the cell and none outside its transpose: is it transposed?"
        )
        yield Finding("warning", system.name, None, message)


def _labels(system):
    """Labels that are missing, coarse, unbalanced or lopsided."""

    def finding(severity, message, frame=None):
        return Finding(severity, system.name, frame, message)

    missing = [k for k in ("energy", "force") if k not in system.found or not system.found[k].any()]
    if missing:
        yield finding("warning", f"no {' and no '.join(missing)}")
    coarse = sanity.energy_resolution(system) / system.natoms
    if coarse > COARSE:
        stored = system.source_dtype["energy"]
        yield finding(
            "warning", f"energies are stored as {stored}: {1e3 * coarse:.2g} meV per atom is the finest step"
        )
    rms = 0.0
    if system.found.get("force", np.zeros(1)).any() and system.natoms > 1:
        force = system.labels["force"][system.found["force"]]
        rms = np.sqrt(np.mean(force**2))
        net = np.linalg.norm(force.sum(axis=1), axis=1)
        worst = int(np.argmax(net))
        if net[worst] > NET_FORCE * max(rms, 1e-3) * np.sqrt(system.natoms):
            frame = int(np.flatnonzero(system.found["force"])[worst])
            yield finding("warning", f"forces add up to {net[worst]:.3g} eV/Å; expected zero", frame)
    if system.found.get("virial", np.zeros(1)).any():
        virial = system.labels["virial"][system.found["virial"]]
        largest = np.abs(virial).max()
        skew = np.abs(virial - virial.transpose(0, 2, 1)).max(axis=(1, 2))
        if skew.max() > ASYMMETRY * largest:
            frame = int(np.flatnonzero(system.found["virial"])[np.argmax(skew)])
            yield finding("warning", f"virial is not symmetric by {skew.max():.3g} eV", frame)
        if largest < FAINT_VIRIAL * system.natoms and rms > SOME_FORCE:
            yield finding("warning", f"virials are below {largest:.2g} eV: a stress in eV/Å³ in their place?")


def _trajectory(system):
    work = sanity.work_along_trajectory(system)
    if work is None:
        return
    wrong = sanity.mismatch(work)
    figures = f"{work.steps} steps, slope {work.slope:.4g}, residual {1e3 * work.residual:.2g} meV per atom"
    if wrong:
        yield Finding("warning", system.name, None, f"{wrong} ({figures})")
    else:
        yield Finding("note", system.name, None, f"energies follow the work of the forces ({figures})")


def _units(systems):
    for test in (sanity.foreign_lengths, sanity.foreign_energies):
        doubt = test(systems)
        if doubt:
            yield Finding("warning", "all systems", None, doubt)


def _duplicates(systems):
    """Frames that occur twice, within a system or across systems; one finding for each pair of systems."""
    seen, twice = {}, defaultdict(list)
    for system in systems:
        for frame in range(system.nframes):
            cell = b"" if system.box is None else np.round(system.box[frame] / SAME).tobytes()
            key = (tuple(system.symbols), np.round(system.coord[frame] / SAME).tobytes(), cell)
            first = seen.setdefault(hash(key), (system.name, frame))
            if first != (system.name, frame):
                twice[first[0], system.name].append((first[1], frame))
    for (one, other), frames in twice.items():
        shown = ", ".join(f"{a} = {b}" for a, b in frames[:3]) + (" ..." if len(frames) > 3 else "")
        inside = "itself" if one == other else one
        yield Finding("warning", other, None, f"{len(frames)} frames also occur in {inside} ({shown})")
