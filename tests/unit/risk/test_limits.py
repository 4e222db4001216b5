"""Review of every order: a row per rule."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.risk.limits import Exposure, Limits, Pass, Proposal, Shrink, Veto, drawdown_breach, review

D = Decimal
CALM = Exposure(
    mode="active",
    equity=D(1000),
    cash=D(1000),
    held=D(0),
    close=D(10),
    price=D(10),
    min_notional=D(1),
    orders_last_hour=0,
)


def buy(notional: str = "100") -> Proposal:
    return Proposal(symbol="A", side="buy", protective=False, notional=D(notional))


def sell(qty: str = "5", *, protective: bool = False) -> Proposal:
    return Proposal(symbol="A", side="sell", protective=protective, qty=D(qty))


# proposal, what differs from a calm market, verdict, rule, amount
ROWS = [
    (buy(), {}, Pass, "", None),
    (buy("300"), {}, Pass, "", None),
    (buy(), {"mode": "halted"}, Veto, "halted", None),
    (buy(), {"mode": "reducing"}, Veto, "halted", None),
    (sell(), {"mode": "reducing", "held": D(5)}, Pass, "", None),
    (sell(), {"mode": "halted", "held": D(5)}, Veto, "halted", None),
    (sell(protective=True), {"mode": "halted", "held": D(5)}, Pass, "", None),
    (buy(), {"orders_last_hour": 60}, Veto, "order_rate", None),
    (sell(), {"orders_last_hour": 60, "held": D(5)}, Veto, "order_rate", None),
    (sell(protective=True), {"orders_last_hour": 60, "held": D(5)}, Pass, "", None),
    (buy(), {"price": D(0)}, Veto, "price", None),
    (buy(), {"price": D("NaN")}, Veto, "price", None),
    (buy(), {"price": D("15.1")}, Veto, "price", None),
    (buy(), {"price": D("4.9")}, Veto, "price", None),
    (sell(protective=True), {"price": D(1), "held": D(5)}, Pass, "", None),
    (sell(protective=True), {"price": D(0), "held": D(5)}, Veto, "price", None),
    (sell("9"), {"held": D(5)}, Shrink, "held", D(5)),
    (sell(), {}, Veto, "min_notional", None),
    (buy("400"), {}, Shrink, "max_weight", D("300.0000003")),
    (buy("100"), {"held": D(25)}, Shrink, "max_weight", D("50.0000003")),
    (buy("100"), {"held": D(40)}, Veto, "max_weight", None),
    (buy("100"), {"cash": D(60)}, Shrink, "cash", D(60)),
    (buy("0.99"), {}, Veto, "min_notional", None),
    (sell("0.05"), {"held": D(5)}, Veto, "min_notional", None),
]


@pytest.mark.parametrize(("proposal", "market", "verdict", "rule", "amount"), ROWS)
def test_a_row_per_rule(
    proposal: Proposal, market: dict[str, object], verdict: type, rule: str, amount: Decimal | None
) -> None:
    found = review(proposal, replace(CALM, **market), Limits())  # type: ignore[arg-type]
    assert type(found) is verdict
    if not isinstance(found, Pass):
        assert found.rule == rule
        assert found.numbers
    if isinstance(found, Shrink):
        assert found.amount == amount


def test_a_limit_of_zero_is_off() -> None:
    limits = Limits(max_orders_per_hour=0, max_drawdown=0)
    assert isinstance(review(buy(), replace(CALM, orders_last_hour=10_000), limits), Pass)
    assert drawdown_breach(D(1), D(1000), limits) is None


def test_drawdown_counts_from_the_baseline() -> None:
    assert drawdown_breach(D(801), D(1000), Limits()) is None
    reason = drawdown_breach(D(800), D(1000), Limits())
    assert reason is not None
    assert "0.2000 of the baseline 1000" in reason


@given(
    st.decimals("0", "2000", places=2),
    st.decimals("0", "100", places=2),
    st.decimals("0", "2000", places=2),
    st.decimals("5", "15", places=2),
)
def test_what_passes_never_exceeds_weight_cash_or_holding(
    notional: Decimal, held: Decimal, cash: Decimal, price: Decimal
) -> None:
    exposure = replace(CALM, held=held, cash=cash, price=price)
    verdict = review(buy(str(notional)), exposure, Limits())
    sent = notional if isinstance(verdict, Pass) else verdict.amount if isinstance(verdict, Shrink) else D(0)
    assert sent <= cash
    assert sent == 0 or held * CALM.close + sent <= D("300.000001")
    verdict = review(sell(str(notional), protective=True), exposure, Limits())
    sold = notional if isinstance(verdict, Pass) else verdict.amount if isinstance(verdict, Shrink) else D(0)
    assert sold <= held
