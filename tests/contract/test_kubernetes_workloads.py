"""The `Workloads` adapter of Kubernetes on a real API server with its controllers; the kubelet is of paper (kubelet.py).

What needs real processes is in test_workloads.py, which runs on a whole cluster too.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from cappuccino.adapters.kubernetes.client import JOB, OURS, POD, STATEFULSET, ApiResource, Client
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.adapters.kubernetes.watch import Watcher
from cappuccino.adapters.kubernetes.workloads import KubernetesWorkloads
from cappuccino.controllers.decision import Document, Key, PodNeeds, Workload, WorkloadStatus
from cappuccino.core.clock import SystemClock
from cappuccino.core.errors import InvalidInput, RetryLater
from hack.cluster.control_plane import ControlPlane

from . import kubelet as paper

pytestmark = pytest.mark.xdist_group("cluster")
QUOTA = ApiResource("", "v1", "resourcequotas", "ResourceQuota")
SETTINGS = PodSettings.model_validate(
    {
        "images": {"train": "train:1", "trader": "trader:1"},
        "database": {"secret": "database"},
        "artifacts": {"url": "file:///artifacts", "claim": "artifacts"},
        "deletionGraceSeconds": 1,
    }
)


@dataclass
class Ground:
    """One namespace of a real API server, an operator's adapter on it, and a kubelet of paper."""

    client: Client
    index: ClusterIndex
    workloads: KubernetesWorkloads
    objects: KubernetesObjects
    kubelet: paper.Kubelet
    namespace: str

    def workload(self, name: str = "t", *, kind: Any = "finite", role: str = "", **options: Any) -> Workload:
        key = Key("Trial" if kind == "finite" else "Trader", self.namespace, name)
        options = {"arguments": ("train",) if kind == "finite" else ("trade",), "keys": (key,), **options}
        return Workload(name=key.workload(role), kind=kind, **options)

    async def until(self, workload: Workload, test: Callable[[WorkloadStatus], bool], seconds: float = 30) -> WorkloadStatus:
        async with asyncio.timeout(seconds):
            while True:
                status = await self.workloads.observe(workload.name)
                if status is not None and test(status):
                    return status
                await asyncio.sleep(0.05)

    async def running(self, workload: Workload) -> Document:
        """Started, its pod on the node and its container up."""
        await self.workloads.start(workload)
        pod: Document = await self.kubelet.run()
        await self.until(workload, lambda status: status.state == "Running")
        return pod

    def another(self, **options: Any) -> KubernetesWorkloads:
        """The adapter of an operator that was started again: its own index, no memory."""
        return KubernetesWorkloads(self.client, ClusterIndex(self.client), SETTINGS, clock=SystemClock(), **options)


@pytest.fixture
async def ground(api_server: ControlPlane) -> AsyncIterator[Ground]:
    async with await Client.connect(kubeconfig=str(api_server.kubeconfig)) as client:
        await paper.node(client)
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = await paper.namespace(client, f"w-{uuid.uuid4().hex[:8]}", **restricted)
        index = ClusterIndex(client, namespaces=(namespace,))
        watching = asyncio.create_task(Watcher(client, index).run())
        yield Ground(
            client=client,
            index=index,
            workloads=KubernetesWorkloads(client, index, SETTINGS, clock=SystemClock(), margin_seconds=2),
            objects=KubernetesObjects(client, index),
            kubelet=paper.Kubelet(client, namespace),
            namespace=namespace,
        )
        watching.cancel()
        await asyncio.wait([watching])
        await client.delete(paper.NAMESPACE, "", namespace)


def over(status: WorkloadStatus) -> bool:
    return status.state in ("Succeeded", "Failed")


