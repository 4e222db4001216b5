"""From a closed bar to what is asked for: the view, and the orders that its targets need. Pure.

Orders are planned at the decision's close by `risk/sizing.plan`, each is reviewed by `risk/limits`, and only then
does the decision become a row. Sells are sized here; buys keep their gross notional, and are shrunk to the cash that
is there once the sells are over (`fit_buys`).

A trader whose limit is below the bundle's maximum weight (live's 10 %) multiplies every target by the ratio and shows
the strategy its weights divided by it: the bundle decides as it was trained, and nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import numpy as np

from cappuccino.core.money import ZERO, dec, floor_to
from cappuccino.exchange.venue import MONEY_INCREMENT, AssetRules
from cappuccino.market.bars import BoolArray, FloatArray
from cappuccino.risk.limits import Exposure, Limits, Pass, Proposal, Shrink, TradingMode, Veto, review
from cappuccino.risk.positions import NEVER, Watch
from cappuccino.risk.sizing import Sizing, plan, shrink
from cappuccino.strategies.interface import Contract, Target, View
from cappuccino.trading.book import Book
from cappuccino.trading.ports import Json


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a decision asks for, after review. Quantities in base units, notionals in quote currency."""

    sells: Mapping[str, Decimal]
    buys: Mapping[str, Decimal]
    refusals: tuple[Json, ...]


def scale_of(limits: Limits, sizing: Sizing) -> float:
    """What targets are multiplied by: 1 unless the trader's limit is below the bundle's."""
    return min(1.0, limits.max_weight / sizing.max_weight)


def view_of(
    contract: Contract,
    *,
    at: datetime,
    features: FloatArray,
    close: FloatArray,
    tradable: BoolArray,
    book: Book,
    watches: Mapping[str, Watch],
    since_stop: Mapping[str, int],
    scale: float,
) -> View:
    """What the strategy sees. features: [N, L, F]; close, tradable: [N]."""
    symbols = contract.symbols
    qty = np.array([float(book.qty(s)) for s in symbols])
    entry = np.array([watches[s].entry if s in watches else 0.0 for s in symbols])
    equity = float(book.cash) + float(np.sum(qty * close))
    weights = qty * close / equity / scale if equity > 0 else np.zeros(len(symbols))
    held = entry > 0
    return View(
        at=at,
        features=features,
        close=close,
        weights=weights,
        cash_weight=float(book.cash) / equity if scale == 1.0 and equity > 0 else 1.0 - float(np.sum(weights)),
        equity_usd=equity,
        entry_return=np.where(held, close / np.where(held, entry, 1.0) - 1.0, 0.0),
        bars_held=np.array([watches[s].bars_held if s in watches else 0 for s in symbols], dtype=np.int64),
        bars_since_stop=np.array([since_stop.get(s, NEVER) for s in symbols], dtype=np.int64),
        tradable=tradable,
    )


def minimum_notional(rules: AssetRules, price: Decimal) -> Decimal:
    """The smallest order that the venue takes at this price, in quote currency."""
    return max(rules.min_notional, rules.min_order_size * price)


def plan_orders(
    targets: Sequence[Target],
    view: View,
    *,
    symbols: Sequence[str],
    book: Book,
    rules: Mapping[str, AssetRules],
    prices: Mapping[str, Decimal],
    sizing: Sizing,
    limits: Limits,
    mode: TradingMode,
    orders_last_hour: int,
) -> Planned:
    """Orders for `targets`, reviewed. `prices` are the market's now; an absent one counts as no price, and is refused."""
    scale = scale_of(limits, sizing)
    wanted = {t.symbol: t.weight * scale for t in targets}
    scaled = Sizing(
        max_weight=sizing.max_weight * scale,
        dead_zone=sizing.dead_zone,
        min_change=sizing.min_change,
        cash_buffer=sizing.cash_buffer,
    )
    close = {s: dec(float(c)) for s, c in zip(symbols, view.close, strict=True)}
    minimum = {s: minimum_notional(rules[s], close[s]) for s in symbols}
    equity = book.equity(close)
    sell_qty, buy_notional = plan(
        np,
        target=np.array([wanted.get(s, 0.0) for s in symbols]),
        hold=np.array([s not in wanted for s in symbols]) | ~view.tradable,
        equity=np.float64(view.equity_usd),
        holdings=np.array([float(book.qty(s)) for s in symbols]),
        close=view.close,
        min_notional=np.array([float(minimum[s]) for s in symbols]),
        sizing=scaled,
    )
    sells: dict[str, Decimal] = {}
    buys: dict[str, Decimal] = {}
    refusals: list[Json] = []
    sent = orders_last_hour
    for symbol, qty, notional in zip(symbols, sell_qty.tolist(), buy_notional.tolist(), strict=True):
        if qty <= 0 and notional <= 0:
            continue
        side = "sell" if qty > 0 else "buy"
        increment = rules[symbol].min_trade_increment
        held = floor_to(book.qty(symbol), increment)
        closing = qty > 0 and wanted[symbol] <= 0
        proposal = Proposal(
            symbol=symbol,
            side="sell" if qty > 0 else "buy",
            protective=False,
            qty=held if closing else floor_to(dec(qty), increment),
            notional=floor_to(dec(notional), MONEY_INCREMENT),
        )
        exposure = Exposure(
            mode=mode,
            equity=equity,
            cash=equity,  # what is there after the sells is not known yet: fit_buys holds buys to it
            held=held,
            close=close[symbol],
            price=prices.get(symbol, ZERO),
            min_notional=minimum[symbol],
            orders_last_hour=sent,
        )
        verdict = review(proposal, exposure, limits)
        if not isinstance(verdict, Pass):
            refusals.append(_refusal(symbol, side, verdict))
        if isinstance(verdict, Veto):
            continue
        sent += 1
        if side == "sell":
            sells[symbol] = floor_to(verdict.amount, increment) if isinstance(verdict, Shrink) else proposal.qty
        else:
            buys[symbol] = floor_to(verdict.amount, MONEY_INCREMENT) if isinstance(verdict, Shrink) else proposal.notional
    return Planned(sells=sells, buys=buys, refusals=tuple(refusals))


def fit_buys(
    buys: Mapping[str, Decimal],
    *,
    cash: Decimal,
    closes: Mapping[str, Decimal],
    rules: Mapping[str, AssetRules],
    sizing: Sizing,
) -> dict[str, Decimal]:
    """`buys` shrunk by one factor to `cash` less the buffer; what falls below the venue's minimum is left out."""
    symbols = tuple(buys)
    if not symbols:
        return {}
    fitted = shrink(
        np,
        buy_notional=np.array([float(buys[s]) for s in symbols]),
        cash=np.float64(cash),
        min_notional=np.array([float(minimum_notional(rules[s], closes[s])) for s in symbols]),
        sizing=sizing,
    )
    amounts = {s: min(floor_to(dec(x), MONEY_INCREMENT), buys[s]) for s, x in zip(symbols, fitted.tolist(), strict=True)}
    return {s: amount for s, amount in amounts.items() if amount > 0}


def _refusal(symbol: str, side: str, verdict: Shrink | Veto) -> Json:
    amount = {"sent": str(verdict.amount)} if isinstance(verdict, Shrink) else {}
    return {
        "symbol": symbol,
        "side": side,
        "verdict": type(verdict).__name__.lower(),
        "rule": verdict.rule,
        "numbers": dict(verdict.numbers),
        **amount,
    }
