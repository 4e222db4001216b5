"""The loop, over a small cluster in memory: what a pass does, and what each kind of error means for a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
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
from cappuccino.controllers.trader import TRACEPARENT_ANNOTATION
from cappuccino.core.errors import Conflict, InvalidInput, InvariantViolation, RetryLater
from cappuccino.core.identifiers import traceparent
from cappuccino.reconcile.apply import RECORD_OPERATIONS, apply
from cappuccino.reconcile.loop import Loop
from cappuccino.reconcile.ports import Record
from cappuccino.reconcile.trace import traceparent_of
from cappuccino.reconcile.wake import concerned, referrers

from .builders import KEY, Memory, Scripted, loop_of, stored


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


async def test_a_pass_can_ask_for_one_of_another_object() -> None:
    other = Key("Study", "default", "other")
    memory, controller = Memory(documents={}), Scripted([Decision(wakes=(other, Key("Unknown", "default", "x"))), Decision()])
    memory.changes.put_nowait(KEY)
    await run_until(loop_of(memory, controller, resync_seconds=3600), lambda: controller.passes == [KEY, other])


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


async def test_cancelling_breaks_off_the_pass_under_way() -> None:
    memory, entered = Memory(), asyncio.Event()

    class Endless(Scripted):
        async def observe(self, key: Key, document: Document | None) -> Any:
            entered.set()
            await asyncio.sleep(60)
            return key

    running = asyncio.create_task(loop_of(memory, Endless([Decision(status={"phase": "done"})])).run(asyncio.Event()))
    await entered.wait()
    running.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await running
    assert memory.log == []


async def test_a_change_concerns_those_that_name_it() -> None:
    later = {"datasetRef": {"name": "e"}, "warmStart": {"studyRef": {"name": "s"}}}
    study, other = stored(spec={"datasetRef": {"name": "d"}}), stored(name="o", spec=later, uid="v")
    deployment = stored("Deployment", "m", spec={"studyRef": {"name": "s"}}, uid="x")
    trader = stored("Trader", "r", spec={"account": "one"}, uid="y")
    documents = {Key(d["kind"], "default", d["metadata"]["name"]): d for d in (study, other, deployment, trader)}
    objects: Any = Memory(documents=documents)
    assert await referrers(objects, Key("Dataset", "default", "d")) == [KEY]
    assert await referrers(objects, KEY) == [Key("Deployment", "default", "m"), Key("Study", "default", "o")]
    assert await concerned(objects, "trial_result", "u/4") == [Key("Trial", "default", "s-00004")]
    assert await concerned(objects, "trial_result", "nobody/4") == []
    assert await concerned(objects, "trial", "u/4") == [KEY]
    assert await concerned(objects, "account", "one") == [Key("Trader", "default", "r")]
    assert await concerned(objects, "unheard_of", "x") == []


# --- who looks on -----------------------------------------------------------------------------------


@dataclass
class Counted:
    results: list[tuple[str, str]] = field(default_factory=list)
    statuses: list[float] = field(default_factory=list)

    def passed(self, kind: str, result: str, seconds: float) -> None:
        assert 0 <= seconds < 10
        self.results.append((kind, result))

    def told(self, kind: str, seconds: float) -> None:
        assert kind == "Study"
        self.statuses.append(seconds)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (RetryLater("away", after_seconds=0.0), "retry"),
        (Conflict("changed"), "conflict"),
        (InvalidInput("wrong: correct it"), "stalled"),
        (ValueError("a defect"), "error"),
    ],
)
async def test_each_pass_is_counted_by_what_came_of_it(error: Exception, result: str) -> None:
    memory, counted = Memory(), Counted()
    controller = Scripted([error, Decision(status={"phase": "fine"}), Decision(status={"phase": "fine"})])
    await run_until(loop_of(memory, controller, observer=counted), lambda: len(counted.results) >= 2)
    assert counted.results[:2] == [("Study", result), ("Study", "ok")]


async def test_the_time_to_a_status_counts_from_the_change_and_through_the_passes_that_failed() -> None:
    memory, counted = Memory(), Counted()
    controller = Scripted([RetryLater("away", after_seconds=0.3), Decision(status={"phase": "fine"})])
    await run_until(loop_of(memory, controller, observer=counted, resync_seconds=3600), lambda: bool(counted.statuses))
    assert 0.3 <= counted.statuses[0] < 5


async def test_what_changes_is_not_held_up_by_a_resync_after_the_first() -> None:
    many = {Key("Study", "default", f"s{n}"): stored(name=f"s{n}", uid=f"u{n}") for n in range(100)}
    deepest = 0

    class Slow(Scripted):
        async def observe(self, key: Key, document: Document | None) -> Any:
            nonlocal deepest
            await asyncio.sleep(0.002)
            if len(self.passes) >= len(many):  # the first round is over
                deepest = max(deepest, loop.queue.depth())
            return key

    controller = Slow([Decision()])
    loop = loop_of(Memory(documents=many), controller, workers=1, resync_seconds=2.0)
    await run_until(loop, lambda: len(controller.passes) >= 2 * len(many))
    assert set(controller.passes[:100]) == set(controller.passes[100:200]) == set(many)
    assert deepest < 20


# --- traces -----------------------------------------------------------------------------------------


async def test_everything_of_a_study_is_in_its_trace() -> None:
    study = stored(uid="study-uid")
    objects: Any = Memory(documents={KEY: study})
    expected = traceparent("study-uid")
    assert await traceparent_of(study, objects) == expected
    assert await traceparent_of(stored("Trial", "t", spec={"studyUid": "study-uid", "number": 1}, uid="x"), objects) == expected
    assert await traceparent_of(stored("Deployment", "d", spec={"studyRef": {"name": "s"}}, uid="x"), objects) == expected
    trader = stored("Trader", "r", spec={"account": "a"}, uid="x")
    trader["metadata"]["annotations"] = {TRACEPARENT_ANNOTATION: expected}
    assert await traceparent_of(trader, objects) == expected


async def test_what_belongs_to_no_study_is_a_trace_of_its_own() -> None:
    objects: Any = Memory(documents={})
    for kind, spec in (("Dataset", {}), ("Deployment", {"studyRef": {"name": "gone"}}), ("Trader", {"account": "a"})):
        assert await traceparent_of(stored(kind, "o", spec=spec, uid="own"), objects) == traceparent("own")
