"""The desk through any sequence of faults, kills and restarts, over the exchange's own core: books equal, nothing twice,
every intent with an outcome, and not a word from who has no lease. What `make faults` does with processes, in one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cappuccino.core.errors import RetryLater
from cappuccino.core.money import floor_to
from cappuccino.exchange.commands import Advance
from cappuccino.exchange.faults import Fault, Incident
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading import blotter as blotter_module
from cappuccino.trading import desk as desk_module
from cappuccino.trading.blotter import Blotter
from cappuccino.trading.book import Book
from cappuccino.trading.desk import Desk
from cappuccino.trading.fees import FeeSchedule
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.orders import TERMINAL, Intent, OrderState
from cappuccino.trading.ports import Answered, Fenced, Gap, Refused, Tick, Unclear
from cappuccino.trading.reconciliation import compare
from cappuccino.trading.recovery import exit_attempts, exit_id, reconcile

from .builders import ACCOUNT, SYMBOLS, MemoryLedger, Script, Trader, Venue, make_bars, rate_limited

D = Decimal
ON_SUBMIT = ("", "", "request_lost", "answer_lost", "delayed", "rate_limited", "rejected_size", "partial_fill")
ON_STREAM = ("tells", "twice", "lost")
POINTS = ("", "", "before_journal", "journalled", "answered", "submitted", "settled", "before_record", "recorded")
LEASE_SECONDS = 15.0


class Killed(BaseException):
    """SIGKILL."""


@dataclass
class Unreliable(Venue):
    """`faults_ahead` befall the next submissions; `under_way` are requests that have not arrived yet; `skew` of its clock."""

    faults_ahead: deque[str] = field(default_factory=deque)
    under_way: list[Intent] = field(default_factory=list)
    stream: str = "tells"
    skew: timedelta = timedelta(0)
    may_send: Callable[[], bool] = lambda: True

    def now(self) -> Any:
        return super().now() + self.skew

    def submit(self, intent: Intent) -> Answered | Refused | Unclear:
        assert self.may_send(), f"{intent.client_order_id} was sent without a lease"
        self.submissions.append(intent)
        match self.faults_ahead.popleft() if self.faults_ahead else "":
            case "request_lost":
                return Unclear(message="ConnectionError: reset")
            case "answer_lost":
                self._submit(intent)
                return Unclear(message="ReadTimeout: no answer")
            case "delayed":
                self.under_way.append(intent)
                return Unclear(message="ReadTimeout: no answer")
            case "rate_limited":
                return Refused(code="42910000", message="rate limit exceeded")
            case "rejected_size":
                return Refused(code="40310000", message="below the minimal order size")
            case "partial_fill":
                self.share = D("0.4")
        try:
            return self._submit(intent)
        finally:
            self.share = None

    def arrive(self) -> None:
        late, self.under_way = self.under_way, []
        for intent in late:
            self._submit(intent)

    def _tell(self, events: Any) -> None:
        self.mute, self.twice = self.stream == "lost", self.stream == "twice"
        super()._tell(events)


class DeskUnderFaults(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 5))
    def open(self, seed: int) -> None:
        bars = make_bars(bars=60, seed=seed, sd=0.01)
        self.venue = Unreliable(exchange=Venue.over(bars, tick_bps=10_000).exchange)
        self.ledger = MemoryLedger()
        self.number = 0
        self.point = ""
        self.wanted = True
        self.desk: Desk | None = None
        self.patched = [patch.object(module, "reach", self.reach) for module in (desk_module, blotter_module)]
        for each in self.patched:
            each.start()
        self.restart()

    def reach(self, name: str) -> None:
        if name == self.point:
            raise Killed

    def restart(self) -> None:
        """A new process: lease, journal, reconciliation. It ends at once when somebody it needs is away."""
        self.desk, self.point = None, ""
        self.venue.inbox.clear()
        lease = LeaseKeeper(self.ledger, seconds=LEASE_SECONDS, monotonic=self.venue.time)
        rules = self.venue.rules(SYMBOLS)
        try:
            lease.acquire()
            lease.close(release=False)  # its renewals are the machine's
            self.lease = lease
            self.venue.may_send = lambda: lease.alive
            fees = FeeSchedule({s: r.min_trade_increment for s, r in rules.items()})
            desk = Desk(
                Blotter(self.ledger, fees=fees, metrics=TraderMetrics()),
                broker=self.venue,
                ledger=self.ledger,
                feed=self.venue,
                lease=lease,
                metrics=TraderMetrics(),
                monotonic=self.venue.time,
            )
            desk.wanted = lambda intent: self.wanted
            recovered = self.ledger.load()
            smallest = {s: r.min_order_size for s, r in rules.items()}
            desk.blotter.restore(book=Book(cash=D(10_000), smallest=smallest), orders=recovered.orders, fills=recovered.fills)
            desk.now = self.venue.now()
            self.reconciled(desk)
            self.desk = desk
        except RetryLater:
            return

    def reconciled(self, desk: Desk) -> None:
        oldest = min((f.filled_at for f in desk.blotter.recent_fills), default=desk.now)
        assert oldest is not None
        reconcile(desk, self.venue, account=ACCOUNT, trader_uid="uid", since=oldest, fees_posted_later=False)
        desk.blotter.flush({})

    def living(self) -> Desk | None:
        """The process, started again if it is dead; its lease renewed as its keeper would."""
        if self.desk is None:
            self.restart()
        if self.desk is not None:
            self.lease.renew()
        return self.desk

    def act(self, desk: Desk, action: Callable[[], object]) -> None:
        """One action of the process: killed it is gone, fenced it ends, and what is away it waits for."""
        try:
            action()
            desk.blotter.flush({})
        except (Killed, Fenced):
            self.desk = None
        except RetryLater:
            pass
        finally:
            self.point = ""

    # --- what the trader does -----------------------------------------------------------------------

    @rule(
        legs=st.lists(st.tuples(st.sampled_from(SYMBOLS), st.booleans(), st.integers(1, 8)), min_size=1, max_size=3),
        faults=st.lists(st.sampled_from(ON_SUBMIT), max_size=3),
        point=st.sampled_from(POINTS),
    )
    def trade(self, legs: list[tuple[str, bool, int]], faults: list[str], point: str) -> None:
        desk = self.living()
        if desk is None:
            return
        intents = []
        for symbol, buy, size in {leg[0]: leg for leg in legs}.values():
            self.number += 1
            qty = floor_to(desk.blotter.book.qty(symbol) * size / 8, D("1e-9"))
            if buy and desk.blotter.book.cash > 200 * size:
                intents.append(self.intent(f"o{self.number}", symbol, "buy", notional=D(100 * size)))
            elif not buy and qty > D("0.01"):
                intents.append(self.intent(f"o{self.number}", symbol, "sell", qty=qty))
        self.venue.faults_ahead, self.point = deque(faults), point
        self.act(desk, lambda: desk.send(intents, state={}))

    @rule(symbol=st.sampled_from(SYMBOLS), fault=st.sampled_from(ON_SUBMIT), point=st.sampled_from(POINTS))
    def protect(self, symbol: str, fault: str, point: str) -> None:
        """A protective exit goes out also without the journal."""
        desk = self.living()
        held = desk.blotter.book.holdings.get(symbol) if desk is not None else None
        if desk is None or held is None:
            return
        qty = floor_to(held.qty, D("1e-9"))
        attempt = exit_attempts(desk, held.position_id, "stop_loss", account=ACCOUNT, symbol=symbol)
        order_id = exit_id(ACCOUNT, held.position_id, symbol, "stop_loss", attempt)
        intent = self.intent(order_id, symbol, "sell", qty=qty, reason="stop_loss", decision=held.position_id)
        self.venue.faults_ahead, self.point = deque([fault]), point
        self.act(desk, lambda: desk.send([intent], state={}))

    def intent(self, order_id: str, symbol: str, side: Any, *, reason: str = "target", **fields: Any) -> Intent:
        assert self.desk is not None
        assert self.desk.now is not None
        fields.setdefault("decision", order_id)
        return Intent(
            client_order_id=order_id,
            account=ACCOUNT,
            trader_uid="uid",
            symbol=symbol,
            side=side,
            reason=reason,
            created_at=self.desk.now,
            **fields,
        )

    @rule()
    def listen(self) -> None:
        desk = self.living()
        if desk is not None:

            def hear() -> None:
                while self.venue.inbox:
                    desk.pump(0.0)
                if desk.gap:
                    self.reconciled(desk)

            self.act(desk, hear)

    @rule()
    def agree(self) -> None:
        desk = self.living()
        if desk is not None:
            self.act(desk, lambda: self.reconciled(desk))

    # --- what befalls it ----------------------------------------------------------------------------

    @rule(ticks=st.integers(1, 4))
    def time_passes(self, ticks: int) -> None:
        for _ in range(ticks):
            if not self.venue.exchange.ended:
                self.venue._tell(self.venue.exchange.apply(Advance()).events)
        if self.desk is not None:
            self.desk.now = Venue.now(self.venue) if not self.venue.away else self.desk.now

    @rule()
    def killed(self) -> None:
        self.desk = None

    @rule(seconds=st.sampled_from([-60, 0, 60]))
    def its_clock_is_off(self, seconds: int) -> None:
        self.venue.skew = timedelta(seconds=seconds)

    @rule(reads=st.integers(1, 5))
    def the_venue_is_away(self, reads: int) -> None:
        self.venue.away = reads

    @rule(away=st.booleans())
    def the_database_is_away(self, away: bool) -> None:
        self.ledger.away = away

    @rule(stream=st.sampled_from(ON_STREAM))
    def the_stream(self, stream: str) -> None:
        self.venue.stream = stream

    @rule(data=st.data())
    def events_change_places(self, data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(len(self.venue.inbox))))
        self.venue.inbox = deque(self.venue.inbox[i] for i in order)

    @rule()
    def the_stream_is_cut(self) -> None:
        self.venue.inbox.clear()
        self.venue.inbox.append(Gap(stream="orders"))

    @rule()
    def what_was_under_way_arrives(self) -> None:
        self.venue.arrive()

    @rule(wanted=st.booleans())
    def the_bar_is_over(self, wanted: bool) -> None:
        self.wanted = wanted

    @rule(symbol=st.sampled_from(SYMBOLS), ticks=st.integers(1, 3))
    def a_symbol_is_halted(self, symbol: str, ticks: int) -> None:
        fault = Fault(kind="symbol_halted", symbol=symbol, ticks=ticks)
        self.venue.exchange.apply(Incident(fault=fault, operation="tick"))

    @rule()
    def paused_past_its_lease(self) -> None:
        self.venue.time.now += LEASE_SECONDS + 1
        if self.desk is not None:
            desk = self.desk
            self.number += 1
            intent = self.intent(f"o{self.number}", SYMBOLS[0], "buy", notional=D(100))
            self.act(desk, lambda: desk.send([intent], state={}))
            self.desk = None

    @rule()
    def somebody_else_took_the_account(self) -> None:
        if self.desk is None or self.ledger.away:
            return
        desk, before = self.desk, len(self.venue.submissions)
        self.ledger.holder = -1
        self.number += 1
        intent = self.intent(f"o{self.number}", SYMBOLS[0], "buy", notional=D(100))
        self.act(desk, lambda: desk.send([intent], state={}))
        assert f"o{self.number}" not in {i.client_order_id for i in self.venue.submissions[before:]}
        self.desk = None

    # --- what must hold -----------------------------------------------------------------------------

    @invariant()
    def the_venue_has_only_what_we_sent_and_once(self) -> None:
        if not hasattr(self, "venue"):
            return
        book = self.venue.account_book
        assert len(book.orders) == len(book.by_client_id)
        assert book.by_client_id.keys() <= {intent.client_order_id for intent in self.venue.submissions}

    def teardown(self) -> None:
        if not hasattr(self, "venue"):
            return
        try:
            self.venue.away, self.ledger.away, self.venue.stream = 0, False, "tells"
            if self.desk is not None:
                self.living()
                self.act(self.desk, lambda: None)
            self.venue.arrive()
            self.restart()
            assert self.desk is not None
            ours = {(f.execution_id, f.side, f.qty, f.price, f.fee) for f in self.ledger.fills.values()}
            theirs = {(f.execution_id, f.side, f.qty, f.price, f.fee) for f in self.venue.account_book.fills}
            assert ours == theirs
            positions = {symbol: held.qty for symbol, held in self.venue.account_book.positions.items()}
            assert compare(self.desk.blotter.book, positions=positions, cash=self.venue.account_book.cash) == ()
            assert self.desk.blotter.book.cash == self.venue.account_book.cash
            for order_id in self.ledger.intents:
                told = [event.state for event in self.ledger.events if event.client_order_id == order_id]
                assert told, f"{order_id} has no outcome"
                assert told[-1] in TERMINAL, f"{order_id} is {told}"
                filled = any(fill.client_order_id == order_id for fill in self.venue.account_book.fills)
                assert filled or told[-1] is not OrderState.FILLED
        finally:
            for each in self.patched:
                each.stop()


DeskUnderFaults.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestDeskUnderFaults = DeskUnderFaults.TestCase


# --- what the machine and `make faults` have found ------------------------------------------------


def a_machine() -> DeskUnderFaults:
    machine = DeskUnderFaults()
    machine.open(seed=0)
    return machine


def test_refused_when_it_was_sent_again_an_order_may_still_be_filled_by_its_first_request() -> None:
    machine = a_machine()
    machine.trade(legs=[(SYMBOLS[0], True, 5)], faults=["delayed", "rate_limited"], point="")
    assert machine.desk is not None
    assert machine.desk.blotter.orders["o1"].state is OrderState.CANCELED
    machine.what_was_under_way_arrives()
    machine.listen()
    assert machine.desk.blotter.book.qty(SYMBOLS[0]) > 0
    machine.teardown()


def test_a_gap_that_could_not_be_closed_stays_open() -> None:
    machine = a_machine()
    machine.the_stream_is_cut()
    machine.the_venue_is_away(reads=1)
    machine.listen()
    assert machine.desk is not None
    assert machine.desk.gap
    machine.listen()
    assert not machine.desk.gap
    machine.teardown()


def test_an_exit_is_adopted_also_when_the_buy_before_it_is_not_in_the_journal_as_filled() -> None:
    machine = a_machine()
    assert machine.desk is not None
    machine.desk.send([machine.intent("o1", SYMBOLS[0], "buy", notional=D(500))], state={})
    machine.the_database_is_away(away=True)
    machine.protect(symbol=SYMBOLS[0], fault="", point="")
    assert len(machine.venue.account_book.fills) == 2
    assert machine.ledger.fills == {}
    machine.killed()
    machine.teardown()


def test_an_order_settles_though_our_clock_is_ahead_of_the_venues_and_the_stream_is_silent() -> None:
    machine = a_machine()
    machine.its_clock_is_off(seconds=60)
    machine.restart()
    machine.the_stream(stream="lost")
    machine.trade(legs=[(SYMBOLS[0], True, 5)], faults=[], point="")
    assert machine.desk is not None
    assert machine.desk.blotter.orders["o1"].settled
    machine.teardown()


def test_a_fill_of_an_order_given_up_that_nobody_told_is_found_behind_newer_fills() -> None:
    """Fills before the newest one are not certain; those before the last agreement are."""
    venue = Venue.over(make_bars(bars=10), tick_bps=10_000)
    under_way: list[Callable[[], Answered | Refused | Unclear]] = []

    def delayed(send: Callable[[], Answered | Refused | Unclear]) -> Answered | Refused | Unclear:
        under_way.append(send)
        return Unclear(message="ReadTimeout: no answer")

    def arrive(tick: Tick) -> None:
        if under_way and tick.number is not None and tick.number >= 6:
            venue.mute = True
            under_way.pop()()
            venue.mute = False

    venue.faults, venue.on_tick = {0: delayed, 1: rate_limited}, arrive
    trader = Trader(venue=venue, strategy=Script({0: {SYMBOLS[0]: 0.3}, 4: {SYMBOLS[1]: 0.3}}))
    assert trader.run().finished
    assert {fill.symbol for fill in trader.ledger.fills.values()} == set(SYMBOLS)
    assert trader.books_agree()
