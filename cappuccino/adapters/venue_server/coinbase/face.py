"""What all of this face has in common: the exchange behind it, whose token it is, and what the exchange refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from cappuccino.adapters.venue_server.coinbase import wire
from cappuccino.adapters.venue_server.coinbase.keys import CdpKeys
from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.faults import Dialect
from cappuccino.adapters.venue_server.limits import RateLimit
from cappuccino.adapters.venue_server.trading_rest import Handler, parse_time
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.faults import Operation
from cappuccino.exchange.orders import Refused

PREFIX = "/api/v3/brokerage"
_ERRORS = {429: "RATE_LIMIT_EXCEEDED", 500: "INTERNAL", 503: "UNAVAILABLE"}


class Face:
    """`symbols`: by product id."""

    def __init__(self, desk: Desk, keys: CdpKeys, limit: RateLimit) -> None:
        self.desk = desk
        self.exchange = desk.exchange
        self.keys = keys
        self._limit = limit
        self.symbols = {wire.product_id(symbol): symbol for symbol in self.exchange.tape.symbols}

    def dialect(self) -> Dialect:
        """How faults are told in Coinbase's words."""

        def account(request: web.Request) -> str:
            found = self.keys.of(request)
            return "" if found is None else found.name

        return Dialect(operation=_operation, account=account, refuse=_refuse)

    def private(self, handler: Callable[[web.Request, Account], Awaitable[web.Response]]) -> Handler:
        """Token, then rate, then the handler."""

        async def guarded(request: web.Request) -> web.Response:
            account = self.keys.of(request)
            if account is None:
                return web.Response(status=401, text="Unauthorized\n")
            passes, headers = self._limit.take(account.name, self.exchange.tick.at_us)
            if not passes:
                return _refuse(429, "too many requests", headers)
            try:
                response = await handler(request, account)
            except Refused as refused:
                status, code = (404, "NOT_FOUND") if refused.reason == "not_found" else (400, "INVALID_ARGUMENT")
                response = wire.error(status, code, str(refused))
            response.headers.update(headers)
            return response

        return guarded

    def public(self, handler: Callable[[web.Request], Awaitable[web.Response]]) -> Handler:
        async def answered(request: web.Request) -> web.Response:
            try:
                return await handler(request)
            except Refused as refused:
                status, code = (404, "NOT_FOUND") if refused.reason == "not_found" else (400, "INVALID_ARGUMENT")
                return wire.error(status, code, str(refused))

        return answered

    def named(self, request: web.Request, name: str = "product_ids") -> list[str]:
        """Symbols of the query's product ids, all when there are none. Raises Refused."""
        asked = request.query.getall(name, [])
        unknown = [product for product in asked if product not in self.symbols]
        if unknown:
            raise Refused("invalid", f"unknown product {', '.join(unknown)}")
        return [self.symbols[product] for product in asked] or list(self.symbols.values())


def instant(request: web.Request, name: str) -> int | None:
    """A time of the query in microseconds. Raises Refused."""
    raw = request.query.get(name)
    return parse_time(raw, name) if raw else None


def page_size(request: web.Request, *, default: int, largest: int) -> int:
    """Raises Refused."""
    raw = request.query.get("limit") or str(default)
    if not raw.isdigit() or int(raw) == 0:
        raise Refused("invalid", f"limit {raw!r} is not a whole number above 0")
    return min(int(raw), largest)


def _operation(request: web.Request) -> Operation | None:
    if not request.path.startswith(f"{PREFIX}/"):
        return None
    if request.path == f"{PREFIX}/time":
        return "clock"
    if request.method == "POST":
        return "submit" if request.path == f"{PREFIX}/orders" else "cancel"
    return "read"


def _refuse(status: int, message: str, headers: dict[str, str]) -> web.Response:
    response = wire.error(status, _ERRORS[status], message)
    response.headers.update(headers)
    return response
