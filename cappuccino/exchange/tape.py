"""The tape: bars become ticks, and tick numbers are the exchange's clock.

A bar gives its open, low, high and close, with steps between them no larger than `tick_bps` (intermediate prices are
rounded to eight digits). All symbols share a tick's instant; a bar's instants are spread evenly over [ts, ts + D), the open at
ts. The open tick of bar t+1 is the instant at which bar t is complete, so an order decided on bar t meets the open of t+1.
After the last bar one more tick, at its end, keeps the last close. A symbol whose bar is missing is halted on all its ticks.

Times are integer microseconds since the epoch, except `ts` of the bars (seconds).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import canonical_json
from cappuccino.core.timeframe import Timeframe

MICROSECONDS = 1_000_000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Rungs:
    """One bar's ticks: prices by step, and what is the same on all of them."""

    bar: int
    prices: list[tuple[float, ...]]
    halted: tuple[bool, ...]
    volume: tuple[float, ...]


class Candles(Protocol):
    """A dense panel of T bars x N symbols, as `market.bars.Bars` is one."""

    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def timeframe(self) -> Timeframe: ...
    @property
    def ts(self) -> npt.NDArray[np.int64]: ...
    @property
    def open(self) -> FloatArray: ...
    @property
    def high(self) -> FloatArray: ...
    @property
    def low(self) -> FloatArray: ...
    @property
    def close(self) -> FloatArray: ...
    @property
    def volume(self) -> FloatArray: ...
    @property
    def missing(self) -> npt.NDArray[np.bool_]: ...


@dataclass(frozen=True, slots=True)
class Tick:
    """One instant of the market. Tuples follow the tape's symbols.

    bar: index of the bar in progress; all bars before it are complete.
    bar_closed: a bar was completed at this instant.
    volume: base units that trade on this tick.
    """

    number: int
    bar: int
    at_us: int
    bar_closed: bool
    prices: tuple[float, ...]
    halted: tuple[bool, ...]
    volume: tuple[float, ...]


