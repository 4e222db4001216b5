"""Sends orders and sees each through to its end. One thread owns it; everything that happens arrives by the feed.

Rules:
- Journal first: an intent is in the record before it is sent. The one exception are protective exits while the
  database is away and the lease still runs; their ids are deterministic, and they are journalled when it is back.
- A token of the lease is looked at before every send.
- An order whose outcome is UNKNOWN is resolved by client order id before anything is bought, and before an exit of its
  symbol is sent. Absent at the venue it is sent again under its old id if it is still wanted (the venue refuses a second
  one), else canceled. It is never rejected: a request that was lost sight of may still arrive, and a fill of a canceled
  order counts.
- An order is settled when it is terminal, its executions add up and each has its fee; what the stream did not tell is
  fetched, fees once per batch. What is known and counted is the blotter's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from cappuccino.core.errors import RetryLater, UserError
from cappuccino.core.failpoints import reach
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.telemetry.traces import span
from cappuccino.trading.blotter import Blotter
from cappuccino.trading.facts import is_price
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.orders import Intent, Order, OrderState, Report, observe, state_of
from cappuccino.trading.ports import (
    Answered,
    Broker,
    Event,
    Feed,
    Gap,
    Json,
    Ledger,
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
SETTLE_SECONDS = 120.0  # then RetryLater: the session begins the instant again, a start begins anew
EXIT_SECONDS = 10.0  # ... of an exit, on a venue that does not wait for us: other positions must be looked at
DOUBT_SECONDS = 2.0  # that a wide quote waits for another
_LOOK_BACK = timedelta(seconds=2)
_DUPLICATE = "duplicate"

log = get_logger(__name__)


class Desk:
    """Attributes: the account's blotter; newest quotes, and those that are `doubted`, each with when it came; events not of
    the desk, in `deferred`; `gap` when something may have been missed. `max_spread`: share of its mid beyond which a quote
    is doubted; 0: none is."""

    def __init__(
        self,
        blotter: Blotter,
        *,
        broker: Broker,
        ledger: Ledger,
        feed: Feed,
        lease: LeaseKeeper,
        metrics: TraderMetrics,
        monotonic: Callable[[], float],
    ) -> None:
        self.blotter = blotter
        self.broker = broker
        self.quotes: dict[str, Quote] = {}
        self.doubted: dict[str, tuple[Quote, float]] = {}
        self.fresh: set[str] = set()
        self.max_spread = Decimal(0)
        self.deferred: deque[Event] = deque()
        self.gap = False
        self.now: datetime | None = None
        self.wanted: Callable[[Intent], bool] = lambda _: True  # whether what never reached the venue is sent again
        self.cancel_entries: Callable[[], bool] = lambda: False  # whether an entry that is open is not waited for
        self._ledger, self._feed, self._lease = ledger, feed, lease
        self._metrics, self._monotonic = metrics, monotonic

    # --- sending ------------------------------------------------------------------------------------

    def send(self, intents: Sequence[Intent], *, state: Json) -> list[Order]:
        """Journal what is new, send what was not sent, and return when all of it is settled. Asked to stop, it sends no further
        entry: those stay INITIALIZED, for the next process.

        Raises:
            Fenced, Halted: nothing of it was sent. RetryLater: the database is away and not all of it is protective.
        """
        protective = all(intent.is_exit for intent in intents)
        seconds = EXIT_SECONDS if protective and not self._feed.lockstep else SETTLE_SECONDS
        concerned = [o for o in self.blotter.unfinished if not protective or o.intent.symbol in {i.symbol for i in intents}]
        if unknown := [o.id for o in concerned if o.state is OrderState.UNKNOWN]:
            self.settle(unknown, until_known=True, seconds=seconds)
        orders, ids = self.blotter.orders, [intent.client_order_id for intent in intents]
        new = [intent for intent in intents if intent.client_order_id not in orders]
        if new:
            reach("before_journal")
            self._journal(new, state)
            reach("journalled")
        self.blotter.open(new)
        for order in (orders[i] for i in ids):
            if order.state is OrderState.INITIALIZED:
                if not order.intent.is_exit and self.stopping():
                    break
                self._submit(order.id, seconds)
        reach("submitted")
        self.settle([i for i in ids if orders[i].state is not OrderState.INITIALIZED], seconds=seconds)
        reach("settled")
        return [orders[i] for i in ids]

    def abandon(self, order: Order, *, reason: str, at: datetime) -> None:
        """An order that is not at the venue and is not wanted any more."""
        self.blotter.set(observe(order, Report(state=OrderState.CANCELED, at=at, reason=reason)), at)

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
            self.blotter.journal_later(intents)

    def _deny(self, order: Order, reason: str) -> None:
        """An order of ours that is not sent."""
        at = self.now or order.intent.created_at
        self.blotter.set(observe(order, Report(state=OrderState.DENIED, at=at, reason=reason)), at)
        self._metrics.refused("denied")

    def _submit(self, client_order_id: str, seconds: float) -> None:
        order = self.blotter.orders[client_order_id]
        at = self.now or order.intent.created_at
        if not self._lease.alive:
            self._deny(order, "the lease on the account is lost")
            return
        if self._lease.halted_reason and not order.intent.is_exit:  # it may have been journalled before the halt
            self._deny(order, f"halted: {self._lease.halted_reason}")
            return
        order = observe(order, Report(state=OrderState.SUBMITTED, at=at))
        self.blotter.orders[client_order_id] = order
        outcome = self._send(order.intent)
        reach("answered")
        self._take(order, outcome)
        if self.blotter.orders[client_order_id].state is OrderState.UNKNOWN:
            self.settle([client_order_id], until_known=True, seconds=seconds)

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
            reason = f"{outcome.code}: {outcome.message}"
            self.blotter.set(observe(order, Report(state=OrderState.REJECTED, at=at, reason=reason)), at)
        else:
            log.warning("order_outcome_unknown", order=order.id, symbol=order.intent.symbol, message=outcome.message)
            self.blotter.set(observe(order, Report(state=OrderState.UNKNOWN, at=at, reason=outcome.message)), at)

    # --- settling -----------------------------------------------------------------------------------

    def settle(self, ids: Sequence[str], *, until_known: bool = False, seconds: float = SETTLE_SECONDS) -> None:
        """Return when these orders are settled (or, with `until_known`, no longer UNKNOWN).

        Raises:
            RetryLater: they are not after so many seconds, or the venue is away and we are asked to stop.
        """
        started = self._monotonic()
        pause, canceled, away = POLL_SECONDS[0], False, False
        unknown = any(self.blotter.orders[i].state is OrderState.UNKNOWN for i in ids)
        look_at = started if unknown else started + pause
        while True:
            pending = [i for i in ids if not self._done(self.blotter.orders[i], until_known)]
            if not pending and (until_known or not self.blotter.uncharged):
                return
            now = self._monotonic()
            if (pending or away) and now < look_at:
                self.pump(look_at - now)
                continue
            if now - started > seconds:
                open_now = ", ".join(f"{i} is {self.blotter.orders[i].state}" for i in pending)
                told = open_now or f"{len(self.blotter.uncharged)} fills have no fee"
                raise RetryLater(f"the venue does not bring orders to their end: {told}")
            try:
                for order_id in pending:
                    self._look(self.blotter.orders[order_id])
                if self.blotter.uncharged:
                    self._charge()
                if now - started > PATIENCE_SECONDS and not canceled:
                    canceled = True
                    self._cancel(self.blotter.orders[i] for i in pending)
                elif self.cancel_entries():
                    self._cancel(order for i in pending if not (order := self.blotter.orders[i]).intent.is_exit)
            except (RetryLater, UserError) as error:  # refused or not answered: what is pending is known afterwards only
                log.warning("venue_away", pending=len(pending), error=str(error))
                if self.stop_requested() is not None:
                    raise RetryLater(str(error)) from error
                away = True
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
                    self.blotter.execute(self.blotter.orders[order.id], fill.execution, charged=True)

    def _send_again(self, order: Order) -> None:
        """Under the same id. Refused, it is no rejection: the first request may still be under way, and be filled."""
        at = self.now or order.intent.created_at
        sent = self.blotter.orders[order.id] = observe(order, Report(state=OrderState.SUBMITTED, at=at))
        outcome = self._send(sent.intent)
        if not isinstance(outcome, Refused) or outcome.code == _DUPLICATE:
            self._take(sent, outcome)
            return
        log.warning("order_refused_when_sent_again", order=order.id, code=outcome.code, message=outcome.message)
        reason = f"refused when it was sent again: {outcome.code}: {outcome.message}"
        unknown = self.blotter.set(observe(sent, Report(state=OrderState.UNKNOWN, at=at, reason=reason)), at)
        found = self.broker.order_by_client_id(order.id)
        if found is not None:
            self._report(unknown, found)
        else:
            self.abandon(unknown, reason=reason, at=at)

    def _cancel(self, orders: Iterable[Order]) -> None:
        if not self._lease.alive:
            return
        for order in orders:
            current = self.blotter.orders[order.id]
            if not current.terminal and current.venue_order_id is not None:
                log.warning("order_canceled_for_patience", order=order.id, state=str(current.state))
                self.broker.cancel(current.venue_order_id)

    def deny_unsent(self) -> None:
        """End what was journalled and never sent."""
        for order in self.blotter.unfinished:
            if order.state is OrderState.INITIALIZED and self.broker.order_by_client_id(order.id) is None:
                self._deny(order, "never sent, and no longer wanted")

    def cancel_open(self) -> None:
        """Cancel whatever of ours the venue still works on, and see it through."""
        orders = [order for order in self.blotter.unfinished if order.state is not OrderState.INITIALIZED]
        self._cancel(orders)
        self.settle([order.id for order in orders])

    # --- what arrives -------------------------------------------------------------------------------

    def pump(self, timeout_seconds: float) -> bool:
        """Take in one event; whether there was one. Ticks and stops are kept for the session."""
        event = self._feed.next(timeout_seconds)
        if event is None:
            return False
        if isinstance(event, Quote):
            self.take_quote(event)
        elif isinstance(event, OrderUpdate):
            self._update(event)
        elif isinstance(event, Gap):
            self.gap = True
        else:
            self.deferred.append(event)
        return True

    def take_quote(self, quote: Quote) -> None:
        """Streamed or asked for: the newest counts, and tells the market's time. A wide one counts if the next is wide too."""
        if not self._feed.lockstep and self.now is not None:
            self.now = max(self.now, quote.at)
        symbol, known = quote.symbol, self.quotes.get(quote.symbol)
        doubted = self.doubted.get(symbol)
        newest = doubted[0] if doubted is not None else known
        if newest is not None and newest.at > quote.at:
            return
        if self._wide(quote) and doubted is None and not (known is not None and self._wide(known)):
            self.doubted[symbol] = quote, self._monotonic()
            return
        self.doubted.pop(symbol, None)
        self.quotes[symbol] = quote
        self.fresh.add(symbol)

    def _wide(self, quote: Quote) -> bool:
        told = self.max_spread > 0 and is_price(quote.bid) and is_price(quote.ask)
        return told and quote.ask - quote.bid > self.max_spread * quote.mid

    def confirm_quotes(self) -> None:
        """Where no other quote has followed a wide one of what is held, ask; without an answer it counts."""
        now = self._monotonic()
        overdue = [s for s, (_, since) in self.doubted.items() if now - since > DOUBT_SECONDS]
        held = [symbol for symbol in overdue if symbol in self.blotter.book.holdings]
        asked: Mapping[str, Quote] = {}
        try:
            asked = self.broker.latest_quotes(held) if held else asked
        except (RetryLater, UserError) as error:
            log.warning("quotes_unconfirmed", symbols=held, error=str(error))
        for symbol in overdue:
            for quote in (asked.get(symbol), self.doubted[symbol][0]):
                if quote is not None and symbol in self.doubted:
                    self.take_quote(quote)

    def stopping(self) -> bool:
        """Whether we are asked to stop, by what has arrived until now."""
        while self.pump(0.0):
            pass
        return self.stop_requested() is not None

    def take_in_for(self, seconds: float) -> None:
        """Everything that arrives within `seconds`, however much it is."""
        deadline = self._monotonic() + seconds
        while (left := deadline - self._monotonic()) > 0:
            self.pump(left)

    def stop_requested(self) -> Stop | None:
        return next((e for e in self.deferred if isinstance(e, Stop)), None)

    def take_in(self, fill: VenueFill) -> None:
        """A fill that reconciliation found; its order is in the journal."""
        assert fill.client_order_id is not None
        self.blotter.execute(self.blotter.orders[fill.client_order_id], fill.execution, charged=True)

    def _update(self, event: OrderUpdate) -> None:
        order = self.blotter.orders.get(event.client_order_id)
        if order is None:
            known = self.blotter.known_executions
            self.gap = self.gap or (event.fill is not None and event.fill.execution.execution_id not in known)
            return
        if order.settled and event.fill is not None and event.fill.execution.execution_id not in order.executions:
            self.gap = True  # a request that we gave up on has arrived after all
        order = self.blotter.set(observe(order, event.report), event.report.at)
        if event.fill is not None:
            self.blotter.execute(order, event.fill.execution)

    def _report(self, order: Order, found: VenueOrder) -> Order:
        report = Report(
            state=state_of(found.status), at=found.at, venue_order_id=found.venue_order_id, filled_qty=found.filled_qty
        )
        return self.blotter.set(observe(order, report), found.at)

    def _charge(self) -> None:
        """Ask for the fees of executions that the stream told, and enter them, oldest first."""
        oldest = min(execution.at for _, execution in self.blotter.uncharged.values())
        told = {f.execution.execution_id: f.execution for f in self.broker.fills_since(oldest - _LOOK_BACK)}
        for execution_id, (order_id, _) in sorted(self.blotter.uncharged.items(), key=lambda item: item[1][1].at):
            if execution_id in told:
                self.blotter.execute(self.blotter.orders[order_id], told[execution_id], charged=True)
            else:
                raise RetryLater(f"execution {execution_id} of order {order_id} is not among the venue's activities yet")
