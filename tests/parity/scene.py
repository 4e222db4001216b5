"""What is compared: one bundle on one market, over one stretch of its bars.

Markets: generated ones (with holes, so that missing bars are met) and files of real bars. Bundles: a policy trained briefly
from a fixed seed, and a rule; each with and without barriers. The fee is one for all volumes, as the model assumes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cappuccino.bundle import Bundle
from cappuccino.bundle.network import GRAPH
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.exchange import bars_of
from cappuccino.entrypoints.recipe import Prepared, prepare
from cappuccino.exchange.venue import Costs
from cappuccino.market import quality
from cappuccino.market.bars import Bars
from cappuccino.market.features import DEFAULT_FEATURES, spec_of, warmup_bars
from cappuccino.market.generator import ORIGIN, GeneratorBars, GeneratorConfig
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract
from cappuccino.strategies.trend import TrendParameters
from cappuccino.training.config import PPOConfig
from cappuccino.training.learning import TrainedPolicy, train_policy

SEED = 7
CAPITAL_USD = 10_000.0
COSTS = Costs(fee_bps=25, slippage_bps=5)
CHEAP = Costs(fee_bps=1, slippage_bps=1)  # a policy is trained at, so that it trades often
OFF, USUAL = Barriers.off(), Barriers(stop=0.05, trail=0.015, trail_arms_at=0.015)
SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD")
RULE = {"feature": "return", "feature_bars": "6", "direction": "-1", "enter": "0.006", "exit": "-0.006", "size": "0.8"}
HOLES = 0.01  # of the generated market's bars


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Decisions at the closes of the rows first <= t < last, which begin well after the warm-up: the trader, which takes in no
    more than that, and an engine that has seen the whole history must agree. policy: what the training environment runs, None
    for a rule."""

    market: str
    kind: str
    bundle: Bundle
    prepared: Prepared
    first: int
    last: int
    policy: TrainedPolicy | None = None

    @property
    def bars(self) -> Bars:
        return self.prepared.bars

    @property
    def name(self) -> str:
        return f"{self.market}, {self.kind}, {'stops' if self.guarded else 'no stops'}"

    @property
    def guarded(self) -> bool:
        return self.bundle.barriers != OFF

    def with_barriers(self, barriers: Barriers) -> Scene:
        return replace(self, bundle=replace(self.bundle, barriers=barriers))

    def of(self, decisions: int) -> Scene:
        """The same with so many decisions, or with all where there are fewer."""
        return replace(self, last=min(self.last, self.first + decisions))


def generated(*, bars: int, seed: int = SEED) -> Bars:
    """Hourly bars with a planted edge, of which some are missing."""
    hour = Timeframe.parse("1h")
    config = GeneratorConfig(seed=seed, volatility=0.006, drift_volatility=0.002, drift_half_life=12)
    end = ORIGIN + bars * hour.seconds
    raw = GeneratorBars(config=config).fetch(SYMBOLS, hour, ORIGIN, end)
    kept = np.random.default_rng(seed).random(len(raw)) >= HOLES
    kept |= (raw["ts"] == ORIGIN).to_numpy()  # every symbol is listed from the beginning
    return quality.check(raw.filter(pl.Series(kept)), SYMBOLS, hour, end=end)[0]


def real(path: Path) -> Bars:
    return bars_of(path, ())


def rule(market: str, bars: Bars, *, barriers: Barriers = OFF) -> Scene:
    specs = TrendParameters.parse(RULE).specs
    contract = Contract(
        symbols=bars.symbols, timeframe=bars.timeframe, features=specs, lookback=1, warmup_bars=warmup_bars(specs)
    )
    bundle = Bundle(kind="trend", parameters=RULE, contract=contract, **_terms(barriers))
    return _scene(market, "rule", bundle, prepare(bars, contract))


def policy(market: str, bars: Bars, *, timesteps: int, learning_rate: float = 0.001, barriers: Barriers = OFF) -> Scene:
    """Trained on all of the bars: what it earns means nothing here."""
    specs = (*DEFAULT_FEATURES, spec_of("trend"))
    contract = Contract(
        symbols=bars.symbols, timeframe=bars.timeframe, features=specs, lookback=2, warmup_bars=warmup_bars(specs) + 1
    )
    prepared = prepare(bars, contract)
    config = PPOConfig(
        total_timesteps=timesteps,
        num_envs=64,
        num_steps=32,
        num_minibatches=4,
        hidden=32,
        learning_rate=learning_rate,
        network="shared",
    )
    trained = train_policy(
        bars=prepared.bars,
        features=prepared.features,
        rows=(prepared.warmup, len(prepared.bars)),
        lookback=contract.lookback,
        config=config,
        sizing=Sizing(),
        barriers=barriers,
        costs=CHEAP,
        rules=prepared.rules,
        capital_usd=CAPITAL_USD,
        seed=SEED,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = trained.export(contract)
    bundle = Bundle(
        kind="policy",
        contract=contract,
        parameters={"network": config.network, "hidden": config.hidden, "layers": config.layers},
        files={GRAPH: files.onnx, "weights.safetensors": files.weights},
        card={"parity": files.parity},
        **_terms(barriers),
    )
    return _scene(market, "policy", bundle, prepared, trained=trained)


def _scene(market: str, kind: str, bundle: Bundle, prepared: Prepared, *, trained: TrainedPolicy | None = None) -> Scene:
    return Scene(
        market=market,
        kind=kind,
        bundle=bundle,
        prepared=prepared,
        first=2 * prepared.warmup,
        last=len(prepared.bars) - 1,
        policy=trained,
    )


def _terms(barriers: Barriers) -> dict[str, Any]:
    return {"sizing": Sizing(), "barriers": barriers, "costs": COSTS, "capital_usd": CAPITAL_USD}
