"""Ensemble: several strategies look at the same bar, one portfolio trades.

Votes, per symbol (a target above zero buys, a target of zero sells, no target holds):
- `majority`: what more than half of the members say; bought is the median target of the buyers. A tie holds.
- `mean`: the weighted mean of the members' standing targets, whenever some member gives one. A member's
  target stands until it gives another, or until a barrier sells the symbol: a member that holds neither
  dilutes the others from bar to bar nor lets one buyer accumulate.

Members share symbols and timeframe; their features may differ, and each sees its own. Their memories
are nested in the ensemble's. The Study that the members come from must be named: an ensemble never
falls back to another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import Any, Literal

import numpy as np

from cappuccino.core.errors import InvalidInput
from cappuccino.strategies.interface import Contract, Decision, Json, Strategy, Target, View

Vote = Literal["majority", "mean"]


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """`weights` are the members' in a `mean` vote; empty: all alike.

    Raises:
        InvalidInput: no source study, no members, different markets, or weights that do not fit.
    """

    members: tuple[Strategy, ...]
    vote: Vote
    source_study: str
    weights: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.source_study:
            raise InvalidInput("ensemble: no source study: name the Study that its members come from")
        if not self.members:
            raise InvalidInput("ensemble: no members: give at least one")
        if self.vote not in ("majority", "mean"):
            raise InvalidInput(f"ensemble: vote {self.vote!r} is unknown: use majority or mean")
        first = self.members[0].contract
        for number, member in enumerate(self.members):
            if (member.contract.symbols, member.contract.timeframe, member.contract.interval) != (
                first.symbols,
                first.timeframe,
                first.interval,
            ):
                raise InvalidInput(
                    f"ensemble: member {number} trades {', '.join(member.contract.symbols)} on {member.contract.timeframe} "
                    f"every {member.contract.interval} bars, member 0 {', '.join(first.symbols)} on {first.timeframe} "
                    f"every {first.interval}: take members of one market"
                )
        if self.weights and (len(self.weights) != len(self.members) or min(self.weights) < 0 or sum(self.weights) <= 0):
            raise InvalidInput(
                f"ensemble: weights {list(self.weights)} do not fit {len(self.members)} members: "
                "give one for each, none negative, not all zero"
            )

    @cached_property
    def contract(self) -> Contract:
        """The members' market with the union of what they need."""
        contracts = [member.contract for member in self.members]
        return Contract(
            symbols=contracts[0].symbols,
            timeframe=contracts[0].timeframe,
            interval=contracts[0].interval,
            features=tuple(dict.fromkeys(spec for contract in contracts for spec in contract.features)),
            lookback=max(contract.lookback for contract in contracts),
            warmup_bars=max(contract.warmup_bars for contract in contracts),
        )

    def decide(self, view: View, memory: Json) -> Decision:
        """Memory: {"members": [memory, ...], "standing": [[weight per symbol] per member], "since_stop": [...]}."""
        nested = memory.get("members") or [{} for _ in self.members]
        decisions = [
            member.decide(self._seen_by(member.contract, view), before)
            for member, before in zip(self.members, nested, strict=True)
        ]
        said = [{intent.symbol: intent.weight for intent in decision.intents} for decision in decisions]
        after: dict[str, Any] = {"members": [dict(decision.memory) for decision in decisions]}
        if self.vote == "majority":
            intents = self._majority(said)
        else:
            standing = self._standing(said, view, memory)
            intents = self._mean(said, standing)
            after |= {"standing": standing, "since_stop": view.bars_since_stop.tolist()}
        return Decision(
            intents=intents,
            memory=after,
            trace={"votes": said, "members": [dict(decision.trace) for decision in decisions]},
        )

    def _seen_by(self, contract: Contract, view: View) -> View:
        if contract == self.contract:
            return view
        columns = [self.contract.features.index(spec) for spec in contract.features]
        return replace(view, features=view.features[:, -contract.lookback :, columns])

    def _majority(self, said: list[dict[str, float]]) -> tuple[Target, ...]:
        intents = []
        for symbol in self.contract.symbols:
            targets = [votes[symbol] for votes in said if symbol in votes]
            buys = [weight for weight in targets if weight > 0]
            if 2 * len(buys) > len(said):
                intents.append(Target(symbol=symbol, weight=median(buys)))
            elif 2 * (len(targets) - len(buys)) > len(said):
                intents.append(Target(symbol=symbol, weight=0.0))
        return tuple(intents)

    def _standing(self, said: list[dict[str, float]], view: View, memory: Json) -> list[list[float]]:
        """[members][N] each member's last target; zero again where a barrier has just sold."""
        symbols = self.contract.symbols
        before = memory.get("standing") or [[0.0] * len(symbols) for _ in said]
        stopped = view.bars_since_stop < np.asarray(memory.get("since_stop") or view.bars_since_stop)
        return [
            [votes.get(symbol, 0.0 if stopped[n] else row[n]) for n, symbol in enumerate(symbols)]
            for votes, row in zip(said, before, strict=True)
        ]

    def _mean(self, said: list[dict[str, float]], standing: list[list[float]]) -> tuple[Target, ...]:
        weights = self.weights or (1.0,) * len(self.members)
        return tuple(
            Target(symbol=symbol, weight=sum(w * row[n] for w, row in zip(weights, standing, strict=True)) / sum(weights))
            for n, symbol in enumerate(self.contract.symbols)
            if any(symbol in votes for votes in said)
        )
