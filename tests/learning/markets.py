"""Planted markets: what is in them, what trading costs, and what a policy is shown.

Constant volatility, no jumps, independent noise: then the optimum can be computed (tests/learning/optimum.py). Three assets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.market.features import compute, spec_of, warmup_bars
from cappuccino.market.generator import ORIGIN, GeneratorBars, GeneratorConfig
from cappuccino.market.spec import FeatureSpec

SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD")
HOUR = Timeframe.parse("1h")
USUAL = Costs(fee_bps=25, slippage_bps=5)
PROHIBITIVE = Costs(fee_bps=500, slippage_bps=500)
RULES = {  # prices wander far in long paths: no size may bind
    symbol: AssetRules(
        symbol=symbol,
        min_order_size=Decimal("1e-12"),
        min_trade_increment=Decimal("1e-15"),
        price_increment=Decimal("1e-12"),
        min_notional=Decimal("1e-6"),
    )
    for symbol in SYMBOLS
}
CAPITAL_USD = 1_000_000.0
COSTLY = ", costly"


def _edge(**edge: float | str) -> GeneratorConfig:
    return GeneratorConfig(seed=0, regimes=False, jumps_per_year=0.0, correlation=0.0, **edge)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """`edge.seed` is replaced by the path's."""

    name: str
    edge: GeneratorConfig
    features: tuple[FeatureSpec, ...]
    costs: Costs = USUAL
    network: str = "shared"

    @property
    def traded(self) -> tuple[int, ...]:
        """The assets that have an edge."""
        return tuple(n for n, symbol in enumerate(SYMBOLS) if symbol != self.edge.leader)

    def costly(self) -> Planted:
        """The same edge at costs that eat it up.

        The drift's variance makes even a position held for ever grow by half of it: the constant drift c takes that away.
        """
        edge = self.edge
        phi, sd = 0.5 ** (1 / edge.drift_half_life), edge.drift_volatility
        variance = sd**2 * (1 + phi) / (1 - phi)  # of the sum of drifts, a bar, in the long run
        if edge.leader is None:
            variance += 2 * edge.drift_feedback * sd * np.sqrt(1 - phi**2) * edge.volatility / (1 - phi)
        edge = replace(edge, drift_per_year=-0.5 * variance * HOUR.bars_per_year)
        return replace(self, name=self.name + COSTLY, edge=edge, costs=PROHIBITIVE)


def _trends(*periods: int) -> tuple[FeatureSpec, ...]:
    return tuple(spec_of("trend", {"period": period, "volatility": 240}) for period in periods)


MARKETS = {
    market.name: market
    for market in (
        Planted(
            name="trending",
            edge=_edge(volatility=0.008, drift_volatility=0.003, drift_half_life=12.0),
            features=_trends(4, 8, 16, 32, 64),
        ),
        Planted(
            name="reverting",
            edge=_edge(volatility=0.02, drift_volatility=0.004, drift_half_life=8.0, drift_feedback=-0.9),
            features=_trends(4, 8, 16, 32, 64),
        ),
        Planted(
            name="lead-lag",
            edge=_edge(volatility=0.008, drift_volatility=0.002, drift_half_life=6.0, drift_feedback=0.9, leader="BTC/USD"),
            features=_trends(4, 8, 16, 32, 64),
            network="joint",
        ),
    )
}


def path(edge: GeneratorConfig, *, seed: int, count: int) -> Bars:
    frame = GeneratorBars(config=replace(edge, seed=seed)).fetch(SYMBOLS, HOUR, ORIGIN, ORIGIN + HOUR.seconds * count)
    columns = {
        name: np.stack([rows[name].to_numpy() for rows in frame.partition_by("symbol", maintain_order=True)], axis=1)
        for name in ("open", "high", "low", "close", "volume")
    }
    ts = ORIGIN + HOUR.seconds * np.arange(count)
    return Bars(symbols=SYMBOLS, timeframe=HOUR, ts=ts, missing=np.zeros((count, len(SYMBOLS)), dtype=bool), **columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Paths:
    """Independent paths one after the other: a table that environments can share, each on its own path.

    starts [P]: first row of each path on which features are known. features: [T, N, F] raw.
    """

    bars: Bars
    features: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]
    length: int

    @classmethod
    def draw(cls, market: Planted, *, seeds: Sequence[int], length: int) -> Paths:
        """`length` bars of each, warm-up apart."""
        warmup = warmup_bars(market.features)
        drawn = [path(market.edge, seed=seed, count=warmup + length) for seed in seeds]
        features = np.concatenate([np.nan_to_num(compute(bars, market.features)) for bars in drawn])
        joined = {
            name: np.concatenate([getattr(bars, name) for bars in drawn])
            for name in ("open", "high", "low", "close", "volume", "missing")
        }
        ts = ORIGIN + HOUR.seconds * np.arange(len(features))
        starts = np.arange(len(drawn)) * (warmup + length) + warmup - 1
        return cls(bars=Bars(symbols=SYMBOLS, timeframe=HOUR, ts=ts, **joined), features=features, starts=starts, length=length)
