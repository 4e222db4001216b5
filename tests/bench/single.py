"""One account in one market, in plain NumPy: what a gymnasium environment of these rules looks like when written with care.

It is the yardstick of `tests.bench.environment`, so it takes the short cuts that one account allows: nothing is computed for
orders that are not there. Rules: docs/architecture.md ("The market's rules"), at one bar per decision, with the usual sizing
and barriers. `tests/unit/training/test_environment.py` holds it against the batched environment. Imports nothing but NumPy,
so that it runs beside the peers; gymnasium only where it is wrapped.

Shape suffixes: T bars, N assets, L lookback, F features, A = 4 account values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_WEIGHT, DEAD_ZONE, MIN_CHANGE, CASH_BUFFER, MARGIN = 0.30, 0.10, 0.02, 0.01, 1.1
STOP, TRAIL, TRAIL_ARMS_AT = 0.10, 0.015, 0.015
RUIN, CAP = 0.20, 255.0
EPISODE = 256


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A market as arrays: float64 prices [T, N], scaled float32 features [T, N, F], the venue's sizes and the costs [N]."""

    open: Array
    high: Array
    low: Array
    close: Array
    features: Array
    min_order_size: Array
    increment: Array
    min_notional: Array
    slippage: Array
    fee: float
    lookback: int

    @classmethod
    def random(cls, *, bars: int = 10_000, assets: int = 10, features: int = 14, lookback: int = 10, seed: int = 0) -> Tables:
        """A random walk near 100 with wicks; no bar is missing."""
        rng = np.random.default_rng(seed)
        shape = (bars, assets)
        close = 100.0 * np.exp(np.cumsum(0.005 * rng.standard_normal(shape), axis=0))
        open_ = np.vstack((close[:1], close[:-1]))
        wick = 1.0 + 0.003 * np.abs(rng.standard_normal((2, *shape)))
        return cls(
            open=open_,
            high=np.maximum(open_, close) * wick[0],
            low=np.minimum(open_, close) / wick[1],
            close=close,
            features=rng.standard_normal((*shape, features)).astype(np.float32).clip(-5, 5),
            min_order_size=np.full(assets, 0.01),
            increment=np.full(assets, 1e-9),
            min_notional=np.full(assets, 1.0),
            slippage=np.full(assets, 0.0005),
            fee=0.0025,
            lookback=lookback,
        )


