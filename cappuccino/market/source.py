"""The port through which raw bars come in, and what its frames look like.

A frame is what the source has, unjudged: rows may repeat, be out of order or be wrong. `quality` judges
them. Only the shape is promised: the columns of `SCHEMA`, open times in epoch seconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import polars as pl

from cappuccino.core.timeframe import Timeframe

PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume")
SCHEMA: dict[str, type[pl.DataType]] = {"symbol": pl.String, "ts": pl.Int64, **dict.fromkeys(VALUES, pl.Float64)}


class BarSource(Protocol):
    def fetch(self, symbols: Sequence[str], timeframe: Timeframe, start: int, end: int) -> pl.DataFrame:
        """Rows of `SCHEMA` with start <= ts < end (epoch seconds). A symbol without bars there has no rows.

        Raises:
            InvalidInput: the source cannot give this symbol or timeframe, or cannot be read.
            RetryLater: it cannot be reached now.
        """
        ...

    def available(self, symbols: Sequence[str], timeframe: Timeframe) -> Mapping[str, tuple[int, int]]:
        """Per symbol first open time and end (exclusive), epoch seconds. Without an entry: not known, open ended.

        Raises:
            As `fetch`.
        """
        ...


def no_rows() -> pl.DataFrame:
    return pl.DataFrame(schema=SCHEMA)
