"""Time comes in as an argument. Wall time drives requeue, leases and back-off; market time
(the venue's clock) drives soak, freshness and grades. Both are aware UTC datetimes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from cappuccino.core.errors import InvalidInput


class Clock(Protocol):
    def now(self) -> datetime:
        """The current time, aware, UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class FixedClock:
    """A clock that moves only when told to."""

    def __init__(self, at: datetime) -> None:
        self._at = utc(at)

    def now(self) -> datetime:
        return self._at

    def advance(self, seconds: float) -> None:
        self._at += timedelta(seconds=seconds)


def utc(value: datetime) -> datetime:
    """`value` in UTC.

    Raises:
        InvalidInput: the value has no time zone.
    """
    if value.tzinfo is None:
        raise InvalidInput(f"timestamp {value.isoformat()} has no time zone: write it in UTC, as 2024-01-01T00:00:00Z")
    return value.astimezone(UTC)


def from_epoch(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def to_epoch(value: datetime) -> int:
    return int(utc(value).timestamp())


def iso(value: datetime) -> str:
    """RFC 3339 with seconds and Z, the form of Kubernetes."""
    return utc(value).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_iso(text: str) -> datetime:
    try:
        return utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not an RFC 3339 timestamp: write 2024-01-01T00:00:00Z") from error
