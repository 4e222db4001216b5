"""What is known of an account's orders and fills, and what of it the record lacks yet. It asks nobody and sends nothing.

Rules:
- An execution counts once, by its id.
- A fill enters the book with its fee. Streams do not say it: where the venue posts fees with fills, an execution waits in
  `uncharged` until it was asked for; elsewhere the schedule is charged.
- Order events and fills are written in batches, by `flush`: what is lost with the process is read again from the venue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from cappuccino.core.failpoints import reach
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.book import Book, Fill, apply
from cappuccino.trading.drift import DriftMeter
from cappuccino.trading.fees import FeeSchedule
from cappuccino.trading.orders import Execution, Intent, Order, OrderState, Report, execute, observe
from cappuccino.trading.ports import Json, Ledger, OrderEvent


class Blotter:
    """Attributes: orders by client order id; the book; last price paid by symbol, in `bought` until it is taken; newest fills;
    market times of what was sent, oldest first; executions without their fee by id, each with its order's id."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        fees: FeeSchedule,
        metrics: TraderMetrics,
        ask_for_fees: bool = True,
        drift: DriftMeter | None = None,
    ) -> None:
        """`ask_for_fees`: the venue posts a fill's fee with the fill, though the stream does not say it. `drift`: measures what
        fills cost; None where it is not known what they should."""
        self.orders: dict[str, Order] = {}
        self.book = Book(cash=Decimal(0), smallest={})
        self.bought: dict[str, Decimal] = {}
        self.recent_fills: deque[Fill] = deque(maxlen=1000)
        self.sent_at: deque[datetime] = deque(maxlen=1000)
        self.uncharged: dict[str, tuple[str, Execution]] = {}
        self._ledger, self._fees, self._metrics = ledger, fees, metrics
        self._ask_for_fees, self._drift = ask_for_fees, drift
        self._unsettled: set[str] = set()
        self._known: set[str] = set()
        self._events: list[OrderEvent] = []
        self._fills: list[Fill] = []
        self._unjournalled: list[Intent] = []

    def restore(self, *, book: Book, orders: Iterable[Order], fills: Sequence[Fill]) -> None:
        """Begin from the journal. `book` is the account's opening; `fills` everything since."""
        for order in orders:
            self._keep(order)
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

    def exits_under_way(self, position_id: str) -> list[str]:
        """Exits of a position that were sent and are not in the book yet, for want of an answer, a fill or its fee."""
        sent = {i for i in self._unsettled if self.orders[i].state is not OrderState.INITIALIZED}
        uncharged = {order_id for order_id, _ in self.uncharged.values()}
        intents = (self.orders[i].intent for i in sorted(sent | uncharged))
        return [intent.client_order_id for intent in intents if intent.is_exit and intent.decision == position_id]

    @property
    def unsent(self) -> bool:
        """Whether orders are journalled that the next process is to send."""
        return any(self.orders[i].state is OrderState.INITIALIZED for i in self._unsettled)

    def open(self, intents: Iterable[Intent]) -> None:
        """Orders that are about to be sent."""
        for intent in intents:
            self._keep(Order(intent=intent))
            self.sent_at.append(intent.created_at)

    def adopt(self, intent: Intent) -> None:
        """An order that was sent without the journal: journal it now, as UNKNOWN."""
        self.journal_later([intent])
        self.set(observe(Order(intent=intent), Report(state=OrderState.UNKNOWN, at=intent.created_at)), intent.created_at)

    def journal_later(self, intents: Iterable[Intent]) -> None:
        """Intents that were sent first; they go before anything else that is written."""
        self._unjournalled.extend(intents)

    def execute(self, order: Order, execution: Execution, *, charged: bool = False) -> None:
        """Count an execution. `charged`: its fee is as final as the venue makes it."""
        after = execute(order, execution)  # the same object when it was counted before
        if after is not order:
            self.set(after, execution.at)
        if execution.execution_id in self._known:
            return
        if charged or execution.fee is not None or not self._ask_for_fees:
            self.uncharged.pop(execution.execution_id, None)
            self._enter(order, execution)
        else:
            self.uncharged[execution.execution_id] = (order.id, execution)

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

    def _keep(self, order: Order) -> None:
        self.orders[order.id] = order
        (self._unsettled.discard if order.settled else self._unsettled.add)(order.id)

    def _count_cost(self, fill: Fill) -> None:
        if self._drift is not None:
            intent = self.orders[fill.client_order_id].intent
            self._drift.count(fill, decision=intent.decision, reason=intent.reason, quote_price=intent.quote_price)

    def _tell_drift(self) -> None:
        drift = self._drift.drift() if self._drift is not None else None
        if drift is not None:
            self._metrics.drifted(drift)

    def set(self, order: Order, at: datetime) -> Order:
        """`order` as it is from now on; what changed is written by the next `flush`."""
        before = self.orders.get(order.id)
        self._keep(order)
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
        if self._fills:
            self._tell_drift()
        if self._unjournalled:
            self._ledger.journal(self._unjournalled, state=None)
            self._unjournalled.clear()
        if self._events or self._fills or state is not None:
            reach("before_record")
            self._ledger.record(events=self._events, fills=self._fills, state=state)
            self._events, self._fills = [], []
            reach("recorded")
