"""The UTC day of an account: what it began with, and what ended its entries.

A day begins with the first equity that is seen in it. When the loss since then reaches `max_daily_loss`, or the gain
`daily_profit_target`, the day is closed: no entry until the next UTC day, even when equity comes back; positions keep
their barriers and may be sold. That is what trading desks mean by a daily stop: it ends by itself, where the circuit
breaker needs a person (`daily_loss_halts` makes the loss trip that, too). Persisted with the trader's state, so that a
restart neither reopens a day nor measures it from another equity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from cappuccino.core.clock import to_epoch
from cappuccino.core.money import dec
from cappuccino.risk.limits import Limits

DAILY_LOSS, DAILY_PROFIT_TARGET = "daily_loss", "daily_profit_target"
_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class Day:
    """`number`: days since 1970-01-01 UTC. `closed_by`: the rule that ended entries, at `closed_equity`; empty while open."""

    number: int
    opening_equity: Decimal
    closed_by: str = ""
    closed_equity: Decimal | None = None


def today(day: Day | None, *, now: datetime, equity: Decimal, limits: Limits) -> Day:
    """The day after `equity` was seen at `now`; the same object when nothing changed. `equity` is finite."""
    number = to_epoch(now) // _SECONDS
    if day is None or number > day.number:
        day = Day(number=number, opening_equity=equity)
    if day.closed_by or day.opening_equity <= 0:
        return day
    change = equity / day.opening_equity - 1
    if limits.max_daily_loss and -change >= dec(limits.max_daily_loss):
        return replace(day, closed_by=DAILY_LOSS, closed_equity=equity)
    if limits.daily_profit_target and change >= dec(limits.daily_profit_target):
        return replace(day, closed_by=DAILY_PROFIT_TARGET, closed_equity=equity)
    return day


def to_json(day: Day) -> dict[str, Any]:
    closed = None if day.closed_equity is None else str(day.closed_equity)
    return {
        "number": day.number,
        "opening_equity": str(day.opening_equity),
        "closed_by": day.closed_by,
        "closed_equity": closed,
    }


def from_json(document: Mapping[str, Any]) -> Day:
    closed = document["closed_equity"]
    return Day(
        number=document["number"],
        opening_equity=Decimal(document["opening_equity"]),
        closed_by=document["closed_by"],
        closed_equity=None if closed is None else Decimal(closed),
    )
