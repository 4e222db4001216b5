"""A step of capital sees its share of the account, and nothing of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from cappuccino.core.errors import IntegrityError, InvalidInput, RetryLater
from cappuccino.exchange.commands import Advance, Submit
from cappuccino.exchange.orders import OrderRequest
from cappuccino.trading.allotment import AllottedBroker
from cappuccino.trading.ports import VenueAccount

from .builders import ACCOUNT, SYMBOLS, T0, Script, Trader, Venue, make_bars

D = Decimal
A, B = SYMBOLS


class Kept:
    """As the record keeps a reserve, in cash and in units: the first value stands."""

    value: Decimal | None = None
    held: Mapping[str, Decimal] | None = None

    def __call__(self, usd: Decimal) -> Decimal:
        self.value = usd if self.value is None else self.value
        return self.value

    def units(self, held: Mapping[str, Decimal] | None) -> Mapping[str, Decimal] | None:
        self.held = held if self.held is None else self.held
        return self.held


def allotted(
    cash: str,
    kept: Kept,
    *,
    capital: str = "1000",
    units: Mapping[str, Decimal] | None = None,
    filled_hours_ago: float | None = None,
    fees_posted_later: bool = False,
) -> tuple[AllottedBroker, Any]:
    filled = [] if filled_hours_ago is None else [T0 - timedelta(hours=filled_hours_ago)]
    venue: Any = SimpleNamespace(cash=D(cash), units=units or {})
    venue.account = lambda: VenueAccount(cash_usd=venue.cash, blocked=False)
    venue.positions = lambda: venue.units
    venue.now = lambda: T0
    venue.fills_since = lambda at: [SimpleNamespace(execution=SimpleNamespace(at=each)) for each in filled if each >= at]
    broker = AllottedBroker(venue, capital_usd=D(capital), reserve=kept, units=kept.units, fees_posted_later=fees_posted_later)
    return broker, venue


def test_the_trader_has_its_capital_and_what_becomes_of_it() -> None:
    kept = Kept()
    broker, venue = allotted("98765.43", kept)
    assert broker.account().cash_usd == D("1000")
    venue.cash -= D("250.01")
    assert broker.account().cash_usd == D("749.99")
    again, _ = allotted(str(venue.cash), kept)  # after a restart
    assert again.account().cash_usd == D("749.99")
    assert kept.value == D("97765.43")


def test_an_account_with_less_cash_than_the_capital_is_refused() -> None:
    broker, _ = allotted("999.99", Kept())
    with pytest.raises(InvalidInput, match=r"began with 999.99 USD in cash, this step trades 1000"):
        broker.account()


def test_a_blocked_account_stays_blocked() -> None:
    broker, venue = allotted("5000", Kept())
    venue.account = lambda: VenueAccount(cash_usd=D(5000), blocked=True)
    assert broker.account().blocked


def test_units_that_were_there_before_are_not_the_traders() -> None:
    kept = Kept()
    broker, venue = allotted("1000", kept, units={A: D("0.000009"), "ZZZ/USD": D(7)})
    assert broker.positions() == {}
    venue.units = {A: D("1.500009"), "ZZZ/USD": D(7), B: D(2)}
    assert broker.positions() == {A: D("1.5"), B: D(2)}
    again, _ = allotted("1000", kept, units=venue.units)  # after a restart
    assert again.positions() == {A: D("1.5"), B: D(2)}
    venue.units = {A: D("1.500009"), B: D(2)}
    assert broker.positions()["ZZZ/USD"] == -7  # which the trader's book does not have


@pytest.mark.parametrize(("hours", "waits"), [(23.9, True), (24.1, False), (None, False)])
def test_the_first_look_waits_for_the_fees_of_an_earlier_step(hours: float | None, waits: bool) -> None:
    kept = Kept()
    broker, _ = allotted("5000", kept, filled_hours_ago=hours, fees_posted_later=True)
    if waits:
        for look in (broker.account, broker.positions):
            with pytest.raises(RetryLater, match="known from 2024-01-01T00:06:00Z on"):
                look()
        assert (kept.value, kept.held) == (None, None)
    else:
        assert broker.account().cash_usd == 1000
    at_once, _ = allotted("5000", Kept(), filled_hours_ago=hours)  # a venue that takes fees with fills
    assert at_once.account().cash_usd == 1000


def test_fills_of_the_last_moments_would_be_foreign_and_are_waited_out() -> None:
    broker, _ = allotted("5000", Kept(), filled_hours_ago=1 / 60)
    with pytest.raises(RetryLater, match="known from 2024-01-01T00:01:00Z on"):
        broker.account()


def test_its_own_fills_keep_no_trader_from_starting_again() -> None:
    kept = Kept()
    allotted("5000", kept, fees_posted_later=True)[0].account()
    again, _ = allotted("4000", kept, filled_hours_ago=1, fees_posted_later=True)
    assert again.account().cash_usd == 0


def on_a_used_account(kept: Kept) -> Trader:
    """Its venue account holds dust of A and a lot of B, bought by others an hour before."""
    venue = Venue.over(make_bars(), capital="20000")
    for symbol, qty in ((A, "0.02"), (B, "1.5")):
        request = OrderRequest(
            symbol=symbol, side="buy", type="market", time_in_force="gtc", qty=D(qty), notional=None, client_order_id=symbol
        )
        venue.exchange.apply(Submit(account=ACCOUNT, request=request))
    venue.exchange.apply(Advance())
    before = SimpleNamespace(
        account=venue.account, positions=venue.positions, now=venue.now, fills_since=venue.fills_since, kept=kept
    )
    share = AllottedBroker(
        before,
        capital_usd=D(10_000),
        reserve=kept,
        units=kept.units,
        fees_posted_later=False,  # type: ignore[arg-type]
    )
    venue.account, venue.positions = share.account, share.positions  # type: ignore[method-assign]
    return Trader(venue=venue, strategy=Script({0: {A: 0.3}, 3: {A: 0.0}, 5: {A: 0.3, B: 0.3}, 8: {A: 0.0, B: 0.0}}))


def test_a_step_on_an_account_that_is_not_empty_trades_its_own_and_leaves_the_rest() -> None:
    kept = Kept()
    trader = on_a_used_account(kept)
    units = {symbol: held.qty for symbol, held in trader.venue.account_book.positions.items()}
    assert len(units) == 2
    assert trader.run().finished
    assert kept.held == units
    assert len(trader.ledger.fills) >= 6
    left = {symbol: held.qty for symbol, held in trader.venue.account_book.positions.items()}
    assert all(0 <= left[symbol] - qty < D("0.001") for symbol, qty in units.items())  # its own dust is all that came to it


def test_units_that_a_person_sells_are_a_difference() -> None:
    kept = Kept()
    trader = on_a_used_account(kept)
    kept.units({A: D("0.03")})  # more was there when it began
    with pytest.raises(IntegrityError, match=r"AAA/USD: journal 0, venue -0\.010"):
        trader.run()
