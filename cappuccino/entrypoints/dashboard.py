"""The dashboard: one page and three JSON lists of the record, under the role `dashboard`, which may only read.

`/` the page, `/api/v1/studies`, `/api/v1/candidates` and `/api/v1/accounts`, and `/healthz`: 200 while the database answers.
There is no login: whoever reaches the port reads the record. The page has no script, and every text in it is escaped.
Traders are halted and resumed with the caller's own rights at the API server (halting.py); the dashboard has none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, partial
from importlib.resources import files
from typing import Any, get_args

from aiohttp import web
from jinja2 import Environment, StrictUndefined, Template

from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.overview import Overview
from cappuccino.core.clock import iso
from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.entrypoints import halting
from cappuccino.entrypoints.settings import API_SERVER, API_SERVER_CA, DATABASE_URL, required
from cappuccino.search.trials import TrialState
from cappuccino.telemetry.logs import configure, get_logger

LIMIT = 200
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(
    overview: Overview, *, now: Callable[[], datetime], api_server: halting.ApiServer | None = None
) -> web.Application:
    async def page(_: web.Request) -> web.Response:
        text = _template().render(
            at=iso(now()),
            limit=LIMIT,
            states=get_args(TrialState),
            studies=await overview.studies(),
            candidates=await overview.candidates(),
            accounts=await overview.accounts(),
        )
        return web.Response(text=text, content_type="text/html")

    async def rows(_: web.Request, *, read: Callable[[], Awaitable[Sequence[Any]]]) -> web.Response:
        return web.json_response({"items": [asdict(row) for row in await read()]}, dumps=_json)

    async def healthz(_: web.Request) -> web.Response:
        await overview.check()
        return web.Response(text="ok\n")

    app = web.Application(middlewares=[_away], client_max_size=halting.BODY_MAX)
    app.on_response_prepare.append(_protect)
    app.router.add_get("/", page)
    app.router.add_get("/healthz", healthz)
    for name in ("studies", "candidates", "accounts"):
        app.router.add_get(f"/api/v1/{name}", partial(rows, read=getattr(overview, name)))
    halting.add_routes(app, api_server)
    return app


@web.middleware
async def _away(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RetryLater as away:
        get_logger(__name__).warning("database_away", reason=str(away))
        return web.Response(status=503, text="the database is away: try again in a moment\n", headers={"Retry-After": "5"})


async def _protect(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"money": _money, "time": _time}
    return environment.from_string((files("cappuccino.entrypoints") / "dashboard.html.j2").read_text(encoding="utf-8"))


def _money(value: Decimal | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _time(value: datetime | None) -> str:
    return "–" if value is None else iso(value)


def _json(document: Any) -> str:
    """Money as text, which keeps it exact; times as everywhere."""
    return json.dumps(document, default=lambda value: iso(value) if isinstance(value, datetime) else str(value))


async def _serve(url: str, host: str, port: int, api_server: halting.ApiServer | None) -> None:
    pool = await open_async_pool(url, "dashboard")
    app = build_app(Overview(pool, limit=LIMIT), now=lambda: datetime.now(UTC), api_server=api_server)
    runner = web.AppRunner(app, access_log=None)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InvalidInput(f"cannot listen on {host}:{port} ({error.strerror}): correct --host or --port") from error
        get_logger(__name__).info("listening", host=host, port=runner.addresses[0][1])
        await stop.wait()
    finally:
        await runner.cleanup()
        await pool.close()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dashboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(argv)
    configure(process="dashboard")
    api_server = halting.ApiServer.of(os.environ.get(API_SERVER, ""), os.environ.get(API_SERVER_CA, ""))
    asyncio.run(_serve(required(DATABASE_URL), options.host, options.port, api_server))
    return 0
