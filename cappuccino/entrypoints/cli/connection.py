"""From a command to its cluster, local or on Kubernetes: the same ports, and what differs between the two."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cappuccino.entrypoints import asking, presence
from cappuccino.entrypoints.cli.target import Target
from cappuccino.entrypoints.settings import DATABASE_URL, state_folder

if TYPE_CHECKING:
    from cappuccino.adapters.postgres.events import PostgresEvents
    from cappuccino.controllers.decision import Key
    from cappuccino.reconcile.ports import Objects, Record


class Cluster(asking.Cluster, Protocol):
    """`record` is None where only the cluster's own processes reach it."""

    @property
    def namespace(self) -> str: ...

    @property
    def record(self) -> Record | None: ...


@dataclass(frozen=True, kw_only=True)
class Local:
    namespace: str
    objects: Objects
    record: Record
    happened: PostgresEvents
    state: Path

    async def events(self, key: Key) -> Sequence[Mapping[str, Any]]:
        return await self.happened.of(key)

    async def user(self) -> str:
        return getpass.getuser()


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Cluster]:
    """The cluster of `target`.

    Raises:
        NotFound: no runner; says how to start one.
        InvalidInput: no such kubeconfig or context.
        RetryLater: its database or its API server does not answer.
    """
    if target.remote:
        from cappuccino.entrypoints.cli.remote import connected as remotely

        async with remotely(target) as remote:
            yield remote
    else:
        async with _locally(target) as local:
            yield local


@asynccontextmanager
async def _locally(target: Target) -> AsyncIterator[Local]:
    from cappuccino.adapters.postgres.engine import open_async_pool
    from cappuccino.adapters.postgres.events import PostgresEvents
    from cappuccino.adapters.postgres.objects import PostgresObjects
    from cappuccino.adapters.postgres.record import PostgresRecord
    from cappuccino.core.clock import SystemClock

    folder = state_folder(target.state)
    url = os.environ.get(DATABASE_URL) or presence.find(folder).database_url
    pool = await open_async_pool(url, "operator", max_size=2)
    try:
        yield Local(
            namespace=target.namespace or "default",
            objects=PostgresObjects(pool, clock=SystemClock()),
            record=PostgresRecord(pool),
            happened=PostgresEvents(pool),
            state=folder,
        )
    finally:
        await pool.close()


T = TypeVar("T")


def ask(target: Target, question: Callable[[Cluster], Awaitable[T]]) -> T:
    """Run `question` with the cluster and give its answer."""

    async def run() -> T:
        async with connected(target) as cluster:
            return await question(cluster)

    return asyncio.run(run())
