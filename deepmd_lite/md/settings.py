"""md.json: the only statement of its keys, defaults, units and limits.

The least that a simulation needs::

    {"structure": "start.extxyz", "model": "model.dp", "steps": 10000,
     "ensemble": {"type": "langevin", "temperature": 300}}

`describe` prints all keys; keys that begin with an underscore are comments.
"""

import copy
import difflib
import inspect
import json
import math
import os
import textwrap
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from deepmd_lite import strict_json
from deepmd_lite.config.reading import _message, _section_of, _sections, _text
from deepmd_lite.config.schema import Section
from deepmd_lite.errors import ConfigError

SUFFIXES = (".extxyz", ".traj", ".h5")  # of trajectories
NEEDED = {  # keys of an ensemble that count, by its type
    "nve": (),
    "langevin": ("temperature", "tau"),
    "bussi": ("temperature", "tau"),
    "nose_hoover": ("temperature", "tau", "chain"),
    "npt": ("temperature", "tau", "pressure", "pressure_tau", "compressibility", "coupling"),
}


def _path(value):
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path, found {value!r:.80}")
    return value


def _paths(value):
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not paths:
        raise ValueError(f"expected a path or a list of paths, found {value!r:.80}")
    return [_path(p) for p in paths]


def _trajectory_path(value):
    if not _path(value).endswith(SUFFIXES):
        raise ValueError(f"expected a name that ends in {', '.join(SUFFIXES)}, found {value!r:.80}")
    return value


def _ramp(value):
    ends = value if isinstance(value, list | tuple) else (value, value)
    if len(ends) != 2 or not all(type(x) in (int, float) and abs(x) < 1e300 for x in ends):
        raise ValueError(f"expected a number or [start, end], found {value!r:.60}")
    return tuple(map(float, ends))


def _three(value):
    if not isinstance(value, list) or len(value) != 3 or not all(type(n) is int and n > 0 for n in value):
        raise ValueError(f"expected three positive integers, found {value!r:.60}")
    return value


def _listed(value):
    return [] if value is None else [value] if isinstance(value, dict) else value


# a text among the metadata is how `describe` calls the type
PathName = Annotated[str, BeforeValidator(_path), "path"]
Paths = Annotated[list[str], BeforeValidator(_paths), "path or list of paths"]
TrajectoryPath = Annotated[str, BeforeValidator(_trajectory_path), "path"]
Ramp = Annotated[tuple[float, float], BeforeValidator(_ramp), "number or [start, end]"]
Three = Annotated[list[int], BeforeValidator(_three), "three integers > 0"]


def _key(meaning, default=..., unit=None, **limits):
    """A field: what it means, its default (none: required), its unit."""
    return Field(default, description=meaning, json_schema_extra=unit and {"unit": unit}, **limits)


class Ensemble(Section):
    """What is held constant, and how."""

    type: Literal[tuple(NEEDED)] = _key(
        "nve: constant energy. Constant temperature by langevin (friction, noise), bussi (stochastic "
        "rescaling) or nose_hoover (chains). npt: temperature and pressure by stochastic rescaling."
    )
    temperature: Ramp | None = _key(
        "Needed by all but nve; [start, end] changes linearly over the run.", None, "K"
    )
    tau: PositiveFloat = _key(
        "Relaxation time of the thermostat; of langevin, 1 over the friction.", 100.0, "fs"
    )
    chain: PositiveInt = _key("Length of the chain of nose_hoover.", 3)
    pressure: Ramp | None = _key("Needed by npt; [start, end] changes linearly over the run.", None, "bar")
    pressure_tau: PositiveFloat = _key("Relaxation time of the barostat.", 1000.0, "fs")
    compressibility: PositiveFloat = _key(
        "Isothermal, an estimate: a wrong one changes the relaxation time, not the ensemble. That of water.",
        4.57e-5,
        "1/bar",
    )
    coupling: Literal["isotropic", "anisotropic", "triclinic"] = _key(
        "How the cell may change: isotropic, its volume alone; anisotropic, its lengths along x, y and z; "
        "triclinic, all six strains, for solids.",
        "isotropic",
    )

    @model_validator(mode="after")
    def _consistent(self):
        needed = NEEDED[self.type]
        for key in ("temperature", "pressure"):
            if key in needed and getattr(self, key) is None:
                unit = type(self).model_fields[key].json_schema_extra["unit"]
                raise ValueError(f"expected {key} ({unit}) with type {self.type}, found none; add it")
        for key in self.model_fields_set - {"type", *needed}:
            if getattr(self, key) is not None:
                raise ValueError(f"expected no {key} with type {self.type}, found {key}; remove it")
        coldest = min(self.temperature or [math.inf])
        if coldest < 0 or (coldest == 0 and self.type == "nose_hoover"):
            raise ValueError(f"expected temperatures above 0 K with type {self.type}, found {coldest:g} K")
        return self


class Velocities(Section):
    """Velocities drawn at the start."""

    temperature: NonNegativeFloat = _key("Of the Maxwell-Boltzmann distribution, met exactly.", unit="K")


