"""The exchange's second face: Coinbase Advanced Trade's REST and websockets over the same book."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from cappuccino.adapters.venue_server.coinbase.face import Face
from cappuccino.adapters.venue_server.coinbase.keys import CdpKeys
from cappuccino.adapters.venue_server.coinbase.market import Market
from cappuccino.adapters.venue_server.coinbase.streams import Streams
from cappuccino.adapters.venue_server.coinbase.trading import Trading
from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.faults import Dialect, Disturbed
from cappuccino.adapters.venue_server.limits import RateLimit
from cappuccino.exchange.orders import Event


@dataclass(frozen=True, kw_only=True)
class Open:
    """What the application needs of the face: where it is, what it is told, how faults sound."""

    routes: Sequence[web.RouteDef]
    dialect: Dialect
    tell: Callable[[Event], None]
    publish: Callable[[], None]
    cut_quotes: Callable[[], None]


def open_face(desk: Desk, limit: RateLimit, *, refuse_duplicates: bool) -> Open:
    face = Face(desk, CdpKeys(desk.exchange), limit)
    streams = Streams(face, Disturbed(desk))
    parts = (Trading(face, refuse_duplicates=refuse_duplicates), Market(face), streams)
    routes = [route for part in parts for route in part.routes()]
    return Open(
        routes=routes, dialect=face.dialect(), tell=streams.tell, publish=streams.publish, cut_quotes=streams.cut_quotes
    )
