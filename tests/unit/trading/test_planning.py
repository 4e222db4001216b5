"""From targets to reviewed orders."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits, TradingMode
from cappuccino.risk.positions import NEVER, Watch
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract, Target
from cappuccino.trading.book import Book, apply
from cappuccino.trading.facts import Facts
from cappuccino.trading.planning import Planned, fit_buys, plan_orders, scale_of, view_of
from cappuccino.trading.ports import Quote

from .test_book import AT, a_fill

D = Decimal
A, B = "AAA/USD", "BBB/USD"
CONTRACT = Contract(symbols=(A, B), timeframe=Timeframe(3600), features=(), lookback=1, warmup_bars=1)
RULES = {
    s: AssetRules(symbol=s, min_order_size=D("0.01"), min_trade_increment=D("0.000001"), price_increment=D("0.01"))
    for s in (A, B)
}


def holding(qty: str = "5", price: str = "100") -> Book:
    book = Book(cash=D(1000), smallest={s: r.min_order_size for s, r in RULES.items()})
    return apply(book, a_fill("buy", qty, price, symbol=A)) if qty != "0" else book


def planned(
    targets: dict[str, float],
    book: Book,
    *,
    close: tuple[float, float] = (100.0, 10.0),
    prices: dict[str, Decimal] | None = None,
    tradable: tuple[bool, bool] = (True, True),
    limits: Limits | None = None,
    mode: TradingMode = "active",
) -> Planned:
    limits, sizing = limits or Limits(), Sizing()
    view = view_of(
        CONTRACT,
        at=AT,
        features=np.zeros((2, 1, 0)),
        close=np.array(close),
        tradable=np.array(tradable),
        book=book,
        watches={},
        since_stop={},
        scale=scale_of(limits, sizing),
    )
    closes = {A: D(str(close[0])), B: D(str(close[1]))}
    facts = Facts(
        mode=mode,
        now=AT,
        day=None,
        book=book,
        watches={},
        equity=book.equity(closes),
        closes=closes,
        quotes={s: Quote(symbol=s, bid=p, ask=p, at=AT) for s, p in (closes if prices is None else prices).items()},
        rules=RULES,
        limits=limits,
        orders_last_hour=0,
        orders_last_minute=0,
    )
    return plan_orders([Target(symbol=s, weight=w) for s, w in targets.items()], view, facts, symbols=(A, B), sizing=sizing)


def test_a_target_becomes_a_buy_of_its_weight_of_equity() -> None:
    assert planned({B: 0.3}, holding("0")).buys == {B: D(300)}


def test_closing_sells_exactly_what_is_held() -> None:
    book = apply(holding("0"), a_fill("buy", "2.1234567", "100", fee="0.0000009", symbol=A))
    assert planned({A: 0.0}, book).sells == {A: D("2.123455")}  # floored to the increment


def test_absence_means_hold_and_so_does_a_missing_bar() -> None:
    assert planned({}, holding()) == Planned(sells={}, buys={}, refusals=())
    assert planned({A: 0.0, B: 0.3}, holding(), tradable=(False, False)) == Planned(sells={}, buys={}, refusals=())


def test_a_price_far_from_the_close_is_refused_with_its_numbers() -> None:
    found = planned({B: 0.3}, holding("0"), prices={B: D(30)})
    assert found.buys == {}
    (refusal,) = found.refusals
    assert (refusal["rule"], refusal["symbol"], refusal["numbers"]["price"]) == ("price", B, "30")


def test_a_symbol_without_a_price_is_not_bought() -> None:
    assert planned({B: 0.3}, holding("0"), prices={}).buys == {}


def test_a_target_that_is_no_number_or_of_no_symbol_is_refused_and_the_position_held() -> None:
    found = planned({A: float("nan"), "ZZZ/USD": 0.3}, holding())
    assert (found.sells, found.buys) == ({}, {})
    assert [(r["rule"], r["symbol"], r["numbers"]["weight"]) for r in found.refusals] == [
        ("unknown", A, "nan"),
        ("unknown", "ZZZ/USD", "0.3"),
    ]


def test_the_last_place_goes_to_the_larger_buy_whatever_the_order_of_symbols() -> None:
    limits = Limits(max_open_positions=1)
    for small, large in ((A, B), (B, A)):
        found = planned({small: 0.1, large: 0.3}, holding("0"), limits=limits)
        assert found.buys == {large: D(300)}
        assert [(r["symbol"], r["rule"]) for r in found.refusals] == [(small, "max_open_positions")]


def test_a_place_that_a_sale_of_the_same_decision_frees_can_be_taken() -> None:
    found = planned({A: 0.0, B: 0.3}, holding(), limits=Limits(max_open_positions=1))
    assert (found.sells, found.buys) == ({A: D(5)}, {B: D(300)})
    kept = planned({B: 0.3}, holding(), limits=Limits(max_open_positions=1))
    assert kept.buys == {}


def test_the_room_for_heat_is_shared_by_the_size_of_the_buys() -> None:
    found = planned({A: 0.3, B: 0.15}, holding("0"), limits=Limits(max_heat=0.03))  # 45 at risk, 30 allowed
    assert {symbol: round(amount, 6) for symbol, amount in found.buys.items()} == {A: D(200), B: D(100)}
    assert {r["rule"] for r in found.refusals} == {"max_heat"}


def test_heat_counts_what_is_held_at_its_stop() -> None:
    found = planned({B: 0.3}, holding(), close=(110.0, 10.0), limits=Limits(max_heat=0.1))
    (refusal,) = found.refusals  # 5 bought at 100, now 110, sold at 90: 100 at risk, of 105 allowed
    assert (refusal["rule"], refusal["numbers"]["heat"]) == ("max_heat", "100.0")
    assert found.buys == {B: D(50)}


def test_halted_refuses_all_that_is_not_protective() -> None:
    found = planned({A: 0.0, B: 0.3}, holding(), mode="halted")
    assert (found.sells, found.buys) == ({}, {})
    assert [r["rule"] for r in found.refusals] == ["halted", "halted"]


def test_a_lower_limit_scales_targets_and_unscales_the_view_and_never_clips() -> None:
    limits = Limits(max_weight=0.10)
    assert planned({B: 0.3}, holding("0"), limits=limits).buys == {B: D(100)}
    assert planned({B: 0.15}, holding("0"), limits=limits).buys == {B: D(50)}
    view = view_of(
        CONTRACT,
        at=AT,
        features=np.zeros((2, 1, 0)),
        close=np.array([100.0, 10.0]),
        tradable=np.array([True, True]),
        book=holding("1"),
        watches={},
        since_stop={},
        scale=scale_of(limits, Sizing()),
    )
    assert view.weights[0] == pytest.approx(0.3)
    assert view.cash_weight == pytest.approx(0.7)


def test_the_view_shows_entry_bars_and_stops() -> None:
    watch = Watch(symbol=A, position_id="p", entry=80.0, peak=110.0, bars_held=3, barriers=Barriers())
    view = view_of(
        CONTRACT,
        at=AT,
        features=np.zeros((2, 1, 0)),
        close=np.array([100.0, 10.0]),
        tradable=np.array([True, True]),
        book=holding(),
        watches={A: watch},
        since_stop={B: 4},
        scale=1.0,
    )
    assert view.entry_return.tolist() == [0.25, 0.0]
    assert view.bars_held.tolist() == [3, 0]
    assert view.bars_since_stop.tolist() == [NEVER, 4]
    assert view.cash_weight == pytest.approx(0.5)


def test_buys_shrink_by_one_factor_to_the_cash_less_the_buffer() -> None:
    closes = {A: D(100), B: D(10)}
    fitted = fit_buys({A: D(300), B: D(100)}, cash=D(200), closes=closes, rules=RULES, sizing=Sizing())
    assert fitted == {A: D("148.5"), B: D("49.5")}
    assert fit_buys({A: D(300)}, cash=D(1000), closes=closes, rules=RULES, sizing=Sizing()) == {A: D(300)}
    assert fit_buys({A: D(300)}, cash=D("0.5"), closes=closes, rules=RULES, sizing=Sizing()) == {}


def test_the_smallest_buy_may_be_larger_than_the_smallest_sale(monkeypatch: pytest.MonkeyPatch) -> None:
    dearer = {s: replace(rules, min_buy_notional=D(10)) for s, rules in RULES.items()}
    closes = {A: D(100), B: D(10)}
    fitted = fit_buys({A: D(300), B: D(9)}, cash=D(1000), closes=closes, rules=dearer, sizing=Sizing())
    assert fitted == {A: D(300)}
    monkeypatch.setattr("tests.unit.trading.test_planning.RULES", dearer)
    small = holding("0", "100")
    assert planned({A: 0.3}, replace(small, cash=D(30))).buys == {}
    assert [r["rule"] for r in planned({A: 0.3}, replace(small, cash=D(30))).refusals] == ["min_notional"]
    assert planned({A: 0.0}, holding("0.05", "100")).sells == {A: D("0.05")}  # 5 USD can still be sold
