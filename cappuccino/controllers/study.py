"""Study: search within a budget, never losing or repeating a trial.

    no Dataset, or none Ready ──▶ waits (Ready False)
    warmStart names a Study that is not complete ──▶ waits (Ready False)
    first pass ──▶ pins the Dataset's snapshot, its own spec, the start of the gate window, and what it starts from
    room (parallelism, budget, phase) ──▶ proposals become rows; rows without objects become Trials
    budget.stopEarly says enough ──▶ no more proposals (progress.py)
    every trial of the budget, or every one there is when it is enough, finished ──▶ Complete;   too many failed ──▶ Failed

The trial table is the truth: an INSERT under (study uid, number) makes a trial exist, and a pass that finds a row
without an object creates the object. A phase begins when every trial of the one before has finished; the winner's
parameters are frozen in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cappuccino.api.dataset import Dataset, DatasetSpec
from cappuccino.api.meta import API_VERSION, Condition, OwnerReference
from cappuccino.api.study import Parameter, Phase, Study, StudySpec, StudyStatus
from cappuccino.controllers import warmstart
from cappuccino.controllers.conditions import false, settle, stalled, true
from cappuccino.controllers.decision import Action, CreateObject, Decision, DeleteObject, Document, Event, Key, WriteRecord
from cappuccino.controllers.progress import Progress, best_of, front_of
from cappuccino.controllers.rows import SnapshotRow, StudyRow
from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import trial_name
from cappuccino.core.timeframe import Timeframe
from cappuccino.evaluation.splits import walk_forward, windows
from cappuccino.search.packing import proposed_together
from cappuccino.search.trials import NewTrial, TrialRow

# In one pass, since results wait for its end to be counted. The next pass follows at once.
PROPOSED_TOGETHER = 8


@dataclass(frozen=True, kw_only=True)
class TrialObject:
    """A Trial that exists: its name, uid and whether it is being deleted."""

    number: int
    uid: str
    deleting: bool = False


@dataclass(frozen=True, kw_only=True)
class Observed:
    study: Study | None
    key: Key
    dataset: Dataset | None = None
    snapshot: SnapshotRow | None = None  # the Dataset's current one, or the pinned one
    pinned: StudyRow | None = None
    source: warmstart.Source = warmstart.NO_SOURCE  # what it is to start from, before it is pinned
    trials: Sequence[TrialRow] = ()
    objects: Sequence[TrialObject] = ()
    proposals: Sequence[NewTrial] = field(default=())  # what the sampler says for `wanted`


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to ask the sampler for: these numbers, from this space; `frozen` joins every proposal."""

    numbers: tuple[int, ...]
    phase: str
    space: Mapping[str, Parameter]
    frozen: Mapping[str, str]


def phases(study: Study) -> tuple[Phase, ...]:
    """The Study's phases; one without a name when it has none."""
    if study.spec.phases:
        return study.spec.phases
    return (Phase.model_construct(name="", trials=study.spec.budget.trials, search_space=study.spec.search_space),)


def wanted(study: Study, trials: Sequence[TrialRow]) -> Wanted | None:
    """The trials that may be proposed now, or None: pure, so that the observer can ask the sampler beforehand."""
    spec, progress = study.spec, Progress.of(trials, study.spec.goal)
    if spec.suspend or study.metadata.deletion_timestamp or _failed(study, progress) or progress.enough(spec.budget.stop_early):
        return None
    room = min(spec.parallelism - len(progress.unfinished), max(PROPOSED_TOGETHER, spec.template.pack))
    first = len(trials)  # numbers are dense: a row is never deleted
    frozen: dict[str, str] = {}
    begin = 0
    for phase in phases(study):
        end = begin + phase.trials
        if first < end:
            count = proposed_together(room, end - first, pack=spec.template.pack, parallelism=spec.parallelism)
            if count == 0 or any(row.number < begin for row in progress.unfinished):
                return None
            return Wanted(numbers=tuple(range(first, first + count)), phase=phase.name, space=phase.search_space, frozen=frozen)
        winner = Progress.of([row for row in trials if begin <= row.number < end], spec.goal).best
        frozen |= dict(winner.parameters) if winner else {}
        begin = end
    return None


