"""The life of an order: legal, late, duplicate and illegal reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product

import pytest
from alpaca.trading.enums import OrderStatus, TradeEvent
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvariantViolation
from cappuccino.trading.orders import (
    TERMINAL,
    TRANSITIONS,
    VENUE_EVENTS,
    VENUE_STATES,
    Execution,
    Intent,
    Order,
    OrderState,
    Report,
    execute,
    observe,
    state_of,
)

S = OrderState
AT = datetime(2024, 1, 1, tzinfo=UTC)


def an_order(state: OrderState = S.SUBMITTED, *, qty: str | None = "10", **fields: object) -> Order:
    intent = Intent(
        client_order_id="cap-1",
        account="acc",
        trader_uid="uid",
        decision="d",
        symbol="AAA/USD",
        side="buy",
        reason="target",
        created_at=AT,
        qty=None if qty is None else Decimal(qty),
        notional=Decimal(100) if qty is None else None,
    )
    return Order(intent=intent, state=state, **fields)  # type: ignore[arg-type]


def said(state: OrderState, filled: str | None = None) -> Report:
    return Report(state=state, at=AT, venue_order_id="v1", filled_qty=None if filled is None else Decimal(filled))


def fill(number: int, qty: str = "4", price: str = "7") -> Execution:
    return Execution(execution_id=f"e{number}", qty=Decimal(qty), price=Decimal(price), at=AT + timedelta(seconds=number))


def test_every_state_and_event_of_alpaca_is_mapped() -> None:
    assert set(VENUE_STATES) == {s.value for s in OrderStatus}
    assert len(VENUE_STATES) == 18
    assert set(VENUE_EVENTS) == {e.value for e in TradeEvent}
    assert len(VENUE_EVENTS) == 12


def test_an_event_that_says_nothing_leaves_it_to_the_status() -> None:
    assert state_of("partially_filled", event="restated") is S.PARTIALLY_FILLED
    assert state_of("filled", event="an_event_of_tomorrow") is S.FILLED


def test_a_status_we_do_not_know_stops_trading() -> None:
    with pytest.raises(InvariantViolation, match="hibernating"):
        state_of("hibernating")


def test_every_transition_has_a_reason_and_none_leaves_a_refusal() -> None:
    assert all(TRANSITIONS.values())
    assert {before for before, _ in TRANSITIONS}.isdisjoint({S.REJECTED, S.DENIED, S.FILLED})
    assert {(b, a) for b, a in TRANSITIONS if b in TERMINAL} == {(S.CANCELED, S.FILLED), (S.EXPIRED, S.FILLED)}


@pytest.mark.parametrize(("before", "after"), sorted(TRANSITIONS))
def test_a_legal_report_moves_the_order_and_keeps_why(before: OrderState, after: OrderState) -> None:
    moved = observe(an_order(before), said(after))
    assert moved.state is after
    assert moved.reason == TRANSITIONS[before, after]


ILLEGAL = [
    (b, a)
    for b, a in product(S, S)
    if b is not a
    and (b, a) not in TRANSITIONS
    and (a in TERMINAL or b is S.DENIED or (b is S.INITIALIZED and a not in TERMINAL))
]


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_an_illegal_report_stops_trading_and_names_both_states(before: OrderState, after: OrderState) -> None:
    with pytest.raises(InvariantViolation, match=f"{before} -> {after}"):
        observe(an_order(before, venue_order_id="v1"), said(after))


@pytest.mark.parametrize("end", [S.REJECTED, S.EXPIRED])
def test_an_order_that_we_gave_up_without_an_answer_may_end_at_the_venue_as_it_likes(end: OrderState) -> None:
    given_up = an_order(S.CANCELED)
    after = observe(given_up, said(end))
    assert after.state is S.CANCELED
    assert after.venue_order_id == "v1"


@pytest.mark.parametrize("state", [S.PARTIALLY_FILLED, S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED])
@pytest.mark.parametrize("late", [S.ACCEPTED])
def test_a_late_report_is_absorbed(state: OrderState, late: OrderState) -> None:
    order = an_order(state, venue_order_id="v1")
    assert observe(order, said(late)) is order


def test_a_repeated_report_is_absorbed() -> None:
    order = observe(an_order(), said(S.PARTIALLY_FILLED, "4"))
    assert observe(order, said(S.PARTIALLY_FILLED, "4")) is order
    assert observe(order, said(S.PARTIALLY_FILLED, "3")) is order


def test_an_execution_is_counted_once_by_its_id() -> None:
    order = execute(an_order(S.ACCEPTED), fill(1))
    assert order.filled_qty == 4
    assert order.state is S.PARTIALLY_FILLED
    assert execute(order, fill(1)) is order


def test_the_same_execution_with_other_numbers_stops_trading() -> None:
    order = execute(an_order(S.ACCEPTED), fill(1))
    with pytest.raises(InvariantViolation, match="e1"):
        execute(order, fill(1, qty="5"))


def test_more_than_was_ordered_stops_trading() -> None:
    order = execute(an_order(S.ACCEPTED), fill(1, "9"))
    with pytest.raises(InvariantViolation, match="more than was ordered"):
        execute(order, fill(2, "2"))


def test_a_notional_order_is_bounded_by_what_the_venue_called_filled() -> None:
    order = execute(observe(an_order(qty=None), said(S.FILLED, "4")), fill(1))
    assert order.settled
    with pytest.raises(InvariantViolation, match="more than was ordered"):
        execute(order, fill(2))


@pytest.mark.parametrize("state", [S.REJECTED, S.DENIED, S.INITIALIZED])
def test_a_fill_of_an_order_that_was_never_taken_stops_trading(state: OrderState) -> None:
    with pytest.raises(InvariantViolation):
        execute(an_order(state), fill(1))


def test_a_rejection_that_reports_fills_stops_trading() -> None:
    with pytest.raises(InvariantViolation):
        observe(an_order(), said(S.REJECTED, "1"))


def test_a_terminal_order_is_settled_only_when_its_fills_are_all_known() -> None:
    order = observe(an_order(), said(S.CANCELED, "4"))
    assert order.terminal
    assert not order.settled
    assert execute(order, fill(1)).settled


def test_a_fill_that_raced_a_cancel_counts_and_leaves_it_canceled() -> None:
    order = execute(observe(an_order(S.ACCEPTED), said(S.CANCELED)), fill(1))
    assert order.state is S.CANCELED
    assert order.filled_qty == order.reported_qty == 4


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=6))
def test_any_order_and_repetition_of_events_ends_in_the_same_order(sequence: list[int], repeats: list[int]) -> None:
    """Events of one order: new, fill 4, fill 3, filled 7; delivered in any order, some twice."""
    order = an_order(qty="7", venue_order_id="v1")
    steps = [
        lambda o: observe(o, said(S.ACCEPTED, "0")),
        lambda o: execute(observe(o, said(S.PARTIALLY_FILLED, "4")), fill(1, "4")),
        lambda o: execute(observe(o, said(S.PARTIALLY_FILLED, "7")), fill(2, "3")),
        lambda o: observe(o, said(S.FILLED, "7")),
    ]
    for number in [*sequence, *repeats]:
        order = steps[number](order)
    assert order.settled
    assert order.state is S.FILLED
    assert order.filled_qty == 7


def test_only_protective_reasons_are_exits() -> None:
    intent = an_order().intent
    assert not intent.is_exit
    assert replace(intent, reason="trailing_stop").is_exit
    assert replace(intent, reason="flatten").is_exit