class Log(Section):
    """Energies, temperature and pressure as text."""

    file: PathName = _key("The file to write.", "md.log")
    interval: PositiveInt = _key("A row every so many steps.", 100)


class Trajectory(Section):
    """Frames along the way."""

    file: TrajectoryPath = _key("The file to write: .extxyz (text), .traj (ASE) or .h5 (compact and exact).")
    interval: PositiveInt = _key("A frame every so many steps.", 100)
    velocities: bool = _key("Also write velocities.", False)
    forces: bool = _key("Also write forces.", False)


class Restart(Section):
    """The checkpoint; also written at the end, and before a run stops at SIGTERM or Ctrl-C."""

    file: PathName = _key("The file to write; it replaces the one before when it is whole.", "md.restart.h5")
    interval: PositiveInt = _key("A checkpoint every so many steps.", 10000)


class ModelDeviation(Section):
    """How far the models of a committee disagree, in the columns of DeePMD-kit."""

    file: PathName = _key("The file to write.", "model_devi.out")
    interval: PositiveInt = _key("A row every so many steps: each evaluates all models.", 100)


class Safety(Section):
    """A run that exceeds a limit stops with an error, having written the last good frame. Numbers that are
    not finite stop it always; null: no limit.
    """

    max_force: PositiveFloat | None = _key("Largest force on an atom.", 1000.0, "eV/Å")
    min_distance: PositiveFloat | None = _key("Smallest distance of two atoms.", 0.3, "Å")
    max_temperature: PositiveFloat | None = _key(
        "Largest temperature of all atoms, looked at when the log is written.", None, "K"
    )
    max_deviation: PositiveFloat | None = _key(
        "Largest max_devi_f of a committee, looked at when model_deviation is written.", None, "eV/Å"
    )
    max_displacement: PositiveFloat | None = _key("Largest move of an atom in one step.", 0.5, "Å")
    file: PathName = _key("Where the last good frame goes.", "last_good.extxyz")


class Settings(Section):
    """What to simulate, and for how long."""

    structure: PathName = _key("Where to start: a file that ASE reads, or frames as file.h5 or file.h5#/SYS.")
    frame: int = _key("Which frame of the file, from 0; -1 is the last.", -1)
    replicate: Three = _key("Copies along each cell vector.", [1, 1, 1])
    model: Paths = _key("A .dp file; several are a committee, of which the first drives.")
    precision: Literal["float64", "float32"] = _key("Of the model's arithmetic.", "float64")
    skin: NonNegativeFloat = _key("Neighbor lists reach so much beyond the cutoff.", 1.0, "Å")
    threads: PositiveInt = _key("Threads of each rank.", 1)
    grid: Three | None = _key("Ranks along each cell vector; null: chosen.", None)
    ensemble: Ensemble
    dt: PositiveFloat = _key("Time step.", 0.5, "fs")
    steps: NonNegativeInt = _key("Number of steps of the whole run, restarts included.")
    seed: NonNegativeInt = _key("Of all random numbers: the same seed, the same run.", 0, lt=2**63)
    velocities: Velocities | None = _key(
        "Draw velocities at the start; null: those of the structure file, zero where it has none.", None
    )
    remove_drift: PositiveInt | None = _key(
        "Set the total momentum to zero every so many steps; without effect where atoms are fixed.", None
    )
    fixed: list[NonNegativeInt] = _key(
        "Atoms to hold fixed, by place in the structure file, from 0, in all copies; its FixAtoms count too.",
        [],
    )
    log: Log = Field(default_factory=Log)
    trajectory: Annotated[list[Trajectory], BeforeValidator(_listed), "object or list of objects"] = []
    restart: Restart = Field(default_factory=Restart)
    model_deviation: ModelDeviation | None = _key(
        "Left out, it is written with its defaults when there is more than one model.",
        None,
    )
    safety: Safety = Field(default_factory=Safety)

    @model_validator(mode="after")
    def _consistent(self):
        several = len(self.model) > 1
        if several and "model_deviation" not in self.model_fields_set:
            self.model_deviation = ModelDeviation()
        if self.model_deviation and not several:
            raise ValueError(
                "expected several models with model_deviation, found one; list more, or remove it"
            )
        if self.safety.max_deviation is not None and not self.model_deviation:
            raise ValueError(
                "expected model_deviation with safety.max_deviation, found none; add it and models"
            )
        return self

    def outputs(self):
        """Yield (key, section) of everything that writes a file; ``section.file`` is its path."""
        for key in ("log", "restart", "model_deviation", "safety"):
            if getattr(self, key):
                yield key, getattr(self, key)
        for number, section in enumerate(self.trajectory):
            yield f"trajectory.{number}", section

    def _move_to(self, folder):
        """Take paths relative to a folder."""
        self.structure = str(folder / self.structure)
        self.model = [str(folder / path) for path in self.model]
        for _, section in self.outputs():
            section.file = str(folder / section.file)

    def _check_paths(self):
        """ConfigError for two outputs in one file, or an output in an input."""
        taken = {os.path.realpath(path): "model" for path in self.model}
        taken[os.path.realpath(self.structure.partition("#")[0])] = "structure"
        for key, section in self.outputs():
            path = os.path.realpath(section.file)
            if path in taken:
                raise ConfigError(
                    f"{key}.file: expected a file of its own, found {section.file!r}, which is that of "
                    f"{taken[path]}; choose another name"
                )
            taken[path] = key


