"""One account and what trades it: its ledger, lease, venue and session, from the start to the end of the process or its stop.

Invariants:
- Mode live trades only what the record permits: at the start, and at every renewal of the lease (controllers/live.py). What
  was approved once may still sell what it holds.
- A broken rule of our own halts the account before the lease runs out: no other process trades in between, and none is let in
  early.
- What waits for a person leaves a simulated market, so that it goes on for the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cappuccino.adapters.alpaca.feeds import LockstepFeed, WallClockFeed
from cappuccino.adapters.postgres.ledger import PostgresLedger
from cappuccino.bundle import Bundle
from cappuccino.controllers.live import terms
from cappuccino.core.errors import (
    PREEMPTED_EXIT_CODE,
    CappuccinoError,
    IntegrityError,
    InvalidInput,
    InvariantViolation,
    RetryLater,
    UserError,
)
from cappuccino.entrypoints.limits import limits_of
from cappuccino.entrypoints.shared import Shared
from cappuccino.entrypoints.traders import TradeSettings
from cappuccino.entrypoints.venues import Venue, fees_posted_later, is_simulated, venue_name, venue_of
from cappuccino.exchange.venue import Costs
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Strategy
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.absent import Absent, contract_of
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.ports import Ledger
from cappuccino.trading.session import Session
from cappuccino.trading.situation import SessionConfig

_STALE_BARS = 2
_RECORD_SECONDS = 1.0  # between two tries to halt an account, or to say that it ended

log = get_logger("trade")


class Portfolio:
    """One account: what it trades, how it stands, until it ends or is told to. See `portfolios.Portfolio`."""

    def __init__(self, settings: TradeSettings, shared: Shared) -> None:
        self.account = settings.account
        self.max_restarts = settings.spec.max_restarts
        self.ended: str | None = None
        self.metrics = TraderMetrics()
        self.health = Health(monotonic=time.monotonic, stale_seconds=None)
        self._settings = settings
        self._shared = shared
        self._stopped = ""
        self._feed: LockstepFeed | WallClockFeed | None = None

    def stop(self, reason: str) -> None:
        self._stopped = reason
        if self._feed is not None:
            self._feed.stop(reason)

    def end(self, reason: str) -> None:
        """See `portfolios.Portfolio`."""
        self.ended = reason or None
        self._insist(lambda: self._ledger().ended(reason), failed="end_not_recorded", reason=reason)

    def run(self) -> int:
        """Raises CappuccinoError with its exit code."""
        settings, shared, spec = self._settings, self._shared, self._settings.spec
        simulated = is_simulated(spec)
        ledger = self._ledger()
        with shared.starting:
            _require_permit(settings, ledger)
            bundle, strategy = _decider(settings, ledger, shared)
            stale_seconds = float(_STALE_BARS * bundle.contract.timeframe.seconds)
            health = self.health = Health(monotonic=time.monotonic, stale_seconds=None if simulated else stale_seconds)
            lease = LeaseKeeper(ledger, seconds=settings.lease_seconds, monotonic=time.monotonic, rounds=shared.leases)
            health.lease_alive, health.database_away = lambda: lease.alive, lambda: lease.database_away
            venue = venue_of(settings, bundle, ledger, shared)
        if isinstance(strategy, Absent):
            strategy.found = lambda: venue.feed.stop("the bundle can be read again")
        session = Session(
            SessionConfig(
                account=settings.account,
                trader_uid=settings.trader_uid,
                bundle_digest=settings.bundle_digest,
                sizing=bundle.sizing,
                limits=limits_of(spec.risk, spec.mode),
                on_halt=spec.on_halt,
                fees_posted_later=fees_posted_later(spec),
                costs=None if isinstance(strategy, Absent) else bundle.costs,
            ),
            strategy=strategy,
            broker=venue.broker,
            ledger=ledger,
            feed=venue.feed,
            lease=lease,
            metrics=self.metrics,
            health=health,
            monotonic=time.monotonic,
            series=shared.series(venue.url or venue.name, bundle.contract),
        )
        self._feed = venue.feed
        if self._stopped:
            venue.feed.stop(self._stopped)
        try:
            return self._trade(session, ledger, lease, venue)
        finally:
            self._feed = None

    def _trade(self, session: Session, ledger: PostgresLedger, lease: LeaseKeeper, venue: Venue) -> int:
        release = True
        try:
            if self._settings.flatten:
                session.flatten()
                venue.leave()
                return 0
            with self._shared.starting:
                session.start()
            stop = session.trade()
            return 0 if stop.finished else PREEMPTED_EXIT_CODE
        except InvariantViolation as error:
            release = False
            self._latch(ledger, f"invariant violation: {error}")
            _leave(venue)
            raise
        except RetryLater:
            if self._stopped:
                return PREEMPTED_EXIT_CODE
            raise
        except (UserError, IntegrityError):
            _leave(venue)
            raise
        finally:
            venue.feed.close()
            lease.close(release=release)

    def _ledger(self) -> PostgresLedger:
        settings, spec = self._settings, self._settings.spec
        return PostgresLedger(
            self._shared.pool,
            account=settings.account,
            venue=venue_name(spec),
            trader_uid=settings.trader_uid,
            holder=settings.trader_uid,
            lease_seconds=settings.lease_seconds,
            terms=terms(spec) if spec.mode == "live" else None,
        )

    def _latch(self, ledger: Ledger, reason: str) -> None:
        """Halt the account. While the database is away this process stays, so that no other one trades before it is halted."""
        self._insist(lambda: ledger.halt(reason), failed="halt_not_recorded", reason=reason)

    def _insist(self, record: Callable[[], None], *, failed: str, reason: str) -> None:
        """Until the database is back, or it is told to stop."""
        while True:
            try:
                record()
                return
            except RetryLater as error:
                log.error(failed, reason=reason, error=str(error))
                if self._stopped:
                    return
                time.sleep(_RECORD_SECONDS)


def _leave(venue: Venue) -> None:
    """A trader that waits for a person must not hold up a simulated market."""
    try:
        venue.leave()
    except RetryLater as error:
        log.warning("not_left", error=str(error))


def _decider(settings: TradeSettings, ledger: PostgresLedger, shared: Shared) -> tuple[Bundle, Strategy]:
    """What is traded, and what decides. A bundle that cannot be read leaves no position unguarded (`trading/absent`).

    Raises:
        CappuccinoError: it cannot be read, and the account has nothing open.
    """

    def read() -> tuple[Bundle, Strategy]:
        return shared.decider(settings.bundle_digest)

    try:
        return read()
    except (CappuccinoError, OSError, ImportError) as error:
        contract = contract_of(ledger.load())
        if contract is None:
            raise
        log.error("guarding_without_a_bundle", symbols=contract.symbols, error=str(error))
        stand_in = Bundle(
            kind="cash",
            contract=contract,
            sizing=Sizing(),
            barriers=Barriers(),
            costs=Costs(),
            capital_usd=settings.spec.capital_usd,
        )
        return stand_in, Absent(contract, look=read)


def _require_permit(settings: TradeSettings, ledger: PostgresLedger) -> None:
    """Raises InvalidInput: it is live, and nobody approved what it is. What was approved once may still sell what it holds."""
    if settings.spec.mode != "live":
        return
    permit = ledger.permit()
    if permit is None or (permit != "standing" and not settings.flatten):
        raise InvalidInput(
            f"trader {settings.trader_uid}: mode live on account {settings.account} has no standing approval for this spec:"
            " approve a candidate of a Deployment with a live section, which starts its Traders itself"
        )
