"""The lease on the account: who may send, and whether the account is halted.

A lease is renewed once a second of wall time by the thread of `Rounds`, which renews those of all sessions of the process
at once, and once a bar from the session (whichever comes first); a halt is learned in the same answer. What counts is our own
monotonic clock, started before each renewal was asked for: a process that was paused past the lease, or a wall clock that
jumped, finds itself without one. The database judges every intent once more, by its clock and the fencing token.

While the database is away the lease runs on to its end: until then protective exits may be sent, after it nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from cappuccino.core.errors import RetryLater
from cappuccino.trading.ports import Fenced, LeaseState, Ledger

RENEW_SECONDS = 1.0
LONGEST_ROUND_SECONDS = 10.0  # then whoever waits for one goes on, and looks at its lease
MARGIN_SECONDS = 1.0  # we stop this much before the database would give the account away


def one_by_one(ledgers: Sequence[Ledger]) -> Sequence[LeaseState]:
    return [ledger.renew() for ledger in ledgers]


class LeaseKeeper:
    """Thread-safe. `seconds` is the length that the ledger asks for. `rounds`: by whom it is renewed; None: by itself alone."""

    def __init__(self, ledger: Ledger, *, seconds: float, monotonic: Callable[[], float], rounds: Rounds | None = None) -> None:
        self.ledger = ledger
        self._seconds = seconds
        self._monotonic = monotonic
        self._rounds = rounds or Rounds(one_by_one, monotonic=monotonic)
        self._lock = threading.Lock()
        self._deadline = float("-inf")
        self._lost = False
        self._database_away = False
        self._halted_reason: str | None = None

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
        state = self.ledger.acquire()
        if not state.held:
            raise RetryLater(
                "the account is leased to another holder: it is free when that one stops", after_seconds=self._seconds
            )
        with self._lock:
            self._deadline = asked + self._seconds
            self._halted_reason = state.halted_reason
        self._rounds.join(self)

    def renew(self) -> None:
        """One renewal. A database that is away changes nothing but `database_away`."""
        self._rounds.renew(self)

    def answered(self, asked: float, state: LeaseState) -> None:
        """A renewal that was asked for at `asked`, monotonic seconds."""
        with self._lock:
            self._database_away = False
            self._halted_reason = state.halted_reason
            if state.held:
                self._deadline = max(self._deadline, asked + self._seconds)
            else:
                self._lost = True

    def unanswered(self) -> None:
        with self._lock:
            self._database_away = True

    def check(self) -> None:
        """Raises Fenced when the lease is lost or ran out."""
        if not self.alive:
            raise Fenced("the lease on the account is lost: another holder took it, or it could not be renewed in time")

    def close(self, *, release: bool) -> None:
        """Stop renewing; with `release`, let the next holder in at once."""
        self._rounds.leave(self)
        if release and self.alive:
            try:
                self.ledger.release()
            except RetryLater:
                return  # it runs out by itself


class Rounds:
    """Renews the leases of all keepers that joined, once a second, in one call, from one thread. Whoever asks for a renewal in
    between gets the next round, together with all others that ask."""

    def __init__(self, renew: Callable[[Sequence[Ledger]], Sequence[LeaseState]], *, monotonic: Callable[[], float]) -> None:
        """`renew` answers in the order of the ledgers, or raises RetryLater for all of them."""
        self._renew = renew
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._keepers: list[LeaseKeeper] = []
        self._thread: threading.Thread | None = None
        self._asked = False
        self._begun = self._ended = 0

    def join(self, keeper: LeaseKeeper) -> None:
        with self._changed:
            self._keepers.append(keeper)
            if not self._running:
                self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
                self._thread.start()

    def leave(self, keeper: LeaseKeeper) -> None:
        with self._changed:
            if keeper not in self._keepers:
                return
            self._keepers.remove(keeper)
            self._changed.notify_all()
            last, self._thread = (None, self._thread) if self._keepers else (self._thread, None)
        if last is not None:
            last.join(timeout=RENEW_SECONDS + 1)

    def renew(self, keeper: LeaseKeeper) -> None:
        """Returns when `keeper` was renewed, or could not be, by a round that began after the call."""
        with self._changed:
            if len(self._keepers) > 1 and self._running:
                wanted, self._asked = self._begun + 1, True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ended >= wanted, timeout=LONGEST_ROUND_SECONDS)
                return
        self._round([keeper])

    @property
    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._thread is not threading.current_thread(), RENEW_SECONDS)
                if self._thread is not threading.current_thread():
                    return
                self._asked = False
                self._begun += 1
                keepers = list(self._keepers)
            try:
                self._round(keepers)
            finally:
                with self._changed:
                    self._ended = self._begun
                    self._changed.notify_all()

    def _round(self, keepers: Sequence[LeaseKeeper]) -> None:
        asked = self._monotonic()
        try:
            states = self._renew([keeper.ledger for keeper in keepers])
        except RetryLater:
            for keeper in keepers:
                keeper.unanswered()
            return
        for keeper, state in zip(keepers, states, strict=True):
            keeper.answered(asked, state)
