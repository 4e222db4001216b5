"""Logs: one JSON object a line on stderr, unbuffered. Secrets never get there.

A value whose key speaks of a secret is replaced whatever it is; and so is the password of a URL in any text.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

_SECRET_KEY = re.compile(r"secret|password|token_value|api_key|authorization|credential", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s]*):([^@\s]+)@")
REDACTED = "[redacted]"


def configure(*, level: str = "INFO", **bound: str) -> None:
    """Set up logging for the process. `bound` goes on every line. Standard-library loggers join in at WARNING."""
    structlog.configure(
        processors=[
            lambda _, __, event: {**bound, **event},  # not context variables: threads log too
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
        if _SECRET_KEY.search(key):
            event[key] = REDACTED
        elif isinstance(value, str):
            event[key] = _URL_PASSWORD.sub(rf"\1:{REDACTED}@", value)
    return event


class _Forward(logging.Handler):
    """Libraries log through the standard library: one line each, without a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        get_logger(record.name).log(record.levelno, record.getMessage())
