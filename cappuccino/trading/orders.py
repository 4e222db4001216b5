"""The life of an order: a transition table with reasons.

```
INITIALIZED ─▶ SUBMITTED ─▶ ACCEPTED ─▶ PARTIALLY_FILLED ─▶ FILLED
     │             │  ▲         │               │
     ▼             ▼  │         └───────────────┴─▶ CANCELED, EXPIRED
  DENIED        UNKNOWN ─▶ any of the venue's answers; REJECTED
```

Invariants:
- REJECTED needs a definite refusal; whatever is not known is UNKNOWN and is resolved by client order id.
- A terminal state is final, with two exceptions: fills that were under way when an order was canceled or expired still
  count, and may complete it (the cancel lost the race); and an order that we gave up without an answer (CANCELED, and the
  venue never named it) may be refused or expire at the venue afterwards, which changes nothing.
- A report that is older than what is known (lower rank), or repeats it, is absorbed; everything else that is
  not in the table is an InvariantViolation: stop trading, keep the evidence.
- Executions are counted once, by execution id. An order is settled when it is terminal and the executions
  add up to the cumulative quantity that the venue reported.

Quantities are in base units, prices in quote currency, both Decimal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from cappuccino.core.errors import InvariantViolation
from cappuccino.core.money import ZERO

Side = Literal["buy", "sell"]
ENTRY_REASON = "target"
EXIT_REASONS = ("stop_loss", "trailing_stop", "take_profit", "time_limit", "flatten")


class OrderState(StrEnum):
    INITIALIZED = "INITIALIZED"  # journalled, not sent
    SUBMITTED = "SUBMITTED"  # sent, no answer yet
    UNKNOWN = "UNKNOWN"  # sent or not, accepted or not: ask the venue
    ACCEPTED = "ACCEPTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"  # by the venue
    DENIED = "DENIED"  # by us


S = OrderState
TERMINAL = frozenset({S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED, S.DENIED})
_RANK = {S.INITIALIZED: 0, S.SUBMITTED: 1, S.UNKNOWN: 1, S.ACCEPTED: 2, S.PARTIALLY_FILLED: 3}

TRANSITIONS: Mapping[tuple[OrderState, OrderState], str] = {
    (S.INITIALIZED, S.SUBMITTED): "sent",
    (S.INITIALIZED, S.UNKNOWN): "found in the journal after a restart: it may have been sent",
    (S.INITIALIZED, S.DENIED): "refused by risk, halt or lease before it was sent",
    (S.INITIALIZED, S.CANCELED): "abandoned before it was sent",
    (S.SUBMITTED, S.UNKNOWN): "timeout, disconnect, 5xx or an answer that cannot be read",
    (S.SUBMITTED, S.ACCEPTED): "the venue has it",
    (S.SUBMITTED, S.PARTIALLY_FILLED): "filled in part at once",
    (S.SUBMITTED, S.FILLED): "filled at once",
    (S.SUBMITTED, S.REJECTED): "a definite refusal",
    (S.SUBMITTED, S.CANCELED): "canceled by the venue at once",
    (S.SUBMITTED, S.EXPIRED): "expired at once",
    (S.UNKNOWN, S.SUBMITTED): "absent at the venue: sent again under the same id",
    (S.UNKNOWN, S.ACCEPTED): "found at the venue",
    (S.UNKNOWN, S.PARTIALLY_FILLED): "found at the venue, filled in part",
    (S.UNKNOWN, S.FILLED): "found at the venue, filled",
    (S.UNKNOWN, S.REJECTED): "found at the venue, rejected",
    (S.UNKNOWN, S.CANCELED): "absent at the venue and abandoned, or found canceled",
    (S.UNKNOWN, S.EXPIRED): "found at the venue, expired",
    (S.ACCEPTED, S.PARTIALLY_FILLED): "filled in part",
    (S.ACCEPTED, S.FILLED): "filled",
    (S.ACCEPTED, S.CANCELED): "canceled",
    (S.ACCEPTED, S.EXPIRED): "expired",
    (S.ACCEPTED, S.REJECTED): "rejected after it was taken in",
    (S.PARTIALLY_FILLED, S.FILLED): "filled",
    (S.PARTIALLY_FILLED, S.CANCELED): "canceled after a part was filled",
    (S.PARTIALLY_FILLED, S.EXPIRED): "expired after a part was filled",
    (S.CANCELED, S.FILLED): "the cancel lost the race against the last fill",
    (S.EXPIRED, S.FILLED): "the expiry lost the race against the last fill",
}

# Alpaca's 18 order states. What is pending, held, suspended or under review is alive: it can still fill.
VENUE_STATES: Mapping[str, OrderState] = {
    "new": S.ACCEPTED,
    "accepted": S.ACCEPTED,
    "pending_new": S.ACCEPTED,
    "accepted_for_bidding": S.ACCEPTED,
    "pending_cancel": S.ACCEPTED,
    "pending_replace": S.ACCEPTED,
    "pending_review": S.ACCEPTED,
    "stopped": S.ACCEPTED,
    "suspended": S.ACCEPTED,
    "held": S.ACCEPTED,
    "calculated": S.ACCEPTED,
    "done_for_day": S.ACCEPTED,
    "partially_filled": S.PARTIALLY_FILLED,
    "filled": S.FILLED,
    "canceled": S.CANCELED,
    "replaced": S.CANCELED,  # its successor is another order; we never replace
    "expired": S.EXPIRED,
    "rejected": S.REJECTED,
}

# Alpaca's 12 trade events. None: the event itself says nothing about the state, its order does.
VENUE_EVENTS: Mapping[str, OrderState | None] = {
    "accepted": S.ACCEPTED,
    "new": S.ACCEPTED,
    "pending_new": S.ACCEPTED,
    "pending_cancel": S.ACCEPTED,
    "pending_replace": S.ACCEPTED,
    "partial_fill": S.PARTIALLY_FILLED,
    "fill": S.FILLED,
    "canceled": S.CANCELED,
    "replaced": S.CANCELED,
    "expired": S.EXPIRED,
    "rejected": S.REJECTED,
    "restated": None,
}


def state_of(status: str, *, event: str | None = None) -> OrderState:
    """The state that a venue's order status, or the event that carries it, stands for.

    Raises:
        InvariantViolation: a status that is not in the table.
    """
    if event is not None:
        known = VENUE_EVENTS.get(event)
        if known is not None:
            return known
    if status not in VENUE_STATES:
        raise InvariantViolation(f"order status {status!r} (event {event!r}) is not one we know: add it to VENUE_STATES")
    return VENUE_STATES[status]


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What we mean to send. Exactly one of `qty` (base units) and `notional` (quote currency) is set. Market orders are
    immediate-or-cancel: nothing of ours rests at the venue beyond its instant, so a decision cannot fill late.
    `quote_price` is the venue's mid at that moment, where one is known: what the fill is measured against."""

    client_order_id: str
    account: str
    trader_uid: str
    decision: str
    symbol: str
    side: Side
    reason: str
    created_at: datetime
    qty: Decimal | None = None
    notional: Decimal | None = None
    type: Literal["market", "limit"] = "market"
    time_in_force: Literal["gtc", "ioc"] = "ioc"
    limit_price: Decimal | None = None
    quote_price: Decimal | None = None

    @property
    def is_exit(self) -> bool:
        """Protective: allowed while halted."""
        return self.reason in EXIT_REASONS


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One fill as the venue told it. `fee` is None on a venue that does not say it: then the schedule is charged. `fee_asset`
    is None for the asset received."""

    execution_id: str
    qty: Decimal
    price: Decimal
    at: datetime
    fee: Decimal | None = None
    fee_asset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What somebody said about an order. `filled_qty` is cumulative, None when not said."""

    state: OrderState
    at: datetime
    reason: str = ""
    venue_order_id: str | None = None
    filled_qty: Decimal | None = None


