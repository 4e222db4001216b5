"""A runner of the local cluster with one small controller: `cluster_runner.py URL FOLDER`."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cappuccino.adapters.local.cluster import LocalCluster
from cappuccino.adapters.local.store import WorkloadRow
from cappuccino.adapters.local.workloads import LocalWorkloads
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.events import PostgresEvents
from cappuccino.adapters.postgres.lock import RunnerLock
from cappuccino.adapters.postgres.objects import PostgresObjects
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.adapters.postgres.workloads import PostgresWorkloadStore
from cappuccino.controllers.decision import Decision, Document, Key, PatchMetadata, StartWorkload, StopWorkload, Workload
from cappuccino.core.clock import SystemClock
from cappuccino.reconcile.ports import Ports
from cappuccino.reconcile.queue import Backoff

WORKLOAD_PROGRAM = Path(__file__).parent / "workload_program.py"


@dataclass
class OneProcessEach:
    """A Trader wants one process; a deleted one is let go when its process is gone."""

    ports: Ports
    folder: Path

    async def observe(self, key: Key, document: Document | None) -> Any:
        return key, document, await self.ports.workloads.observe(key.name)

    def decide(self, observed: Any, *, now: datetime, market_now: datetime | None) -> Decision:
        key, document, running = observed
        if document is None:
            return Decision(actions=(StopWorkload(name=key.name),) if running else ())
        return self._alive(key, document, running)

    def _alive(self, key: Key, document: Document, running: Any) -> Decision:
        uid = document["metadata"]["uid"]
        if "deletionTimestamp" in document["metadata"]:
            stop = StopWorkload(name=key.name, grace_seconds=0.5)
            return Decision(actions=(stop, PatchMetadata(key=key, uid=uid, finalizers=())))
        workload = Workload(name=key.name, kind="continuous", arguments=("sleep", str(self.folder)), keys=(key,))
        status = {**document.get("status", {}), "restarts": running.restarts if running else 0}
        return Decision(actions=() if running else (StartWorkload(workload=workload),), status=status)


async def main(url: str, folder: Path, until: asyncio.Event) -> None:
    pool = await open_async_pool(url, "operator", max_size=8)
    clock = SystemClock()
    workloads = LocalWorkloads(
        PostgresWorkloadStore(pool, WorkloadRow),
        command=(sys.executable, str(WORKLOAD_PROGRAM)),
        environment=os.environ,
        log_directory=folder / "logs",
        clock=clock,
        backoff=Backoff(base=0.05, ceiling=0.2),
    )
    cluster = LocalCluster(
        objects=PostgresObjects(pool, clock=clock),
        record=PostgresRecord(pool),
        events=PostgresEvents(pool),
        workloads=workloads,
        controllers=lambda ports: {"Trader": OneProcessEach(ports, folder)},
        lock=RunnerLock(url),
        clock=clock,
        grace_seconds=1.0,
    )
    try:
        running = asyncio.create_task(cluster.run(until))
        await asyncio.sleep(0.2)
        if not running.done():
            (folder / "running").touch()
        await running
    finally:
        await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), asyncio.Event()))
