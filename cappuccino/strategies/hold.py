"""HODL: an equal weight of every symbol, bought once, never rebalanced.

A symbol is asked for until some of it is held. What the first order left unfilled is not asked for
again (that would be a rebalance), nor is a symbol that a barrier has sold. The memory lists the
symbols that are done with, so a restart does not buy twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from cappuccino.strategies.interface import Contract, Decision, Json, Target, View

NEVER = 255


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Needs no features. The weight of each symbol is 1 / N of equity."""

    contract: Contract

    def decide(self, view: View, memory: Json) -> Decision:
        """Targets for the symbols that were never held; memory: {"bought": [symbol, ...]}."""
        bought = set(memory.get("bought", ()))
        weight = 1.0 / len(self.contract.symbols)
        intents = []
        for n, symbol in enumerate(self.contract.symbols):
            if symbol in bought:
                continue
            if view.weights[n] > 0 or view.bars_since_stop[n] < NEVER:
                bought.add(symbol)
            elif view.tradable[n]:
                intents.append(Target(symbol=symbol, weight=weight))
        return Decision(intents=tuple(intents), memory={"bought": [s for s in self.contract.symbols if s in bought]})
