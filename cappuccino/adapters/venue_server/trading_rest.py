"""Alpaca's trading REST under /v2: orders, positions, account, assets, clock, activities."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiohttp import web

from cappuccino.adapters.venue_server import wire
from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.faults import SKEW, Dialect
from cappuccino.adapters.venue_server.keys import Keys
from cappuccino.adapters.venue_server.limits import RateLimit
from cappuccino.core.money import floor_to
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.commands import Cancel, Submit
from cappuccino.exchange.faults import Operation
from cappuccino.exchange.orders import Fill, Order, OrderRequest, Refused, parse_request
from cappuccino.exchange.tape import MICROSECONDS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AccountHandler = Callable[[web.Request, Account], Awaitable[web.Response]]

MAX_ORDERS, DEFAULT_ORDERS = 500, 50
MAX_ACTIVITIES = 100


class TradingRest:
    def __init__(self, desk: Desk, keys: Keys, limit: RateLimit) -> None:
        self._desk = desk
        self._exchange = desk.exchange
        self._keys = keys
        self._limit = limit
        self._symbols = {symbol.replace("/", ""): symbol for symbol in self._exchange.tape.symbols}
        self._symbols |= {wire.asset_id(symbol): symbol for symbol in self._exchange.tape.symbols}

    def routes(self) -> list[web.RouteDef]:
        guard = self._guard
        return [
            web.post("/v2/orders", guard(self._submit)),
            web.get("/v2/orders", guard(self._orders)),
            web.delete("/v2/orders", guard(self._cancel_all)),
            web.get("/v2/orders:by_client_order_id", guard(self._by_client_order_id)),
            web.get("/v2/orders/{id}", guard(self._order)),
            web.delete("/v2/orders/{id}", guard(self._cancel)),
            web.get("/v2/positions", guard(self._positions)),
            web.delete("/v2/positions", guard(self._close_all)),
            web.get("/v2/positions/{symbol:.+}", guard(self._position)),
            web.delete("/v2/positions/{symbol:.+}", guard(self._close)),
            web.get("/v2/account", guard(self._account)),
            web.get("/v2/account/activities", guard(self._activities)),
            web.get("/v2/account/activities/{type}", guard(self._activities)),
            web.get("/v2/assets", guard(self._assets)),
            web.get("/v2/assets/{symbol:.+}", guard(self._asset)),
            web.get("/v2/clock", guard(self._clock)),
        ]

    def dialect(self) -> Dialect:
        """Of everything under Alpaca's REST, market data included."""

        def account(request: web.Request) -> str:
            found = self._keys.of(request)
            return "" if found is None else found.name

        return Dialect(operation=_operation, account=account, refuse=_refuse)

    def _guard(self, handler: AccountHandler) -> Handler:
        """Key, then rate, then the handler; what the exchange refuses becomes Alpaca's error."""

        async def guarded(request: web.Request) -> web.Response:
            account = self._keys.of(request)
            if account is None:
                return wire.error(401, 40110000, "request is not authorized")
            passes, headers = self._limit.take(account.name, self._exchange.tick.at_us)
            if not passes:
                response = wire.error(429, 42910000, "rate limit exceeded")
            else:
                try:
                    response = await handler(request, account)
                except Refused as refused:
                    response = wire.refusal(refused)
            response.headers.update(headers)
            return response

        return guarded

    # --- orders ----------------------------------------------------------------------------------

    async def _submit(self, request: web.Request, account: Account) -> web.Response:
        try:
            fields = json.loads(await request.read(), parse_float=Decimal, parse_int=Decimal)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            return wire.error(400, 40010000, "request body format is invalid")
        asked = parse_request({**fields, "symbol": self._symbols.get(str(fields.get("symbol")), fields.get("symbol"))})
        return wire.answer(wire.order_json(await self._place(account, asked)))

    async def _place(self, account: Account, asked: OrderRequest) -> Order:
        outcome = await self._desk.execute(Submit(account=account.name, request=asked))
        assert outcome.order is not None
        return outcome.order

    async def _orders(self, request: web.Request, account: Account) -> web.Response:
        query = request.query
        status, limit = query.get("status", "open"), min(_whole(query, "limit", DEFAULT_ORDERS), MAX_ORDERS)
        after, until = _instant(query, "after"), _instant(query, "until")
        named = {self._symbols.get(name, name) for name in query.get("symbols", "").split(",") if name}
        side = query.get("side")
        if status not in ("open", "closed", "all"):
            raise Refused("invalid", f"status {status!r} is invalid: use open, closed or all")
        found: list[Order] = []
        if status == "open":
            orders = [account.orders[order_id] for order_id in account.open_ids]
        else:
            orders = list(account.orders.values())
        for order in orders if query.get("direction") == "asc" else reversed(orders):
            if len(found) == limit:
                break
            if (
                (status != "closed" or not order.is_open)
                and (after is None or order.submitted_us > after)
                and (until is None or order.submitted_us <= until)
                and (not named or order.request.symbol in named)
                and (side is None or order.request.side == side)
            ):
                found.append(order)
        return wire.answer([wire.order_json(order) for order in found])

    async def _order(self, request: web.Request, account: Account) -> web.Response:
        return wire.answer(wire.order_json(account.order(request.match_info["id"])))

    async def _by_client_order_id(self, request: web.Request, account: Account) -> web.Response:
        return wire.answer(wire.order_json(account.by_client_order_id(request.query.get("client_order_id", ""))))

    async def _cancel(self, request: web.Request, account: Account) -> web.Response:
        await self._desk.execute(Cancel(account=account.name, order_id=request.match_info["id"]))
        return web.Response(status=204)

    async def _cancel_all(self, _: web.Request, account: Account) -> web.Response:
        return wire.answer([{"id": order_id, "status": 200} for order_id in await self._cancel_open(account)], status=207)

    async def _cancel_open(self, account: Account) -> list[str]:
        order_ids = list(account.open_ids)
        for order_id in order_ids:
            if order_id in account.open_ids:  # a tick may have filled it while the one before was written
                await self._desk.execute(Cancel(account=account.name, order_id=order_id))
        return order_ids

    # --- positions -------------------------------------------------------------------------------

    def _held(self, account: Account, name: str) -> str:
        symbol = self._symbols.get(name.replace("/", ""), name)
        if symbol not in account.positions:
            raise Refused("not_found", f"position does not exist: {name}")
        return symbol

    async def _positions(self, _: web.Request, account: Account) -> web.Response:
        return wire.answer(
            [wire.position_json(self._exchange, symbol, held) for symbol, held in sorted(account.positions.items())]
        )

    async def _position(self, request: web.Request, account: Account) -> web.Response:
        symbol = self._held(account, request.match_info["symbol"])
        return wire.answer(wire.position_json(self._exchange, symbol, account.positions[symbol]))

    async def _close(self, request: web.Request, account: Account) -> web.Response:
        symbol = self._held(account, request.match_info["symbol"])
        held, query = account.positions[symbol], request.query
        if "percentage" in query:
            share = _number(query, "percentage") / 100
            qty = floor_to(held.qty * share, self._exchange.rules[symbol].min_trade_increment)
        else:
            qty = _number(query, "qty") if "qty" in query else held.qty
        return wire.answer(wire.order_json(await self._place(account, OrderRequest(symbol=symbol, side="sell", qty=qty))))

    async def _close_all(self, request: web.Request, account: Account) -> web.Response:
        if request.query.get("cancel_orders", "").lower() == "true":
            await self._cancel_open(account)
        closed: list[dict[str, Any]] = []
        for symbol in sorted(account.positions):
            name = symbol.replace("/", "")
            try:
                asked = OrderRequest(symbol=symbol, side="sell", qty=account.position(symbol).qty)
                order = await self._place(account, asked)
            except Refused as refused:
                response = wire.refusal(refused)
                assert isinstance(response.body, bytes)
                closed.append({"symbol": name, "status": response.status, "body": json.loads(response.body)})
            else:
                closed.append({"symbol": name, "status": 200, "order_id": order.id, "body": wire.order_json(order)})
        return wire.answer(closed, status=207)

    # --- account, assets, clock ------------------------------------------------------------------

    async def _account(self, _: web.Request, account: Account) -> web.Response:
        return wire.answer(wire.account_json(self._exchange, account))

    async def _activities(self, request: web.Request, account: Account) -> web.Response:
        """FILL and CFEE. Newest first unless `direction=asc`; the page token is the last id of the page before."""
        query = request.query
        asked = request.match_info.get("type") or query.get("activity_types", "")
        types = {name for name in asked.split(",") if name} or {"FILL", "CFEE"}
        after, until, size = _instant(query, "after"), _instant(query, "until"), _whole(query, "page_size", MAX_ACTIVITIES)
        ascending, token = query.get("direction") == "asc", query.get("page_token")
        found: list[dict[str, Any]] = []
        skipping = bool(token)
        for fill in account.fills if ascending else reversed(account.fills):
            if (after is not None and fill.at_us <= after) or (until is not None and fill.at_us > until):
                continue
            for activity in _activities_of(account, fill, types):
                if skipping:
                    skipping = activity["id"] != token
                else:
                    found.append(activity)
            if len(found) >= min(size, MAX_ACTIVITIES):
                break
        return wire.answer(found[: min(size, MAX_ACTIVITIES)])

    async def _assets(self, request: web.Request, _: Account) -> web.Response:
        if request.query.get("asset_class", "crypto") != "crypto" or request.query.get("status", "active") != "active":
            return wire.answer([])
        return wire.answer([wire.asset_json(self._exchange, symbol) for symbol in self._exchange.tape.symbols])

    async def _asset(self, request: web.Request, _: Account) -> web.Response:
        name = request.match_info["symbol"]
        symbol = self._symbols.get(name.replace("/", ""), self._symbols.get(name, name))
        if symbol not in self._exchange.rules:
            raise Refused("not_found", f"asset not found for {name}")
        return wire.answer(wire.asset_json(self._exchange, symbol))

    async def _clock(self, request: web.Request, _: Account) -> web.Response:
        """Crypto never closes: the next open is now, the next close a day away."""
        at_us = self._exchange.tick.at_us + request.get(SKEW, 0)
        now, later = wire.when(at_us), wire.when(at_us + 86_400 * MICROSECONDS)
        return wire.answer({"timestamp": now, "is_open": True, "next_open": now, "next_close": later})


