"""The loop, over a small cluster in memory: what a pass does, and what each kind of error means for a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from cappuccino.controllers.decision import (
    Action,
    ApplyObject,
    CreateObject,
    Decision,
    DeleteObject,
    Document,
    Event,
    Key,
    WriteRecord,
)
from cappuccino.core.clock import FixedClock
from cappuccino.core.errors import Conflict, InvalidInput, InvariantViolation, NotFound, RetryLater
from cappuccino.reconcile.apply import RECORD_OPERATIONS, apply
from cappuccino.reconcile.loop import Loop
from cappuccino.reconcile.ports import Ports, Record
from cappuccino.reconcile.queue import Backoff
from cappuccino.reconcile.wake import concerned, referrers, summary_of

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


def loop_of(memory: Memory, controller: Any, **options: Any) -> Loop:
    backoff = Backoff(base=0.005, ceiling=0.02)
    return Loop(memory.ports(), {"Study": controller}, clock=FixedClock(NOW), backoff=backoff, **options)


async def run_until(loop: Loop, test: Callable[[], bool]) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop))
    try:
        async with asyncio.timeout(10):
            while not test():
                await asyncio.sleep(0.005)
    finally:
        stop.set()
        await running


# --- one pass ---------------------------------------------------------------------------------------


async def test_a_pass_applies_then_writes_the_status_once_then_emits() -> None:
    memory = Memory()
    decision = Decision(
        actions=(CreateObject(document=stored(name="child")), DeleteObject(key=Key("Trial", "default", "old"))),
        status={"phase": "one"},
        events=(Event(reason="Made", message="it"),),
        requeue_after=7.0,
    )
    assert await loop_of(memory, Scripted([decision])).reconcile(KEY) == 7.0
    assert memory.log == [("create", "child"), ("delete", "old"), ("status", {"phase": "one"}, "u"), ("event", "Made")]


async def test_a_status_that_is_there_already_is_not_written_again() -> None:
    memory = Memory()
    loop = loop_of(memory, Scripted([Decision(status={"phase": "one"})]))
    await loop.reconcile(KEY)
    await loop.reconcile(KEY)
    assert [entry[0] for entry in memory.log] == ["status"]


async def test_nothing_is_told_to_an_object_that_is_gone() -> None:
    memory = Memory(documents={})
    await loop_of(memory, Scripted([Decision(status={"phase": "x"}, events=(Event(reason="R", message=""),))])).reconcile(KEY)
    assert memory.log == []


async def test_no_status_follows_an_action_that_failed() -> None:
    memory = Memory()
    decision = Decision(actions=(ApplyObject(document=stored()),), status={"phase": "one"})
    with pytest.raises(InvalidInput):
        await loop_of(memory, Scripted([decision])).reconcile(KEY)
    assert memory.log == []


@pytest.mark.parametrize("operation", ["watch", "trials", "absent", "__init__"])
async def test_a_record_operation_that_writes_nothing_known_is_refused(operation: str) -> None:
    action: Action = WriteRecord(operation=operation, arguments={})
    with pytest.raises(InvariantViolation, match="may ask for"):
        await apply(action, Memory().ports())


async def test_a_record_operation_is_called_with_its_arguments() -> None:
    memory = Memory()
    arguments = {"name": "a", "reason": "r", "actor": "me"}
    await apply(WriteRecord(operation="halt", arguments=arguments), memory.ports())
    assert memory.log == [("halt", arguments)]


def test_every_record_operation_is_one_of_the_port() -> None:
    assert {name for name in RECORD_OPERATIONS if not callable(getattr(Record, name, None))} == set()


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [RetryLater("away", after_seconds=0.0), Conflict("changed"), ValueError("a defect"), InvalidInput("wrong: correct it")],
)
async def test_a_failed_pass_is_made_again(error: Exception) -> None:
    memory, controller = Memory(), Scripted([error, error, Decision(status={"phase": "fine"})])
    await run_until(loop_of(memory, controller), lambda: memory.documents[KEY].get("status") == {"phase": "fine"})
    assert len(controller.passes) >= 3


async def test_a_defect_of_one_key_does_not_hold_up_the_others() -> None:
    other = Key("Study", "default", "other")
    memory = Memory(documents={KEY: stored(), other: stored(name="other")})

    class Half(Scripted):
        def decide(self, observed: Any, **times: Any) -> Decision:
            if observed == KEY:
                raise ZeroDivisionError
            return super().decide(observed, **times)

    await run_until(loop_of(memory, Half([Decision(status={"phase": "fine"})])), lambda: "status" in memory.documents[other])


async def test_what_a_person_must_change_stalls_the_object_with_the_message_once() -> None:
    memory, controller = Memory(), Scripted([InvalidInput("field x is wrong: correct it")])
    await run_until(loop_of(memory, controller), lambda: len(controller.passes) >= 4)
    status = memory.documents[KEY]["status"]
    conditions = {c["type"]: (c["status"], c["reason"], c["message"], c["observedGeneration"]) for c in status["conditions"]}
    assert conditions["Stalled"] == ("True", "InvalidInput", "field x is wrong: correct it", 3)
    assert conditions["Ready"][0] == "False"
    assert [entry[0] for entry in memory.log] == ["status", "event"]


# --- what wakes it ----------------------------------------------------------------------------------


async def test_a_change_a_resync_and_a_requeue_each_bring_a_pass() -> None:
    memory, controller = Memory(documents={}), Scripted([Decision()])
    loop = loop_of(memory, controller, resync_seconds=3600)
    memory.changes.put_nowait(KEY)
    await run_until(loop, lambda: controller.passes == [KEY])
    controller = Scripted([Decision(requeue_after=0.01)])
    await run_until(loop_of(Memory(), controller, resync_seconds=3600), lambda: len(controller.passes) >= 3)
    controller = Scripted([Decision()])
    await run_until(loop_of(Memory(), controller, resync_seconds=0.01), lambda: len(controller.passes) >= 3)


async def test_stopping_lets_the_pass_under_way_finish() -> None:
    memory, entered, release = Memory(), asyncio.Event(), asyncio.Event()

    class Slow(Scripted):
        async def observe(self, key: Key, document: Document | None) -> Any:
            entered.set()
            await release.wait()
            return key

    stop = asyncio.Event()
    running = asyncio.create_task(loop_of(memory, Slow([Decision(status={"phase": "done"})])).run(stop))
    await entered.wait()
    stop.set()
    await asyncio.sleep(0)
    release.set()
    await running
    assert memory.documents[KEY]["status"] == {"phase": "done"}


async def test_a_change_concerns_those_that_name_it() -> None:
    study, other = stored(spec={"datasetRef": {"name": "d"}}), stored(name="o", spec={"datasetRef": {"name": "e"}}, uid="v")
    deployment = stored("Deployment", "m", spec={"studyRef": {"name": "s"}}, uid="x")
    trader = stored("Trader", "r", spec={"account": "one"}, uid="y")
    documents = {Key(d["kind"], "default", d["metadata"]["name"]): d for d in (study, other, deployment, trader)}
    objects: Any = Memory(documents=documents)
    assert await referrers(objects, Key("Dataset", "default", "d")) == [KEY]
    assert await referrers(objects, KEY) == [Key("Deployment", "default", "m")]
    assert await concerned(objects, "trial_result", "u/4") == [Key("Trial", "default", "s-00004")]
    assert await concerned(objects, "trial_result", "nobody/4") == []
    assert set(await concerned(objects, "trial", "u/4")) >= {KEY, Key("Trial", "default", "s-00004")}
    assert await concerned(objects, "account", "one") == [Key("Trader", "default", "r")]
    assert await concerned(objects, "unheard_of", "x") == []
