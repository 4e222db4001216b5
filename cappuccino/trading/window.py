"""The newest bars of the venue and their features: warmed up at start, then bar by bar.

A feature stream cannot be stored, so every start replays the contract's warm-up from the venue's own history, or
refuses to trade. Sessions of one process that trade the same contract have one `Series`: whichever of them comes first fetches
the bar, with its own broker, and computes its features; the others find it there.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from cappuccino.core.clock import iso, to_epoch
from cappuccino.core.errors import InvalidInput
from cappuccino.market.bars import BoolArray, FloatArray
from cappuccino.market.features import FeatureStream
from cappuccino.strategies.interface import Contract
from cappuccino.trading.ports import Broker

KEPT = 3  # newest bars that a session which is late may still ask for


@dataclass(frozen=True, kw_only=True)
class NewestBar:
    """What a decision is made on. close, tradable: [N] in the contract's order; features [N, L, F], newest row last."""

    ts: int
    close: FloatArray
    tradable: BoolArray
    features: FloatArray


class Series:
    """Bars and features of one contract at one venue. Thread-safe."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        contract = self._contract
        self._stream = FeatureStream(contract.symbols, contract.timeframe, contract.features)
        self._rows: deque[FloatArray] = deque(maxlen=contract.lookback)
        self._kept: deque[NewestBar] = deque(maxlen=KEPT)
        self._warm = False

    def warm_up(self, now: datetime, broker: Broker) -> NewestBar:
        """Take in the history before `now`; the newest bar of it.

        Raises:
            InvalidInput: the venue has fewer bars than the bundle needs. RetryLater: the venue is away.
        """
        contract, end = self._contract, self._contract.timeframe.floor(to_epoch(now))
        with self._lock:
            if not self._warm:
                self._reset()
                need = max(contract.warmup_bars, self._stream.warmup_bars + contract.lookback - 1, 1)
                self._feed(broker, start=end - need * contract.timeframe.seconds, end=end)
                if not self._kept or self._stream.bars_seen < need:
                    raise InvalidInput(
                        f"the venue has {self._stream.bars_seen} bars of {', '.join(contract.symbols)} before {iso(now)}, "
                        f"the bundle warms up on {need}: start later, or bring more history"
                    )
                self._warm = True
        return self.take(now, broker)

    def take(self, at: datetime, broker: Broker) -> NewestBar:
        """The newest bar that closed by `at`, the oldest that is kept when all are later. Raises RetryLater."""
        seconds, end = self._contract.timeframe.seconds, self._contract.timeframe.floor(to_epoch(at))
        with self._lock:
            self._feed(broker, start=self._kept[-1].ts + seconds, end=end)
            return next((bar for bar in reversed(self._kept) if bar.ts + seconds <= end), self._kept[0])

    def _feed(self, broker: Broker, *, start: int, end: int) -> None:
        if start >= end:
            return
        bars = broker.closed_bars(self._contract.symbols, self._contract.timeframe, start=start, end=end)
        for t in range(len(bars)):
            self._rows.append(self._stream.update(bars.open[t], bars.high[t], bars.low[t], bars.close[t], bars.volume[t]))
            if t >= len(bars) - KEPT:
                features = np.stack(list(self._rows), axis=1)
                close, tradable = bars.close[t], ~bars.missing[t]
                self._kept.append(NewestBar(ts=int(bars.ts[t]), close=close, tradable=tradable, features=features))


class Window:
    """One session's view of a series: `newest` is the bar that it looked at last. `warm`: there is enough to decide on."""

    def __init__(self, contract: Contract, broker: Broker, series: Series | None = None) -> None:
        self._timeframe = contract.timeframe
        self._broker = broker
        self._series = series or Series(contract)
        self._newest: NewestBar | None = None
        self.warm = False

    @property
    def newest(self) -> NewestBar:
        assert self._newest is not None, "the window is warmed up before it is looked at"
        return self._newest

    @property
    def features(self) -> FloatArray:
        """[N, L, F], newest row last."""
        return self.newest.features

    def floor(self, at: datetime) -> int:
        """Open time of the bar that contains the instant, epoch seconds."""
        return self._timeframe.floor(to_epoch(at))

    def warm_up(self, now: datetime) -> None:
        """Take in the history before `now`.

        Raises:
            InvalidInput: the venue has fewer bars than the bundle needs.
        """
        self._newest = self._series.warm_up(now, self._broker)
        self.warm = True

    def take(self, at: datetime) -> int:
        """Take in every bar that closed by `at`; when the newest one closed, epoch seconds. Safe to repeat."""
        self._newest = self._series.take(at, self._broker)
        return self._newest.ts + self._timeframe.seconds
