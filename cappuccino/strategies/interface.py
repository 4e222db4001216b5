"""What decides: a pure function from what is seen to what is wanted.

A strategy is made from a bundle. `decide` reads nothing but its arguments and returns targets together
with its new memory; the engine commits both in one transaction. Absence of a symbol means hold. The
intents are a union so that rule strategies with legs (open, amend, close) can join targets here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cappuccino.core.timeframe import Timeframe
from cappuccino.market.spec import FeatureSpec
from cappuccino.risk.barriers import Barriers

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a strategy was made with, and what it must be served with.

    `warmup_bars` is how many bars before the first decision a trader loads or refuses to start.
    The layout of an observation follows from it: per symbol `lookback` rows of `features`, newest last.
    `interval` is the number of bars from one decision to the next.
    """

    symbols: tuple[str, ...]
    timeframe: Timeframe
    features: tuple[FeatureSpec, ...]
    lookback: int
    warmup_bars: int
    interval: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What a strategy may see at the close of a bar; arrays follow the contract's order of symbols.

    features: [N, L, F] raw values, newest row last; scaling is the strategy's own.
    close: [N] quote currency. weights: [N] position value / equity. cash_weight: cash / equity.
    entry_return: [N] close / average entry - 1, 0 when flat.
    bars_held: [N] decisions since entry, 0 when flat. bars_since_stop: [N] decisions since a barrier
    sold the symbol, capped at 255 and 255 when never. tradable: [N] false on a missing bar.
    """

    at: datetime
    features: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    cash_weight: float
    equity_usd: float
    entry_return: npt.NDArray[np.float64]
    bars_held: npt.NDArray[np.int64]
    bars_since_stop: npt.NDArray[np.int64]
    tradable: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Hold `weight` of equity (at the decision) in `symbol`. Idempotent."""

    symbol: str
    weight: float
    barriers: Barriers | None = None  # None: the engine's own


Intent = Target


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`trace` explains the decision (raw actions, votes); it is stored and never read back."""

    intents: tuple[Intent, ...]
    memory: Json = field(default_factory=dict)
    trace: Json = field(default_factory=dict)


class Strategy(Protocol):
    @property
    def contract(self) -> Contract: ...

    def decide(self, view: View, memory: Json) -> Decision:
        """Pure: the same arguments give the same decision."""
        ...
