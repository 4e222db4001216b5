"""Kubernetes quantities, as api/meta.py lets them be written: sums of them. Source: the Kubernetes API, resource.Quantity."""

from __future__ import annotations

import math
from decimal import Decimal

_UNITS = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTP", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTP", start=1)},
}


def number(quantity: str) -> Decimal:
    """Cores, bytes, or whatever it counts."""
    unit = _unit(quantity)
    return Decimal(quantity.removesuffix(unit)) * _UNITS[unit]


def added(quantity: str, further: str, *, times: int) -> str:
    """`quantity` and `times` of `further`, in the unit of `further`; as it is when that is nothing."""
    more = number(further) * times
    if not more:
        return quantity
    unit = _unit(further)
    return f"{math.ceil((number(quantity) + more) / _UNITS[unit])}{unit}"


def _unit(quantity: str) -> str:
    return quantity.lstrip("0123456789.")
