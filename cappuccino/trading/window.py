"""The newest bars of the venue and their features: warmed up at start, then bar by bar.

A feature stream cannot be stored, so every start replays the contract's warm-up from the venue's own history, or
refuses to trade.
"""

from __future__ import annotations

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


@dataclass(frozen=True, kw_only=True)
class NewestBar:
    """What a decision is made on. close, tradable: [N] in the contract's order."""

    ts: int
    close: FloatArray
    tradable: BoolArray


class Window:
    """`newest` is the bar taken in last; `features` its lookback."""

    def __init__(self, contract: Contract, broker: Broker) -> None:
        self._contract = contract
        self._broker = broker
        self._stream = FeatureStream(contract.symbols, contract.timeframe, contract.features)
        self._rows: deque[FloatArray] = deque(maxlen=contract.lookback)
        self._newest: NewestBar | None = None

    @property
    def newest(self) -> NewestBar:
        assert self._newest is not None, "the window is warmed up before it is looked at"
        return self._newest

    @property
    def features(self) -> FloatArray:
        """[N, L, F], newest row last."""
        return np.stack(list(self._rows), axis=1)

    def floor(self, at: datetime) -> int:
        """Open time of the bar that contains the instant, epoch seconds."""
        return self._contract.timeframe.floor(to_epoch(at))

    def warm_up(self, now: datetime) -> None:
        """Take in the history before `now`.

        Raises:
            InvalidInput: the venue has fewer bars than the bundle needs.
        """
        contract = self._contract
        need = max(contract.warmup_bars, self._stream.warmup_bars + contract.lookback - 1, 1)
        end = self.floor(now)
        self._feed(start=end - need * contract.timeframe.seconds, end=end)
        if self._newest is None or self._stream.bars_seen < need:
            raise InvalidInput(
                f"the venue has {self._stream.bars_seen} bars of {', '.join(contract.symbols)} before {iso(now)}, "
                f"the bundle warms up on {need}: start later, or bring more history"
            )

    def take(self, at: datetime) -> int:
        """Take in every bar that closed by `at`; when the newest one closed, epoch seconds. Safe to repeat."""
        self._feed(start=self.newest.ts + self._contract.timeframe.seconds, end=self.floor(at))
        return self.newest.ts + self._contract.timeframe.seconds

    def _feed(self, *, start: int, end: int) -> None:
        if start >= end:
            return
        bars = self._broker.closed_bars(self._contract.symbols, self._contract.timeframe, start=start, end=end)
        for t in range(len(bars)):
            row = self._stream.update(bars.open[t], bars.high[t], bars.low[t], bars.close[t], bars.volume[t])
            self._rows.append(row)
            self._newest = NewestBar(ts=int(bars.ts[t]), close=bars.close[t], tradable=~bars.missing[t])
