"""A trial as the record keeps it. Its identity is (study uid, number): a row under that key is what makes it exist.

States: Waiting -> Running -> Complete | Pruned | Failed. Parameters are text (a number in its shortest form), because a
manifest, a row and a command line must agree on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

TrialState = Literal["Waiting", "Running", "Complete", "Pruned", "Failed"]
FINISHED: tuple[TrialState, ...] = ("Complete", "Pruned", "Failed")
_NO_REPORTS: Mapping[int, float] = MappingProxyType({})  # one for all: a Study may have ten thousand rows in memory
_NO_METRICS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """Written once by the trainer. `record` is the complete account: folds, metrics, deviations, seeds, digests, times."""

    succeeded: bool
    reason: str
    objective: float | None = None
    bundle_digest: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewTrial:
    """A trial to insert. `distributions` is the space it was drawn from (search/space.py, wire form)."""

    number: int
    phase: str = ""
    parameters: Mapping[str, str]
    distributions: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """`metrics` are those of a complete trial beside its objective (search/goal.py); `reports` are intermediate values by step;
    `result` is what the trainer wrote, if it has."""

    study_uid: str
    number: int
    phase: str
    parameters: Mapping[str, str]
    distributions: Mapping[str, Any]
    seed: int
    state: TrialState
    reason: str = ""
    objective: float | None = None
    bundle_digest: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    metrics: Mapping[str, float] = field(default_factory=lambda: _NO_METRICS)
    reports: Mapping[int, float] = field(default_factory=lambda: _NO_REPORTS)
    result: TrialResult | None = None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED
