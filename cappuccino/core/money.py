"""Decimal quantities at a venue's increments. Floats never enter a ledger; they are converted here, once."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

ZERO = Decimal(0)
CENT = Decimal("0.01")


def dec(value: float | int | str | Decimal) -> Decimal:
    """`value` as Decimal; a float becomes its shortest decimal form, not its binary expansion."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def dec_or_zero(value: float | int | str | Decimal | None) -> Decimal:
    """`value` as Decimal; what a venue leaves out or leaves empty is zero."""
    return ZERO if value in (None, "") else dec(value)


def floor_to(value: Decimal, increment: Decimal) -> Decimal:
    """The largest multiple of `increment` that is not above `value` (toward zero)."""
    return (value / increment).to_integral_value(ROUND_DOWN) * increment


def round_to(value: Decimal, increment: Decimal) -> Decimal:
    return (value / increment).to_integral_value(ROUND_HALF_EVEN) * increment
