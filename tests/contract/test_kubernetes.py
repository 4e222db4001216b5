"""What the Kubernetes adapter adds to the ports, on a real API server: events, the lease, the index and its watches, faults."""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cappuccino.adapters.kubernetes import lease
from cappuccino.adapters.kubernetes.client import EVENT, LEASE, OURS, ApiResource, Client
from cappuccino.adapters.kubernetes.events import KubernetesEvents
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.lease import LeaseLock
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.adapters.kubernetes.watch import Watcher
from cappuccino.controllers.decision import Document, Event, Key
from cappuccino.core.errors import Conflict, InvalidInput, RetryLater
from hack.cluster import build
from hack.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.xdist_group("cluster")
NAMESPACE = ApiResource("", "v1", "namespaces", "Namespace")
TOKEN = ApiResource("", "v1", "serviceaccounts", "TokenRequest")
CRDS = Path(__file__).parents[2] / "crds"
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def client(api_server: ControlPlane) -> AsyncIterator[Client]:
    async with await Client.connect(kubeconfig=str(api_server.kubeconfig)) as opened:
        yield opened


@pytest.fixture
async def namespace(client: Client) -> AsyncIterator[str]:
    name = f"k-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACE, {"metadata": {"name": name, "namespace": ""}})
    yield name
    await client.delete(NAMESPACE, "", name)


def study(namespace: str, name: str, **metadata: object) -> Document:
    spec = {"datasetRef": {"name": "d"}, "strategy": {"kind": "trend"}, "budget": {"trials": 4}}
    metadata = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Study", "metadata": metadata, "spec": spec}


