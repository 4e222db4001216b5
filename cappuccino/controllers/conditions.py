"""Conditions: the state of an object, one per type, each with a reason of one word and a message of one sentence.

`Reconciling` is True only until the current generation has been acted on, never while trials train or candidates
soak. `Stalled` is True when nothing will happen until a person acts. Both are always present.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cappuccino.api.meta import Condition
from cappuccino.core.clock import iso


def true(kind: str, reason: str, message: str = "") -> Condition:
    return Condition(type=kind, status="True", reason=reason, message=message)


def false(kind: str, reason: str, message: str = "") -> Condition:
    return Condition(type=kind, status="False", reason=reason, message=message)


def settle(
    previous: Sequence[Condition], current: Sequence[Condition], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """`current` with the generation it speaks of, and the time at which each last changed its status.

    Reconciling and Stalled are added as False where the caller did not say otherwise.
    """
    named = {condition.type: condition for condition in current}
    named.setdefault("Reconciling", false("Reconciling", "Settled"))
    named.setdefault("Stalled", false("Stalled", "Settled"))
    before = {condition.type: condition for condition in previous}
    settled = []
    for kind, condition in named.items():
        old = before.get(kind)
        since = old.last_transition_time if old and old.status == condition.status else iso(now)
        settled.append(condition.model_copy(update={"observed_generation": generation, "last_transition_time": since}))
    return tuple(settled)


def stalled(reason: str, message: str) -> tuple[Condition, ...]:
    """What an object says when a person must act: not Ready, Stalled."""
    return false("Ready", reason, message), true("Stalled", reason, message)
