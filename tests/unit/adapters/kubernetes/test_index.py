"""The index by events alone: what is late, repeated or missing does no harm, and who is told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

from cappuccino.adapters.kubernetes.client import Client
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.controllers.decision import Document, Key

from .builders import job, pod, running, stored, terminated, trial


def empty() -> ClusterIndex:
    return ClusterIndex(cast("Client", None))


def the_trial(number: int = 0, *, version: int = 1, uid: str = "", status: Document | None = None, **metadata: Any) -> Document:
    owner = {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Study", "name": "s", "uid": "study"}
    document = {
        "apiVersion": "cappuccino.dev/v1alpha1",
        "kind": "Trial",
        "metadata": {
            "name": f"s-{number:05d}",
            "namespace": "lab",
            "generation": 1,
            "labels": {"cappuccino.dev/study": "s"},
            "ownerReferences": [owner],
            **metadata,
        },
        "spec": {"studyUid": "study", "number": number},
    }
    return stored(document, uid=uid or f"u{number}", version=version, status=status)


def names(index: ClusterIndex, **labels: str) -> list[str]:
    given = {f"cappuccino.dev/{name}": value for name, value in labels.items()}
    return [summary.key.name for summary in index.summaries("Trial", namespace="lab", labels=given)]


async def news(index: ClusterIndex, *events: tuple[str | None, Document]) -> list[str]:
    """Names that a watch is told of these events."""
    queue: list[str] = []

    async def follow() -> None:
        async with aclosing(cast("Any", index.object_keys())) as watch:
            async for key in watch:
                queue.append(key.name)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    queue.clear()
    for event, document in events:
        index.note(event, document)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return queue


def test_an_event_that_is_late_does_not_undo_what_is_newer() -> None:
    index = empty()
    index.note("ADDED", the_trial(version=5, labels={"cappuccino.dev/study": "new"}))
    index.note("MODIFIED", the_trial(version=4))
    assert names(index, study="new") == ["s-00000"]
    assert names(index, study="s") == []


def test_what_was_deleted_does_not_come_back_with_a_late_event_and_a_successor_does() -> None:
    index = empty()
    index.note("ADDED", the_trial(version=5))
    index.note("DELETED", the_trial(version=6))
    index.note("MODIFIED", the_trial(version=5))
    assert names(index) == []
    index.note("ADDED", the_trial(version=7, uid="another"))
    index.note("DELETED", the_trial(version=6))
    assert [s.uid for s in index.summaries("Trial", namespace="lab", labels={})] == ["another"]


def test_what_is_not_ours_is_ignored() -> None:
    index = empty()
    of_apps = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "lab", "uid": "x"}}
    index.note("ADDED", of_apps)
    plain = job()
    del plain["metadata"]["annotations"]
    index.note("ADDED", plain)
    assert index.summaries("Deployment", namespace=None, labels={}) == []
    assert index.runs() == []


async def test_the_owner_is_told_when_it_comes_changes_for_others_or_goes() -> None:
    index = empty()
    running_status = {"conditions": [{"type": "Complete", "status": "False", "reason": "Training"}], "workload": "Pending"}
    assert await news(index, ("ADDED", the_trial(version=1))) == ["s-00000", "s"]
    assert await news(index, ("MODIFIED", the_trial(version=2, status=running_status))) == ["s"]
    assert await news(index, ("MODIFIED", the_trial(version=3, status={**running_status, "workload": "Running"}))) == []
    marked = the_trial(version=4, status={**running_status, "workload": "Running"}, annotations={"a": "b"})
    assert await news(index, ("MODIFIED", marked)) == ["s-00000"]
    assert await news(index, ("MODIFIED", marked)) == []
    assert await news(index, ("DELETED", the_trial(version=5))) == ["s-00000", "s"]


async def test_what_others_refer_to_is_told_when_its_conditions_change() -> None:
    index = empty()

    def dataset(version: int, reason: str, **status: Any) -> Document:
        conditions = [{"type": "Ready", "status": "True", "reason": reason}]
        metadata = {"name": "d", "namespace": "lab", "generation": 1}
        document = {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Dataset", "metadata": metadata, "spec": {}}
        return stored(document, version=version, status={"conditions": conditions, **status})

    assert await news(index, ("ADDED", dataset(1, "Complete"))) == ["d"]
    assert await news(index, ("MODIFIED", dataset(2, "Complete", bars=7))) == []
    assert await news(index, ("MODIFIED", dataset(3, "Stale"))) == ["d"]


def test_objects_are_counted_by_kind_and_state() -> None:
    index = empty()
    index.note("ADDED", the_trial(0))
    done = {"conditions": [{"type": "Complete", "status": "True", "reason": "Succeeded"}]}
    for number in (1, 2):
        index.note("ADDED", the_trial(number, status=done))
    assert index.counts() == {("Trial", "New"): 1, ("Trial", "Complete"): 2}


def test_a_run_has_its_own_pods_and_knows_of_others_of_its_name() -> None:
    index = empty()
    former, present = job(uid="one", version=1), job(uid="two", version=5)
    index.note("ADDED", former)
    index.note("ADDED", pod(former, name="a", uid="a", state=running()))
    index.note("DELETED", former)
    index.note("ADDED", present)
    index.note("ADDED", pod(present, name="b", uid="b", state=running()))
    run = index.run(trial().name)
    assert run is not None
    assert [p.name for p in run.pods] == ["b"]
    assert {p.name for p in index.pods(trial().name)} == {"a", "b"}


def test_a_pod_that_went_is_remembered_until_it_is_settled_but_not_of_what_is_over() -> None:
    index = empty()
    document = job()
    index.note("ADDED", document)
    for uid in ("a", "b"):
        index.note("ADDED", pod(document, name=uid, uid=uid, state=running()))
    index.note("DELETED", pod(document, name="a", uid="a", version=21, state=running()))
    run = index.run(trial().name)
    assert run is not None
    assert [p.uid for p in run.departed] == ["a"]
    index.run_settled({**document, "metadata": {**document["metadata"], "resourceVersion": "30"}}, ["a"])
    run = index.run(trial().name)
    assert run is not None
    assert run.departed == ()
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    index.note("MODIFIED", {**document, "metadata": {**document["metadata"], "resourceVersion": "31"}, "status": complete})
    index.note("DELETED", pod(document, name="b", uid="b", version=32, state=terminated(0)))
    run = index.run(trial().name)
    assert run is not None
    assert run.departed == ()


async def test_those_that_it_serves_are_told_when_a_run_changes_for_them_and_only_then() -> None:
    index = empty()
    document = job()
    told_keys: list[Key] = []

    async def follow() -> None:
        async for key in index.run_keys():
            told_keys.append(key)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)

    async def count(event: str, shown: Document) -> int:
        told_keys.clear()
        index.note(event, shown)
        for _ in range(10):
            await asyncio.sleep(0)
        return len(told_keys)

    assert await count("ADDED", document) == 1
    assert await count("ADDED", pod(document, state=running(), version=20)) == 1
    assert await count("MODIFIED", pod(document, state=running(), version=21)) == 0  # a heartbeat
    assert await count("MODIFIED", pod(document, state=terminated(1), version=22)) == 1
    busy = {**document, "metadata": {**document["metadata"], "resourceVersion": "23"}, "status": {"active": 1}}
    assert await count("MODIFIED", busy) == 0
    assert await count("DELETED", pod(document, version=24)) == 1
    assert await count("DELETED", document) == 1
    task.cancel()
    await asyncio.wait([task])


def test_looking_up_by_a_label_of_ours_does_not_look_at_the_others() -> None:
    index = empty()
    for number in range(2_000):
        index.note(None, the_trial(number, labels={"cappuccino.dev/study": f"s{number % 1_000}"}))
    catalogue = index._objects
    assert len(catalogue._labelled["Trial", "lab", "cappuccino.dev/study", "s7"]) == 2
    assert names(index, study="s7") == ["s-00007", "s-01007"]
    for number in range(2_000):
        index.note("DELETED", the_trial(number))
    assert catalogue._labelled == {}
