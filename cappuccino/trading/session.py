"""One trader at work: what a tick of the market makes it do.

    bar closes -> features -> view -> decide -> risk -> commit (decision, memory, state, equity in one transaction)
    -> sells, until settled -> buys, fitted to the cash that is then there, until settled -> barriers on every quote

Invariants:
- It trades only after reconciliation, with features warmed up on the venue's own bars, under a live lease.
- The decision is a row before any of its orders exists; every order's id follows from the decision. A process that
  dies anywhere is continued (see `rebalance`), and nothing is done twice.
- While the venue or the database is away no bar is decided and nothing is bought; barriers go on: on every quote, before
  anything else, until the lease runs out. What could not be done is tried again after a while (see `outage`). What the
  venue refuses to tell while something is at stake counts as away, and the trader as degraded.
- Halted: no entries, barriers go on; then `on_halt` (hold, cancel open orders, flatten).
- A strategy that fails holds: the bar is recorded with the reason, barriers go on, and the circuit breaker counts it.
  So it is, without a bar, while the venue gives no history to warm up on and something is held.

On a venue that does not wait, a bar that closed while trader or venue was away gets no decision; the newest one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from cappuccino.core.clock import from_epoch, iso, parse_iso
from cappuccino.core.errors import CappuccinoError, RetryLater, UserError
from cappuccino.core.failpoints import reach
from cappuccino.core.money import dec
from cappuccino.strategies.interface import Strategy
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.telemetry.traces import span
from cappuccino.trading.blotter import Blotter
from cappuccino.trading.book import Book
from cappuccino.trading.decider import Decider
from cappuccino.trading.desk import Desk
from cappuccino.trading.drift import DriftMeter
from cappuccino.trading.fees import FeeSchedule
from cappuccino.trading.guard import Guard
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.outage import Outage
from cappuccino.trading.ports import Broker, Feed, Fenced, Ledger, Recovery, Stop, Tick
from cappuccino.trading.rebalance import Rebalance
from cappuccino.trading.recovery import reconcile
from cappuccino.trading.situation import SessionConfig, Situation
from cappuccino.trading.state import TraderState
from cappuccino.trading.window import Series, Window

IDLE_SECONDS = 0.2  # between two looks at the lease when nothing arrives
WARM_AGAIN_SECONDS = 30.0  # between two tries to take in a history that the venue did not give
RECONCILE_BARS = 24

log = get_logger(__name__)


class Session:
    """One thread owns it."""

    def __init__(
        self,
        config: SessionConfig,
        *,
        strategy: Strategy,
        broker: Broker,
        ledger: Ledger,
        feed: Feed,
        lease: LeaseKeeper,
        metrics: TraderMetrics,
        health: Health,
        monotonic: Callable[[], float],
        series: Series | None = None,
    ) -> None:
        """`series`: of the strategy's contract, shared with other sessions; None: its own."""
        self._config = config
        self._strategy = strategy
        self._broker, self._ledger, self._feed, self._lease = broker, ledger, feed, lease
        self._metrics, self._health, self._monotonic = metrics, health, monotonic
        self._window = Window(strategy.contract, broker, series)
        self._bars_since_agreement = 0
        self._outage = Outage(monotonic, lockstep=feed.lockstep)
        self._no_history = self._refused = ""  # why it is degraded, beside a strategy that fails
        self._due: Tick | None = None
        self._due_since = self._warmed_at = monotonic()
        self._in: Situation
        self._guard: Guard
        self._rebalance: Rebalance
        self._decider: Decider

    # --- life ---------------------------------------------------------------------------------------

    def run(self) -> Stop:
        """Trade until the venue's tape ends or a stop is asked for, which is returned.

        Raises:
            Fenced, RetryLater: start again later. UserError, IntegrityError, InvariantViolation: as their names say.
        """
        self.start()
        return self.trade()

    def trade(self) -> Stop:
        """What `run` does after the start."""
        while True:
            stop = self._in.desk.stop_requested()
            if stop is not None and (self._due is None or not stop.finished):
                return self._end(stop)
            try:
                self._turn()
            except Fenced:
                raise
            except RetryLater as error:
                log.warning("waiting", error=str(error), seconds=round(self._outage.failed(error), 1))
                self._lease.check()
                self._in.desk.stopping()

    def start(self) -> None:
        """Everything before the first tick: what `open` does, warm-up, what was left unfinished."""
        self._open()
        at = self._in
        at.baseline = self._ledger.baseline(at.state.opening_cash)
        self._tell()
        self._warm_up()
        self._rebalance.complete()
        at.record()
        self._health.started()
        log.info("trading", cash=str(at.blotter.book.cash), positions=len(at.blotter.book.holdings), last_bar=at.state.last_bar)

    def _warm_up(self) -> None:
        """Take in the history; while the venue does not give it, what is held is guarded, and nothing is decided."""
        self._warmed_at = self._monotonic()
        try:
            self._window.warm_up(self._in.now)
        except CappuccinoError as error:
            if not self._in.state.watches:
                raise
            log.warning("no_history", error=str(error))
            self._no_history = f"no history: {error}"
        else:
            self._no_history = ""
        self._tell()

    def flatten(self) -> None:
        """Reconcile, sell everything, and end: what a deleted trader leaves behind is cash. Needs no model and no history.

        Raises:
            RetryLater: something could not be sold now.
        """
        self._open(entries=False)
        at = self._in
        at.state.step = "done"
        with self._refusals_wait():
            self._guard.flatten()
        at.record()
        if at.sellable:
            raise RetryLater(f"{', '.join(at.sellable)} could not be sold now")

    def _open(self, *, entries: bool = True) -> None:
        """Lease, journal, streams, reconciliation. `entries` False: buys that never reached the venue are not sent again."""
        self._lease.acquire()
        recovered = self._ledger.load()
        if recovered.state is not None:
            state = TraderState.from_json(recovered.state)
        else:
            state = TraderState(opening_cash=self._broker.account().cash_usd)
        self._assemble(state, recovered)
        self._in.desk.wanted = self._rebalance.wanted if entries else lambda intent: intent.is_exit
        self._in.desk.cancel_entries = lambda: self._config.on_halt != "hold" and self._lease.halted_reason is not None
        self._feed.start()
        self._reconcile(self._certain_until)

    def _assemble(self, state: TraderState, recovered: Recovery) -> None:
        contract = self._strategy.contract
        state.bar_seconds = contract.timeframe.seconds
        rules, costs = self._broker.rules(contract.symbols), self._config.costs
        blotter = Blotter(
            self._ledger,
            fees=FeeSchedule({s: r.min_trade_increment for s, r in rules.items()}),
            metrics=self._metrics,
            ask_for_fees=not self._config.fees_posted_later,
            drift=None if costs is None else DriftMeter(costs, bar_seconds=contract.timeframe.seconds),
        )
        opening = Book(cash=state.opening_cash, smallest={s: r.min_order_size for s, r in rules.items()})
        blotter.restore(book=opening, orders=recovered.orders, fills=recovered.fills)
        desk = Desk(
            blotter,
            broker=self._broker,
            ledger=self._ledger,
            feed=self._feed,
            lease=self._lease,
            metrics=self._metrics,
            monotonic=self._monotonic,
        )
        desk.now = self._broker.now()
        self._in = Situation(
            config=self._config,
            symbols=contract.symbols,
            bar_seconds=contract.timeframe.seconds,
            broker=self._broker,
            ledger=self._ledger,
            lease=self._lease,
            desk=desk,
            rules=rules,
            state=state,
            metrics=self._metrics,
            health=self._health,
            monotonic=self._monotonic,
        )
        if not self._feed.lockstep:
            desk.max_spread = dec(self._config.limits.max_spread)
        self._guard = Guard(self._in, lockstep=self._feed.lockstep)
        self._rebalance = Rebalance(self._in)
        memory = recovered.decision.memory if recovered.decision is not None else {}
        self._decider = Decider(self._in, self._strategy, self._window, self._guard, memory=memory)

    def _end(self, stop: Stop) -> Stop:
        if stop.failed is not None:
            raise stop.failed
        with self._refusals_wait():
            if stop.finished:
                self._reconcile(self._certain_until)
            elif self._config.on_halt != "hold":
                self._in.desk.cancel_open()
        self._in.record()
        log.info("ended", reason=stop.reason, cash=str(self._in.blotter.book.cash))
        return stop

    # --- one event ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        """One event, or one idle moment: what is held is guarded, then, unless something is away, all else is done."""
        desk = self._in.desk
        self._take_due()
        if self._outage.seconds_left or (self._due is None and not desk.gap):
            desk.pump(min(self._outage.seconds_left or IDLE_SECONDS, IDLE_SECONDS))
        self._lease.check()
        with self._refusals_wait():
            if not self._feed.lockstep:
                self._guard.look_at_news()
            self._guard.apply_halt()
            if not self._outage.seconds_left:
                self._work()
                self._outage.ended()
                if self._refused:
                    self._refused = ""
                    self._tell()

    def _work(self) -> None:
        """What needs the venue and the database. Safe to repeat."""
        desk = self._in.desk
        if not self._feed.lockstep:
            self._guard.ask_for_silent()
        if desk.gap:
            self._reconcile(self._certain_until)
        if desk.blotter.unwritten and not self._lease.database_away:
            self._in.record()
        if not self._window.warm and self._monotonic() - self._warmed_at > WARM_AGAIN_SECONDS:
            self._warm_up()
        if self._due is not None:
            self._tick(self._due)
            self._due = None

    def _take_due(self) -> None:
        """The tick to act on: in lockstep the next, as the market waits; elsewhere the newest, and the others were missed."""
        deferred = self._in.desk.deferred
        ticks = [event for event in deferred if isinstance(event, Tick)]
        if not ticks or (self._feed.lockstep and self._due is not None):
            return
        for tick in ticks[:1] if self._feed.lockstep else ticks:
            deferred.remove(tick)
            if self._due is not None:
                log.warning("bar_missed", closed_at=iso(self._due.at))
            self._due, self._due_since = tick, self._monotonic()

    @contextmanager
    def _refusals_wait(self) -> Iterator[None]:
        """What the venue refuses to tell while something is at stake is asked for again later: it is guarded until then."""
        try:
            yield
        except UserError as error:
            if not self._in.exposed:
                raise
            self._refused, self._in.desk.gap = str(error), True  # what was to be learned may be missing
            self._tell()
            raise RetryLater(str(error)) from error

    def _tick(self, tick: Tick) -> None:
        """Act on an instant. Safe to repeat: every part knows whether it was done."""
        at = self._in
        if not self._feed.lockstep:
            waited = self._monotonic() - self._due_since
            tick = replace(tick, age_seconds=max(tick.age_seconds + waited, (at.now - tick.at).total_seconds()))
        at.desk.now = tick.at if self._feed.lockstep else max(at.now, tick.at)
        if tick.bar_closed and not self._window.warm:
            self._warm_up()
        if tick.bar_closed and self._window.warm:
            started = self._monotonic()
            self._lease.renew()
            self._lease.check()
            closed = self._window.take(tick.at)
            self._health.bar(closed)
            self._metrics.last_bar.set(closed)
            with span("decision", account=self._config.account, bar=iso(from_epoch(self._window.newest.ts))):
                if at.state.last_bar < self._window.newest.ts:
                    self._rebalance.complete()  # a decision that a newer bar overtook ends late
                    self._decider.decide(tick)
                    self._tell()
                self._rebalance.complete()
            self._metrics.decided(self._monotonic() - started)
            self._bars_since_agreement += 1
            if self._bars_since_agreement >= RECONCILE_BARS:
                self._reconcile(self._certain_until)
        if self._feed.lockstep:
            at.await_quotes(tick.at, at.state.watches)
            self._guard.look([s for s in at.state.watches if at.quoted(s, tick.at)])
            self._guard.apply_halt()
        if at.desk.stop_requested() is None:
            flat = not at.state.watches and not at.blotter.unfinished
            next_close = from_epoch(self._window.floor(tick.at) + at.bar_seconds)
            self._feed.done(tick, until=next_close if flat else None)
            reach("acknowledged")

    def _tell(self) -> None:
        degraded = self._refused or self._no_history or self._in.state.failure
        self._health.degraded = degraded or None
        self._metrics.degraded.set(1 if degraded else 0)

    # --- agreement ----------------------------------------------------------------------------------

    @property
    def _certain_until(self) -> datetime:
        """Fills before it are in the book for certain: of the newest one, or of the last agreement where that is older (a fill
        of an order that we had given up may have come, unheard, before the newest)."""
        fills, agreed = self._in.blotter.recent_fills, self._in.state.reconciled_at
        newest = fills[-1].filled_at if fills else self._in.now
        return min(newest, parse_iso(agreed)) if agreed else newest

    def _reconcile(self, since: datetime) -> None:
        at = self._in
        agreed = reconcile(
            at.desk,
            self._broker,
            account=self._config.account,
            trader_uid=self._config.trader_uid,
            since=since,
            fees_posted_later=self._config.fees_posted_later,
        )
        self._bars_since_agreement = 0
        at.sync()
        at.state.reconciled_at = iso(agreed)
        self._health.reconciled(agreed)
        self._metrics.reconciled.set(agreed.timestamp())
