"""Stops, targets and trails: one function for environment, backtest and trader.

The path inside a bar is open, low, high, close. A level that the open has already passed fills at the
open; any other fills at its level. The trail arms only once the peak has reached `trail_arms_at` above
the entry (an always-armed 1.5 % trail hits 95 % of hourly entries within a day). After an exit there is
no re-entry before the next decision. `xp` is numpy or torch; arrays share any one shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Array = Any

NONE, STOP_LOSS, TRAILING_STOP, TAKE_PROFIT, TIME_LIMIT = range(5)
EXIT_REASONS = ("", "stop_loss", "trailing_stop", "take_profit", "time_limit")


@dataclass(frozen=True, kw_only=True)
class Barriers:
    """Fractions of the entry price (0.10 = 10 %); None switches a barrier off.

    `basis` names the entry: the quantity-weighted average price of the open position's buys.
    """

    stop: float | None = 0.10
    take_profit: float | None = None
    trail: float | None = 0.015
    trail_arms_at: float = 0.015
    max_hold_bars: int | None = None
    basis: Literal["average_entry"] = "average_entry"

    @classmethod
    def off(cls) -> Barriers:
        return cls(stop=None, trail=None)


def exit_level(xp: Any, *, entry: Array, peak: Array, barriers: Barriers) -> tuple[Array, Array]:
    """(price at or below which the position is sold, code of the barrier that sets it); level 0 when none."""
    level = xp.zeros_like(entry)
    code = xp.zeros_like(entry)
    if barriers.stop is not None:
        level = entry * (1.0 - barriers.stop)
        code = code + STOP_LOSS
    if barriers.trail is not None:
        trail = xp.where(peak >= entry * (1.0 + barriers.trail_arms_at), peak * (1.0 - barriers.trail), xp.zeros_like(entry))
        code = xp.where(trail > level, xp.zeros_like(entry) + TRAILING_STOP, code)
        level = xp.where(trail > level, trail, level)
    return level, code


def exit_at_price(
    xp: Any, *, price: Array, entry: Array, peak: Array, bars_held: Array, barriers: Barriers
) -> tuple[Array, Array]:
    """One quote: (code of the exit it causes or NONE, peak including this quote). The exit fills at `price`."""
    level, code = exit_level(xp, entry=entry, peak=peak, barriers=barriers)
    result = xp.where(price <= level, code, xp.zeros_like(entry))
    if barriers.take_profit is not None:
        hit = (price >= entry * (1.0 + barriers.take_profit)) & (result == NONE)
        result = xp.where(hit, xp.zeros_like(entry) + TAKE_PROFIT, result)
    if barriers.max_hold_bars is not None:
        hit = (bars_held >= barriers.max_hold_bars) & (result == NONE)
        result = xp.where(hit, xp.zeros_like(entry) + TIME_LIMIT, result)
    return result, xp.where(price > peak, price, peak)


def exit_in_bar(
    xp: Any,
    *,
    open: Array,  # noqa: A002 - the field's word
    high: Array,
    low: Array,
    close: Array,
    entry: Array,
    peak: Array,
    bars_held: Array,
    barriers: Barriers,
) -> tuple[Array, Array, Array]:
    """A whole bar for positions held from its open on (values where nothing is held mean nothing).

    Args:
        entry, peak: average entry, and highest price seen since it.
        bars_held: decisions passed since the position was opened, 0 in the bar of its entry.

    Returns:
        (code [..], price at which the exit fills before slippage [..], peak at the end of the bar [..]).
    """
    zero = xp.zeros_like(entry)
    code, top = exit_at_price(xp, price=open, entry=entry, peak=peak, bars_held=bars_held, barriers=barriers)
    price = open

    def cross(hit: Array, at: Array, why: Array) -> tuple[Array, Array]:
        first = hit & (code == NONE)
        return xp.where(first, why, code), xp.where(first, at, price)

    level, why = exit_level(xp, entry=entry, peak=top, barriers=barriers)
    code, price = cross(low <= level, level, why)
    if barriers.take_profit is not None:
        target = entry * (1.0 + barriers.take_profit)
        code, price = cross(high >= target, target, zero + TAKE_PROFIT)
    top = xp.where(high > top, high, top)
    level, why = exit_level(xp, entry=entry, peak=top, barriers=barriers)
    code, price = cross(close <= level, level, why)
    return code, price, top
