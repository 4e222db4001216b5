"""One trader at work: what a tick of the market makes it do.

    bar closes -> features -> view -> decide -> risk -> commit (decision, memory, state, equity in one transaction)
    -> sells, until settled -> buys, fitted to the cash that is then there, until settled -> barriers on every quote

Invariants:
- It trades only after reconciliation, with features warmed up on the venue's own bars, under a live lease.
- The decision is a row before any of its orders exists; every order's id follows from the decision. A process that
  dies anywhere is continued: `state.step` says where, and nothing is done twice.
- Orders of a decision that a restart finds unfinished are completed while its next bar is still open; after that they
  are abandoned, and the next decision starts from what is held.
- While the database is away no bar is decided and nothing is bought; barriers go on until the lease runs out.
- Halted: no entries, barriers go on; then `on_halt` (hold, cancel open orders, flatten).

On a venue that does not wait, a bar that closed while the trader was away gets no decision; the newest one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import numpy as np

from cappuccino.core.clock import from_epoch, iso, to_epoch
from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.core.failpoints import reach
from cappuccino.core.identifiers import client_order_id
from cappuccino.core.money import dec, floor_to
from cappuccino.exchange.venue import AssetRules
from cappuccino.market.bars import BoolArray, FloatArray
from cappuccino.market.features import FeatureStream
from cappuccino.risk.limits import Exposure, Limits, Proposal, TradingMode, Veto, drawdown_breach, review
from cappuccino.risk.positions import NEVER, Watch, advance
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Strategy
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.book import Book
from cappuccino.trading.desk import Desk
from cappuccino.trading.fees import FeeSchedule
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.orders import ENTRY_REASON, EXIT_REASONS, Intent
from cappuccino.trading.planning import fit_buys, minimum_notional, plan_orders, scale_of, view_of
from cappuccino.trading.ports import Broker, DecisionRow, EquityRow, Feed, Fenced, Halted, Json, Ledger, Stop, Tick
from cappuccino.trading.recovery import exit_attempts, exit_id, reconcile
from cappuccino.trading.state import TraderState

OnHalt = Literal["hold", "cancel", "flatten"]
IDLE_SECONDS = 0.2  # between two looks at the lease when nothing arrives
QUOTE_PATIENCE_SECONDS = 0.5  # then the quotes of an instant are asked for
SILENT_SECONDS = 0.02  # after another symbol's quote of that instant: this one has none (its bar is missing)
RECONCILE_BARS = 24
SAVE_PEAKS_SECONDS = 1.0  # on a venue that does not wait for us
_HOUR = timedelta(hours=1)
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


@dataclass(frozen=True, kw_only=True)
class NewestBar:
    """The bar a decision is made on. close, tradable: [N] in the contract's order."""

    ts: int
    close: FloatArray
    tradable: BoolArray


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
    ) -> None:
        self._config = config
        self._strategy = strategy
        self._symbols = strategy.contract.symbols
        self._bar_seconds = strategy.contract.timeframe.seconds
        self._broker, self._ledger, self._feed, self._lease = broker, ledger, feed, lease
        self._metrics, self._health, self._monotonic = metrics, health, monotonic
        self._features = FeatureStream(self._symbols, strategy.contract.timeframe, strategy.contract.features)
        self._window: deque[FloatArray] = deque(maxlen=strategy.contract.lookback)
        self._bar: NewestBar | None = None
        self._memory: Json = {}
        self._rules: Mapping[str, AssetRules] = {}
        self._baseline = Decimal(0)
        self._bars_since_agreement = 0
        self._peaks_saved = float("-inf")
        self._due: Tick | None = None
        self.state = TraderState(opening_cash=Decimal(0))
        self.desk: Desk

    # --- life ---------------------------------------------------------------------------------------

    def run(self) -> Stop:
        """Trade until the venue's tape ends or a stop is asked for, which is returned.

        Raises:
            Fenced, RetryLater: start again later. UserError, IntegrityError, InvariantViolation: as their names say.
        """
        self.start()
        while True:
            stop = self.desk.stop_requested()
            if stop is not None and (self._due is None or not stop.finished):
                return self._end(stop)
            try:
                self._turn()
            except Fenced:
                raise
            except RetryLater as error:
                log.warning("waiting", error=str(error))
                self._lease.check()
                self.desk.pump(IDLE_SECONDS)

    def start(self) -> None:
        """Everything before the first tick: lease, journal, reconciliation, warm-up, what was left unfinished."""
        self._lease.acquire()
        recovered = self._ledger.load()
        self._rules = self._broker.rules(self._symbols)
        fees = FeeSchedule({s: rules.min_trade_increment for s, rules in self._rules.items()})
        self.desk = Desk(
            broker=self._broker,
            ledger=self._ledger,
            feed=self._feed,
            lease=self._lease,
            fees=fees,
            metrics=self._metrics,
            monotonic=self._monotonic,
        )
        self._feed.start()
        if recovered.state is not None:
            self.state = TraderState.from_json(recovered.state)
        else:
            self.state = TraderState(opening_cash=self._broker.account().cash_usd)
        if recovered.decision is not None:
            self._memory = recovered.decision.memory
        smallest = {s: rules.min_order_size for s, rules in self._rules.items()}
        opening = Book(cash=self.state.opening_cash, smallest=smallest)
        self.desk.restore(book=opening, orders=recovered.orders, fills=recovered.fills)
        self.desk.now = self._broker.now()
        self.desk.wanted = self._wanted
        since = max((f.filled_at for f in recovered.fills), default=self.desk.now)
        self._reconcile(since)
        self._warm_up()
        self._baseline = self._ledger.baseline(self.state.opening_cash)
        self._complete()
        self._sync()
        self.desk.flush(self.state.to_json())
        self._health.started()
        log.info("trading", cash=str(self.desk.book.cash), positions=len(self.desk.book.holdings), last_bar=self.state.last_bar)

    def flatten(self) -> None:
        """Reconcile, sell everything, and end: what a deleted trader leaves behind is cash."""
        self.start()
        self._flatten_all()
        self.desk.flush(self.state.to_json())

    def _end(self, stop: Stop) -> Stop:
        if stop.failed is not None:
            raise stop.failed
        if not stop.finished and self._config.on_halt != "hold":
            self.desk.cancel_open()
        if stop.finished:
            self._reconcile(
                self.desk.recent_fills[-1].filled_at if self.desk.recent_fills else self.desk.now or self._broker.now()
            )
        self._sync()
        self.desk.flush(self.state.to_json())
        log.info("ended", reason=stop.reason, cash=str(self.desk.book.cash))
        return stop

    def _turn(self) -> None:
        """One event, or one idle moment."""
        if self.desk.gap:
            since = self.desk.recent_fills[-1].filled_at if self.desk.recent_fills else self.desk.now or self._broker.now()
            self._reconcile(since)
        if self.desk.unwritten and not self._lease.database_away:
            self._sync()
            self.desk.flush(self.state.to_json())
        if self._due is None:
            tick = next((e for e in self.desk.deferred if isinstance(e, Tick)), None)
            if tick is None:
                self.desk.pump(IDLE_SECONDS)
            else:
                self.desk.deferred.remove(tick)
                self._due = tick
        self._lease.check()
        if not self._feed.lockstep:
            fresh, self.desk.fresh = self.desk.fresh, set()
            self._guard(fresh)
        self._apply_halt()
        if self._due is not None:
            self._tick(self._due)
            self._due = None

    def _tick(self, tick: Tick) -> None:
        """Act on an instant. Safe to repeat: every part knows whether it was done."""
        self.desk.now = tick.at
        if tick.bar_closed:
            started = self._monotonic()
            self._lease.renew()
            self._lease.check()
            self._take_bars(tick.at)
            assert self._bar is not None
            if self.state.last_bar < self._bar.ts:
                self._decide(tick)
            self._complete()
            self._metrics.decided(self._monotonic() - started)
            self._agree()
        if self._feed.lockstep:
            self._await_quotes(tick.at, self.state.watches)
            self._guard({s for s in self.state.watches if self._quoted(s, tick.at)})
            self._apply_halt()
        flat = not self.state.watches and not self.desk.unfinished
        closes = self._floor(tick.at) + self._bar_seconds
        if self.desk.stop_requested() is None:
            self._feed.done(tick, until=from_epoch(closes) if flat else None)
            reach("acknowledged")

    # --- bars and decisions -------------------------------------------------------------------------

    def _floor(self, at: datetime) -> int:
        return self._strategy.contract.timeframe.floor(to_epoch(at))

    def _warm_up(self) -> None:
        contract = self._strategy.contract
        assert self.desk.now is not None
        need = max(contract.warmup_bars, self._features.warmup_bars + contract.lookback - 1, 1)
        end = self._floor(self.desk.now)
        self._feed_bars(start=end - need * self._bar_seconds, end=end)
        if len(self._window) < contract.lookback or not self._features.ready:
            raise InvalidInput(
                f"the venue has {self._features.bars_seen} bars of {', '.join(self._symbols)} before {iso(self.desk.now)}, "
                f"the bundle warms up on {need}: start later, or bring more history"
            )

    def _take_bars(self, at: datetime) -> None:
        assert self._bar is not None
        self._feed_bars(start=self._bar.ts + self._bar_seconds, end=self._floor(at))

    def _feed_bars(self, *, start: int, end: int) -> None:
        if start >= end:
            return
        bars = self._broker.closed_bars(self._symbols, self._strategy.contract.timeframe, start=start, end=end)
        for t in range(len(bars)):
            row = self._features.update(bars.open[t], bars.high[t], bars.low[t], bars.close[t], bars.volume[t])
            self._window.append(row)
            self._bar = NewestBar(ts=int(bars.ts[t]), close=bars.close[t], tradable=~bars.missing[t])
        self._health.bar(end)
        self._metrics.last_bar.set(end)

    def _decide(self, tick: Tick) -> None:
        """Decide on the newest bar and commit it; nothing is sent yet."""
        bar, contract, state = self._bar, self._strategy.contract, self.state
        assert bar is not None
        closes = {s: dec(float(c)) for s, c in zip(self._symbols, bar.close, strict=True)}
        equity = self.desk.book.equity(closes)
        self._check_drawdown(equity)
        due = not state.first_decision or (bar.ts - state.first_decision) // self._bar_seconds % contract.interval == 0
        row, memory = None, self._memory
        new = replace(state, last_bar=bar.ts)
        if due:
            if state.first_decision:
                new.watches = {s: w.aged() for s, w in state.watches.items()}
                new.since_stop = {s: min(n + 1, NEVER) for s, n in state.since_stop.items()}
            self._await_quotes(tick.at, self._symbols)
            view = view_of(
                contract,
                at=tick.at,
                features=np.stack(list(self._window), axis=1),
                close=bar.close,
                tradable=bar.tradable,
                book=self.desk.book,
                watches=new.watches,
                since_stop=new.since_stop,
                scale=scale_of(self._config.limits, self._config.sizing),
            )
            decision = self._strategy.decide(view, self._memory)
            planned = plan_orders(
                decision.intents,
                view,
                symbols=self._symbols,
                book=self.desk.book,
                rules=self._rules,
                prices={s: quote.mid for s, quote in self.desk.quotes.items()},
                sizing=self._config.sizing,
                limits=self._config.limits,
                mode=self._mode,
                orders_last_hour=self.desk.orders_since(tick.at - _HOUR),
            )
            refusals = [*state.refusals, *planned.refusals]
            memory = decision.memory
            row = DecisionRow(
                bar_at=from_epoch(bar.ts),
                bundle_digest=self._config.bundle_digest,
                intents=[{"symbol": t.symbol, "weight": t.weight} for t in decision.intents],
                refusals=refusals,
                memory=memory,
                trace=decision.trace,
                data_age_seconds=tick.age_seconds,
            )
            new.decided, new.first_decision = bar.ts, state.first_decision or bar.ts
            new.sells, new.buys, new.closes, new.refusals = planned.sells, planned.buys, closes, []
            new.step = "sells" if planned.sells or planned.buys else "done"
            for refusal in planned.refusals:
                self._metrics.refused(refusal["rule"])
        reach("before_commit")
        self._ledger.commit(
            decision=row,
            equity=EquityRow(
                bar_at=from_epoch(bar.ts),
                equity_usd=equity,
                cash_usd=self.desk.book.cash,
                positions={
                    s: {"qty": str(h.qty), "entry": str(h.entry), "close": str(closes[s])}
                    for s, h in self.desk.book.holdings.items()
                },
            ),
            state=new.to_json(),
        )
        reach("committed")
        self.state, self._memory = new, memory
        self._metrics.equity.set(float(equity))
        self._health.committed(bar.ts, equity)

    # --- the orders of a decision -------------------------------------------------------------------

    @property
    def _mode(self) -> TradingMode:
        return "halted" if self._lease.halted_reason else "active"

    @property
    def _in_time(self) -> bool:
        """Whether the bar after the decision's is still open."""
        assert self.desk.now is not None
        return to_epoch(self.desk.now) < self.state.decided + 2 * self._bar_seconds

    def _wanted(self, intent: Intent) -> bool:
        """Whether an order that never reached the venue is still to be sent."""
        if intent.is_exit:
            held = self.desk.book.holdings.get(intent.symbol)
            return held is not None and held.position_id == intent.decision
        current = intent.decision == iso(from_epoch(self.state.decided))
        return current and self._in_time and self._mode == "active" and self.desk.stop_requested() is None

    def _complete(self) -> None:
        """Bring the newest decision to its end, from whatever step it has reached."""
        if self.state.step == "done":
            return
        if not self._in_time:
            self._refuse("late", {"decision": iso(from_epoch(self.state.decided)), "step": self.state.step})
            self._finish_step(replace(self.state, step="done"))
            return
        try:
            if self.state.step == "sells":
                self.desk.send([self._entry(s, "sell", qty=q) for s, q in self.state.sells.items()], state=self.state.to_json())
                if self.desk.stop_requested() is not None:
                    return
                fitted = fit_buys(
                    self.state.buys,
                    cash=self.desk.book.cash,
                    closes=self.state.closes,
                    rules=self._rules,
                    sizing=self._config.sizing,
                )
                buys = replace(self.state, step="buys", buys=fitted)
                self.desk.send([self._entry(s, "buy", notional=n) for s, n in fitted.items()], state=buys.to_json())
                self.state = buys
            else:
                self.desk.send(
                    [self._entry(s, "buy", notional=n) for s, n in self.state.buys.items()], state=self.state.to_json()
                )
        except Halted as halted:
            self._lease.renew()
            self._refuse("halted", {"reason": str(halted), "step": self.state.step})
        self._finish_step(replace(self.state, step="done"))

    def _finish_step(self, state: TraderState) -> None:
        """The decision is over when the record says so; until then it is repeated, which does nothing twice."""
        before, self.state = self.state, state
        self._sync()
        try:
            self.desk.flush(self.state.to_json())
        except RetryLater:
            self.state.step = before.step
            raise

    def _entry(
        self, symbol: str, side: Literal["buy", "sell"], *, qty: Decimal | None = None, notional: Decimal | None = None
    ) -> Intent:
        assert self.desk.now is not None
        decision = iso(from_epoch(self.state.decided))
        return Intent(
            client_order_id=client_order_id(account=self._config.account, decision=decision, symbol=symbol, leg=side),
            account=self._config.account,
            trader_uid=self._config.trader_uid,
            decision=decision,
            symbol=symbol,
            side=side,
            reason=ENTRY_REASON,
            created_at=self.desk.now,
            qty=qty,
            notional=notional,
        )

    # --- barriers, halts ----------------------------------------------------------------------------

    def _quoted(self, symbol: str, at: datetime) -> bool:
        quote = self.desk.quotes.get(symbol)
        return quote is not None and quote.at >= at

    def _await_quotes(self, at: datetime, symbols: Mapping[str, object] | tuple[str, ...]) -> None:
        """Quotes of this instant; what the stream does not bring is asked for. A symbol without one stays without."""
        deadline = self._monotonic() + QUOTE_PATIENCE_SECONDS
        while missing := [s for s in symbols if not self._quoted(s, at)]:
            now = self._monotonic()
            if now >= deadline:
                break
            others = any(quote.at >= at for quote in self.desk.quotes.values())
            if not self.desk.pump(min(deadline - now, SILENT_SECONDS if others else deadline - now)) and others:
                return
        if missing:
            self.desk.quotes.update(self._broker.latest_quotes(missing))

    def _guard(self, symbols: set[str]) -> None:
        """Let the barriers look at the newest quotes of `symbols`."""
        moved = False
        for symbol in sorted(symbols & self.state.watches.keys()):
            reason, watch = advance(self.state.watches[symbol], float(self.desk.quotes[symbol].mid))
            moved = moved or watch is not self.state.watches[symbol]
            self.state.watches[symbol] = watch
            if reason:
                self._exit(watch, reason)
        if symbols:
            self._check_drawdown(self._marked())
        if moved and (self._feed.lockstep or self._monotonic() - self._peaks_saved > SAVE_PEAKS_SECONDS):
            self._peaks_saved = self._monotonic()
            self._ledger.save(self.state.to_json())

    def _exit(self, watch: Watch, reason: str) -> None:
        """Sell a whole position. What does not fill is tried again, under the next id, at the next quote."""
        book, symbol, rules = self.desk.book, watch.symbol, self._rules[watch.symbol]
        quote = self.desk.quotes.get(symbol)
        price = quote.mid if quote is not None else Decimal(0)
        assert self.desk.now is not None
        qty = floor_to(book.qty(symbol), rules.min_trade_increment)
        verdict = review(
            Proposal(symbol=symbol, side="sell", protective=True, qty=qty),
            Exposure(
                mode=self._mode,
                equity=self._marked(),
                cash=book.cash,
                held=qty,
                close=price,
                price=price,
                min_notional=minimum_notional(rules, price),
                orders_last_hour=0,
            ),
            self._config.limits,
        )
        if isinstance(verdict, Veto):
            self._refuse(verdict.rule, {"symbol": symbol, "reason": reason, **verdict.numbers})
            return
        attempt = exit_attempts(self.desk, watch.position_id, reason, account=self._config.account, symbol=symbol)
        intent = Intent(
            client_order_id=exit_id(self._config.account, watch.position_id, symbol, reason, attempt),
            account=self._config.account,
            trader_uid=self._config.trader_uid,
            decision=watch.position_id,
            symbol=symbol,
            side="sell",
            reason=reason,
            created_at=self.desk.now,
            qty=qty,
        )
        log.info("exit", symbol=symbol, reason=reason, qty=str(qty), price=str(price), attempt=attempt)
        self.desk.send([intent], state=self.state.to_json())
        self._metrics.exited(reason)
        self._sync()
        try:
            self.desk.flush(self.state.to_json())
        except RetryLater:
            log.warning("exit_not_recorded_yet", order=intent.client_order_id)

    def _flatten_all(self) -> None:
        self._await_quotes(self.desk.now or self._broker.now(), self.state.watches)
        for watch in list(self.state.watches.values()):
            self._exit(watch, "flatten")

    def _apply_halt(self) -> None:
        halted = self._lease.halted_reason
        self._metrics.halted.set(1 if halted else 0)
        self._health.halted = halted
        if halted is None or self._config.on_halt == "hold":
            return
        if self.desk.unfinished:
            self.desk.cancel_open()
        if self._config.on_halt == "flatten":
            self._flatten_all()

    def _marked(self) -> Decimal:
        """Equity at the newest quotes, at the decision's closes where there is none."""
        prices = {**self.state.closes, **{s: quote.mid for s, quote in self.desk.quotes.items()}}
        return self.desk.book.equity(prices)

    def _check_drawdown(self, equity: Decimal) -> None:
        self._metrics.drawdown.set(float(1 - equity / self._baseline) if self._baseline else 0.0)
        breach = drawdown_breach(equity, self._baseline, self._config.limits)
        if breach is not None and self._lease.halted_reason is None:
            log.error("halting", reason=breach)
            self._ledger.halt(breach)
            self._lease.renew()

    def _refuse(self, rule: str, numbers: Mapping[str, str]) -> None:
        """Remember a refusal for the next decision's row, once."""
        refusal = {"rule": rule, "verdict": "veto", "numbers": dict(numbers)}
        if not any(
            known["rule"] == rule and known["numbers"].get("symbol") == numbers.get("symbol") for known in self.state.refusals
        ):
            self.state.refusals.append(refusal)
            self._metrics.refused(rule)
            log.warning("refused", rule=rule, numbers=dict(numbers))

    # --- agreement ----------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Make the watches those of the book."""
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
                    barriers=self._config.limits.barriers,
                )
            elif watch.entry != entry:
                state.watches[symbol] = watch.rebased(entry=entry, paid=paid)
        for symbol in state.watches.keys() - book.holdings.keys():
            del state.watches[symbol]

    def _agree(self) -> None:
        self._bars_since_agreement += 1
        if self._bars_since_agreement >= RECONCILE_BARS:
            assert self.desk.now is not None
            self._reconcile(self.desk.recent_fills[-1].filled_at if self.desk.recent_fills else self.desk.now)

    def _reconcile(self, since: datetime) -> None:
        at = reconcile(
            self.desk,
            self._broker,
            account=self._config.account,
            trader_uid=self._config.trader_uid,
            since=since,
            fees_posted_later=self._config.fees_posted_later,
        )
        self._bars_since_agreement = 0
        self._sync()
        self.state.reconciled_at = iso(at)
        self._health.reconciled(at)
        self._metrics.reconciled.set(at.timestamp())
