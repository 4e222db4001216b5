"""alpaca-py's REST clients, made safe: timeouts, no hidden retries, errors sorted by what they prove.

alpaca-py has no timeout and repeats a POST on 429 and 504 by itself; both are changed here, in the one place that
touches its session. Clients answer raw JSON (its models turn quantities into floats).

What an error proves: cappuccino/trading/failures.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from alpaca.data.historical import CryptoHistoricalDataClient
from alpaca.trading.client import TradingClient
from requests.adapters import HTTPAdapter

from cappuccino.trading.failures import DEFINITE, Failure, one_line

_Client = TypeVar("_Client", bound=RESTClient)

CONNECT_SECONDS, READ_SECONDS = 3.05, 10.0
POOL_SIZE = 4


@dataclass(frozen=True, kw_only=True)
class Credentials:
    key_id: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Credentials(key_id={self.key_id[:4]}…)"


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


class Connections(HTTPAdapter):
    """A pool of connections, which several clients may have together: when all are in use the next one waits for its turn."""

    def __init__(self, *, size: int = POOL_SIZE) -> None:
        super().__init__(max_retries=0, pool_maxsize=size, pool_block=True)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or (CONNECT_SECONDS, READ_SECONDS)
        return super().send(*args, **kwargs)


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
    client._session.mount("http://", connections)
    client._session.mount("https://", connections)
    client._session.trust_env = False  # a proxy or .netrc of the machine has no say in where orders go
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
