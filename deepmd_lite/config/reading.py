"""From the text of an ``input.json`` to a `Config`, with errors that name the key and the nearest known one.

Keys that begin with an underscore are comments.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from deepmd_lite import strict_json
from deepmd_lite.config.schema import UNIVERSAL, Config, Section
from deepmd_lite.errors import ConfigError


def load_config(path) -> Config:
    """Read an ``input.json``.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Config
        With `systems`, as lists, and a table relative to the folder of the file.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not JSON (the message gives the line), or holds a key or a value that
        deepmd_lite cannot honor (the message gives its path and what was expected).
    """
    path = Path(path)
    name = str(path) if str(path).isprintable() else repr(str(path))
    try:
        source = strict_json.parse(_text(path), ConfigError)
        config = parse_config(source)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    table = config.model.use_srtab
    if table is not None and table != UNIVERSAL:
        config.model.use_srtab = str(path.parent / table)
    for data in (config.training.training_data, config.training.validation_data):
        if data is not None:
            data.systems = [str(path.parent / system) for system in data.systems]
    return config


def parse_config(source: dict) -> Config:
    """Make a `Config` of an input that is already a dict; paths stay as they are.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    ignored: list[str] = []
    cleaned = _sort_keys(source, Config, "", ignored)
    try:
        config = Config.model_validate(cleaned)
    except ValidationError as error:
        raise ConfigError("; ".join(map(_message, error.errors()))) from None
    config._source, config._ignored = source, ignored
    return config


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"expected UTF-8 text, found byte {error.object[error.start]:#x} at {error.start}"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})") from None


def _sort_keys(source: Any, section: type[Section], where: str, ignored: list[str]) -> Any:
    """Resolve aliases, drop ignored keys, refuse unknown ones; down through the sections."""
    if not isinstance(source, dict):
        return source  # pydantic says what was expected
    cleaned: dict[str, Any] = {}
    for key, value in source.items():
        place = f"{where}{key}"
        name = section.ALIASES.get(key, key)
        if key.startswith("_"):
            continue
        if key in section.IGNORED:
            ignored.append(place)
        elif key in section.ONLY:
            _refuse_unless_neutral(place, value, section.ONLY[key])
        elif name not in section.model_fields:
            raise ConfigError(f"{place}: unknown key{_nearest(key, section)}")
        elif name in cleaned:
            raise ConfigError(f"{place}: expected {name} once, found it under two names")
        else:
            below = _section_of(section, name)
            cleaned[name] = _sort_keys(value, below, f"{place}.", ignored) if below else value
    return cleaned


def _section_of(section: type[Section], name: str) -> type[Section] | None:
    annotation = section.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), None)


def _refuse_unless_neutral(place: str, value: Any, neutral: Any) -> None:
    off = value in ([], {}, None) or (isinstance(value, dict) and value.get("enable") is False)
    same = value == neutral or (isinstance(value, list) and value and all(v == neutral for v in value))
    if not same and not (off and neutral in (None, False, 0)):
        advice = "remove it" if neutral is None else f"expected {json.dumps(neutral)}, or no such key"
        raise ConfigError(f"{place} = {json.dumps(value):.60}: not supported by deepmd_lite; {advice}")


def _nearest(key: str, section: type[Section]) -> str:
    """A suggestion: the nearest key of this section, or the section that has this very key."""
    here = [*section.model_fields, *section.ALIASES, *section.IGNORED, *section.ONLY]
    near = difflib.get_close_matches(key, here, 1)
    if near:
        return f"; did you mean {near[0]}?"
    for place, other in _sections(Config):
        if key in other.model_fields or key in other.ALIASES:
            return f"; it belongs in {place}" if place else "; it belongs at the top"
    return ""


def _sections(section: type[Section], where: str = ""):
    """Yield (path, section) of a section and all below it."""
    yield where, section
    for name in section.model_fields:
        below = _section_of(section, name)
        if below:
            yield from _sections(below, f"{where}.{name}".lstrip("."))


def _message(error: dict) -> str:
    place = "".join(f"{part}." for part in error["loc"])[:-1]
    place = f"{place}: " if place else ""
    if error["type"] == "missing":
        return f"{place}expected this key, found none"
    if error["type"] == "value_error":
        return f"{place}{error['ctx']['error']}"
    expected = error["msg"].replace("Input should be", "expected").replace(" a valid ", " ")
    if error["type"] == "model_type":
        expected = "expected an object"
    found = "null" if error["input"] is None else f"{error['input']!r:.60}"
    return f"{place}{expected}, found {found}"
