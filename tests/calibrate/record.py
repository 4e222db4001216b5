"""The record and the artifact store of one Study, in memory: what its trainer and its gates ask of the real ones.

`Journal` stands for adapters.postgres.trials.TrialWriter, `Record` for reconcile.ports.Record; both have the methods that
entrypoints/train.py and entrypoints/gating.py call, and keep to their contracts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cappuccino.controllers.rows import Evidence, SnapshotRow, StudyRow
from cappuccino.core.errors import Conflict, NotFound
from cappuccino.search.trials import NewTrial, TrialResult, TrialRow


class Blobs:
    """Implements `core.blobs.Blobs`."""

    def __init__(self) -> None:
        self._payloads: dict[str, bytes] = {}

    def put(self, key: str, payload: bytes) -> None:
        if self._payloads.setdefault(key, payload) != payload:
            raise Conflict(f"artifact {key!r} holds other bytes already: use another key")

    def replace(self, key: str, payload: bytes) -> None:
        self._payloads[key] = payload

    def get(self, key: str) -> bytes:
        if key not in self._payloads:
            raise NotFound(f"artifact {key!r} does not exist: check the key")
        return self._payloads[key]

    def exists(self, key: str) -> bool:
        return key in self._payloads

    def delete(self, key: str) -> None:
        self._payloads.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._payloads if key.startswith(prefix))


@dataclass
class Kept:
    """Trials by number; numbers are dense."""

    study: StudyRow
    snapshot: SnapshotRow
    trials: list[TrialRow] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    openings: set[str] = field(default_factory=set)

    def propose(self, new: NewTrial) -> None:
        self.trials.append(
            TrialRow(
                study_uid=self.study.uid,
                number=new.number,
                phase=new.phase,
                parameters=new.parameters,
                distributions=new.distributions,
                seed=new.seed,
                state="Running",
            )
        )

    def settle(self, number: int) -> None:
        """What the Trial's controller writes when it finds a result."""
        row = self.trials[number]
        assert row.result is not None  # the trainer returns with one, or raises
        state = "Complete" if row.result.succeeded else "Failed"
        self.trials[number] = replace(
            row,
            state=state,
            reason=row.result.reason,
            objective=row.result.objective,
            bundle_digest=row.result.bundle_digest,
            metrics=row.result.record.get("metrics", {}) if state == "Complete" else {},
        )


@dataclass(frozen=True)
class Journal:
    kept: Kept

    def study(self, uid: str) -> StudyRow:
        return self.kept.study

    def trial(self, study_uid: str, number: int) -> TrialRow:
        return self.kept.trials[number]

    def finished(self, study_uid: str, numbers: Sequence[int]) -> set[int]:
        return {number for number in numbers if self.kept.trials[number].finished}

    def report(self, study_uid: str, number: int, *, step: int, value: float) -> None:
        row = self.kept.trials[number]
        self.kept.trials[number] = replace(row, reports={step: value, **row.reports})

    def finish(self, study_uid: str, number: int, result: TrialResult) -> TrialResult:
        row = self.kept.trials[number]
        self.kept.trials[number] = replace(row, result=row.result or result)
        return row.result or result


@dataclass(frozen=True)
class Record:
    kept: Kept

    async def study(self, uid: str) -> StudyRow:
        return self.kept.study

    async def studies(self) -> list[StudyRow]:
        return [self.kept.study]

    async def snapshot(self, digest: str) -> SnapshotRow:
        return self.kept.snapshot

    async def trials(self, study_uid: str) -> list[TrialRow]:
        return list(self.kept.trials)

    async def open_window(
        self, *, deployment_uid: str, bundle_digest: str, symbols: Sequence[str], start_at: datetime, end_at: datetime
    ) -> int:
        self.kept.openings.add(deployment_uid)
        return len(self.kept.openings)

    async def evidence(self, *, deployment_uid: str) -> list[Evidence]:
        return [row for row in self.kept.evidence if row.deployment_uid == deployment_uid]

    async def insert_evidence(self, *, evidence: Evidence) -> None:
        self.kept.evidence.append(evidence)
