"""What the session needs from a venue and from the record.

Broker: reads raise RetryLater when the venue is away (never an empty answer in its place); `submit` answers
instead of raising, since an unknown outcome is a state, not an error. Ledger: every method is one transaction
and raises RetryLater when the database is away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from cappuccino.core.errors import RetryLater, UserError
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules
from cappuccino.market.bars import Bars
from cappuccino.trading.book import Fill
from cappuccino.trading.orders import Execution, Intent, Order, OrderState, Report, Side

Json = Mapping[str, Any]


class Fenced(RetryLater):
    """The lease is lost or ran out: nothing more is sent by this process."""


class Halted(UserError):
    """The account is halted: only protective orders are journalled."""


# --- venue ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VenueAccount:
    cash_usd: Decimal
    blocked: bool


@dataclass(frozen=True, kw_only=True)
class VenueOrder:
    """An order as the venue tells it. `client_order_id` is the venue's own when we did not set one. `at`: of its last change;
    `created_at`: by the venue's clock, None when it does not say."""

    client_order_id: str
    venue_order_id: str
    symbol: str
    side: Side
    status: str
    filled_qty: Decimal
    at: datetime
    qty: Decimal | None = None
    notional: Decimal | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class VenueFill:
    """One execution as REST or the stream tells it. REST knows the venue's order id only."""

    execution: Execution
    venue_order_id: str
    symbol: str
    side: Side
    client_order_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Quote:
    symbol: str
    bid: Decimal
    ask: Decimal
    at: datetime

    @property
    def mid(self) -> Decimal:
        return (self.bid + self.ask) / 2


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The venue has the order."""

    order: VenueOrder


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A definite no: 400, 401, 403, 404, 422, or a 429 that did not take it in."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Unclear:
    """Timeout, disconnect, 5xx, unreadable body: the order may or may not exist."""

    message: str


class Broker(Protocol):
    def now(self) -> datetime:
        """The venue's clock."""
        ...

    def account(self) -> VenueAccount: ...

    def positions(self) -> Mapping[str, Decimal]:
        """Quantities by symbol; an absent symbol is a definite zero."""
        ...

    def rules(self, symbols: Sequence[str]) -> Mapping[str, AssetRules]:
        """Raises NotFound, which names the symbol the venue does not trade."""
        ...

    def submit(self, intent: Intent) -> Answered | Refused | Unclear: ...

    def cancel(self, venue_order_id: str) -> None:
        """An order that is over, or not there, is success."""
        ...

    def order_by_client_id(self, client_order_id: str) -> VenueOrder | None:
        """None is the venue's definite "not found"."""
        ...

    def order_by_venue_id(self, venue_order_id: str) -> VenueOrder | None: ...

    def open_orders(self) -> Sequence[VenueOrder]: ...

    def fills_since(self, at: datetime) -> Sequence[VenueFill]:
        """Executions at or after `at`, oldest first."""
        ...

    def latest_quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]: ...

    def closed_bars(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Bars:
        """Every bar with start <= ts and ts + D <= end, epoch seconds; what the venue lacks is a flagged flat bar.

        Raises:
            RetryLater: the venue has no first bar to fill from, or is away.
        """
        ...


# --- what arrives -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tick:
    """An instant of market time to act on: with `bar_closed` the close of a bar, known `age_seconds` later.

    `number` is None on a venue that does not wait for us.
    """

    at: datetime
    bar_closed: bool
    number: int | None = None
    age_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OrderUpdate:
    client_order_id: str
    report: Report
    fill: VenueFill | None = None


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stream was away: what it would have said is fetched."""

    stream: str


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End the session: the venue's tape ended (`finished`), we were told to, or a feed died of `failed`."""

    reason: str
    finished: bool = False
    failed: BaseException | None = None


Event = Tick | Quote | OrderUpdate | Gap | Stop


class Feed(Protocol):
    @property
    def lockstep(self) -> bool:
        """Whether the market waits for `done`: then barriers are looked at on ticks only, after the decision's orders."""
        ...

    def start(self) -> None: ...

    def next(self, timeout_seconds: float) -> Event | None:
        """The next event, None when none came in time."""
        ...

    def done(self, tick: Tick, *, until: datetime | None) -> None:
        """`tick` is acted on; the market need not wait for us before `until`."""
        ...

    def stop(self, reason: str) -> None:
        """Make `next` give a Stop. Safe from signal handlers and other threads."""
        ...

    def close(self) -> None: ...


# --- record -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LeaseState:
    """`token` is 0 when another holder has the account."""

    held: bool
    token: int
    halted_reason: str | None


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    bar_at: datetime
    bundle_digest: str
    intents: Sequence[Json]
    refusals: Sequence[Json]
    memory: Json
    trace: Json
    data_age_seconds: float


@dataclass(frozen=True, kw_only=True)
class EquityRow:
    bar_at: datetime
    equity_usd: Decimal
    cash_usd: Decimal
    positions: Json


@dataclass(frozen=True, kw_only=True)
class OrderEvent:
    """`filled_qty` is what the venue reported, cumulative."""

    client_order_id: str
    state: OrderState
    reason: str
    venue_order_id: str | None
    filled_qty: Decimal
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Everything a restart needs: the whole journal of the account. `fills` are in the order they were written."""

    state: Json | None
    decision: DecisionRow | None
    orders: Sequence[Order]
    fills: Sequence[Fill]


class Ledger(Protocol):
    def acquire(self) -> LeaseState: ...

    def renew(self) -> LeaseState: ...

    def release(self) -> None: ...

    def halt(self, reason: str) -> None: ...

    def load(self) -> Recovery: ...

    def baseline(self, equity_usd: Decimal) -> Decimal:
        """The persisted baseline; `equity_usd` becomes it when there is none."""
        ...

    def journal(self, intents: Sequence[Intent], *, state: Json | None) -> None:
        """Intents before they are sent, with the state that goes with them. An intent that is there already stays.

        Raises:
            Fenced: the lease is lost. Halted: the account is halted and an intent is not protective.
        """
        ...

    def record(self, *, events: Sequence[OrderEvent], fills: Sequence[Fill], state: Json | None = None) -> None:
        """Idempotent: an execution that is there already stays as it is."""
        ...

    def commit(self, *, decision: DecisionRow | None, equity: EquityRow, state: Json) -> None:
        """One bar: decision (None between two intervals), memory, state and equity together."""
        ...

    def save(self, state: Json) -> None: ...
