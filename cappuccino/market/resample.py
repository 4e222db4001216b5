"""Coarser bars from finer ones, and coarser values on a finer grid.

A coarse bar covers complete buckets of the finer grid only. Within it, bars that the source did not have
count for nothing; it is missing when all of them are. Joined on close time: at a fine bar's close one sees the last
coarse bar that has closed by then, never the one in progress.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars, BoolArray, FloatArray, IntArray


def resample(bars: Bars, timeframe: Timeframe) -> Bars:
    """The same symbols in bars of `timeframe`, aligned to the epoch (days begin at 00:00 UTC).

    Raises:
        InvalidInput: the bars are coarser than `timeframe`, or do not divide it.
    """
    fine, coarse = bars.timeframe.seconds, timeframe.seconds
    if coarse == fine:
        return bars
    if coarse % fine:
        raise InvalidInput(f"bars of {bars.timeframe} cannot give {timeframe}: ask for a multiple of {bars.timeframe}")
    size = coarse // fine
    lo = int(-(bars.ts[0] // fine) % size) if len(bars) else 0
    buckets = max(0, (len(bars) - lo) // size)
    shape = (buckets, size, len(bars.symbols))
    whole = bars.rows(lo, lo + buckets * size)
    missing = whole.missing.reshape(shape)
    none: BoolArray = np.all(missing, axis=1)
    seen = ~missing | none[:, None, :]  # a missing bucket stays flat: all of its flat bars count
    first = np.argmax(seen, axis=1)[:, None, :]
    opens, highs, lows = (panel.reshape(shape) for panel in (whole.open, whole.high, whole.low))
    return Bars(
        symbols=bars.symbols,
        timeframe=timeframe,
        ts=whole.ts[::size].copy(),
        open=np.take_along_axis(opens, first, axis=1)[:, 0, :],
        high=np.where(seen, highs, -np.inf).max(axis=1),
        low=np.where(seen, lows, np.inf).min(axis=1),
        close=whole.close.reshape(shape)[:, -1, :].copy(),
        volume=whole.volume.reshape(shape).sum(axis=1),
        missing=none,
    )


def closed_before(coarse: Bars, fine: Bars) -> IntArray:
    """[T of fine] index of the last coarse bar that is closed when the fine bar closes; -1 where there is none."""
    return np.searchsorted(coarse.close_ts, fine.close_ts, side="right").astype(np.int64) - 1


def align(values: npt.NDArray[Any], *, coarse: Bars, fine: Bars) -> FloatArray:
    """Values [T of coarse, ...] on the fine grid, [T of fine, ...]; NaN before the first coarse bar has closed."""
    index = closed_before(coarse, fine)
    aligned = np.full((len(index), *values.shape[1:]), np.nan)
    known = index >= 0
    aligned[known] = values[index[known]]
    return aligned
