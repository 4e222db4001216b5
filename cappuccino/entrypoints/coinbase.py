"""What a Trader on Coinbase talks to. Imported only by one that does: it brings the SDK with it."""

from __future__ import annotations

from collections.abc import Sequence

from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.coinbase.broker import CoinbaseBroker
from cappuccino.adapters.coinbase.rest import Endpoints
from cappuccino.adapters.coinbase.streams import Streams
from cappuccino.trading.credentials import Credentials


def reach(
    credentials: Credentials, url: str | None, *, symbols: Sequence[str], inbox: Inbox, orders: bool
) -> tuple[CoinbaseBroker, Streams]:
    """`url`: of a simulated exchange, None for Coinbase itself. `orders`: whether order updates are listened to."""
    endpoints = Endpoints() if url is None else Endpoints.at(url)
    return (
        CoinbaseBroker(credentials, endpoints, symbols=symbols),
        Streams(credentials, endpoints, symbols=symbols, inbox=inbox, orders=orders),
    )
