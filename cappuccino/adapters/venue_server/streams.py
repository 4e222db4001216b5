"""Alpaca's two websocket streams: trade updates (JSON on /stream) and crypto data (msgpack if the client asks for it, or JSON).

Quotes carry the tick's own instant; bars are the tape's, sent at the instant at which they are complete. Nothing is replayed
after a reconnect: what was missed is asked for over REST.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgpack
from aiohttp import WSMsgType, web

from cappuccino.adapters.venue_server import wire
from cappuccino.adapters.venue_server.candles import bar_rows
from cappuccino.adapters.venue_server.data_rest import PREFIX
from cappuccino.adapters.venue_server.faults import Disturbed
from cappuccino.adapters.venue_server.keys import Keys
from cappuccino.adapters.venue_server.outbox import OUTBOXES, Outbox
from cappuccino.adapters.venue_server.trading_rest import parse_time
from cappuccino.exchange.orders import Event
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.exchange.tape import MICROSECONDS

CHANNELS = ("quotes", "bars", "trades")
OTHER_CHANNELS = ("updatedBars", "dailyBars", "orderbooks")  # accepted, and silent: the tape has nothing to say on them
Message = dict[str, Any]


class TradingStream:
    """/stream. `tell` is the desk's listener."""

    def __init__(self, keys: Keys, disturbed: Disturbed) -> None:
        self._keys = keys
        self._disturbed = disturbed
        self._listeners: dict[str, set[Outbox]] = {}

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/stream", self._serve)]

    def tell(self, event: Event) -> None:
        outboxes = self._listeners.get(event.account)
        if not outboxes:
            return
        told = self._disturbed(event)
        for each in told.events:
            message = json.dumps({"stream": "trade_updates", "data": wire.trade_update(each)}, separators=(",", ":"))
            for outbox in outboxes:
                outbox.put(message)
        if told.cut:
            for outbox in outboxes:
                outbox.cut()
            outboxes.clear()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        name = ""
        async with Outbox(socket, request.app[OUTBOXES]) as outbox:
            try:
                async for message in socket:
                    asked = _json(message.data) if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) else None
                    action = asked.get("action") if asked else None
                    if asked and action in ("authenticate", "auth"):
                        data = asked.get("data") or {"key_id": asked.get("key"), "secret_key": asked.get("secret")}
                        account = self._keys.account(str(data.get("key_id")), str(data.get("secret_key")))
                        status = "authorized" if account else "unauthorized"
                        outbox.put(
                            json.dumps({"stream": "authorization", "data": {"action": "authenticate", "status": status}})
                        )
                        name = account.name if account else ""
                    elif asked and action == "listen":
                        streams = (asked.get("data") or {}).get("streams", [])
                        self._listen(name, outbox, wanted=bool(name) and "trade_updates" in streams)
                        outbox.put(json.dumps({"stream": "listening", "data": {"streams": streams if name else []}}))
                    else:
                        outbox.put(json.dumps({"stream": "error", "data": {"message": "use authenticate or listen"}}))
            finally:
                self._listen(name, outbox, wanted=False)
        return socket

    def _listen(self, name: str, outbox: Outbox, *, wanted: bool) -> None:
        listeners = self._listeners.setdefault(name, set())
        if wanted:
            listeners.add(outbox)
        else:
            listeners.discard(outbox)


class _Reader:
    """One connection of the data stream: its form of messages, and what it subscribed to ("*" is everything)."""

    def __init__(self, outbox: Outbox, *, packed: bool) -> None:
        self.outbox = outbox
        self.packed = packed
        self.channels: dict[str, set[str]] = {channel: set() for channel in (*CHANNELS, *OTHER_CHANNELS)}

    def send(self, messages: list[Message]) -> None:
        self.outbox.put(msgpack.packb(messages) if self.packed else json.dumps(messages, separators=(",", ":")))

    def wants(self, channel: str) -> set[str]:
        return self.channels[channel]


