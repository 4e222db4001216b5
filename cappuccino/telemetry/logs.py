"""Logs: one JSON object a line on stderr, unbuffered. Secrets never get there (redaction.py).

A line that is written inside a span carries its trace_id.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

from cappuccino.telemetry import traces
from cappuccino.telemetry.redaction import redacted


def configure(*, level: str = "INFO", **bound: str) -> None:
    """Set up logging for the process. `bound` goes on every line, and what is bound in a thread on those of that thread
    (structlog.contextvars). Standard-library loggers join in at WARNING."""
    structlog.configure(
        processors=[
            lambda _, __, event: {**bound, **event},  # not context variables: threads log too
            structlog.contextvars.merge_contextvars,
            _with_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(component=name))


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: take secrets out of a line."""
    for key, value in event.items():
        event[key] = redacted(key, value)
    return event


def _with_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (trace_id := traces.trace_id()) is not None:
        event["trace_id"] = trace_id
    return event


class _Forward(logging.Handler):
    """Libraries log through the standard library: one line each, an error with its traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        trace = record.exc_info if record.levelno >= logging.ERROR else None
        get_logger(record.name).log(record.levelno, record.getMessage(), **({"exc_info": trace} if trace else {}))