async def eventually(test: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await test():
            await asyncio.sleep(0.05)


# --- finite -----------------------------------------------------------------------------------------


async def test_a_finite_workload_is_a_job_whose_pod_a_restricted_namespace_admits(ground: Ground) -> None:
    given = ground.workload(timeout_seconds=60, pod=PodNeeds(shared_memory="64Mi", limits={"nvidia.com/gpu": "1"}))
    await ground.workloads.start(given)
    status = await ground.until(given, lambda s: s.message.startswith("unschedulable"))
    assert (status.state, status.keys, status.restarts) == ("Pending", given.keys, 0)
    pod = await ground.kubelet.run()
    status = await ground.until(given, lambda s: s.state == "Running")
    assert status.started_at is not None
    await ground.kubelet.end(pod, 0, phase="Succeeded")
    status = await ground.until(given, over)
    assert (status.state, status.exit_code, status.failures) == ("Succeeded", 0, 0)
    assert status.finished_at is not None
    assert [s.name for s in await ground.workloads.list()] == [given.name]


async def test_what_exists_is_left_as_it_is_running_or_ended(ground: Ground) -> None:
    given = ground.workload()
    await asyncio.gather(*(ground.workloads.start(given) for _ in range(5)))
    pod = await ground.kubelet.run()
    await ground.another().start(given)  # by an operator that does not know of it yet
    await ground.kubelet.end(pod, 0, phase="Succeeded")
    await ground.until(given, over)
    await ground.workloads.start(replace(given, arguments=("train", "--other")))
    assert len(await ground.client.all(JOB, namespace=ground.namespace)) == 1
    assert len(await ground.kubelet.pods()) == 1


async def test_retries_used_up_fail_it_with_the_last_exit_code_and_words(ground: Ground) -> None:
    given = ground.workload(retries=0)
    pod = await ground.running(given)
    await ground.kubelet.end(pod, 1, words="loading\nno such file\n\n", phase="Failed")
    status = await ground.until(given, over)
    assert (status.state, status.exit_code, status.failures, status.message) == ("Failed", 1, 1, "no such file")


@pytest.mark.parametrize("code", [2, 3, 70])
async def test_an_exit_code_that_a_retry_cannot_change_is_final(ground: Ground, code: int) -> None:
    given = ground.workload(retries=5)
    pod = await ground.running(given)
    await ground.kubelet.end(pod, code, words="wrong", phase="Failed")
    status = await ground.until(given, over)
    assert (status.state, status.exit_code, status.message, len(await ground.kubelet.pods())) == ("Failed", code, "wrong", 1)


async def test_preemption_and_a_dependency_that_is_away_never_count(ground: Ground) -> None:
    """Together, for the Job controller waits 10 s before each second pod."""
    evicted = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]

    async def twice(name: str, code: int, conditions: list[Document], *, vanishes: bool = False) -> None:
        given = ground.workload(name, retries=0)
        await ground.workloads.start(given)
        pod = await ground.kubelet.run(await ground.kubelet.pod(lambda p: p["metadata"]["name"].startswith(name)))
        await ground.until(given, lambda s: s.state == "Running")
        await ground.kubelet.end(pod, code, phase="Failed", conditions=conditions)
        if vanishes:
            await ground.kubelet.remove(pod)
        second = await ground.kubelet.pod(
            lambda p: p["metadata"]["name"].startswith(name) and p["status"]["phase"] == "Pending"
        )
        await ground.kubelet.run(second)
        running = await ground.until(given, lambda s: s.state == "Running" and s.restarts == 1)
        again = ground.another()
        await again._index.fill()
        told = await again.observe(given.name)
        assert told is not None
        assert told.restarts == running.restarts
        await ground.kubelet.end(second, 0, phase="Succeeded")
        status = await ground.until(given, over)
        assert (status.state, status.restarts, status.failures) == ("Succeeded", 1, 0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(twice("told", 143, []))
        tasks.create_task(twice("away", 75, []))
        tasks.create_task(twice("killed", 137, evicted))
        tasks.create_task(twice("gone", 143, evicted, vanishes=True))


async def test_a_workload_that_takes_too_long_fails(ground: Ground) -> None:
    given = ground.workload(timeout_seconds=0.6)
    await ground.workloads.start(given)
    status = await ground.until(given, over)
    assert (status.state, status.exit_code, status.message) == ("Failed", 124, "it did not end within 1 s")


async def test_a_queue_holds_it_until_it_is_admitted_and_is_named_as_the_reason(ground: Ground) -> None:
    given = ground.workload(pod=PodNeeds(queue="research"))
    await ground.workloads.start(given)
    assert (await ground.until(given, lambda s: True)).message == "waits in queue research"
    assert await ground.kubelet.pods() == []
    job = (await ground.client.all(JOB, namespace=ground.namespace))[0]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    await ground.client.patch(JOB, ground.namespace, job["metadata"]["name"], {"spec": {"suspend": False}})  # as Kueue does
    await ground.kubelet.run()
    await ground.until(given, lambda s: s.state == "Running")


async def test_a_pod_that_may_not_be_made_says_why(ground: Ground) -> None:
    quota = {"metadata": {"name": "none", "namespace": ground.namespace}, "spec": {"hard": {"pods": "0"}}}
    await ground.client.create(QUOTA, quota)
    await eventually(lambda: _in_force(ground))
    given = ground.workload()
    await ground.workloads.start(given)
    status = await ground.until(given, lambda s: "exceeded quota" in s.message)
    assert status.state == "Pending"
    assert status.message.startswith("FailedCreate: ")


async def _in_force(ground: Ground) -> bool:
    found = await ground.client.get(QUOTA, ground.namespace, "none")
    return found is not None and "hard" in found.get("status", {})


async def test_an_image_that_cannot_be_pulled_says_why(ground: Ground) -> None:
    given = ground.workload()
    await ground.workloads.start(given)
    pod = await ground.kubelet.run()
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "train:1"'}}
    await ground.kubelet.tell(pod, phase="Pending", state=waiting)
    status = await ground.until(given, lambda s: s.state == "Pending" and bool(s.message))
    assert status.message == 'ImagePullBackOff: Back-off pulling image "train:1"'


async def test_a_job_of_that_name_that_is_not_ours_is_named(ground: Ground) -> None:
    container = {"name": "c", "image": "x"}
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    await ground.client.create(JOB, {"metadata": {"name": "t", "namespace": ground.namespace}, "spec": spec})
    with pytest.raises(InvalidInput, match=f"Job {ground.namespace}/t exists and is not"):
        await ground.workloads.start(ground.workload())


async def test_what_the_cluster_refuses_is_said_with_field_and_value(ground: Ground) -> None:
    with pytest.raises(InvalidInput, match=r"limits.*must be less than or equal to memory limit|requests.*must be less"):
        await ground.workloads.start(ground.workload(pod=PodNeeds(requests={"memory": "2Gi"}, limits={"memory": "1Gi"})))


# --- continuous -------------------------------------------------------------------------------------


async def crashes(ground: Ground, pod: Document, codes: list[int], *, restarts: int = 0, seconds: float = 1) -> int:
    """Its container ends with each of these and is started again; returns the kubelet's count."""
    for code in codes:
        before = paper.ended(code, f"said {code}", seconds)
        await ground.kubelet.tell(pod, phase="Running", state={"terminated": before}, restarts=restarts)
        name = pod["metadata"]["annotations"]["cappuccino.dev/workload"]
        await _counted(ground, name, await history(ground))
        restarts += 1
        running = {"running": {"startedAt": before["finishedAt"]}}
        await ground.kubelet.tell(pod, phase="Running", state=running, before=before, restarts=restarts)
    return restarts


async def history(ground: Ground) -> str:
    found = (await ground.client.all(STATEFULSET, namespace=ground.namespace))[0]
    return str(found["metadata"]["annotations"].get("cappuccino.dev/history", ""))


async def _counted(ground: Ground, name: str, before: str) -> None:
    async with asyncio.timeout(30):
        while await history(ground) == before:
            await ground.workloads.observe(name)
            await asyncio.sleep(0.02)


async def test_restarts_and_failures_in_a_row_are_counted_and_survive_the_operator(ground: Ground) -> None:
    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    await crashes(ground, pod, [1, 143, 75, 1])
    status = await ground.until(given, lambda s: s.state == "Running")
    assert (status.restarts, status.failures, status.exit_code, status.message) == (4, 2, 1, "said 1")
    again = ground.another()
    await again._index.fill()
    assert await again.observe(given.name) == status


async def test_a_long_run_ends_a_row_of_failures(ground: Ground) -> None:
    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    count = await crashes(ground, pod, [1, 1])
    await crashes(ground, pod, [1], restarts=count, seconds=61)
    status = await ground.until(given, lambda s: s.state == "Running")
    assert (status.restarts, status.failures) == (3, 1)


async def test_a_crash_is_written_down_once(ground: Ground) -> None:
    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    await crashes(ground, pod, [1])
    found = (await ground.client.all(STATEFULSET, namespace=ground.namespace))[0]
    for _ in range(5):
        await ground.workloads.observe(given.name)
    assert (await ground.client.all(STATEFULSET, namespace=ground.namespace))[0]["metadata"] == found["metadata"]


async def test_counts_survive_a_pod_that_is_replaced_and_an_eviction_is_no_failure(ground: Ground) -> None:
    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    count = await crashes(ground, pod, [1])
    await ground.client.delete(POD, ground.namespace, pod["metadata"]["name"])
    await ground.kubelet.tell(pod, phase="Running", state={"terminated": paper.ended(137)}, restarts=count)
    await ground.until(given, lambda s: s.restarts == 2)
    await ground.kubelet.remove(pod)
    second = await ground.kubelet.run(await ground.kubelet.pod())
    assert second["metadata"]["uid"] != pod["metadata"]["uid"]
    await ground.until(given, lambda s: s.state == "Running")
    await crashes(ground, second, [1])
    status = await ground.until(given, lambda s: s.restarts == 3)
    assert status.failures == 2


async def test_a_pod_that_vanishes_while_it_runs_counts_as_one_restart(ground: Ground) -> None:
    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    await ground.kubelet.remove(pod)
    await ground.kubelet.run(await ground.kubelet.pod())
    status = await ground.until(given, lambda s: s.state == "Running" and s.restarts == 1)
    assert status.failures == 0


@pytest.mark.parametrize(("code", "state"), [(0, "Succeeded"), (2, "Failed"), (3, "Failed"), (70, "Failed")])
async def test_what_ended_for_good_is_not_started_again(ground: Ground, code: int, state: str) -> None:
    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    await ground.kubelet.end(pod, code, words="the end")
    status = await ground.until(given, over)
    assert (status.state, status.exit_code, status.restarts, status.message) == (state, code, 0, "the end")
    found = (await ground.client.all(STATEFULSET, namespace=ground.namespace))[0]
    assert found["spec"]["replicas"] == 0
    await ground.kubelet.tell(  # the kubelet was faster, and it ended otherwise
        pod, phase="Running", state={"terminated": paper.ended(1)}, before=paper.ended(code), restarts=1
    )
    await ground.kubelet.remove(pod)
    again = ground.another()
    await again._index.fill()
    assert await again.observe(given.name) == status
    await again.start(given)
    assert await ground.kubelet.pods() == []


# --- ending -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["finite", "continuous"])
async def test_stopping_waits_until_the_pod_has_ended_and_frees_the_name(ground: Ground, kind: str) -> None:
    given = ground.workload(kind=kind)
    pod = await ground.running(given)
    stopping = asyncio.create_task(ground.workloads.stop(given.name, grace_seconds=5))
    told = await ground.kubelet.pod(lambda p: "deletionTimestamp" in p["metadata"])
    assert told["metadata"]["deletionGracePeriodSeconds"] == 5
    await asyncio.sleep(0.5)
    assert not stopping.done()
    await ground.kubelet.end(pod, 143, phase="Failed")
    await ground.kubelet.remove(pod)
    async with asyncio.timeout(20):
        await stopping
    assert await ground.workloads.observe(given.name) is None
    await ground.running(given)


async def test_stopping_what_has_ended_does_not_wait(ground: Ground) -> None:
    given = ground.workload()
    pod = await ground.running(given)
    await ground.kubelet.end(pod, 0, phase="Succeeded")
    await ground.until(given, over)
    async with asyncio.timeout(1):
        await ground.workloads.stop(given.name)
    assert await ground.workloads.observe(given.name) is None
    await ground.workloads.start(given)
    assert (await ground.until(given, lambda s: True)).state == "Pending"


async def test_stopping_what_is_absent_is_success(ground: Ground) -> None:
    await ground.workloads.stop("never")
    assert await ground.workloads.observe("never") is None


async def test_a_pod_whose_node_does_not_answer_is_not_waited_for_forever_nor_forgotten(ground: Ground) -> None:
    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    with pytest.raises(RetryLater, match="pod t-0 on node paper does not end"):
        await ground.workloads.stop(given.name, grace_seconds=1)
    status = await ground.workloads.observe(given.name)
    assert status is not None
    assert (status.state, status.message) == ("Running", "waits until its pod t-0 on node paper has ended")
    await ground.kubelet.remove(pod)
    await ground.workloads.stop(given.name)
    assert await ground.workloads.observe(given.name) is None


@pytest.mark.parametrize("released", [True, False])
async def test_a_lost_pod_is_removed_by_force_only_when_what_it_served_is_released(ground: Ground, released: bool) -> None:
    asked: list[Any] = []

    async def may(keys: Any) -> bool:
        asked.append(keys)
        return released

    class LaterClock(SystemClock):
        def now(self) -> Any:
            return super().now() + timedelta(seconds=60)

    given = ground.workload(kind="continuous")
    pod = await ground.running(given)
    await ground.client.delete(POD, ground.namespace, pod["metadata"]["name"], grace_seconds=1)
    await ground.until(given, lambda s: s.message.startswith("waits until its pod"))
    late = KubernetesWorkloads(ground.client, ground.index, SETTINGS, clock=LaterClock(), released=may)
    await late.observe(given.name)
    assert asked == [given.keys]
    left = await ground.client.get(POD, ground.namespace, pod["metadata"]["name"])
    assert (left is None or left["metadata"]["uid"] != pod["metadata"]["uid"]) == released


async def test_a_name_is_not_used_again_while_a_pod_of_it_runs(ground: Ground) -> None:
    given = ground.workload()
    pod = await ground.running(given)
    await ground.client.delete(JOB, ground.namespace, "t", propagation="Background")  # by hand
    await eventually(lambda: _forgotten(ground, given))
    with pytest.raises(RetryLater, match="has ended"):
        await ground.workloads.start(given)
    await ground.kubelet.end(pod, 143, phase="Failed")
    await eventually(lambda: _started(ground, given))


async def _forgotten(ground: Ground, given: Workload) -> bool:
    return await ground.workloads.observe(given.name) is None


async def _started(ground: Ground, given: Workload) -> bool:
    try:
        await ground.workloads.start(given)
    except RetryLater:
        return False
    return True


# --- the objects it serves --------------------------------------------------------------------------


def trial(namespace: str, name: str = "t") -> Document:
    spec = {
        "studyName": "s",
        "studyUid": "u",
        "number": 0,
        "parameters": {},
        "snapshot": "a" * 64,
        "gateStartsAt": "2024-01-01T00:00:00Z",
    }
    metadata = {"name": name, "namespace": namespace, "labels": {"cappuccino.dev/study": "s", "team": "x"}}
    return {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Trial", "metadata": metadata, "spec": spec}


async def test_it_ends_with_its_object_though_no_operator_looks(ground: Ground) -> None:
    made = await ground.objects.create(trial(ground.namespace))
    await ground.workloads.start(ground.workload())
    job = (await ground.client.all(JOB, namespace=ground.namespace))[0]
    assert job["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    assert job["metadata"]["labels"]["cappuccino.dev/study"] == "s"
    assert "team" not in job["metadata"]["labels"]
    await ground.client.delete(OURS["Trial"], ground.namespace, "t")
    await eventually(lambda: _jobless(ground))


async def test_of_several_objects_it_ends_with_the_last_and_is_nobody_elses_meanwhile(ground: Ground) -> None:
    first, second = [await ground.objects.create(trial(ground.namespace, name)) for name in ("t", "u")]
    keys = tuple(Key("Trial", ground.namespace, name) for name in ("t", "u"))
    given = ground.workload(keys=keys)
    await ground.workloads.start(given)
    assert await _owners(ground) == {first["metadata"]["uid"], second["metadata"]["uid"]}
    await ground.client.delete(OURS["Trial"], ground.namespace, "t")

    async def left() -> bool:
        return await _owners(ground) == {second["metadata"]["uid"]}

    await eventually(left)
    await ground.objects.create(trial(ground.namespace))  # a Study makes again what was deleted
    await ground.workloads.start(given)
    assert await left()
    status = await ground.workloads.observe(given.name)
    assert status is not None
    assert status.keys == keys
    await ground.client.delete(OURS["Trial"], ground.namespace, "u")
    await eventually(lambda: _jobless(ground))


async def _owners(ground: Ground) -> set[str]:
    (job,) = await ground.client.all(JOB, namespace=ground.namespace)
    assert not any(owner.get("controller") for owner in job["metadata"]["ownerReferences"])
    return {owner["uid"] for owner in job["metadata"]["ownerReferences"]}


async def _jobless(ground: Ground) -> bool:
    return await ground.client.all(JOB, namespace=ground.namespace) == []


async def test_what_a_former_object_of_the_name_left_is_not_taken_for_its_own(ground: Ground) -> None:
    made = await ground.objects.create(trial(ground.namespace))
    given = ground.workload()
    await ground.workloads.start(given)
    job = (await ground.client.all(JOB, namespace=ground.namespace))[0]
    await ground.client.patch(JOB, ground.namespace, "t", {"metadata": {"finalizers": ["cappuccino.dev/test"]}})  # it lingers
    await ground.objects.delete(Key("Trial", ground.namespace, "t"), uid=made["metadata"]["uid"])
    await ground.objects.create(trial(ground.namespace))
    assert await ground.workloads.observe(given.name) is None
    with pytest.raises(RetryLater, match="does not end"):
        await ground.workloads.stop(given.name, grace_seconds=1)
    await ground.client.patch(JOB, ground.namespace, "t", {"metadata": {"finalizers": []}})
    await eventually(lambda: _started(ground, given))
    assert (await ground.client.get(JOB, ground.namespace, "t") or {})["metadata"]["uid"] != job["metadata"]["uid"]


async def test_a_watch_tells_the_keys_of_workloads_that_change(ground: Ground) -> None:
    given = ground.workload()
    async with asyncio.timeout(30), aclosing(ground.workloads.watch()) as watch:
        await ground.workloads.start(given)
        assert await anext(watch) == given.keys[0]
        pod = await ground.kubelet.run()
        while (status := await ground.workloads.observe(given.name)) is None or status.state != "Running":
            assert await anext(watch) == given.keys[0]
        await ground.kubelet.end(pod, 0, phase="Succeeded")
        while not over(status):
            assert await anext(watch) == given.keys[0]
            status = await ground.workloads.observe(given.name) or status
