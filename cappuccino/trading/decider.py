"""One decision, from a closed bar to its row: view, strategy, risk, and one commit of decision, memory, state and equity.

Invariants:
- Nothing is sent here; a process that dies before the commit decides again, alike.
- Who fails is told apart. What a strategy raises is its failure: the bar is a hold, and the circuit breaker counts it
  (`planning.decision_of`). Only InvariantViolation is not: it says that a rule of our own was broken, wherever it was
  noticed, and it ends the session as anywhere else.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from cappuccino.core.clock import from_epoch
from cappuccino.core.failpoints import reach
from cappuccino.core.money import dec
from cappuccino.risk.positions import NEVER
from cappuccino.strategies.interface import Strategy
from cappuccino.trading.guard import Guard
from cappuccino.trading.planning import decision_of, plan_orders, scale_of, view_of
from cappuccino.trading.ports import DecisionRow, EquityRow, Json, Tick
from cappuccino.trading.situation import Situation
from cappuccino.trading.state import TraderState
from cappuccino.trading.window import Window


class Decider:
    def __init__(self, situation: Situation, strategy: Strategy, window: Window, guard: Guard, *, memory: Json) -> None:
        """`memory`: the strategy's, of the newest decision in the record."""
        self._in, self._strategy, self._window, self._guard = situation, strategy, window, guard
        self._memory = memory

    def decide(self, tick: Tick) -> None:
        """Decide on the newest bar and commit it; nothing is sent yet."""
        at, bar, interval = self._in, self._window.newest, self._strategy.contract.interval
        state = at.state
        closes = {s: dec(float(c)) for s, c in zip(at.symbols, bar.close, strict=True)}
        equity = at.blotter.book.equity(closes)
        self._guard.check(equity)
        new, row, memory = replace(state, last_bar=bar.ts), None, self._memory
        if not state.first_decision or (bar.ts - state.first_decision) // at.bar_seconds % interval == 0:
            row = self._ask(tick, new, closes)
            memory = row.memory
        reach("before_commit")
        at.ledger.commit(
            decision=row,
            equity=EquityRow(
                bar_at=from_epoch(bar.ts),
                equity_usd=equity,
                cash_usd=at.blotter.book.cash,
                positions={
                    s: {"qty": str(held.qty), "entry": str(held.entry), "close": str(closes[s])}
                    for s, held in at.blotter.book.holdings.items()
                },
            ),
            state=new.to_json(),
        )
        reach("committed")
        at.state, self._memory = new, memory
        for refusal in row.refusals if row is not None else ():
            if "times" not in refusal:  # else it was counted when it happened, between two decisions
                at.metrics.refused(refusal["rule"])
        at.metrics.equity.set(float(equity))
        at.health.committed(bar.ts, equity)

    def _ask(self, tick: Tick, new: TraderState, closes: dict[str, Decimal]) -> DecisionRow:
        """The strategy's decision on the newest bar, planned and reviewed; `new` becomes the state after it."""
        at, bar, contract = self._in, self._window.newest, self._strategy.contract
        if new.first_decision:
            new.watches = {s: watch.aged() for s, watch in new.watches.items()}
            new.since_stop = {s: min(n + 1, NEVER) for s, n in new.since_stop.items()}
        at.await_quotes(tick.at, at.symbols)
        view = view_of(
            contract,
            at=tick.at,
            features=self._window.features,
            close=bar.close,
            tradable=bar.tradable,
            book=at.blotter.book,
            watches=new.watches,
            since_stop=new.since_stop,
            scale=scale_of(at.config.limits, at.config.sizing),
        )
        decision, failure = decision_of(self._strategy, view, self._memory)
        facts = at.facts(closes=closes, equity=at.blotter.book.equity(closes))
        planned = plan_orders(decision.intents, view, facts, symbols=at.symbols, sizing=at.config.sizing)
        refusals = [*new.refusals, *failure, *planned.refusals]
        new.failed_decisions = new.failed_decisions + 1 if failure else 0
        new.failure = failure[0]["numbers"]["error"] if failure else ""
        new.decided, new.first_decision = bar.ts, new.first_decision or bar.ts
        new.sells, new.buys, new.closes, new.refusals = planned.sells, planned.buys, closes, []
        new.equity = facts.equity
        new.step = "sells" if planned.sells or planned.buys else "done"
        return DecisionRow(
            bar_at=from_epoch(bar.ts),
            bundle_digest=at.config.bundle_digest,
            intents=[{"symbol": t.symbol, "weight": t.weight} for t in decision.intents],
            refusals=refusals,
            memory=decision.memory,
            trace=decision.trace,
            data_age_seconds=tick.age_seconds,
        )
