"""Deployment: take a Study's best bundles through the gates, trade those that pass, never promote by itself.

    Study missing or still searching ──▶ waits (Ready False)       no complete trial ──▶ Stalled
    no verdicts ──▶ gates workload (integrity, backtest, window, overfitting) ──▶ one verdict per candidate
    Passed ──▶ candidate Trader     failed on statistics only ──▶ observer Trader, at most `observers`     else Refused
    baselines ──▶ HODL and cash Traders of the same capital
    a market day traded ──▶ grade workload (soak, grade, live) ──▶ Promotable, for a person to approve (promotion.py)
    approved ──▶ dry run, then real money in steps of capital, or demotion (live.py)
    deleted ──▶ its workloads end, its approval is revoked, its Traders go with it

The evidence rows are the truth: the verdict row of a candidate is written last, so a gates workload that was cut off
is run again and finds its own rows. A Deployment's gates never change after their first use: make another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cappuccino.api.deployment import Deployment, DeploymentStatus
from cappuccino.api.meta import API_VERSION, Condition, OwnerReference
from cappuccino.api.study import Study
from cappuccino.api.trader import RiskLimits, Trader
from cappuccino.controllers import live, promotion
from cappuccino.controllers.candidacy import BASELINE as BASELINE
from cappuccino.controllers.candidacy import GRADE as GRADE
from cappuccino.controllers.candidacy import SOAK as SOAK
from cappuccino.controllers.candidacy import VERDICT as VERDICT
from cappuccino.controllers.candidacy import gates_of, listed, standings
from cappuccino.controllers.conditions import false, settle, stalled, true
from cappuccino.controllers.decision import (
    Action,
    CreateObject,
    Decision,
    Document,
    Event,
    Key,
    StartWorkload,
    StopWorkload,
    Workload,
    WorkloadStatus,
)
from cappuccino.controllers.pod import places
from cappuccino.controllers.rows import AccountActivity, Evidence, Promotion
from cappuccino.controllers.trader import TRACEPARENT_ANNOTATION
from cappuccino.core.clock import parse_iso
from cappuccino.core.errors import FINAL_EXIT_CODES
from cappuccino.core.identifiers import TRACEPARENT, traceparent
from cappuccino.search.goal import Goal
from cappuccino.search.trials import TrialRow

BASELINE_RISK = RiskLimits(max_weight=1, max_drawdown=0, stop=0, trail=0)  # nothing interferes with a baseline
GRADE_EVERY_MARKET = timedelta(days=1)
GRADE_EVERY_SECONDS = 30.0
FIRST_GRADE_DECISIONS = 24
RETRY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Observed:
    deployment: Deployment | None
    key: Key
    study: Study | None = None
    trials: Sequence[TrialRow] = ()
    evidence: Sequence[Evidence] = ()
    promotions: Sequence[Promotion] = ()  # oldest first
    halted: str | None = None  # why the account of the live Trader that was started last is
    traders: Sequence[Trader] = ()
    activity: Mapping[str, AccountActivity] | None = None
    gates: WorkloadStatus | None = None
    grading: WorkloadStatus | None = None

    @property
    def candidates(self) -> tuple[TrialRow, ...]:
        if self.deployment is None or self.study is None:
            return ()
        return candidates(self.deployment, self.trials, self.study.spec.goal)


def gates_name(key: Key) -> str:
    return key.workload("gates")


def grade_name(key: Key) -> str:
    return key.workload("grade")


def candidates(deployment: Deployment, trials: Sequence[TrialRow], goal: Goal) -> tuple[TrialRow, ...]:
    """The best of the trials that the Study's goal lets be chosen, best first."""
    return tuple(row for row in goal.chosen(trials) if row.bundle_digest)[: deployment.spec.top]


