"""What ends positions: barriers on every quote, halts, and the drawdown that causes one.

Protective exits need no bar, no model and no entry rights. They sell the whole position; what does not fill is tried
again at the next quote, under the next deterministic id of that position and reason.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from cappuccino.core.errors import RetryLater
from cappuccino.core.money import floor_to
from cappuccino.risk.limits import Exposure, Proposal, Veto, drawdown_breach, review
from cappuccino.risk.positions import Watch, advance
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.orders import Intent
from cappuccino.trading.planning import minimum_notional
from cappuccino.trading.recovery import exit_attempts, exit_id
from cappuccino.trading.situation import Situation

SAVE_PEAKS_SECONDS = 1.0  # on a venue that does not wait for us; in lockstep every peak is saved

log = get_logger(__name__)


class Guard:
    def __init__(self, situation: Situation, *, lockstep: bool) -> None:
        self._in = situation
        self._save_every = 0.0 if lockstep else SAVE_PEAKS_SECONDS
        self._saved = float("-inf")

    def look(self, symbols: Collection[str]) -> None:
        """Let the barriers look at the newest quotes of `symbols`. Raises RetryLater when a peak cannot be saved; while the
        database is known to be away it is not tried."""
        at, moved = self._in, False
        for symbol in sorted(at.state.watches.keys() & set(symbols)):
            before = at.state.watches[symbol]
            reason, watch = advance(before, float(at.desk.quotes[symbol].mid))
            moved = moved or watch is not before
            at.state.watches[symbol] = watch
            if reason:
                self.exit(watch, reason)
        if symbols:
            self.check_drawdown(at.marked())
        if moved and at.monotonic() - self._saved >= self._save_every and not at.lease.database_away:
            self._saved = at.monotonic()
            at.ledger.save(at.state.to_json())

    def exit(self, watch: Watch, reason: str) -> None:
        """Sell a whole position, and see it settled."""
        at, symbol, rules = self._in, watch.symbol, self._in.rules[watch.symbol]
        quote = at.desk.quotes.get(symbol)
        price = quote.mid if quote is not None else Decimal(0)
        qty = floor_to(at.desk.book.qty(symbol), rules.min_trade_increment)
        exposure = Exposure(
            mode=at.mode,
            equity=at.marked(),
            cash=at.desk.book.cash,
            held=qty,
            close=price,
            price=price,
            min_notional=minimum_notional(rules, price),
            orders_last_hour=0,
        )
        verdict = review(Proposal(symbol=symbol, side="sell", protective=True, qty=qty), exposure, at.config.limits)
        if isinstance(verdict, Veto):
            at.refuse(verdict.rule, {"symbol": symbol, "reason": reason, **verdict.numbers})
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
            quote_price=price,
        )
        log.info("exit", symbol=symbol, reason=reason, qty=str(qty), price=str(price), attempt=attempt)
        at.desk.send([intent], state=at.state.to_json())
        at.metrics.exited(reason)
        try:
            if not at.lease.database_away:
                at.record()
        except RetryLater:
            log.warning("exit_not_recorded_yet", order=intent.client_order_id)
        at.sync()

    def flatten(self) -> None:
        """Sell every position."""
        self._in.await_quotes(self._in.now, self._in.state.watches)
        for watch in list(self._in.state.watches.values()):
            self.exit(watch, "flatten")

    def apply_halt(self) -> None:
        """While the account is halted: what `on_halt` says, until it is done. Entries are refused elsewhere."""
        at, halted = self._in, self._in.lease.halted_reason
        at.metrics.halted.set(1 if halted else 0)
        at.health.halted = halted
        if halted is None or at.config.on_halt == "hold":
            return
        if at.desk.unfinished:
            at.desk.cancel_open()
        if at.config.on_halt == "flatten" and at.state.watches:
            self.flatten()

    def check_drawdown(self, equity: Decimal) -> None:
        """Halt the account when `equity` is too far below the persisted baseline."""
        at = self._in
        at.metrics.drawdown.set(float(1 - equity / at.baseline) if at.baseline else 0.0)
        breach = drawdown_breach(equity, at.baseline, at.config.limits)
        if breach is not None and at.lease.halted_reason is None:
            log.error("halting", reason=breach)
            at.ledger.halt(breach)
            at.lease.renew()
