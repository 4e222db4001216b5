"""What the parts of a session share: who trades under which limits, the desk, the stored state, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from cappuccino.core.clock import from_epoch, iso, to_epoch
from cappuccino.core.money import floor_to
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.risk.limits import Limits, TradingMode
from cappuccino.risk.positions import Watch
from cappuccino.risk.sizing import Sizing
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.blotter import Blotter
from cappuccino.trading.desk import Desk
from cappuccino.trading.facts import Facts, is_price, minimum_notional
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.orders import EXIT_REASONS
from cappuccino.trading.ports import Broker, Json, Ledger
from cappuccino.trading.state import TraderState

OnHalt = Literal["hold", "cancel", "flatten"]
QUOTE_PATIENCE_SECONDS = 0.5  # then the quotes of an instant are asked for
SILENT_SECONDS = 0.02  # after another symbol's quote of that instant: this one has none (its bar is missing)
_BARRIERS = frozenset(EXIT_REASONS) - {"flatten"}
_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """`costs`: what the bundle assumes; None where it is not known, and nothing is compared with it."""

    account: str
    trader_uid: str
    bundle_digest: str
    sizing: Sizing
    limits: Limits
    on_halt: OnHalt = "cancel"
    fees_posted_later: bool = False
    costs: Costs | None = None


@dataclass(kw_only=True)
class Situation:
    """Mutable; owned by the session's thread. `baseline` is the persisted one, quote currency. `unsaved`: the state has
    something that must not wait for the next order or bar to be stored."""

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
    unsaved: bool = False

    @property
    def blotter(self) -> Blotter:
        return self.desk.blotter

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

    @property
    def prices(self) -> dict[str, Decimal]:
        """The market's now, by symbol. A quote with a side that is no price is none."""
        return {s: quote.mid for s, quote in self.desk.quotes.items() if is_price(quote.bid) and is_price(quote.ask)}

    @property
    def sellable(self) -> list[str]:
        """What is held and not known to be less than the venue sells."""
        prices, found = self.prices, []
        for symbol in self.state.watches:
            qty = floor_to(self.blotter.book.qty(symbol), self.rules[symbol].min_trade_increment)
            price = prices.get(symbol)
            if price is None or qty * price >= minimum_notional(self.rules[symbol], price):
                found.append(symbol)
        return found

    @property
    def exposed(self) -> bool:
        """Whether something is at stake: held, or perhaps about to be."""
        return bool(self.state.watches or self.blotter.unfinished)

    def marked(self) -> Decimal:
        """Equity at the newest quotes, at the decision's closes where there is none."""
        return self.blotter.book.equity({**self.state.closes, **self.prices})

    def facts(self, *, closes: Mapping[str, Decimal], equity: Decimal) -> Facts:
        """What an order is reviewed on now. `closes` and `equity` are the decision's that it follows from."""
        return Facts(
            mode=self.mode,
            now=self.now,
            day=self.state.day,
            book=self.blotter.book,
            watches=self.state.watches,
            equity=equity,
            closes=closes,
            quotes={**self.desk.quotes, **{symbol: quote for symbol, (quote, _) in self.desk.doubted.items()}},
            rules=self.rules,
            limits=self.config.limits,
            orders_last_hour=self.blotter.orders_since(self.now - _HOUR),
            orders_last_minute=self.blotter.orders_since(self.now - _MINUTE),
        )

    def sync(self) -> None:
        """Make the watches those of the book, and remember which barrier has just sold. What happens while the account is
        halted does not count for the circuit breaker once it is lifted."""
        state, book = self.state, self.blotter.book
        if self.lease.halted_reason:
            state.cleared_at = max(self.now, *(trade.closed_at for trade in book.trades[-1:]), state.cleared_at or self.now)
            state.failed_decisions = 0
        for fill in self.blotter.unwritten_fills:
            if self.blotter.orders[fill.client_order_id].intent.reason in _BARRIERS:
                state.since_stop[fill.symbol] = 0
        for symbol, held in book.holdings.items():
            entry, watch = float(held.entry), state.watches.get(symbol)
            paid = float(self.blotter.bought.pop(symbol, held.entry))
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
        self.blotter.flush(self.state.to_json())
        self.unsaved = False

    def save(self) -> None:
        """Store the state alone. Raises RetryLater."""
        self.ledger.save(self.state.to_json())
        self.unsaved = False

    def refuse(self, refusal: Json) -> None:
        """Keep what was refused between two decisions for the next one's row: one entry per rule, side and symbol, with its
        first numbers, and how many `times` until when."""
        self.metrics.refused(refusal["rule"])
        self.state.refusals, known = _counted(self.state.refusals, {**refusal, "at": self.now.isoformat()})
        if not known:
            self.unsaved = True
            log.warning("refused", **refusal)

    # --- quotes of an instant -----------------------------------------------------------------------

    def quoted(self, symbol: str, at: datetime) -> bool:
        quote = self.desk.quotes.get(symbol)
        return quote is not None and quote.at >= at

    def ask_quotes(self, symbols: Sequence[str]) -> None:
        """Raises RetryLater."""
        for quote in self.broker.latest_quotes(symbols).values():
            self.desk.take_quote(quote)

    def await_quotes(self, at: datetime, symbols: Mapping[str, object] | tuple[str, ...]) -> None:
        """Quotes of this instant; what the stream does not bring is asked for. A symbol without one stays without."""
        deadline = self.monotonic() + QUOTE_PATIENCE_SECONDS
        while missing := [s for s in symbols if not self.quoted(s, at)]:
            left = deadline - self.monotonic()
            if left <= 0:
                self.ask_quotes(missing)
                return
            others = any(quote.at >= at for quote in self.desk.quotes.values())
            if not self.desk.pump(min(left, SILENT_SECONDS) if others else left) and others:
                return


def _counted(refusals: Sequence[Json], new: Json) -> tuple[list[Json], bool]:
    """`refusals` with `new` among them, and whether there was one like it."""
    names = ("rule", "side", "symbol")
    kept, known = [], False
    for refusal in refusals:
        if all(refusal.get(name) == new.get(name) for name in names):
            refusal = {**refusal, "times": refusal.get("times", 1) + 1, "until": new["at"]}
            known = True
        kept.append(refusal)
    return (kept if known else [*kept, {**new, "times": 1}]), known
