"""Coinbase's user channel and tickers in threads of their own, feeding one queue.

The SDK's websocket client is not used: it does not check certificates and gives up silently (docs/decisions/0013). Each socket
subscribes to heartbeats as well, so that silence means that it is dead. Every message of a connection has the next number: a
hole in them, and every connection but the first, is a Gap, and the session asks over REST. The user channel is cumulative and
may repeat itself, which changes nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from coinbase.jwt_generator import build_ws_jwt
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from cappuccino.adapters.coinbase import wire
from cappuccino.adapters.coinbase.rest import CONNECT_SECONDS, Endpoints
from cappuccino.core.clock import parse_iso
from cappuccino.core.errors import CappuccinoError, InvariantViolation, RetryLater
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.ports import Event, Gap, Stop

READY_SECONDS = 15.0
SILENT_SECONDS = 10.0  # without a message, heartbeats included
PAUSES_SECONDS = (0.2, 5.0)  # first and longest pause before the next connection
_UNREADABLE = (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, CappuccinoError)

Raw = Mapping[str, Any]

log = get_logger(__name__)


class Inbox(Protocol):
    def put(self, event: Event, /) -> None: ...


class _Socket:
    """One connection after another to `url`, subscribed to `channel`; `hear` gets each of its events."""

    def __init__(
        self,
        url: str,
        channel: str,
        *,
        credentials: Credentials,
        products: Sequence[str],
        inbox: Inbox,
        hear: Callable[[Raw, Raw], None],
    ) -> None:
        self.name = "orders" if channel == "user" else "quotes"
        self.ready = threading.Event()
        self._url, self._channel, self._credentials = url, channel, credentials
        self._products, self._inbox, self._hear = list(products), inbox, hear
        self._closing = threading.Event()
        self._socket: ClientConnection | None = None
        self._confirmed = False  # by the present connection
        self._pause = PAUSES_SECONDS[0]

    def run(self) -> None:
        while not self._closing.is_set():
            self._confirmed = False
            try:
                with connect(self._url, open_timeout=CONNECT_SECONDS, max_size=None, proxy=None) as self._socket:
                    self._subscribe(self._socket)
                    self._read(self._socket)
            except (WebSocketException, OSError, *_UNREADABLE) as error:
                if not self._closing.is_set():
                    log.warning("stream_lost", stream=self.name, error=f"{type(error).__name__}: {error}")
            self._pause = PAUSES_SECONDS[0] if self._confirmed else min(self._pause * 2, PAUSES_SECONDS[1])
            self._closing.wait(self._pause)

    def close(self) -> None:
        self._closing.set()
        if self._socket is not None:
            self._socket.close()

    def _subscribe(self, socket: ClientConnection) -> None:
        for channel, products in ((self._channel, self._products), ("heartbeats", [])):
            token = build_ws_jwt(self._credentials.key_id, self._credentials.secret_key)
            socket.send(json.dumps({"type": "subscribe", "channel": channel, "product_ids": products, "jwt": token}))

    def _read(self, socket: ClientConnection) -> None:
        """Until the connection ends."""
        expected: int | None = None
        while not self._closing.is_set():
            message = json.loads(socket.recv(timeout=SILENT_SECONDS))
            if message.get("type") == "error":
                raise RetryLater(f"the venue refuses the subscription: {message.get('message')}")
            number = int(message["sequence_num"])
            if expected is not None and number > expected:
                self._missed(f"{number - expected} messages before number {number}")
            expected = max(number + 1, expected or 0)
            if message["channel"] == "subscriptions":
                if self._channel in message["events"][0]["subscriptions"] and not self._confirmed:
                    self._confirmed = True
                    if self.ready.is_set():
                        self._missed("what came before it was connected again")
                    self.ready.set()
            elif message["channel"] == self._channel:
                for event in message["events"]:
                    self._hear(message, event)

    def _missed(self, what: str) -> None:
        log.warning("stream_gap", stream=self.name, missed=what)
        self._inbox.put(Gap(stream=self.name))


class Streams:
    """Order updates and quotes of `symbols` into `inbox`."""

    def __init__(
        self, credentials: Credentials, endpoints: Endpoints, *, symbols: Sequence[str], inbox: Inbox, orders: bool = True
    ) -> None:
        """`orders` False: quotes only, for a trader that sends nothing."""
        self._inbox = inbox
        products = [wire.product(symbol) for symbol in symbols]

        def socket(url: str, channel: str, hear: Callable[[Raw, Raw], None]) -> _Socket:
            return _Socket(url, channel, credentials=credentials, products=products, inbox=inbox, hear=hear)

        self._sockets = [socket(endpoints.market_stream, "ticker", self._on_ticker)]
        if orders:
            self._sockets.append(socket(endpoints.user_stream, "user", self._on_orders))

    def start(self) -> None:
        """Returns when all are listening. Raises RetryLater when they are not within READY_SECONDS."""
        for socket in self._sockets:
            threading.Thread(target=socket.run, name=f"coinbase-{socket.name}", daemon=True).start()
        for socket in self._sockets:
            if not socket.ready.wait(READY_SECONDS):
                raise RetryLater(f"the venue's stream of {socket.name} does not answer")

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()

    def _on_orders(self, message: Raw, event: Raw) -> None:
        for raw in event.get("orders") or ():
            try:
                self._inbox.put(wire.update(raw, parse_iso(message["timestamp"])))
            except InvariantViolation as error:
                self._inbox.put(Stop(reason="an order state we do not know", failed=error))
            except _UNREADABLE:
                self._inbox.put(Gap(stream="orders"))  # what it said is asked for over REST

    def _on_ticker(self, message: Raw, event: Raw) -> None:
        for raw in event.get("tickers") or ():
            try:
                at = parse_iso(message["timestamp"])
                self._inbox.put(wire.quote(raw, at, bid=raw["best_bid"], ask=raw["best_ask"]))
            except _UNREADABLE:
                continue  # the next one comes
