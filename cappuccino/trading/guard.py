"""What ends positions: barriers on every quote, halts, and the circuit breaker that causes one.

Protective exits need no bar, no model and no entry rights. They sell the whole position; what does not fill is tried
again at the next quote, under the next deterministic id of that position and reason; what the venue rejects is tried
again after a pause that doubles up to a minute, so that a venue which refuses is not flooded. The pause is over by the
market's time or, on a venue that does not wait for us, by our own, whichever is first: quotes may be silent or old.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal

from cappuccino.core.errors import RetryLater
from cappuccino.core.money import floor_to
from cappuccino.risk.breaker import Standing, trip
from cappuccino.risk.day import today
from cappuccino.risk.positions import Watch, advance
from cappuccino.risk.review import Proposal, Veto, review
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.desk import EXIT_SECONDS, SETTLE_SECONDS
from cappuccino.trading.facts import exposure_of, refusal_of
from cappuccino.trading.orders import Intent, OrderState
from cappuccino.trading.ports import Fenced
from cappuccino.trading.recovery import exit_attempts, exit_id
from cappuccino.trading.situation import Situation

LONGEST_PAUSE_SECONDS = 60  # between two tries of an exit that the venue rejects
SILENT_STREAM_SECONDS = 10.0  # without a quote of something held: then it is asked for
SAVE_PEAKS_SECONDS = 1.0  # on a venue that does not wait for us; in lockstep every peak is saved

log = get_logger(__name__)


class Guard:
    def __init__(self, situation: Situation, *, lockstep: bool) -> None:
        self._in = situation
        self._lockstep = lockstep
        self._save_every = 0.0 if lockstep else SAVE_PEAKS_SECONDS
        self._saved = float("-inf")
        self._quoted_at: dict[str, float] = {}  # by symbol
        self._rejected: dict[str, tuple[int, datetime, float]] = {}  # by position: times in a row, when again by either clock

    def look_at_news(self) -> None:
        """Let the barriers look at what was quoted since they last did."""
        desk = self._in.desk
        desk.confirm_quotes()
        fresh, desk.fresh = desk.fresh, set()
        self._quoted_at |= dict.fromkeys(fresh, self._in.monotonic())
        self.look(fresh)

    def ask_for_silent(self) -> None:
        """A stream that is silent about something held is not waited for: all that is held is asked for, in one request."""
        held, now = tuple(self._in.state.watches), self._in.monotonic()
        if any(now - self._quoted_at.setdefault(symbol, now) > SILENT_STREAM_SECONDS for symbol in held):
            self._in.ask_quotes(held)
            self._quoted_at |= dict.fromkeys(held, now)
            self.look_at_news()

    def look(self, symbols: Collection[str]) -> None:
        """Let the barriers look at the newest quotes of `symbols`. Raises RetryLater when a peak cannot be saved; while the
        database is known to be away it is not tried; or when an exit was not settled, after all others were tried."""
        at, moved, prices = self._in, False, self._in.prices
        unsettled: RetryLater | None = None
        for symbol in sorted(at.state.watches.keys() & set(symbols)):
            if symbol not in prices:
                quote = at.desk.quotes[symbol]
                numbers = {"bid": str(quote.bid), "ask": str(quote.ask)}
                at.refuse(refusal_of(symbol, "sell", Veto(rule="price", numbers=numbers)))
                continue
            before = at.state.watches[symbol]
            reason, watch = advance(before, float(prices[symbol]))
            moved = moved or watch is not before
            at.state.watches[symbol] = watch
            if reason:
                try:
                    self.exit(watch, reason)
                except Fenced:
                    raise
                except RetryLater as error:
                    log.warning("exit_not_settled", symbol=symbol, reason=reason, error=str(error))
                    unsettled = error
        if symbols:
            self.check(at.marked())
        due = moved and at.monotonic() - self._saved >= self._save_every
        if (due or at.unsaved) and not at.lease.database_away:
            self._saved = at.monotonic()
            at.save()
        if unsettled is not None:
            raise unsettled

    def exit(self, watch: Watch, reason: str) -> None:
        """Sell a whole position, and see it settled."""
        at, symbol, rules = self._in, watch.symbol, self._in.rules[watch.symbol]
        failures, again_at, again = self._rejected.get(watch.position_id, (0, at.now, 0.0))
        if at.now < again_at and (self._lockstep or at.monotonic() < again):
            return
        if under_way := at.blotter.exits_under_way(watch.position_id):
            at.desk.settle(under_way, seconds=SETTLE_SECONDS if self._lockstep else EXIT_SECONDS)
            at.sync()
            return
        qty = floor_to(at.blotter.book.qty(symbol), rules.min_trade_increment)
        exposure = exposure_of(symbol, at.facts(closes={}, equity=at.marked()))
        verdict = review(Proposal(symbol=symbol, side="sell", protective=True, qty=qty), exposure, at.config.limits)
        if isinstance(verdict, Veto):
            at.refuse({**refusal_of(symbol, "sell", verdict), "reason": reason})
            return
        account = at.config.account
        attempt = exit_attempts(at.desk, watch.position_id, reason, account=account, symbol=symbol)
        intent = Intent(
            client_order_id=exit_id(account, watch.position_id, symbol, reason, attempt),
            account=account,
            trader_uid=at.config.trader_uid,
            decision=watch.position_id,
            symbol=symbol,
            side="sell",
            reason=reason,
            created_at=at.now,
            qty=qty,
            quote_price=exposure.price,
        )
        log.info("exit", symbol=symbol, reason=reason, qty=str(qty), price=str(exposure.price), attempt=attempt)
        (order,) = at.desk.send([intent], state=at.state.to_json())
        at.metrics.exited(reason)
        if order.state is OrderState.REJECTED:
            pause = min(2 ** min(failures, 9), LONGEST_PAUSE_SECONDS)
            self._rejected[watch.position_id] = (failures + 1, at.now + timedelta(seconds=pause), at.monotonic() + pause)
        else:
            self._rejected.pop(watch.position_id, None)
        try:
            if not at.lease.database_away:
                at.record()
        except RetryLater:
            log.warning("exit_not_recorded_yet", order=intent.client_order_id)
        at.sync()

    def flatten(self) -> None:
        """Sell every position that the venue takes an order for."""
        at = self._in
        at.await_quotes(at.now, tuple(at.sellable))
        for symbol in at.sellable:
            self.exit(at.state.watches[symbol], "flatten")

    def apply_halt(self) -> None:
        """While the account is halted: what `on_halt` says, until it is done. Entries are refused elsewhere."""
        at, halted = self._in, self._in.lease.halted_reason
        at.metrics.halted.set(1 if halted else 0)
        at.health.halted = halted
        if halted is None:
            return
        at.sync()
        if at.config.on_halt == "hold":
            return
        if at.blotter.unfinished:
            at.desk.deny_unsent()
            at.desk.cancel_open()
        if at.config.on_halt == "flatten" and at.sellable:
            self.flatten()
            if at.unsaved and not at.lease.database_away:
                at.save()

    def check(self, equity: Decimal) -> None:
        """What `equity`, seen now, means for the UTC day and the circuit breaker. Raises RetryLater: a halt cannot be stored;
        then the day stays as it was, and the next look tries again."""
        at = self._in
        at.metrics.drawdown.set(float(1 - equity / at.baseline) if at.baseline else 0.0)
        before, day = at.state.day, today(at.state.day, now=at.now, equity=equity, limits=at.config.limits)
        standing = Standing(
            equity=equity,
            baseline=at.baseline,
            day_before=before,
            day=day,
            losing_trades=self._losing_trades(),
            rejected_orders=self._rejected_orders(),
            failed_decisions=at.state.failed_decisions,
            failure=at.state.failure,
        )
        reason = trip(standing, at.config.limits)
        if reason is not None and at.lease.halted_reason is None:
            log.error("halting", reason=reason)
            at.ledger.halt(reason)
            at.lease.renew()
        if day is not before:
            at.state.day, at.unsaved = day, True
            if day.closed_by:
                log.warning("day_closed", rule=day.closed_by, opening_equity=str(day.opening_equity), equity=str(equity))

    def _losing_trades(self) -> int:
        """In a row, up to the newest, since the account was last halted."""
        since, count = self._in.state.cleared_at, 0
        for trade in reversed(self._in.blotter.book.trades):
            if trade.profit >= 0 or (since is not None and trade.closed_at <= since):
                break
            count += 1
        return count

    def _rejected_orders(self) -> int:
        """In a row, up to the newest, since the account was last halted; what the venue has not judged is not counted."""
        since, count = self._in.state.cleared_at, 0
        for order in reversed(self._in.blotter.orders.values()):
            if since is not None and order.intent.created_at <= since:
                break
            if order.state is OrderState.REJECTED:
                count += 1
            elif order.venue_order_id is not None:
                break
        return count
