"""A share of an account: its trader sees only the capital of its step.

The venue's account may have more cash than the trader may use. What is more when the trader first looks is the reserve, which
the record keeps; the trader's cash is the venue's less the reserve, ever after. Everything else is the venue's own answer. A
person who pays in or takes out changes the trader's cash, which reconciliation finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules
from cappuccino.market.bars import Bars
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import Answered, Broker, Quote, Refused, Unclear, VenueAccount, VenueFill, VenueOrder


class AllottedBroker:
    """`reserve` keeps the first value that it is given, and answers what is kept."""

    def __init__(self, venue: Broker, *, capital_usd: Decimal, reserve: Callable[[Decimal], Decimal]) -> None:
        self._venue = venue
        self._capital = capital_usd
        self._reserve = reserve
        self._kept: Decimal | None = None

    def account(self) -> VenueAccount:
        """Raises InvalidInput: at the first look there is less cash than the capital."""
        whole = self._venue.account()
        if self._kept is None:
            self._kept = self._reserve(whole.cash_usd - self._capital)
        if self._kept < 0:
            raise InvalidInput(
                f"the account began with {self._capital + self._kept} USD in cash, this step trades {self._capital}: pay in, or"
                " lower capitalUsd"
            )
        return VenueAccount(cash_usd=whole.cash_usd - self._kept, blocked=whole.blocked)

    def now(self) -> datetime:
        return self._venue.now()

    def positions(self) -> Mapping[str, Decimal]:
        return self._venue.positions()

    def rules(self, symbols: Sequence[str]) -> Mapping[str, AssetRules]:
        return self._venue.rules(symbols)

    def submit(self, intent: Intent) -> Answered | Refused | Unclear:
        return self._venue.submit(intent)

    def cancel(self, venue_order_id: str) -> None:
        self._venue.cancel(venue_order_id)

    def order_by_client_id(self, client_order_id: str) -> VenueOrder | None:
        return self._venue.order_by_client_id(client_order_id)

    def order_by_venue_id(self, venue_order_id: str) -> VenueOrder | None:
        return self._venue.order_by_venue_id(venue_order_id)

    def open_orders(self) -> Sequence[VenueOrder]:
        return self._venue.open_orders()

    def fills_since(self, at: datetime) -> Sequence[VenueFill]:
        return self._venue.fills_since(at)

    def latest_quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        return self._venue.latest_quotes(symbols)

    def closed_bars(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Bars:
        return self._venue.closed_bars(symbols, timeframe, start=start, end=end)
