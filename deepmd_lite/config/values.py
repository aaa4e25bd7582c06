"""Values that more than a number or a word may stand for, as pydantic types.

A validator returns the value to be kept, or raises ValueError with what was expected and found.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

ACTIVATIONS = ("tanh", "relu", "gelu", "gelu_tf", "relu6", "softplus", "sigmoid", "silu", "none", "linear")
SILUT = r"silut(:\d+(\.\d+)?)?"  # silut:T, silu continued by a tanh above T
PRECISIONS = dict(default="float64", double="float64", float64="float64", single="float32", float32="float32")
REFUSED_BATCHES = {  # rules of DeePMD-kit
    "filter": '; leave systems that are too large out of systems, and use "max:N"',
    "mix": "; batches of so many atoms are for LMDB data, which are not read here",
}
MAX_RCUT = 30.0  # Å; beyond it, ten thousand neighbors an atom fill the memory


def _activation(name: str) -> str:
    if name.lower() not in ACTIVATIONS and not re.fullmatch(SILUT, name.lower()):
        raise ValueError(f"expected one of {', '.join(ACTIVATIONS)}, silut:T, found {name!r}")
    return name.lower()


def _precision(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"expected default, float64 or float32, found {name!r}")
    return PRECISIONS[name]


def _rcut(value: float) -> float:
    if value > MAX_RCUT:
        raise ValueError(f"expected at most {MAX_RCUT:g} Å, found {value:g}")
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _sel(value: Any) -> Any:
    if isinstance(value, list) and value and all(map(_is_count, value)):
        return value
    if isinstance(value, str) and re.fullmatch(r"auto(:\d+(\.\d*)?)?", value):
        if float(value.partition(":")[2] or 1.1) >= 1:
            return value
    raise ValueError(f'expected a positive number per type, "auto" or "auto:1.1", found {value!r}')


def _batch_size(value: Any) -> Any:
    listed = isinstance(value, list) and value and all(map(_is_count, value))
    rule = isinstance(value, str) and re.fullmatch(r"auto(:[1-9]\d*)?|(max|mixed):[1-9]\d*", value)
    if not (_is_count(value) or listed or rule):
        hint = REFUSED_BATCHES.get(str(value).partition(":")[0], "")
        raise ValueError(
            'expected a positive number, a list of them, "auto", "auto:N", "max:N" or "mixed:N", '
            f"found {value!r}{hint}"
        )
    return value


def _systems(value: Any) -> Any:
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) and p for p in paths):
        raise ValueError(f"expected a path or a list of paths, found {value!r:.80}")
    return paths


def _trainable(value: Any) -> Any:
    if not isinstance(value, bool) and not (
        isinstance(value, list) and value and all(isinstance(v, bool) for v in value)
    ):
        raise ValueError(f"expected true, false or one of them per layer, found {value!r:.80}")
    return value


def _huber_delta(value: Any) -> Any:
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3 or not all(type(v) in (int, float) and v > 0 for v in values):
        raise ValueError(
            f"expected a positive number, or three for energy, force and virial, found {value!r:.80}"
        )
    return values


Activation = Annotated[str, AfterValidator(_activation)]
Precision = Annotated[str, AfterValidator(_precision)]
Neuron = Annotated[list[PositiveInt], Field(min_length=1)]
Pair = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]
Seed = Annotated[NonNegativeInt | None, Field()]
Sel = Annotated[list[int] | str, BeforeValidator(_sel)]
Rcut = Annotated[PositiveFloat, AfterValidator(_rcut)]
Trainable = Annotated[bool | list[bool], BeforeValidator(_trainable)]
HuberDelta = Annotated[list[float], BeforeValidator(_huber_delta)]
Systems = Annotated[list[str], BeforeValidator(_systems)]
BatchSize = Annotated[int | list[int] | str, BeforeValidator(_batch_size)]