_DATA = "/v1beta3/"
_CODES = {429: 42910000, 500: 50010000, 503: 50310000}


def _operation(request: web.Request) -> Operation | None:
    if request.path == "/v2/clock":
        return "clock"
    if not request.path.startswith(("/v2/", _DATA)):
        return None
    return {"POST": "submit", "DELETE": "cancel"}.get(request.method, "read")  # type: ignore[return-value]


def _refuse(status: int, message: str, headers: dict[str, str]) -> web.Response:
    response = wire.error(status, _CODES[status], message)
    response.headers.update(headers)
    return response


def _activities_of(account: Account, fill: Fill, types: set[str]) -> list[dict[str, Any]]:
    found = [wire.fill_activity(account, fill)] if "FILL" in types else []
    return [*found, wire.fee_activity(account, fill)] if "CFEE" in types and fill.fee else found


def _instant(query: Any, name: str) -> int | None:
    """A time of the query in microseconds."""
    raw = query.get(name)
    return None if not raw else parse_time(raw, name)


def parse_time(raw: str, name: str) -> int:
    """Microseconds of an RFC 3339 time or a date; without a zone it is UTC. Raises Refused."""
    try:
        at = datetime.fromisoformat(raw[:11].replace(" ", "T") + raw[11:].replace(" ", "+"))  # an unquoted plus is a space
    except ValueError as error:
        raise Refused("invalid", f"{name} {raw!r} is not an RFC 3339 time") from error
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return round(at.timestamp() * MICROSECONDS)


def _whole(query: Any, name: str, default: int) -> int:
    raw = query.get(name)
    if not raw:
        return default
    if not raw.isdigit() or int(raw) == 0:
        raise Refused("invalid", f"{name} {raw!r} is not a whole number above 0")
    return int(raw)


def _number(query: Any, name: str) -> Decimal:
    request = parse_request({"symbol": "-", "side": "sell", "qty": query[name]})
    assert request.qty is not None
    return request.qty
