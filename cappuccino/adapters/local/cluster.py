"""The cluster of one machine: the loop over all controllers, the supervisor of workloads, and one runner at a time.

Stopping is in this order: passes that are under way finish, then workloads are preempted, then the lock is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from cappuccino.adapters.local.workloads import LocalWorkloads
from cappuccino.core.clock import Clock
from cappuccino.reconcile.loop import Controller, Loop
from cappuccino.reconcile.ports import Events, Objects, Ports, Record
from cappuccino.reconcile.queue import Backoff


class Exclusive(Protocol):
    """At most one runner per database."""

    async def acquire(self) -> None:
        """Raises Conflict when there is another."""
        ...

    async def keep(self) -> None:
        """Ends only by raising Conflict."""
        ...

    async def release(self) -> None: ...


class LocalCluster:
    """`controllers` by kind, made over `ports`. `market_now` is the venue's time, None while there is no venue."""

    def __init__(
        self,
        *,
        objects: Objects,
        record: Record,
        events: Events,
        workloads: LocalWorkloads,
        controllers: Callable[[Ports], Mapping[str, Controller]],
        lock: Exclusive,
        clock: Clock,
        market_now: Callable[[], datetime | None] = lambda: None,
        workers: int = 4,
        resync_seconds: float = 30.0,
        backoff: Backoff | None = None,
        grace_seconds: float = 10.0,
    ) -> None:
        self.ports = Ports(objects=objects, workloads=workloads, record=record, events=events)
        self._workloads = workloads
        self._lock = lock
        self._grace_seconds = grace_seconds
        self._loop = Loop(
            self.ports,
            controllers(self.ports),
            clock=clock,
            market_now=market_now,
            workers=workers,
            resync_seconds=resync_seconds,
            backoff=backoff,
        )

    async def run(self, until: asyncio.Event) -> None:
        """Until `until` is set.

        Raises:
            Conflict: another runner has this database, or took it after the database was away.
            RetryLater: the database is away at the start.
        """
        await self._lock.acquire()
        stop_loop, stop_workloads = asyncio.Event(), asyncio.Event()
        workloads = asyncio.create_task(self._workloads.run(stop_workloads, grace_seconds=self._grace_seconds))
        loop = asyncio.create_task(self._loop.run(stop_loop, grace_seconds=self._grace_seconds))
        lock = asyncio.create_task(self._lock.keep())
        stopped = asyncio.create_task(until.wait())
        try:
            await asyncio.wait({workloads, loop, lock, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            stop_loop.set()
            await asyncio.wait({loop})
            stop_workloads.set()
            await asyncio.wait({workloads})
            lock.cancel()
            await asyncio.wait({lock})
            await self._lock.release()
        for task in (workloads, loop, lock):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
