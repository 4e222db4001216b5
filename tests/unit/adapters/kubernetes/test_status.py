"""The status of a workload by what the cluster shows of it: one row per picture."""

from __future__ import annotations

from typing import Any

import pytest

from cappuccino.adapters.kubernetes.naming import HISTORY
from cappuccino.adapters.kubernetes.status import status_of
from cappuccino.adapters.kubernetes.views import pod_view, workload_view
from cappuccino.controllers.decision import Document, PodNeeds, WorkloadStatus

from .builders import NOW, condition, job, pod, running, statefulset, terminated, trial, waiting


def seen(workload: Document, *pods: Document) -> WorkloadStatus:
    return status_of(workload_view(workload), [pod_view(document) for document in pods])


def told(status: WorkloadStatus) -> tuple[Any, ...]:
    return status.state, status.exit_code, status.restarts, status.message


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}

PICTURES = {
    "no pod yet": ((), (), ("Pending", None, 0, "waits for its pod to be made")),
    "no node fits": (
        (),
        ({"phase": "Pending", "conditions": [UNSCHEDULED]},),
        ("Pending", None, 0, "unschedulable: 0/3 nodes are available"),
    ),
    "the image is wrong": (
        (),
        ({"phase": "Pending", "state": waiting("ErrImagePull", "not found")},),
        ("Pending", None, 0, "ErrImagePull: not found"),
    ),
    "its container is made": (
        (),
        ({"phase": "Pending", "state": waiting("ContainerCreating")},),
        ("Pending", None, 0, "waits for its pod to be made"),
    ),
    "it runs": ((), ({"state": running()},), ("Running", None, 0, "")),
    "it runs again": (
        (),
        ({"phase": "Failed", "state": terminated(1, "boom")}, {"state": running()}),
        ("Running", 1, 1, "boom"),
    ),
    "between two pods": ((), ({"phase": "Failed", "state": terminated(1, "a\nboom\n")},), ("Pending", 1, 0, "boom")),
    "done": (
        ("Complete",),
        ({"phase": "Failed", "state": terminated(1, "boom")}, {"phase": "Succeeded", "state": terminated(0)}),
        ("Succeeded", 0, 1, ""),
    ),
    "criteria met, not yet complete": (
        ("SuccessCriteriaMet",),
        ({"phase": "Succeeded", "state": terminated(0)},),
        ("Pending", 0, 0, "waits for its pod to be made"),
    ),
    "retries used up": (
        (("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),),
        ({"phase": "Failed", "state": terminated(1, "first")}, {"phase": "Failed", "state": terminated(4, "second")}),
        ("Failed", 4, 1, "second"),
    ),
    "killed for its memory": (
        (("Failed", "BackoffLimitExceeded", "limit"),),
        ({"phase": "Failed", "state": terminated(137, "epoch 3", reason="OOMKilled")},),
        ("Failed", 137, 0, "OOMKilled: epoch 3"),
    ),
    "evicted before it said anything": (
        (("Failed", "BackoffLimitExceeded", "limit"),),
        ({"phase": "Failed", "reason": "Evicted", "message": "node was low on ephemeral-storage"},),
        ("Failed", None, 0, "Evicted: node was low on ephemeral-storage"),
    ),
    "failed without a pod": (
        (("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),),
        (),
        ("Failed", None, 0, "Job has reached the specified backoff limit"),
    ),
    "took too long": (
        (("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"),),
        ({"phase": "Failed", "state": terminated(143, "told to end")},),
        ("Failed", 124, 0, "it did not end within 601 s"),
    ),
    "being deleted": (
        (),
        ({"state": running(), "deleting": True},),
        ("Running", None, 0, "waits until its pod p-0 on node n1 has ended"),
    ),
}


@pytest.mark.parametrize(("conditions", "pods", "expected"), PICTURES.values(), ids=PICTURES)
def test_a_job_is_read_so(conditions: tuple[Any, ...], pods: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    given = [condition(*(kind if isinstance(kind, tuple) else (kind,))) for kind in conditions]
    document = job(conditions=given)
    shown = [pod(document, name=f"p-{n}", uid=f"p-{n}", age_seconds=-n, **options) for n, options in enumerate(pods)]
    assert told(seen(document, *shown)) == expected


def test_a_suspended_job_names_its_queue_and_nothing_of_its_past() -> None:
    document = job(trial(pod=PodNeeds(queue="gpu")))
    assert told(seen(document)) == ("Pending", None, 0, "waits in queue gpu")
    ended = pod(document, phase="Failed", state=terminated(143, "told to end"))
    assert told(seen(document, ended)) == ("Pending", 143, 0, "waits in queue gpu")


def test_times_are_those_of_the_newest_run() -> None:
    document = job(conditions=[condition("Complete")])
    status = seen(document, pod(document, phase="Succeeded", state=terminated(0, seconds=5)))
    assert status.started_at is not None
    assert (NOW - status.started_at).total_seconds() == 5
    assert status.finished_at == NOW


def test_failures_are_those_that_the_job_controller_counted() -> None:
    assert seen(job(status={"failed": 2})).failures == 2


def test_pods_that_are_gone_stay_counted() -> None:
    document = job()
    document["metadata"]["annotations"][HISTORY] = '{"restarts": 2}'
    assert seen(document, pod(document, state=running())).restarts == 2


@pytest.mark.parametrize(
    ("history", "shown", "expected"),
    [
        ("", None, ("Pending", None, 0, "waits for its pod to be made")),
        ("", {"state": running()}, ("Running", None, 0, "")),
        (
            '{"restarts": 3, "failures": 2, "code": 1, "message": "boom"}',
            {"state": waiting("CrashLoopBackOff", "back-off 40s"), "before": terminated(1, "boom"), "restarts": 2},
            ("Pending", 1, 3, "boom"),
        ),
        (
            '{"restarts": 3, "failures": 2, "code": 1, "message": "boom"}',
            {"state": waiting("CreateContainerConfigError", 'secret "x" not found')},
            ("Pending", 1, 3, 'CreateContainerConfigError: secret "x" not found'),
        ),
        ('{"code": 0, "over": true}', {"state": running()}, ("Succeeded", 0, 0, "")),
        ('{"code": 70, "over": true, "message": "rule"}', None, ("Failed", 70, 0, "rule")),
    ],
)
def test_a_statefulset_is_read_so(history: str, shown: dict[str, Any] | None, expected: tuple[Any, ...]) -> None:
    document = statefulset()
    document["metadata"]["annotations"][HISTORY] = history
    pods = [pod(document, **shown)] if shown is not None else []
    assert told(seen(document, *pods)) == expected
