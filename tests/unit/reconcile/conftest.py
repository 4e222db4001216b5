"""Logs as in a process of ours: structlog's own default draws a traceback so slowly that it holds up the event loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from cappuccino.telemetry.logs import configure


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    before = logging.getLogger().handlers[:]
    configure(process="test")
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before