class DataStream:
    """The crypto data stream. `publish` is called once per tick."""

    def __init__(self, exchange: SimulatedExchange, keys: Keys) -> None:
        self._exchange = exchange
        self._keys = keys
        self._readers: set[_Reader] = set()

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PREFIX, self._serve)]

    def cut(self) -> None:
        """Disconnect everybody."""
        for reader in self._readers:
            reader.outbox.cut()

    def publish(self) -> None:
        """Tell the present tick: quotes and trades of what is not halted, and the bar that it completes."""
        readers = [reader for reader in self._readers if any(reader.wants(channel) for channel in CHANNELS)]
        if not readers:
            return
        built: dict[tuple[bool, str], list[Message]] = {}
        for reader in readers:
            messages: list[Message] = []
            for channel in CHANNELS:
                wanted = reader.wants(channel)
                if wanted:
                    key = (reader.packed, channel)
                    if key not in built:
                        built[key] = self._messages(channel, packed=reader.packed)
                    every = "*" in wanted
                    messages += [message for message in built[key] if every or message["S"] in wanted]
            if messages:
                reader.send(messages)

    def _messages(self, channel: str, *, packed: bool) -> list[Message]:
        exchange, tick = self._exchange, self._exchange.tick
        if channel == "bars":
            return self._bars(packed) if tick.bar_closed and tick.bar > 0 else []
        at = _time(tick.at_us, packed)
        half = float(exchange.terms.spread_bps) / 2e4
        symbols = exchange.tape.symbols
        live = zip(symbols, tick.prices, tick.volume, map(exchange.halted, symbols), strict=True)
        if channel == "trades":
            return [
                {"T": "t", "S": symbol, "t": at, "p": price, "s": volume, "i": tick.number, "tks": "B"}
                for symbol, price, volume, halted in live
                if not halted
            ]
        return [
            {"T": "q", "S": symbol, "t": at, "bp": price * (1 - half), "bs": volume, "ap": price * (1 + half), "as": volume}
            for symbol, price, volume, halted in live
            if not halted
        ]

    def _bars(self, packed: bool) -> list[Message]:
        tape = self._exchange.tape
        opened = int(tape.bars.ts[self._exchange.tick.bar - 1])
        found = []
        for symbol in tape.symbols:
            for row in bar_rows(self._exchange, symbol, seconds=tape.timeframe.seconds, start=opened, end=opened):
                found.append({"T": "b", "S": symbol, **row, "t": _time(parse_time(row["t"], "t"), packed)})
        return found

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async with Outbox(socket, request.app[OUTBOXES]) as outbox:
            reader = _Reader(outbox, packed="msgpack" in request.headers.get("Content-Type", ""))
            reader.send([{"T": "success", "msg": "connected"}])
            known = False
            try:
                async for message in socket:
                    asked = _unpack(message.data) if message.type == WSMsgType.BINARY else None
                    asked = _json(message.data) if message.type == WSMsgType.TEXT else asked
                    action = asked.get("action") if asked else None
                    if asked and action == "auth":
                        known = self._keys.account(str(asked.get("key")), str(asked.get("secret"))) is not None
                        reader.send([_SUCCESS if known else _error(402, "auth failed")])
                    elif asked and action in ("subscribe", "unsubscribe"):
                        self._readers.add(reader)
                        reader.send([self._subscribe(reader, asked) if known else _error(401, "not authenticated")])
                    else:
                        reader.send([_error(400, "invalid syntax")])
            finally:
                self._readers.discard(reader)
        return socket

    @staticmethod
    def _subscribe(reader: _Reader, asked: Message) -> Message:
        for channel, symbols in reader.channels.items():
            named = asked.get(channel)
            if isinstance(named, Iterable):
                if asked["action"] == "subscribe":
                    symbols.update(map(str, named))
                else:
                    symbols.difference_update(map(str, named))
        return {"T": "subscription"} | {channel: sorted(symbols) for channel, symbols in reader.channels.items()}


_SUCCESS: Message = {"T": "success", "msg": "authenticated"}


def _error(code: int, message: str) -> Message:
    return {"T": "error", "code": code, "msg": message}


def _time(at_us: int, packed: bool) -> Any:
    if not packed:
        return wire.when(at_us)
    return msgpack.Timestamp(at_us // MICROSECONDS, at_us % MICROSECONDS * 1000)


def _json(data: str | bytes) -> Message | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _unpack(data: bytes) -> Message | None:
    try:
        value = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException):
        return None
    return value if isinstance(value, dict) else None
