"""The orders of a decision, from its row to its last fill: sells, until they are settled, then buys with what is there.

`state.step` is journalled with the orders that belong to it (see `state`), and every id follows from the decision, so
`complete` can be called again at any time, by any process, and does nothing twice. What a restart finds unfinished is
completed while the bar after the decision's is still open; then it is abandoned, and that is a refusal in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from cappuccino.core.clock import from_epoch
from cappuccino.core.errors import RetryLater
from cappuccino.core.identifiers import client_order_id
from cappuccino.trading.facts import review_buys
from cappuccino.trading.orders import ENTRY_REASON, Intent, Side
from cappuccino.trading.planning import fit_buys
from cappuccino.trading.ports import Halted, Json
from cappuccino.trading.situation import Situation


class Rebalance:
    def __init__(self, situation: Situation) -> None:
        self._in = situation
        self._last_review: tuple[int, dict[str, Decimal]] | None = None  # of the decision at this time

    def wanted(self, intent: Intent) -> bool:
        """Whether an order that never reached the venue is still to be sent."""
        at = self._in
        if intent.is_exit:
            held = at.blotter.book.holdings.get(intent.symbol)
            return held is not None and held.position_id == intent.decision
        return intent.decision == at.decision and at.in_time and at.mode == "active" and at.desk.stop_requested() is None

    def complete(self) -> None:
        """Bring the newest decision to its end, from whatever step it has reached.

        Asked to stop meanwhile, it leaves the rest to the next process. Raises RetryLater, Fenced.
        """
        at = self._in
        if at.state.step == "done":
            return
        if not at.in_time:
            if at.blotter.unfinished:
                at.desk.deny_unsent()
                at.desk.cancel_open()
            at.refuse(self._refusal("late"))
            self._finish()
            return
        try:
            if at.state.step == "sells":
                at.desk.send([self._intent(s, "sell", qty=q) for s, q in at.state.sells.items()], state=at.state.to_json())
                if at.desk.stop_requested() is not None:
                    return
                self._begin_buys()
            else:
                at.desk.send(self._buys(at.state.buys), state=at.state.to_json())
            if at.blotter.unsent:
                return
        except Halted as halted:
            at.lease.renew()
            at.refuse(self._refusal("halted", reason=str(halted)))
        self._finish()

    def _begin_buys(self) -> None:
        """The step and its orders become the record's in one transaction."""
        at = self._in
        fitted = self._reviewed()
        buying = replace(at.state, step="buys", buys=fitted)
        at.desk.send(self._buys(fitted), state=buying.to_json())
        at.state.step, at.state.buys = "buys", fitted

    def _reviewed(self) -> dict[str, Decimal]:
        """The buys that fit and may be sent now. Once per decision: what may have been journalled must not become another."""
        at, closes, cash = self._in, self._in.state.closes, self._in.blotter.book.cash
        if self._last_review is None or self._last_review[0] != at.state.decided:
            fitted = fit_buys(at.state.buys, cash=cash, closes=closes, rules=at.rules, sizing=at.config.sizing)
            at.await_quotes(from_epoch(at.state.decided + at.bar_seconds), tuple(fitted))
            allowed, refusals = review_buys(fitted, at.facts(closes=closes, equity=at.state.equity), cash=cash)
            for refusal in refusals:
                at.refuse(refusal)
            self._last_review = (at.state.decided, allowed)
        return self._last_review[1]

    def _finish(self) -> None:
        at = self._in
        before, at.state.step = at.state.step, "done"
        try:
            at.record()
        except RetryLater:
            at.state.step = before
            raise

    def _refusal(self, rule: str, **numbers: str) -> Json:
        numbers = {"decision": self._in.decision, "step": self._in.state.step, **numbers}
        return {"rule": rule, "verdict": "veto", "numbers": numbers}

    def _buys(self, notionals: Mapping[str, Decimal]) -> list[Intent]:
        return [self._intent(symbol, "buy", notional=notional) for symbol, notional in notionals.items()]

    def _intent(self, symbol: str, side: Side, *, qty: Decimal | None = None, notional: Decimal | None = None) -> Intent:
        at = self._in
        quote = at.desk.quotes.get(symbol) if at.quoted(symbol, at.now) else None
        return Intent(
            client_order_id=client_order_id(account=at.config.account, decision=at.decision, symbol=symbol, leg=side),
            account=at.config.account,
            trader_uid=at.config.trader_uid,
            decision=at.decision,
            symbol=symbol,
            side=side,
            reason=ENTRY_REASON,
            created_at=at.now,
            qty=qty,
            notional=notional,
            quote_price=quote.mid if quote else None,
        )