class SingleEnv:
    """`reset(t)` and `step(action_N)` -> (reward, terminated, truncated). One that ended must be reset."""

    def __init__(self, tables: Tables, *, capital: float = 100_000.0) -> None:
        self.tables, self.capital = tables, capital
        self.bars, self.assets = tables.close.shape
        self.buy_price = tables.open * (1.0 + tables.slippage)
        self.sell_price = tables.open * (1.0 - tables.slippage)
        self.least = MARGIN * np.maximum(tables.min_order_size * tables.close, tables.min_notional)
        self.reset(tables.lookback - 1)

    def reset(self, t: int) -> None:
        self.t, self.age, self.cash, self.equity = t, 0, self.capital, self.capital
        self.qty, self.entry, self.peak, self.held = np.zeros((4, self.assets))
        self.since_stop = np.full(self.assets, CAP)

    def account(self) -> Array:
        """[N, A] float32, scaled as networks take it."""
        close = self.tables.close[self.t]
        account = np.empty((self.assets, 4), dtype=np.float32)
        account[:, 0] = self.qty * close * (3.0 / self.equity)
        with np.errstate(divide="ignore", invalid="ignore"):
            account[:, 1] = np.where(self.entry > 0, np.clip((close / self.entry - 1.0) * 10.0, -5.0, 5.0), 0.0)
        account[:, 2] = np.log1p(np.minimum(self.held, CAP)) / np.log1p(CAP)
        account[:, 3] = np.log1p(self.since_stop) / np.log1p(CAP)
        return account

    def observation(self) -> Array:
        """[L N F + N A + 1] float32: windows, account, cash weight."""
        window = self.tables.features[self.t - self.tables.lookback + 1 : self.t + 1]
        cash = np.float32(self.cash / self.equity)
        return np.concatenate((window.ravel(), self.account().ravel(), (cash,)), dtype=np.float32)

    def step(self, action: Array) -> tuple[float, bool, bool]:
        before = self.equity
        self._rebalance(action)
        self.t += 1
        if (self.entry > 0).any():
            self._watch()
        self.equity = self.cash + float(self.qty @ self.tables.close[self.t])
        self.age += 1
        self.held = np.where(self.entry > 0, self.held + 1.0, 0.0)
        self.since_stop = np.minimum(self.since_stop + 1.0, CAP)
        ruined = self.equity < RUIN * self.capital
        return float(np.log(self.equity / before)), ruined, self.age >= EPISODE and not ruined

    def _rebalance(self, action: Array) -> None:
        t, equity, tables = self.t, self.equity, self.tables
        quantised = np.round(np.clip(action, -1.0, 1.0) * 128.0) / 128.0
        value = self.qty * tables.close[t]
        least = self.least[t]
        wanted = np.where(quantised > DEAD_ZONE, quantised * (MAX_WEIGHT * equity), 0.0)
        closing = quantised < -DEAD_ZONE
        reference = np.where(wanted < value, np.minimum(value, MAX_WEIGHT * equity), value)
        gap = np.where(closing, -value, wanted - reference)
        threshold = np.where(closing, least, np.maximum(least, MIN_CHANGE * equity))
        act = (np.abs(gap) >= threshold) & (np.abs(quantised) > DEAD_ZONE)
        selling = act & (gap < 0)
        if selling.any():
            self._sell(np.where(selling, np.where(closing, self.qty, -gap / tables.close[t]), 0.0), self.sell_price[t + 1])
        buying = act & (gap > 0)
        if not buying.any():
            return
        notional = np.where(buying, gap, 0.0)
        total, spendable = float(notional.sum()), self.cash * (1.0 - CASH_BUFFER)
        if total > spendable:
            notional *= max(spendable / total, 0.0)
        price = self.buy_price[t + 1]
        qty = (
            np.floor(np.where(notional >= least, notional, 0.0) / price / tables.increment * (1.0 + 2.0**-50))
            * tables.increment
        )
        paid = qty * price
        bought = (qty >= tables.min_order_size) & (paid >= tables.min_notional)
        qty, paid = np.where(bought, qty, 0.0), np.where(bought, paid, 0.0)
        received = qty * (1.0 - tables.fee)
        base = np.where(self.entry > 0, self.qty, 0.0)
        average = (base * self.entry + received * price) / np.where(bought, base + received, 1.0)
        self.entry = np.where(bought, average, self.entry)
        self.peak = np.where(bought, np.maximum(self.peak, price), self.peak)
        self.qty += received
        self.cash -= float(paid.sum())

    def _sell(self, qty: Array, price: Array) -> Array:
        """Sells what the venue takes of it; returns where."""
        tables = self.tables
        qty = np.minimum(np.floor(qty / tables.increment * (1.0 + 2.0**-50)) * tables.increment, self.qty)
        proceeds = qty * price
        sold = (qty >= tables.min_order_size) & (proceeds >= tables.min_notional)
        self.qty -= np.where(sold, qty, 0.0)
        self.cash += float(proceeds[sold].sum()) * (1.0 - tables.fee)
        kept = self.qty >= tables.min_order_size
        self.entry, self.peak, self.held = (np.where(kept, x, 0.0) for x in (self.entry, self.peak, self.held))
        return sold

    def _level(self, peak: Array) -> Array:
        return np.maximum(
            self.entry * (1.0 - STOP), np.where(peak >= self.entry * (1.0 + TRAIL_ARMS_AT), peak * (1.0 - TRAIL), 0.0)
        )

    def _watch(self) -> None:
        """Barriers of bar t: open, low, high, close."""
        t, tables = self.t, self.tables
        open_, high, low, close = tables.open[t], tables.high[t], tables.low[t], tables.close[t]
        at_open = open_ <= self._level(self.peak)
        top = np.maximum(self.peak, open_)
        at_low = self._level(top)
        self.peak = np.maximum(top, high)
        at_close = self._level(self.peak)
        hit_low, hit_close = low <= at_low, close <= at_close
        hit = (at_open | hit_low | hit_close) & (self.entry > 0)
        self.peak = np.where(self.entry > 0, self.peak, 0.0)
        if hit.any():
            quote = np.where(at_open, open_, np.where(hit_low, at_low, at_close))
            sold = self._sell(np.where(hit, self.qty, 0.0), quote * (1.0 - tables.slippage))
            self.since_stop = np.where(sold & hit, 0.0, self.since_stop)


def gymnasium_env(tables: Tables, seed: int = 0) -> Any:
    """`SingleEnv` as stable-baselines3 takes it: random starts, materialised observations."""
    import gymnasium

    class Wrapped(gymnasium.Env[Array, Array]):
        def __init__(self) -> None:
            self.env = SingleEnv(tables)
            self.rng = np.random.default_rng(seed)
            width = self.env.observation().shape
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, width, np.float32)
            self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.env.assets,), np.float32)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
            super().reset(seed=seed)
            self.env.reset(int(self.rng.integers(tables.lookback - 1, len(tables.close) - EPISODE)))
            return self.env.observation(), {}

        def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
            reward, terminated, truncated = self.env.step(action)
            return self.env.observation(), reward, terminated, truncated, {}

    return Wrapped()
