"""A trader in one process, on the simulated exchange's own core: no sockets, no wall clock, faults by script."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

import numpy as np

from cappuccino.core.clock import from_epoch
from cappuccino.core.errors import RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.commands import Advance, Cancel, OpenAccount, Submit
from cappuccino.exchange.orders import Event as VenueEvent
from cappuccino.exchange.orders import Fill as VenueSideFill
from cappuccino.exchange.orders import Order as VenueSideOrder
from cappuccino.exchange.orders import OrderRequest
from cappuccino.exchange.orders import Refused as VenueRefused
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.exchange.tape import Tape
from cappuccino.exchange.terms import Terms
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract, Decision, Json, Target, View
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.book import Fill
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.orders import Execution, Intent, Order, OrderState, Report, state_of
from cappuccino.trading.ports import (
    Answered,
    DecisionRow,
    EquityRow,
    Event,
    Fenced,
    Halted,
    LeaseState,
    OrderEvent,
    OrderUpdate,
    Quote,
    Recovery,
    Refused,
    Stop,
    Tick,
    Unclear,
    VenueAccount,
    VenueFill,
    VenueOrder,
)
from cappuccino.trading.session import Session
from cappuccino.trading.situation import SessionConfig

SYMBOLS = ("AAA/USD", "BBB/USD")
START = 1_704_067_200
HOUR = 3600
T0 = datetime(2024, 1, 1, tzinfo=UTC)
ACCOUNT = "acc"


def make_bars(closes: Mapping[str, Sequence[float]] | None = None, *, bars: int = 20, seed: int = 3, sd: float = 0.02) -> Bars:
    """Hourly candles; `closes` gives bars that move in a straight line from close to close."""
    rng = np.random.default_rng(seed)
    if closes is None:
        closes = {s: 100.0 * np.exp(np.cumsum(rng.normal(0, sd, bars))) for s in SYMBOLS}
    symbols = tuple(closes)
    close = np.round(np.column_stack([np.asarray(closes[s], dtype=float) for s in symbols]), 4)
    opened = np.vstack([close[:1], close[:-1]])
    return Bars(
        symbols=symbols,
        timeframe=Timeframe(HOUR),
        ts=START + HOUR * np.arange(len(close), dtype=np.int64),
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
        volume=np.full(close.shape, 1000.0),
        missing=np.zeros(close.shape, dtype=bool),
    )


class FakeTime:
    """A monotonic clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Fault = Callable[[Callable[[], Answered | Refused | Unclear]], Answered | Refused | Unclear]


def answer_lost(send: Callable[[], Answered | Refused | Unclear]) -> Answered | Refused | Unclear:
    """The venue takes the order; the answer does not arrive."""
    send()
    return Unclear(message="ReadTimeout: no answer")


def request_lost(send: Callable[[], Answered | Refused | Unclear]) -> Answered | Refused | Unclear:
    return Unclear(message="ConnectionError: refused")


def rate_limited(send: Callable[[], Answered | Refused | Unclear]) -> Answered | Refused | Unclear:
    return Refused(code="42910000", message="rate limit exceeded")


