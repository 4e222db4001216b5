"""Trial: one result, from a workload of its own or, in a pack, from one that it shares (search/packing.py).

    row Waiting ──▶ Running, workload started
    result written ──▶ Complete | Failed        pruner says so ──▶ Pruned, workload stopped
    workload failed for good, no result ──▶ Failed        workload lost ──▶ started again, resumes its checkpoint
    finished, and so is the rest of its pack ──▶ workload forgotten when it has ended, which a trainer does by itself after its
                                                 last result; a trial that ends before the others leaves it to them

The result row decides, never the workload's exit: a workload gone with its result present is done.

The status is written when it runs and when it is over, and in between only where there is something to wait for: a search has
thousands of trials, and each write of each is seen by everybody who watches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cappuccino.api.meta import Condition
from cappuccino.api.study import StudySpec, TrialPod
from cappuccino.api.trial import Trial, TrialStatus
from cappuccino.controllers.conditions import false, settle, true
from cappuccino.controllers.decision import (
    Action,
    Decision,
    Event,
    Key,
    PodNeeds,
    StartWorkload,
    StopWorkload,
    Workload,
    WorkloadStatus,
    WriteRecord,
)
from cappuccino.core.clock import iso
from cappuccino.core.identifiers import TRACEPARENT, traceparent, trial_name
from cappuccino.search.trials import TrialRow, TrialState

PENDING_SECONDS = 2.0  # for so long a workload may be on its way without a word about it
LEAVING_SECONDS = 10.0  # and so long it may take to end after its result


@dataclass(frozen=True, kw_only=True)
class Observed:
    trial: Trial | None
    key: Key
    row: TrialRow | None = None
    study: StudySpec | None = None  # as pinned
    workload: WorkloadStatus | None = None
    prune: str = ""  # why the pruner stops it; empty: it goes on
    pack: Sequence[TrialRow] = ()  # all that share its workload, itself included, in order; empty: it has its own
    complete: bool = True  # every unfinished trial of the pack has its object: the workload is to be owned by all
    needed: bool = False  # a trial that is gone led a workload which serves others

    @property
    def others(self) -> Sequence[TrialRow]:
        return [row for row in self.pack if self.row is None or row.number != self.row.number]

    @property
    def keys(self) -> tuple[Key, ...]:
        """Of the Trials that the workload serves; it is called after the first one."""
        if self.trial is None or not self.pack:
            return (self.key,)
        names = (trial_name(self.trial.spec.study_name, row.number) for row in self.pack)
        return tuple(Key("Trial", self.key.namespace, name) for name in names)


def decide(observed: Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:  # noqa: ARG001
    trial, row, run = observed.trial, observed.row, observed.workload
    if trial is None or trial.metadata.deletion_timestamp:
        if run and observed.needed:
            return Decision(requeue_after=LEAVING_SECONDS)
        return Decision(actions=(StopWorkload(name=run.name),) if run else ())
    if row is None or observed.study is None:
        message = (
            f"no row ({trial.spec.study_uid}, {trial.spec.number}) in the record: only a Study makes Trials; delete this one"
        )
        return _status(trial, None, run, (false("Complete", "NoRecord", message), true("Stalled", "NoRecord", message)), now)

    if row.finished:
        return _end(observed, trial, row, now)
    if row.result is not None:
        if not row.result.succeeded:
            return _finish(observed, trial, row, "Failed", row.result.reason, now)
        breach = observed.study.goal.breach(row.result.record.get("metrics") or {})
        return _finish(observed, trial, row, "Complete", f"never chosen: {breach}" if breach else row.result.reason, now)
    if observed.prune:
        return _finish(observed, trial, row, "Pruned", observed.prune, now)
    running = () if row.state == "Running" else (_move(row, "Running", "", now),)
    if run is None:
        if not observed.complete:
            return Decision(actions=running, requeue_after=PENDING_SECONDS)
        return Decision(actions=(*running, StartWorkload(workload=workload(observed, trial, observed.study))))
    if run.state == "Failed":
        return _finish(observed, trial, row, "Failed", _failure(run), now)
    if run.state == "Succeeded":  # the result is committed before exit 0, so this pass read the record too early
        if run.finished_at is None or (now - run.finished_at).total_seconds() < 5:
            return Decision(requeue_after=1.0)
        return _finish(observed, trial, row, "Failed", "the trainer ended without writing a result", now)
    if run.state == "Pending":
        rest = PENDING_SECONDS - (now - (row.started_at or now)).total_seconds()
        if rest > 0 and run.restarts == 0:
            return Decision(actions=running, requeue_after=rest)
        return _status(trial, row, run, (false("Complete", "Waiting", run.message),), now, actions=running)
    where = f"in the workload of {observed.keys[0].name}, which serves {len(observed.pack)} trials" if observed.others else ""
    return _status(trial, row, run, (false("Complete", "Training", where),), now, actions=running)


def workload(observed: Observed, trial: Trial, study: StudySpec) -> Workload:
    """The same one, whichever trial of a pack asks for it."""
    keys, numbers = observed.keys, [row.number for row in observed.pack] or [trial.spec.number]
    return Workload(
        name=keys[0].workload(),
        kind="finite",
        arguments=("train", "--study-uid", trial.spec.study_uid, "--trials", ",".join(map(str, numbers))),
        keys=keys,
        environment={TRACEPARENT: traceparent(trial.spec.study_uid)},
        timeout_seconds=study.template.timeout_seconds * len(keys),
        retries=study.template.retries,
        pod=_pod(study.template.pod),
    )


def _pod(pod: TrialPod) -> PodNeeds:
    return PodNeeds(
        requests=pod.requests,
        limits=pod.limits,
        claims=pod.resource_claims,
        node_selector=pod.node_selector,
        tolerations=[toleration.to_json() for toleration in pod.tolerations],
        shared_memory=pod.shared_memory,
        queue=pod.queue,
    )


def _finish(observed: Observed, trial: Trial, row: TrialRow, state: TrialState, reason: str, now: datetime) -> Decision:
    """The record, and the status of what the record then says."""
    move = _move(row, state, reason, now)
    changed = {name: move.arguments[name] for name in ("reason", "objective", "bundle_digest")}
    end = _end(observed, trial, replace(row, state=state, finished_at=now, **changed), now)
    return replace(end, actions=(move, *end.actions))


def _end(observed: Observed, trial: Trial, row: TrialRow, now: datetime) -> Decision:
    """Told first: a workload may take its time to end, and others of its pack may need it. The pass that follows the telling is
    one in which the last of them sees that all have finished."""
    told = _status(trial, row, observed.workload, _final(row), now, over=True)
    if observed.workload is None:
        return told
    rest = _leaving((row, *observed.others), observed.workload, now)
    if trial.status is None or told.status != trial.status.to_json():
        return replace(told, requeue_after=rest)
    if not all(other.finished for other in observed.others):
        return told
    if rest:
        return replace(told, requeue_after=rest)
    return Decision(actions=(StopWorkload(name=observed.workload.name),))


def _leaving(rows: Sequence[TrialRow], run: WorkloadStatus, now: datetime) -> float:
    """Seconds for which a workload that has done its work may still take to end; 0 when it is to be stopped."""
    last = max(rows, key=lambda row: row.finished_at or now)
    if run.state in ("Succeeded", "Failed") or last.state == "Pruned" or last.finished_at is None:
        return 0.0
    return max(0.0, LEAVING_SECONDS - (now - last.finished_at).total_seconds())


def _move(row: TrialRow, state: TrialState, reason: str, now: datetime) -> WriteRecord:
    result = row.result if state in ("Complete", "Failed") else None
    return WriteRecord(
        operation="set_trial_state",
        arguments={
            "study_uid": row.study_uid,
            "number": row.number,
            "from_states": ("Waiting", "Running"),
            "to_state": state,
            "at": now,
            "reason": reason,
            "objective": result.objective if result else None,
            "bundle_digest": result.bundle_digest if result else None,
        },
    )


def _failure(run: WorkloadStatus) -> str:
    tries = f" after {run.restarts} restarts" if run.restarts else ""
    return f"exit code {run.exit_code}{tries}: {run.message or 'no message'}"


def _final(row: TrialRow) -> tuple[Condition, ...]:
    if row.state == "Failed":
        return true("Failed", "Failed", row.reason), false("Complete", "Failed", row.reason)
    reason = "Succeeded" if row.state == "Complete" else "Pruned"
    return true("Complete", reason, row.reason), false("Failed", reason)


def _status(
    trial: Trial,
    row: TrialRow | None,
    run: WorkloadStatus | None,
    conditions: tuple[Condition, ...],
    now: datetime,
    *,
    actions: tuple[Action, ...] = (),
    over: bool = False,
) -> Decision:
    before = trial.status.conditions if trial.status else ()
    settled = settle(before, conditions, generation=trial.metadata.generation, now=now)
    status = TrialStatus(
        observed_generation=trial.metadata.generation,
        conditions=settled,
        objective=row.objective if row else None,
        bundle_digest=row.bundle_digest if row else None,
        attempts=run.restarts + 1 if run else (trial.status.attempts if trial.status else None),
        workload=run.state if run and not over else None,
        started_at=iso(row.started_at) if row and row.started_at else None,
        finished_at=iso(row.finished_at) if row and row.finished_at else None,
    )
    told = any(c.type == "Failed" and c.status == "True" for c in before)
    failed = row if row and row.state == "Failed" and not told else None
    events = (Event(reason="Failed", message=failed.reason, type="Warning"),) if failed else ()
    return Decision(actions=actions, status=status.to_json(), events=events)