@dataclass(frozen=True, kw_only=True)
class Order:
    intent: Intent
    state: OrderState = OrderState.INITIALIZED
    reason: str = ""
    venue_order_id: str | None = None
    reported_qty: Decimal = ZERO
    executions: Mapping[str, Execution] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.intent.client_order_id

    @property
    def filled_qty(self) -> Decimal:
        return sum((e.qty for e in self.executions.values()), ZERO)

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def settled(self) -> bool:
        """Terminal, with every reported fill accounted for."""
        return self.terminal and self.filled_qty == self.reported_qty


def observe(order: Order, report: Report) -> Order:
    """`order` after `report`; the same object when the report is a repetition or late.

    Raises:
        InvariantViolation: the transition is not in the table.
    """
    cumulative = max(order.reported_qty, report.filled_qty or ZERO)
    venue_order_id = order.venue_order_id or report.venue_order_id
    state, reason = order.state, order.reason
    if (order.state, report.state) in TRANSITIONS:
        state, reason = report.state, report.reason or TRANSITIONS[order.state, report.state]
    elif report.state is not order.state and not _late(order, report):
        raise InvariantViolation(
            f"order {order.id} ({order.intent.symbol} {order.intent.side}): {order.state} -> {report.state} "
            f"({report.reason or 'no reason given'}) is not a legal transition; trading stops, compare journal and venue"
        )
    if state in (S.REJECTED, S.DENIED) and cumulative > 0:
        raise InvariantViolation(f"order {order.id} is {order.state}, yet the venue reports {cumulative} filled; trading stops")
    if (state, venue_order_id, cumulative) == (order.state, order.venue_order_id, order.reported_qty):
        return order
    return replace(order, state=state, reason=reason, venue_order_id=venue_order_id, reported_qty=cumulative)


