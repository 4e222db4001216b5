"""Bars: a dense panel of candles for an ordered set of symbols on one time grid.

Bar t covers [ts, ts + D). A bar that the source does not have is a flat bar (open = high = low =
close = last close, volume 0) with `missing` set: no trade in that symbol on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars:
    """A panel of T bars x N symbols.

    ts: [T] open times, epoch seconds UTC, strictly on the grid, ascending, no holes.
    open, high, low, close, volume: [T, N] float64; prices in quote currency, volume in base units.
    missing: [T, N] true where the source had no bar.
    """

    symbols: tuple[str, ...]
    timeframe: Timeframe
    ts: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    missing: BoolArray

    def __post_init__(self) -> None:
        shape = (len(self.ts), len(self.symbols))
        for name in ("open", "high", "low", "close", "volume", "missing"):
            if getattr(self, name).shape != shape:
                raise InvalidInput(f"bars: {name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.ts) > 1 and not np.all(np.diff(self.ts) == self.timeframe.seconds):
            raise InvalidInput(f"bars: open times are not one unbroken {self.timeframe} grid")

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def close_ts(self) -> IntArray:
        """[T] the instants at which the bars are complete."""
        return self.ts + self.timeframe.seconds

    def between(self, start: int, end: int) -> Bars:
        """Bars with start <= ts < end (epoch seconds)."""
        lo, hi = np.searchsorted(self.ts, [start, end])
        return self.rows(int(lo), int(hi))

    def rows(self, lo: int, hi: int) -> Bars:
        return Bars(
            symbols=self.symbols,
            timeframe=self.timeframe,
            ts=self.ts[lo:hi],
            open=self.open[lo:hi],
            high=self.high[lo:hi],
            low=self.low[lo:hi],
            close=self.close[lo:hi],
            volume=self.volume[lo:hi],
            missing=self.missing[lo:hi],
        )

    def select(self, symbols: Sequence[str]) -> Bars:
        """The same grid with these symbols, in this order."""
        unknown = [s for s in symbols if s not in self.symbols]
        if unknown:
            raise InvalidInput(f"symbols {', '.join(unknown)} are not in the data: it has {', '.join(self.symbols)}")
        index = [self.symbols.index(s) for s in symbols]
        return Bars(
            symbols=tuple(symbols),
            timeframe=self.timeframe,
            ts=self.ts,
            open=self.open[:, index],
            high=self.high[:, index],
            low=self.low[:, index],
            close=self.close[:, index],
            volume=self.volume[:, index],
            missing=self.missing[:, index],
        )
