"""From what the cluster says of a Job or a StatefulSet and its pods to a WorkloadStatus: pure.

Job           suspended ──▶ Pending (the queue it waits in)      pod runs ──▶ Running
              Complete ──▶ Succeeded      Failed ──▶ Failed (the newest pod's exit code; 124: it took too long)
StatefulSet   pod runs ──▶ Running        otherwise ──▶ Pending (why)
              its outcome is in its history ──▶ Succeeded or Failed, whatever its pod does
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from cappuccino.adapters.kubernetes.views import PodView, WorkloadView, time_of
from cappuccino.controllers.decision import WorkloadStatus

TIMED_OUT_CODE = 124  # as timeout(1) and the local cluster say it
WAITS_FOR_POD = "waits for its pod to be made"


def status_of(view: WorkloadView, pods: Sequence[PodView]) -> WorkloadStatus:
    """`pods` are those of this workload that are there, oldest first."""
    return _finite(view, pods) if view.kind == "finite" else _continuous(view, pods)


def _finite(view: WorkloadView, pods: Sequence[PodView]) -> WorkloadStatus:
    newest = pods[-1] if pods else None
    ended = next((pod for pod in reversed(pods) if pod.last_end is not None), None)
    end = ended.last_end if ended else None
    base = WorkloadStatus(
        name=view.workload,
        state="Pending",
        keys=view.keys,
        fingerprint=view.fingerprint,
        exit_code=end.code if end else None,
        restarts=max(0, len(pods) + view.history.restarts - 1),
        failures=view.failed,
        started_at=_started_at(newest),
        finished_at=end.finished_at if end else None,
        message=_last_words(pods),
    )
    if "Complete" in view.conditions:
        at = view.conditions["Complete"][2]
        return replace(base, state="Succeeded", exit_code=0, finished_at=base.finished_at or at)
    if "Failed" in view.conditions:
        reason, said, at = view.conditions["Failed"]
        if reason == "DeadlineExceeded":
            message = f"it did not end within {view.deadline_seconds:g} s" if view.deadline_seconds else said
            return replace(base, state="Failed", exit_code=TIMED_OUT_CODE, finished_at=at, message=message)
        return replace(base, state="Failed", finished_at=base.finished_at or at, message=base.message or said)
    if view.suspended:
        where = f"waits in queue {view.queue}" if view.queue else "suspended: it starts when spec.suspend is false again"
        return replace(base, finished_at=None, message=where)
    return _present(base, newest)


def _continuous(view: WorkloadView, pods: Sequence[PodView]) -> WorkloadStatus:
    history, newest = view.history, pods[-1] if pods else None
    base = WorkloadStatus(
        name=view.workload,
        state="Pending",
        keys=view.keys,
        fingerprint=view.fingerprint,
        exit_code=history.code,
        restarts=history.restarts,
        failures=history.failures,
        started_at=_started_at(newest) or time_of(history.started_at),
        finished_at=time_of(history.finished_at),
        message=history.message,
    )
    if history.over:
        started_at = time_of(history.started_at)
        return replace(base, state="Failed" if history.code else "Succeeded", started_at=started_at)
    return _present(base, newest)


def _present(base: WorkloadStatus, pod: PodView | None) -> WorkloadStatus:
    """By its newest pod, while the outcome is open."""
    if pod is not None and pod.alive and pod.running_since is not None:
        return replace(base, state="Running", finished_at=None, message=base.message if pod.ends_by is None else leaving(pod))
    return replace(base, finished_at=None, message=waiting(pod) or base.message or WAITS_FOR_POD)


def waiting(pod: PodView | None) -> str:
    """Why the pod does not run, where it says so itself."""
    if pod is None or not pod.alive:
        return ""
    if pod.ends_by is not None:
        return leaving(pod)
    if pod.unscheduled:
        return f"unschedulable: {pod.unscheduled}"
    if pod.waiting in ("", "ContainerCreating", "PodInitializing", "CrashLoopBackOff"):
        return ""
    return f"{pod.waiting}: {pod.waiting_message}" if pod.waiting_message else pod.waiting


def leaving(pod: PodView) -> str:
    where = f" on node {pod.node}" if pod.node else ""
    return f"waits until its pod {pod.name}{where} has ended"


def _started_at(pod: PodView | None) -> datetime | None:
    if pod is None:
        return None
    return pod.running_since or (pod.last_end.started_at if pod.last_end else None)


def _last_words(pods: Sequence[PodView]) -> str:
    """Of the newest pod that is over, or what became of it."""
    for pod in reversed(pods):
        if pod.last_end is not None or pod.trouble:
            return (pod.last_end.message if pod.last_end else "") or pod.trouble
    return ""
