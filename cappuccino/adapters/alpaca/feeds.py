"""When the session acts: on the simulated exchange's ticks, or on the wall's clock.

Lockstep: the exchange's control socket (docs/architecture.md, "Lockstep") tells each tick and waits for our answer. A
lost connection joins again, and the exchange repeats the tick it waits on. All sessions of a process have one connection, on
which each tick is told once. Outside Alpaca's protocol, simulated only.

Wall clock: a tick at every close of a decision bar plus a grace, in which the venue finishes its bar.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import requests
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.alpaca.rest import CONNECT_SECONDS, READ_SECONDS
from cappuccino.core.clock import Clock, from_epoch, to_epoch
from cappuccino.core.errors import Conflict, InvalidInput, RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import Face
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.ports import Event, Stop, Tick

GRACE_SECONDS = 5.0
_REJOIN_SECONDS = 0.2

log = get_logger(__name__)


class Streams(Protocol):
    """A venue's streams, whichever protocol they speak."""

    def start(self) -> None: ...

    def close(self) -> None: ...


class _Queued:
    """One queue for everything that arrives."""

    def __init__(self, inbox: Inbox, streams: Streams | None) -> None:
        self._inbox = inbox
        self._streams = streams
        self._closing = threading.Event()

    def next(self, timeout_seconds: float) -> Event | None:
        return self._inbox.get(timeout_seconds)

    def stop(self, reason: str) -> None:
        self._inbox.put(Stop(reason=reason))

    def close(self) -> None:
        self._closing.set()
        if self._streams is not None:
            self._streams.close()


@dataclass(kw_only=True)
class _Joined:
    """One session of a line. `told`: number of the last tick that it was told; ticks before `until` are not for it."""

    inbox: Inbox
    told: int = -1
    until: float = 0.0

    def forget(self) -> None:
        self.told, self.until = -1, 0.0


class Lockstep:
    """The control socket of the exchange at `url`, for all sessions of a process. Thread-safe."""

    def __init__(self, url: str, *, token: str) -> None:
        self._url = "ws" + url.rstrip("/").removeprefix("http") + "/control/v1/lockstep"
        self._headers = _bearer(token)
        self._joined: dict[str, _Joined] = {}
        self._lock = threading.Lock()
        self._socket: ClientConnection | None = None
        self._connections = ExitStack()
        self._closing = threading.Event()

    def join(self, account: str, inbox: Inbox) -> None:
        """Raises RetryLater: the exchange is away."""
        with self._lock:
            first = not self._joined
            self._joined[account] = _Joined(inbox=inbox)
            if first:
                try:
                    self._connect()
                except RetryLater:
                    self._joined.clear()
                    raise
                self._closing = threading.Event()
                threading.Thread(target=self._listen, args=(self._closing,), name="lockstep", daemon=True).start()
        if not first:
            self._send({"join": account})

    def acknowledge(self, account: str, tick: Tick, until: datetime | None) -> None:
        answer: dict[str, Any] = {"ack": tick.number, "account": account}
        if until is not None:
            answer["until"] = to_epoch(until)
            if (joined := self._joined.get(account)) is not None:
                joined.until = answer["until"]
        self._send(answer)

    def forget(self, account: str) -> None:
        """Tell this session nothing more; the exchange goes on waiting for it until it leaves or joins again."""
        with self._lock:
            self._joined.pop(account, None)
            if not self._joined:
                self._closing.set()
                self._connections.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            if self._socket is not None:
                self._socket.send(json.dumps(message))
        except (WebSocketException, OSError):
            return  # the listener joins again, and the exchange repeats its tick

    def _connect(self) -> None:
        """Connect and join for everybody."""
        try:
            self._connections.close()
            self._socket = self._connections.enter_context(
                connect(self._url, additional_headers=self._headers, open_timeout=CONNECT_SECONDS, max_size=None, proxy=None)
            )
            for account, joined in list(self._joined.items()):
                joined.forget()
                self._socket.send(json.dumps({"join": account}))
        except (WebSocketException, OSError, TimeoutError) as error:
            raise RetryLater(f"the exchange's lockstep at {self._url} is away: {error}") from error

    def _listen(self, closing: threading.Event) -> None:
        while not closing.is_set():
            try:
                assert self._socket is not None
                for message in self._socket:
                    self._hear(json.loads(message))
                    if closing.is_set():
                        return
            except (WebSocketException, OSError, ValueError) as error:
                log.warning("lockstep_lost", error=str(error))
            while not closing.wait(_REJOIN_SECONDS):
                try:
                    with self._lock:
                        if not closing.is_set():
                            self._connect()
                    break
                except RetryLater:
                    continue

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message.get("ended"):
            self._end(list(self._joined), Stop(reason="the venue's tape ended", finished=True))
        elif "error" in message:
            failed = RetryLater(f"the exchange's lockstep: {message['error']}")
            named = [message["account"]] if "account" in message else list(self._joined)
            self._end(named, Stop(reason="lockstep", failed=failed))
        else:
            number, at = message["tick"], message["at"]
            tick = Tick(number=number, at=from_epoch(at), bar_closed=message["bar_closed"])
            for joined in list(self._joined.values()):
                if joined.told != number and at >= joined.until:
                    joined.told = number
                    joined.inbox.put(tick)

    def _end(self, accounts: Sequence[str], stop: Stop) -> None:
        for account in accounts:
            joined = self._joined.get(account)
            self.forget(account)
            if joined is not None:
                joined.inbox.put(stop)


