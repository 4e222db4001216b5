"""What every `Objects` adapter does: an API server's semantics.

An adapter joins by a name in ADAPTERS and a branch in the fixture `objects`. Refusals are worded by whoever refuses: the model
here, the API server's schema there; both name the field.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
import yaml

from cappuccino.adapters.kubernetes.client import OURS, ApiResource, Client
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.adapters.kubernetes.watch import Watcher
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.objects import PostgresObjects
from cappuccino.controllers.decision import Document, Key
from cappuccino.core.clock import SystemClock
from cappuccino.core.errors import Conflict, InvalidInput, NotFound
from cappuccino.reconcile.ports import Objects
from hack.cluster.control_plane import ControlPlane

ADAPTERS = ["local", pytest.param("kubernetes", marks=pytest.mark.xdist_group("cluster"))]
DIGEST = "a" * 64
NAMESPACE = ApiResource("", "v1", "namespaces", "Namespace")
NAMESPACES = ("default", "other")


@pytest.fixture(params=ADAPTERS)
async def objects(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    if request.param == "local":
        pool = await open_async_pool(request.getfixturevalue("database_url"), "operator", min_size=4, max_size=8)
        yield PostgresObjects(pool, clock=SystemClock(), poll_seconds=5)
        await pool.close()
    else:
        async with kubernetes_objects(request.getfixturevalue("api_server")) as adapter:
            yield adapter


@asynccontextmanager
async def kubernetes_objects(server: ControlPlane) -> AsyncIterator[KubernetesObjects]:
    """Over the server's namespaces `default` and `other`, with a watch that feeds the index; empty before and after."""
    async with await Client.connect(kubeconfig=str(server.kubeconfig)) as client:
        if await client.get(NAMESPACE, "", "other") is None:
            await client.create(NAMESPACE, {"metadata": {"name": "other", "namespace": ""}})
        index = ClusterIndex(client, namespaces=NAMESPACES)
        adapter = KubernetesObjects(client, index)
        watching = asyncio.create_task(Watcher(client, index).run())
        try:
            yield adapter
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await empty(client)


