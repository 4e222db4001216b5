"""The rules of the market once more, one account and one asset at a time, in scalar Python and apart from `risk/`.

Written from docs/architecture.md ("The market's rules") and the View of the strategy interface; nothing of the package
is imported but the words for bars, costs and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers


def floored(qty: float, increment: float) -> float:
    nearest = round(qty / increment)
    if math.isclose(nearest * increment, qty, rel_tol=1e-15):
        return nearest * increment
    return math.floor(qty / increment) * increment


class Oracle:
    """One account. `step` takes one action per symbol and returns (reward, ruined)."""

    def __init__(
        self,
        bars: Bars,
        *,
        t: int,
        capital: float,
        costs: Costs,
        rules: Mapping[str, AssetRules],
        barriers: Barriers,
        max_weight: float = 0.30,
        dead_zone: float = 0.1,
        min_change: float = 0.02,
        buffer: float = 0.01,
    ) -> None:
        self.bars, self.t, self.capital, self.barriers = bars, t, capital, barriers
        self.max_weight, self.dead_zone, self.min_change, self.buffer = max_weight, dead_zone, min_change, buffer
        self.fee = costs.fee_bps / 10_000
        self.cash = capital
        self.symbols = bars.symbols
        self.slip = {s: costs.slippage_by_symbol_bps.get(s, costs.slippage_bps) / 10_000 for s in self.symbols}
        self.size = {s: float(rules[s].min_order_size) for s in self.symbols}
        self.increment = {s: float(rules[s].min_trade_increment) for s in self.symbols}
        self.notional = {s: float(rules[s].min_notional) for s in self.symbols}
        self.qty = dict.fromkeys(self.symbols, 0.0)
        self.entry = dict.fromkeys(self.symbols, 0.0)
        self.peak = dict.fromkeys(self.symbols, 0.0)
        self.held = dict.fromkeys(self.symbols, 0)
        self.since_stop = dict.fromkeys(self.symbols, 255)
        self.fees = 0.0
        self.slippage_paid = 0.0

    def price(self, column: str, symbol: str, t: int) -> float:
        return float(getattr(self.bars, column)[t, self.symbols.index(symbol)])

    def missing(self, symbol: str, t: int) -> bool:
        return bool(self.bars.missing[t, self.symbols.index(symbol)])

    def equity(self) -> float:
        return self.cash + sum(self.qty[s] * self.price("close", s, self.t) for s in self.symbols)

    def is_open(self, symbol: str) -> bool:
        return self.qty[symbol] >= self.size[symbol]

    def view(self, symbol: str) -> tuple[float, float, float, float]:
        close = self.price("close", symbol, self.t)
        entry_return = close / self.entry[symbol] - 1 if self.is_open(symbol) else 0.0
        return self.qty[symbol] * close / self.equity(), entry_return, self.held[symbol], self.since_stop[symbol]

    def accepts(self, symbol: str, qty: float, price: float) -> bool:
        return qty > 0 and qty >= self.size[symbol] and qty * price >= self.notional[symbol]

    def sell(self, symbol: str, qty: float, quote: float) -> bool:
        price = quote * (1 - self.slip[symbol])
        qty = min(floored(qty, self.increment[symbol]), self.qty[symbol])
        if not self.accepts(symbol, qty, price):
            return False
        self.qty[symbol] -= qty
        self.cash += qty * price * (1 - self.fee)
        self.fees += qty * price * self.fee
        self.slippage_paid += qty * (quote - price)
        if not self.is_open(symbol):
            self.entry[symbol] = self.peak[symbol] = 0.0
            self.held[symbol] = 0
        return True

    def buy(self, symbol: str, notional: float, quote: float) -> None:
        price = quote * (1 + self.slip[symbol])
        qty = floored(notional / price, self.increment[symbol])
        if not self.accepts(symbol, qty, price):
            return
        self.cash -= qty * price
        got = qty * (1 - self.fee)
        self.fees += qty * price * self.fee
        self.slippage_paid += qty * (price - quote)
        if self.is_open(symbol):
            total = self.qty[symbol] + got
            self.entry[symbol] = (self.qty[symbol] * self.entry[symbol] + got * price) / total
            self.peak[symbol] = max(self.peak[symbol], price)
        else:
            self.entry[symbol] = self.peak[symbol] = price
            self.held[symbol] = 0
        self.qty[symbol] += got

    def step(self, action: Mapping[str, float], interval: int = 1) -> tuple[float, bool]:
        t, equity = self.t, self.equity()
        sales: dict[str, float] = {}
        wishes: dict[str, float] = {}
        least = {s: max(self.notional[s], self.size[s] * self.price("close", s, t)) for s in self.symbols}
        for s in self.symbols:
            if self.missing(s, t) or self.missing(s, t + 1):
                continue
            a = round(max(-1.0, min(1.0, action[s])) * 128) / 128
            value = self.qty[s] * self.price("close", s, t)
            if a < -self.dead_zone:
                if value >= 1.1 * least[s]:
                    sales[s] = self.qty[s]
            elif a > self.dead_zone:
                wanted = a * self.max_weight * equity
                threshold = max(1.1 * least[s], self.min_change * equity)
                if wanted >= value:
                    if wanted - value >= threshold:
                        wishes[s] = wanted - value
                else:
                    excess = min(value, self.max_weight * equity) - wanted
                    if excess >= threshold:
                        sales[s] = excess / self.price("close", s, t)
        for s, qty in sales.items():
            self.sell(s, qty, self.price("open", s, t + 1))
        spendable = self.cash * (1 - self.buffer)
        total = sum(wishes.values())
        factor = min(1.0, spendable / total) if total else 1.0
        for s, notional in wishes.items():
            if notional * factor >= 1.1 * least[s]:
                self.buy(s, notional * factor, self.price("open", s, t + 1))
        ruined = False
        for _ in range(interval):
            for s in self.symbols:
                if self.is_open(s) and not self.missing(s, self.t + 1):
                    self.watch(s, self.t + 1)
            self.t += 1
            ruined = ruined or self.equity() < 0.2 * self.capital
        for s in self.symbols:
            self.held[s] = self.held[s] + 1 if self.is_open(s) else 0
            self.since_stop[s] = min(255, self.since_stop[s] + 1)
        return math.log(self.equity() / equity), ruined

    def watch(self, symbol: str, t: int) -> None:
        """Open, low, high, close: the first price that reaches a barrier ends the position."""
        barriers, entry = self.barriers, self.entry[symbol]

        def floor_level() -> float:
            level = entry * (1 - barriers.stop) if barriers.stop is not None else 0.0
            if barriers.trail is not None and self.peak[symbol] >= entry * (1 + barriers.trail_arms_at):
                level = max(level, self.peak[symbol] * (1 - barriers.trail))
            return level

        open_, high, low, close = (self.price(c, symbol, t) for c in ("open", "high", "low", "close"))
        target = entry * (1 + barriers.take_profit) if barriers.take_profit is not None else math.inf
        expired = barriers.max_hold_bars is not None and self.held[symbol] >= barriers.max_hold_bars
        fill = None
        if open_ <= floor_level() or open_ >= target or expired:
            fill = open_
        self.peak[symbol] = max(self.peak[symbol], open_)
        if fill is None and low <= floor_level():
            fill = floor_level()
        if fill is None and high >= target:
            fill = target
        self.peak[symbol] = max(self.peak[symbol], high)
        if fill is None and close <= floor_level():
            fill = floor_level()
        if fill is not None and self.sell(symbol, self.qty[symbol], fill):
            self.since_stop[symbol] = 0
