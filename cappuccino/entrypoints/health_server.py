"""/healthz and /metrics of a process that trades, from a thread of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol

from cappuccino.core.errors import Conflict
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics, render_together
from cappuccino.trading.health import Health


class Portfolio(Protocol):
    """`health` is that of the present session. `ended`: why there will be none any more."""

    metrics: TraderMetrics
    ended: str | None

    @property
    def health(self) -> Health: ...


class HealthServer:
    """A context: listens inside it. /healthz answers 200 while the trader may trade, else 503; both with the reasons.

    With several portfolios /healthz answers 200 while all of them may trade, and tells each by its account, as /healthz/ACCOUNT
    does for one; each sample of /metrics then has the account as its label.

    Raises:
        Conflict: the port is in use.
    """

    def __init__(self, host: str, port: int, portfolios: Mapping[str, Portfolio]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, _, account = self.path.strip("/").partition("/")
                if self.path == "/metrics":
                    self._answer(200, "text/plain; version=0.0.4", _metrics(portfolios))
                elif kind == "healthz" and (not account or account in portfolios):
                    trading, report = _report(portfolios[account]) if account else _reports(portfolios)
                    self._answer(200 if trading else 503, "application/json", json.dumps(report).encode())
                else:
                    self._answer(404, "text/plain", b"see /healthz and /metrics\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
                """Scrapes are not news."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise Conflict(
                f"health port {host}:{port} is in use: choose another with --health-port ({error.strerror})"
            ) from error
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> HealthServer:
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        get_logger(__name__).info("health_listening", port=self.port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _metrics(portfolios: Mapping[str, Portfolio]) -> bytes:
    if len(portfolios) == 1:
        return next(iter(portfolios.values())).metrics.render()
    return render_together({account: each.metrics for account, each in portfolios.items()})


def _report(portfolio: Portfolio) -> tuple[bool, dict[str, Any]]:
    trading, report = portfolio.health.report()
    return trading and portfolio.ended is None, report | {"ended": portfolio.ended}


def _reports(portfolios: Mapping[str, Portfolio]) -> tuple[bool, dict[str, Any]]:
    reports = {account: _report(each) for account, each in portfolios.items()}
    if len(reports) == 1:
        return next(iter(reports.values()))
    trading = all(may for may, _ in reports.values())
    return trading, {"trading": trading, "portfolios": {account: report for account, (_, report) in reports.items()}}
