"""Traders that share a pod on a real API server, by the loop and the controller; the record and the kubelet are of paper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from cappuccino.adapters.kubernetes.client import JOB, STATEFULSET
from cappuccino.adapters.kubernetes.events import KubernetesEvents
from cappuccino.controllers import pod, trader
from cappuccino.controllers.decision import Document, Key
from cappuccino.controllers.rows import AccountRow
from cappuccino.core.clock import SystemClock
from cappuccino.reconcile.loop import Loop
from cappuccino.reconcile.observers import TraderController
from cappuccino.reconcile.pods import Pods
from cappuccino.reconcile.ports import Ports

from .test_kubernetes_workloads import Ground, eventually
from .test_kubernetes_workloads import ground as ground  # a fixture

pytestmark = pytest.mark.xdist_group("cluster")


@dataclass
class Accounts:
    """A record in which every account is held, and `ended` are those that a process says it trades no more."""

    ended: dict[str, str] = field(default_factory=dict)

    async def account(self, name: str) -> AccountRow:
        said = self.ended.get(name)
        return AccountRow(
            name=name,
            venue="simulated",
            holder="h",
            token=1,
            expires_at=datetime(2026, 1, 1, tzinfo=UTC),
            held=said is None,
            halted_reason=None,
            baseline_usd=None,
            ended=said,
        )

    async def activity(self, names: Sequence[str]) -> Mapping[str, Any]:
        return {}

    async def watch(self) -> AsyncIterator[tuple[str, str]]:
        await asyncio.Event().wait()
        yield "", ""


def manifest(namespace: str, name: str) -> Document:
    spec = {"venue": {"kind": "simulated"}, "bundleDigest": "a" * 64, "account": f"of-{name}", "pod": "shared"}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Trader", "metadata": metadata, "spec": spec}


async def test_traders_of_one_pod_are_one_stateful_set_which_is_made_again_when_one_comes_or_goes(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pod, trader):
        monkeypatch.setattr(module, "SETTLED_SECONDS", 0.5)
    record: Any = Accounts()
    ports = Ports(objects=ground.objects, workloads=ground.workloads, record=record, events=KubernetesEvents(ground.client))
    loop = Loop(ports, {"Trader": TraderController(ports=ports, pods=Pods(ground.objects))}, clock=SystemClock())
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop))

    async def reasons(name: str) -> dict[str, str]:
        document = await ground.objects.get(Key("Trader", ground.namespace, name)) or {}
        return {c["type"]: c["reason"] for c in document.get("status", {}).get("conditions", ())}

    async def trade(*names: str) -> Document:
        """Once the one StatefulSet there is serves these; its pod runs then."""
        found: list[Document] = []

        async def served() -> bool:
            found[:] = await ground.client.all(STATEFULSET, namespace=ground.namespace)
            owners = [[owner["name"] for owner in each["metadata"]["ownerReferences"]] for each in found]
            return owners == [list(names)] and "deletionTimestamp" not in found[0]["metadata"]

        await eventually(served)
        await ground.kubelet.run(await ground.kubelet.pod(lambda p: p["metadata"]["name"].startswith("shared-") and alive(p)))

        async def told() -> bool:
            return all([(await reasons(name)).get("Ready") == "Trading" for name in names])

        await eventually(told)
        return found[0]

    async def leave() -> None:
        """The kubelet ends what is told to end."""
        gone = await ground.kubelet.pod(lambda p: "deletionTimestamp" in p["metadata"])
        await ground.kubelet.remove(gone)

    try:
        for name in ("a", "b"):
            await ground.objects.apply(manifest(ground.namespace, name))
        first = await trade("a", "b")
        template = first["spec"]["template"]
        assert template["spec"]["containers"][0]["args"] == ["trade", "--portfolios"]
        assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "trade"
        assert first["metadata"]["labels"]["cappuccino.dev/pod"] == "shared"

        record.ended["of-b"] = "the venue refuses the key"
        loop.wake(Key("Trader", ground.namespace, "b"))

        async def refused() -> bool:
            return (await reasons("b")).get("Stalled") == "Refused"

        await eventually(refused)
        assert (await reasons("a"))["Ready"] == "Trading"
        del record.ended["of-b"]

        await ground.objects.apply(manifest(ground.namespace, "c"))
        await leave()
        second = await trade("a", "b", "c")
        assert second["metadata"]["name"] == first["metadata"]["name"]

        await ground.objects.delete(Key("Trader", ground.namespace, "b"))
        await leave()
        await trade("a", "c")
        farewell = await ground.kubelet.pod(lambda p: p["metadata"]["name"].startswith("b-farewell"))
        (job,) = await ground.client.all(JOB, namespace=ground.namespace)
        assert job["spec"]["template"]["spec"]["containers"][0]["args"][-1] == "--flatten"
        await ground.kubelet.end(await ground.kubelet.run(farewell), 0, phase="Succeeded")

        async def gone() -> bool:
            return await ground.objects.get(Key("Trader", ground.namespace, "b")) is None

        await eventually(gone)
    finally:
        stop.set()
        await running


def alive(document: Document) -> bool:
    return "deletionTimestamp" not in document["metadata"]
