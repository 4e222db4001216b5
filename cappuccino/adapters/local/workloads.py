"""The `Workloads` port as supervised processes of this machine.

    Pending ──▶ Running ──▶ Succeeded            exit code 0
       ▲           ├──────▶ Failed               exit code 2, 3 or 70; finite: retries used up, or too long
       └───────────┘ back-off                    crash; 143 and 75 never count

Invariants: the store knows a process before it begins to work (core/lifeline.py), so that a runner that was killed leaves none
that its successor does not know, kill and wait for before it starts that workload again. A process ends with its runner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cappuccino.adapters.local.process import Child, LogFile, end_leftover
from cappuccino.adapters.local.store import WorkloadRow, WorkloadStore
from cappuccino.controllers.decision import Key, Workload, WorkloadStatus
from cappuccino.core.clock import Clock
from cappuccino.core.errors import AWAY_EXIT_CODE, FINAL_EXIT_CODES, PREEMPTED_EXIT_CODE, RetryLater
from cappuccino.reconcile.queue import Backoff

_log = logging.getLogger(__name__)
T = TypeVar("T")

TIMED_OUT_CODE = 124
_AWAY_SECONDS = 2.0  # a dependency that is away is asked no more often than this
_GRACE_SECONDS = 10.0


class LocalWorkloads:
    """`command` comes before a workload's arguments; `environment` is the whole of a child's, but for the workload's own, and
    for `secrets` (a variable's name and the folder of all Secrets), which tells a child the folder of its own Secrets alone.

    A run of `settled_seconds` ends a row of failures. `run` must be running for anything to start.
    """

    def __init__(
        self,
        store: WorkloadStore,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_directory: Path,
        clock: Clock,
        secrets: tuple[str, Path] | None = None,
        backoff: Backoff | None = None,
        settled_seconds: float = 60.0,
        log_bound_bytes: int = 8 * 2**20,
    ) -> None:
        self._store = store
        self._command = tuple(command)
        self._environment = dict(environment)
        self._log_directory = log_directory
        self._clock = clock
        self._secrets = secrets
        self._backoff = backoff or Backoff(base=0.5, ceiling=60.0)
        self._settled_seconds = settled_seconds
        self._log_bound_bytes = log_bound_bytes
        self._children: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watchers: list[asyncio.Queue[Key]] = []
        self._supervising = False

    # --- the port -----------------------------------------------------------------------------------

    async def start(self, workload: Workload) -> None:
        await self._store.insert(workload)
        if self._supervising:
            self._supervise(workload.name)

    async def observe(self, name: str) -> WorkloadStatus | None:
        row = await self._store.row(name)
        return row.status() if row else None

    async def list(self) -> list[WorkloadStatus]:
        return [row.status() for row in await self._store.rows()]

    async def serving(self, key: Key) -> Sequence[WorkloadStatus]:
        return [row.status() for row in await self._store.rows() if key in row.workload.keys]

    async def stop(self, name: str, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        row = await self._store.row(name)
        if row is None:
            return
        await self._store.update(name, state="Stopped")
        await self._end(name, grace_seconds=grace_seconds)
        if row.pid is not None and row.process is not None:
            await end_leftover(row.pid, row.process)
        await self._store.delete(name)
        self._tell(row.workload)

    async def watch(self) -> AsyncIterator[Key]:
        queue: asyncio.Queue[Key] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            for row in await self._store.rows():
                for key in row.workload.keys:
                    yield key
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    def log_path(self, name: str) -> Path:
        return self._log_directory / f"{name}.log"

    # --- supervision --------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Take up what an earlier runner left, then supervise until `stop`; what runs then is preempted."""
        for row in await self._store.rows():
            if row.pid is not None and row.process is not None:
                await end_leftover(row.pid, row.process)
            if row.state == "Stopped":
                await self._store.delete(row.workload.name)
            elif row.state == "Running":
                message = "started again: its runner ended"
                await self._store.update(
                    row.workload.name, state="Pending", pid=None, process=None, restarts=row.restarts + 1, message=message
                )
        self._supervising = True
        try:
            for row in await self._store.rows():
                self._supervise(row.workload.name)
            await stop.wait()
        finally:
            self._supervising = False
            await asyncio.gather(*(self._end(name, grace_seconds=grace_seconds) for name in list(self._tasks)))

    def _supervise(self, name: str) -> None:
        if name not in self._tasks:
            task = asyncio.create_task(self._attempts(name), name=f"workload-{name}")
            self._tasks[name] = task
            task.add_done_callback(lambda done: self._finished(name, done))

    def _finished(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("supervision of %s failed", name, exc_info=error)

    def _secrets_of(self, workload: Workload) -> dict[str, str]:
        """As a pod mounts them: a folder with the workload's Secrets in it and no others."""
        if self._secrets is None or not workload.pod.secrets:
            return {}
        variable, folder = self._secrets
        mount = self._log_directory.parent / "secrets-of" / workload.name
        mount.mkdir(parents=True, exist_ok=True)
        for old in mount.iterdir():
            old.unlink()
        for secret in workload.pod.secrets:
            (mount / secret).symlink_to(folder.resolve() / secret)
        return {variable: str(mount)}

    async def _attempts(self, name: str) -> None:
        """Attempt after attempt until the row says that it is over, or the runner stops."""
        while self._supervising:
            row = await self._insist(lambda: self._store.row(name))
            if row is None or row.state not in ("Pending", "Running"):
                return
            if row.due_at is not None:
                await asyncio.sleep(max(0.0, (row.due_at - self._clock.now()).total_seconds()))
            try:
                outcome = await self._attempt(row)
            except RetryLater as error:
                pause = timedelta(seconds=self._backoff.seconds(row.failures + 1))
                outcome = {"state": "Pending", "message": str(error), "due_at": self._clock.now() + pause}
            await self._settle(name, row.workload, outcome)

    async def _attempt(self, row: WorkloadRow) -> dict[str, Any]:
        """Run it once; the columns that follow."""
        workload, began = row.workload, self._clock.now()
        log = LogFile(self.log_path(workload.name), bound_bytes=self._log_bound_bytes)
        log.rotate()
        child = await Child.spawn(
            (*self._command, *workload.arguments),
            environment={**self._environment, **self._secrets_of(workload), **workload.environment},
            log=log,
        )
        self._children[workload.name] = child
        waiting = asyncio.create_task(child.wait())
        try:
            await self._store.update(
                workload.name, state="Running", pid=child.pid, process=child.identity, started_at=began, finished_at=None
            )
            child.go()
            self._tell(workload)
            code = await self._watch(waiting, child, log, workload.timeout_seconds if workload.kind == "finite" else None)
        finally:
            child.kill()
            await waiting
            del self._children[workload.name]
        return self._outcome(row, code, began, log.last_line())

    async def _watch(self, waiting: asyncio.Task[int], child: Child, log: LogFile, timeout_seconds: float | None) -> int | None:
        """The exit code; None when it took too long, and has been told to end."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_seconds is None else loop.time() + timeout_seconds
        while True:
            remaining = 5.0 if deadline is None else min(5.0, deadline - loop.time())
            done, _ = await asyncio.wait({waiting}, timeout=max(0.0, remaining))
            if done:
                return waiting.result()
            log.rotate()
            if deadline is not None and loop.time() >= deadline:
                child.terminate()
                await asyncio.wait({waiting}, timeout=_GRACE_SECONDS)
                return None

    def _outcome(self, row: WorkloadRow, code: int | None, began: datetime, last_line: str) -> dict[str, Any]:
        workload, now = row.workload, self._clock.now()
        over: dict[str, Any] = {
            "pid": None, "process": None, "exit_code": code, "finished_at": now, "due_at": None, "message": last_line,
        }  # fmt: skip
        if code is None:
            message = f"it did not end within {workload.timeout_seconds:g} s"
            return {**over, "state": "Failed", "exit_code": TIMED_OUT_CODE, "message": message}
        if not self._supervising:  # the runner is stopping: this was no failure of the workload's
            if workload.kind == "finite" and (code == 0 or code in FINAL_EXIT_CODES):
                return {**over, "state": "Failed" if code else "Succeeded"}
            return {**over, "state": "Pending", "restarts": row.restarts + 1, "finished_at": None}
        if code == 0 or code in FINAL_EXIT_CODES:
            return {**over, "state": "Failed" if code else "Succeeded"}
        counted = code not in (PREEMPTED_EXIT_CODE, AWAY_EXIT_CODE)
        before = 0 if (now - began).total_seconds() >= self._settled_seconds else row.failures
        failures = before + 1 if counted else before
        if workload.kind == "finite" and failures > workload.retries:
            return {**over, "state": "Failed", "failures": failures}
        pause = self._backoff.seconds(max(1, failures))
        due_at = now + timedelta(seconds=max(pause, _AWAY_SECONDS) if code == AWAY_EXIT_CODE else pause)
        return {**over, "state": "Pending", "restarts": row.restarts + 1, "failures": failures, "due_at": due_at}

    async def _settle(self, name: str, workload: Workload, outcome: Mapping[str, Any]) -> None:
        """Written however long it takes, unless the workload is to be forgotten."""
        row = await self._insist(lambda: self._store.row(name))
        if row is not None and row.state != "Stopped":
            await self._insist(lambda: self._store.update(name, **outcome))
            self._tell(workload)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except RetryLater as error:
                await asyncio.sleep(error.after_seconds)

    async def _end(self, name: str, *, grace_seconds: float) -> None:
        """SIGTERM, SIGKILL after the grace; returns when nothing of it runs and nothing will start it."""
        task, child = self._tasks.get(name), self._children.get(name)
        if task is None:
            return
        if child is None:  # it waits for its turn
            task.cancel()
        else:
            child.terminate()
            done, _ = await asyncio.wait({task}, timeout=grace_seconds)
            if not done:
                child.kill()
        await asyncio.wait({task}, timeout=_GRACE_SECONDS)

    def _tell(self, workload: Workload) -> None:
        for queue in self._watchers:
            for key in workload.keys:
                queue.put_nowait(key)
