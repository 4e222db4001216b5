"""The operator: the loop over all controllers against an API server, in one replica of those that run.

    start: serves /healthz, /readyz and /metrics ──▶ index filled ──▶ database reached ──▶ Lease held ──▶ the loop runs
    stop:  passes that are under way finish ──▶ Lease released

What is away is waited for, and said: the cluster, the database, a schema that nobody has made yet, a Lease that another holds.
Only the holder of the Lease reconciles. One that cannot renew it breaks off at once, before another can begin, and waits for it
again; one that finds it in another's hands ends its process. Whoever feeds it (kopf in operator/main.py) calls `note` with each
event of a watch, in a standby too: it takes over with its index filled.

CAPPUCCINO_DATABASE_URL   the record, in the role operator
CAPPUCCINO_PODS           file with the settings of pods (adapters/kubernetes/settings.py)
CAPPUCCINO_NAMESPACES     those that it looks after, with commas between; none: all
CAPPUCCINO_LEASE          name of the Lease, which is in POD_NAMESPACE (default cappuccino-operator)
CAPPUCCINO_HEALTH         host:port of /healthz, /readyz and /metrics (default 0.0.0.0:8080)
POD_NAME                  tells the replicas apart (default: machine and process)
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psycopg

from cappuccino.adapters.kubernetes.client import Client
from cappuccino.adapters.kubernetes.events import KubernetesEvents
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.lease import LeaseLock
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.adapters.kubernetes.workloads import KubernetesWorkloads
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.core.clock import SystemClock
from cappuccino.core.errors import AWAY_EXIT_CODE, CappuccinoError, RetryLater
from cappuccino.entrypoints.operator_server import Report, serve
from cappuccino.entrypoints.settings import DATABASE_URL, HEALTH, health_address, required
from cappuccino.entrypoints.wiring import search
from cappuccino.reconcile.loop import Loop
from cappuccino.reconcile.observers import controllers
from cappuccino.reconcile.ports import Key, Ports, Record, Summary
from cappuccino.reconcile.queue import Backoff
from cappuccino.telemetry.logs import get_logger
from cappuccino.telemetry.operations import OperatorMetrics
from cappuccino.telemetry.traces import exported

WORKERS = 16  # a pass that stops a workload waits for its pod
POOL_SIZE = 10
RESYNC_SECONDS = 600.0
COMPARE_SECONDS = (30.0, 600.0)  # after the start, and then between two comparisons of the index with the cluster
GRACE_SECONDS = 15.0  # for the passes that are under way when it is told to end
RELEASE_SECONDS = 3.0

PODS, NAMESPACES, LEASE, POD_NAMESPACE, POD_NAME = (
    *("CAPPUCCINO_PODS", "CAPPUCCINO_NAMESPACES", "CAPPUCCINO_LEASE"),
    *("POD_NAMESPACE", "POD_NAME"),
)

_T = TypeVar("_T")
_log = get_logger("operator")


@dataclass(frozen=True, kw_only=True)
class OperatorSettings:
    """`namespaces` empty: all."""

    database_url: str
    pods: PodSettings
    namespaces: Sequence[str]
    lease_namespace: str
    lease: str
    identity: str
    health_host: str
    health_port: int

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> OperatorSettings:
        """Raises InvalidInput, which names what is missing or unreadable."""
        named = environment.get(NAMESPACES, "").split(",")
        namespaces = [name.strip() for name in named if name.strip()]
        host, port = health_address({HEALTH: "0.0.0.0:8080", **environment})
        return cls(
            database_url=required(DATABASE_URL, environment),
            pods=PodSettings.read(Path(required(PODS, environment))),
            namespaces=namespaces,
            lease_namespace=environment.get(POD_NAMESPACE) or (namespaces[0] if namespaces else "default"),
            lease=environment.get(LEASE) or "cappuccino-operator",
            identity=environment.get(POD_NAME) or f"{socket.gethostname()}-{os.getpid()}",
            health_host=host,
            health_port=port,
        )


class Summaries(Protocol):
    def summary(self, key: Key) -> Summary | None: ...


async def may_be_replaced(keys: tuple[Key, ...], *, index: Summaries, record: Record) -> bool:
    """Whether another process may run for these objects although the pod of the last one cannot be reached and may still run.

    A trader may not while it may hold an account, or take its first. Anything else writes its result once, whoever writes it.
    """
    traders = [key for key in keys if key.kind == "Trader"]
    summaries = [summary for key in traders if (summary := index.summary(key))]
    rows = {row.name: row for row in await record.accounts()} if summaries else {}
    accounts = [rows[name] for each in summaries if (name := each.refers["account"]) in rows]
    return not traders or (bool(accounts) and not any(account.held for account in accounts))


class Operator:
    """`lost` is what happens when another holds the Lease, or something of ours breaks: nothing of this process may go on."""

    def __init__(self, settings: OperatorSettings, *, lost: Callable[[], Any] = lambda: os._exit(AWAY_EXIT_CODE)) -> None:
        self._settings = settings
        self._lost = lost
        self._metrics = OperatorMetrics()
        self._closing = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._index: ClusterIndex | None = None
        self._loop: Loop | None = None
        self._leading = False
        self._awaited: set[str] = set()

    async def start(self) -> None:
        """Returns with the index filled; what is left goes on by itself.

        Raises:
            InvalidInput: there is no cluster to talk to, or the port of /healthz is taken.
        """
        try:
            await self._open()
        except BaseException:
            await self.stop()
            raise

    def note(self, event: str | None, body: Mapping[str, Any]) -> None:
        """One event of a watch, or (None) one item of a list."""
        if self._index is not None:
            self._index.note(event, body)

    async def stop(self) -> None:
        """Idempotent."""
        self._stopping.set()
        for task in self._tasks:
            if not (self._leading and task.get_name() == "lead"):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._closing.aclose()

    # --- its life -----------------------------------------------------------------------------------

    async def _open(self) -> None:
        settings, enter = self._settings, self._closing.enter_async_context
        self._closing.enter_context(exported("operator"))
        client = await enter(await Client.connect(on_call=self._metrics.called))
        index = ClusterIndex(client, namespaces=settings.namespaces)
        self._metrics.look_at(
            queue_depth=lambda: self._loop.queue.depth() if self._loop else 0,
            oldest_seconds=lambda: self._loop.queue.oldest_seconds() if self._loop else 0.0,
            leading=lambda: self._leading,
            objects=index.counts,
        )
        await enter(serve(settings.health_host, settings.health_port, metrics=self._metrics, report=self._report))
        await self._until("the cluster", index.fill)
        self._index = index
        self._tasks = [
            asyncio.create_task(self._guarded(self._compare(index)), name="compare"),
            asyncio.create_task(self._guarded(self._lead(client, index)), name="lead"),
        ]

    async def _guarded(self, work: Awaitable[None]) -> None:
        """What breaks in the background ends the process: half an operator is worse than none."""
        try:
            await work
        except Exception:  # noqa: BLE001 - a process loop
            _log.exception("ends", exit_code=AWAY_EXIT_CODE)
            self._lost()

    async def _compare(self, index: ClusterIndex) -> None:
        """A watch that was interrupted, or that began after the first list, does not tell what was deleted meanwhile."""
        pause, then = COMPARE_SECONDS
        while True:
            await asyncio.sleep(pause)
            await self._until("the cluster", index.fill)
            pause = then

    async def _lead(self, client: Client, index: ClusterIndex) -> None:
        settings = self._settings
        record = await self._until("the database", self._record)
        lock = LeaseLock(client, namespace=settings.lease_namespace, name=settings.lease, identity=settings.identity)
        lease = f"the Lease {settings.lease_namespace}/{settings.lease}"
        while not self._stopping.is_set():
            self._loop = self._assemble(client, index, record)  # which takes a second, so that taking over does not
            self._awaited.add(lease)
            await lock.acquire()
            self._awaited.discard(lease)
            try:
                await self._reconcile(self._loop, lock)
            except RetryLater as error:
                _log.warning("steps_down", reason=str(error))
        with suppress(TimeoutError):  # it runs out by itself
            async with asyncio.timeout(RELEASE_SECONDS):
                await lock.release()

    async def _reconcile(self, loop: Loop, lock: LeaseLock) -> None:
        """Until it is told to stop.

        Raises:
            Conflict, RetryLater: the Lease is another's, or could not be renewed; nothing goes on then.
        """
        self._leading = True
        _log.info("leads", identity=self._settings.identity)
        running = asyncio.create_task(loop.run(self._stopping, grace_seconds=GRACE_SECONDS), name="loop")
        keeping = asyncio.create_task(lock.keep(), name="lease")
        try:
            done, _ = await asyncio.wait({running, keeping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._leading = False
            for task in (running, keeping):
                task.cancel()
            await asyncio.gather(running, keeping, return_exceptions=True)

    def _assemble(self, client: Client, index: ClusterIndex, record: PostgresRecord) -> Loop:
        clock = SystemClock()
        released = partial(may_be_replaced, index=index, record=record)
        ports = Ports(
            objects=KubernetesObjects(client, index),
            workloads=KubernetesWorkloads(client, index, self._settings.pods, clock=clock, released=released),
            record=record,
            events=KubernetesEvents(client),
        )
        return Loop(
            ports,
            controllers(ports, search()),
            clock=clock,
            workers=WORKERS,
            resync_seconds=RESYNC_SECONDS,
            observer=self._metrics,
        )

    async def _record(self) -> PostgresRecord:
        """Raises CappuccinoError as long as the database cannot be used."""
        pool = await open_async_pool(self._settings.database_url, "operator", max_size=POOL_SIZE)
        record = PostgresRecord(pool)
        try:
            await record.account("")
        except BaseException as error:
            await pool.close()
            if isinstance(error, psycopg.Error):
                raise RetryLater(
                    f"database has no schema for us yet ({str(error).splitlines()[0]}): run the migration"
                ) from error
            raise
        self._closing.push_async_callback(pool.close)
        return record

    async def _until(self, what: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Again and again, with back-off; each time says what it waits for."""
        backoff, failures = Backoff(base=0.5, ceiling=10.0), 0
        while True:
            try:
                got = await attempt()
            except CappuccinoError as error:
                failures += 1
                pause = backoff.seconds(failures)
                self._awaited.add(what)
                _log.warning("waits", what=what, seconds=round(pause, 1), reason=str(error))
                await asyncio.sleep(pause)
            else:
                if failures:
                    self._awaited.discard(what)
                    _log.info("goes_on", what=what)
                return got

    def _report(self) -> Report:
        still = self._loop.queue.still_seconds() if self._loop else 0.0
        return Report(
            ready=self._index is not None,
            role="leader" if self._leading else "standby",
            waits_for=", ".join(sorted(self._awaited)),
            still_seconds=round(still, 1),
        )