def decide(observed: Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:  # noqa: ARG001
    deployment = observed.deployment
    if deployment is None or deployment.metadata.deletion_timestamp:
        names = ((observed.gates, gates_name(observed.key)), (observed.grading, grade_name(observed.key)))
        left = promotion.leave(deployment, observed.key, observed.promotions) if deployment else ()
        return Decision(actions=(*(StopWorkload(name=name) for run, name in names if run), *left))

    blocked = _blocked(observed, deployment)
    if blocked:
        return _status(observed, deployment, blocked, now)

    verdicts = {row.bundle_digest: row for row in observed.evidence if row.gate == VERDICT}
    expected = _expected(deployment, observed.candidates)
    if len(verdicts) < expected:
        return _gate(observed, deployment, expected, now)

    actions: list[Action] = []
    if observed.gates:
        actions.append(StopWorkload(name=gates_name(observed.key)))
    documents = trader_documents(deployment, observed.key, observed.evidence, trace=_trace(observed, deployment))
    actions += [CreateObject(document=document) for document in _placed(deployment, documents, observed.traders)]
    passed = sum(row.detail.get("verdict") == "Passed" for row in verdicts.values())
    observing = sum(row.detail.get("role") == "observer" for row in verdicts.values())
    message = f"{len(verdicts)} candidates: {passed} passed every gate, {observing} trade as observers"
    return _status(
        observed, deployment, (true("Ready", "Judged", message),), now, actions=actions, requeue=_next_grade(observed)
    )


def trader_documents(deployment: Deployment, key: Key, evidence: Sequence[Evidence], *, trace: str) -> list[Document]:
    """The Traders that the verdicts ask for; a candidate without an account of its own runs in shadow. `trace`: traceparent."""
    chosen: list[tuple[str, str, str]] = []  # name, digest, role
    for row in sorted((r for r in evidence if r.gate == VERDICT), key=lambda r: (r.detail["rank"], r.bundle_digest)):
        role = row.detail.get("role")
        if role:
            number = row.detail.get("number")
            suffix = row.detail["kind"] if number is None else f"{number:05d}"
            chosen.append((f"{deployment.name}-{suffix}", row.bundle_digest, role))
    for row in sorted((r for r in evidence if r.gate == BASELINE), key=lambda r: str(r.detail["kind"])):
        chosen.append((f"{deployment.name}-{row.detail['kind']}", row.bundle_digest, "baseline"))

    template = deployment.spec.trader_template
    simulated = template.venue.kind == "simulated"
    accounts = iter(deployment.spec.accounts)
    documents = []
    for name, digest, role in chosen:
        spec: dict[str, Any] = template.to_json() | {"bundleDigest": digest, "role": role}
        spec["account"] = f"{name}-{deployment.uid[:8]}"
        if role == "baseline":
            spec["risk"] = BASELINE_RISK.to_json()
        if not simulated and template.mode != "shadow":
            secret = next(accounts, None) if role == "candidate" else None
            if secret is None:
                spec["mode"] = "shadow"
            else:
                spec["venue"] = spec["venue"] | {"accountSecretRef": {"name": secret}}
        documents.append(_trader(deployment, key, name, spec, trace))
    return documents


def _placed(deployment: Deployment, documents: Sequence[Document], traders: Sequence[Trader]) -> Iterator[Document]:
    """Those of the documents that are new, each with its place in a pod, which it then keeps."""
    have = {trader.name for trader in traders}
    pods = places(deployment.name, traders, deployment.spec.portfolios_per_pod)
    for document in documents:
        if document["metadata"]["name"] not in have:
            pod = next(pods)
            yield document | {"spec": document["spec"] | {"pod": pod}} if pod else document


def _trace(observed: Observed, deployment: Deployment) -> str:
    """The trace of its Study, which Trials and Traders are in as well; its own when it names bundles instead."""
    return traceparent(observed.study.uid if observed.study else deployment.uid)


def _trader(deployment: Deployment, key: Key, name: str, spec: Document, trace: str) -> Document:
    owner = OwnerReference(kind="Deployment", name=deployment.name, uid=deployment.uid)
    return {
        "apiVersion": API_VERSION,
        "kind": "Trader",
        "metadata": {
            "name": name,
            "namespace": key.namespace,
            "labels": {"cappuccino.dev/deployment": deployment.name},
            "annotations": {TRACEPARENT_ANNOTATION: trace},
            "ownerReferences": [owner.to_json()],
        },
        "spec": spec,
    }


def _expected(deployment: Deployment, best: Sequence[TrialRow]) -> int:
    if deployment.spec.mode == "ensemble":
        return 1
    return len(deployment.spec.bundles) or len(best)


def _blocked(observed: Observed, deployment: Deployment) -> tuple[Condition, ...]:
    """Why there is nothing to judge yet; empty when there is."""
    reference = deployment.spec.study_ref
    if reference is None:
        return ()  # bundles whose card names their Study, which has searched
    name = reference.name
    study = observed.study
    if study is None:
        return (false("Ready", "StudyNotFound", f"Study {name} does not exist: apply it, or name another in studyRef"),)
    complete, failed = study.condition("Complete"), study.condition("Failed")
    if failed and failed.status == "True":
        return stalled("StudyFailed", f"Study {name} failed: {failed.message}")
    if complete is None or complete.status != "True":
        return (false("Ready", "StudySearching", f"Study {name} is not complete yet"),)
    if not deployment.spec.bundles and not observed.candidates:
        return stalled("NoCandidates", f"Study {name} has no trial that may be chosen: widen its search or its data")
    return ()


def _gate(observed: Observed, deployment: Deployment, expected: int, now: datetime) -> Decision:
    run = observed.gates
    waiting = (false("Ready", "Judging", f"{expected} candidates go through the gates"),)
    if run is None:
        start = StartWorkload(workload=gates_workload(observed, deployment))
        return _status(observed, deployment, waiting, now, actions=[start])
    if run.state == "Failed":
        message = run.message or f"the gates ended with exit code {run.exit_code}"
        if run.exit_code in FINAL_EXIT_CODES:
            return _status(observed, deployment, stalled("GatesFailed", message), now)
        if _resting(run, now):
            return _status(observed, deployment, (false("Ready", "GatesFailed", message),), now, requeue=RETRY_SECONDS)
        return Decision(actions=(StopWorkload(name=gates_name(observed.key)),), requeue_after=0.1)
    if run.state == "Succeeded" and run.finished_at and now > run.finished_at + timedelta(seconds=5):
        return _status(
            observed, deployment, stalled("GatesSilent", "the gates ended without a verdict for each candidate"), now
        )
    return _status(observed, deployment, waiting, now, requeue=1.0 if run.state == "Succeeded" else None)


def gates_workload(observed: Observed, deployment: Deployment) -> Workload:
    rows = observed.candidates
    numbers = {row.bundle_digest: row.number for row in rows}
    digests = deployment.spec.bundles or tuple(str(row.bundle_digest) for row in rows)
    spec = {
        "deploymentUid": deployment.uid,
        "deploymentName": deployment.name,
        "deployment": deployment.spec.to_json(),
        "studyUid": observed.study.uid if observed.study else None,
        "candidates": [{"bundle": digest, "number": numbers.get(digest)} for digest in digests],
    }
    return Workload(
        name=gates_name(observed.key),
        kind="finite",
        arguments=("validate", "gates"),
        keys=(observed.key,),
        environment={"CAPPUCCINO_SPEC": json.dumps(spec), TRACEPARENT: _trace(observed, deployment)},
        timeout_seconds=6 * 3600,
    )


def _grade_workload(observed: Observed, deployment: Deployment) -> Workload:
    steps = {row.account: row.step for row in observed.promotions if row.account}
    traders = [
        {"name": t.name, "account": t.spec.account, "bundle": t.spec.bundle_digest, "role": t.spec.role}
        | ({"step": steps[t.spec.account]} if t.spec.mode == "live" else {})
        for t in observed.traders
        if t.spec.mode != "live" or (deployment.spec.live and t.spec.account in steps)
    ]
    spec = {"deploymentUid": deployment.uid, "deployment": deployment.spec.to_json(), "traders": traders}
    return Workload(
        name=grade_name(observed.key),
        kind="finite",
        arguments=("validate", "grade"),
        keys=(observed.key,),
        environment={"CAPPUCCINO_SPEC": json.dumps(spec), TRACEPARENT: _trace(observed, deployment)},
        timeout_seconds=3600,
    )


def _grading(observed: Observed, deployment: Deployment, now: datetime) -> list[Action]:
    run = observed.grading
    if run and (run.state == "Succeeded" or (run.state == "Failed" and not _resting(run, now))):
        return [StopWorkload(name=grade_name(observed.key))]
    if run or not _grade_due(observed, deployment, now):
        return []
    return [StartWorkload(workload=_grade_workload(observed, deployment))]


def _graded(observed: Observed, deployment: Deployment) -> tuple[Condition, ...]:
    """What kept the last grading from ending, until one ends: without a grade nobody goes on, and nobody is demoted."""
    run, told = observed.grading, deployment.condition("Graded")
    if run and run.state == "Failed":
        return (false("Graded", "GradingFailed", run.message or f"the grading ended with exit code {run.exit_code}"),)
    return () if told is None or (run and run.state == "Succeeded") else (told,)


def _resting(run: WorkloadStatus, now: datetime) -> bool:
    return run.finished_at is not None and now < run.finished_at + timedelta(seconds=RETRY_SECONDS)


def _last_grade(observed: Observed) -> Evidence | None:
    rows = [row for row in observed.evidence if row.gate == GRADE and row.recorded_at]
    return max(reversed(rows), key=lambda row: row.detail["bar_at"], default=None)


def _last_bar(observed: Observed) -> datetime | None:
    return max((a.last_bar_at for a in (observed.activity or {}).values() if a.last_bar_at), default=None)


def _finished(observed: Observed) -> bool:
    reasons = [condition.reason for trader in observed.traders if (condition := trader.condition("Ready"))]
    return bool(reasons) and len(reasons) == len(observed.traders) and all(reason == "Finished" for reason in reasons)


def _grade_due(observed: Observed, deployment: Deployment, now: datetime) -> bool:
    """After each market day, but not more often than every half minute; once more when the venue's tape ended, and when it was
    by other gates."""
    bar, last = _last_bar(observed), _last_grade(observed)
    if bar is None:
        return False
    if last is None or last.recorded_at is None:
        return _finished(observed) or max(a.decisions for a in (observed.activity or {}).values()) >= FIRST_GRADE_DECISIONS
    if last.detail.get("gates") != gates_of(deployment.spec):
        return True
    graded = parse_iso(str(last.detail["bar_at"]))
    if _finished(observed):
        return bar > graded
    return bar - graded >= GRADE_EVERY_MARKET and (now - last.recorded_at).total_seconds() >= GRADE_EVERY_SECONDS


def _next_grade(observed: Observed) -> float | None:
    return GRADE_EVERY_SECONDS if observed.traders else None


def _status(
    observed: Observed,
    deployment: Deployment,
    conditions: tuple[Condition, ...],
    now: datetime,
    *,
    actions: Sequence[Action] = (),
    requeue: float | None = None,
) -> Decision:
    before = deployment.status.conditions if deployment.status else ()
    judged = standings(deployment, observed.evidence)
    approval = promotion.judge(
        deployment,
        observed.key,
        candidates=judged,
        traders=observed.traders,
        promotions=observed.promotions,
        evidence=observed.evidence,
        halted=observed.halted,
    )
    trace = _trace(observed, deployment)
    road = live.walk(
        deployment,
        observed.key,
        standing=approval.standing,
        candidates=judged,
        traders=observed.traders,
        promotions=observed.promotions,
        evidence=observed.evidence,
        halted=observed.halted,
        document=lambda name, spec: _trader(deployment, observed.key, name, spec, trace),
    )
    conditions = (
        *conditions,
        *_graded(observed, deployment),
        approval.condition,
        *((road.condition,) if road.condition else ()),
    )
    status = DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        conditions=settle(before, conditions, generation=deployment.metadata.generation, now=now),
        candidates=listed(judged, approval.standing),
        promoted=approval.standing.subject if approval.standing else None,
    )
    was = {c.type: (c.status, c.reason) for c in before}
    events = tuple(
        Event(reason=c.reason, message=c.message, type="Warning" if c.type == "Stalled" else "Normal")
        for c in status.conditions
        if c.type in ("Ready", "Stalled") and c.status == "True" and was.get(c.type) != (c.status, c.reason)
    )
    return Decision(
        # what ends an approval waits for nothing else, and no candidate of tomorrow keeps those of today from being graded
        actions=(*approval.actions, *road.actions, *actions, *_grading(observed, deployment, now)),
        status=status.to_json(),
        events=(*events, *approval.events, *road.events),
        requeue_after=requeue,
    )
