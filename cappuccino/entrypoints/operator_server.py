"""/healthz, /readyz and /metrics of the operator, from its own event loop: one that hangs does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from aiohttp import web

from cappuccino.core.errors import Conflict
from cappuccino.telemetry.operations import OperatorMetrics

STILL_SECONDS = 60.0  # of due work without a pass coming to its end: then it is not alive


@dataclass(frozen=True, kw_only=True)
class Report:
    """A standby is ready too. `still_seconds` as in KeyedQueue; `role` and `waits_for` are for people."""

    ready: bool
    role: str
    waits_for: str
    still_seconds: float

    @property
    def alive(self) -> bool:
        return self.still_seconds < STILL_SECONDS


@asynccontextmanager
async def serve(host: str, port: int, *, metrics: OperatorMetrics, report: Callable[[], Report]) -> AsyncIterator[None]:
    """Listens inside.

    Raises:
        Conflict: the port is in use.
    """

    async def told(holds: Callable[[Report], bool]) -> web.Response:
        now = report()
        return web.json_response({"alive": now.alive, **asdict(now)}, status=200 if holds(now) else 503)

    async def healthz(_: web.Request) -> web.Response:
        return await told(lambda now: now.alive)

    async def readyz(_: web.Request) -> web.Response:
        return await told(lambda now: now.ready)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Conflict(f"port {host}:{port} is in use: choose another with CAPPUCCINO_HEALTH ({error.strerror})") from error
        yield
    finally:
        await runner.cleanup()
