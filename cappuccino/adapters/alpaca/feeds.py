"""When the session acts: on the simulated exchange's ticks, or on the wall's clock.

Lockstep: the exchange's control socket (docs/architecture.md, "Lockstep") tells each tick and waits for our answer. A
lost connection joins again, and the exchange repeats the tick it waits on. Outside Alpaca's protocol, simulated only.

Wall clock: a tick at every close of a decision bar plus a grace, in which the venue finishes its bar.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import requests
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from cappuccino.adapters.alpaca.rest import CONNECT_SECONDS, READ_SECONDS, Credentials
from cappuccino.adapters.alpaca.streams import Inbox, Streams
from cappuccino.core.clock import Clock, from_epoch, to_epoch
from cappuccino.core.errors import Conflict, InvalidInput, RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.ports import Event, Stop, Tick

GRACE_SECONDS = 5.0
_REJOIN_SECONDS = 0.2

log = get_logger(__name__)


class _Queued:
    """One queue for everything that arrives."""

    def __init__(self, inbox: Inbox, streams: Streams | None) -> None:
        self._inbox = inbox
        self._streams = streams
        self._closing = threading.Event()

    def next(self, timeout_seconds: float) -> Event | None:
        try:
            return self._inbox.get(timeout=max(timeout_seconds, 0.0))
        except queue.Empty:
            return None

    def stop(self, reason: str) -> None:
        self._inbox.put(Stop(reason=reason))

    def close(self) -> None:
        self._closing.set()
        if self._streams is not None:
            self._streams.close()


class LockstepFeed(_Queued):
    """Joins `account` to the exchange at `url`."""

    lockstep = True

    def __init__(self, url: str, account: str, *, token: str, inbox: Inbox, streams: Streams | None) -> None:
        super().__init__(inbox, streams)
        self._url = "ws" + url.rstrip("/").removeprefix("http") + "/control/v1/lockstep"
        self._headers = _bearer(token)
        self._account = account
        self._socket: ClientConnection | None = None
        self._connections = ExitStack()

    def start(self) -> None:
        """Raises RetryLater: the exchange is away."""
        if self._streams is not None:
            self._streams.start()
        self._join()
        threading.Thread(target=self._listen, name="lockstep", daemon=True).start()

    def done(self, tick: Tick, *, until: datetime | None) -> None:
        answer: dict[str, Any] = {"ack": tick.number}
        if until is not None:
            answer["until"] = to_epoch(until)
        self._send(answer)

    def close(self) -> None:
        super().close()
        self._connections.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            if self._socket is not None:
                self._socket.send(json.dumps(message))
        except (WebSocketException, OSError):
            return  # the listener joins again, and the exchange repeats its tick

    def _join(self) -> None:
        try:
            self._connections.close()
            self._socket = self._connections.enter_context(
                connect(self._url, additional_headers=self._headers, open_timeout=CONNECT_SECONDS, max_size=None, proxy=None)
            )
            self._socket.send(json.dumps({"join": self._account}))
        except (WebSocketException, OSError, TimeoutError) as error:
            raise RetryLater(f"the exchange's lockstep at {self._url} is away: {error}") from error

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                assert self._socket is not None
                for message in self._socket:
                    self._hear(json.loads(message))
                    if self._closing.is_set():
                        return
            except (WebSocketException, OSError, ValueError) as error:
                log.warning("lockstep_lost", error=str(error))
            while not self._closing.wait(_REJOIN_SECONDS):
                try:
                    self._join()
                    break
                except RetryLater:
                    continue

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message.get("ended"):
            self._inbox.put(Stop(reason="the venue's tape ended", finished=True))
            self._closing.set()
        elif "error" in message:
            self._inbox.put(Stop(reason="lockstep", failed=RetryLater(f"the exchange's lockstep: {message['error']}")))
            self._closing.set()
        else:
            at = from_epoch(message["at"])
            self._inbox.put(Tick(number=message["tick"], at=at, bar_closed=message["bar_closed"]))


class WallClockFeed(_Queued):
    """A tick at every close of a bar of `timeframe`, `grace_seconds` later."""

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

    def done(self, tick: Tick, *, until: datetime | None) -> None:
        """A real market waits for nobody."""

    def _tick(self) -> None:
        closes = from_epoch(self._timeframe.floor(to_epoch(self._clock.now())) + self._timeframe.seconds)
        while not self._closing.is_set():
            wait = (closes + self._grace - self._clock.now()).total_seconds()
            if wait > 0:
                self._closing.wait(min(wait, 1.0))  # short, so that a clock that jumps is followed
                continue
            age = (self._clock.now() - closes).total_seconds()
            self._inbox.put(Tick(at=closes, bar_closed=True, age_seconds=age))
            closes += timedelta(seconds=self._timeframe.seconds)


def open_account(url: str, name: str, *, capital_usd: str, token: str) -> Credentials:
    """The key of account `name` at a simulated exchange, opened if it is not there.

    Raises:
        RetryLater: the exchange is away. Conflict: it is there with another capital. InvalidInput: it is refused.
    """
    where = f"{url.rstrip('/')}/control/v1/accounts"
    try:
        answer = _post(where, {"name": name, "capital_usd": capital_usd}, token)
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
