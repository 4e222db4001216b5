"""alpaca-py's two streams, feeding inboxes. All streams of a process run in one thread, on one event loop.

They reconnect by themselves and replay nothing: after every connection but the first a Gap tells the session to ask
over REST. A stream counts as ready when the venue has confirmed what we listen to. Quotes are the same for everybody: one
`QuoteStream` serves all sessions of a process; order updates are an account's own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alpaca.data.live.crypto import CryptoDataStream
from alpaca.trading.stream import TradingStream

from cappuccino.adapters.alpaca import wire
from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.alpaca.rest import Endpoints
from cappuccino.core.errors import CappuccinoError, InvariantViolation, RetryLater
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.ports import Gap, Stop

READY_SECONDS = 15.0
_UNREADABLE = (KeyError, TypeError, ValueError, ArithmeticError, CappuccinoError)


class StreamLoop:
    """The event loop of a process's streams, in a thread that starts with the first one."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, stream: _Trades | _Quotes) -> None:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="streams", daemon=True).start()
        asyncio.run_coroutine_threadsafe(stream._run_forever(), self._loop)


class _Readiness:
    """Says Gap on every confirmation but the first."""

    def __init__(self, name: str, tell: Callable[[Gap], None]) -> None:
        self._name = name
        self._tell = tell
        self._event = threading.Event()

    def confirmed(self) -> None:
        if self._event.is_set():
            self._tell(Gap(stream=self._name))
        self._event.set()

    def wait(self) -> None:
        """Raises RetryLater when it is not ready within READY_SECONDS."""
        if not self._event.wait(READY_SECONDS):
            raise RetryLater(f"the venue's stream of {self._name} does not answer")


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


class QuoteStream:
    """Quotes of `symbols`, for every inbox that listens."""

    def __init__(self, credentials: Credentials, endpoints: Endpoints, *, symbols: Sequence[str], loop: StreamLoop) -> None:
        self._loop = loop
        self._symbols = wire.Symbols(symbols)
        self._stream = _Quotes(credentials.key_id, credentials.secret_key, raw_data=True, url_override=endpoints.data_stream)
        self._stream.ready = _Readiness("quotes", self._tell_all)
        self._stream.subscribe_quotes(self._on_quote, *symbols)
        self._lock = threading.Lock()
        self._listening: dict[Inbox, frozenset[str]] = {}
        self._inboxes: Mapping[str, Sequence[Inbox]] = {}
        self._started = False

    def listen(self, inbox: Inbox, symbols: Sequence[str]) -> None:
        """Returns when the quotes come. Raises RetryLater."""
        with self._lock:
            self._listening[inbox] = frozenset(symbols)
            self._arrange()
            if not self._started:
                self._started = True
                self._loop.run(self._stream)
        self._stream.ready.wait()

    def forget(self, inbox: Inbox) -> None:
        with self._lock:
            self._listening.pop(inbox, None)
            self._arrange()

    def close(self) -> None:
        _end(self._stream)

    def _arrange(self) -> None:
        every = {symbol for symbols in self._listening.values() for symbol in symbols}
        self._inboxes = {s: tuple(inbox for inbox, wanted in self._listening.items() if s in wanted) for s in every}

    def _tell_all(self, gap: Gap) -> None:
        for inbox in tuple(self._listening):
            inbox.put(gap)

    async def _on_quote(self, message: Any) -> None:
        try:
            at = message["t"].to_datetime()
            quote = wire.quote(self._symbols(message["S"]), message, at)
        except (*_UNREADABLE, AttributeError):
            return  # the next one comes
        for inbox in self._inboxes.get(quote.symbol, ()):
            inbox.put(quote)


class Streams:
    """Order updates and quotes of `symbols` into `inbox`."""

    def __init__(
        self,
        credentials: Credentials,
        endpoints: Endpoints,
        *,
        symbols: Sequence[str],
        inbox: Inbox,
        orders: bool = True,
        loop: StreamLoop | None = None,
        quotes: QuoteStream | None = None,
    ) -> None:
        """`orders` False: quotes only, for a trader that sends nothing. `quotes` None: a stream of its own, which ends with
        it."""
        self._inbox = inbox
        self._names = tuple(symbols)
        self._symbols = wire.Symbols(symbols)
        self._loop = loop or StreamLoop()
        self._own_quotes = quotes is None
        self._quotes = quotes or QuoteStream(credentials, endpoints, symbols=symbols, loop=self._loop)
        self._trades: _Trades | None = None
        if orders:
            key, secret = credentials.key_id, credentials.secret_key
            trades = _Trades(key, secret, paper=endpoints.paper, raw_data=True, url_override=endpoints.trading_stream or "")
            trades.ready = _Readiness("orders", inbox.put)
            trades.subscribe_trade_updates(self._on_update)
            self._trades = trades

    def start(self) -> None:
        """Returns when both are listening. Raises RetryLater when they are not within READY_SECONDS."""
        if self._trades is not None:
            self._loop.run(self._trades)
        self._quotes.listen(self._inbox, self._names)
        if self._trades is not None:
            self._trades.ready.wait()

    def close(self) -> None:
        """Ask them to end; nobody waits for it."""
        self._quotes.forget(self._inbox)
        if self._own_quotes:
            self._quotes.close()
        if self._trades is not None:
            _end(self._trades)

    async def _on_update(self, message: Mapping[str, Any]) -> None:
        try:
            self._inbox.put(wire.update(message["data"], self._symbols))
        except InvariantViolation as error:
            self._inbox.put(Stop(reason="an order state we do not know", failed=error))
        except _UNREADABLE:
            self._inbox.put(Gap(stream="orders"))  # what it said is asked for over REST


def _end(stream: _Trades | _Quotes) -> None:
    loop: asyncio.AbstractEventLoop | None = stream._loop
    if loop is not None and loop.is_running():
        asyncio.run_coroutine_threadsafe(stream.stop_ws(), loop)
