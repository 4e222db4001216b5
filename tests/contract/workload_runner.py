"""A runner to kill: supervises workloads on a database. `workload_runner.py URL FOLDER WORKLOAD...` (workloads as JSON)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from cappuccino.adapters.local.store import WorkloadRow
from cappuccino.adapters.local.workloads import LocalWorkloads
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.workloads import PostgresWorkloadStore
from cappuccino.controllers.decision import Workload
from cappuccino.core.clock import SystemClock
from cappuccino.reconcile.queue import Backoff

PROGRAM = Path(__file__).parent / "workload_program.py"


def local_workloads(pool: object, folder: Path, **options: object) -> LocalWorkloads:
    import os

    return LocalWorkloads(
        PostgresWorkloadStore(pool, WorkloadRow),
        command=(sys.executable, str(PROGRAM)),
        environment=os.environ,
        log_directory=folder / "logs",
        clock=SystemClock(),
        backoff=Backoff(base=0.05, ceiling=0.2),
        **options,
    )


async def main(url: str, folder: Path, workloads: list[Workload]) -> None:
    pool = await open_async_pool(url, "operator")
    supervisor = local_workloads(pool, folder)
    for workload in workloads:
        await supervisor.start(workload)
    await supervisor.run(asyncio.Event())


if __name__ == "__main__":
    given = [json.loads(text) for text in sys.argv[3:]]
    asyncio.run(
        main(
            sys.argv[1],
            Path(sys.argv[2]),
            [Workload(name=w["name"], kind=w["kind"], arguments=tuple(w["arguments"]), keys=()) for w in given],
        )
    )
