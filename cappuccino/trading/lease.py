"""The lease on the account: who may send, and whether the account is halted.

A keeper renews once a second of wall time from its own thread, and once a bar from the session (whichever comes
first), and learns of a halt in the same answer. What counts is its own monotonic clock, started before each
renewal was asked for: a process that was paused past the lease, or a wall clock that jumped, finds itself without
one. The database judges every intent once more, by its clock and the fencing token.

While the database is away the lease runs on to its end: until then protective exits may be sent, after it nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cappuccino.core.errors import RetryLater
from cappuccino.trading.ports import Fenced, Ledger

RENEW_SECONDS = 1.0
MARGIN_SECONDS = 1.0  # we stop this much before the database would give the account away


class LeaseKeeper:
    """Thread-safe. `seconds` is the length that the ledger asks for."""

    def __init__(self, ledger: Ledger, *, seconds: float, monotonic: Callable[[], float]) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._deadline = float("-inf")
        self._lost = False
        self._database_away = False
        self._halted_reason: str | None = None
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        with self._lock:
            return not self._lost and self._monotonic() < self._deadline - MARGIN_SECONDS

    @property
    def halted_reason(self) -> str | None:
        with self._lock:
            return self._halted_reason

    @property
    def database_away(self) -> bool:
        """Whether the last renewal went unanswered: entries stop."""
        with self._lock:
            return self._database_away

    def acquire(self) -> None:
        """Take the account and keep it.

        Raises:
            RetryLater: another holder's lease is alive, or the database is away.
        """
        asked = self._monotonic()
        state = self._ledger.acquire()
        if not state.held:
            raise RetryLater(
                "the account is leased to another holder: it is free when that one stops", after_seconds=self._seconds
            )
        with self._lock:
            self._deadline = asked + self._seconds
            self._halted_reason = state.halted_reason
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """One renewal. A database that is away changes nothing but `database_away`."""
        asked = self._monotonic()
        try:
            state = self._ledger.renew()
        except RetryLater:
            with self._lock:
                self._database_away = True
            return
        with self._lock:
            self._database_away = False
            self._halted_reason = state.halted_reason
            if state.held:
                self._deadline = max(self._deadline, asked + self._seconds)
            else:
                self._lost = True

    def check(self) -> None:
        """Raises Fenced when the lease is lost or ran out."""
        if not self.alive:
            raise Fenced("the lease on the account is lost: another holder took it, or it could not be renewed in time")

    def close(self, *, release: bool) -> None:
        """Stop renewing; with `release`, let the next holder in at once."""
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=RENEW_SECONDS + 1)
        if release and self.alive:
            try:
                self._ledger.release()
            except RetryLater:
                return  # it runs out by itself

    def _keep(self) -> None:
        while not self._wake.wait(RENEW_SECONDS):
            self.renew()
