"""What the operator reads at its start, and what it answers to probes."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from cappuccino.controllers.decision import Key, Summary
from cappuccino.core.errors import Conflict, InvalidInput
from cappuccino.entrypoints.operator import OperatorSettings, may_be_replaced
from cappuccino.entrypoints.operator_server import Report, serve
from cappuccino.reconcile.queue import KeyedQueue
from cappuccino.telemetry.operations import OperatorMetrics


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    pods: dict[str, Any] = {"images": {"train": "t", "trader": "r"}, "database": {"secret": "d"}}
    (tmp_path / "pods.json").write_text(json.dumps({**pods, "artifacts": {"url": "s3://bucket", "secret": "s"}}))
    return {"CAPPUCCINO_DATABASE_URL": "postgresql://db/x", "CAPPUCCINO_PODS": str(tmp_path / "pods.json")}


def test_the_environment_of_a_pod_says_everything(environment: dict[str, str]) -> None:
    told = {"CAPPUCCINO_NAMESPACES": "one, two", "POD_NAME": "operator-x", "POD_NAMESPACE": "system"}
    settings = OperatorSettings.read(environment | told | {"CAPPUCCINO_LEASE": "mine"})
    assert settings.namespaces == ["one", "two"]
    assert (settings.lease_namespace, settings.lease, settings.identity) == ("system", "mine", "operator-x")
    assert (settings.health_host, settings.health_port) == ("0.0.0.0", 8080)
    assert settings.pods.images.train == "t"


def test_outside_a_pod_two_processes_of_one_machine_are_told_apart(environment: dict[str, str]) -> None:
    settings = OperatorSettings.read(environment)
    assert settings.namespaces == []
    assert settings.identity != socket.gethostname()
    assert (settings.lease_namespace, settings.lease) == ("default", "cappuccino-operator")


@pytest.mark.parametrize("missing", ["CAPPUCCINO_DATABASE_URL", "CAPPUCCINO_PODS"])
def test_what_is_missing_is_named(environment: dict[str, str], missing: str) -> None:
    del environment[missing]
    with pytest.raises(InvalidInput, match=missing):
        OperatorSettings.read(environment)


TRADER = Key("Trader", "default", "t")


@dataclass
class Cluster:
    """The index and the record at once."""

    held: bool | None  # None: the account has no row

    def summary(self, key: Key) -> Summary | None:
        return Summary(key=key, uid="u", refers={"account": "mine"}) if key == TRADER else None

    async def accounts(self) -> list[Any]:
        others = SimpleNamespace(name="another's", held=not self.held)
        return [others] if self.held is None else [others, SimpleNamespace(name="mine", held=self.held)]


@pytest.mark.parametrize(
    ("keys", "held", "may"),
    [
        ((TRADER,), False, True),
        ((TRADER,), True, False),
        ((TRADER,), None, False),
        ((Key("Trader", "default", "gone"),), False, False),
        ((Key("Trader", "default", "gone"), TRADER), False, True),
        ((Key("Trader", "default", "gone"), TRADER), True, False),
        ((Key("Trial", "default", "s-00001"),), True, True),
        ((Key("Trial", "default", "s-00001"), TRADER), True, False),
    ],
)
async def test_a_lost_pod_is_replaced_unless_it_may_hold_an_account(
    keys: tuple[Key, ...], held: bool | None, may: bool
) -> None:
    cluster: Any = Cluster(held)
    assert await may_be_replaced(keys, index=cluster, record=cluster) is may


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/{path}") as answer:
        return answer.status, await answer.text()


async def test_it_is_alive_until_due_work_stands_still_for_a_minute() -> None:
    now, port = 0.0, free_port()
    queue: KeyedQueue[str] = KeyedQueue(monotonic=lambda: now)

    def report() -> Report:
        return Report(ready=True, role="leader", waits_for="", still_seconds=queue.still_seconds())

    async with serve("127.0.0.1", port, metrics=OperatorMetrics(), report=report):
        queue.add("stuck")
        queue.add("waits")
        assert await queue.get() == "stuck"
        now = 59.0
        assert (await ask(port, "healthz"))[0] == 200
        now = 61.0
        status, body = await ask(port, "healthz")
        assert status == 503
        assert json.loads(body) == {"alive": False, "ready": True, "role": "leader", "waits_for": "", "still_seconds": 61.0}
        assert (await ask(port, "readyz"))[0] == 200
        queue.done("stuck")
        assert (await ask(port, "healthz"))[0] == 200


async def test_it_is_ready_once_it_says_so_and_tells_its_metrics() -> None:
    port, metrics = free_port(), OperatorMetrics()
    metrics.passed("Study", "ok", 0.1)
    for ready in (False, True):
        report = Report(ready=ready, role="standby", waits_for="the cluster", still_seconds=0.0)
        async with serve("127.0.0.1", port, metrics=metrics, report=lambda now=report: now):  # type: ignore[misc]
            status, body = await ask(port, "readyz")
            assert status == (200 if ready else 503)
            assert json.loads(body)["waits_for"] == "the cluster"
            assert 'cappuccino_reconciles_total{kind="Study",result="ok"} 1.0' in (await ask(port, "metrics"))[1]


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        report = Report(ready=True, role="standby", waits_for="", still_seconds=0.0)
        with pytest.raises(Conflict, match=str(port)):
            async with serve("127.0.0.1", port, metrics=OperatorMetrics(), report=lambda: report):
                pass
