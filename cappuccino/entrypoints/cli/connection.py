"""From a command to the local cluster: its database is named by CAPPUCCINO_DATABASE_URL, or by the runner's own file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cappuccino.entrypoints import presence
from cappuccino.entrypoints.settings import DATABASE_URL, state_folder

if TYPE_CHECKING:
    from cappuccino.adapters.postgres.events import PostgresEvents
    from cappuccino.reconcile.ports import Objects, Record


@dataclass(frozen=True, kw_only=True)
class Cluster:
    objects: Objects
    record: Record
    events: PostgresEvents
    state: Path


@asynccontextmanager
async def connected(state: Path | None) -> AsyncIterator[Cluster]:
    """The cluster of `state` (None: the default folder).

    Raises:
        NotFound: no runner; says how to start one.
        RetryLater: its database does not answer.
    """
    from cappuccino.adapters.postgres.engine import open_async_pool
    from cappuccino.adapters.postgres.events import PostgresEvents
    from cappuccino.adapters.postgres.objects import PostgresObjects
    from cappuccino.adapters.postgres.record import PostgresRecord
    from cappuccino.core.clock import SystemClock

    folder = state_folder(state)
    url = os.environ.get(DATABASE_URL) or presence.find(folder).database_url
    pool = await open_async_pool(url, "operator", max_size=2)
    try:
        yield Cluster(
            objects=PostgresObjects(pool, clock=SystemClock()),
            record=PostgresRecord(pool),
            events=PostgresEvents(pool),
            state=folder,
        )
    finally:
        await pool.close()


T = TypeVar("T")


def ask(state: Path | None, question: Callable[[Cluster], Awaitable[T]]) -> T:
    """Run `question` with the cluster and give its answer."""

    async def run() -> T:
        async with connected(state) as cluster:
            return await question(cluster)

    return asyncio.run(run())
