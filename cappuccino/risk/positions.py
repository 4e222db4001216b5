"""Watching a position between decisions: what a quote does to it.

A `Watch` is everything the barriers need beside the price. It is persisted with the trader's state, so that a
restart keeps the peak and the count of bars. Prices in quote currency as floats: barriers are comparisons, not
money. The rules are `barriers.exit_at_price`, the function of the environment and the backtest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cappuccino.core.errors import InvalidInput
from cappuccino.risk.barriers import EXIT_REASONS, Barriers, exit_at_price

NEVER = 255  # bars since a stop: the cap, and the value before any


@dataclass(frozen=True, kw_only=True)
class Watch:
    """One open position.

    entry: quantity-weighted average price of its buys. peak: highest price seen since it was opened.
    bars_held: decisions passed since it was opened, 0 in the bar of its entry.
    """

    symbol: str
    position_id: str
    entry: float
    peak: float
    bars_held: int = 0
    barriers: Barriers

    def rebased(self, *, entry: float, paid: float) -> Watch:
        """After another buy at `paid`: the new average entry; what was paid is a price that was seen."""
        return replace(self, entry=entry, peak=max(self.peak, paid))

    def aged(self) -> Watch:
        """One decision later."""
        return replace(self, bars_held=self.bars_held + 1)


class _One:
    """Of numpy, what the barriers need for one number: in a tenth of the time."""

    @staticmethod
    def where(condition: bool, true: float, false: float) -> float:
        return true if condition else false

    @staticmethod
    def zeros_like(_: float) -> float:
        return 0.0


def advance(watch: Watch, price: float) -> tuple[str, Watch]:
    """One quote: (reason of the exit it causes or "", the watch including this quote)."""
    code, peak = exit_at_price(
        _One, price=price, entry=watch.entry, peak=watch.peak, bars_held=watch.bars_held, barriers=watch.barriers
    )
    return EXIT_REASONS[int(code)], watch if peak == watch.peak else replace(watch, peak=peak)


def to_json(watch: Watch) -> dict[str, Any]:
    return {**vars(watch), "barriers": dict(vars(watch.barriers))}


def from_json(document: Mapping[str, Any]) -> Watch:
    """Raises InvalidInput when the stored form is not that of a watch."""
    try:
        return Watch(**{**document, "barriers": Barriers(**document["barriers"])})
    except (KeyError, TypeError) as error:
        raise InvalidInput(
            f"stored position {dict(document)!r} cannot be read ({error}): it was written by another version"
        ) from error
