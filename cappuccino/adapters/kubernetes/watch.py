"""A plain watch that feeds the index where kopf does not: tests and short programs."""

from __future__ import annotations

import asyncio

from cappuccino.adapters.kubernetes.answers import Expired
from cappuccino.adapters.kubernetes.client import ApiResource, Client
from cappuccino.adapters.kubernetes.index import OBJECTS, RUNS, ClusterIndex
from cappuccino.adapters.kubernetes.naming import SELECTOR
from cappuccino.core.errors import RetryLater
from cappuccino.telemetry.logs import get_logger

_log = get_logger(__name__)


class Watcher:
    def __init__(self, client: Client, index: ClusterIndex) -> None:
        self._client = client
        self._index = index

    async def run(self) -> None:
        """Until it is cancelled. A watch that ends or breaks goes on where it was; one that is too far behind lists again."""
        async with asyncio.TaskGroup() as tasks:
            for resource in (*OBJECTS, *RUNS):
                for namespace in self._index.namespaces:
                    tasks.create_task(self._follow(resource, namespace))

    async def _follow(self, resource: ApiResource, namespace: str | None) -> None:
        labels, version = "" if resource in OBJECTS else SELECTOR, ""
        while True:
            try:
                version = version or await self._index.relist(resource, namespace)
                async for event, body in self._client.watch(resource, namespace=namespace, labels=labels, version=version):
                    version = body["metadata"]["resourceVersion"]
                    if event != "BOOKMARK":
                        self._index.note(event, body)
            except Expired:
                version = ""
            except RetryLater as error:
                _log.info("watch_interrupted", resource=str(resource), reason=str(error))
                await asyncio.sleep(min(1.0, error.after_seconds))
