"""The SDK's REST client, made safe: timeouts, no redirects, errors sorted by what they prove. Every request is made once.

What an error proves: cappuccino/trading/failures.py. Beyond it `success: false` of an order, which is told with 200, is a
definite refusal, and 401 may be plain text, as Coinbase says it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import requests
from coinbase.rest import RESTClient
from coinbase.rest.rest_base import logger as sdk_logger
from requests.adapters import HTTPAdapter

from cappuccino.trading.credentials import Credentials
from cappuccino.trading.failures import DEFINITE, Failure, one_line

CONNECT_SECONDS, READ_SECONDS = 3.05, 10.0
API = "/api/v3/brokerage"


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """One venue: `host` of its REST, with a port if need be, and the URLs of its two websockets."""

    host: str = "api.coinbase.com"
    market_stream: str = "wss://advanced-trade-ws.coinbase.com"
    user_stream: str = "wss://advanced-trade-ws-user.coinbase.com"
    plain: bool = False

    @classmethod
    def at(cls, url: str) -> Endpoints:
        """A simulated exchange at one base URL."""
        scheme, _, host = url.rstrip("/").partition("://")
        sockets = f"{'wss' if scheme == 'https' else 'ws'}://{host}"
        return cls(
            host=host,
            market_stream=f"{sockets}/advanced-trade-ws",
            user_stream=f"{sockets}/advanced-trade-ws-user",
            plain=scheme == "http",
        )


class _Transport(HTTPAdapter):
    """`plain`: the SDK writes https into every URL; a simulated exchange speaks HTTP."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__(max_retries=0)
        self._plain = plain

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = (CONNECT_SECONDS, READ_SECONDS)
        if self._plain and request.url is not None:
            request.url = "http" + request.url.removeprefix("https")
        return super().send(request, *args, **kwargs)


def rest_client(credentials: Credentials, endpoints: Endpoints) -> RESTClient:
    client = RESTClient(api_key=credentials.key_id, api_secret=credentials.secret_key, base_url=endpoints.host)
    client.session.mount("https://", _Transport(plain=endpoints.plain))
    client.session.trust_env = False  # a proxy or .netrc of the machine has no say in where orders go
    client.session.max_redirects = 0
    sdk_logger.disabled = True  # it writes every refusal to stderr; what matters is logged where it is decided
    return client


def failure_of(error: Exception) -> Failure:
    """What `error`, raised by a client, proves."""
    response = error.response if isinstance(error, requests.HTTPError) else None
    if response is None:
        return Failure(definite=False, status=None, code=type(error).__name__, message=one_line(str(error)))
    status, text = response.status_code, response.text
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if isinstance(body, dict):
        told = one_line(str(body.get("message") or body.get("error_details") or text))
        return Failure(definite=status in DEFINITE, status=status, code=str(body.get("error") or status), message=told)
    plain_401 = status == 401 and "html" not in response.headers.get("Content-Type", "")
    return Failure(definite=plain_401, status=status, code=str(status), message=one_line(text) or "empty body")
