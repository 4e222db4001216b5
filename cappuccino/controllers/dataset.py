"""Dataset: keep a fresh, complete snapshot.

    no snapshot of this generation, or an open-ended one grown old ──▶ refresh workload ──▶ snapshot ──▶ Ready
    the refresh refused its input ──▶ Stalled, until the spec changes
    the refresh failed otherwise ──▶ Ready stays what it was; tried again after a pause

A refresh is a finite workload that is forgotten once its result is in the status, so that its name can be used again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from cappuccino.api.dataset import Dataset, DatasetStatus, Quarantined
from cappuccino.api.meta import Condition
from cappuccino.controllers.conditions import false, settle, stalled, true
from cappuccino.controllers.decision import Decision, Event, Key, StartWorkload, StopWorkload, Workload, WorkloadStatus
from cappuccino.controllers.rows import SnapshotRow
from cappuccino.core.clock import from_epoch, iso, parse_iso
from cappuccino.core.errors import FINAL_EXIT_CODES

RETRY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Observed:
    dataset: Dataset | None  # None: gone
    key: Key
    snapshot: SnapshotRow | None = None
    refresh: WorkloadStatus | None = None


def workload_name(key: Key) -> str:
    return key.workload("refresh")


def decide(observed: Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:  # noqa: ARG001
    dataset, run = observed.dataset, observed.refresh
    name = workload_name(observed.key)
    if dataset is None or dataset.metadata.deletion_timestamp:
        return Decision(actions=(StopWorkload(name=name),) if run else ())

    previous = dataset.status or DatasetStatus()
    snapshot = observed.snapshot
    current = snapshot is not None and previous.observed_generation == dataset.metadata.generation
    start = StartWorkload(workload=refresh_workload(dataset, observed.key))

    if run is None:
        if current and snapshot is not None and not _is_due(dataset, snapshot, now):
            return _status(dataset, snapshot, (_ready(snapshot),), now, requeue=_seconds_to_due(dataset, snapshot, now))
        ready = _ready(snapshot) if current and snapshot else false("Ready", "Refreshing", "the first refresh is under way")
        return _status(dataset, snapshot, _refreshing(ready, current=current), now, actions=(start,), generation=not current)

    if run.state in ("Pending", "Running"):
        ready = _ready(snapshot) if current and snapshot else false("Ready", "Refreshing", "the first refresh is under way")
        return _status(dataset, snapshot, _refreshing(ready, current=current), now, generation=not current)

    if run.state == "Succeeded" and snapshot is not None:
        done = StopWorkload(name=name)
        events = (
            ()
            if previous.snapshot == snapshot.digest
            else (Event(reason="Snapshot", message=f"snapshot {snapshot.digest[:12]}"),)
        )
        return _status(dataset, snapshot, (_ready(snapshot),), now, actions=(done,), events=events, requeue=1.0, refreshed=True)

    message = run.message or f"the refresh ended with exit code {run.exit_code}"
    if run.exit_code in FINAL_EXIT_CODES:
        if previous.observed_generation != dataset.metadata.generation and previous.observed_generation:
            return Decision(actions=(StopWorkload(name=name),), requeue_after=0.1)  # the spec changed: try that
        return _status(dataset, snapshot, stalled("Refused", message), now)
    finished = run.finished_at or now
    if now < finished + timedelta(seconds=RETRY_SECONDS):
        conditions = (_ready(snapshot) if current and snapshot else false("Ready", "RefreshFailed", message),)
        return _status(dataset, snapshot, conditions, now, requeue=RETRY_SECONDS, generation=not current)
    return Decision(actions=(StopWorkload(name=name),), requeue_after=0.1)


def _refreshing(ready: Condition, *, current: bool) -> tuple[Condition, ...]:
    """A refresh of what was acted on already is no reconciling: `kubectl wait` and Helm would wait for it each time."""
    return (ready,) if current else (ready, true("Reconciling", "Refreshing"))


def refresh_workload(dataset: Dataset, key: Key) -> Workload:
    return Workload(
        name=workload_name(key),
        kind="finite",
        arguments=("ingest", "--dataset-uid", dataset.uid),
        keys=(key,),
        environment={"CAPPUCCINO_SPEC": json.dumps(dataset.spec.to_json())},
        timeout_seconds=6 * 3600,
    )


def _is_due(dataset: Dataset, snapshot: SnapshotRow, now: datetime) -> bool:
    return _seconds_to_due(dataset, snapshot, now) == 0.0


def _seconds_to_due(dataset: Dataset, snapshot: SnapshotRow, now: datetime) -> float | None:
    """None: a Dataset with an end is never refreshed again."""
    if dataset.spec.end is not None:
        return None
    refreshed = (
        parse_iso(dataset.status.refreshed_at) if dataset.status and dataset.status.refreshed_at else snapshot.recorded_at
    )
    return max(0.0, (refreshed + timedelta(seconds=dataset.spec.refresh_seconds) - now).total_seconds())


def _ready(snapshot: SnapshotRow) -> Condition:
    quarantined = snapshot.manifest["quarantined"]
    if quarantined:
        named = "; ".join(f"{entry['symbol']}: {entry['reason']}" for entry in quarantined)
        return true("Ready", "PartlyQuarantined", f"complete without {named}")
    return true("Ready", "Complete", "a fresh, complete snapshot exists")


def _status(
    dataset: Dataset,
    snapshot: SnapshotRow | None,
    conditions: tuple[Condition, ...],
    now: datetime,
    *,
    actions: tuple[StartWorkload | StopWorkload, ...] = (),
    events: tuple[Event, ...] = (),
    requeue: float | None = None,
    generation: bool = False,
    refreshed: bool = False,
) -> Decision:
    """`generation`: the present generation is not acted on yet, so the status still speaks of the one before."""
    previous = dataset.status or DatasetStatus()
    manifest = snapshot.manifest if snapshot else {}
    observed = previous.observed_generation if generation else dataset.metadata.generation
    status = DatasetStatus(
        observed_generation=observed,
        conditions=settle(previous.conditions, conditions, generation=dataset.metadata.generation, now=now),
        snapshot=snapshot.digest if snapshot else None,
        bars=manifest.get("bars"),
        first_bar_at=iso(from_epoch(manifest["first_ts"])) if "first_ts" in manifest else None,
        last_bar_at=iso(from_epoch(manifest["last_ts"])) if "last_ts" in manifest else None,
        gaps=len(manifest["gaps"]) if "gaps" in manifest else None,
        quarantined=tuple(Quarantined(**entry) for entry in manifest.get("quarantined", ())),
        refreshed_at=iso(now) if refreshed else previous.refreshed_at,
    )
    return Decision(actions=actions, status=status.to_json(), events=events, requeue_after=requeue)
