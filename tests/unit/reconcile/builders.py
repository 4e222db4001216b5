"""A small cluster in memory, and a controller that does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cappuccino.controllers.decision import Decision, Document, Event, Key
from cappuccino.core.clock import FixedClock
from cappuccino.core.errors import Conflict, InvalidInput, NotFound
from cappuccino.reconcile.loop import Loop
from cappuccino.reconcile.ports import Ports
from cappuccino.reconcile.queue import Backoff
from cappuccino.reconcile.wake import summary_of

NOW = datetime(2024, 1, 1, tzinfo=UTC)
KEY = Key("Study", "default", "s")


def stored(kind: str = "Study", name: str = "s", *, spec: dict[str, Any] | None = None, uid: str = "u") -> Document:
    metadata = {"name": name, "namespace": "default", "uid": uid, "generation": 3}
    return {"kind": kind, "metadata": metadata, "spec": spec or {}}


@dataclass
class Memory:
    """Objects, workloads, record and events at once: dictionaries and lists."""

    documents: dict[Key, Document] = field(default_factory=lambda: {KEY: stored()})
    log: list[tuple[Any, ...]] = field(default_factory=list)
    changes: asyncio.Queue[Key] = field(default_factory=asyncio.Queue)

    async def get(self, key: Key) -> Document | None:
        return self.documents.get(key)

    async def list(self, kind: str = "", **_: Any) -> list[Any]:
        return [document for key, document in self.documents.items() if key.kind == kind]

    async def index(self, kind: str, **_: Any) -> list[Any]:
        return [summary_of(document) for document in await self.list(kind)]

    async def create(self, document: Document) -> Document:
        self.log.append(("create", document["metadata"]["name"]))
        raise Conflict("exists already")

    async def apply(self, document: Document) -> Document:
        raise InvalidInput("field x is wrong: correct it")

    async def delete(self, key: Key, **_: Any) -> None:
        self.log.append(("delete", key.name))
        raise NotFound("gone")

    async def patch_status(self, key: Key, status: Document, *, uid: str) -> None:
        self.log.append(("status", status, uid))
        self.documents[key] = {**self.documents[key], "status": status}

    async def emit(self, key: Key, uid: str, event: Event, *, at: datetime) -> None:
        self.log.append(("event", event.reason))

    async def halt(self, **arguments: Any) -> None:
        self.log.append(("halt", arguments))

    async def watch(self) -> AsyncIterator[Any]:
        while True:
            yield await self.changes.get()

    def ports(self) -> Ports:
        silent: Any = Silent()
        memory: Any = self
        record: Any = RecordOnly(self)
        return Ports(objects=memory, workloads=silent, record=record, events=memory)


class Silent:
    async def list(self) -> list[Any]:
        return []

    async def watch(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None


class RecordOnly(Silent):
    def __init__(self, memory: Memory) -> None:
        self.halt = memory.halt


@dataclass
class Scripted:
    """A controller that decides what it is told to, pass after pass; the last answer stays."""

    answers: list[Decision | Exception]
    passes: list[Key] = field(default_factory=list)

    async def observe(self, key: Key, document: Document | None) -> Any:
        return key

    def decide(self, observed: Any, *, now: datetime, market_now: datetime | None) -> Decision:
        self.passes.append(observed)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def loop_of(memory: Memory, controller: Any, *, kinds: Sequence[str] = ("Study",), **options: Any) -> Loop:
    backoff = Backoff(base=0.005, ceiling=0.02)
    return Loop(memory.ports(), dict.fromkeys(kinds, controller), clock=FixedClock(NOW), backoff=backoff, **options)
