"""The loop: for a key that is due, observe, decide, apply the actions, write the status once if it changed, emit the events.

What an error means for the key:
RetryLater, Conflict    nothing is wrong, or the world moved: again after a back-off
UserError               a person must act: Stalled in the status, a Warning event, again after a back-off
anything else           we are wrong: logged with its trace, again after a back-off; the loop and the other keys go on

A pass over an object that is there is a span of its Study's trace (trace.py); one that changed nothing is not exported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

from cappuccino.api.meta import Condition
from cappuccino.controllers.conditions import settle, stalled
from cappuccino.controllers.decision import Decision, Document, Event, Key
from cappuccino.core import failpoints
from cappuccino.core.clock import Clock
from cappuccino.core.errors import Conflict, RetryLater, UserError
from cappuccino.reconcile.apply import apply_all
from cappuccino.reconcile.ports import Ports
from cappuccino.reconcile.queue import Backoff, KeyedQueue
from cappuccino.reconcile.trace import traceparent_of
from cappuccino.reconcile.wake import concerned, referrers
from cappuccino.telemetry import traces
from cappuccino.telemetry.logs import get_logger

Result = Literal["ok", "retry", "conflict", "stalled", "error"]
_log = get_logger(__name__)


class Controller(Protocol):
    """One kind's pass: `observe` reads through the ports, `decide` is pure."""

    async def observe(self, key: Key, document: Document | None) -> Any:
        """What there is to decide on; `document` is the object, None when it is gone."""
        ...

    def decide(self, observed: Any, *, now: datetime, market_now: datetime | None) -> Decision: ...


class Observer(Protocol):
    """Who counts what the loop does (telemetry/operations.py)."""

    def passed(self, kind: str, result: Result, seconds: float) -> None:
        """A pass ended."""
        ...

    def told(self, kind: str, seconds: float) -> None:
        """A status was written, so long after its pass became due."""
        ...


class Unobserved:
    def passed(self, kind: str, result: Result, seconds: float) -> None: ...

    def told(self, kind: str, seconds: float) -> None: ...


