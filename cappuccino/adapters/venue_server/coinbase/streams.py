"""Coinbase's websockets: the user channel (orders, cumulative), ticker and heartbeats.

Every message of a connection has the next sequence_num; one that is lost leaves a hole in them. A subscription has its own
token, is confirmed, and on the user channel begins with a snapshot of what is open. A connection that has not subscribed after
`patience_seconds` is let go.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import WSMsgType, web

from cappuccino.adapters.venue_server.coinbase import wire
from cappuccino.adapters.venue_server.coinbase.face import Face
from cappuccino.adapters.venue_server.faults import Disturbed
from cappuccino.adapters.venue_server.outbox import OUTBOXES, Outbox
from cappuccino.adapters.venue_server.wire import text, when
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.orders import Event, Order
from cappuccino.exchange.simulator import SimulatedExchange

MARKET_PATH, USER_PATH = "/advanced-trade-ws", "/advanced-trade-ws-user"
PATIENCE_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.0
_SNAPSHOT = 50  # orders a message
_PUBLIC = ("ticker", "heartbeats")
_SILENT = ("candles", "ticker_batch", "level2", "market_trades", "status")  # accepted; nothing comes on them


class _Connection:
    """Subscriptions: product ids by channel, all products when there are none."""

    def __init__(self, outbox: Outbox, face: Face) -> None:
        self.outbox = outbox
        self.account: Account | None = None
        self.subscriptions: dict[str, set[str]] = {}
        self._face = face
        self._sequence = 0
        self._beats = 0

    def send(self, channel: str, *events: dict[str, Any]) -> None:
        message = {
            "channel": channel,
            "client_id": "",
            "timestamp": when(self._face.exchange.tick.at_us),
            "sequence_num": self._sequence,
            "events": list(events),
        }
        self._sequence += 1
        self.outbox.put(json.dumps(message, separators=(",", ":")))

    def lose(self) -> None:
        """A message is numbered, and nobody hears of it."""
        self._sequence += 1

    def fail(self, message: str) -> None:
        self.outbox.put(json.dumps({"type": "error", "message": message}))
        self.outbox.close()

    def beat(self) -> None:
        if "heartbeats" in self.subscriptions:
            self._beats += 1
            now = when(self._face.exchange.tick.at_us)
            self.send("heartbeats", {"current_time": now, "heartbeat_counter": self._beats})

    def wants(self, product: str) -> bool:
        named = self.subscriptions.get("ticker")
        return named is not None and (not named or product in named)


class Streams:
    """`tell` is the desk's listener; `publish` is called once per tick."""

    def __init__(self, face: Face, disturbed: Disturbed, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._face = face
        self._disturbed = disturbed
        self._patience = patience_seconds
        self._connections: set[_Connection] = set()

    def routes(self) -> list[web.RouteDef]:
        return [web.get(MARKET_PATH, self._serve), web.get(USER_PATH, self._serve)]

    # --- what is told -------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        listeners = [
            each
            for each in self._connections
            if each.account is not None and each.account.name == event.account and "user" in each.subscriptions
        ]
        if not listeners:
            return
        told = self._disturbed(event)
        for each in listeners:
            if event not in told.events:
                each.lose()
            for one in told.events:
                each.send("user", _orders("update", one.order))
            if told.cut:
                each.outbox.cut()

    def cut_quotes(self) -> None:
        for each in self._connections:
            if "ticker" in each.subscriptions:
                each.outbox.cut()

    def publish(self) -> None:
        """The present tick's tickers of what is not halted."""
        readers = [each for each in self._connections if "ticker" in each.subscriptions]
        if not readers:
            return
        tickers = self._tickers()
        for each in readers:
            wanted = [ticker for ticker in tickers if each.wants(ticker["product_id"])]
            if wanted:
                each.send("ticker", {"type": "update", "tickers": wanted})

    def _tickers(self) -> list[dict[str, Any]]:
        exchange = self._face.exchange
        return [_ticker(exchange, symbol) for symbol in self._face.symbols.values() if not exchange.halted(symbol)]

    # --- what is asked ------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async with Outbox(socket, request.app[OUTBOXES]) as outbox:
            connection = _Connection(outbox, self._face)
            self._connections.add(connection)
            beats = asyncio.create_task(_beat(connection))
            try:
                first = await asyncio.wait_for(socket.receive(), self._patience)
                if first.type == WSMsgType.TEXT:
                    self._hear(connection, first.data)
                    async for message in socket:
                        if message.type == WSMsgType.TEXT:
                            self._hear(connection, message.data)
            except TimeoutError:
                await socket.close(code=1008, message=b"no subscription")
            finally:
                beats.cancel()
                self._connections.discard(connection)
        return socket

    def _hear(self, connection: _Connection, message: str) -> None:
        try:
            asked = json.loads(message)
            kind, channel, products = asked["type"], asked["channel"], asked.get("product_ids") or []
        except (ValueError, TypeError, KeyError):
            connection.fail("subscribe with type, channel and product_ids")
            return
        if kind not in ("subscribe", "unsubscribe") or channel not in ("user", *_PUBLIC, *_SILENT):
            connection.fail(f"no such channel: {channel}")
            return
        token = asked.get("jwt")
        account = self._face.keys.account(str(token), uri=None) if token else None
        if account is None and (token or channel == "user"):
            connection.fail("authentication failure")
            return
        connection.account = account or connection.account
        if kind == "subscribe":
            connection.subscriptions.setdefault(channel, set()).update(map(str, products))
        else:
            connection.subscriptions.pop(channel, None)
        connection.send("subscriptions", {"subscriptions": _told(connection)})
        if kind == "subscribe" and channel == "user" and account is not None:
            opened = [account.orders[order_id] for order_id in account.open_ids]
            for at in range(0, max(len(opened), 1), _SNAPSHOT):
                connection.send("user", _orders("snapshot", *opened[at : at + _SNAPSHOT]))
        elif kind == "subscribe" and channel == "ticker":
            tickers = [ticker for ticker in self._tickers() if connection.wants(ticker["product_id"])]
            connection.send("ticker", {"type": "snapshot", "tickers": tickers})


def _told(connection: _Connection) -> dict[str, list[str]]:
    mine = [connection.account.id] if connection.account else []
    return {
        channel: mine if channel == "user" else sorted(products) or [channel]
        for channel, products in connection.subscriptions.items()
    }


def _orders(kind: str, *orders: Order) -> dict[str, Any]:
    return {"type": kind, "orders": [wire.user_order(order) for order in orders], "positions": {}}


def _ticker(exchange: SimulatedExchange, symbol: str) -> dict[str, Any]:
    quote = exchange.quote(symbol)
    return {
        "type": "ticker",
        "product_id": wire.product_id(symbol),
        "price": text(exchange.price(symbol)),
        "volume_24_h": "0",
        "best_bid": text(quote.bid),
        "best_bid_quantity": text(quote.volume),
        "best_ask": text(quote.ask),
        "best_ask_quantity": text(quote.volume),
    }


async def _beat(connection: _Connection) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        connection.beat()
