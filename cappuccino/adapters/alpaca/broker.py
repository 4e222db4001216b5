"""The Broker port over Alpaca's REST. Synchronous; used from the session's thread alone.

Quantities, notionals and prices go out as text, exactly as journalled: alpaca-py's request models would make them
floats. They still validate every order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import requests
from alpaca.common.exceptions import APIError
from alpaca.data.requests import CryptoBarsRequest, CryptoLatestQuoteRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.requests import GetOrdersRequest, LimitOrderRequest, MarketOrderRequest

from cappuccino.adapters.alpaca import wire
from cappuccino.adapters.alpaca.rest import (
    Connections,
    Endpoints,
    data_client,
    failure_of,
    trading_client,
)
from cappuccino.core.clock import from_epoch, parse_iso, to_epoch
from cappuccino.core.errors import InvalidInput, NotFound
from cappuccino.core.money import ZERO
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules
from cappuccino.market.bars import Bars
from cappuccino.market.panel import Candle, panel
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.failures import read_error
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import Answered, Quote, Refused, Unclear, VenueAccount, VenueFill, VenueOrder

_T = TypeVar("_T")
_ERRORS = (APIError, requests.RequestException, ValueError)  # ValueError: a body that is not JSON
_UNREADABLE = (KeyError, TypeError, ValueError, ArithmeticError, InvalidInput)  # of an answer that came
_LOOK_BACK_BARS = 100  # where the close of a missing first bar is looked for
_PAGE = 100
_UNITS = {60: (1, TimeFrameUnit.Minute), 3600: (1, TimeFrameUnit.Hour), 86400: (1, TimeFrameUnit.Day)}


class AlpacaBroker:
    """Args: `symbols` the pairs traded, with a slash. `fees_with_fills`: see `wire.fills`. `connections`: shared with other
    accounts; None: its own. `min_buy_usd`: what the venue refuses a buy below, which its assets do not say."""

    def __init__(
        self,
        credentials: Credentials,
        endpoints: Endpoints,
        *,
        symbols: Sequence[str],
        fees_with_fills: bool,
        connections: Connections | None = None,
        min_buy_usd: Decimal = ZERO,
    ) -> None:
        connections = connections or Connections()
        # Any: alpaca-py's annotations do not follow raw_data
        self._trading: Any = trading_client(credentials, endpoints, connections)
        self._data: Any = data_client(credentials, endpoints, connections)
        self._symbols = wire.Symbols(symbols)
        self._fees_with_fills = fees_with_fills
        self._min_buy_usd = min_buy_usd

    def now(self) -> datetime:
        return self._read("clock", lambda: parse_iso(self._trading.get_clock()["timestamp"]))

    def account(self) -> VenueAccount:
        def parse() -> VenueAccount:
            raw = self._trading.get_account()
            return VenueAccount(cash_usd=Decimal(raw["cash"]), blocked=bool(raw["trading_blocked"] or raw["account_blocked"]))

        return self._read("account", parse)

    def positions(self) -> Mapping[str, Decimal]:
        def parse() -> dict[str, Decimal]:
            return {self._symbols(raw["symbol"]): Decimal(raw["qty"]) for raw in self._trading.get_all_positions()}

        return self._read("positions", parse)

    def rules(self, symbols: Sequence[str]) -> Mapping[str, AssetRules]:
        assets = self._read("assets", lambda: self._trading.get("/assets", {"asset_class": "crypto", "status": "active"}))
        by_symbol = {self._symbols(raw["symbol"]): raw for raw in assets if raw.get("tradable", True)}
        unknown = [symbol for symbol in symbols if symbol not in by_symbol]
        if unknown:
            raise NotFound(f"the venue does not trade {', '.join(unknown)}: take them out of the dataset, or use another venue")
        return {symbol: wire.rules(by_symbol[symbol], symbol, min_buy_usd=self._min_buy_usd) for symbol in symbols}

    def submit(self, intent: Intent) -> Answered | Refused | Unclear:
        """Exactly one request. See `rest` for what an error proves."""
        try:
            raw = self._trading.post("/orders", _request(intent))
            return Answered(order=wire.order(raw, self._symbols))
        except APIError as error:
            failure = failure_of(error)
            if not failure.definite:
                return Unclear(message=f"{failure.code}: {failure.message}")
            duplicate = failure.code == "40010001" and "unique" in failure.message
            return Refused(code="duplicate" if duplicate else failure.code, message=failure.message)
        except requests.RequestException as error:
            return Unclear(message=f"{type(error).__name__}: {failure_of(error).message}")
        except _UNREADABLE as error:
            return Unclear(message=f"the answer cannot be read: {type(error).__name__} {error}")

    def cancel(self, venue_order_id: str) -> None:
        try:
            self._trading.cancel_order_by_id(venue_order_id)
        except _ERRORS as error:
            failure = failure_of(error)
            if not (failure.definite and failure.status in (404, 422)):
                raise read_error(failure_of(error), "cancel") from error

    def order_by_client_id(self, client_order_id: str) -> VenueOrder | None:
        return self._find("order", lambda: self._trading.get_order_by_client_id(client_order_id))

    def order_by_venue_id(self, venue_order_id: str) -> VenueOrder | None:
        return self._find("order", lambda: self._trading.get_order_by_id(venue_order_id))

    def open_orders(self) -> Sequence[VenueOrder]:
        def parse() -> list[VenueOrder]:
            found = self._trading.get_orders(GetOrdersRequest(limit=500))
            return [wire.order(raw, self._symbols) for raw in found]

        return self._read("orders", parse)

    def fills_since(self, at: datetime) -> Sequence[VenueFill]:
        def parse() -> list[VenueFill]:
            rows: list[Any] = []
            query = {"activity_types": "FILL,CFEE", "direction": "asc", "after": at.isoformat(), "page_size": _PAGE}
            while page := self._trading.get("/account/activities", query):
                rows.extend(page)
                if len(page) < _PAGE:
                    break
                query["page_token"] = page[-1]["id"]
            return wire.fills(rows, self._symbols, fees_with_fills=self._fees_with_fills)

        return self._read("activities", parse)

    def latest_quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        def parse() -> dict[str, Quote]:
            found = self._data.get_crypto_latest_quote(CryptoLatestQuoteRequest(symbol_or_symbols=list(symbols)))
            return {s: wire.quote(s, raw, parse_iso(raw["t"])) for s, raw in found.items() if s in symbols}

        return self._read("quotes", parse)

    def closed_bars(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Bars:
        found = self._bars(symbols, timeframe, start=start, end=end)
        begun = {s: any(to_epoch(parse_iso(raw["t"])) == start for raw in found.get(s, ())) for s in symbols}
        if all(begun.values()):
            return panel(_candles(found), tuple(symbols), timeframe, start=start, end=end)
        earlier = start - _LOOK_BACK_BARS * timeframe.seconds
        before = self._bars(symbols, timeframe, start=earlier, end=start)
        merged = {s: [*before.get(s, ()), *found.get(s, ())] for s in symbols}
        return panel(_candles(merged), tuple(symbols), timeframe, start=earlier, end=end).between(start, end)

    def _bars(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> dict[str, Any]:
        request = CryptoBarsRequest(
            symbol_or_symbols=list(symbols),
            timeframe=_timeframe(timeframe),
            start=from_epoch(start),
            end=from_epoch(end - timeframe.seconds),
        )
        return self._read("bars", lambda: dict(self._data.get_crypto_bars(request)))

    def _find(self, what: str, call: Callable[[], Any]) -> VenueOrder | None:
        try:
            return wire.order(call(), self._symbols)
        except _ERRORS as error:
            failure = failure_of(error)
            if failure.definite and failure.status == 404:
                return None
            raise read_error(failure_of(error), what) from error
        except _UNREADABLE as error:
            raise read_error(failure_of(error), what) from error

    def _read(self, what: str, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except (*_ERRORS, *_UNREADABLE) as error:
            raise read_error(failure_of(error), what) from error


def _request(intent: Intent) -> dict[str, Any]:
    """The body of POST /v2/orders: validated by alpaca-py, numbers as text."""
    fields: dict[str, Any] = {
        "symbol": intent.symbol,
        "side": intent.side,
        "time_in_force": intent.time_in_force,
        "client_order_id": intent.client_order_id,
        "qty": None if intent.qty is None else float(intent.qty),
        "notional": None if intent.notional is None else float(intent.notional),
    }
    if intent.limit_price is None:
        request: Any = MarketOrderRequest(**fields)
    else:
        request = LimitOrderRequest(**fields, limit_price=float(intent.limit_price))
    body: dict[str, Any] = request.to_request_fields()
    exact = {"qty": intent.qty, "notional": intent.notional, "limit_price": intent.limit_price}
    return body | {name: f"{value:f}" for name, value in exact.items() if value is not None}


def _timeframe(timeframe: Timeframe) -> TimeFrame:
    unit = max(seconds for seconds in _UNITS if timeframe.seconds % seconds == 0)
    return TimeFrame(timeframe.seconds // unit, _UNITS[unit][1])


def _candles(found: Mapping[str, Any]) -> dict[str, list[Candle]]:
    return {
        symbol: [(to_epoch(parse_iso(raw["t"])), *(float(raw[name]) for name in "ohlcv")) for raw in rows]  # type: ignore[misc]
        for symbol, rows in found.items()
    }
