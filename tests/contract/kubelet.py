"""A node of paper: what a kubelet would write of pods, on an API server that has none. Controllers take it for the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cappuccino.adapters.kubernetes.client import POD, ApiResource, Client
from cappuccino.controllers.decision import Document
from cappuccino.core.clock import iso

NODE = ApiResource("", "v1", "nodes", "Node")
NAMESPACE = ApiResource("", "v1", "namespaces", "Namespace")


class Kubelet:
    """Of one namespace; pods of others are left alone."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def pods(self) -> list[Document]:
        return await self._client.all(POD, namespace=self._namespace)

    async def pod(self, wanted: Callable[[Document], bool] = lambda pod: pod["status"]["phase"] == "Pending") -> Document:
        """Waits for one."""
        async with asyncio.timeout(30):
            while not (found := [pod for pod in await self.pods() if wanted(pod)]):
                await asyncio.sleep(0.05)
        return found[0]

    async def run(self, pod: Document | None = None, **status: Any) -> Document:
        """Bind it to the node and start its container; returns the pod."""
        pod = pod or await self.pod()
        if not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": "paper"}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}
            path = POD.path(self._namespace, pod["metadata"]["name"], "binding")
            await self._client._call("create", POD, "POST", path, None, body)
        state = {"running": {"startedAt": iso(datetime.now(UTC))}}
        return await self.tell(pod, phase="Running", state=state, **status)

    async def end(
        self, pod: Document, code: int, *, words: str = "", seconds: float = 1, phase: str | None = None, **status: Any
    ) -> Document:
        """Its container has ended; `phase` when the pod has ended with it."""
        return await self.tell(pod, phase=phase or "Running", state={"terminated": ended(code, words, seconds)}, **status)

    async def tell(
        self,
        pod: Document,
        *,
        phase: str,
        state: Document,
        before: Document | None = None,
        restarts: int = 0,
        conditions: list[Document] | None = None,
    ) -> Document:
        container = {
            "name": "worker",
            "image": "x",
            "imageID": "",
            "ready": "running" in state,
            "restartCount": restarts,
            "state": state,
            "lastState": {"terminated": before} if before else {},
        }
        status = {"phase": phase, "containerStatuses": [container], "conditions": conditions or []}
        path = POD.path(self._namespace, pod["metadata"]["name"], "status")
        return await self._client._call(
            "patch", POD, "PATCH", path, None, {"status": status}, content="application/merge-patch+json"
        )

    async def remove(self, pod: Document) -> None:
        """Its containers have ended, the API server may forget it."""
        await self._client.delete(POD, self._namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"], grace_seconds=0)


def ended(code: int, words: str = "", seconds: float = 1, reason: str = "") -> Document:
    now = datetime.now(UTC)
    return {
        "exitCode": code,
        "reason": reason or ("Completed" if code == 0 else "Error"),
        "message": words,
        "startedAt": iso(now - timedelta(seconds=seconds)),
        "finishedAt": iso(now),
        "containerID": "paper://1",
    }


async def node(client: Client) -> None:
    """The node that pods are bound to, once per server."""
    if await client.get(NODE, "", "paper") is None:
        await client.create(NODE, {"metadata": {"name": "paper", "namespace": ""}, "spec": {"unschedulable": True}})


async def namespace(client: Client, name: str, **labels: str) -> str:
    await client.create(NAMESPACE, {"metadata": {"name": name, "namespace": "", "labels": labels}})
    return name
