"""What a trader says of itself to whoever asks: the truth about trading, not that a process runs. Thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from cappuccino.core.clock import from_epoch, iso


class Health:
    """Written by the session, read by the endpoint. `stale_seconds`: without a bar for so long it is not healthy."""

    def __init__(self, *, monotonic: Callable[[], float], stale_seconds: float | None) -> None:
        """`stale_seconds` None: the venue's time does not follow the wall's, staleness says nothing."""
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._stale_seconds = stale_seconds
        self._started = False
        self._last_bar_closed: int | None = None
        self._bar_seen: float | None = None
        self._decided: int | None = None
        self._equity: Decimal | None = None
        self._reconciled: datetime | None = None
        self.halted: str | None = None
        self.degraded: str | None = None  # why no decision is made; barriers go on
        self.lease_alive: Callable[[], bool] = lambda: False
        self.database_away: Callable[[], bool] = lambda: False

    def started(self) -> None:
        with self._lock:
            self._started = True

    def bar(self, closed: int) -> None:
        with self._lock:
            self._last_bar_closed, self._bar_seen = closed, self._monotonic()

    def committed(self, bar: int, equity: Decimal) -> None:
        with self._lock:
            self._decided, self._equity = bar, equity

    def reconciled(self, at: datetime) -> None:
        with self._lock:
            self._reconciled = at

    def report(self) -> tuple[bool, dict[str, Any]]:
        """(whether it may trade now, why and on what grounds)."""
        with self._lock:
            age = None if self._bar_seen is None else self._monotonic() - self._bar_seen
            lease, away = self.lease_alive(), self.database_away()
            stale = self._stale_seconds is not None and (age is None or age > self._stale_seconds)
            trading = self._started and lease and not away and not stale and self.halted is None and self.degraded is None
            return trading, {
                "trading": trading,
                "started": self._started,
                "halted": self.halted,
                "degraded": self.degraded,
                "lease": lease,
                "database_away": away,
                "last_bar_closed_at": None if self._last_bar_closed is None else iso(from_epoch(self._last_bar_closed)),
                "data_age_seconds": None if age is None else round(age, 3),
                "stale": stale,
                "last_decision_bar_at": None if self._decided is None else iso(from_epoch(self._decided)),
                "last_reconciliation_at": None if self._reconciled is None else iso(self._reconciled),
                "equity_usd": None if self._equity is None else str(self._equity),
            }
