"""A share of an account: its trader sees only the capital of its step.

The venue's account may have more cash than the trader may use, and units of whoever used it before, if only the dust that an
earlier step could not sell. What is more when the trader first looks is the reserve, which the record keeps; the trader's cash
and units are the venue's less the reserve, ever after: what is reserved is neither compared nor sold. Everything else is the
venue's own answer. A person who pays in or takes out, buys or sells, changes the trader's share, which reconciliation finds.

Before the first look the account must have been quiet: reconciliation would take fills of the last OVERLAP for foreign ones,
and where the venue posts fees later, those of the last FEE_POSTING_DELAY would be taken from this trader's share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from cappuccino.core.clock import iso
from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.core.money import ZERO
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules
from cappuccino.market.bars import Bars
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import Answered, Broker, Quote, Refused, Unclear, VenueAccount, VenueFill, VenueOrder
from cappuccino.trading.reconciliation import FEE_POSTING_DELAY
from cappuccino.trading.recovery import OVERLAP

log = get_logger(__name__)


Units = Mapping[str, Decimal]


class AllottedBroker:
    """`reserve` and `units` keep the first value that they are given, and answer what is kept; `units` of None only asks."""

    def __init__(
        self,
        venue: Broker,
        *,
        capital_usd: Decimal,
        reserve: Callable[[Decimal], Decimal],
        units: Callable[[Units | None], Units | None],
        fees_posted_later: bool,
    ) -> None:
        self._venue = venue
        self._capital = capital_usd
        self._reserve, self._units = reserve, units
        self._fees_posted_later = fees_posted_later
        self._kept: Decimal | None = None
        self._kept_units: Units | None = None

    def _others(self) -> Units:
        """What of the venue's units is not the trader's. Raises RetryLater: it is not known yet."""
        if self._kept_units is None:
            self._kept_units = self._units(None)
        if self._kept_units is None:
            self._require_quiet()
            held = {symbol: qty for symbol, qty in self._venue.positions().items() if qty}
            if held:
                log.warning("units_of_others_left_alone", units={symbol: f"{qty:f}" for symbol, qty in held.items()})
            self._kept_units = self._units(held)
        return self._kept_units or {}

    def _require_quiet(self) -> None:
        pause = FEE_POSTING_DELAY if self._fees_posted_later else OVERLAP
        if fills := self._venue.fills_since(self._venue.now() - pause):
            free_at = max(fill.execution.at for fill in fills) + pause
            raise RetryLater(
                f"another traded the venue account until just now: what of it is this step's is known from {iso(free_at)} on",
                after_seconds=60.0,
            )

    def account(self) -> VenueAccount:
        """Raises InvalidInput: at the first look there is less cash than the capital. RetryLater: it is too early for one."""
        self._others()
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
        """Less than nothing where somebody took what is not the trader's."""
        others, held = self._others(), self._venue.positions()
        shares = {symbol: held.get(symbol, ZERO) - others.get(symbol, ZERO) for symbol in {*held, *others}}
        return {symbol: qty for symbol, qty in shares.items() if qty}

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