@dataclass
class Venue:
    """Broker and Feed in lockstep over one exchange core."""

    exchange: SimulatedExchange
    time: FakeTime = field(default_factory=FakeTime)
    faults: dict[int, Fault] = field(default_factory=dict)  # by the number of the submission
    away: int = 0  # reads that fail before the venue is back
    refused: dict[str, Exception] = field(default_factory=dict)  # by what is read: how it fails
    asked: list[tuple[float, str]] = field(default_factory=list)  # reads, each with the time at which it was made
    mute: bool = False  # the stream of order updates says nothing
    twice: bool = False  # ... or everything twice, and the first again at the end
    share: Decimal | None = None  # of what an order asks for is filled on arrival
    inbox: deque[Event] = field(default_factory=deque)
    submissions: list[Intent] = field(default_factory=list)
    on_submit: Callable[[Intent], None] = lambda intent: None
    on_tick: Callable[[Tick], None] = lambda tick: None
    renew: Callable[[], None] = lambda: None  # of a market that does not wait
    lockstep: bool = True
    ticks: list[Tick] = field(default_factory=list)

    @classmethod
    def over(
        cls, bars: Bars, *, history: int = 2, capital: str = "10000", terms: Terms | None = None, tick_bps: float = 100
    ) -> Self:
        exchange = SimulatedExchange(Tape(bars, start=START + HOUR * history, tick_bps=tick_bps), terms or Terms())
        exchange.apply(OpenAccount(name=ACCOUNT, capital_usd=Decimal(capital), key_id="k", secret_key="s"))
        return cls(exchange=exchange)

    @property
    def account_book(self) -> Any:
        return self.exchange.account(ACCOUNT)

    # --- broker
    def _read(self, what: str) -> None:
        self.asked.append((self.time.now, what))
        if what in self.refused:
            raise self.refused[what]
        if self.away:
            self.away -= 1
            raise RetryLater("the venue is away")

    def now(self) -> datetime:
        self._read("clock")
        return _at(self.exchange.tick.at_us)

    def account(self) -> VenueAccount:
        self._read("account")
        return VenueAccount(cash_usd=self.account_book.cash, blocked=False)

    def positions(self) -> Mapping[str, Decimal]:
        self._read("positions")
        return {symbol: held.qty for symbol, held in self.account_book.positions.items()}

    def rules(self, symbols: Sequence[str]) -> Mapping[str, AssetRules]:
        return {s: self.exchange.rules[s] for s in symbols}

    def submit(self, intent: Intent) -> Answered | Refused | Unclear:
        number = len(self.submissions)
        self.submissions.append(intent)
        fault = self.faults.get(number)
        outcome = fault(lambda: self._submit(intent)) if fault else self._submit(intent)
        self.on_submit(intent)
        return outcome

    def _submit(self, intent: Intent) -> Answered | Refused | Unclear:
        request = OrderRequest(
            symbol=intent.symbol,
            side=intent.side,
            type=intent.type,
            time_in_force=intent.time_in_force,
            qty=intent.qty,
            notional=intent.notional,
            client_order_id=intent.client_order_id,
        )
        try:
            outcome = self.exchange.apply(Submit(account=ACCOUNT, request=request, share=self.share))
        except VenueRefused as refused:
            code = "duplicate" if refused.reason == "duplicate_client_order_id" else refused.reason
            return Refused(code=code, message=str(refused))
        self._tell(outcome.events)
        assert outcome.order is not None
        return Answered(order=_order(outcome.order))

    def cancel(self, venue_order_id: str) -> None:
        self._read("cancel")
        try:
            self._tell(self.exchange.apply(Cancel(account=ACCOUNT, order_id=venue_order_id)).events)
        except VenueRefused:
            return

    def order_by_client_id(self, client_order_id: str) -> VenueOrder | None:
        self._read("order")
        order_id = self.account_book.by_client_id.get(client_order_id)
        return _order(self.account_book.orders[order_id]) if order_id else None

    def order_by_venue_id(self, venue_order_id: str) -> VenueOrder | None:
        self._read("order")
        order = self.account_book.orders.get(venue_order_id)
        return _order(order) if order else None

    def open_orders(self) -> Sequence[VenueOrder]:
        self._read("orders")
        return [_order(self.account_book.orders[i]) for i in self.account_book.open_ids]

    def fills_since(self, at: datetime) -> Sequence[VenueFill]:
        self._read("fills")
        return [_fill(f, with_fee=True) for f in self.account_book.fills if _at(f.at_us) >= at]

    def latest_quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        self._read("quotes")
        return {s: self._quote(s) for s in symbols}

    def closed_bars(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Bars:
        self._read("bars")
        closed = START + HOUR * self.exchange.tick.bar
        bars = self.exchange.tape.bars
        assert isinstance(bars, Bars)
        return bars.select(symbols).between(start, min(end, closed))

    # --- feed
    def start(self) -> None:
        self._announce()

    def next(self, timeout_seconds: float) -> Event | None:
        if self.inbox:
            return self.inbox.popleft()
        self.time.now += max(timeout_seconds, 0.001)
        return None

    def done(self, tick: Tick, *, until: datetime | None) -> None:
        while True:
            outcome = self.exchange.apply(Advance())
            self._tell(outcome.events)
            if self.exchange.ended:
                self.inbox.append(Stop(reason="ended", finished=True))
                return
            if until is None or _at(self.exchange.tick.at_us) >= until:
                self._announce()
                return

    def stop(self, reason: str) -> None:
        self.inbox.append(Stop(reason=reason))

    def close(self) -> None: ...

    def _announce(self) -> None:
        tick = self.exchange.tick
        self.inbox.extend(self._quote(s) for s in self.exchange.tape.symbols)
        event = Tick(at=_at(tick.at_us), bar_closed=tick.bar_closed, number=tick.number)
        self.ticks.append(event)
        self.on_tick(event)
        self.inbox.append(event)

    def _quote(self, symbol: str) -> Quote:
        price = self.exchange.price(symbol)
        return Quote(symbol=symbol, bid=price, ask=price, at=_at(self.exchange.tick.at_us))

    def _tell(self, events: Sequence[VenueEvent]) -> None:
        updates = [_update(e) for e in events]
        if self.mute:
            return
        if self.twice and updates:
            updates = [u for u in updates for _ in range(2)] + updates[:1]
        self.inbox.extend(updates)


def _at(at_us: int) -> datetime:
    return from_epoch(at_us // 1_000_000) + timedelta(microseconds=at_us % 1_000_000)


def _order(order: VenueSideOrder) -> VenueOrder:
    return VenueOrder(
        client_order_id=order.client_order_id,
        venue_order_id=order.id,
        symbol=order.request.symbol,
        side=order.request.side,
        status=order.status,
        filled_qty=order.filled_qty,
        at=_at(order.updated_us),
        qty=order.request.qty,
        notional=order.request.notional,
    )


def _fill(fill: VenueSideFill, *, with_fee: bool) -> VenueFill:
    return VenueFill(
        execution=Execution(
            execution_id=fill.execution_id,
            qty=fill.qty,
            price=fill.price,
            at=_at(fill.at_us),
            fee=fill.fee if with_fee else None,
        ),
        venue_order_id=fill.order_id,
        symbol=fill.symbol,
        side=fill.side,
    )


def _update(event: VenueEvent) -> OrderUpdate:
    report = Report(
        state=state_of(event.order.status, event=event.kind),
        at=_at(event.at_us),
        venue_order_id=event.order.id,
        filled_qty=event.order.filled_qty,
    )
    fill = _fill(event.fill, with_fee=False) if event.fill is not None else None
    return OrderUpdate(client_order_id=event.order.client_order_id, report=report, fill=fill)


@dataclass
class MemoryLedger:
    """The journal in memory: what PostgreSQL keeps, with its rules. Survives the sessions of one account."""

    state: Json | None = None
    decisions: list[DecisionRow] = field(default_factory=list)
    equity: list[EquityRow] = field(default_factory=list)
    intents: dict[str, Intent] = field(default_factory=dict)
    events: list[OrderEvent] = field(default_factory=list)
    fills: dict[str, Fill] = field(default_factory=dict)
    halted: str | None = None
    token: int = 0
    holder: int = 0
    base: Decimal | None = None
    away: bool = False

    def _answer(self) -> None:
        if self.away:
            raise RetryLater("database is away")

    def acquire(self) -> LeaseState:
        self._answer()
        self.token += 1
        self.holder = self.token
        return LeaseState(held=True, token=self.token, halted_reason=self.halted)

    def renew(self) -> LeaseState:
        self._answer()
        held = self.holder == self.token
        return LeaseState(held=held, token=self.token, halted_reason=self.halted)

    def release(self) -> None: ...

    def halt(self, reason: str) -> None:
        self._answer()
        self.halted = self.halted or reason

    def load(self) -> Recovery:
        self._answer()
        orders = []
        for intent in self.intents.values():
            told = [e for e in self.events if e.client_order_id == intent.client_order_id]
            executions = {
                f.execution_id: Execution(execution_id=f.execution_id, qty=f.qty, price=f.price, at=f.filled_at, fee=f.fee)
                for f in self.fills.values()
                if f.client_order_id == intent.client_order_id
            }
            orders.append(
                Order(
                    intent=intent,
                    state=told[-1].state if told else OrderState.INITIALIZED,
                    venue_order_id=next((e.venue_order_id for e in reversed(told) if e.venue_order_id), None),
                    reported_qty=max((e.filled_qty for e in told), default=Decimal(0)),
                    executions=executions,
                )
            )
        decision = self.decisions[-1] if self.decisions else None
        return Recovery(state=self.state, decision=decision, orders=orders, fills=list(self.fills.values()))

    def baseline(self, equity_usd: Decimal) -> Decimal:
        self.base = self.base if self.base is not None else equity_usd
        return self.base

    def journal(self, intents: Sequence[Intent], *, state: Json | None) -> None:
        self._answer()
        if self.holder != self.token:
            raise Fenced("token")
        if self.halted and not all(i.is_exit for i in intents):
            raise Halted(self.halted)
        for intent in intents:
            self.intents.setdefault(intent.client_order_id, intent)
        self.state = state or self.state

    def record(self, *, events: Sequence[OrderEvent], fills: Sequence[Fill], state: Json | None = None) -> None:
        self._answer()
        assert all(e.client_order_id in self.intents for e in events)
        self.events.extend(events)
        for fill in fills:
            self.fills.setdefault(fill.execution_id, fill)
        self.state = state or self.state

    def commit(self, *, decision: DecisionRow | None, equity: EquityRow, state: Json) -> None:
        self._answer()
        assert decision is None or decision.bar_at not in {d.bar_at for d in self.decisions}
        self.decisions.extend([decision] if decision else [])
        self.equity.append(equity)
        self.state = state

    def save(self, state: Json) -> None:
        self._answer()
        self.state = state


@dataclass(frozen=True)
class Script:
    """A strategy that asks for the weights of its script, by the number of the decision."""

    weights: Mapping[int, Mapping[str, float]]
    symbols: tuple[str, ...] = SYMBOLS
    interval: int = 1

    @property
    def contract(self) -> Contract:
        return Contract(
            symbols=self.symbols, timeframe=Timeframe(HOUR), features=(), lookback=1, warmup_bars=1, interval=self.interval
        )

    def decide(self, view: View, memory: Json) -> Decision:
        number = int(memory.get("number", 0))
        targets = tuple(Target(symbol=s, weight=w) for s, w in self.weights.get(number, {}).items())
        return Decision(
            intents=targets,
            memory={"number": number + 1},
            trace={"bars_held": view.bars_held.tolist(), "since_stop": view.bars_since_stop.tolist()},
        )


@dataclass
class Trader:
    """One account over any number of sessions."""

    venue: Venue
    strategy: Any
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    limits: Limits = field(default_factory=lambda: Limits(barriers=Barriers.off()))
    on_halt: Any = "cancel"
    costs: Costs | None = None
    health: Health | None = None

    def session(self) -> Session:
        lease = LeaseKeeper(self.ledger, seconds=15.0, monotonic=self.venue.time)
        self.lease = lease
        self.venue.renew = lease.renew
        self.health = Health(monotonic=self.venue.time, stale_seconds=None)
        self.health.lease_alive, self.health.database_away = lambda: lease.alive, lambda: lease.database_away
        self.metrics = TraderMetrics()
        return Session(
            SessionConfig(
                account=ACCOUNT,
                trader_uid="uid",
                bundle_digest="d",
                sizing=Sizing(),
                limits=self.limits,
                on_halt=self.on_halt,
                costs=self.costs,
            ),
            strategy=self.strategy,
            broker=self.venue,
            ledger=self.ledger,
            feed=self.venue,
            lease=lease,
            metrics=self.metrics,
            health=self.health,
            monotonic=self.venue.time,
        )

    def run(self) -> Stop:
        session = self.session()
        try:
            return session.run()
        finally:
            self.lease.close(release=False)

    def books_agree(self) -> bool:
        """Journal and referee have the same fills, to the last increment."""
        ours = [(f.execution_id, f.symbol, f.side, f.qty, f.price, f.fee) for f in self.ledger.fills.values()]
        theirs = [(f.execution_id, f.symbol, f.side, f.qty, f.price, f.fee) for f in self.venue.account_book.fills]
        return sorted(ours) == sorted(theirs)
