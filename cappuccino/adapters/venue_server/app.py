"""The exchange's HTTP face, put together: one desk, one metronome, Alpaca's endpoints and the control endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from cappuccino.adapters.venue_server import coinbase, wire
from cappuccino.adapters.venue_server.control import Control
from cappuccino.adapters.venue_server.data_rest import DataRest
from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.faults import Disturbed, disturb
from cappuccino.adapters.venue_server.journal import Journal
from cappuccino.adapters.venue_server.keys import Keys
from cappuccino.adapters.venue_server.limits import RateLimit
from cappuccino.adapters.venue_server.metronome import Metronome
from cappuccino.adapters.venue_server.outbox import OUTBOXES, Outbox
from cappuccino.adapters.venue_server.streams import DataStream, TradingStream
from cappuccino.adapters.venue_server.trading_rest import TradingRest
from cappuccino.core.errors import InvariantViolation
from cappuccino.exchange.faults import Plan
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.telemetry.logs import get_logger

DESK = web.AppKey("desk", Desk)


def build_app(
    exchange: SimulatedExchange,
    journal: Journal,
    *,
    speed: float = 0.0,
    free: bool = False,
    start_with: int = 0,
    requests_per_minute: int = 200,
    token: str = "",
    faults: Plan = Plan(),  # noqa: B008 frozen
    refuse_duplicates: bool = False,
) -> web.Application:
    """The application for `exchange`, whose journal is replayed here; the clock runs while the application does.

    Args:
        speed: bars per wall second at most, 0 without limit. free: do not wait for sessions.
        requests_per_minute: per account, of market time; 0 without limit.
        token: the control endpoints' secret, empty for none.
        faults: what is to go wrong; price gaps are the tape's.
        refuse_duplicates: Coinbase's face refuses a client order id that was used, instead of answering with its order.
    """
    desk = Desk(exchange, journal, plan=faults)
    keys = Keys(exchange)
    trades, data = TradingStream(keys, Disturbed(desk)), DataStream(exchange, keys)
    desk.listen(trades.tell)
    second = coinbase.open_face(desk, RateLimit(requests_per_minute), refuse_duplicates=refuse_duplicates)
    desk.listen(second.tell)

    def publish() -> None:
        if desk.strike("quotes", "") is not None:
            data.cut()
            second.cut_quotes()
        else:
            data.publish()
            second.publish()

    metronome = Metronome(desk, publish=publish, speed=speed, free=free, start_with=start_with)
    trading = TradingRest(desk, keys, RateLimit(requests_per_minute))
    app = web.Application(middlewares=[_gone, disturb(desk, [trading.dialect(), second.dialect]), _unknown_path])
    for face in (
        trading,
        DataRest(exchange, keys),
        trades,
        data,
        Control(desk, metronome, token=token),
    ):
        app.add_routes(face.routes())
    app.add_routes(second.routes)

    async def clock(_: web.Application) -> AsyncIterator[None]:
        running = asyncio.create_task(metronome.run())
        running.add_done_callback(partial(_ended, desk))
        yield
        running.cancel()
        with suppress(asyncio.CancelledError, InvariantViolation):
            await running
        journal.close()

    app.cleanup_ctx.append(clock)
    everyone: set[Outbox] = set()
    app.on_shutdown.append(_hang_up)
    app[DESK] = desk
    app[OUTBOXES] = everyone
    return app


async def _hang_up(app: web.Application) -> None:
    everyone = app[OUTBOXES]
    for outbox in list(everyone):
        outbox.close()


def _ended(desk: Desk, clock: asyncio.Task[None]) -> None:
    """A clock that died leaves an exchange that only looks alive."""
    error = None if clock.cancelled() else clock.exception()
    if error is not None:
        desk.fail(error)


@web.middleware
async def _gone(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A client that died in the middle of its request has said nothing and hears nothing."""
    try:
        return await handler(request)
    except ConnectionResetError:
        get_logger("exchange").info("client_gone", method=request.method, path=request.path)
        return web.Response()


@web.middleware
async def _unknown_path(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Alpaca's body for paths and methods that are not there."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as absent:
        code = 40410000 if absent.status == 404 else 40510000
        return wire.error(absent.status, code, f"{request.method} {request.path}: {absent.reason}")
