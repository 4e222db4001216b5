"""Small markets and environments with keyword defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.market.spec import FeatureSpec
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract
from cappuccino.training.config import PPOConfig
from cappuccino.training.environment import Step, TradingEnv
from cappuccino.training.market import Market
from cappuccino.training.observation import Scaling

torch.set_num_threads(1)

SYMBOLS = ("BTC/USD", "ETH/USD", "DOGE/USD")
COSTS = Costs(fee_bps=25, slippage_bps=5, slippage_by_symbol_bps={"DOGE/USD": 40})
PRICES = {"BTC/USD": 40_000.0, "ETH/USD": 2_500.0, "DOGE/USD": 0.1}
SIZES = {"BTC/USD": ("0.0001", "0.00000001"), "ETH/USD": ("0.001", "0.0001"), "DOGE/USD": ("10", "1")}


def venue(symbols: Sequence[str] = SYMBOLS, **changes: Any) -> dict[str, AssetRules]:
    return {
        symbol: AssetRules(
            symbol=symbol,
            min_order_size=Decimal(SIZES[symbol][0]),
            min_trade_increment=Decimal(SIZES[symbol][1]),
            price_increment=Decimal("0.0001"),
            **changes,
        )
        for symbol in symbols
    }


def random_bars(
    *,
    seed: int = 0,
    bars: int = 120,
    sd: float = 0.02,
    missing: float = 0.0,
    symbols: Sequence[str] = SYMBOLS,
    drift: float = 0.0,
) -> Bars:
    rng = np.random.default_rng(seed)
    shape = (bars, len(symbols))
    absent = rng.random(shape) < missing
    first = np.array([PRICES[symbol] for symbol in symbols])
    close = first * np.exp(np.cumsum(np.where(absent, 0.0, drift + sd * rng.standard_normal(shape)), axis=0))
    before = np.vstack((close[:1], close[:-1]))
    open_ = np.where(absent, before, before * np.exp(sd / 3 * rng.standard_normal(shape)))
    wick = np.where(absent, 0.0, sd * np.abs(rng.standard_normal((2, *shape))))
    return make_bars(
        open_=open_,
        high=np.maximum(open_, close) * (1 + wick[0]),
        low=np.minimum(open_, close) / (1 + wick[1]),
        close=close,
        missing=absent,
        symbols=symbols,
    )


def make_bars(
    *,
    close: npt.ArrayLike,
    open_: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    low: npt.ArrayLike | None = None,
    missing: npt.ArrayLike | None = None,
    symbols: Sequence[str] = SYMBOLS,
) -> Bars:
    """Rows of prices; what is not given is flat at the close."""
    close = np.asarray(close, dtype=float)
    open_ = close if open_ is None else np.asarray(open_, dtype=float)
    return Bars(
        symbols=tuple(symbols),
        timeframe=Timeframe.parse("1h"),
        ts=1_704_067_200 + 3600 * np.arange(len(close)),
        open=open_,
        high=np.maximum(open_, close) if high is None else np.asarray(high, dtype=float),
        low=np.minimum(open_, close) if low is None else np.asarray(low, dtype=float),
        close=close,
        volume=np.ones(close.shape),
        missing=np.zeros(close.shape, dtype=bool) if missing is None else np.asarray(missing, dtype=bool),
    )


def returns_features(bars: Bars) -> npt.NDArray[np.float64]:
    """[T, N, 3]: the last log return and two smoothed ones; 0 before the first."""
    step = np.diff(np.log(bars.close), axis=0, prepend=np.log(bars.close[:1]))
    columns = [step]
    for decay in (0.8, 0.95):
        smooth = np.zeros_like(step)
        for t in range(1, len(step)):
            smooth[t] = decay * smooth[t - 1] + (1 - decay) * step[t]
        columns.append(smooth)
    return np.stack(columns, axis=-1)


def environment(
    bars: Bars,
    *,
    num_envs: int = 1,
    t: Sequence[int] | None = None,
    rows: tuple[int, int] | Sequence[tuple[int, int]] | None = None,
    capital_usd: float = 10_000.0,
    costs: Costs = COSTS,
    rules: Mapping[str, AssetRules] | None = None,
    barriers: Barriers = Barriers(),  # noqa: B008 - frozen
    max_weight: float = 0.30,
    features: npt.NDArray[np.float64] | None = None,
    lookback: int = 1,
    seed: int = 0,
    interval: int = 1,
    episode_steps: int = 10**9,
    group_size: int = 1,
    compiled: bool = False,
    **options: Any,
) -> TradingEnv:
    """With `t`, each environment begins there; without, where chance puts it. One scaling for each distinct range of rows."""
    features = returns_features(bars) if features is None else features
    rows = rows or (lookback - 1, len(bars))
    ranges = [rows] if isinstance(rows[0], int) else list(dict.fromkeys(rows))
    market = Market.build(
        bars=bars,
        features_TNF=features,
        scaling=[Scaling.fit(features, each) for each in ranges],
        lookback=lookback,
        costs=costs,
        rules=rules or venue(bars.symbols),
        **options,
    )
    env = TradingEnv(
        market,
        rows=rows,
        num_envs=num_envs,
        sizing=Sizing(max_weight=max_weight),
        barriers=barriers,
        capital_usd=capital_usd,
        interval=interval,
        episode_steps=episode_steps,
        group_size=group_size,
        compiled=compiled,
    )
    if t is not None:
        env.reset(torch.tensor(t))
    else:
        env.reset(*scattered(env, seed))
    return env


def scattered(env: TradingEnv, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random starts and ages [B], a generator per member."""
    generators = [torch.Generator().manual_seed(seed + member) for member in range(env.num_members)]
    starts = [env.draw_starts(generator, 1, member)[0] for member, generator in enumerate(generators)]
    ages = [env.draw_ages(generator, member) for member, generator in enumerate(generators)]
    return torch.cat(starts), torch.cat(ages)


def advance(env: TradingEnv, action_BN: torch.Tensor, *, seed: int = 0) -> Step:
    """A step; what ends begins again where chance puts it."""
    return env.step(action_BN, scattered(env, seed)[0])


def tiny_config(**changes: Any) -> PPOConfig:
    values: dict[str, Any] = {"total_timesteps": 512, "num_envs": 8, "num_steps": 16, "num_minibatches": 2, "hidden": 8}
    return PPOConfig(**(values | changes))


def training_arguments(bars: Bars | None = None, **changes: Any) -> dict[str, Any]:
    """What `train_policy` takes, small."""
    bars = random_bars(bars=200, sd=0.01) if bars is None else bars
    values: dict[str, Any] = {
        "bars": bars,
        "features": returns_features(bars),
        "rows": (20, len(bars)),
        "lookback": 1,
        "config": tiny_config(),
        "sizing": Sizing(),
        "barriers": Barriers(),
        "costs": COSTS,
        "rules": venue(bars.symbols),
        "capital_usd": 10_000.0,
        "seed": 7,
    }
    return values | changes


def contract(*, lookback: int = 1, symbols: Sequence[str] = SYMBOLS, features: int = 3) -> Contract:
    specs = tuple(FeatureSpec(name="return", params=(("bars", n + 1),)) for n in range(features))
    return Contract(symbols=tuple(symbols), timeframe=Timeframe.parse("1h"), features=specs, lookback=lookback, warmup_bars=20)