class Tape:
    """Bars from the first to the last; those complete at `start` are history, the clock runs over the rest."""

    def __init__(self, bars: Candles, *, start: int | None = None, tick_bps: float = 100.0) -> None:
        """
        Args:
            start: market time at which the clock starts, epoch seconds, rounded up to a bar's open; None: the first bar.
            tick_bps: the largest step between two ticks of a bar.

        Raises:
            InvalidInput: no bars, no bar after `start`, or a symbol that has no price at all.
        """
        if len(bars.ts) == 0 or not bars.symbols:
            raise InvalidInput("the exchange's tape is empty: give it at least one bar of one symbol")
        if not tick_bps > 0:
            raise InvalidInput(f"tick_bps is {tick_bps}: it must be above 0")
        self.bars = bars
        self.symbols = tuple(bars.symbols)
        self.timeframe = bars.timeframe
        self.first = 0 if start is None else int(np.searchsorted(bars.ts, start))
        if self.first == len(bars.ts):
            last = iso(from_epoch(float(bars.ts[-1])))
            raise InvalidInput(f"the exchange would start after its last bar, which opens at {last}: choose an earlier start")
        price = np.stack([bars.open, bars.low, bars.high, bars.close])  # [4, T, N]
        self.halted = bars.missing | ~(np.isfinite(price) & (price > 0)).all(axis=0)
        silent = [symbol for symbol, column in zip(self.symbols, self.halted.T, strict=True) if column.all()]
        if silent:
            raise InvalidInput(f"the tape has no price for {', '.join(silent)}: remove the symbol or bring its bars")
        self._steps = _steps(np.where(self.halted, 1.0, price), tick_bps / 1e4)[self.first :]
        self._offsets = [0, *np.cumsum(1 + self._steps.sum(axis=1)).tolist()]
        self._tick_bps = tick_bps
        self._last: _Rungs | None = None

    def __len__(self) -> int:
        """Number of ticks, the closing one included."""
        return int(self._offsets[-1]) + 1

    @property
    def digest(self) -> str:
        """SHA-256 of all that the ticks follow from, hex."""
        header = {"symbols": self.symbols, "seconds": self.timeframe.seconds, "first": self.first, "tick_bps": self._tick_bps}
        digest = hashlib.sha256(canonical_json(header))
        bars = self.bars
        for array in (bars.ts, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.missing):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def first_price(self, symbol: str) -> float:
        """The open of the symbol's first bar that has one, quote currency."""
        column = self.symbols.index(symbol)
        return float(self.bars.open[int(np.argmin(self.halted[:, column])), column])

    def tick_count(self, bar: int) -> int:
        """Ticks of a bar, by its index in the bars."""
        return int(self._offsets[bar - self.first + 1] - self._offsets[bar - self.first])

    def first_tick(self, bar: int) -> int:
        """Number of the open tick of a bar, by its index in the bars; 0 for history."""
        return int(self._offsets[max(0, bar - self.first)])

    def tick(self, number: int) -> Tick:
        """The tick with this number, 0 to len - 1."""
        row = bisect_right(self._offsets, number) - 1
        bar = row + self.first
        opens, span = self.bars.ts, self.timeframe.seconds
        if bar == len(opens):
            end_us = (int(opens[-1]) + span) * MICROSECONDS
            rungs = self._rungs(bar - 1)
            return Tick(number, bar, end_us, True, rungs.prices[-1], rungs.halted, (0.0,) * len(self.symbols))
        rungs = self._rungs(bar)
        count, step = len(rungs.prices), number - self._offsets[row]
        return Tick(
            number=number,
            bar=bar,
            at_us=int(opens[bar]) * MICROSECONDS + span * MICROSECONDS * step // count,
            bar_closed=step == 0,
            prices=rungs.prices[step],
            halted=rungs.halted,
            volume=rungs.volume,
        )

    def _rungs(self, bar: int) -> _Rungs:
        if self._last is None or self._last.bar != bar:
            bars, count = self.bars, self.tick_count(bar)
            points = [array[bar] for array in (bars.open, bars.low, bars.high, bars.close)]
            steps = self._steps[bar - self.first].tolist()
            columns = [
                [self._stale(bar, column)] * count
                if self.halted[bar, column]
                else _climb([float(point[column]) for point in points], steps)
                for column in range(len(self.symbols))
            ]
            self._last = _Rungs(
                bar=bar,
                prices=list(zip(*columns, strict=True)),
                halted=tuple(self.halted[bar].tolist()),
                volume=tuple((np.nan_to_num(bars.volume[bar]) / count).tolist()),
            )
        return self._last

    def _stale(self, bar: int, column: int) -> float:
        """The close of the last bar with a price, 0 before the first."""
        earlier = np.flatnonzero(~self.halted[:bar, column])
        return float(self.bars.close[earlier[-1], column]) if len(earlier) else 0.0


def _steps(price: FloatArray, largest: float) -> npt.NDArray[np.int64]:
    """[T, 3] ticks from open to low, low to high, high to close: enough for the symbol that moves most."""
    here, there = price[:-1], price[1:]
    relative = np.abs(there - here) / np.minimum(here, there)
    steps: npt.NDArray[np.int64] = np.maximum(np.ceil(relative / largest - 1e-9), 1).max(axis=2).T.astype(np.int64)
    return steps


def _climb(points: list[float], steps: list[int]) -> list[float]:
    """The points, with the given number of even steps from each to the next."""
    rungs = [points[0]]
    for here, there, count in zip(points, points[1:], steps, strict=False):
        low, high = min(here, there), max(here, there)
        rungs += [min(max(float(f"{here + (there - here) * k / count:.8g}"), low), high) for k in range(1, count)]
        rungs.append(there)
    return rungs
