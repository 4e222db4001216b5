"""A trader whose bundle cannot be read: it buys nothing and guards what it holds.

What it holds is in the journal: the symbols of its orders, each position's barriers and peak in the stored state. With
these a session runs as ever; the strategy in it fails on every bar, and so is degraded (`health`) until the circuit
breaker halts the account (`risk/breaker.py`). Each bar it looks for the bundle again; when that is there, it holds, the
process ends, and the next one decides.
"""

from __future__ import annotations

from collections.abc import Callable

from cappuccino.core.timeframe import Timeframe
from cappuccino.strategies.interface import Contract, Decision, Json, View
from cappuccino.trading.ports import Recovery
from cappuccino.trading.state import TraderState


class Absent:
    """`look` raises what keeps the bundle away. `found` is called once it does not."""

    def __init__(self, contract: Contract, *, look: Callable[[], object]) -> None:
        self.contract = contract
        self.found: Callable[[], None] = lambda: None
        self._look = look

    def decide(self, view: View, memory: Json) -> Decision:  # noqa: ARG002 - the port's signature
        self._look()
        self.found()
        return Decision(intents=(), memory=memory)


def contract_of(recovered: Recovery) -> Contract | None:
    """What can be guarded without a bundle: everything that the account ever ordered. None when nothing can be open."""
    if recovered.state is None:
        return None
    state = TraderState.from_json(recovered.state)
    if not state.bar_seconds or not (state.watches or any(not order.settled for order in recovered.orders)):
        return None
    symbols = tuple(sorted({order.intent.symbol for order in recovered.orders}))
    return Contract(symbols=symbols, timeframe=Timeframe(state.bar_seconds), features=(), lookback=1, warmup_bars=1)
