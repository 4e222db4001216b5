"""The `Workloads` port: a finite workload is a Job, a continuous one a StatefulSet of one replica.

Kubernetes restarts what crashes. What is final a Job can be told and a StatefulSet cannot: when its container ended for good
(exit code 0, 2, 3 or 70) it is scaled to 0, and its outcome kept in its history annotation, as are the restarts and failures
that its pods forget. That is done by `observe`, to which every change of a pod leads; doing it twice changes nothing.

Nothing runs twice: a name is free again when the pods of its predecessor have ended, and what a former object of the same name
left is ended first. So is what waits for an image that cannot be had, when another is configured since.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from cappuccino.adapters.kubernetes.answers import AnotherUid, Exists
from cappuccino.adapters.kubernetes.client import JOB, POD, STATEFULSET, ApiResource, Client, Propagation
from cappuccino.adapters.kubernetes.history import advanced
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.naming import HISTORY, WORKLOAD
from cappuccino.adapters.kubernetes.pods import document
from cappuccino.adapters.kubernetes.reasons import Reasons
from cappuccino.adapters.kubernetes.runs import Run
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.adapters.kubernetes.status import status_of
from cappuccino.adapters.kubernetes.views import History, PodView, WorkloadView, pod_view
from cappuccino.controllers.decision import Document, Key, Workload, WorkloadStatus
from cappuccino.core.clock import Clock
from cappuccino.core.errors import InvalidInput, NotFound, RetryLater

_MARGIN_SECONDS = 20.0  # that the kubelet and the controllers take beyond the grace
_LOST_SECONDS = 30.0  # beyond its time to end: its node does not answer
_AGAIN_SECONDS = 2.0

Released = Callable[[tuple[Key, ...]], Awaitable[bool]]


class KubernetesWorkloads:
    """`released` says of the objects that a lost pod served whether another process may run now (a Trader's: its account lease
    has expired). Only then is the pod removed by force; without `released`, never."""

    def __init__(
        self,
        client: Client,
        index: ClusterIndex,
        settings: PodSettings,
        *,
        clock: Clock,
        released: Released | None = None,
        margin_seconds: float = _MARGIN_SECONDS,
    ) -> None:
        self._client = client
        self._index = index
        self._settings = settings
        self._clock = clock
        self._released = released
        self._margin_seconds = margin_seconds
        self._reasons = Reasons(client, clock=clock)

    async def start(self, workload: Workload) -> None:
        run = self._index.run(workload.name)
        if run is not None and (self._is_former(run) or self._lacks_image(run)):
            await self.stop(workload.name)
        elif run is not None:
            return
        if left := [pod for pod in self._index.pods(workload.name) if pod.alive]:
            await self._remove_lost(workload.keys, left)
            raise RetryLater(f"{workload.name}: waits until pod {left[0].name} has ended", after_seconds=_AGAIN_SECONDS)
        owners = [summary for key in workload.keys if (summary := self._index.summary(key)) is not None]
        rendered = document(workload, self._settings, owners)
        resource, metadata = _resource(workload.kind), rendered["metadata"]
        try:
            self._index.note("ADDED", await self._client.create(resource, rendered))
        except Exists:
            await self._adopt(workload, resource, metadata["namespace"], metadata["name"])

    async def observe(self, name: str) -> WorkloadStatus | None:
        run = self._index.run(name)
        if run is None or self._is_former(run) or self._lacks_image(run):
            return None
        run = await self._settled(run)
        await self._remove_lost(run.view.keys, run.pods)
        status = status_of(run.view, run.pods)
        if status.state == "Pending":
            return replace(status, message=await self._reasons.why(run, status.message))
        return status

    async def list(self) -> list[WorkloadStatus]:
        return [status_of(run.view, run.pods) for run in self._index.runs()]

    async def serving(self, key: Key) -> Sequence[WorkloadStatus]:
        return [status_of(run.view, run.pods) for run in self._index.runs_for(key)]

    async def stop(self, name: str, *, grace_seconds: float = 10.0) -> None:
        """Raises RetryLater when something of it still runs after the grace and a margin: its node may be lost."""
        run = self._index.run(name)
        if run is None:
            return
        view, resource = run.view, _resource(run.view.kind)
        alive = [pod for pod in run.pods if pod.alive]
        idle = not alive and (view.over or view.suspended)
        grace = max(1, math.ceil(grace_seconds))  # 0 would not wait for the process
        for pod in alive:  # before their owner goes: a kubelet keeps to the grace that it was told first
            with suppress(NotFound, AnotherUid):
                await self._client.delete(POD, pod.namespace, pod.name, uid=pod.uid, grace_seconds=grace)
        with suppress(NotFound, AnotherUid):
            propagation: Propagation = "Background" if idle else "Foreground"
            answer = await self._client.delete(resource, view.namespace, view.name, uid=view.uid, propagation=propagation)
            if answer["kind"] == resource.kind:
                self._index.note("MODIFIED", answer)
        if not idle:
            await self._gone(view, max(grace, self._settings.deletion_grace_seconds) + self._margin_seconds)
        self._index.run_ended(name, view.uid)

    def watch(self) -> AsyncIterator[Key]:
        return self._index.run_keys()

    # --- what Kubernetes forgets --------------------------------------------------------------------

    async def _settled(self, run: Run) -> Run:
        """With everything that its pods tell in its history; written when that is news."""
        view, history = run.view, run.view.history
        if view.kind == "finite":
            history = replace(history, restarts=history.restarts + len(run.departed))
        else:
            for pod in run.departed:
                history = advanced(history, pod, gone=True)
            for pod in run.pods:
                history = advanced(history, pod)
        if history == view.history or view.deleting:
            return run
        try:
            written = await self._client.patch(_resource(view.kind), view.namespace, view.name, _patch(view.uid, history))
        except (NotFound, AnotherUid):
            return run  # it has gone, and its event is under way
        self._index.run_settled(written, [pod.uid for pod in run.departed])
        return replace(run, view=replace(view, history=history), departed=())

    async def _remove_lost(self, keys: tuple[Key, ...], pods: Sequence[PodView]) -> None:
        late = self._clock.now() - timedelta(seconds=_LOST_SECONDS)
        lost = [pod for pod in pods if pod.alive and pod.ends_by is not None and pod.ends_by < late]
        if lost and self._released is not None and await self._released(keys):
            for pod in lost:
                with suppress(NotFound, AnotherUid):
                    await self._client.delete(POD, pod.namespace, pod.name, uid=pod.uid, grace_seconds=0)

    # --- starting and ending ------------------------------------------------------------------------

    async def _adopt(self, workload: Workload, resource: ApiResource, namespace: str, name: str) -> None:
        """What exists under that name though the index did not know it: ours, or in the way."""
        found = await self._client.get(resource, namespace, name)
        if found is None:
            raise RetryLater(f"{workload.name}: its {resource.kind} has just ended", after_seconds=_AGAIN_SECONDS)
        if (found["metadata"].get("annotations") or {}).get(WORKLOAD) != workload.name:
            raise InvalidInput(f"{resource.kind} {namespace}/{name} exists and is not {workload.name}'s: delete it")
        self._index.note("MODIFIED", found)
        run = self._index.run(workload.name)
        if run is None or run.view.deleting or self._is_former(run):
            raise RetryLater(f"{workload.name}: its predecessor is still ending", after_seconds=_AGAIN_SECONDS)

    def _is_former(self, run: Run) -> bool:
        """It served an object that has been made again under its name since."""
        if not run.view.owners:
            return False
        present = {summary.uid for key in run.view.keys if (summary := self._index.summary(key)) is not None}
        return bool(present) and present.isdisjoint(run.view.owners)

    def _lacks_image(self, run: Run) -> bool:
        """It has never run for want of an image that we use no more: it is made anew with the present one."""
        images = self._settings.images
        never_ran = bool(run.pods) and all(pod.has_no_image for pod in run.pods) and not run.view.history.restarts
        return never_ran and run.view.image not in (images.train, images.trader)

    async def _gone(self, view: WorkloadView, seconds: float) -> None:
        """Wait until the API server has neither it nor a pod of it that may run."""
        pause, loop = 0.05, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            found = await self._client.get(_resource(view.kind), view.namespace, view.name)
            there = found is not None and found["metadata"]["uid"] == view.uid
            left: Sequence[PodView] = () if there else await self._left(view)
            if not there and not left:
                return
            if loop.time() >= deadline:
                left = left or await self._left(view)
                await self._remove_lost(view.keys, left)
                what = f"pod {left[0].name} on node {left[0].node or '(none)'}" if left else _resource(view.kind).kind
                raise RetryLater(f"{view.workload}: its {what} does not end", after_seconds=_AGAIN_SECONDS)
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    async def _left(self, view: WorkloadView) -> Sequence[PodView]:
        documents = await self._client.all(POD, namespace=view.namespace, labels=f"{WORKLOAD}={view.label}")
        pods = [pod_view(document) for document in documents]
        return [pod for pod in pods if pod.owner_uid == view.uid and pod.alive]


def _resource(kind: str) -> ApiResource:
    return JOB if kind == "finite" else STATEFULSET


def _patch(uid: str, history: History) -> Document:
    body: Document = {"metadata": {"uid": uid, "annotations": {HISTORY: history.write()}}}
    return body | {"spec": {"replicas": 0}} if history.over else body