async def eventually(test: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await test():
            await asyncio.sleep(0.05)


# --- events -----------------------------------------------------------------------------------------


async def test_a_repeated_event_counts_up_also_after_a_restart_of_the_operator(client: Client, namespace: str) -> None:
    key, event = Key("Study", namespace, "s"), Event(reason="Complete", message="4 complete")
    first = KubernetesEvents(client)
    await first.emit(key, "u", event, at=AT)
    await first.emit(key, "u", event, at=AT)
    await first.emit(key, "u", Event(reason="Complete", message="5 complete"), at=AT)
    await first.emit(key, "another", event, at=AT)
    second = KubernetesEvents(client)
    await second.emit(key, "u", event, at=AT.replace(hour=1))
    told = await client.all(EVENT, namespace=namespace, fields="involvedObject.uid=u")
    assert sorted((e["message"], e["count"], e["firstTimestamp"], e["lastTimestamp"]) for e in told) == [
        ("4 complete", 3, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("5 complete", 1, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    ]
    assert {e["involvedObject"]["kind"] for e in told} == {"Study"}
    for forgotten in told:
        await client.delete(EVENT, namespace, forgotten["metadata"]["name"])
    await second.emit(key, "u", event, at=AT)
    told = await client.all(EVENT, namespace=namespace, fields="involvedObject.uid=u")
    assert [e["count"] for e in told] == [1]


# --- the lease --------------------------------------------------------------------------------------


async def test_the_second_of_two_operators_waits_until_the_first_gives_way(client: Client, namespace: str) -> None:
    first, second = (LeaseLock(client, namespace=namespace, name="operator", identity=name) for name in ("one", "two"))
    await first.acquire()
    keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
    done, _ = await asyncio.wait({keeping, waiting}, timeout=2 * lease.RETRY_SECONDS + 1)
    assert not done
    keeping.cancel()
    await first.release()
    async with asyncio.timeout(lease.RETRY_SECONDS + 2):
        await waiting
    found = await client.get(LEASE, namespace, "operator")
    assert found is not None
    assert found["spec"]["holderIdentity"] == "two"
    await first.release()  # which is not the first's any more
    assert (await client.get(LEASE, namespace, "operator") or {})["spec"]["holderIdentity"] == "two"


async def test_a_holder_that_died_is_followed_when_its_lease_has_expired_and_not_before(client: Client, namespace: str) -> None:
    first, second = (LeaseLock(client, namespace=namespace, name="operator", identity=name) for name in ("one", "two"))
    await first.acquire()
    began = time.monotonic()
    async with asyncio.timeout(lease.LEASE_SECONDS + 10):
        await second.acquire()
    assert time.monotonic() - began >= lease.LEASE_SECONDS - 0.5


async def test_a_holder_learns_at_once_that_another_has_it(client: Client, namespace: str) -> None:
    held = LeaseLock(client, namespace=namespace, name="operator", identity="one")
    await held.acquire()
    await client.patch(LEASE, namespace, "operator", {"spec": {"holderIdentity": "two"}})
    async with asyncio.timeout(lease.RETRY_SECONDS + 1):
        with pytest.raises(Conflict, match="operator is two's now, not one's"):
            await held.keep()


async def test_a_restarted_container_takes_its_own_lease_up_at_once(client: Client, namespace: str) -> None:
    for _ in range(2):
        async with asyncio.timeout(3):
            await LeaseLock(client, namespace=namespace, name="operator", identity="pod-1").acquire()


async def test_a_holder_whose_api_server_is_silent_stops_before_another_can_begin(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server accepts connections and never answers: worse than refusing them."""
    held = LeaseLock(client, namespace=namespace, name="operator", identity="one")
    await held.acquire()
    began = time.monotonic()
    keeping = asyncio.create_task(held.keep())
    await asyncio.sleep(0.1)
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(600), "127.0.0.1", 0)
    monkeypatch.setattr(client, "_host", f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    with pytest.raises(RetryLater, match="could not be renewed"):
        await keeping
    assert time.monotonic() - began < lease.LEASE_SECONDS
    silent.close()


# --- the index and its watches ----------------------------------------------------------------------


async def test_the_index_knows_what_this_adapter_wrote_before_any_event_comes(client: Client, namespace: str) -> None:
    index = ClusterIndex(client, namespaces=(namespace,))
    objects = KubernetesObjects(client, index)
    label = {"cappuccino.dev/study": "x"}
    made = await objects.create(study(namespace, "a", labels=label, finalizers=["a/b"]))
    key, uid = Key("Study", namespace, "a"), made["metadata"]["uid"]
    assert [s.key for s in await objects.index("Study", namespace=namespace, labels=label)] == [key]
    await objects.patch_metadata(key, uid=uid, labels={"cappuccino.dev/study": "y"})
    assert list(await objects.index("Study", namespace=namespace, labels=label)) == []
    await objects.delete(key)
    assert [s.deleting for s in await objects.index("Study")] == [True]
    await objects.patch_metadata(key, uid=uid, finalizers=[])
    assert list(await objects.index("Study")) == []
    index.note("MODIFIED", made)  # an event that was under way
    assert list(await objects.index("Study")) == []


async def test_filling_again_finds_what_was_deleted_while_no_watch_looked(client: Client, namespace: str) -> None:
    for name in ("a", "b"):
        await client.create(OURS["Study"], study(namespace, name))
    index = ClusterIndex(client, namespaces=(namespace,))
    assert not index.ready
    await index.fill()
    assert index.ready
    await client.delete(OURS["Study"], namespace, "a")
    async with asyncio.timeout(10):
        watch = index.object_keys()
        assert {(await anext(watch)).name for _ in range(2)} == {"a", "b"}
        await index.fill()
        assert (await anext(watch)).name == "a"
    assert [s.key.name for s in index.summaries("Study", namespace=namespace, labels={})] == ["b"]
    assert index.counts() == {("Study", "New"): 1}


async def test_a_list_longer_than_a_page_is_whole(
    api_server: ControlPlane, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cappuccino.adapters.kubernetes.client.PAGE", 3)
    for number in range(8):
        await client.create(OURS["Study"], study(namespace, f"s{number}"))
    calls = []
    async with await Client.connect(
        kubeconfig=str(api_server.kubeconfig),
        on_call=lambda verb, resource, code, seconds: calls.append((verb, resource, code)),
    ) as counted:
        index = ClusterIndex(counted, namespaces=(namespace,))
        await index.fill()
    assert len(index.summaries("Study", namespace=namespace, labels={})) == 8
    assert calls.count(("list", "studies", 200)) == 3


async def test_a_kind_that_is_not_there_yet_is_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ApiResource("cappuccino.dev", "v1alpha1", "spoons", "Spoon")
    monkeypatch.setattr("cappuccino.adapters.kubernetes.index.OBJECTS", (absent,))
    with pytest.raises(RetryLater, match=r"spoons\.cappuccino\.dev cannot be listed"):
        await ClusterIndex(client).fill()


async def test_what_may_not_be_done_names_the_permission(api_server: ControlPlane, namespace: str) -> None:
    async with await Client.connect(kubeconfig=str(api_server.kubeconfig)) as client:
        token = await client._call("create", TOKEN, "POST", TOKEN.path(namespace, "default", "token"), None, {"spec": {}})
        client.api.configuration.api_key = {"BearerToken": f"Bearer {token['status']['token']}"}
        client.api.configuration.api_key_prefix = {}
        with pytest.raises(InvalidInput, match=r"cannot list resource .studies. in API group .cappuccino.dev.*: grant it"):
            await client.all(OURS["Study"], namespace=namespace)
        client.api.configuration.api_key = {"BearerToken": "Bearer nonsense"}
        with pytest.raises(InvalidInput, match="Unauthorized"):
            await client.all(OURS["Study"], namespace=namespace)


async def test_watches_go_on_after_the_api_server_was_away_and_calls_say_retry(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as plane:
        apply = [build.kubectl(), f"--kubeconfig={plane.kubeconfig}", f"--cache-dir={tmp_path}/cache", "apply", "--server-side"]
        subprocess.run([*apply, "-f", CRDS], check=True, stdout=subprocess.DEVNULL)
        async with await Client.connect(kubeconfig=str(plane.kubeconfig)) as client:
            index = ClusterIndex(client)
            objects = KubernetesObjects(client, index)
            watching = asyncio.create_task(Watcher(client, index).run())

            async def known(*names: str) -> bool:
                return [s.key.name for s in index.summaries("Study", namespace=None, labels={})] == list(names)

            async def made(name: str) -> bool:
                try:
                    await client.create(OURS["Study"], study("default", name))
                except RetryLater:
                    return False
                return True

            await eventually(lambda: made("a"))
            await eventually(lambda: known("a"))
            plane.kill_apiserver()
            with pytest.raises(RetryLater, match="the API server does not answer"):
                await objects.get(Key("Study", "default", "a"))
            with pytest.raises(RetryLater):
                await objects.patch_status(Key("Study", "default", "a"), {}, uid="u")
            await asyncio.to_thread(plane.start_apiserver)
            await eventually(lambda: made("b"))
            await eventually(lambda: known("a", "b"))
            await client.delete(OURS["Study"], "default", "a")
            await eventually(lambda: known("b"))
            watching.cancel()
            await asyncio.wait([watching])
