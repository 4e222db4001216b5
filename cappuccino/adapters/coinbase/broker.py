"""The Broker port over Coinbase's REST. Synchronous; used from the session's thread alone.

Coinbase does not look orders up by our id. What it answered is remembered; else its list of orders is read, once to the
beginning and from then on what is new. An order that is not there is sent again as the identical request: the venue gives the
first order back, or says that there is one, and never makes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import requests

from cappuccino.adapters.coinbase import wire
from cappuccino.adapters.coinbase.rest import API, Endpoints, failure_of, rest_client
from cappuccino.core.clock import parse_iso
from cappuccino.core.errors import InvalidInput, NotFound, RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules
from cappuccino.market.bars import Bars
from cappuccino.market.panel import Candle, panel
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.failures import read_error
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import Answered, Quote, Refused, Unclear, VenueAccount, VenueFill, VenueOrder

_T = TypeVar("_T")
_ERRORS = (requests.RequestException, ValueError)  # ValueError: a body that is not JSON
_UNREADABLE = (KeyError, TypeError, ValueError, ArithmeticError, StopIteration, InvalidInput)  # of an answer that came
_PAGE = 250
_CANDLES = 300
_LOOK_BACK_BARS = 100  # where the close of a missing first bar is looked for
_OVERLAP = timedelta(minutes=5)  # an order may appear in the list after one that was made later
_OVER = ("UNKNOWN_CANCEL_ORDER", "DUPLICATE_CANCEL_REQUEST", "INVALID_CANCEL_REQUEST")
_GRANULARITIES = {
    60: "ONE_MINUTE",
    300: "FIVE_MINUTE",
    900: "FIFTEEN_MINUTE",
    1800: "THIRTY_MINUTE",
    3600: "ONE_HOUR",
    7200: "TWO_HOUR",
    14_400: "FOUR_HOUR",
    21_600: "SIX_HOUR",
    86_400: "ONE_DAY",
}


class CoinbaseBroker:
    """Args: `symbols` the pairs traded, with a slash; one quote currency."""

    def __init__(self, credentials: Credentials, endpoints: Endpoints, *, symbols: Sequence[str]) -> None:
        quoted = {symbol.partition("/")[2] for symbol in symbols}
        if len(quoted) != 1:
            raise InvalidInput(f"an account trades against one currency, not {', '.join(sorted(quoted))}: split the symbols")
        self._client: Any = rest_client(credentials, endpoints)  # Any: its annotations are optional everywhere
        self._symbols = tuple(symbols)
        self._cash = quoted.pop()
        self._increments: dict[str, Decimal] = {}
        self._ids: dict[str, str] = {}  # venue's by ours
        self._listed_until: datetime | None = None

    def now(self) -> datetime:
        return self._read("clock", lambda: parse_iso(self._get("time", public=True)["iso"]))

    def account(self) -> VenueAccount:
        def parse() -> VenueAccount:
            mine = [raw for raw in self._wallets() if raw["currency"] == self._cash]
            blocked = any(not (raw["active"] and raw["ready"]) for raw in mine)
            return VenueAccount(cash_usd=wire.balances(mine).get(self._cash, Decimal(0)), blocked=blocked)

        return self._read("account", parse)

    def positions(self) -> Mapping[str, Decimal]:
        """Of currencies that are not traded here too, by their own name: nothing in the account is overlooked."""

        def parse() -> dict[str, Decimal]:
            names = {symbol.partition("/")[0]: symbol for symbol in self._symbols}
            held = wire.balances(self._wallets())
            return {names.get(currency, currency): qty for currency, qty in held.items() if currency != self._cash}

        return self._read("positions", parse)

    def rules(self, symbols: Sequence[str]) -> Mapping[str, AssetRules]:
        def parse() -> dict[str, AssetRules]:
            raws = self._get("products", {"product_ids": [wire.product(symbol) for symbol in symbols]})["products"]
            found = {wire.symbol_of(raw["product_id"]): raw for raw in raws if wire.tradable(raw)}
            return {symbol: wire.rules(found[symbol], symbol) for symbol in symbols if symbol in found}

        rules = self._read("products", parse)
        unknown = [symbol for symbol in symbols if symbol not in rules]
        if unknown:
            raise NotFound(f"the venue does not trade {', '.join(unknown)}: take them out of the dataset, or use another venue")
        self._increments |= {symbol: each.min_trade_increment for symbol, each in rules.items()}
        return rules

    # --- orders -------------------------------------------------------------------------------------

    def submit(self, intent: Intent) -> Answered | Refused | Unclear:
        """Exactly one request. See `rest` for what an error proves."""
        try:
            raw = self._client.post(f"{API}/orders", data=_request(intent))
            if raw["success"] is True:
                order_id = str(raw["success_response"]["order_id"])
                self._ids[intent.client_order_id] = order_id
                return Answered(order=wire.taken(intent, order_id, intent.created_at))
            refused = raw["error_response"]
            codes = [str(refused.get(name)) for name in ("error", "new_order_failure_reason", "preview_failure_reason")]
        except requests.HTTPError as error:
            failure = failure_of(error)
            if failure.definite:
                return Refused(code=failure.code, message=failure.message)
            return Unclear(message=f"{failure.code}: {failure.message}")
        except requests.RequestException as error:
            return Unclear(message=f"{type(error).__name__}: {failure_of(error).message}")
        except (*_UNREADABLE, AttributeError) as error:
            return Unclear(message=f"the answer cannot be read: {type(error).__name__} {error}")
        if "DUPLICATE_CLIENT_ORDER_ID" in codes:
            return Refused(code="duplicate", message="client_order_id was used before")
        return Refused(code=codes[0], message=str(refused.get("message") or refused.get("error_details") or codes[0]))

    def cancel(self, venue_order_id: str) -> None:
        def ask() -> Mapping[str, Any]:
            result: Mapping[str, Any] = self._client.post(f"{API}/orders/batch_cancel", data={"order_ids": [venue_order_id]})
            (answer,) = result["results"]
            return {"success": answer["success"], "failure_reason": answer["failure_reason"]}

        told = self._read("cancel", ask)
        if not told["success"] and told["failure_reason"] not in _OVER:
            raise RetryLater(f"cancel: the venue did not cancel order {venue_order_id}: {told['failure_reason']}")

    def order_by_client_id(self, client_order_id: str) -> VenueOrder | None:
        if client_order_id not in self._ids:
            self._read("orders", self._list)
        known = self._ids.get(client_order_id)
        return None if known is None else self.order_by_venue_id(known)

    def order_by_venue_id(self, venue_order_id: str) -> VenueOrder | None:
        try:
            return wire.order(self._get(f"orders/historical/{venue_order_id}")["order"])
        except requests.HTTPError as error:
            failure = failure_of(error)
            if failure.definite and failure.status == 404:
                return None
            raise read_error(failure_of(error), "order") from error
        except (*_ERRORS, *_UNREADABLE) as error:
            raise read_error(failure_of(error), "order") from error

    def open_orders(self) -> Sequence[VenueOrder]:
        def parse() -> list[VenueOrder]:
            return [wire.order(raw) for raw in self._pages("orders/historical/batch", "orders", {"order_status": ["OPEN"]})]

        return self._read("orders", parse)

    def fills_since(self, at: datetime) -> Sequence[VenueFill]:
        if not self._increments:
            self.rules(self._symbols)

        def parse() -> list[VenueFill]:
            raws = list(self._pages("orders/historical/fills", "fills", {"start_sequence_timestamp": _rfc3339(at)}))
            found = [wire.fill(raw, self._increments) for raw in reversed(raws) if raw["trade_type"] == "FILL"]
            return [each for each in found if each.execution.at >= at]

        return self._read("fills", parse)

    def _list(self) -> None:
        """Remember the venue's id of every order that was not listed before."""
        since = {} if self._listed_until is None else {"start_date": _rfc3339(self._listed_until - _OVERLAP)}
        newest = self._listed_until
        for raw in self._pages("orders/historical/batch", "orders", since):
            self._ids[str(raw["client_order_id"])] = str(raw["order_id"])
            made = parse_iso(raw["created_time"])
            newest = made if newest is None else max(made, newest)
        self._listed_until = newest

    # --- the market ---------------------------------------------------------------------------------

    def latest_quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        def parse() -> dict[str, Quote]:
            books = self._get("best_bid_ask", {"product_ids": [wire.product(symbol) for symbol in symbols]})["pricebooks"]
            quotes = [
                wire.quote(raw, parse_iso(raw["time"]), bid=raw["bids"][0]["price"], ask=raw["asks"][0]["price"])
                for raw in books
                if raw["bids"] and raw["asks"]
            ]
            return {quote.symbol: quote for quote in quotes if quote.symbol in symbols}

        return self._read("quotes", parse)

    def closed_bars(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Bars:
        if timeframe.seconds not in _GRANULARITIES:
            raise InvalidInput(f"Coinbase has no candles of {timeframe}: use one of {', '.join(_GRANULARITIES.values())}")
        found = self._candles(symbols, timeframe, start=start, end=end)
        first = start
        if any(not rows or rows[0][0] != start for rows in found.values()):
            first = start - _LOOK_BACK_BARS * timeframe.seconds
            found = self._candles(symbols, timeframe, start=first, end=end)
        return panel(found, tuple(symbols), timeframe, start=first, end=end).between(start, end)

    def _candles(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Mapping[str, Sequence[Candle]]:
        """Closed ones by symbol, oldest first."""
        span = timeframe.seconds

        def parse() -> dict[str, list[Candle]]:
            found: dict[str, list[Candle]] = {}
            for symbol in symbols:
                rows = found.setdefault(symbol, [])
                for begin in range(start, end, _CANDLES * span):
                    last = min(begin + _CANDLES * span, end) - span
                    query = {"start": str(begin), "end": str(last), "granularity": _GRANULARITIES[span]}
                    raws = self._get(f"products/{wire.product(symbol)}/candles", query)["candles"]
                    rows += [
                        (
                            int(raw["start"]),
                            float(raw["open"]),
                            float(raw["high"]),
                            float(raw["low"]),
                            float(raw["close"]),
                            float(raw["volume"]),
                        )
                        for raw in reversed(raws)
                        if begin <= int(raw["start"]) <= last
                    ]
            return found

        return self._read("candles", parse)

    # --- asking -------------------------------------------------------------------------------------

    def _wallets(self) -> list[Mapping[str, Any]]:
        return list(self._pages("accounts", "accounts", {}))

    def _pages(self, path: str, name: str, query: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """All rows of a list, page by page."""
        cursor = ""
        while True:
            page = self._get(path, {**query, "limit": _PAGE, **({"cursor": cursor} if cursor else {})})
            yield from page[name]
            cursor = page.get("cursor") or ""
            if not cursor or not page[name] or page.get("has_next") is False:
                return

    def _get(self, path: str, query: Mapping[str, Any] | None = None, *, public: bool = False) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.get(f"{API}/{path}", params=dict(query or {}), public=public)
        return found

    def _read(self, what: str, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except (*_ERRORS, *_UNREADABLE, AttributeError) as error:
            raise read_error(failure_of(error), what) from error


def _request(intent: Intent) -> dict[str, Any]:
    """The body of an order, numbers as text, exactly as journalled: sent again it is the same."""
    if intent.limit_price is not None:
        kind = "sor_limit_ioc" if intent.time_in_force == "ioc" else "limit_limit_gtc"
        sizes = {"base_size": intent.qty, "limit_price": intent.limit_price}
    else:
        kind, sizes = "market_market_ioc", {"base_size": intent.qty, "quote_size": intent.notional}
    return {
        "client_order_id": intent.client_order_id,
        "product_id": wire.product(intent.symbol),
        "side": intent.side.upper(),
        "order_configuration": {kind: {name: f"{value:f}" for name, value in sizes.items() if value is not None}},
    }


def _rfc3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