async def empty(client: Client) -> None:
    async with asyncio.timeout(30):
        while left := [
            document
            for resource in OURS.values()
            for namespace in NAMESPACES
            for document in await client.all(resource, namespace=namespace)
        ]:
            for document in left:
                namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
                with suppress(NotFound):
                    await client.patch(OURS[document["kind"]], namespace, name, {"metadata": {"finalizers": None}})
                    await client.delete(OURS[document["kind"]], namespace, name)


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> Document:
    return {"apiVersion": "cappuccino.dev/v1alpha1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def study(name: str = "s", *, spec: dict[str, Any] | None = None, **metadata: Any) -> Document:
    base = {"datasetRef": {"name": "d"}, "strategy": {"kind": "trend"}, "budget": {"trials": 4}}
    return document("Study", name, {**base, **(spec or {})}, **metadata)


def trial(name: str = "s-00000", *, spec: dict[str, Any] | None = None, **metadata: Any) -> Document:
    base = {
        "studyName": "s",
        "studyUid": "u",
        "number": 0,
        "parameters": {"fast": "3"},
        "snapshot": DIGEST,
        "gateStartsAt": "2024-01-01T00:00:00Z",
    }
    return document("Trial", name, {**base, **(spec or {})}, **metadata)


def trader(name: str = "t", *, spec: dict[str, Any] | None = None, **metadata: Any) -> Document:
    base = {"venue": {"kind": "simulated"}, "bundleDigest": DIGEST, "account": "one"}
    return document("Trader", name, {**base, **(spec or {})}, **metadata)


def key(document: Document) -> Key:
    return Key(document["kind"], document["metadata"].get("namespace", "default"), document["metadata"]["name"])


def owned_by(*owners: Document) -> list[dict[str, Any]]:
    return [
        {"apiVersion": "cappuccino.dev/v1alpha1", "kind": o["kind"], "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}
        for o in owners
    ]


async def eventually_gone(objects: Objects, gone: Key) -> None:
    async with asyncio.timeout(10):
        while await objects.get(gone) is not None:
            await asyncio.sleep(0.01)


async def now(objects: Objects, wanted: Key) -> Document:
    found = await objects.get(wanted)
    assert found is not None
    return found


# --- create and read --------------------------------------------------------------------------------


async def test_a_created_object_has_an_identity_and_the_defaults_of_its_kind(objects: Objects) -> None:
    made = await objects.create(study(labels={"team": "x"}))
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["uid"]
    assert made["metadata"]["resourceVersion"]
    assert made["metadata"]["creationTimestamp"].endswith("Z")
    assert made["metadata"]["labels"] == {"team": "x"}
    assert made["spec"]["parallelism"] == 1
    assert "status" not in made
    assert await objects.get(key(made)) == made


async def test_a_name_is_taken_once_per_kind_and_namespace(objects: Objects) -> None:
    first = await objects.create(study())
    with pytest.raises(Conflict, match="exists already"):
        await objects.create(study())
    await objects.create(study(namespace="other"))
    await objects.create(trial("s"))
    assert (await now(objects, key(first)))["metadata"]["uid"] == first["metadata"]["uid"]


async def test_an_object_made_again_under_its_name_is_another_one(objects: Objects) -> None:
    first = await objects.create(study())
    await objects.delete(key(first))
    assert (await objects.create(study()))["metadata"]["uid"] != first["metadata"]["uid"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (document("Widget", "w", {}), "kind 'Widget' is unknown"),
        (study(spec={"colour": "red"}), r"spec\.colour"),
        (study(spec={"parallelism": "many"}), "parallelism"),
        (study("Not_A_Name"), "metadata.name"),
        ({"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Study", "metadata": {}, "spec": {}}, "metadata.name"),
    ],
)
async def test_what_the_model_refuses_is_not_stored(objects: Objects, wrong: Document, message: str) -> None:
    for write in (objects.create, objects.apply):
        with pytest.raises(InvalidInput, match=message):
            await write(wrong)
    assert await objects.list("Study") == []


async def test_a_status_in_a_manifest_is_ignored(objects: Objects) -> None:
    made = await objects.apply({**study(), "status": {"snapshot": DIGEST}})
    assert "status" not in made


async def test_listing_selects_by_namespace_and_all_labels_in_order_of_names(objects: Objects) -> None:
    for name, labels in (("c", {"a": "1"}), ("a", {"a": "1", "b": "2"}), ("b", {"a": "2"})):
        await objects.create(study(name, labels=labels))
    await objects.create(study("a", namespace="other"))
    names = [d["metadata"]["name"] for d in await objects.list("Study", namespace="default")]
    assert names == ["a", "b", "c"]
    assert [d["metadata"]["name"] for d in await objects.list("Study", labels={"a": "1"})] == ["a", "c"]
    assert [d["metadata"]["name"] for d in await objects.list("Study", labels={"a": "1", "b": "2"})] == ["a"]
    assert await objects.list("Trial") == []


# --- apply ------------------------------------------------------------------------------------------


async def test_applying_the_same_again_writes_nothing(objects: Objects) -> None:
    first = await objects.apply(study(labels={"a": "1"}))
    assert await objects.apply(study(labels={"a": "1"})) == first


async def test_the_generation_counts_changes_of_the_spec_only(objects: Objects) -> None:
    first = await objects.apply(study())
    labelled = await objects.apply(study(labels={"a": "1"}))
    changed = await objects.apply(study(labels={"a": "1"}, spec={"parallelism": 3}))
    assert [d["metadata"]["generation"] for d in (first, labelled, changed)] == [1, 1, 2]
    assert len({d["metadata"]["resourceVersion"] for d in (first, labelled, changed)}) == 3
    assert changed["spec"]["parallelism"] == 3


async def test_a_field_that_left_the_manifest_leaves_the_object(objects: Objects) -> None:
    await objects.apply(study(labels={"a": "1", "b": "2"}, spec={"parallelism": 3, "suspend": True}))
    changed = await objects.apply(study(labels={"b": "2"}, spec={"suspend": True}))
    assert (changed["spec"]["parallelism"], changed["spec"]["suspend"]) == (1, True)
    assert changed["metadata"]["labels"] == {"b": "2"}


async def test_what_others_wrote_stays_when_a_manifest_does_not_speak_of_it(objects: Objects) -> None:
    made = await objects.apply(study(annotations={"mine": "1"}))
    await objects.patch_metadata(key(made), uid=made["metadata"]["uid"], annotations={"theirs": "2"}, finalizers=["x/y"])
    await objects.patch_status(key(made), {"phase": "one"}, uid=made["metadata"]["uid"])
    applied = await objects.apply(study(annotations={"mine": "3"}))
    assert applied["metadata"]["annotations"] == {"mine": "3", "theirs": "2"}
    assert applied["metadata"]["finalizers"] == ["x/y"]
    assert applied["status"]["phase"] == "one"


async def test_a_stale_resource_version_is_a_conflict(objects: Objects) -> None:
    first = await objects.apply(study())
    second = await objects.apply(study(spec={"parallelism": 2}))
    with pytest.raises(Conflict, match="changed since it was read"):
        await objects.apply(study(spec={"parallelism": 5}, resourceVersion=first["metadata"]["resourceVersion"]))
    third = await objects.apply(study(spec={"parallelism": 5}, resourceVersion=second["metadata"]["resourceVersion"]))
    assert third["spec"]["parallelism"] == 5


async def test_of_writers_with_the_same_version_one_wins(objects: Objects) -> None:
    version = (await objects.apply(study()))["metadata"]["resourceVersion"]
    results = await asyncio.gather(
        *(objects.apply(study(spec={"parallelism": n}, resourceVersion=version)) for n in range(2, 8)), return_exceptions=True
    )
    assert sum(isinstance(result, dict) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 5


# --- immutability -----------------------------------------------------------------------------------


async def test_the_spec_of_a_trial_is_immutable(objects: Objects) -> None:
    await objects.apply(trial())
    with pytest.raises(InvalidInput, match=r"spec.* is immutable"):
        await objects.apply(trial(spec={"parameters": {"fast": "4"}}))


async def test_the_account_and_the_pod_of_a_trader_are_immutable_and_the_rest_is_not(objects: Objects) -> None:
    await objects.apply(trader())
    with pytest.raises(InvalidInput, match="pod is immutable"):
        await objects.apply(trader(spec={"pod": "shared"}))
    changed = await objects.apply(trader(spec={"capitalUsd": 5.0}))
    assert changed["spec"]["capitalUsd"] == 5.0
    with pytest.raises(InvalidInput, match="account is immutable"):
        await objects.apply(trader(spec={"account": "two"}))
    await objects.apply(trader("two", spec={"pod": "shared"}))
    for pod in ("another", None):
        with pytest.raises(InvalidInput, match="pod is immutable"):
            await objects.apply(trader("two", spec={"pod": pod} if pod else {}))


async def test_a_study_is_pinned_once_it_has_a_snapshot(objects: Objects) -> None:
    made = await objects.apply(study())
    await objects.apply(study(spec={"lookback": 2}))
    await objects.patch_status(key(made), {"snapshot": DIGEST}, uid=made["metadata"]["uid"])
    with pytest.raises(InvalidInput, match=r"spec\.lookback is immutable once the search has begun"):
        await objects.apply(study(spec={"lookback": 3}))
    mutable = {"parallelism": 4, "suspend": True, "budget": {"trials": 9}, "finishedTrialsKept": 7, "lookback": 2}
    assert (await objects.apply(study(spec=mutable)))["spec"]["budget"]["trials"] == 9


# --- status and metadata ----------------------------------------------------------------------------


async def test_a_status_is_replaced_without_touching_the_generation(objects: Objects) -> None:
    made = await objects.create(study())
    uid = made["metadata"]["uid"]
    await objects.patch_status(key(made), {"phase": "one", "active": 1}, uid=uid)
    await objects.patch_status(key(made), {"phase": "two"}, uid=uid)
    after = await now(objects, key(made))
    assert (after["status"].get("phase"), after["status"].get("active")) == ("two", None)
    assert after["metadata"]["generation"] == 1
    assert after["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    await objects.patch_status(key(made), {"phase": "two"}, uid=uid)
    assert await now(objects, key(made)) == after


async def test_a_status_that_the_model_refuses_is_refused(objects: Objects) -> None:
    made = await objects.create(study())
    with pytest.raises(InvalidInput, match="active"):
        await objects.patch_status(key(made), {"active": "many"}, uid=made["metadata"]["uid"])


async def test_patches_of_an_object_that_is_gone_or_another_are_dropped(objects: Objects) -> None:
    made = await objects.create(study())
    await objects.patch_status(key(made), {"phase": "x"}, uid="another")
    await objects.patch_metadata(key(made), uid="another", labels={"a": "1"})
    assert await now(objects, key(made)) == made
    await objects.delete(key(made))
    await objects.patch_status(key(made), {"phase": "x"}, uid=made["metadata"]["uid"])
    await objects.patch_metadata(key(made), uid=made["metadata"]["uid"], labels={"a": "1"})


async def test_metadata_patches_merge_and_none_removes(objects: Objects) -> None:
    made = await objects.create(study(labels={"a": "1", "b": "2"}))
    await objects.patch_metadata(
        key(made), uid=made["metadata"]["uid"], labels={"a": None, "c": "3"}, annotations={"x": "y"}, finalizers=["f/g"]
    )
    after = (await now(objects, key(made)))["metadata"]
    assert (after["labels"], after["annotations"], after["finalizers"]) == ({"b": "2", "c": "3"}, {"x": "y"}, ["f/g"])
    assert after["generation"] == 1


# --- deletion ---------------------------------------------------------------------------------------


async def test_deleting_what_is_absent_or_has_another_uid_is_success(objects: Objects) -> None:
    await objects.delete(Key("Study", "default", "never"))
    made = await objects.create(study())
    await objects.delete(key(made), uid="another")
    assert await objects.get(key(made)) == made
    await objects.delete(key(made), uid=made["metadata"]["uid"])
    await eventually_gone(objects, key(made))


async def test_a_finalizer_holds_a_deleted_object_until_it_is_removed(objects: Objects) -> None:
    made = await objects.create(study(finalizers=["a/one", "a/two"]))
    uid = made["metadata"]["uid"]
    await objects.delete(key(made))
    deleting = await now(objects, key(made))
    assert deleting["metadata"]["deletionTimestamp"]
    assert deleting["metadata"]["generation"] == 2
    await objects.delete(key(made))
    assert await now(objects, key(made)) == deleting
    with pytest.raises(Conflict, match="being deleted"):
        await objects.apply(study(spec={"parallelism": 2}))
    with pytest.raises(Conflict):
        await objects.create(study())
    with pytest.raises(InvalidInput, match="be added"):
        await objects.patch_metadata(key(made), uid=uid, finalizers=["a/one", "a/two", "a/three"])
    await objects.patch_status(key(made), {"phase": "ending"}, uid=uid)
    await objects.patch_metadata(key(made), uid=uid, finalizers=["a/two"])
    assert (await now(objects, key(made)))["metadata"]["finalizers"] == ["a/two"]
    await objects.patch_metadata(key(made), uid=uid, finalizers=[])
    await eventually_gone(objects, key(made))


async def test_dependents_go_after_their_owner_through_all_generations(objects: Objects) -> None:
    top = await objects.create(study())
    middle = await objects.create(trial("m", ownerReferences=owned_by(top)))
    leaf = await objects.create(trader("l", ownerReferences=owned_by(middle)))
    free = await objects.create(trial("free"))
    await objects.delete(key(top))
    for gone in (top, middle, leaf):
        await eventually_gone(objects, key(gone))
    assert await objects.get(key(free)) is not None


async def test_a_dependent_stays_while_one_of_its_owners_lives(objects: Objects) -> None:
    one, two = await objects.create(study("one")), await objects.create(study("two"))
    child = await objects.create(trial("c", ownerReferences=owned_by(one, two)))
    await objects.delete(key(one))
    assert await objects.get(key(child)) is not None
    await objects.delete(key(two))
    await eventually_gone(objects, key(child))


async def test_a_dependent_with_a_finalizer_is_marked_and_waits(objects: Objects) -> None:
    owner = await objects.create(study())
    child = await objects.create(trial("c", ownerReferences=owned_by(owner), finalizers=["a/b"]))
    await objects.delete(key(owner))
    await eventually_gone(objects, key(owner))
    async with asyncio.timeout(10):
        while "deletionTimestamp" not in (await now(objects, key(child)))["metadata"]:
            await asyncio.sleep(0.01)
    await objects.patch_metadata(key(child), uid=child["metadata"]["uid"], finalizers=[])
    await eventually_gone(objects, key(child))


async def test_a_dependent_whose_owner_is_gone_already_does_not_stay(objects: Objects) -> None:
    owner = await objects.create(study())
    await objects.delete(key(owner))
    child = await objects.create(trial("c", ownerReferences=owned_by(owner)))
    await eventually_gone(objects, key(child))


# --- watch ------------------------------------------------------------------------------------------


async def seen(objects: Objects, act: Any, wanted: set[Key]) -> None:
    """`act` runs once the watch is open; returns when all of `wanted` were told."""
    async with asyncio.timeout(10), aclosing(objects.watch()) as watch:  # type: ignore[type-var]
        marker = await objects.create(study("marker"))
        async for told in watch:
            if told == key(marker):
                break
        await act()
        async for told in watch:
            wanted.discard(told)
            if not wanted:
                return


async def test_a_watch_tells_of_creation_change_and_deletion(objects: Objects) -> None:
    made = await objects.create(study())
    uid = made["metadata"]["uid"]
    await seen(objects, lambda: objects.apply(study(spec={"parallelism": 2})), {key(made)})
    await objects.delete(Key("Study", "default", "marker"))
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Searching"}]}
    await seen(objects, lambda: objects.patch_status(key(made), ready, uid=uid), {key(made)})
    await objects.delete(Key("Study", "default", "marker"))
    await seen(objects, lambda: objects.delete(key(made)), {key(made)})


async def test_a_watch_tells_the_owner_when_its_dependent_goes(objects: Objects) -> None:
    owner = await objects.create(study())
    child = await objects.create(trial("c", ownerReferences=owned_by(owner)))
    await seen(objects, lambda: objects.delete(key(child)), {key(child), key(owner)})


async def test_a_new_watch_tells_of_everything_that_is_there(objects: Objects) -> None:
    wanted = {key(await objects.create(study(name))) for name in ("a", "b")}
    async with asyncio.timeout(10), aclosing(objects.watch()) as watch:  # type: ignore[type-var]
        async for told in watch:
            wanted.discard(told)
            if not wanted:
                return


async def test_the_index_tells_what_this_adapter_wrote_and_what_others_look_it_up_by(objects: Objects) -> None:
    label = {"cappuccino.dev/study": "s"}
    for name, labels in (("b", label), ("a", {**label, "team": "x"}), ("c", {"team": "x"})):
        await objects.create(trial(name, labels=labels))
    await objects.create(trial("a", namespace="other", labels=label))
    assert [s.key.name for s in await objects.index("Trial", namespace="default", labels=label)] == ["a", "b"]
    assert [s.key.name for s in await objects.index("Trial", labels={**label, "team": "x"})] == ["a"]
    assert len(await objects.index("Trial")) == 4
    first = (await objects.index("Trial", namespace="default"))[0]
    made = await now(objects, Key("Trial", "default", "a"))
    assert (first.key, first.uid, first.deleting) == (key(made), made["metadata"]["uid"], False)
    assert (first.labels, first.refers) == ({**label, "team": "x"}, {"studyUid": "u", "number": "0"})
    await objects.patch_metadata(first.key, uid=first.uid, labels={"cappuccino.dev/study": "t"}, finalizers=["a/b"])
    assert [s.key.name for s in await objects.index("Trial", namespace="default", labels=label)] == ["b"]
    await objects.delete(first.key)
    assert (await objects.index("Trial", namespace="default"))[0].deleting
    await objects.delete(Key("Trial", "default", "b"))
    assert [s.key.name for s in await objects.index("Trial", namespace="default")] == ["a", "c"]


async def test_documents_survive_yaml(objects: Objects) -> None:
    made = await objects.create(study(annotations={"note": "ünïcode: yes"}))
    assert yaml.safe_load(yaml.safe_dump(await objects.get(key(made)))) == made
