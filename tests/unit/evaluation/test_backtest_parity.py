"""One random sequence of actions through the torch environment and the backtest: the same market, twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cappuccino.core.timeframe import Timeframe
from cappuccino.evaluation.backtest import backtest
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.actions import targets_of
from cappuccino.strategies.interface import Contract, Decision, Json, View

torch = pytest.importorskip("torch")

SYMBOLS = ("A/USD", "B/USD", "C/USD")
COSTS = Costs(fee_bps=25, slippage_bps=5, slippage_by_symbol_bps={"C/USD": 50})
BARRIERS = {
    "usual": Barriers(),
    "off": Barriers.off(),
    "all": Barriers(stop=0.04, take_profit=0.06, trail=0.02, trail_arms_at=0.01, max_hold_bars=6),
}


def random_bars(seed: int, bars: int, sd: float) -> Bars:
    rng = np.random.default_rng(seed)
    shape = (bars, len(SYMBOLS))
    absent = rng.random(shape) < 0.05
    close = np.array([40_000.0, 100.0, 0.3]) * np.exp(np.cumsum(np.where(absent, 0, rng.standard_normal(shape) * sd), axis=0))
    before = np.vstack([close[:1], close[:-1]])
    open_ = np.where(absent, before, before * np.exp(rng.standard_normal(shape) * sd / 3))
    wick = np.where(absent, 0, np.abs(rng.standard_normal((2, *shape))) * sd)
    return Bars(
        symbols=SYMBOLS,
        timeframe=Timeframe.parse("1h"),
        ts=1_704_067_200 + 3600 * np.arange(bars),
        open=open_,
        high=np.maximum(open_, close) * (1 + wick[0]),
        low=np.minimum(open_, close) / (1 + wick[1]),
        close=close,
        volume=np.ones(shape),
        missing=absent,
    )


def venue() -> dict[str, AssetRules]:
    sizes = {"A/USD": ("0.0001", "0.0000001"), "B/USD": ("0.05", "0.001"), "C/USD": ("3", "1")}
    return {
        symbol: AssetRules(
            symbol=symbol,
            min_order_size=Decimal(size),
            min_trade_increment=Decimal(increment),
            price_increment=Decimal("0.0001"),
        )
        for symbol, (size, increment) in sizes.items()
    }


@dataclass
class Replay:
    contract: Contract
    actions: Any
    views: list[View] = field(default_factory=list)

    def decide(self, view: View, memory: Json) -> Decision:
        action = self.actions[len(self.views)]
        self.views.append(view)
        return Decision(intents=targets_of(action, self.contract.symbols, Sizing()))


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("barriers", BARRIERS.values(), ids=BARRIERS.keys())
@pytest.mark.parametrize(("seed", "sd"), [(0, 0.004), (1, 0.02), (2, 0.06)])
def test_environment_and_backtest_agree_step_for_step(seed: int, sd: float, barriers: Barriers, interval: int) -> None:
    from cappuccino.training.environment import TradingEnv
    from cappuccino.training.market import Market
    from cappuccino.training.observation import Scaling

    torch.set_num_threads(1)
    first, steps, capital = 2, 90, 300.0
    bars = random_bars(seed, first + steps * interval + 1, sd)
    actions = np.random.default_rng(seed + 100).uniform(-1.2, 1.2, (steps, 3))
    features = np.zeros((len(bars), 3, 1))

    contract = Contract(symbols=SYMBOLS, timeframe=bars.timeframe, features=(), lookback=1, warmup_bars=1)
    strategy = Replay(contract, actions)
    ours = backtest(
        strategy,
        bars,
        features[:, :, :0],
        first_decision=first,
        last=len(bars) - 1,
        capital_usd=capital,
        costs=COSTS,
        sizing=Sizing(),
        barriers=barriers,
        rules=venue(),
        interval=interval,
    )

    market = Market.build(
        bars=bars,
        features_TNF=features,
        scaling=Scaling.fit(features, (0, len(bars))),
        lookback=1,
        costs=COSTS,
        rules=venue(),
    )
    env = TradingEnv(
        market,
        rows=(first, len(bars)),
        num_envs=1,
        sizing=Sizing(),
        barriers=barriers,
        capital_usd=capital,
        interval=interval,
        episode_steps=steps,
    )
    assert int(env.accounts.t_B[0]) == first
    for n, view in enumerate(strategy.views):
        seen = env.observe()
        expected = np.stack([view.weights, view.entry_return, view.bars_held, view.bars_since_stop], axis=-1)
        np.testing.assert_allclose(seen.account_BNA[0].numpy(), expected, rtol=1e-9, atol=1e-9, err_msg=f"decision {n}")
        assert float(seen.cash_weight_B[0]) == pytest.approx(view.cash_weight, abs=1e-9)
        step = env.step(torch.from_numpy(actions[n : n + 1]), env.accounts.t_B)
        equity = ours.equity[[n * interval, (n + 1) * interval]]
        assert float(step.reward_B[0]) == pytest.approx(np.log(equity[1] / equity[0]), abs=1e-9)
    counted = env.take_counters()
    assert len(strategy.views) == steps
    assert int(counted.fills[0]) == len(ours.fills) > 20
    assert int(counted.trades[0]) == len(ours.trades)
    assert int(counted.stops[0]) == sum(fill.reason != "signal" for fill in ours.fills)
    assert float(counted.fees[0]) == pytest.approx(ours.fees_usd, abs=1e-9)
