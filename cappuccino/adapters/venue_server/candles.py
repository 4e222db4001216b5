"""Bars as data REST tells them: only those that are complete at the market clock, never one for a missing bar.

Longer timeframes are built from the tape's bars; a bucket counts once its whole span is over.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from cappuccino.core.clock import from_epoch, iso
from cappuccino.exchange.orders import Refused
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.exchange.tape import MICROSECONDS

_TIMEFRAME = re.compile(r"(\d+)(Min|T|Hour|H|Day|D)")
_UNIT_SECONDS = {"Min": 60, "T": 60, "Hour": 3600, "H": 3600, "Day": 86_400, "D": 86_400}


def timeframe_seconds(exchange: SimulatedExchange, text: str) -> int:
    """Seconds of Alpaca's timeframe (1Min, 15T, 1Hour, 1D). Raises Refused for one that the tape cannot give."""
    found = _TIMEFRAME.fullmatch(text)
    seconds = int(found[1]) * _UNIT_SECONDS[found[2]] if found else 0
    own = exchange.tape.timeframe
    if seconds == 0 or seconds % own.seconds != 0 or 86_400 % seconds != 0:
        raise Refused("invalid", f"invalid timeframe {text!r}: this exchange's bars are {own}, ask for them or a multiple")
    return seconds


def bar_rows(
    exchange: SimulatedExchange,
    symbol: str,
    *,
    seconds: int,
    start: int,
    end: int,
    limit: int | None = None,
    newest_first: bool = False,
    unfinished: bool = False,
) -> list[dict[str, Any]]:
    """Alpaca's bars of one symbol with start <= t <= end (epoch seconds).

    Args:
        unfinished: also the bucket that is not over yet, from the bars it has so far.
    """
    tape, bars, closed = exchange.tape, exchange.tape.bars, exchange.tick.bar
    column = tape.symbols.index(symbol)
    lo = int(np.searchsorted(bars.ts, start - start % seconds if seconds > tape.timeframe.seconds else start))
    rows = np.flatnonzero(~tape.halted[lo:closed, column]) + lo
    opens = bars.ts[rows] - bars.ts[rows] % seconds
    now = exchange.tick.at_us // MICROSECONDS
    kept = (opens >= start) & (opens <= end) & ((opens + seconds <= now) | unfinished)
    rows, opens = rows[kept], opens[kept]
    if not len(rows):
        return []
    first = np.flatnonzero(np.diff(opens, prepend=-1))  # where a bucket begins
    bounds = list(zip(first.tolist(), [*first[1:].tolist(), len(rows)], strict=True))
    if newest_first:
        bounds.reverse()
    return [_bar(exchange, column, int(opens[lo]), rows[lo:hi]) for lo, hi in bounds[:limit]]


def _bar(exchange: SimulatedExchange, column: int, opened: int, rows: Any) -> dict[str, Any]:
    bars = exchange.tape.bars
    high, low, close = bars.high[rows, column].max(), bars.low[rows, column].min(), bars.close[rows[-1], column]
    volume = bars.volume[rows, column]
    return {
        "t": iso(from_epoch(opened)),
        "o": float(bars.open[rows[0], column]),
        "h": float(high),
        "l": float(low),
        "c": float(close),
        "v": float(volume[0]) if len(volume) == 1 else float(volume.sum()),
        "n": sum(exchange.tape.tick_count(int(row)) for row in rows if row >= exchange.tape.first),
        "vw": float((high + low + close) / 3),
    }
