"""A shadow whose market cannot be read for a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest

from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.exchange.venue import Costs
from cappuccino.trading.orders import OrderState
from cappuccino.trading.ports import Quote
from cappuccino.trading.shadow import ShadowBroker

from .builders import SYMBOLS, Script, Trader, Venue, make_bars

A, B = SYMBOLS
OF_AN_ACCOUNT = (
    *("submit", "cancel", "account", "positions"),
    *("order_by_client_id", "order_by_venue_id", "open_orders", "fills_since"),
)


@pytest.mark.parametrize("error", [RetryLater("the venue is away"), InvalidInput("the venue refuses the key")])
def test_an_order_whose_quote_cannot_be_read_is_unclear_and_sent_again(error: Exception) -> None:
    venue = Venue.over(make_bars())
    trader = Trader(venue=venue, strategy=Script({0: {A: 0.3}}))
    read, asked = venue.latest_quotes, 0

    def latest_quotes(symbols: Sequence[str]) -> Mapping[str, Quote]:
        nonlocal asked
        asked += 1
        if asked <= 2:
            raise error
        return read(symbols)

    shadow = ShadowBroker(venue, symbols=SYMBOLS, capital_usd=Decimal(10_000), costs=Costs(), fills=())
    for name in OF_AN_ACCOUNT:
        setattr(venue, name, getattr(shadow, name))
    venue.latest_quotes = latest_quotes  # type: ignore[method-assign]
    started = venue.time.now
    assert trader.run().finished
    assert asked == 3
    assert venue.time.now - started < 30
    (fill,) = trader.ledger.fills.values()
    states = [e.state for e in trader.ledger.events if e.client_order_id == fill.client_order_id]
    assert OrderState.UNKNOWN in states
    assert states[-1] is OrderState.FILLED