class Loop:
    """`controllers` by kind. `market_now` tells the venue's time, None while there is no venue."""

    def __init__(
        self,
        ports: Ports,
        controllers: Mapping[str, Controller],
        *,
        clock: Clock,
        market_now: Callable[[], datetime | None] = lambda: None,
        workers: int = 4,
        resync_seconds: float = 30.0,
        backoff: Backoff | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._ports = ports
        self._controllers = controllers
        self._clock = clock
        self._market_now = market_now
        self._workers = workers
        self._resync_seconds = resync_seconds
        self._observer: Observer = observer or Unobserved()
        self._queue: KeyedQueue[Key] = KeyedQueue(backoff=backoff)

    @property
    def queue(self) -> KeyedQueue[Key]:
        return self._queue

    def wake(self, key: Key) -> None:
        if key.kind in self._controllers:
            self._queue.add(key)

    async def run(self, stop: asyncio.Event, *, grace_seconds: float = 30.0) -> None:
        """Until `stop` is set; passes that are under way then are finished, for at most `grace_seconds`. Cancelled, it breaks
        them off."""
        sources = [
            asyncio.create_task(self._feed(source), name=source.__name__)
            for source in (self._objects, self._workloads, self._record, self._resync)
        ]
        workers = [asyncio.create_task(self._work(), name=f"worker-{n}") for n in range(self._workers)]
        try:
            await stop.wait()
            for task in sources:
                task.cancel()
            self._queue.close()
            await asyncio.wait(workers, timeout=grace_seconds)
        finally:
            for task in (*sources, *workers):
                task.cancel()
            await asyncio.gather(*sources, *workers, return_exceptions=True)

    async def reconcile(self, key: Key) -> float | None:
        """One pass; the seconds after which the key wants another. Raises whatever went wrong."""
        document = await self._ports.objects.get(key)  # the one whose status is written: no younger object of this name
        if document is None or not traces.enabled():
            return await self._pass(key, document, traces.NOTHING)
        traceparent = await traceparent_of(document, self._ports.objects)
        where = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
        with traces.span("reconcile", traceparent=traceparent, **where) as span:
            return await self._pass(key, document, span)

    async def _pass(self, key: Key, document: Document | None, span: traces.Span) -> float | None:
        controller = self._controllers[key.kind]
        observed = await controller.observe(key, document)
        decision = controller.decide(observed, now=self._clock.now(), market_now=self._market_now())
        await apply_all(decision.actions, self._ports)
        for other in decision.wakes:
            self.wake(other)
        told = document is not None and await self._tell(key, document, decision.status, decision.events)
        if decision.actions or told:
            span.set(actions=",".join(type(action).__name__ for action in decision.actions), status_written=told)
        else:
            span.drop()
        return decision.requeue_after

    async def _tell(self, key: Key, document: Document, status: Document | None, events: tuple[Event, ...]) -> bool:
        """Whether there was anything to tell."""
        uid = document["metadata"]["uid"]
        changed = status is not None and status != document.get("status")
        if status is not None and changed:
            failpoints.reach("reconcile-write")
            await self._ports.objects.patch_status(key, status, uid=uid)
            self._observer.told(key.kind, self._queue.wanted_seconds(key))
        for event in events:
            await self._ports.events.emit(key, uid, event, at=self._clock.now())
        return changed or bool(events)

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                await self._attempt(key)
            finally:
                self._queue.done(key)

    async def _attempt(self, key: Key) -> None:
        began = time.monotonic()
        result: Result = "ok"
        try:
            requeue_after = await self.reconcile(key)
        except RetryLater as error:
            result = "retry"
            pause = self._queue.failed(key, at_least_seconds=error.after_seconds)
            _log.info("waits", key=str(key), seconds=round(pause, 1), reason=str(error))
        except Conflict as error:
            result = "conflict"
            pause = self._queue.failed(key)
            _log.info("changed_meanwhile", key=str(key), seconds=round(pause, 1), reason=str(error))
        except UserError as error:
            result = "stalled"
            self._queue.failed(key)
            await self._stall(key, error)
        except Exception:  # noqa: BLE001 - the loop outlives every defect of one key
            result = "error"
            pause = self._queue.failed(key)
            _log.exception("pass_failed", key=str(key), seconds=round(pause, 1))
        else:
            self._queue.succeeded(key)
            if requeue_after is not None:
                self._queue.add_after(key, requeue_after)
        self._observer.passed(key.kind, result, time.monotonic() - began)

    async def _stall(self, key: Key, error: UserError) -> None:
        _log.warning("stalled", key=str(key), reason=str(error))
        try:
            document = await self._ports.objects.get(key)
            if document is None:
                return
            status = document.get("status") or {}
            generation = document["metadata"]["generation"]
            reason = type(error).__name__
            conditions = settle(
                [Condition.model_validate(condition) for condition in status.get("conditions", ())],
                stalled(reason, str(error)),
                generation=generation,
                now=self._clock.now(),
            )
            told = {
                **status,
                "observedGeneration": generation,
                "conditions": [condition.to_json() for condition in conditions],
            }
            events = () if told == status else (Event(type="Warning", reason=reason, message=str(error)),)
            await self._tell(key, document, told, events)
        except (RetryLater, UserError) as second:
            _log.warning("not_marked_as_stalled", key=str(key), reason=str(second))

    # --- what wakes the queue -----------------------------------------------------------------------

    async def _feed(self, source: Callable[[], AsyncIterator[Key]]) -> None:
        """Add what `source` yields; a source that fails is opened again."""
        while True:
            try:
                async for key in source():
                    self.wake(key)
            except RetryLater as error:
                await asyncio.sleep(error.after_seconds)
            except Exception:  # noqa: BLE001 - as in _attempt: wake-ups must not end
                _log.exception("wake_ups_failed", source=source.__name__)
                await asyncio.sleep(1.0)

    async def _objects(self) -> AsyncIterator[Key]:
        async for key in self._ports.objects.watch():
            yield key
            for referrer in await referrers(self._ports.objects, key):
                yield referrer

    async def _workloads(self) -> AsyncIterator[Key]:
        async for key in self._ports.workloads.watch():
            yield key

    async def _record(self) -> AsyncIterator[Key]:
        async for table, row_key in self._ports.record.watch():
            for key in await concerned(self._ports.objects, table, row_key):
                yield key

    async def _resync(self) -> AsyncIterator[Key]:
        """Everything there is: at once at the start, then again and again, spread over the period so that what just changed
        does not wait behind it."""
        first = True
        while True:
            keys = await self._everything()
            for key in keys:
                yield key
                if not first:
                    await asyncio.sleep(self._resync_seconds / len(keys))
            if first or not keys:
                await asyncio.sleep(self._resync_seconds)
            first = False

    async def _everything(self) -> list[Key]:
        indices = [await self._ports.objects.index(kind) for kind in self._controllers]
        served = await self._ports.workloads.list()  # their objects may have gone while nobody looked
        keys = [summary.key for index in indices for summary in index]
        return list(dict.fromkeys([*keys, *(key for workload in served for key in workload.keys)]))
