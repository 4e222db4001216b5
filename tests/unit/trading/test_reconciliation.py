"""The venue's truth against the journal."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from cappuccino.trading.book import Book, apply
from cappuccino.trading.orders import Execution, OrderState
from cappuccino.trading.ports import VenueFill, VenueOrder
from cappuccino.trading.reconciliation import compare, match

from .test_book import AT, A, a_book, a_fill
from .test_orders import an_order

D = Decimal


def a_venue_fill(number: int = 1, *, order: str = "v1", client: str | None = None) -> VenueFill:
    return VenueFill(
        execution=Execution(execution_id=f"e{number}", qty=D(1), price=D(100), at=AT + timedelta(seconds=-number)),
        venue_order_id=order,
        symbol=A,
        side="buy",
        client_order_id=client,
    )


def a_venue_order(client: str) -> VenueOrder:
    return VenueOrder(
        client_order_id=client, venue_order_id=f"v-{client}", symbol=A, side="buy", status="new", filled_qty=D(0), at=AT
    )


def pair(**told: object) -> object:
    arguments = {
        "open_orders": [],
        "fills": [],
        "known_executions": set(),
        "ids_by_venue_id": {"v1": "cap-1"},
        "adoptable": set(),
        **told,
    }
    return match({"cap-1": an_order(OrderState.ACCEPTED)}, **arguments)  # type: ignore[arg-type]


def test_missed_fills_of_ours_are_adopted_oldest_first_and_known_ones_are_not() -> None:
    found = pair(fills=[a_venue_fill(1), a_venue_fill(2), a_venue_fill(3)], known_executions={"e2"})
    assert [f.execution.execution_id for f in found.fills] == ["e3", "e1"]  # type: ignore[attr-defined]
    assert {f.client_order_id for f in found.fills} == {"cap-1"}  # type: ignore[attr-defined]


def test_open_orders_that_the_journal_lacks_are_orphans() -> None:
    found = pair(open_orders=[a_venue_order("cap-1"), a_venue_order("by-hand")])
    assert [o.client_order_id for o in found.orphans] == ["by-hand"]  # type: ignore[attr-defined]


def test_an_exit_sent_without_the_journal_is_recognised_by_its_id() -> None:
    found = pair(fills=[a_venue_fill(order="v2")], ids_by_venue_id={"v2": "exit"}, adoptable={"exit"})
    assert found.unjournalled == ("exit",)  # type: ignore[attr-defined]
    assert not found.foreign  # type: ignore[attr-defined]


def test_a_fill_of_somebody_elses_order_is_foreign() -> None:
    found = pair(fills=[a_venue_fill(order="v9"), a_venue_fill(2, client="by-hand")])
    assert len(found.foreign) == 2  # type: ignore[attr-defined]


def held(qty: str = "1.9975", cash: str = "800") -> Book:
    book = apply(a_book(), a_fill("buy", "2", "100", fee="0.0025"))
    assert (str(book.qty(A)), str(book.cash)) == (qty, cash)
    return book


def test_equal_balances_have_no_difference() -> None:
    assert compare(held(), positions={A: D("1.9975")}, cash=D(800)) == ()
    assert compare(held(), positions={A: D("1.9975")}, cash=D("800.004")) == ()  # below a cent


def test_one_increment_is_a_difference_and_nothing_explains_it() -> None:
    (difference,) = compare(held(), positions={A: D("1.997500001")}, cash=D(800))
    assert not difference.explained
    assert str(difference) == "AAA/USD: journal 1.9975, venue 1.997500001"


def test_a_position_that_the_venue_does_not_have_is_a_difference() -> None:
    (difference,) = compare(held(), positions={}, cash=D(800))
    assert difference.venue == 0
    assert not difference.explained


def test_a_position_that_the_book_does_not_have_is_a_difference() -> None:
    assert [d.what for d in compare(a_book(), positions={"ZZZ/USD": D(1)}, cash=D(1000))] == ["ZZZ/USD"]


def test_fees_posted_at_the_end_of_the_day_explain_a_surplus_but_no_deficit() -> None:
    fills = [a_fill("buy", "2", "100", fee="0.0025")]
    late = {"recent": fills, "now": AT + timedelta(hours=5)}
    (surplus,) = compare(held(), positions={A: D(2)}, cash=D(800), **late)  # type: ignore[arg-type]
    assert surplus.explained
    (more,) = compare(held(), positions={A: D("2.0001")}, cash=D(800), **late)  # type: ignore[arg-type]
    assert not more.explained
    (deficit,) = compare(held(), positions={A: D("1.99")}, cash=D(800), **late)  # type: ignore[arg-type]
    assert not deficit.explained
    (day_after,) = compare(held(), positions={A: D(2)}, cash=D(800), recent=fills, now=AT + timedelta(hours=25))
    assert not day_after.explained
