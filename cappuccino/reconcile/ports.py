"""What a cluster and a record must offer to the loop. Both clusters run the contract suites of tests/contract.

Objects are plain wire documents (camelCase dictionaries with apiVersion, kind, metadata, spec, status): controllers
parse what they need. Every call may raise RetryLater when its service is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from cappuccino.controllers.decision import Document, Event, Key, Summary, Workload, WorkloadStatus
from cappuccino.controllers.rows import (
    AccountActivity,
    AccountRecord,
    AccountRow,
    AuditRow,
    Evidence,
    Gap,
    Promotion,
    SnapshotRow,
    StudyRow,
)
from cappuccino.search.trials import NewTrial, TrialRow, TrialState

__all__ = ["Document", "Events", "Key", "Objects", "Ports", "Record", "Summary", "Workload", "WorkloadStatus", "Workloads"]


class Objects(Protocol):
    async def get(self, key: Key) -> Document | None: ...

    async def list(self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> list[Document]:
        """Objects that carry all of `labels`, ordered by name."""
        ...

    async def index(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Summary]:
        """As `list`, from memory where the adapter has one: it may lag behind, never behind this adapter's own writes."""
        ...

    async def create(self, document: Document) -> Document:
        """Stored with uid, generation 1, resourceVersion and creationTimestamp.

        Raises:
            Conflict: an object of that name exists.
            InvalidInput: the model refuses it.
        """
        ...

    async def apply(self, document: Document) -> Document:
        """Create, or merge spec, labels and annotations into what exists; a no-op writes nothing.

        generation grows when the spec changes, resourceVersion with every write. metadata.resourceVersion in
        `document`, when given, must be the current one.

        Raises:
            Conflict: resourceVersion is stale, or the object is being deleted.
            InvalidInput: the model refuses it, or an immutable field would change.
        """
        ...

    async def patch_status(self, key: Key, status: Document, *, uid: str) -> None:
        """Replace the status. An object that is gone, or has another uid, is left alone."""
        ...

    async def patch_metadata(
        self,
        key: Key,
        *,
        uid: str,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        finalizers: Sequence[str] | None = None,
    ) -> None:
        """Merge annotations and labels (None removes), replace finalizers. Removing the last finalizer of a
        deleted object ends it."""
        ...

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Mark deleted; it ends when its finalizers are gone, and its dependents (ownerReferences) are deleted
        after it. Absent, or another uid, is success."""
        ...

    def watch(self) -> AsyncIterator[Key]:
        """Keys of objects that changed, and of the owners of those that did; may repeat, never loses one for long."""
        ...


class Workloads(Protocol):
    async def start(self, workload: Workload) -> None:
        """Idempotent by name: what exists already, running or ended, is left as it is."""
        ...

    async def observe(self, name: str) -> WorkloadStatus | None: ...

    async def list(self) -> list[WorkloadStatus]: ...

    async def serving(self, key: Key) -> Sequence[WorkloadStatus]:
        """Those that have the object among their `keys`."""
        ...

    async def stop(self, name: str, *, grace_seconds: float = 10.0) -> None:
        """SIGTERM, then SIGKILL; forgets the workload, so that its name can be used again. Absent is success."""
        ...

    def watch(self) -> AsyncIterator[Key]:
        """Keys of workloads that changed state."""
        ...


class Events(Protocol):
    async def emit(self, key: Key, uid: str, event: Event, *, at: datetime) -> None:
        """A repeated event counts up instead of adding a row."""
        ...


class Record(Protocol):
    """The record: what is true of searches, gates and trading. Writes are idempotent: repeating one changes nothing."""

    # --- market
    async def register_snapshot(self, *, dataset_uid: str, digest: str, manifest: Mapping[str, Any]) -> None:
        """Make `digest` the Dataset's current snapshot."""
        ...

    async def current_snapshot(self, dataset_uid: str) -> SnapshotRow | None: ...

    async def snapshot(self, digest: str) -> SnapshotRow | None: ...

    async def record_gaps(self, *, dataset_uid: str, gaps: Sequence[Gap]) -> None: ...

    async def gaps(self, dataset_uid: str) -> list[Gap]: ...

    # --- search
    async def pin_study(
        self, *, uid: str, name: str, spec: Mapping[str, Any], snapshot: str, gate_starts_at: datetime
    ) -> StudyRow:
        """The first pin wins; what is pinned is returned.

        Raises:
            InvalidInput: the snapshot is not registered.
        """
        ...

    async def study(self, uid: str) -> StudyRow | None: ...

    async def studies(self) -> list[StudyRow]:
        """Every Study that was ever pinned, oldest first."""
        ...

    async def insert_trials(self, *, study_uid: str, trials: Sequence[NewTrial], at: datetime) -> None:
        """A number that exists already keeps its row."""
        ...

    async def trials(self, study_uid: str) -> list[TrialRow]:
        """Ordered by number, with reports and results: a long search is megabytes."""
        ...

    async def trial(self, study_uid: str, number: int) -> TrialRow | None:
        """One of them; of the account (`record`) that its result gives only the metrics."""
        ...

    async def history(self, study_uid: str) -> Sequence[TrialRow]:
        """As `trials`, without reports and results, which a search does not need. What it costs does not grow with the trials
        that have finished: those never change."""
        ...

    async def peers(self, study_uid: str, number: int, step: int, states: Sequence[TrialState]) -> list[float]:
        """Reports at `step` of the Study's other trials that are in one of `states`; in no order."""
        ...

    async def set_trial_state(
        self,
        *,
        study_uid: str,
        number: int,
        from_states: Sequence[TrialState],
        to_state: TrialState,
        at: datetime,
        reason: str = "",
        objective: float | None = None,
        bundle_digest: str | None = None,
    ) -> bool:
        """Whether the row was in one of `from_states` and moved. Running sets started_at (once), a final state finished_at."""
        ...

    # --- gates
    async def insert_evidence(self, *, evidence: Evidence) -> None:
        """The first verdict under (bundle, gate, version, scope, deployment) stands."""
        ...

    async def evidence(self, *, deployment_uid: str | None = None, bundle_digest: str | None = None) -> list[Evidence]: ...

    async def open_window(
        self, *, deployment_uid: str, bundle_digest: str, symbols: Sequence[str], start_at: datetime, end_at: datetime
    ) -> int:
        """Remember that the bundle looks at these bars; how many Deployments ever looked at overlapping bars of a common
        symbol, this one included. The bundles of one Deployment are opened together and corrected for together."""
        ...

    async def record_promotion(self, *, promotion: Promotion, about: str) -> None:
        """The row and its audit row, of the object `about`, or neither. Repeating the newest row of (deployment, subject) adds
        nothing.

        Raises:
            Conflict: a start without a standing approval.
        """
        ...

    async def promotions(self, deployment_uid: str) -> list[Promotion]: ...

    # --- trading
    async def accounts(self) -> list[AccountRow]: ...

    async def account(self, name: str) -> AccountRow | None: ...

    async def halt(self, *, name: str, reason: str, actor: str) -> None:
        """Raises NotFound without such an account. The first reason stands."""
        ...

    async def resume(self, *, name: str, reason: str, actor: str) -> None:
        """Raises NotFound without such an account, InvalidInput without a reason."""
        ...

    async def activity(self, names: Sequence[str]) -> dict[str, AccountActivity]:
        """By account; accounts that never traded are there with zeros."""
        ...

    async def record_of_account(self, name: str) -> AccountRecord: ...

    # --- audit
    async def audit(self, *, limit: int = 100) -> list[AuditRow]:
        """The newest rows, oldest first."""
        ...

    def watch(self) -> AsyncIterator[tuple[str, str]]:
        """(table, its key's columns joined by /) of new rows. Saves waiting; the resync of the loop is the floor."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What applying an action may touch."""

    objects: Objects
    workloads: Workloads
    record: Record
    events: Events
