"""/healthz and /metrics of a trader, from a thread of their own."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from cappuccino.core.errors import Conflict
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.health import Health


class HealthServer:
    """A context: listens inside it. /healthz answers 200 while the trader may trade, else 503; both with the reasons.

    Raises:
        Conflict: the port is in use.
    """

    def __init__(self, host: str, port: int, *, health: Health, metrics: TraderMetrics) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, "text/plain; version=0.0.4", metrics.render())
                elif self.path == "/healthz":
                    trading, report = health.report()
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
