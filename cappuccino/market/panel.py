"""From the bars that a venue tells to a dense panel: a bar that it lacks is flat at the close before it, and flagged.

So is one whose prices are no prices (not finite, or not above 0) or whose volume is no number: nobody can have traded at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

import numpy as np

from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.errors import RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars, FloatArray

Candle = tuple[int, float, float, float, float, float]  # open time in epoch seconds, open, high, low, close, volume


def panel(
    found: Mapping[str, Iterable[Candle]], symbols: tuple[str, ...], timeframe: Timeframe, *, start: int, end: int
) -> Bars:
    """[T, N] on the grid from `start` to `end`. Bars before a symbol's first one cannot be made up: the panel begins where
    every symbol has one.

    Raises:
        RetryLater: a symbol has none.
    """
    ts = np.arange(start, end, timeframe.seconds, dtype=np.int64)
    values = np.full((5, len(ts), len(symbols)), np.nan)
    for n, symbol in enumerate(symbols):
        for opened, *candle in found.get(symbol, ()):
            row = (opened - start) // timeframe.seconds
            if 0 <= row < len(ts) and _is_traded(candle):
                values[:, row, n] = candle
    open_, high, low, close, volume = values
    missing = np.isnan(close)
    silent = [symbol for symbol, gone in zip(symbols, missing.all(axis=0), strict=True) if gone]
    if silent:
        raise RetryLater(
            f"the venue has no bars of {', '.join(silent)} from {iso(from_epoch(start))} to {iso(from_epoch(end))}"
        )
    first = int(np.argmin(missing, axis=0).max())
    close = _carried(close)
    return Bars(
        symbols=symbols,
        timeframe=timeframe,
        ts=ts,
        open=np.where(missing, close, open_),
        high=np.where(missing, close, high),
        low=np.where(missing, close, low),
        close=close,
        volume=np.where(missing, 0.0, volume),
        missing=missing,
    ).rows(first, len(ts))


def _is_traded(candle: Sequence[float]) -> bool:
    *prices, volume = candle
    return all(isfinite(value) for value in candle) and min(prices) > 0 and volume >= 0


def _carried(close: FloatArray) -> FloatArray:
    """[T, N] with every hole filled from the row before it."""
    filled = close.copy()
    for t in range(1, len(filled)):
        filled[t] = np.where(np.isnan(filled[t]), filled[t - 1], filled[t])
    return filled
