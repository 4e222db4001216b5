"""What halts an account, what a UTC day is, and what a position risks."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.risk.barriers import Barriers
from cappuccino.risk.breaker import Standing, trip
from cappuccino.risk.day import Day, from_json, to_json, today
from cappuccino.risk.heat import at_risk, at_risk_to_stop
from cappuccino.risk.limits import Limits

D = Decimal
OPEN = Day(number=19_000, opening_equity=D(1000))
LOST = replace(OPEN, closed_by="daily_loss", closed_equity=D(940))
CALM = Standing(equity=D(1000), baseline=D(1000), day_before=OPEN, day=OPEN)
LIMITS = Limits(max_consecutive_losses=3, max_daily_loss=0.05, daily_loss_halts=True)

# what differs from a calm account, what the reason says
TRIPS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"equity": D(801)}, ""),
    ({"equity": D(800)}, "drawdown 0.2000 of the baseline 1000 reached the limit 0.2 (equity 800.00)"),
    ({"equity": D(800), "baseline": D(0)}, ""),
    ({"equity": D(940), "day": LOST}, "daily loss 0.0600 of 1000.00"),
    ({"equity": D(940), "day": LOST, "day_before": LOST}, ""),  # it has tripped before, and was lifted
    ({"losing_trades": 2}, ""),
    ({"losing_trades": 3}, "3 losing trades in a row reached the limit 3"),
    ({"rejected_orders": 9}, ""),
    ({"rejected_orders": 10}, "10 orders in a row were rejected by the venue: the limit is 10"),
    ({"failed_decisions": 2}, ""),
    ({"failed_decisions": 3, "failure": "ValueError: x"}, "failed on 3 decisions in a row: the limit is 3 (ValueError: x)"),
]


@pytest.mark.parametrize(("standing", "said"), TRIPS)
def test_a_row_per_cause(standing: dict[str, Any], said: str) -> None:
    reason = trip(replace(CALM, **standing), LIMITS)
    assert said in (reason or "")
    assert bool(reason) == bool(said)


def test_a_limit_of_zero_trips_nothing() -> None:
    off = Limits(max_drawdown=0, max_consecutive_losses=0, max_rejected_orders=0, max_failed_decisions=0)
    worst = Standing(
        equity=D(1), baseline=D(1000), day_before=OPEN, day=LOST, losing_trades=99, rejected_orders=99, failed_decisions=99
    )
    assert trip(worst, off) is None


NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def test_a_day_keeps_its_opening_equity_and_what_closed_it_until_midnight_utc() -> None:
    limits = Limits(max_daily_loss=0.05, daily_profit_target=0.1)
    day = today(None, now=NOON, equity=D(1000), limits=limits)
    assert (day.opening_equity, day.closed_by) == (D(1000), "")
    assert today(day, now=NOON, equity=D("950.01"), limits=limits) is day
    lost = today(day, now=NOON, equity=D(950), limits=limits)
    assert (lost.closed_by, lost.closed_equity) == ("daily_loss", D(950))
    assert today(lost, now=NOON, equity=D(2000), limits=limits) is lost  # it stays closed
    late = NOON.replace(hour=23, minute=59, second=59)
    assert today(lost, now=late, equity=D(2000), limits=limits) is lost
    assert today(lost, now=late + timedelta(seconds=1), equity=D(2000), limits=limits).opening_equity == D(2000)
    assert today(day, now=NOON, equity=D(1100), limits=limits).closed_by == "daily_profit_target"
    assert today(lost, now=NOON - timedelta(days=1), equity=D(1), limits=limits) is lost  # a clock that jumps back


def test_a_day_survives_its_stored_form() -> None:
    for day in (OPEN, LOST):
        assert from_json(json.loads(json.dumps(to_json(day)))) == day


def test_risk_is_measured_to_the_level_that_sells() -> None:
    barriers = Barriers(stop=0.1, trail=0.02, trail_arms_at=0.05)
    position = {"qty": D(5), "price": D(110), "entry": D(100), "barriers": barriers}
    assert at_risk(**position, peak=D(104)) == 5 * (110 - 90)  # the stop
    assert at_risk(**position, peak=D(110)) == 5 * (D(110) - D("107.8"))  # the armed trail
    assert at_risk_to_stop(**position) == 100
    assert at_risk(**{**position, "barriers": Barriers.off()}, peak=D(110)) == 550  # all of it
    assert at_risk(**{**position, "price": D(80)}, peak=D(100)) == 0  # about to be sold


prices = st.decimals("1", "200", places=2)


@given(prices, prices, prices, st.decimals("0.01", "50", places=2), st.decimals("1", "5000", places=2))
def test_a_buy_never_adds_more_risk_than_its_share_to_the_stop(
    entry: Decimal, peak: Decimal, price: Decimal, qty: Decimal, notional: Decimal
) -> None:
    barriers = Barriers(stop=0.1, trail=0.015, trail_arms_at=0.015)
    peak = max(peak, entry, price)
    before = at_risk_to_stop(qty=qty, price=price, entry=entry, barriers=barriers)
    bought = notional / price
    mixed = (entry * qty + price * bought) / (qty + bought)
    after = at_risk(qty=qty + bought, price=price, entry=mixed, peak=peak, barriers=barriers)
    assert after <= before + D("0.1") * notional + D("1e-6")
