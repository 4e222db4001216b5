"""What the parts of a session share: who trades under which limits, the desk, the stored state, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from cappuccino.core.clock import from_epoch, iso, to_epoch
from cappuccino.exchange.venue import AssetRules
from cappuccino.risk.limits import Limits, TradingMode
from cappuccino.risk.positions import Watch
from cappuccino.risk.sizing import Sizing
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.desk import Desk
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.orders import EXIT_REASONS
from cappuccino.trading.ports import Broker, Ledger
from cappuccino.trading.state import TraderState

OnHalt = Literal["hold", "cancel", "flatten"]
QUOTE_PATIENCE_SECONDS = 0.5  # then the quotes of an instant are asked for
SILENT_SECONDS = 0.02  # after another symbol's quote of that instant: this one has none (its bar is missing)
_BARRIERS = frozenset(EXIT_REASONS) - {"flatten"}

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    account: str
    trader_uid: str
    bundle_digest: str
    sizing: Sizing
    limits: Limits
    on_halt: OnHalt = "cancel"
    fees_posted_later: bool = False


@dataclass(kw_only=True)
class Situation:
    """Mutable; owned by the session's thread. `baseline` is the persisted one, quote currency."""

    config: SessionConfig
    symbols: tuple[str, ...]
    bar_seconds: int
    broker: Broker
    ledger: Ledger
    lease: LeaseKeeper
    desk: Desk
    rules: Mapping[str, AssetRules]
    state: TraderState
    metrics: TraderMetrics
    health: Health
    monotonic: Callable[[], float]
    baseline: Decimal = Decimal(0)

    @property
    def now(self) -> datetime:
        """Market time of what is being acted on."""
        assert self.desk.now is not None
        return self.desk.now

    @property
    def mode(self) -> TradingMode:
        return "halted" if self.lease.halted_reason else "active"

    @property
    def decision(self) -> str:
        """Name of the newest decision: its bar's open time."""
        return iso(from_epoch(self.state.decided))

    @property
    def in_time(self) -> bool:
        """Whether the bar after the newest decision's is still open."""
        return to_epoch(self.now) < self.state.decided + 2 * self.bar_seconds

    def marked(self) -> Decimal:
        """Equity at the newest quotes, at the decision's closes where there is none."""
        return self.desk.book.equity({**self.state.closes, **{s: quote.mid for s, quote in self.desk.quotes.items()}})

    def sync(self) -> None:
        """Make the watches those of the book, and remember which barrier has just sold."""
        state, book = self.state, self.desk.book
        for fill in self.desk.unwritten_fills:
            if self.desk.orders[fill.client_order_id].intent.reason in _BARRIERS:
                state.since_stop[fill.symbol] = 0
        for symbol, held in book.holdings.items():
            entry, watch = float(held.entry), state.watches.get(symbol)
            paid = float(self.desk.bought.pop(symbol, held.entry))
            if watch is None or watch.position_id != held.position_id:
                state.watches[symbol] = Watch(
                    symbol=symbol,
                    position_id=held.position_id,
                    entry=entry,
                    peak=max(entry, paid),
                    barriers=self.config.limits.barriers,
                )
            elif watch.entry != entry:
                state.watches[symbol] = watch.rebased(entry=entry, paid=paid)
        for symbol in state.watches.keys() - book.holdings.keys():
            del state.watches[symbol]

    def record(self) -> None:
        """Write what happened together with the state that follows from it. Raises RetryLater."""
        self.sync()
        self.desk.flush(self.state.to_json())

    def refuse(self, rule: str, numbers: Mapping[str, str]) -> None:
        """Remember a refusal for the next decision's row; once per rule and symbol."""
        known = {(refusal["rule"], refusal["numbers"].get("symbol")) for refusal in self.state.refusals}
        if (rule, numbers.get("symbol")) not in known:
            self.state.refusals.append({"rule": rule, "verdict": "veto", "numbers": dict(numbers)})
            self.metrics.refused(rule)
            log.warning("refused", rule=rule, numbers=dict(numbers))

    # --- quotes of an instant -----------------------------------------------------------------------

    def quoted(self, symbol: str, at: datetime) -> bool:
        quote = self.desk.quotes.get(symbol)
        return quote is not None and quote.at >= at

    def await_quotes(self, at: datetime, symbols: Mapping[str, object] | tuple[str, ...]) -> None:
        """Quotes of this instant; what the stream does not bring is asked for. A symbol without one stays without."""
        deadline = self.monotonic() + QUOTE_PATIENCE_SECONDS
        while missing := [s for s in symbols if not self.quoted(s, at)]:
            left = deadline - self.monotonic()
            if left <= 0:
                self.desk.quotes.update(self.broker.latest_quotes(missing))
                return
            others = any(quote.at >= at for quote in self.desk.quotes.values())
            if not self.desk.pump(min(left, SILENT_SECONDS) if others else left) and others:
                return
