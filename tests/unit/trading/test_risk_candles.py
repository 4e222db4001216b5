"""Candles, targets and limits in; orders and refusals out: one row per rule, through a whole trader on the exchange's core.

A row's closes begin with two bars of history; bars move in a straight line from close to close, a tick every 1 %, so that a
level is passed at the first tick at or below it. Decision n is made at the close of bar n + 1. Orders are (bar in which they
were sent, side, symbol, reason), refusals (bar, symbol, rule, numbers). Equity begins at 10,000 and costs are zero, so that
every number can be worked out by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from cappuccino.core.clock import to_epoch
from cappuccino.exchange.terms import Terms
from cappuccino.exchange.venue import flat_fee
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.strategies.interface import Decision, Json, View
from cappuccino.trading.ports import Quote

from .builders import HOUR, START, SYMBOLS, Script, Trader, Venue, make_bars, rate_limited

A, B = SYMBOLS
FREE = Terms(fee_tiers=flat_fee(Decimal(0)), slippage_bps=Decimal(0))
NONE = Barriers.off()
Targets = Mapping[int, Mapping[str, float]]
Order = tuple[int, str, str, str]
Refusal = tuple[int, str, str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """`b` flat at 100 unless given. `opens`: gaps of A, by bar. `broken`: decisions at which the strategy raises."""

    a: Sequence[float]
    targets: Targets
    limits: Limits
    orders: Sequence[Order]
    refused: Sequence[Refusal] = ()
    halted: str = ""
    b: Sequence[float] = ()
    opens: Mapping[int, float] = field(default_factory=dict)
    quote: Callable[[Quote], Quote] = lambda quote: quote
    rejects: int = 0
    broken: Sequence[int] = ()


def held(**limits: Any) -> Limits:
    return Limits(**{"barriers": NONE, **limits})


def wide(quote: Quote) -> Quote:
    return replace(quote, bid=quote.bid * Decimal("0.96"), ask=quote.ask * Decimal("1.04"))


def late(quote: Quote) -> Quote:
    return replace(quote, at=quote.at - timedelta(seconds=61))


BUY_A, BUY_BOTH = {0: {A: 0.3}}, {0: {A: 0.3, B: 0.3}}
FLAT = [100.0] * 5
ROWS: dict[str, Row] = {
    # --- exits
    "stop_loss: 3 % below the entry, at the tick": Row(
        a=[100, 100, 100, 96, 96],
        targets=BUY_A,
        limits=held(barriers=Barriers(stop=0.03, trail=None)),
        orders=[(2, "buy", A, "target"), (3, "sell", A, "stop_loss")],
    ),
    "stop_loss: a gap sells at the open": Row(
        a=[100, 100, 100, 90, 90],
        opens={3: 90},
        targets=BUY_A,
        limits=held(barriers=Barriers(stop=0.03, trail=None)),
        orders=[(2, "buy", A, "target"), (3, "sell", A, "stop_loss")],
    ),
    "trailing_stop: arms at +2 %, sells 2 % below the peak": Row(
        a=[100, 100, 101.9, 99, 104, 101],
        targets=BUY_A,
        limits=held(barriers=Barriers(stop=0.1, trail=0.02, trail_arms_at=0.02)),
        orders=[(2, "buy", A, "target"), (5, "sell", A, "trailing_stop")],
    ),
    "take_profit: 5 % above the entry": Row(
        a=[100, 100, 104, 106, 106],
        targets=BUY_A,
        limits=held(barriers=Barriers(stop=None, trail=None, take_profit=0.05)),
        orders=[(2, "buy", A, "target"), (3, "sell", A, "take_profit")],
    ),
    "time_limit: after two decisions": Row(
        a=FLAT,
        targets=BUY_A,
        limits=held(barriers=Barriers(stop=None, trail=None, max_hold_bars=2)),
        orders=[(2, "buy", A, "target"), (4, "sell", A, "time_limit")],
    ),
    # --- entries
    "max_weight: a target above it is shrunk": Row(
        a=FLAT,
        targets={0: {A: 0.5}},
        limits=held(),
        orders=[(2, "buy", A, "target")],
        refused=[(2, A, "max_weight", {"asked": "5000", "max_weight": "0.3"})],
    ),
    "max_symbol_notional": Row(
        a=FLAT,
        targets=BUY_A,
        limits=held(max_symbol_notional_usd=1000),
        orders=[(2, "buy", A, "target")],
        refused=[(2, A, "max_symbol_notional", {"asked": "3000", "room": "1000", "limit": "1000"})],
    ),
    "max_heat: 600 at risk at a stop of 10 %, 200 allowed": Row(
        a=FLAT,
        targets=BUY_BOTH,
        limits=held(max_heat=0.02, barriers=Barriers(trail=None)),
        orders=[(2, "buy", A, "target"), (2, "buy", B, "target")],
        refused=[(2, A, "max_heat", {"asked": "3000", "room": "1000"}), (2, B, "max_heat", {"asked": "3000", "room": "1000"})],
    ),
    "max_heat: without a stop all of a position is at risk": Row(
        a=FLAT,
        targets=BUY_A,
        limits=held(max_heat=0.02),
        orders=[(2, "buy", A, "target")],
        refused=[(2, A, "max_heat", {"room": "200", "stop": "1"})],
    ),
    "max_open_positions": Row(
        a=FLAT,
        targets={0: {A: 0.2, B: 0.3}, 1: {A: 0.2}},
        limits=held(max_open_positions=1),
        orders=[(2, "buy", B, "target")],
        refused=[
            (2, A, "max_open_positions", {"open_positions": "1", "limit": "1"}),
            (3, A, "max_open_positions", {"open_positions": "1", "limit": "1"}),
        ],
    ),
    "order_rate: one an hour of market time": Row(
        a=FLAT,
        targets=BUY_BOTH,
        limits=held(max_orders_per_hour=1),
        orders=[(2, "buy", A, "target")],
        refused=[(2, B, "order_rate", {"orders_last_hour": "1", "limit": "1"})],
    ),
    "order_rate: one a minute": Row(
        a=FLAT,
        targets={0: {A: 0.3, B: 0.3}, 1: {B: 0.3}},
        limits=held(max_orders_per_minute=1),
        orders=[(2, "buy", A, "target"), (3, "buy", B, "target")],
        refused=[(2, B, "order_rate", {"orders_last_minute": "1", "limit": "1"})],
    ),
    "price: a gap of 60 % is not bought": Row(
        a=[100, 100, 160, 160, 160],
        opens={2: 160},
        targets=BUY_A,
        limits=held(),
        orders=[],
        refused=[(2, A, "price", {"price": "160", "close": "100", "band": "0.5"})],
    ),
    "spread: a quote 8 % wide is not bought": Row(
        a=FLAT,
        targets=BUY_A,
        limits=held(),
        quote=wide,
        orders=[],
        refused=[(2, A, "spread", {"spread": "0.08", "limit": "0.05"})],
    ),
    "quote_age: a quote of a minute ago is not bought": Row(
        a=FLAT,
        targets=BUY_A,
        limits=held(),
        quote=late,
        orders=[],
        refused=[(2, A, "quote_age", {"quote_age_seconds": "61.0", "limit": "60.0"})],
    ),
    "min_notional: what a limit shrinks below it is refused by that limit": Row(
        a=FLAT,
        targets=BUY_A,
        limits=held(max_symbol_notional_usd=0.5),
        orders=[],
        refused=[(2, A, "max_symbol_notional", {"notional": "0.5", "limit": "0.5"})],
    ),
    # --- the day: 2024-01-01 ends with bar 23
    "daily_loss: 3 % lost, nothing is bought before the next UTC day, even when it comes back": Row(
        a=[100, 100, 100, 89, 100, *[100.0] * 23],
        targets={0: {A: 0.3}, 3: {A: 0.0, B: 0.3}, 21: {B: 0.3}, 22: {B: 0.3}},
        limits=held(max_daily_loss=0.03),
        orders=[(2, "buy", A, "target"), (5, "sell", A, "target"), (24, "buy", B, "target")],
        refused=[
            (5, B, "daily_loss", {"opening_equity": "10000", "equity": "9695.3846", "limit": "0.03"}),
            (23, B, "daily_loss", {"opening_equity": "10000", "limit": "0.03"}),
        ],
    ),
    "daily_profit_target: 3 % gained, exits go on": Row(
        a=[100, 100, 100, 111, 111, *[111.0] * 22],
        targets={0: {A: 0.3}, 2: {B: 0.3}, 3: {A: 0.0}, 22: {B: 0.3}},
        limits=held(daily_profit_target=0.03),
        orders=[(2, "buy", A, "target"), (5, "sell", A, "target"), (24, "buy", B, "target")],
        refused=[(4, B, "daily_profit_target", {"opening_equity": "10000", "limit": "0.03"})],
    ),
    # --- the circuit breaker
    "daily_loss_halts: until a person lifts it, whatever the day": Row(
        a=[100, 100, 100, 89, 89, *[89.0] * 22],
        targets={0: {A: 0.3}, 22: {B: 0.3}},
        limits=held(max_daily_loss=0.03, daily_loss_halts=True),
        orders=[(2, "buy", A, "target")],
        refused=[(24, B, "halted", {"mode": "halted"})],
        halted="daily loss 0.03",
    ),
    "drawdown: 10 % of the baseline": Row(
        a=[100, 100, 100, 65, 65],
        targets={0: {A: 0.3}, 2: {B: 0.3}},
        limits=held(max_drawdown=0.1),
        orders=[(2, "buy", A, "target")],
        refused=[(4, B, "halted", {"mode": "halted"})],
        halted="of the baseline 10000 reached the limit 0.1",
    ),
    "max_consecutive_losses: two trades that lost, in a row": Row(
        a=[100, 100, 99, 99, 98, 98, 98],
        targets={0: {A: 0.3}, 1: {A: 0.0}, 2: {A: 0.3}, 3: {A: 0.0}, 4: {B: 0.3}},
        limits=held(max_consecutive_losses=2),
        orders=[(2, "buy", A, "target"), (3, "sell", A, "target"), (4, "buy", A, "target"), (5, "sell", A, "target")],
        refused=[(6, B, "halted", {"mode": "halted"})],
        halted="2 losing trades in a row reached the limit 2",
    ),
    "max_rejected_orders: three in a row": Row(
        a=[100.0] * 7,
        targets={n: {A: 0.3} for n in range(5)},
        limits=held(max_rejected_orders=3),
        rejects=9,
        orders=[(2, "buy", A, "target"), (3, "buy", A, "target"), (4, "buy", A, "target")],
        refused=[(5, A, "halted", {"mode": "halted"}), (6, A, "halted", {"mode": "halted"})],
        halted="3 orders in a row were rejected by the venue: the limit is 3",
    ),
    "max_failed_decisions: exits go on meanwhile": Row(
        a=[100, 100, 100, 100, 96, 96, 96, 96],
        targets={0: {A: 0.3}, 4: {B: 0.3}},
        broken=(1, 2, 3),
        limits=held(max_failed_decisions=3, barriers=Barriers(stop=0.03, trail=None)),
        orders=[(2, "buy", A, "target"), (4, "sell", A, "stop_loss")],
        refused=[
            *((bar, "", "no_decision", {"error": "ZeroDivisionError: the model is broken"}) for bar in (3, 4, 5)),
            (6, B, "halted", {"mode": "halted"}),
        ],
        halted="the strategy failed on 3 decisions in a row: the limit is 3 (ZeroDivisionError: the model is broken)",
    ),
}


@dataclass(frozen=True)
class Breaking(Script):
    broken: Sequence[int] = ()

    def decide(self, view: View, memory: Json) -> Decision:
        bar = (to_epoch(view.at) - START) // HOUR - 2
        if bar in self.broken:
            raise ZeroDivisionError("the model is broken")
        return super().decide(view, {"number": bar})


def trader_of(row: Row) -> Trader:
    bars = make_bars({A: row.a, B: row.b or [100.0] * len(row.a)})
    for bar, price in row.opens.items():
        bars.open[bar, 0] = price
        bars.high[bar, 0], bars.low[bar, 0] = max(price, bars.close[bar, 0]), min(price, bars.close[bar, 0])
    venue = Venue.over(bars, terms=FREE)
    quote = venue._quote
    venue._quote = lambda symbol: row.quote(quote(symbol))  # type: ignore[method-assign]
    venue.faults = dict.fromkeys(range(row.rejects), rate_limited)
    return Trader(venue=venue, strategy=Breaking(row.targets, broken=row.broken), limits=row.limits, on_halt="hold")


def bar_of(seconds: float) -> int:
    return int((seconds - START) // HOUR)


@pytest.mark.parametrize("name", ROWS)
def test_a_row(name: str) -> None:
    row = ROWS[name]
    trader = trader_of(row)
    trader.run()
    sent = [(bar_of(i.created_at.timestamp()), i.side, i.symbol, i.reason) for i in trader.venue.submissions]
    assert sent == list(row.orders)
    refused = [(bar_of(d.bar_at.timestamp()) + 1, r) for d in trader.ledger.decisions for r in d.refusals]
    told = [(bar, r.get("symbol", ""), r["rule"]) for bar, r in refused]
    assert told == [refusal[:3] for refusal in row.refused]
    for (_, found), (_, _, _, numbers) in zip(refused, row.refused, strict=True):
        assert {name: plain(found["numbers"][name]) for name in numbers} == {n: plain(text) for n, text in numbers.items()}
    assert row.halted in (trader.ledger.halted or "") if row.halted else trader.ledger.halted is None


def plain(text: str) -> str:
    try:
        return str(round(Decimal(text), 4).normalize())
    except ArithmeticError:
        return text
