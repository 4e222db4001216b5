"""Sends orders and sees each through to its end. One thread owns it; everything that happens arrives by the feed.

Rules:
- Journal first: an intent is in the record before it is sent. The one exception are protective exits while the
  database is away and the lease still runs; their ids are deterministic, and they are journalled when it is back.
- A token of the lease is looked at before every send.
- An order whose outcome is UNKNOWN is resolved by client order id before anything else is sent. Absent at the venue
  it is sent again under its old id if it is still wanted (the venue refuses a second one), else canceled. It is never
  rejected: a request that was lost sight of may still arrive, and a fill of a canceled order counts.
- An order is settled when it is terminal and its executions add up; what the stream did not tell is fetched.
- A fill enters the book with its fee. Streams do not say it: a venue that posts fees with fills is asked once per batch,
  elsewhere the schedule is charged.
- Order events and fills are written in batches, by `flush`: what is lost with the process is read again from the venue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from cappuccino.core.errors import RetryLater
from cappuccino.core.failpoints import reach
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.telemetry.traces import span
from cappuccino.trading.book import Book, Fill, apply
from cappuccino.trading.drift import DriftMeter
from cappuccino.trading.fees import FeeSchedule
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.orders import Execution, Intent, Order, OrderState, Report, execute, observe, state_of
from cappuccino.trading.ports import (
    Answered,
    Broker,
    Event,
    Feed,
    Gap,
    Json,
    Ledger,
    OrderEvent,
    OrderUpdate,
    Quote,
    Refused,
    Stop,
    Unclear,
    VenueFill,
    VenueOrder,
)

POLL_SECONDS = (0.05, 2.0)  # first and longest pause between two looks at the venue
PATIENCE_SECONDS = 5.0  # then what is still open is canceled
SETTLE_SECONDS = 120.0  # then the process ends, and the next one goes on from the journal
_LOOK_BACK = timedelta(seconds=2)
_DUPLICATE = "duplicate"

log = get_logger(__name__)


class Desk:
    """Attributes: orders by client order id; the book; newest quotes; events that are not the desk's, in `deferred`;
    `gap` when something may have been missed."""

    def __init__(
        self,
        *,
        broker: Broker,
        ledger: Ledger,
        feed: Feed,
        lease: LeaseKeeper,
        fees: FeeSchedule,
        metrics: TraderMetrics,
        monotonic: Callable[[], float],
        ask_for_fees: bool = True,
        drift: DriftMeter | None = None,
    ) -> None:
        """`ask_for_fees`: the venue posts a fill's fee with the fill, though the stream does not say it. `drift`: measures what
        fills cost; None where it is not known what they should."""
        self.broker = broker
        self.orders: dict[str, Order] = {}
        self.quotes: dict[str, Quote] = {}
        self.fresh: set[str] = set()
        self.deferred: deque[Event] = deque()
        self.gap = False
        self.book = Book(cash=Decimal(0), smallest={})
        self.bought: dict[str, Decimal] = {}  # last price paid by symbol, since the caller took it
        self.now: datetime | None = None
        self.wanted: Callable[[Intent], bool] = lambda _: True  # whether what never reached the venue is sent again
        self.cancel_entries: Callable[[], bool] = lambda: False  # whether an entry that is open is not waited for
        self._unsettled: set[str] = set()
        self._ledger, self._feed, self._lease = ledger, feed, lease
        self._fees, self._metrics, self._monotonic = fees, metrics, monotonic
        self._ask_for_fees, self._drift = ask_for_fees, drift
        self.recent_fills: deque[Fill] = deque(maxlen=1000)
        self.sent_at: deque[datetime] = deque(maxlen=1000)  # market times of what was sent, oldest first
        self._known: set[str] = set()
        self._events: list[OrderEvent] = []
        self._fills: list[Fill] = []
        self._uncharged: dict[str, tuple[str, Execution]] = {}  # by execution id: order, execution without its fee
        self._unjournalled: list[Intent] = []

    # --- the past -----------------------------------------------------------------------------------

    def restore(self, *, book: Book, orders: Iterable[Order], fills: Sequence[Fill]) -> None:
        """Begin from the journal. `book` is the account's opening; `fills` everything since."""
        self.orders = {order.id: order for order in orders}
        self._unsettled = {order.id for order in self.orders.values() if not order.settled}
        self.sent_at.extend(sorted(order.intent.created_at for order in self.orders.values()))
        for fill in fills:
            self._fees.count(fill)
            book = apply(book, fill)
            self.recent_fills.append(fill)
            self._known.add(fill.execution_id)
            self._count_cost(fill)
        self.book = book
        self._tell_drift()

    @property
    def known_executions(self) -> set[str]:
        return self._known

    @property
    def unfinished(self) -> list[Order]:
        return [self.orders[i] for i in sorted(self._unsettled)]

    @property
    def unsent(self) -> bool:
        """Whether orders are journalled that the next process is to send."""
        return any(self.orders[i].state is OrderState.INITIALIZED for i in self._unsettled)

    def adopt(self, intent: Intent) -> None:
        """An order that was sent without the journal: journal it now, as UNKNOWN."""
        self._unjournalled.append(intent)
        self._set(observe(Order(intent=intent), Report(state=OrderState.UNKNOWN, at=intent.created_at)), intent.created_at)

    # --- sending ------------------------------------------------------------------------------------

    def send(self, intents: Sequence[Intent], *, state: Json) -> list[Order]:
        """Journal what is new, send what was not sent, and return when all of it is settled. Asked to stop, it sends no further
        entry: those stay INITIALIZED, for the next process.

        Raises:
            Fenced, Halted: nothing of it was sent. RetryLater: the database is away and not all of it is protective.
        """
        if unknown := [o.id for o in self.unfinished if o.state is OrderState.UNKNOWN]:
            self.settle(unknown, until_known=True)
        new = [i for i in intents if i.client_order_id not in self.orders]
        if new:
            reach("before_journal")
            self._journal(new, state)
            reach("journalled")
        for intent in new:
            self.orders[intent.client_order_id] = Order(intent=intent)
            self._unsettled.add(intent.client_order_id)
            self.sent_at.append(intent.created_at)
        for intent in intents:
            if self.orders[intent.client_order_id].state is OrderState.INITIALIZED:
                if not intent.is_exit and self.stopping():
                    break
                self._submit(intent.client_order_id)
        reach("submitted")
        self.settle([i.client_order_id for i in intents if self.orders[i.client_order_id].state is not OrderState.INITIALIZED])
        reach("settled")
        return [self.orders[i.client_order_id] for i in intents]

    def abandon(self, order: Order, *, reason: str, at: datetime) -> None:
        """An order that is not at the venue and is not wanted any more."""
        self._set(observe(order, Report(state=OrderState.CANCELED, at=at, reason=reason)), at)

    def _journal(self, intents: Sequence[Intent], state: Json) -> None:
        protective = all(i.is_exit for i in intents) and self._lease.alive
        try:
            if protective and self._lease.database_away:
                raise RetryLater("the database did not answer the lease's last renewal")  # an exit does not wait for it
            self._ledger.journal(intents, state=state)
        except RetryLater:
            if not protective:
                raise
            log.warning("journal_away_exit_sent_first", orders=[i.client_order_id for i in intents])
            self._unjournalled.extend(intents)

    def _deny(self, order: Order, reason: str) -> None:
        """An order of ours that is not sent."""
        at = self.now or order.intent.created_at
        self._set(observe(order, Report(state=OrderState.DENIED, at=at, reason=reason)), at)
        self._metrics.refused("denied")

    def _submit(self, client_order_id: str) -> None:
        order = self.orders[client_order_id]
        at = self.now or order.intent.created_at
        if not self._lease.alive:
            self._deny(order, "the lease on the account is lost")
            return
        if self._lease.halted_reason and not order.intent.is_exit:  # it may have been journalled before the halt
            self._deny(order, f"halted: {self._lease.halted_reason}")
            return
        order = observe(order, Report(state=OrderState.SUBMITTED, at=at))
        self.orders[client_order_id] = order
        outcome = self._send(order.intent)
        reach("answered")
        self._take(order, outcome)
        if self.orders[client_order_id].state is OrderState.UNKNOWN:
            self.settle([client_order_id], until_known=True)

    def _send(self, intent: Intent) -> Answered | Refused | Unclear:
        started = self._monotonic()
        with span("order", client_order_id=intent.client_order_id, symbol=intent.symbol, side=intent.side) as sent:
            outcome = self.broker.submit(intent)
            answer = type(outcome).__name__.lower()
            sent.set(outcome=answer)
        self._metrics.submitted(intent.side, answer, self._monotonic() - started)
        return outcome

    def _take(self, order: Order, outcome: Answered | Refused | Unclear) -> None:
        """What the venue said to an order that was sent; silence is not a refusal."""
        at = self.now or order.intent.created_at
        if isinstance(outcome, Answered):
            self._report(order, outcome.order)
        elif isinstance(outcome, Refused) and outcome.code != _DUPLICATE:
            log.warning("order_refused", order=order.id, symbol=order.intent.symbol, code=outcome.code, message=outcome.message)
            self._set(observe(order, Report(state=OrderState.REJECTED, at=at, reason=f"{outcome.code}: {outcome.message}")), at)
        else:
            log.warning("order_outcome_unknown", order=order.id, symbol=order.intent.symbol, message=outcome.message)
            self._set(observe(order, Report(state=OrderState.UNKNOWN, at=at, reason=outcome.message)), at)

    # --- settling -----------------------------------------------------------------------------------

    def settle(self, ids: Sequence[str], *, until_known: bool = False) -> None:
        """Return when these orders are settled (or, with `until_known`, no longer UNKNOWN).

        Raises:
            RetryLater: they are not after SETTLE_SECONDS, or the venue is away and we are asked to stop.
        """
        started = self._monotonic()
        pause, canceled = POLL_SECONDS[0], False
        unknown = any(self.orders[i].state is OrderState.UNKNOWN for i in ids)
        look_at = started if unknown else started + pause
        while True:
            pending = [i for i in ids if not self._done(self.orders[i], until_known)]
            if not pending and (until_known or not self._uncharged):
                return
            now = self._monotonic()
            if pending and now < look_at:
                self.pump(look_at - now)
                continue
            if now - started > SETTLE_SECONDS:
                told = (
                    ", ".join(f"{i} is {self.orders[i].state}" for i in pending) or f"{len(self._uncharged)} fills have no fee"
                )
                raise RetryLater(f"the venue does not bring orders to their end: {told}")
            try:
                for order_id in pending:
                    self._look(self.orders[order_id])
                if self._uncharged:
                    self._charge()
                if now - started > PATIENCE_SECONDS and not canceled:
                    canceled = True
                    self._cancel(self.orders[i] for i in pending)
                elif self.cancel_entries():
                    self._cancel(order for i in pending if not (order := self.orders[i]).intent.is_exit)
            except RetryLater as error:
                log.warning("venue_away", pending=len(pending), error=str(error))
                if self.stop_requested() is not None:
                    raise
                self.pump(pause)
            pause = min(pause * 2, POLL_SECONDS[1])
            look_at = self._monotonic() + pause

    @staticmethod
    def _done(order: Order, until_known: bool) -> bool:
        return order.state is not OrderState.UNKNOWN if until_known else order.settled

    def _look(self, order: Order) -> None:
        """What the venue says of an order now, its fills included."""
        found = self.broker.order_by_client_id(order.id)
        if found is not None:
            order = self._report(order, found)
        elif order.state is OrderState.UNKNOWN:
            if self._lease.alive and self.wanted(order.intent):
                self._send_again(order)
            else:
                self.abandon(order, reason="absent at the venue and no longer wanted", at=self.now or order.intent.created_at)
            return
        if found is not None and order.filled_qty != order.reported_qty:
            entered_at = min(order.intent.created_at, found.created_at or found.at)  # two clocks: ours may be ahead
            for fill in self.broker.fills_since(entered_at - _LOOK_BACK):
                if fill.client_order_id == order.id or fill.venue_order_id == order.venue_order_id:
                    self._execute(self.orders[order.id], fill.execution, charged=True)

    def _send_again(self, order: Order) -> None:
        """Under the same id. Refused, it is no rejection: the first request may still be under way, and be filled."""
        at = self.now or order.intent.created_at
        sent = self.orders[order.id] = observe(order, Report(state=OrderState.SUBMITTED, at=at))
        outcome = self._send(sent.intent)
        if not isinstance(outcome, Refused) or outcome.code == _DUPLICATE:
            self._take(sent, outcome)
            return
        log.warning("order_refused_when_sent_again", order=order.id, code=outcome.code, message=outcome.message)
        reason = f"refused when it was sent again: {outcome.code}: {outcome.message}"
        unknown = self._set(observe(sent, Report(state=OrderState.UNKNOWN, at=at, reason=reason)), at)
        found = self.broker.order_by_client_id(order.id)
        if found is not None:
            self._report(unknown, found)
        else:
            self.abandon(unknown, reason=reason, at=at)

    def _cancel(self, orders: Iterable[Order]) -> None:
        if not self._lease.alive:
            return
        for order in orders:
            current = self.orders[order.id]
            if not current.terminal and current.venue_order_id is not None:
                log.warning("order_canceled_for_patience", order=order.id, state=str(current.state))
                self.broker.cancel(current.venue_order_id)

    def deny_unsent(self) -> None:
        """End what was journalled and never sent."""
        for order in self.unfinished:
            if order.state is OrderState.INITIALIZED and self.broker.order_by_client_id(order.id) is None:
                self._deny(order, "never sent, and no longer wanted")

    def cancel_open(self) -> None:
        """Cancel whatever of ours the venue still works on, and see it through."""
        orders = [order for order in self.unfinished if order.state is not OrderState.INITIALIZED]
        self._cancel(orders)
        self.settle([order.id for order in orders])

    # --- what arrives -------------------------------------------------------------------------------

    def pump(self, timeout_seconds: float) -> bool:
        """Take in one event; whether there was one. Ticks and stops are kept for the session."""
        event = self._feed.next(timeout_seconds)
        if event is None:
            return False
        if isinstance(event, Quote):
            held = self.quotes.get(event.symbol)
            if held is None or held.at <= event.at:
                self.quotes[event.symbol] = event
                self.fresh.add(event.symbol)
            if not self._feed.lockstep and self.now is not None:
                self.now = max(self.now, event.at)
        elif isinstance(event, OrderUpdate):
            self._update(event)
        elif isinstance(event, Gap):
            self.gap = True
        else:
            self.deferred.append(event)
        return True

    def stopping(self) -> bool:
        """Whether we are asked to stop, by what has arrived until now."""
        while self.pump(0.0):
            pass
        return self.stop_requested() is not None

    def stop_requested(self) -> Stop | None:
        return next((e for e in self.deferred if isinstance(e, Stop)), None)

    def take_in(self, fill: VenueFill) -> None:
        """A fill that reconciliation found; its order is in the journal."""
        assert fill.client_order_id is not None
        self._execute(self.orders[fill.client_order_id], fill.execution, charged=True)

    def _update(self, event: OrderUpdate) -> None:
        order = self.orders.get(event.client_order_id)
        if order is None:
            self.gap = self.gap or (event.fill is not None and event.fill.execution.execution_id not in self._known)
            return
        if order.terminal and event.fill is not None and event.fill.execution.execution_id not in self._known:
            self.gap = True  # a request that we gave up on has arrived after all
        order = self._set(observe(order, event.report), event.report.at)
        if event.fill is not None:
            self._execute(order, event.fill.execution)

    def _report(self, order: Order, found: VenueOrder) -> Order:
        report = Report(
            state=state_of(found.status), at=found.at, venue_order_id=found.venue_order_id, filled_qty=found.filled_qty
        )
        return self._set(observe(order, report), found.at)

    def _execute(self, order: Order, execution: Execution, *, charged: bool = False) -> None:
        """Count an execution. `charged`: its fee is as final as the venue makes it."""
        after = execute(order, execution)  # the same object when it was counted before
        if after is not order:
            self._set(after, execution.at)
        if execution.execution_id in self._known:
            return
        if charged or execution.fee is not None or not self._ask_for_fees:
            self._uncharged.pop(execution.execution_id, None)
            self._enter(order, execution)
        else:
            self._uncharged[execution.execution_id] = (order.id, execution)

    def _charge(self) -> None:
        """Ask for the fees of executions that the stream told, and enter them, oldest first."""
        oldest = min(execution.at for _, execution in self._uncharged.values())
        told = {f.execution.execution_id: f.execution for f in self.broker.fills_since(oldest - _LOOK_BACK)}
        for execution_id, (order_id, _) in sorted(self._uncharged.items(), key=lambda item: item[1][1].at):
            if execution_id in told:
                self._execute(self.orders[order_id], told[execution_id], charged=True)
            else:
                raise RetryLater(f"execution {execution_id} of order {order_id} is not among the venue's activities yet")

    def _enter(self, order: Order, execution: Execution) -> None:
        intent = order.intent
        fill = self._fees.fill(execution, client_order_id=order.id, symbol=intent.symbol, side=intent.side)
        self.book = apply(self.book, fill)
        self._known.add(execution.execution_id)
        self._fills.append(fill)
        self.recent_fills.append(fill)
        if fill.side == "buy":
            self.bought[fill.symbol] = fill.price
        self._metrics.filled(intent.side, fill)
        self._count_cost(fill)
        self._tell_drift()

    def _count_cost(self, fill: Fill) -> None:
        if self._drift is not None:
            intent = self.orders[fill.client_order_id].intent
            self._drift.count(fill, decision=intent.decision, reason=intent.reason, quote_price=intent.quote_price)

    def _tell_drift(self) -> None:
        drift = self._drift.drift() if self._drift is not None else None
        if drift is not None:
            self._metrics.drifted(drift)

    def _set(self, order: Order, at: datetime) -> Order:
        before = self.orders.get(order.id)
        self.orders[order.id] = order
        (self._unsettled.discard if order.settled else self._unsettled.add)(order.id)
        if before is None or (before.state, before.reported_qty) != (order.state, order.reported_qty):
            self._events.append(
                OrderEvent(
                    client_order_id=order.id,
                    state=order.state,
                    reason=order.reason,
                    venue_order_id=order.venue_order_id,
                    filled_qty=order.reported_qty,
                    at=at,
                )
            )
        return order

    # --- the record ---------------------------------------------------------------------------------

    @property
    def unwritten(self) -> bool:
        return bool(self._events or self._fills or self._unjournalled)

    @property
    def unwritten_fills(self) -> Sequence[Fill]:
        return self._fills

    def orders_since(self, at: datetime) -> int:
        """How many orders were sent after `at`, market time."""
        count = 0
        for sent in reversed(self.sent_at):
            if sent <= at:
                break
            count += 1
        return count

    def flush(self, state: Json | None = None) -> None:
        """Write what happened, with `state` when given. Raises RetryLater; then everything is kept for the next time."""
        if self._unjournalled:
            self._ledger.journal(self._unjournalled, state=None)
            self._unjournalled.clear()
        if self._events or self._fills or state is not None:
            reach("before_record")
            self._ledger.record(events=self._events, fills=self._fills, state=state)
            self._events, self._fills = [], []
            reach("recorded")
