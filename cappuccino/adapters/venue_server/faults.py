"""Where faults befall the wire: requests in one middleware, stream events in `Disturbed`; the same for every face.

A face says of its own requests what they are and how it refuses (`Dialect`); the desk says what befalls them and writes it down
before it has any effect. Websockets and the control endpoints are not touched.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.exchange.faults import Operation
from cappuccino.exchange.orders import Event
from cappuccino.exchange.tape import MICROSECONDS

SKEW = web.RequestKey("skew_us", int)  # by how much the venue's clock is off in this request
RESET_SECONDS = 1.0
_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One face. `operation`: None for what is not the face's; `account`: whose request it is, "" when nobody's;
    `refuse`: the face's body for a status and a message, with the headers given."""

    operation: Callable[[web.Request], Operation | None]
    account: Callable[[web.Request], str]
    refuse: Callable[[int, str, dict[str, str]], web.Response]


def disturb(desk: Desk, dialects: Sequence[Dialect]) -> Middleware:
    """The middleware that lets faults befall the requests of these faces."""

    @web.middleware
    async def disturbed(request: web.Request, handler: Handler) -> web.StreamResponse:
        if desk.undisturbed or "Upgrade" in request.headers:
            return await handler(request)
        for dialect in dialects:
            operation = dialect.operation(request)
            if operation is not None:
                return await _serve(desk, dialect, operation, request, handler)
        return await handler(request)

    return disturbed


async def _serve(
    desk: Desk, dialect: Dialect, operation: Operation, request: web.Request, handler: Handler
) -> web.StreamResponse:
    fault = desk.strike(operation, dialect.account(request), subject=await _subject(request))
    match None if fault is None else fault.kind:
        case "request_lost":
            return _cut(request)
        case "answer_lost":
            await handler(request)
            return _cut(request)
        case "request_late":
            assert fault is not None
            desk.later(_after(fault.seconds, handler, request))
            return _cut(request)
        case "rate_limited":
            reset = desk.exchange.tick.at_us / MICROSECONDS + RESET_SECONDS
            limits = {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{reset:.0f}"}
            return dialect.refuse(429, "rate limit exceeded", limits)
        case "error_before":
            return dialect.refuse(503, "service unavailable", {})
        case "error_after":
            await handler(request)
            return dialect.refuse(500, "internal server error", {})
        case "html_before":
            return web.Response(status=502, text=_PAGE, content_type="text/html")
        case "html_after":
            await handler(request)
            return web.Response(text=_PAGE, content_type="text/html")
    assert fault is None or fault.kind in ("slow", "delayed", "clock_skew")
    if fault is None:
        return await handler(request)
    if fault.kind == "delayed":
        await asyncio.sleep(fault.seconds)
    if fault.kind == "clock_skew":
        request[SKEW] = round(fault.seconds * MICROSECONDS)
    response = await handler(request)
    if fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
    return response


async def _after(seconds: float, handler: Handler, request: web.Request) -> None:
    await asyncio.sleep(seconds)
    await handler(request)


def _cut(request: web.Request) -> web.Response:
    """Disconnect without an answer; the response that is returned has nowhere to go."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _subject(request: web.Request) -> str:
    """The client order id that the request is about, else its path."""
    if request.method == "POST":
        try:
            body = json.loads(await request.read())
        except ValueError:
            body = None
        if isinstance(body, dict) and isinstance(body.get("client_order_id"), str):
            return str(body["client_order_id"])
    return request.query.get("client_order_id", request.path)


@dataclass(frozen=True, slots=True)
class Told:
    """What the listeners of an account hear in place of one event. `cut`: they are disconnected instead."""

    events: tuple[Event, ...]
    cut: bool = False


class Disturbed:
    """The events of one face's stream, as faults leave them. Ask only for accounts that somebody listens to."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._late: dict[str, list[Event]] = {}

    def __call__(self, event: Event) -> Told:
        if self._desk.undisturbed and not self._late:
            return Told((event,))
        fault = self._desk.strike("event", event.account, subject=event.order.client_order_id)
        kind = "" if fault is None else fault.kind
        if kind == "event_late":
            self._late.setdefault(event.account, []).append(event)
            return Told(())
        late = tuple(self._late.pop(event.account, ()))
        if kind == "stream_cut":
            return Told((), cut=True)
        return Told({"event_lost": late, "event_twice": (event, event, *late)}.get(kind, (event, *late)))
