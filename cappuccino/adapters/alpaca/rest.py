"""alpaca-py's REST clients, made safe: timeouts, no hidden retries, errors sorted by what they prove.

alpaca-py has no timeout and repeats a POST on 429 and 504 by itself; both are changed here, in the one place that
touches its session. Clients answer raw JSON (its models turn quantities into floats).

What an error proves: cappuccino/trading/failures.py.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from alpaca.data.historical import CryptoHistoricalDataClient
from alpaca.trading.client import TradingClient
from requests.adapters import HTTPAdapter

from cappuccino.trading.credentials import Credentials
from cappuccino.trading.failures import DEFINITE, Failure, one_line

_Client = TypeVar("_Client", bound=RESTClient)

CONNECT_SECONDS, READ_SECONDS = 3.05, 10.0
POOL_SIZE = 4


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """URLs of one venue; None: Alpaca's own for paper or live."""

    rest: str | None = None
    data: str | None = None
    trading_stream: str | None = None
    data_stream: str | None = None
    paper: bool = True

    @classmethod
    def at(cls, url: str) -> Endpoints:
        """Every face of a simulated exchange at one base URL."""
        base = url.rstrip("/")
        sockets = "ws" + base.removeprefix("http")
        return cls(rest=base, data=base, trading_stream=f"{sockets}/stream", data_stream=f"{sockets}/v1beta3/crypto/us")


class _Turns:
    """Lets `size` threads in at once, the others in the order in which they came: whoever leaves hands its place to the first
    that waits, and is the last one itself when it comes back. (A semaphore would let it in again before those that wake up.)"""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


class Connections(HTTPAdapter):
    """A pool of connections, which several clients may have together: when all are in use the next one waits for its turn."""

    def __init__(self, *, size: int = POOL_SIZE) -> None:
        super().__init__(max_retries=0, pool_maxsize=size, pool_block=True)
        self._turns = _Turns(size)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or (CONNECT_SECONDS, READ_SECONDS)
        with self._turns:
            answer = super().send(*args, **kwargs)
            _ = answer.content  # read here, where the turn is
            return answer


class _Session(requests.Session):
    """Sends what it is given, and that is all: no cookies, no redirect, no proxy or .netrc of the machine, which have no say in
    where orders go. Their handling would be a fifth of what a request costs."""

    def request(self, method: str, url: str, **asked: Any) -> requests.Response:  # type: ignore[override]
        prepared = requests.PreparedRequest()
        headers = {**self.headers, **asked["headers"]}
        prepared.prepare(method=method, url=url, headers=headers, params=asked.get("params"), json=asked.get("json"))
        return self.get_adapter(url).send(prepared)


def trading_client(credentials: Credentials, endpoints: Endpoints, connections: Connections) -> TradingClient:
    return _safe(
        TradingClient(
            credentials.key_id, credentials.secret_key, paper=endpoints.paper, raw_data=True, url_override=endpoints.rest
        ),
        connections,
    )


def data_client(credentials: Credentials, endpoints: Endpoints, connections: Connections) -> CryptoHistoricalDataClient:
    return _safe(
        CryptoHistoricalDataClient(credentials.key_id, credentials.secret_key, raw_data=True, url_override=endpoints.data),
        connections,
    )


def _safe(client: _Client, connections: Connections) -> _Client:
    client._session = _Session()
    client._session.mount("http://", connections)
    client._session.mount("https://", connections)
    client._retry = 0
    return client


def failure_of(error: Exception) -> Failure:
    """What `error`, raised by a client, proves."""
    if not isinstance(error, APIError):
        return Failure(definite=False, status=None, code=type(error).__name__, message=one_line(str(error)))
    status = error.status_code
    text = str(error)
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return Failure(definite=False, status=status, code=str(status), message=one_line(text) or "empty body")
    code = str(body.get("code", status))
    return Failure(definite=status in DEFINITE, status=status, code=code, message=one_line(str(body.get("message", text))))