def load_settings(path, overrides=()):
    """Read an ``md.json``.

    Parameters
    ----------
    path : str or Path
    overrides : sequence of str
        ``key=value`` or ``section.key=value``, in place of what the file says; values are JSON or bare words.

    Returns
    -------
    Settings
        With paths relative to the folder of the file, those of overrides too.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not JSON (the message gives the line), or has a bad key or value.
    """
    path = Path(path)
    name = str(path) if str(path).isprintable() else repr(str(path))
    try:
        source = strict_json.parse(_text(path), ConfigError)
        return parse_settings(source, overrides, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def parse_settings(source, overrides=(), folder="."):
    """Make `Settings` of what is already a dict; parameters and errors as of `load_settings`."""
    source = copy.deepcopy(source)
    for text in overrides:
        _override(source, text)
    try:
        settings = Settings.model_validate(_known(source, Settings))
    except ValidationError as error:
        raise ConfigError("; ".join(map(_message, error.errors()))) from None
    settings._move_to(Path(folder))
    settings._check_paths()
    return settings


def _override(tree, text):
    """Put the value of ``section.key=value`` into a tree of settings."""
    place, mark, value = text.partition("=")
    *sections, key = place.strip().split(".")
    if not mark or not all((*sections, key)):
        raise ConfigError(f"{text!r:.80}: expected key=value or section.key=value")
    for name in sections:
        tree[name] = {} if tree.get(name) is None else tree[name]
        tree = tree[name]
        if not isinstance(tree, dict):
            raise ConfigError(
                f"{text!r:.80}: expected an object at {name}, found {tree!r:.40}; give it whole"
            )
    try:
        json.loads(value)
        tree[key] = strict_json.parse(f'{{"value": {value}}}', ConfigError)["value"]
    except ConfigError as error:
        raise ConfigError(f"{text!r:.80}: {error}") from None
    except (ValueError, RecursionError):
        tree[key] = value.strip()  # a bare word


def _known(source, section, where=""):
    """The same without comments; ConfigError for a key that its section does not have."""
    if isinstance(source, list):
        return [_known(item, section, f"{where}{number}.") for number, item in enumerate(source)]
    if not isinstance(source, dict):
        return source  # pydantic says what was expected
    cleaned = {}
    for key, value in source.items():
        if key.startswith("_"):
            continue
        if key not in section.model_fields:
            raise ConfigError(f"{where}{key}: unknown key{_nearest(key, section)}")
        below = _section_of(section, key)
        cleaned[key] = _known(value, below, f"{where}{key}.") if below else value
    return cleaned


def _nearest(key, section):
    """A suggestion: the sections that have this very key, or the nearest key of this section."""
    places = [place or "the top level" for place, other in _sections(Settings) if key in other.model_fields]
    near = difflib.get_close_matches(key, section.model_fields, 1)
    if places:
        return f"; it belongs in {' or '.join(places)}"
    return f"; did you mean {near[0]}?" if near else ""


def describe():
    """All keys of md.json with type, unit, default and meaning, as text."""
    lines = ["md.json. Paths are relative to its folder; keys that begin with an underscore are comments."]
    for place, section in _sections(Settings):
        lines += ["", *textwrap.wrap(f"{place or 'top level'}: {inspect.getdoc(section)}", 100)]
        for name, hint in inspect.get_annotations(section).items():
            if name not in section.model_fields:
                continue
            key = section.model_fields[name]
            unit = f", {key.json_schema_extra['unit']}" if key.json_schema_extra else ""
            lines.append(f"  {name}: {_kind(hint)}{unit}; {_default(key)}")
            indent = " " * 6
            lines += textwrap.wrap(
                key.description or "", 100, initial_indent=indent, subsequent_indent=indent
            )
    return "\n".join(lines) + "\n"


def _kind(hint):
    """A type in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        named = [m for m in parts[1:] if isinstance(m, str)]
        limits = [f" > {m.gt:g}" for m in parts[1:] if hasattr(m, "gt")]
        limits += [f" >= {m.ge:g}" for m in parts[1:] if hasattr(m, "ge")]
        return named[0] if named else _kind(parts[0]) + "".join(limits)
    if origin is Literal:
        return " | ".join(parts)
    if origin in (Union, UnionType):
        return " or ".join(map(_kind, parts))
    if origin is list:
        return f"list of {_kind(parts[0])}"
    return {int: "integer", float: "number", bool: "true | false", NoneType: "null"}.get(hint, "object")


def _default(key):
    if key.is_required():
        return "required"
    return "its defaults" if key.default_factory else f"default {json.dumps(key.default, ensure_ascii=False)}"
