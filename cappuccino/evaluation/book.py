"""The backtest's account: cash, positions, and what the venue makes of an order.

Fill price = quote x (1 ± slippage). The fee is taken from the asset received: a buy of q adds q (1 - fee) units, a
sale of q at p adds q p (1 - fee) cash. Quantities are floored to the venue's increment; an order below the venue's
minimum quantity or notional does not fill. A position is open while it can be sold, that is from `min_order_size` up:
what flooring leaves behind is dust, which is still marked. There is no trade in a symbol whose bar at the decision or
at the fill is missing, and barriers do not look at a missing bar.

Invariants: cash >= 0, holdings >= 0; no order of symbols. The training environment follows the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput, InvariantViolation
from cappuccino.evaluation.trades import SIGNAL, Fill, Side
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import EXIT_REASONS, NONE, Barriers, exit_in_bar, exit_level
from cappuccino.risk.sizing import Sizing, capital_needed, floor_qty, plan, shrink
from cappuccino.strategies.interface import Target, View

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NEVER = 255  # the cap of bars_since_stop


class Book:
    """Arrays are [N] in the order of the bars' symbols; they are replaced, never changed in place.

    entry: quantity-weighted average price of the open position's buys; peak: highest price since, which is only kept
    where there are barriers; both 0 when flat.
    """

    def __init__(
        self,
        *,
        bars: Bars,
        capital_usd: float,
        costs: Costs,
        sizing: Sizing,
        barriers: Barriers,
        rules: Mapping[str, AssetRules],
    ) -> None:
        ordered = [rules[symbol] for symbol in bars.symbols]  # by name, never by position
        self.bars, self.sizing, self.barriers, self.fee = bars, sizing, barriers, costs.fee
        self.slippage = np.array([costs.slippage(symbol) for symbol in bars.symbols])
        self.increment = np.array([float(rule.min_trade_increment) for rule in ordered])
        self.min_size = np.array([float(rule.min_order_size) for rule in ordered])
        self.min_notional = np.array([float(rule.min_notional) for rule in ordered])
        self.guarded = barriers != Barriers.off()
        self.cash = float(capital_usd)
        N = len(bars.symbols)
        self.holdings, self.entry, self.peak = np.zeros(N), np.zeros(N), np.zeros(N)
        self.held: BoolArray = np.zeros(N, dtype=bool)
        self.bars_held: IntArray = np.zeros(N, dtype=np.int64)
        self.since_stop: IntArray = np.full(N, NEVER, dtype=np.int64)
        self.fills: list[Fill] = []
        self.traded_usd = 0.0

    def refuse_small_capital(self, row: int) -> None:
        """
        Raises:
            InvalidInput: a full action would be below a venue minimum at the close of `row`.
        """
        needed = [capital_needed(minimum, self.sizing) for minimum in self._minimum(row).tolist()]
        worst = int(np.argmax(needed))
        if not self.cash >= needed[worst]:
            raise InvalidInput(
                f"capital_usd {self.cash:g}: a full action of {self.sizing.max_weight:.0%} buys "
                f"{self.sizing.max_weight * self.cash:.2f} of {self.bars.symbols[worst]}, which is below the venue's minimum: "
                f"it takes a capital of at least {np.ceil(needed[worst] * 100) / 100:.2f}"
            )

    def count_decision(self) -> None:
        """One decision later, as positions and stops count it."""
        self.bars_held = np.where(self.held, self.bars_held + 1, 0)
        self.since_stop = np.minimum(self.since_stop + 1, NEVER)

    def view(self, row: int, *, at: datetime, equity: float, features: FloatArray) -> View:
        """What a strategy sees at the close of `row`."""
        close = self.bars.close[row]
        return View(
            at=at,
            features=features,
            close=close,
            weights=self.holdings * close / equity,
            cash_weight=self.cash / equity,
            equity_usd=equity,
            entry_return=np.where(self.held, close / np.where(self.held, self.entry, 1.0) - 1.0, 0.0),
            bars_held=self.bars_held,
            bars_since_stop=self.since_stop,
            tradable=~self.bars.missing[row],
        )

    def rebalance(self, row: int, intents: tuple[Target, ...], *, equity: float) -> None:
        """Fill a decision's orders at the open of `row`; `equity` and sizes are those of the close before it."""
        bars, N = self.bars, len(self.holdings)
        target, hold = np.zeros(N), np.ones(N, dtype=bool)
        for intent in intents:
            if intent.symbol not in bars.symbols or intent.barriers is not None:
                raise InvariantViolation(
                    f"target {intent}: this engine takes symbols of the contract with its own barriers only"
                )
            n = bars.symbols.index(intent.symbol)
            target[n], hold[n] = intent.weight, bars.missing[row - 1, n] or bars.missing[row, n]
        minimum = self._minimum(row - 1)
        sell_qty, buy_notional = plan(
            np,
            target=target,
            hold=hold,
            equity=np.asarray(equity),
            holdings=self.holdings,
            close=bars.close[row - 1],
            min_notional=minimum,
            sizing=self.sizing,
        )
        if sell_qty.any():
            self._sell(row, sell_qty, bars.open[row], np.zeros(N))
        if buy_notional.any():
            fitted = shrink(np, buy_notional=buy_notional, cash=np.asarray(self.cash), min_notional=minimum, sizing=self.sizing)
            self._buy(row, fitted)

    def watch(self, row: int) -> None:
        """Let the barriers look at a whole bar, in which the decision's orders have filled."""
        if not self.guarded:
            return
        live = self.held & ~self.bars.missing[row]
        if not live.any():
            return
        if not (live & self._may_exit(row)).any():
            self.peak = np.where(live, np.maximum(self.peak, self.bars.high[row]), self.peak)
            return
        code, price, peak = exit_in_bar(
            np,
            open=self.bars.open[row],
            high=self.bars.high[row],
            low=self.bars.low[row],
            close=self.bars.close[row],
            entry=self.entry,
            peak=self.peak,
            bars_held=self.bars_held,
            barriers=self.barriers,
        )
        self.peak = np.where(live, peak, self.peak)
        hit = live & (code != NONE)
        if hit.any():
            sold = self._sell(row, np.where(hit, self.holdings, 0.0), price, code)
            self.since_stop = np.where(sold > 0, 0, self.since_stop)

    def _may_exit(self, row: int) -> BoolArray:
        """Which positions a barrier could end in this bar, whatever its path: most bars need no closer look.

        Levels only rise with the peak, so no level of the bar is above the one that its high sets.
        """
        high, barriers = self.bars.high[row], self.barriers
        level, _ = exit_level(np, entry=self.entry, peak=np.maximum(self.peak, high), barriers=barriers)
        found = self.bars.low[row] <= level
        if barriers.take_profit is not None:
            found = found | (high >= self.entry * (1.0 + barriers.take_profit))
        if barriers.max_hold_bars is not None:
            found = found | (self.bars_held >= barriers.max_hold_bars)
        return np.asarray(found)

    def _minimum(self, row: int) -> FloatArray:
        """The venue's minimum order in quote currency, at the close of `row`."""
        return np.asarray(np.maximum(self.min_notional, self.min_size * self.bars.close[row]))

    def _accepted(self, qty: FloatArray, price: FloatArray) -> FloatArray:
        """What the venue does not refuse for its size."""
        return np.where((qty >= self.min_size) & (qty * price >= self.min_notional), qty, 0.0)

    def _sell(self, row: int, qty: FloatArray, quote: FloatArray, code: FloatArray) -> FloatArray:
        price = quote * (1.0 - self.slippage)
        qty = self._accepted(np.minimum(floor_qty(np, qty, self.increment), self.holdings), price)
        self.cash += float((qty * price).sum() * (1.0 - self.fee))
        self.holdings = self.holdings - qty
        self._settle()
        for n in np.flatnonzero(qty).tolist():
            self._record(row, n, "sell", qty[n], price[n], EXIT_REASONS[int(code[n])] or SIGNAL)
        return qty

    def _buy(self, row: int, notional: FloatArray) -> None:
        price = self.bars.open[row] * (1.0 + self.slippage)
        qty = self._accepted(floor_qty(np, notional / price, self.increment), price)
        self.cash -= float((qty * price).sum())
        received = qty * (1.0 - self.fee)
        bought = received > 0
        base = np.where(self.held, self.holdings, 0.0)  # dust of an earlier position has no part in the entry
        average = (base * self.entry + received * price) / np.where(bought, base + received, 1.0)
        self.entry = np.where(bought, average, self.entry)
        self.peak = np.where(bought, np.maximum(self.peak, price), self.peak)
        self.holdings = self.holdings + received
        self._settle()
        for n in np.flatnonzero(qty).tolist():
            self._record(row, n, "buy", qty[n], price[n], SIGNAL)

    def _settle(self) -> None:
        """What the venue would not sell is no position."""
        self.held = self.holdings >= self.min_size
        self.entry = np.where(self.held, self.entry, 0.0)
        self.peak = np.where(self.held, self.peak, 0.0)
        self.bars_held = np.where(self.held, self.bars_held, 0)

    def _record(self, row: int, n: int, side: Side, qty: float, price: float, reason: str) -> None:
        notional = float(qty) * float(price)
        self.traded_usd += notional
        self.fills.append(
            Fill(
                ts=int(self.bars.ts[row]),
                symbol=self.bars.symbols[n],
                side=side,
                qty=float(qty),
                price=float(price),
                fee_usd=notional * self.fee,
                reason=reason,
                flat=side == "sell" and not bool(self.held[n]),
            )
        )
