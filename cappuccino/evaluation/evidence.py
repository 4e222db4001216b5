"""Evidence and what follows from it.

Every gate ends in one `Evidence`, which is stored as a row. Outcomes:

- Pass: the requirement is met.
- Fail: the facts speak against the candidate.
- Inconclusive: the facts cannot tell; more bars, trades or time could. It never counts as a pass.
- Error: the gate could not be evaluated, so nothing is known.

`detail["statistical"]` marks a Fail or Inconclusive that is a matter of luck and sample size, not of a broken
candidate; `detail["gating"]` is false on evidence that is only shown. Both live in `detail`, so that a stored row gives
the same verdict as the evidence it was made from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cappuccino.core.errors import InvalidInput

VERSION = 1  # raise it when a rule changes: evidence is unique by (bundle, gate, version, scope)
PRE_TRADE_GATES = ("integrity", "backtest", "window", "overfitting_dsr", "overfitting_pbo")
PAPER_GATES = ("soak", "grade")


class Outcome(StrEnum):
    PASS = "Pass"  # noqa: S105 - not a password
    FAIL = "Fail"
    ERROR = "Error"
    INCONCLUSIVE = "Inconclusive"


class Verdict(StrEnum):
    PASSED = "Passed"
    OBSERVER = "Observer"
    REFUSED = "Refused"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One gate's answer. `message` is one sentence with the values; `detail` is plain JSON without NaN."""

    gate: str
    version: int
    outcome: Outcome
    measured: float | None
    threshold: float | None
    minimum_detectable: float | None
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def statistical(self) -> bool:
        return bool(self.detail.get("statistical", False))

    @property
    def gating(self) -> bool:
        return bool(self.detail.get("gating", True))


def evidence(
    gate: str,
    outcome: Outcome,
    measured: float | None,
    threshold: float | None,
    detectable: float | None,
    message: str,
    detail: Mapping[str, Any],
) -> Evidence:
    """Evidence at the current version of the gates, its message capitalised; what is not finite becomes None."""
    plain = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in detail.items()}
    return Evidence(
        gate=gate,
        version=VERSION,
        outcome=outcome,
        measured=measured,
        threshold=threshold,
        minimum_detectable=detectable,
        message=message[0].upper() + message[1:],
        detail=plain,
    )


def verdict(evidences: Iterable[Evidence]) -> Verdict:
    """May this candidate trade on paper, and as what?

    Refused: an Error, or a Fail or Inconclusive that is not statistical. Observer: intact, and stopped by statistics
    only; it may trade on paper and can never be promoted. Passed: every gate before trading passed.

    Soak and grade evidence is not looked at: it comes from trading and is `promotable`'s.

    Raises:
        InvalidInput: nothing refuses the candidate, yet a gate's evidence is missing.
    """
    by_gate = {evidence.gate: evidence for evidence in evidences}
    stopping = [e for e in by_gate.values() if e.gate in PRE_TRADE_GATES and e.gating and e.outcome is not Outcome.PASS]
    if any(e.outcome is Outcome.ERROR or not e.statistical for e in stopping):
        return Verdict.REFUSED
    missing = [gate for gate in PRE_TRADE_GATES if gate not in by_gate]
    if missing:
        raise InvalidInput(f"no evidence of {', '.join(missing)}: run these gates before asking for a verdict")
    return Verdict.OBSERVER if stopping else Verdict.PASSED


def stopped_by(evidences: Iterable[Evidence]) -> str | None:
    """The first gate, in the order in which gates run, that did not pass; None when all did."""
    order = (*PRE_TRADE_GATES, *PAPER_GATES)
    stopping = [e.gate for e in evidences if e.gating and e.outcome is not Outcome.PASS]
    return min(stopping, key=order.index, default=None)


def promotable(evidences: Iterable[Evidence]) -> bool:
    """Every gate, soak and grade included, has passed. A person still has to promote."""
    every = list(evidences)
    passed = {e.gate for e in every if e.outcome is Outcome.PASS}
    return verdict(every) is Verdict.PASSED and passed.issuperset(PAPER_GATES)
