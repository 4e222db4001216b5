"""Traces: spans over OTLP/HTTP where the environment asks for them, and nothing otherwise.

    with traces.exported("train"):              # around the work of the process
        with traces.span("trial", number=3):    # around a part of it
            ...

OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_TRACES_EXPORTER (otlp, console, none) switch it on; the
other OTEL_ variables hold as the specification says. Off, a span costs a microsecond and OpenTelemetry is not imported.

The parent of a span: the `traceparent` it is given, else the span that it is inside of, else TRACEPARENT of the environment.
What goes wrong with exporting is logged and never reaches the work.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from cappuccino.core.identifiers import TRACEPARENT
from cappuccino.telemetry.redaction import redacted, redacted_text

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

CLOSE_SECONDS = 3.0  # what the end of a process waits for its last spans
_IDLE = "cappuccino.idle"
_log = logging.getLogger(__name__)
_tracer: Tracer | None = None


class Span(Protocol):
    def set(self, **attributes: str | float | bool) -> None: ...

    def drop(self) -> None:
        """Nothing happened in it: do not export it."""
        ...


class _Nothing:
    def set(self, **attributes: str | float | bool) -> None: ...

    def drop(self) -> None: ...


NOTHING: Span = _Nothing()


@contextmanager
def exported(process: str) -> Iterator[None]:
    """Spans that end inside are exported, as of the service `cappuccino-<process>`; the last ones before this returns."""
    global _tracer
    exporter = _exporter()
    if exporter is None:
        yield
        return
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class Kept(BatchSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            if not (span.attributes or {}).get(_IDLE):
                super().on_end(span)

    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or f"cappuccino-{process}"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(Kept(exporter))
    _tracer = provider.get_tracer("cappuccino")
    try:
        yield
    finally:
        _tracer = None
        closing = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)  # a collector may be away
        closing.start()
        closing.join(CLOSE_SECONDS)


@contextmanager
def span(name: str, /, *, traceparent: str | None = None, **attributes: str | float | bool) -> Iterator[Span]:
    """An exception that leaves it marks it as failed, with its message."""
    if _tracer is None:
        yield NOTHING
        return
    from opentelemetry.trace import StatusCode

    with _tracer.start_as_current_span(
        name, context=_parent(traceparent), record_exception=False, set_status_on_exception=False
    ) as started:
        telling = _Telling(started)
        telling.set(**attributes)
        try:
            yield telling
        except Exception as error:
            started.set_status(StatusCode.ERROR, redacted_text(f"{type(error).__name__}: {error}"))
            raise


def enabled() -> bool:
    return _tracer is not None


def trace_id() -> str | None:
    """Of the span that the caller is inside of."""
    if _tracer is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span

    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


class _Telling:
    def __init__(self, started: Any) -> None:
        self._span = started

    def set(self, **attributes: str | float | bool) -> None:
        self._span.set_attributes({f"cappuccino.{key}": redacted(key, value) for key, value in attributes.items()})

    def drop(self) -> None:
        self._span.set_attribute(_IDLE, True)


def _parent(traceparent: str | None) -> Context | None:
    """None is the span that the caller is inside of."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if traceparent is None:
        if get_current_span().get_span_context().is_valid:
            return None
        traceparent = os.environ.get(TRACEPARENT, "")
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _exporter() -> SpanExporter | None:
    """What the environment asks for."""
    asked = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or asked == "none" or not (asked or endpoint):
        return None
    if asked in ("", "otlp"):
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol not in (None, "", "http/protobuf"):
            _log.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %s, spans go out as http/protobuf: name an HTTP endpoint", protocol)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    if asked == "console":
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    _log.warning("OTEL_TRACES_EXPORTER is %s, nothing is traced: use otlp, console or none", asked)
    return None
