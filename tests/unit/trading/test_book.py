"""Positions and cash from fills, and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvariantViolation
from cappuccino.exchange.venue import fee_taken
from cappuccino.trading.book import Book, Fill, apply, replay
from cappuccino.trading.fees import FeeSchedule
from cappuccino.trading.orders import Execution

D = Decimal
AT = datetime(2024, 1, 1, tzinfo=UTC)
A = "AAA/USD"


def a_fill(
    side: str,
    qty: str,
    price: str,
    *,
    fee: str = "0",
    fee_asset: str = "",
    number: int = 0,
    order: str = "o",
    symbol: str = A,
) -> Fill:
    return Fill(
        execution_id=f"e{number}",
        client_order_id=order,
        symbol=symbol,
        side=side,  # type: ignore[arg-type]
        qty=D(qty),
        price=D(price),
        fee=D(fee),
        fee_asset=fee_asset or (symbol.partition("/")[0] if side == "buy" else "USD"),
        filled_at=AT + timedelta(minutes=number),
    )


def a_book(cash: str = "1000", smallest: str = "0.01") -> Book:
    return Book(cash=D(cash), smallest={A: D(smallest), "BBB/USD": D(smallest)})


def test_the_fee_is_taken_from_the_asset_received() -> None:
    book = apply(a_book(), a_fill("buy", "2", "100", fee="0.005"))
    assert (book.cash, book.qty(A)) == (D(800), D("1.995"))
    book = apply(book, a_fill("sell", "1", "110", fee="0.275"))
    assert (book.cash, book.qty(A)) == (D("909.725"), D("0.995"))


def test_average_entry_weighs_buys_by_quantity_and_sales_leave_it() -> None:
    book = replay(a_book(), [a_fill("buy", "1", "100"), a_fill("buy", "3", "120"), a_fill("sell", "2", "200")])
    assert book.holdings[A].entry == D(115)
    assert book.holdings[A].position_id == "o"


def test_a_trade_is_flat_to_flat_net_of_fees() -> None:
    fills = [
        a_fill("buy", "1", "100", order="in"),
        a_fill("buy", "1", "110"),
        a_fill("sell", "1", "120", fee="1"),
        a_fill("sell", "1", "130", fee="1", number=9),
    ]
    book = replay(a_book(), fills)
    (trade,) = book.trades
    assert trade.profit == D(38)
    assert trade.closed_at == AT + timedelta(minutes=9)
    assert (trade.qty, trade.entry) == (D(2), D(105))
    assert not book.holdings


def test_dust_is_flat_is_still_counted_and_goes_into_the_next_position() -> None:
    book = replay(a_book(), [a_fill("buy", "1", "100"), a_fill("sell", "0.995", "100")])
    assert not book.holdings
    assert book.qty(A) == D("0.005")
    assert book.equity({A: D(100)}) == D(1000)
    book = apply(book, a_fill("buy", "1", "200", order="next"))
    assert book.qty(A) == D("1.005")
    assert book.holdings[A].entry == D(200)
    assert book.holdings[A].position_id == "next"


def test_selling_more_than_is_held_stops_trading() -> None:
    with pytest.raises(InvariantViolation, match="a fill is missing"):
        apply(a_book(), a_fill("sell", "1", "100"))


@pytest.mark.parametrize(("qty", "price", "fee"), [("0", "1", "0"), ("1", "-1", "0"), ("1", "1", "-1")])
def test_numbers_that_cannot_be_are_refused(qty: str, price: str, fee: str) -> None:
    with pytest.raises(InvariantViolation):
        apply(a_book(), a_fill("buy", qty, price, fee=fee))


trades = st.lists(
    st.tuples(
        st.sampled_from([A, "BBB/USD"]), st.booleans(), st.decimals("0.01", "3", places=4), st.decimals("1", "90", places=2)
    ),
    max_size=30,
)


@given(trades)
def test_value_is_conserved_less_fees(trades: list[tuple[str, bool, Decimal, Decimal]]) -> None:
    book, price_of = a_book("100000"), {A: D(1), "BBB/USD": D(1)}
    value_in = D(0)
    for number, (symbol, buy, qty, price) in enumerate(trades):
        if not buy and (symbol not in book.holdings or book.holdings[symbol].qty < qty):
            continue
        before = book.equity(price_of | {symbol: price})
        rate = D("25")
        fee = fee_taken(side="buy" if buy else "sell", qty=qty, price=price, fee_bps=rate, increment=D("0.000000001"))
        fill = a_fill("buy" if buy else "sell", str(qty), str(price), fee=str(fee), number=number, symbol=symbol)
        book = apply(book, fill)
        price_of[symbol] = price
        cost = fee * price if buy else fee
        assert book.equity(price_of) == before - cost
        value_in += cost
        assert all(h.qty >= 0 for h in book.holdings.values())
    assert book.fees == value_in


def an_execution(qty: str = "10", *, days: float = 0, fee: str | None = None) -> Execution:
    at = AT + timedelta(days=days)
    return Execution(execution_id=f"e{days}", qty=D(qty), price=D(10_000), at=at, fee=None if fee is None else D(fee))


def test_the_schedule_follows_the_volume_of_thirty_days() -> None:
    fees = FeeSchedule({A: D("0.000000001")})
    charge = {"client_order_id": "o", "symbol": A, "side": "sell"}
    assert fees.fill(an_execution("10"), **charge).fee == D(250)  # type: ignore[arg-type]
    assert fees.fill(an_execution("10", days=1), **charge).fee == D(220)  # type: ignore[arg-type]  # 100,000 USD before it
    assert fees.fill(an_execution("1", days=32), **charge).fee == D(25)  # type: ignore[arg-type]


def test_a_fee_that_the_venue_says_is_the_fee() -> None:
    fees = FeeSchedule({A: D("0.000000001")})
    fill = fees.fill(an_execution(fee="1.5"), client_order_id="o", symbol=A, side="buy")
    assert (fill.fee, fill.fee_asset) == (D("1.5"), "AAA")


def test_a_fee_in_quote_currency_is_taken_from_cash_and_not_from_the_units() -> None:
    book = apply(a_book(), a_fill("buy", "2", "100", fee="1.5", fee_asset="USD"))
    assert (book.cash, book.qty(A), book.fees, book.volume) == (D("798.5"), D(2), D("1.5"), D(200))
    assert book.holdings[A].entry == D(100)
    sold = apply(book, a_fill("sell", "2", "110", fee="1.65", number=1))
    assert (sold.cash, sold.qty(A), sold.fees) == (D("1016.85"), D(0), D("3.15"))
    assert sold.trades[0].profit == D("16.85")


def test_no_venue_takes_the_fee_of_a_sale_in_units() -> None:
    book = apply(a_book(), a_fill("buy", "2", "100"))
    with pytest.raises(InvariantViolation, match="no venue we know"):
        apply(book, a_fill("sell", "1", "100", fee="0.1", fee_asset="AAA", number=1))


def test_the_venues_word_on_the_fees_asset_counts() -> None:
    told = Execution(execution_id="e", qty=D(1), price=D(100), at=AT, fee=D("0.4"), fee_asset="USD")
    fill = FeeSchedule({A: D("0.001")}).fill(told, client_order_id="o", symbol=A, side="buy")
    assert (fill.fee, fill.fee_asset, fill.fee_in_units) == (D("0.4"), "USD", False)


def test_closed_trades_are_kept_without_copying_and_an_older_book_does_not_see_newer_ones() -> None:
    trip = [a_fill("buy", "1", "100"), a_fill("sell", "1", "110", number=1)]
    first = replay(a_book(), trip)
    second = replay(first, trip)
    assert second.trades._rows is first.trades._rows
    other = replay(first, [a_fill("buy", "1", "100"), a_fill("sell", "1", "90", number=1)])
    assert [t.profit for t in first.trades] == [D(10)]
    assert [t.profit for t in reversed(second.trades)] == [D(10), D(10)]
    assert [t.profit for t in other.trades[-1:]] == [D(-10)]
    assert second.trades == replay(a_book(), trip * 2).trades != first.trades