def _late(order: Order, report: Report) -> bool:
    """An older non-terminal state of an order that was sent, or the venue's end of one that we had given up."""
    if order.state is S.CANCELED and order.venue_order_id is None and report.state in (S.REJECTED, S.EXPIRED):
        return True
    if report.state in TERMINAL or order.state is S.DENIED:
        return False
    return order.terminal or _RANK[report.state] <= _RANK[order.state]


def execute(order: Order, execution: Execution) -> Order:
    """`order` with `execution` counted; the same object when that execution was counted before.

    Raises:
        InvariantViolation: the same id with other numbers, a fill of an order that was refused, or more than was ordered.
    """
    seen = order.executions.get(execution.execution_id)
    if seen is not None:
        if (seen.qty, seen.price) != (execution.qty, execution.price):
            raise InvariantViolation(
                f"execution {execution.execution_id} of order {order.id} was {seen.qty} at {seen.price} and is now "
                f"{execution.qty} at {execution.price}; trading stops, compare journal and venue"
            )
        return order
    if order.state in (S.INITIALIZED, S.REJECTED, S.DENIED):
        raise InvariantViolation(
            f"order {order.id} is {order.state}, yet execution {execution.execution_id} filled {execution.qty}"
        )
    filled = order.filled_qty + execution.qty
    if (order.intent.qty is not None and filled > order.intent.qty) or (
        order.state is S.FILLED and filled > order.reported_qty
    ):
        limit = order.intent.qty if order.intent.qty is not None else order.reported_qty
        raise InvariantViolation(f"order {order.id} of {limit} has {filled} filled: more than was ordered; trading stops")
    executions = {**order.executions, execution.execution_id: execution}
    moved = S.PARTIALLY_FILLED if (order.state, S.PARTIALLY_FILLED) in TRANSITIONS else order.state
    return replace(
        order,
        state=moved,
        reason=order.reason if moved is order.state else TRANSITIONS[order.state, moved],
        reported_qty=max(order.reported_qty, filled),
        executions=executions,
    )
