"""What the exchange does with orders, one rule a test."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cappuccino.core.errors import InvariantViolation
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.commands import Cancel, Join, OpenAccount
from cappuccino.exchange.orders import Refused, parse_request
from cappuccino.exchange.venue import ALPACA_FEE_TIERS

from .builders import Candle, advance, exchange, flat, submit, terms

PATH: dict[str, list[Candle]] = {"BTC/USD": [(100, 104, 96, 101), (101, 105, 97, 102)]}  # ticks 100 96 104 101 | 101 97 105 102


def kinds(outcome: Any) -> list[str]:
    return [event.kind for event in outcome.events]


def cancel(venue: Any, order_id: str) -> Any:
    return venue.apply(Cancel(account="a", order_id=order_id))


def test_a_market_buy_fills_at_once_above_the_quote_and_pays_its_fee_in_coins() -> None:
    venue = exchange()
    outcome = submit(venue, qty="2")
    assert kinds(outcome) == ["new", "fill"]
    fill = outcome.events[1].fill
    assert (fill.price, fill.fee, fill.fee_asset, fill.liquidity) == (Decimal("100.1"), Decimal("0.005"), "BTC", "taker")
    account = venue.account("a")
    assert account.cash == Decimal("9799.8")
    assert account.positions["BTC/USD"].qty == Decimal("1.995")
    assert outcome.events[1].position_qty == Decimal("1.995")


def test_a_market_sale_fills_below_the_quote_and_pays_its_fee_in_money() -> None:
    venue = exchange()
    submit(venue, qty="2")
    cash = venue.account("a").cash
    fill = submit(venue, side="sell", qty="1").events[1].fill
    assert (fill.price, fill.fee, fill.fee_asset) == (Decimal("99.9"), Decimal("0.24975"), "USD")
    assert venue.account("a").cash == cash + Decimal("99.65025")


def test_a_notional_buy_never_costs_more_than_its_notional() -> None:
    venue = exchange()
    outcome = submit(venue, notional="1000")
    assert outcome.order.status == "filled"
    spent = 10_000 - venue.account("a").cash
    assert Decimal("999.9999") < spent <= 1000
    assert outcome.order.filled_qty % Decimal("0.000000001") == 0


def test_the_bought_quantity_cannot_be_sold_whole_since_the_fee_was_taken_from_it() -> None:
    venue = exchange()
    submit(venue, qty="2")
    with pytest.raises(Refused) as refused:
        submit(venue, side="sell", qty="2")
    assert refused.value.reason == "insufficient_balance"
    assert refused.value.details == {"available": "1.995", "balance": "1.995", "symbol": "BTC"}
    submit(venue, side="sell", qty="1.995")
    assert venue.account("a").positions == {}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"qty": "200"}, "insufficient_balance"),
        ({"notional": "10000.01"}, "insufficient_balance"),
        ({"qty": "101", "limit_price": "100"}, "insufficient_balance"),
        ({"side": "sell"}, "insufficient_balance"),
        ({"qty": "0.009"}, "below_minimum"),
        ({"qty": "0.01", "limit_price": "50"}, "below_minimum"),
        ({"notional": "0.5"}, "below_minimum"),
        ({"symbol": "DOGE/USD"}, "unknown_symbol"),
        ({"qty": "1.0000000001"}, "invalid"),
        ({"limit_price": "100.00001"}, "invalid"),
        ({"qty": "1", "notional": "5"}, "invalid"),
        ({"qty": "1", "type": "limit"}, "invalid"),
        ({"qty": "1", "type": "market", "limit_price": "99"}, "invalid"),
        ({"qty": "1", "type": "stop_limit", "limit_price": "99"}, "invalid"),
        ({"notional": "5", "limit_price": "99"}, "invalid"),
    ],
)
def test_what_the_venue_refuses_changes_nothing(fields: dict[str, Any], reason: str) -> None:
    venue = exchange()
    with pytest.raises(Refused) as refused:
        submit(venue, **fields)
    assert refused.value.reason == reason
    account = venue.account("a")
    assert (account.cash, account.reserved_cash, account.orders) == (Decimal(10_000), 0, {})


def test_a_client_order_id_is_taken_once_even_after_its_order_is_over() -> None:
    venue = exchange(accounts=("a", "b"))
    submit(venue, client_order_id="x")
    with pytest.raises(Refused, match="client_order_id must be unique"):
        submit(venue, client_order_id="x", side="sell")
    submit(venue, account="b", client_order_id="x")


def test_a_resting_buy_holds_back_its_cash_until_it_is_canceled() -> None:
    venue = exchange()
    outcome = submit(venue, qty="90", limit_price="99")
    assert kinds(outcome) == ["new"]
    with pytest.raises(Refused, match="insufficient balance for USD"):
        submit(venue, qty="20")
    assert kinds(cancel(venue, outcome.order.id)) == ["canceled"]
    assert venue.account("a").available_cash == 10_000
    with pytest.raises(Refused, match="canceled"):
        cancel(venue, outcome.order.id)


def test_a_resting_sale_holds_back_its_units() -> None:
    venue = exchange()
    submit(venue, qty="2")
    submit(venue, side="sell", qty="1.5", limit_price="120")
    with pytest.raises(Refused, match="insufficient balance for BTC"):
        submit(venue, side="sell", qty="0.5")
    submit(venue, side="sell", qty="0.495")


def test_a_resting_limit_fills_at_its_limit_when_the_price_touches_it_as_maker() -> None:
    venue = exchange(PATH)
    submit(venue, limit_price="97", qty="2")
    fill = advance(venue).events[0].fill
    assert (fill.price, fill.liquidity, fill.qty) == (Decimal(97), "maker", 2)


def test_a_limit_that_crosses_on_arrival_takes_the_quote_but_never_beyond_its_limit() -> None:
    venue = exchange()
    assert submit(venue, limit_price="105").events[1].fill.price == Decimal("100.1")
    assert submit(venue, limit_price="100.05").events[1].fill.price == Decimal("100.05")


def test_limit_orders_fill_in_parts_from_the_ticks_liquidity() -> None:
    venue = exchange(PATH, volume=80.0, charges=terms(liquidity_share=Decimal("0.1")))  # four ticks: two units each
    outcome = submit(venue, limit_price="104", qty="5")
    assert kinds(outcome) == ["new", "partial_fill"]
    again = submit(venue, limit_price="104", qty="1")
    assert kinds(again) == ["new"], "the tick's liquidity is gone"
    first, second = advance(venue), advance(venue)
    assert [event.fill.qty for event in (*first.events, *second.events)] == [2, 1, 1]
    assert venue.account("a").order(outcome.order.id).status == "filled"
    assert venue.account("a").order(again.order.id).status == "filled"


def test_an_account_does_not_feel_the_others() -> None:
    alone = exchange(PATH, volume=80.0)
    crowded = exchange(PATH, volume=80.0, accounts=("b", "a"))
    submit(crowded, account="b", limit_price="104", qty="50")
    for venue in (alone, crowded):
        submit(venue, limit_price="104", qty="5")
        advance(venue, 3)
    assert alone.account("a").fills == crowded.account("a").fills


def test_ioc_takes_what_is_there_and_cancels_the_rest() -> None:
    venue = exchange(volume=80.0)
    outcome = submit(venue, limit_price="104", qty="5", time_in_force="ioc")
    assert kinds(outcome) == ["new", "partial_fill", "canceled"]
    assert outcome.order.filled_qty == 2
    assert venue.account("a").reserved_cash == 0
    missed = submit(venue, limit_price="90", qty="5", time_in_force="ioc")
    assert kinds(missed) == ["new", "canceled"]


def test_a_participation_cap_spreads_a_market_order_over_ticks() -> None:
    venue = exchange(PATH, volume=80.0, charges=terms(participation_cap=Decimal("0.1")))
    outcome = submit(venue, qty="5")
    assert kinds(outcome) == ["new", "partial_fill"]
    advance(venue, 2)
    assert [(fill.qty, fill.price) for fill in venue.account("a").fills] == [
        (2, Decimal("100.1")),
        (2, Decimal("96.096")),
        (1, Decimal("104.104")),
    ]


def test_a_market_order_that_the_price_outran_is_canceled_with_what_it_has() -> None:
    venue = exchange(
        {"BTC/USD": [(100, 200, 100, 200)]}, volume=20.0, charges=terms(participation_cap=Decimal(1)), capital="1502"
    )
    outcome = submit(venue, qty="15")  # five units a tick: ten at 100.1, then cash for two and a half at 200.2
    advance(venue, 2)
    account = venue.account("a")
    assert [fill.price for fill in account.fills] == [Decimal("100.1"), Decimal("100.1"), Decimal("200.2")]
    assert account.order(outcome.order.id).status == "canceled"
    assert 0 <= account.cash < Decimal("0.000001")
    assert account.reserved_cash == 0


@pytest.mark.parametrize(
    ("side", "stop", "limit", "price"),
    [
        ("sell", "97", "95", "95.904"),
        ("sell", "97", "96.5", None),
        ("buy", "103", "105", "104.104"),
        ("buy", "103", "103.5", "103.5"),
    ],
)
def test_a_stop_limit_becomes_a_limit_order_when_its_stop_is_reached(
    side: str, stop: str, limit: str, price: str | None
) -> None:
    venue = exchange(PATH)
    submit(venue, qty="10")
    stop_order = submit(venue, side=side, qty="5", type="stop_limit", stop_price=stop, limit_price=limit)
    assert kinds(stop_order) == ["new"]
    advance(venue)
    if side == "buy":
        assert venue.account("a").order(stop_order.order.id).status == "new"
        advance(venue, 1)
    fills = venue.account("a").fills[1:]
    if price is None:  # the market was below the limit when the stop was reached; it rests, and is filled as maker later
        assert fills == []
        advance(venue)
        fills = venue.account("a").fills[1:]
        assert (fills[0].price, fills[0].liquidity) == (Decimal(limit), "maker")
    elif (side, limit) == ("buy", "103.5"):  # 104 is beyond the limit: it rests until the price comes back
        assert fills == []
        advance(venue)
        assert venue.account("a").fills[1].price == Decimal("103.5")
    else:
        assert (fills[0].price, fills[0].liquidity) == (Decimal(price), "taker")


def test_a_halted_symbol_fills_nothing_until_it_trades_again() -> None:
    venue = exchange({"BTC/USD": [(100, 100, 100, 100), None, (120, 120, 120, 120)], "ETH/USD": flat(50)})
    resting = submit(venue, limit_price="90")
    advance(venue, 4)
    assert venue.quote("BTC/USD").halted
    assert kinds(submit(venue, time_in_force="ioc")) == ["new", "canceled"]
    waiting = submit(venue, qty="1")
    assert kinds(waiting) == ["new"]
    assert kinds(submit(venue, symbol="ETH/USD")) == ["new", "fill"]
    advance(venue, 4)
    assert venue.account("a").order(waiting.order.id).filled_value == Decimal("120.12")
    assert venue.account("a").order(resting.order.id).status == "new"


def test_a_symbol_without_a_first_bar_cannot_be_ordered() -> None:
    venue = exchange({"BTC/USD": [None, (100, 100, 100, 100)], "ETH/USD": flat(50, 2)})
    with pytest.raises(Refused, match="no quote"):
        submit(venue)


def test_the_fee_falls_with_the_volume_of_thirty_days_and_rises_again() -> None:
    day = Timeframe(86_400)
    venue = exchange({"BTC/USD": flat(count=40)}, charges=terms(fee_tiers=ALPACA_FEE_TIERS), capital="1000000", timeframe=day)
    first = submit(venue, qty="1000").events[1].fill
    assert first.fee == Decimal("2.5")
    assert submit(venue, qty="10").events[1].fill.fee == Decimal("0.022"), "100,100 USD were traded"
    advance(venue, 4 * 31)
    assert submit(venue, qty="10").events[1].fill.fee == Decimal("0.025")


def test_a_maker_pays_the_makers_fee() -> None:
    venue = exchange(PATH, charges=terms(fee_tiers=ALPACA_FEE_TIERS))
    assert submit(venue, qty="1").events[1].fill.fee == Decimal("0.0025")
    submit(venue, qty="1", limit_price="97")
    assert advance(venue).events[0].fill.fee == Decimal("0.0015")


def test_a_stop_is_not_reached_by_the_stale_price_of_a_halted_symbol() -> None:
    venue = exchange({"BTC/USD": [(100, 100, 90, 90), None, (100, 100, 100, 100)]})
    submit(venue, qty="2")
    advance(venue, 4)
    stop = submit(venue, side="sell", qty="1", type="stop_limit", stop_price="95", limit_price="94")
    advance(venue, 4)
    assert not venue.account("a").order(stop.order.id).triggered
    assert len(venue.account("a").fills) == 1


def test_a_fill_that_would_overdraw_is_an_invariant_violation() -> None:
    venue = exchange()
    account = venue.account("a")
    fill = submit(venue, qty="50").events[1].fill
    with pytest.raises(InvariantViolation, match="leaves cash"):
        account.settle(fill)


def test_the_average_entry_follows_buys_and_not_sales() -> None:
    venue = exchange({"BTC/USD": [(100, 100, 100, 100), (200, 200, 200, 200)]}, charges=terms(slippage_bps=Decimal(0)))
    submit(venue, qty="10")
    advance(venue, 4)
    submit(venue, qty="10")
    assert venue.account("a").positions["BTC/USD"].average_entry == 150
    submit(venue, side="sell", qty="5")
    assert venue.account("a").positions["BTC/USD"].average_entry == 150


def test_last_equity_is_taken_at_midnight() -> None:
    venue = exchange({"BTC/USD": [(100, 100, 100, 100)] * 20 + [(200, 200, 200, 200)] * 10})
    submit(venue, qty="10")
    advance(venue, 4 * 24)
    account = venue.account("a")
    assert account.last_equity == venue.equity(account) == account.cash + account.positions["BTC/USD"].qty * 200


def test_submission_times_are_distinct_within_a_tick() -> None:
    venue = exchange()
    times = [submit(venue).order.submitted_us for _ in range(3)]
    assert times == [venue.tick.at_us, venue.tick.at_us + 1, venue.tick.at_us + 2]


def test_the_tape_ends_after_its_last_tick() -> None:
    venue = exchange(PATH)
    advance(venue, 8)
    assert (venue.tick.bar_closed, venue.ended) == (True, False)
    advance(venue)
    assert venue.ended


@pytest.mark.parametrize(("name", "capital"), [("", "1"), ("../x", "1"), ("a", "1"), ("b", "0"), ("b", "NaN")])
def test_accounts_that_make_no_sense_are_refused(name: str, capital: str) -> None:
    venue = exchange()
    with pytest.raises(Refused):
        venue.apply(OpenAccount(name=name, capital_usd=Decimal(capital), key_id="k", secret_key="s"))
    with pytest.raises(Refused):
        venue.apply(Join(account="nobody"))


@pytest.mark.parametrize(
    "fields",
    [
        {"side": "short"},
        {"type": "trailing_stop"},
        {"time_in_force": "day"},
        {"qty": "abc"},
        {"qty": "-1"},
        {"qty": True},
        {"qty": "NaN"},
        {"symbol": ""},
        {"order_class": "bracket"},
        {"client_order_id": "x" * 129},
    ],
)
def test_request_fields_that_alpaca_does_not_know_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        parse_request({"symbol": "BTC/USD", "side": "buy", "qty": "1", **fields})


def test_a_notional_with_its_fee_is_filled_whole_however_the_fee_is_rounded() -> None:
    venue = exchange({"BTC/USD": flat(2.0)}, coinbase=("a",), capital="100000")
    for cents in range(2000, 2300):
        outcome = submit(venue, notional=f"{cents / 100:.2f}")
        assert outcome.order is not None
        assert outcome.order.status == "filled", cents
