"""The search space: per parameter a range or a list of choices, and the text form of their values.

A value's text is what stands in manifests, rows and command lines: integers without a point, floats in their shortest form
that reads back to the same float, choices as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cappuccino.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class FloatRange:
    """[low, high], on a log scale or in steps from `low`, not both."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True, kw_only=True)
class IntRange:
    """low, low + step, ... up to `high`, included when a step meets it."""

    low: int
    high: int
    log: bool = False
    step: int = 1


@dataclass(frozen=True, kw_only=True)
class Choices:
    options: tuple[str, ...]


Dimension = FloatRange | IntRange | Choices
Space = Mapping[str, Dimension]


def parse_space(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Dimension]:
    """A space from the wire form of api.study.Parameter, by name.

    Raises:
        InvalidInput: names the parameter, its value and what it may be.
    """
    return {name: _parse(name, document) for name, document in documents.items()}


def _parse(name: str, document: Mapping[str, Any]) -> Dimension:
    kind = document.get("type")
    if kind == "categorical":
        options = tuple(str(option) for option in document.get("choices") or ())
        if not options or len(set(options)) != len(options):
            raise InvalidInput(f"search space {name}: choices {list(options)} must be there and differ: name each once")
        return Choices(options=options)
    if kind not in ("float", "int"):
        raise InvalidInput(f"search space {name}: type {kind!r} is unknown: use float, int or categorical")
    low, high, step, log = document.get("low"), document.get("high"), document.get("step"), bool(document.get("log"))
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high) or low > high:
        raise InvalidInput(f"search space {name}: low {low} and high {high} must be finite numbers in this order")
    if log and low <= 0:
        raise InvalidInput(f"search space {name}: a log scale needs low above 0, got {low}")
    if log and step is not None:
        raise InvalidInput(f"search space {name}: log and step exclude each other: remove one")
    if kind == "float":
        return FloatRange(low=float(low), high=float(high), log=log, step=None if step is None else float(step))
    for label, value in (("low", low), ("high", high), ("step", step)):
        if value is not None and value != int(value):
            raise InvalidInput(f"search space {name}: {label} {value} of an int parameter is no whole number")
    return IntRange(low=int(low), high=int(high), log=log, step=1 if step is None else int(step))


def to_wire(space: Space) -> dict[str, dict[str, Any]]:
    """The wire form that parse_space reads; the same space always gives the same document."""
    result: dict[str, dict[str, Any]] = {}
    for name, dimension in sorted(space.items()):
        if isinstance(dimension, Choices):
            result[name] = {"type": "categorical", "choices": list(dimension.options)}
            continue
        kind = "float" if isinstance(dimension, FloatRange) else "int"
        document: dict[str, Any] = {"type": kind, "low": dimension.low, "high": dimension.high}
        if dimension.log:
            document["log"] = True
        elif dimension.step is not None and not (kind == "int" and dimension.step == 1):
            document["step"] = dimension.step
        result[name] = document
    return result


def text_of(value: float | int | str) -> str:
    """Raises InvalidInput for NaN and infinity, which no parameter may be."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"parameter value {value} is not finite")
    return value if isinstance(value, str) else repr(value)


def value_of(dimension: Dimension, text: str) -> float | int | str:
    """The value that `text` stands for.

    Raises:
        InvalidInput: it is outside the dimension.
    """
    if isinstance(dimension, Choices):
        if text not in dimension.options:
            raise InvalidInput(f"value {text!r} is none of {', '.join(dimension.options)}")
        return text
    try:
        value: float | int = float(text) if isinstance(dimension, FloatRange) else int(text)
    except ValueError as error:
        raise InvalidInput(f"value {text!r} is not a number") from error
    if not dimension.low <= value <= dimension.high:
        raise InvalidInput(f"value {text} is outside [{dimension.low}, {dimension.high}]")
    return value


def values_of(space: Space, parameters: Mapping[str, str]) -> dict[str, float | int | str] | None:
    """The value of every dimension; None when `parameters` lack one or have it outside."""
    try:
        return {name: value_of(dimension, parameters[name]) for name, dimension in space.items()}
    except (KeyError, InvalidInput):
        return None
