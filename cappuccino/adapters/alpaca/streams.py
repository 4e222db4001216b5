"""alpaca-py's two streams in threads of their own, feeding one queue.

They reconnect by themselves and replay nothing: after every connection but the first a Gap tells the session to ask
over REST. A stream counts as ready when the venue has confirmed what we listen to.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from alpaca.data.live.crypto import CryptoDataStream
from alpaca.trading.stream import TradingStream

from cappuccino.adapters.alpaca import wire
from cappuccino.adapters.alpaca.rest import Credentials, Endpoints
from cappuccino.core.errors import CappuccinoError, InvariantViolation, RetryLater
from cappuccino.trading.ports import Event, Gap, Stop

READY_SECONDS = 15.0
_UNREADABLE = (KeyError, TypeError, ValueError, ArithmeticError, CappuccinoError)

Inbox = queue.SimpleQueue[Event]


class _Readiness:
    """Says Gap on every confirmation but the first."""

    def __init__(self, name: str, inbox: Inbox) -> None:
        self._name = name
        self._inbox = inbox
        self.event = threading.Event()

    def confirmed(self) -> None:
        if self.event.is_set():
            self._inbox.put(Gap(stream=self._name))
        self.event.set()


class _Trades(TradingStream):
    ready: _Readiness

    async def _dispatch(self, msg: Any) -> None:
        if msg.get("stream") == "listening":
            self.ready.confirmed()
        await super()._dispatch(msg)


class _Quotes(CryptoDataStream):
    ready: _Readiness

    async def _dispatch(self, msg: Any) -> None:
        if msg.get("T") == "subscription":
            self.ready.confirmed()
        await super()._dispatch(msg)


class Streams:
    """Order updates and quotes of `symbols` into `inbox`."""

    def __init__(
        self, credentials: Credentials, endpoints: Endpoints, *, symbols: Sequence[str], inbox: Inbox, orders: bool = True
    ) -> None:
        """`orders` False: quotes only, for a trader that sends nothing."""
        self._inbox = inbox
        self._symbols = wire.Symbols(symbols)
        key, secret = credentials.key_id, credentials.secret_key
        self._quotes = _Quotes(key, secret, raw_data=True, url_override=endpoints.data_stream)
        self._quotes.ready = _Readiness("quotes", inbox)
        self._quotes.subscribe_quotes(self._on_quote, *symbols)
        self._streams: list[_Trades | _Quotes] = [self._quotes]
        if orders:
            trades = _Trades(key, secret, paper=endpoints.paper, raw_data=True, url_override=endpoints.trading_stream or "")
            trades.ready = _Readiness("orders", inbox)
            trades.subscribe_trade_updates(self._on_update)
            self._streams.append(trades)

    def start(self) -> None:
        """Returns when both are listening. Raises RetryLater when they are not within READY_SECONDS."""
        for stream in self._streams:
            threading.Thread(target=stream.run, name=type(stream).__name__, daemon=True).start()
        for stream in self._streams:
            if not stream.ready.event.wait(READY_SECONDS):
                raise RetryLater(f"the venue's {type(stream).__name__.strip('_').lower()} stream does not answer")

    def close(self) -> None:
        """Ask both to end; their threads are daemons, nobody waits for them."""
        for stream in self._streams:
            loop: asyncio.AbstractEventLoop | None = stream._loop
            if loop is not None and loop.is_running():
                asyncio.run_coroutine_threadsafe(stream.stop_ws(), loop)

    async def _on_update(self, message: Mapping[str, Any]) -> None:
        try:
            self._inbox.put(wire.update(message["data"], self._symbols))
        except InvariantViolation as error:
            self._inbox.put(Stop(reason="an order state we do not know", failed=error))
        except _UNREADABLE:
            self._inbox.put(Gap(stream="orders"))  # what it said is asked for over REST

    async def _on_quote(self, message: Any) -> None:
        try:
            at = message["t"].to_datetime()
            self._inbox.put(wire.quote(self._symbols(message["S"]), message, at))
        except (*_UNREADABLE, AttributeError):
            return  # the next one comes