class LockstepFeed(_Queued):
    """The session of `account` on a line."""

    lockstep = True

    def __init__(self, line: Lockstep, account: str, *, inbox: Inbox, streams: Streams | None) -> None:
        super().__init__(inbox, streams)
        self._line = line
        self._account = account

    def start(self) -> None:
        """Raises RetryLater: the exchange is away."""
        if self._streams is not None:
            self._streams.start()
        self._line.join(self._account, self._inbox)

    def done(self, tick: Tick, *, until: datetime | None) -> None:
        self._line.acknowledge(self._account, tick, until)

    def close(self) -> None:
        super().close()
        self._line.forget(self._account)


class WallClockFeed(_Queued):
    """A tick at every close of a bar of `timeframe`, `grace_seconds` later; a close that was slept through has none."""

    lockstep = False

    def __init__(
        self, timeframe: Timeframe, *, clock: Clock, inbox: Inbox, streams: Streams, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        super().__init__(inbox, streams)
        self._streams: Streams
        self._timeframe = timeframe
        self._clock = clock
        self._grace = timedelta(seconds=grace_seconds)

    def start(self) -> None:
        """Raises RetryLater: a stream does not answer."""
        self._streams.start()
        threading.Thread(target=self._tick, name="bars", daemon=True).start()

    def next(self, timeout_seconds: float) -> Event | None:
        """A tick's age is told as of now."""
        event = super().next(timeout_seconds)
        if not isinstance(event, Tick):
            return event
        return replace(event, age_seconds=(self._clock.now() - event.at).total_seconds())

    def done(self, tick: Tick, *, until: datetime | None) -> None:
        """A real market waits for nobody."""

    def _tick(self) -> None:
        closes = from_epoch(self._timeframe.floor(to_epoch(self._clock.now())) + self._timeframe.seconds)
        while not self._closing.is_set():
            wait = (closes + self._grace - self._clock.now()).total_seconds()
            if wait > 0:
                self._closing.wait(min(wait, 1.0))  # short, so that a clock that jumps is followed
                continue
            closes = from_epoch(self._timeframe.floor(to_epoch(self._clock.now() - self._grace)))
            self._inbox.put(Tick(at=closes, bar_closed=True))
            closes += timedelta(seconds=self._timeframe.seconds)


def open_account(url: str, name: str, *, capital_usd: str, token: str, protocol: Face = "alpaca") -> Credentials:
    """The key of account `name` at a simulated exchange, opened for that protocol if it is not there.

    Raises:
        RetryLater: the exchange is away. Conflict: it is there with another capital or protocol. InvalidInput: it is refused.
    """
    where = f"{url.rstrip('/')}/control/v1/accounts"
    try:
        answer = _post(where, {"name": name, "capital_usd": capital_usd, "protocol": protocol}, token)
        body = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise RetryLater(f"the exchange at {url} is away: {type(error).__name__}") from error
    if answer.status_code in (200, 201):
        return Credentials(key_id=body["key_id"], secret_key=body["secret_key"])
    kind: Callable[[str], Exception] = Conflict if answer.status_code == 409 else InvalidInput
    if answer.status_code >= 500:
        kind = RetryLater
    raise kind(f"the exchange at {url} does not open account {name}: {body.get('message', answer.status_code)}")


def leave(url: str, account: str, *, token: str) -> None:
    """The exchange need not wait for `account` any more. Raises RetryLater."""
    try:
        requests.delete(
            f"{url.rstrip('/')}/control/v1/sessions/{account}", headers=_bearer(token), timeout=(CONNECT_SECONDS, READ_SECONDS)
        ).raise_for_status()
    except requests.RequestException as error:
        raise RetryLater(f"the exchange at {url} is away: {type(error).__name__}") from error


def _post(url: str, body: Mapping[str, Any], token: str) -> requests.Response:
    return requests.post(url, json=body, headers=_bearer(token), timeout=(CONNECT_SECONDS, READ_SECONDS))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