def decide(observed: Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:  # noqa: ARG001
    study = observed.study
    if study is None or study.metadata.deletion_timestamp:
        return Decision()  # its Trials go with it; each stops its own workload
    if observed.pinned is None:
        return _pin(observed, study, now)

    rows, objects = observed.trials, {item.number: item for item in observed.objects}
    progress, proposed = Progress.of(rows, study.spec.goal), len(observed.proposals)
    counts, warm = progress.counts, observed.pinned.spec.get("warmStart") or {}
    actions: list[Action] = []
    if observed.proposals:
        actions.append(
            WriteRecord(
                operation="insert_trials",
                arguments={"study_uid": study.uid, "trials": tuple(observed.proposals), "at": now},
            )
        )
    actions += [
        CreateObject(document=trial_document(study, observed.key, observed.pinned, row))
        for row in progress.unfinished
        if row.number not in objects
    ]
    actions += _surplus(study, observed.key, rows, objects)

    status = StudyStatus(
        observed_generation=study.metadata.generation,
        conditions=settle(
            study.status.conditions if study.status else (),
            _conditions(study, rows, progress),
            generation=study.metadata.generation,
            now=now,
        ),
        snapshot=observed.pinned.snapshot,
        gate_starts_at=iso(observed.pinned.gate_starts_at),
        phase=_phase_of(study, [*rows[-1:], *observed.proposals]) or None,
        trials=counts.model_copy(update={"waiting": counts.waiting + proposed}),  # told together with what made room for them
        active=len(progress.unfinished) + proposed,
        best=best_of(progress),
        front=front_of(progress) or None,
        front_size=len(progress.front) or None,
        warm_start_uid=warm.get("studyUid"),
    )
    return Decision(
        actions=tuple(actions),
        status=status.to_json(),
        events=_events(study, status),
        requeue_after=0.0 if observed.proposals else None,
    )


def trial_document(study: Study, key: Key, pinned: StudyRow, row: TrialRow) -> Document:
    owner = OwnerReference(kind="Study", name=study.name, uid=study.uid)
    return {
        "apiVersion": API_VERSION,
        "kind": "Trial",
        "metadata": {
            "name": trial_name(study.name, row.number),
            "namespace": key.namespace,
            "labels": {"cappuccino.dev/study": study.name},
            "ownerReferences": [owner.to_json()],
        },
        "spec": {
            "studyName": study.name,
            "studyUid": study.uid,
            "number": row.number,
            "phase": row.phase,
            "parameters": dict(row.parameters),
            "snapshot": pinned.snapshot,
            "gateStartsAt": iso(pinned.gate_starts_at),
        },
    }


def _pin(observed: Observed, study: Study, now: datetime) -> Decision:
    dataset, name = observed.dataset, study.spec.dataset_ref.name
    if dataset is None:
        return _unpinned(study, (false("Ready", "DatasetNotFound", f"Dataset {name} does not exist: apply it"),), now)
    ready = dataset.condition("Ready")
    snapshot = observed.snapshot
    if ready is None or ready.status != "True" or snapshot is None:
        why = ready.message if ready else "it was not looked at yet"
        return _unpinned(study, (false("Ready", "DatasetNotReady", f"Dataset {name} is not ready: {why}"),), now)
    try:
        gate_starts_at = _gate_start(study, dataset, snapshot.manifest)
    except InvalidInput as error:
        return _unpinned(study, stalled("TooFewBars", f"Dataset {name}: {error}"), now)
    spec = warmstart.pin(resolved(study.spec, dataset.spec, snapshot.manifest), observed.source, gate_starts_at)
    if not isinstance(spec, StudySpec):
        return _unpinned(study, spec, now)
    pin = WriteRecord(
        operation="pin_study",
        arguments={
            "uid": study.uid,
            "name": study.name,
            "spec": spec.to_json(),
            "snapshot": snapshot.digest,
            "gate_starts_at": gate_starts_at,
        },
    )
    return Decision(actions=(pin,), requeue_after=0.0)


def resolved(spec: StudySpec, dataset: DatasetSpec, manifest: Mapping[str, Any]) -> StudySpec:
    """`spec` with what it left to its Dataset filled in: a trainer needs no other document."""
    return spec.model_copy(
        update={
            "symbols": spec.symbols or tuple(manifest["symbols"]),
            "timeframe": spec.timeframe or dataset.timeframe,
            "features": spec.features or dataset.features,
        }
    )


def _gate_start(study: Study, dataset: Dataset, manifest: Mapping[str, Any]) -> datetime:
    """Start of the gate window, counted back from the end of the snapshot in bars of the Study's timeframe.

    Raises:
        InvalidInput: symbols that the snapshot lacks, or fewer bars than folds and windows need.
    """
    spec = study.spec
    have = tuple(manifest["symbols"])
    missing = [symbol for symbol in spec.symbols if symbol not in have]
    if missing:
        raise InvalidInput(f"symbols {', '.join(missing)} are not in it: it has {', '.join(have)}")
    stored = Timeframe.parse(dataset.spec.timeframe)
    timeframe = Timeframe.parse(spec.timeframe) if spec.timeframe else stored
    if timeframe.seconds % stored.seconds:
        raise InvalidInput(f"timeframe {timeframe} cannot be made from {stored} bars: use {stored} or a multiple of it")
    first, end = int(manifest["first_ts"]), int(manifest["last_ts"]) + stored.seconds
    split = windows((end - first) // timeframe.seconds, spec.validation.gate_bars, spec.validation.gap_bars)
    walk_forward(len(split.dev), spec.validation.folds, spec.validation.gap_bars)
    return from_epoch(timeframe.floor(end) - spec.validation.gate_bars * timeframe.seconds)


def _unpinned(study: Study, conditions: tuple[Condition, ...], now: datetime) -> Decision:
    status = StudyStatus(
        observed_generation=study.metadata.generation,
        conditions=settle(
            study.status.conditions if study.status else (), conditions, generation=study.metadata.generation, now=now
        ),
    )
    return Decision(status=status.to_json())


def _failed(study: Study, progress: Progress) -> bool:
    return progress.counts.failed > study.spec.budget.max_failed_trials


def _conditions(study: Study, rows: Sequence[TrialRow], progress: Progress) -> tuple[Condition, ...]:
    counts, budget = progress.counts, study.spec.budget
    summary = f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed of {budget.trials}"
    if _failed(study, progress):
        limit = budget.max_failed_trials
        last = next((row.reason for row in reversed(rows) if row.state == "Failed"), "")
        message = f"{counts.failed} trials failed, more than budget.maxFailedTrials {limit}; the last: {last}"
        return (*stalled("TooManyFailures", message), true("Failed", "TooManyFailures", message), false("Complete", "Failed"))
    enough = "" if len(rows) >= budget.trials else progress.enough(budget.stop_early)
    if (enough or len(rows) >= budget.trials) and not progress.unfinished:
        return _ended(
            rows, progress, f"{enough}; {summary}" if enough else summary, "StoppedEarly" if enough else "BudgetSpent"
        )
    suspended = study.spec.suspend or study.spec.parallelism == 0
    state = true("Suspended", "Asked", "no new trial starts") if suspended else false("Suspended", "Searching")
    ready = true("Ready", "Stopping", f"{enough}; {summary}") if enough else true("Ready", "Searching", summary)
    return ready, false("Complete", "Searching"), false("Failed", "Searching"), state


def _ended(rows: Sequence[TrialRow], progress: Progress, summary: str, reason: str) -> tuple[Condition, ...]:
    """Every trial has finished and there will be no more."""
    if progress.best:
        return true("Ready", "Done", summary), true("Complete", reason, summary), false("Failed", "Searching")
    last = next((row.reason for row in reversed(rows) if row.reason), "")
    why, what = ("NotFeasible", "kept the constraints") if progress.counts.complete else ("NoResult", "completed")
    message = f"no trial {what}: {summary}; the last: {last}"
    return true("Ready", "Done", message), true("Failed", why, message), false("Complete", why)


def _phase_of(study: Study, rows: Sequence[TrialRow | NewTrial]) -> str:
    return rows[-1].phase if rows else phases(study)[0].name


def _surplus(study: Study, key: Key, rows: Sequence[TrialRow], objects: Mapping[int, TrialObject]) -> list[Action]:
    """Objects of finished trials above the limit, oldest first; their rows stay."""
    finished = [row.number for row in rows if row.number in objects and row.finished and not objects[row.number].deleting]
    surplus = finished[: max(0, len(finished) - study.spec.finished_trials_kept)]
    return [
        DeleteObject(key=Key("Trial", key.namespace, trial_name(study.name, number)), uid=objects[number].uid)
        for number in surplus
    ]


def _events(study: Study, status: StudyStatus) -> tuple[Event, ...]:
    """Events on what became true in this pass."""
    before = {c.type: c.status for c in (study.status.conditions if study.status else ())}
    return tuple(
        Event(reason=c.type, message=c.message, type="Warning" if c.type == "Failed" else "Normal")
        for c in status.conditions
        if c.type in ("Complete", "Failed") and c.status == "True" and before.get(c.type) != "True"
    )
