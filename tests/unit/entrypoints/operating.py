"""The controllers at work in a thread, for tests of the command line: it asks, they act. Workloads are as the test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.events import PostgresEvents
from cappuccino.adapters.postgres.objects import PostgresObjects
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.controllers.decision import Document, Key, Workload, WorkloadStatus
from cappuccino.core.clock import SystemClock
from cappuccino.core.errors import Conflict
from cappuccino.reconcile.loop import Loop
from cappuccino.reconcile.observers import DeploymentController, TraderController
from cappuccino.reconcile.pods import Pods
from cappuccino.reconcile.ports import Ports

_PAUSE_SECONDS = 0.05


@dataclass
class Workloads:
    """Every trader runs."""

    async def start(self, workload: Workload) -> None: ...

    async def observe(self, name: str) -> WorkloadStatus | None:
        if ".trader." not in name or name.endswith(".farewell"):
            return None
        return WorkloadStatus(name=name, state="Running", keys=(), started_at=datetime(2026, 1, 1, tzinfo=UTC))

    async def list(self) -> list[WorkloadStatus]:
        return []

    async def serving(self, key: Key) -> Sequence[WorkloadStatus]:
        return ()

    async def stop(self, name: str, *, grace_seconds: float = 10.0) -> None: ...

    async def watch(self) -> AsyncIterator[Key]:
        return
        yield


@asynccontextmanager
async def local_ports(database_url: str) -> AsyncIterator[Ports]:
    pool = await open_async_pool(database_url, "operator", max_size=2)
    try:
        yield Ports(
            objects=PostgresObjects(pool, clock=SystemClock()),
            workloads=Workloads(),
            record=PostgresRecord(pool),
            events=PostgresEvents(pool),
        )
    finally:
        await pool.close()


@contextmanager
def operating(ports: Callable[[], AbstractAsyncContextManager[Ports]]) -> Iterator[None]:
    """Reconcile Deployments and Traders over `ports()` again and again; what a pass raises fails the test at the end."""
    stop = threading.Event()

    async def passes() -> None:
        async with ports() as found:
            traders = TraderController(ports=found, pods=Pods(found.objects))
            controllers = {"Deployment": DeploymentController(ports=found), "Trader": traders}
            loop = Loop(found, controllers, clock=SystemClock())
            while not stop.is_set():
                for kind in controllers:
                    for document in await found.objects.list(kind):
                        await _once(loop.reconcile, document)
                await asyncio.sleep(_PAUSE_SECONDS)

    with ThreadPoolExecutor(max_workers=1) as thread:
        running = thread.submit(lambda: asyncio.run(passes()))
        try:
            yield
        finally:
            stop.set()
        running.result()


async def _once(reconcile: Callable[[Key], Awaitable[float | None]], document: Document) -> None:
    metadata = document["metadata"]
    with suppress(Conflict):  # it changed meanwhile; the next pass sees it
        await reconcile(Key(document["kind"], metadata["namespace"], metadata["name"]))
