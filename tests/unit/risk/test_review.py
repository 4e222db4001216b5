"""Review of every order: a row per rule, the order of the rules, and what holds for any order."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.risk import review as rules
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.day import Day
from cappuccino.risk.limits import Limits
from cappuccino.risk.review import Exposure, Pass, Proposal, Shrink, Verdict, Veto, review

D = Decimal
NAN = D("NaN")
CALM = Exposure(
    mode="active",
    equity=D(1000),
    cash=D(1000),
    held=D(0),
    close=D(10),
    price=D(10),
    spread=D("0.001"),
    quote_age_seconds=D(1),
    min_notional=D(1),
    orders_last_hour=0,
    orders_last_minute=0,
    open_positions=0,
    heat=D(0),
    heat_share=D(1),
    day=Day(number=19_000, opening_equity=D(1000)),
)
LOST = Day(number=19_000, opening_equity=D(1000), closed_by="daily_loss", closed_equity=D(940))
WON = Day(number=19_000, opening_equity=D(1000), closed_by="daily_profit_target", closed_equity=D(1040))
ALL = Limits(
    max_symbol_notional_usd=250,
    max_heat=0.02,
    max_open_positions=2,
    max_orders_per_minute=5,
    max_daily_loss=0.05,
    daily_profit_target=0.03,
)


def buy(notional: str = "100") -> Proposal:
    return Proposal(symbol="A", side="buy", protective=False, notional=D(notional))


def sell(qty: str = "5", *, protective: bool = False) -> Proposal:
    return Proposal(symbol="A", side="sell", protective=protective, qty=D(qty))


EXIT = sell(protective=True)


def passed(proposal: Proposal, **market: Any) -> tuple[Any, ...]:
    return proposal, market, Pass, "", None, {}


def vetoed(proposal: Proposal, rule: str, *, numbers: dict[str, str], **market: Any) -> tuple[Any, ...]:
    return proposal, market, Veto, rule, None, numbers


def shrunk(proposal: Proposal, rule: str, to: str, *, numbers: dict[str, str], **market: Any) -> tuple[Any, ...]:
    return proposal, market, Shrink, rule, D(to), numbers


# In the order of the rules. The numbers are those that are stored.
DEFAULT_ROWS = [
    passed(buy()),
    passed(buy("300")),
    vetoed(buy("NaN"), "unknown", numbers={"amount": "NaN"}),
    vetoed(buy(), "unknown", numbers={"equity": "NaN"}, equity=NAN),
    vetoed(buy(), "unknown", numbers={"equity": "0"}, equity=D(0)),
    vetoed(buy(), "unknown", numbers={"cash": "Infinity"}, cash=D("Infinity")),
    vetoed(buy(), "unknown", numbers={"close": "NaN"}, close=NAN),
    vetoed(buy(), "unknown", numbers={"heat": "NaN"}, heat=NAN),
    vetoed(buy(), "unknown", numbers={"held": "-1"}, held=D(-1)),
    passed(EXIT, equity=NAN, cash=NAN, close=NAN, heat=NAN, held=D(5)),
    vetoed(sell("NaN", protective=True), "unknown", numbers={"amount": "NaN"}, held=D(5)),
    vetoed(buy(), "halted", numbers={"mode": "halted"}, mode="halted"),
    vetoed(buy(), "halted", numbers={"mode": "reducing"}, mode="reducing"),
    vetoed(buy(), "halted", numbers={"mode": "asleep"}, mode="asleep"),
    vetoed(replace(buy(), protective=True), "halted", numbers={"mode": "active"}),  # a buy protects nothing
    passed(sell(), mode="reducing", held=D(5)),
    vetoed(sell(), "halted", numbers={"mode": "halted"}, mode="halted", held=D(5)),
    passed(EXIT, mode="halted", held=D(5)),
    vetoed(buy(), "order_rate", numbers={"orders_last_hour": "60", "limit": "60"}, orders_last_hour=60),
    vetoed(sell(), "order_rate", numbers={"orders_last_hour": "60", "limit": "60"}, orders_last_hour=60, held=D(5)),
    passed(EXIT, orders_last_hour=60, held=D(5)),
    vetoed(buy(), "price", numbers={"price": "0", "close": "10", "band": "0.5"}, price=D(0)),
    vetoed(buy(), "price", numbers={"price": "NaN"}, price=NAN),
    vetoed(buy(), "price", numbers={"price": "15.1"}, price=D("15.1")),
    vetoed(buy(), "price", numbers={"price": "4.9"}, price=D("4.9")),
    passed(EXIT, price=D(1), held=D(5)),
    vetoed(EXIT, "price", numbers={"price": "0"}, price=D(0), held=D(5)),
    vetoed(buy(), "quote_age", numbers={"quote_age_seconds": "60.1", "limit": "60.0"}, quote_age_seconds=D("60.1")),
    vetoed(buy(), "quote_age", numbers={"quote_age_seconds": "None"}, quote_age_seconds=None),
    passed(EXIT, quote_age_seconds=None, held=D(5)),
    vetoed(buy(), "spread", numbers={"spread": "0.06", "limit": "0.05"}, spread=D("0.06")),
    vetoed(buy(), "spread", numbers={"spread": "-0.01"}, spread=D("-0.01")),  # crossed
    vetoed(buy(), "spread", numbers={"spread": "None"}, spread=None),
    passed(EXIT, spread=None, held=D(5)),
    shrunk(sell("9"), "held", "5", numbers={"asked": "9", "room": "5"}, held=D(5)),
    vetoed(sell(), "held", numbers={"asked": "5", "room": "0", "notional": "0"}),
    shrunk(buy("400"), "max_weight", "300.0000003", numbers={"asked": "400", "equity": "1000", "max_weight": "0.3"}),
    shrunk(buy("100"), "max_weight", "50.0000003", numbers={"room": "50.0000003000"}, held=D(25)),
    vetoed(buy("100"), "max_weight", numbers={"room": "-99.9999997000", "minimum": "1"}, held=D(40)),
    shrunk(buy("100"), "cash", "60", numbers={"asked": "100", "room": "60"}, cash=D(60)),
    shrunk(buy("400"), "cash", "60", numbers={"asked": "400", "room": "60"}, cash=D(60)),  # the last limit binds
    vetoed(buy("0.99"), "min_notional", numbers={"notional": "0.99", "minimum": "1"}),
    vetoed(buy("0"), "min_notional", numbers={"notional": "0"}, min_notional=D(0)),
    vetoed(sell("0.05"), "min_notional", numbers={"notional": "0.50", "minimum": "1"}, held=D(5)),
]

# With every limit on.
ALL_ROWS = [
    passed(buy()),
    vetoed(buy(), "order_rate", numbers={"orders_last_minute": "5", "limit": "5"}, orders_last_minute=5),
    vetoed(buy(), "daily_loss", numbers={"opening_equity": "1000", "equity": "940", "limit": "0.05"}, day=LOST),
    vetoed(buy(), "daily_profit_target", numbers={"equity": "1040", "limit": "0.03"}, day=WON),
    vetoed(buy(), "unknown", numbers={"day": "None"}, day=None),
    passed(sell(), day=LOST, held=D(5)),
    passed(EXIT, day=LOST, held=D(5)),
    vetoed(buy(), "max_open_positions", numbers={"open_positions": "2", "limit": "2"}, open_positions=2),
    passed(buy("50"), open_positions=2, held=D(1)),  # adds to one that is open
    vetoed(buy(), "max_open_positions", numbers={"limit": "2"}, open_positions=2, held=D("0.01")),  # dust is none
    shrunk(buy("260"), "max_heat", "200", numbers={"asked": "260", "heat": "0", "stop": "0.1"}),
    shrunk(buy("260"), "max_symbol_notional", "100", numbers={"room": "100.0", "limit": "250"}, held=D(10), price=D(15)),
    shrunk(buy(), "max_heat", "50", numbers={"room": "50", "heat": "15", "limit": "0.02"}, heat=D(15)),
    shrunk(buy(), "max_heat", "25", numbers={"room": "25"}, heat=D(15), heat_share=D("0.5")),
    vetoed(buy(), "max_heat", numbers={"heat": "25", "room": "0"}, heat=D(25)),
    passed(EXIT, heat=D(25), open_positions=9, held=D(5)),
]


def check(row: tuple[Any, ...], limits: Limits) -> None:
    proposal, market, verdict, rule, amount, numbers = row
    found = review(proposal, replace(CALM, **market), limits)
    assert type(found) is verdict, found
    if isinstance(found, Pass):
        return
    assert found.rule == rule
    assert {name: plain(found.numbers[name]) for name in numbers} == {name: plain(text) for name, text in numbers.items()}
    if isinstance(found, Shrink):
        assert found.amount == amount


def plain(text: str) -> str:
    """One spelling for one number."""
    try:
        return str(D(text).normalize())
    except ArithmeticError:
        return text


@pytest.mark.parametrize("row", DEFAULT_ROWS)
def test_a_row_per_rule(row: tuple[Any, ...]) -> None:
    check(row, Limits())


@pytest.mark.parametrize("row", ALL_ROWS)
def test_a_row_per_limit_that_is_off_by_default(row: tuple[Any, ...]) -> None:
    check(row, ALL)


# What is wrong with one buy, all at once; each rule that has spoken is then put right.
WRONGS: list[tuple[str, dict[str, Any]]] = [
    ("unknown", {"cash": NAN}),
    ("halted", {"mode": "halted"}),
    ("order_rate", {"orders_last_hour": 60}),
    ("daily_loss", {"day": LOST}),
    ("price", {"price": D(100)}),
    ("quote_age", {"quote_age_seconds": D(1000)}),
    ("spread", {"spread": D(1)}),
    ("max_open_positions", {"open_positions": 2}),
    ("max_heat", {"heat": D(1000)}),
]


def test_the_first_rule_that_objects_decides() -> None:
    at = replace(CALM, **{name: value for _, wrong in WRONGS for name, value in wrong.items()})
    for rule, wrong in WRONGS:
        verdict = review(buy(), at, ALL)
        assert isinstance(verdict, Veto)
        assert verdict.rule == rule
        at = replace(at, **{name: getattr(CALM, name) for name in wrong})
    assert isinstance(review(buy(), at, ALL), Pass)


@pytest.mark.parametrize(
    "answer", [None, True, Shrink(rule="x", amount=D(101), numbers={}), Shrink(rule="x", amount=NAN, numbers={})]
)
def test_what_a_rule_does_not_explicitly_allow_is_refused(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(proposal: Proposal, at: Exposure, limits: Limits) -> Any:
        return answer

    monkeypatch.setattr(rules, "RULES", (*rules.RULES, silent))
    verdict = review(buy(), CALM, Limits())
    assert isinstance(verdict, Veto)
    assert (verdict.rule, verdict.numbers["by"]) == ("not_allowed", "silent")


def test_a_limit_of_zero_is_off() -> None:
    off = Limits(max_orders_per_hour=0, price_band=0, max_spread=0, max_quote_age_seconds=0)
    wild = replace(
        CALM, orders_last_hour=10_000, price=D(1000), spread=None, quote_age_seconds=None, open_positions=99, day=None
    )
    assert isinstance(review(buy(), wild, off), Pass)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
def test_a_limit_that_is_no_number_is_none(value: float) -> None:
    with pytest.raises(InvalidInput, match="risk limit max_heat"):
        Limits(max_heat=value)


# --- for any order ----------------------------------------------------------------------------------

money = st.decimals("0", "2000", places=2)
exposures = st.builds(
    Exposure,
    mode=st.sampled_from(["active", "active", "active", "reducing", "halted"]),
    equity=st.decimals("1", "2000", places=2) | st.just(NAN),
    cash=money,
    held=st.decimals("0", "100", places=3),
    close=st.decimals("5", "15", places=2),
    price=st.decimals("5", "15", places=2),
    spread=st.none() | st.decimals("-0.1", "0.1", places=3),
    quote_age_seconds=st.none() | st.decimals("0", "120", places=1),
    min_notional=st.just(D(1)),
    orders_last_hour=st.integers(0, 80),
    orders_last_minute=st.integers(0, 8),
    open_positions=st.integers(0, 4),
    heat=st.decimals("0", "60", places=2),
    heat_share=st.decimals("0", "1", places=2),
    day=st.sampled_from([None, CALM.day, CALM.day, LOST, WON]),
)
any_limits = st.builds(
    Limits,
    max_weight=st.floats(0.05, 1),
    max_symbol_notional_usd=st.sampled_from([0.0, 100.0, 500.0]),
    max_heat=st.sampled_from([0.0, 0.02, 0.06]),
    max_open_positions=st.integers(0, 3),
    max_orders_per_hour=st.sampled_from([0, 40]),
    max_orders_per_minute=st.sampled_from([0, 4]),
    max_daily_loss=st.sampled_from([0.0, 0.05]),
    daily_profit_target=st.sampled_from([0.0, 0.03]),
    barriers=st.sampled_from([Barriers(), Barriers.off(), Barriers(stop=0.02)]),
)


def sent(proposal: Proposal, verdict: Verdict) -> Decimal:
    return proposal.amount if isinstance(verdict, Pass) else verdict.amount if isinstance(verdict, Shrink) else D(0)


@given(money, exposures, any_limits)
def test_a_buy_that_passes_breaks_no_limit(notional: Decimal, at: Exposure, limits: Limits) -> None:
    n = sent(buy(str(notional)), review(buy(str(notional)), at, limits))
    if n == 0:
        return
    assert at.mode == "active"
    assert at.min_notional <= n <= at.cash
    assert n + at.held * at.close <= D(str(limits.max_weight)) * at.equity * D("1.00000001")
    assert not limits.max_symbol_notional_usd or n + at.held * at.price <= D(str(limits.max_symbol_notional_usd))
    stop = D(1) if limits.barriers.stop is None else D(str(limits.barriers.stop))
    assert not limits.max_heat or at.heat + stop * n <= D(str(limits.max_heat)) * at.equity * D("1.00000001")
    assert not limits.max_open_positions or at.held > 0 or at.open_positions < limits.max_open_positions
    assert not limits.max_orders_per_hour or at.orders_last_hour < limits.max_orders_per_hour
    assert not limits.max_orders_per_minute or at.orders_last_minute < limits.max_orders_per_minute
    assert at.spread is not None
    assert 0 <= at.spread <= D(str(limits.max_spread))
    assert at.quote_age_seconds is not None
    assert at.quote_age_seconds <= D(str(limits.max_quote_age_seconds))
    assert at.day is None or not at.day.closed_by


@given(st.sampled_from(["buy", "sell"]), st.booleans(), money, exposures, any_limits)
def test_a_shrunk_order_is_smaller_and_passes_as_it_is(
    side: Any, protective: bool, amount: Decimal, at: Exposure, limits: Limits
) -> None:
    proposal = Proposal(symbol="A", side=side, protective=protective, qty=amount, notional=amount)
    verdict = review(proposal, at, limits)
    if isinstance(verdict, Shrink):
        assert D(0) < verdict.amount < amount
        assert isinstance(review(proposal.of(verdict.amount), at, limits), Pass)


@given(st.decimals("0", "100", places=3), exposures, any_limits)
def test_a_protective_sale_is_refused_by_nothing_but_what_it_is(qty: Decimal, at: Exposure, limits: Limits) -> None:
    verdict = review(sell(str(qty), protective=True), at, limits)
    assert sent(sell(str(qty)), verdict) == (min(qty, at.held) if min(qty, at.held) * at.price >= at.min_notional else 0)
