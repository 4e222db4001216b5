"""Cash: never asks for anything. The baseline that a strategy must at least not lose against."""

from __future__ import annotations

from dataclasses import dataclass

from cappuccino.strategies.interface import Contract, Decision, Json, View


@dataclass(frozen=True, kw_only=True)
class Cash:
    """Needs no features."""

    contract: Contract

    def decide(self, view: View, memory: Json) -> Decision:  # noqa: ARG002 - the interface's signature
        """No target at any time."""
        return Decision(intents=(), memory=memory)
