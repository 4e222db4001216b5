"""The operator as it runs: `kopf run operator/main.py` on a real API server with a real PostgreSQL."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from cappuccino.core.errors import AWAY_EXIT_CODE
from cappuccino.core.identifiers import traceparent
from hack.cluster.control_plane import ControlPlane

from ..unit.telemetry.receiver import receiving
from .conftest import ROOT, Kubectl
from .operators import OperatorProcess, Operators, eventually

pytestmark = pytest.mark.slow
QUICKSTART = ROOT / "examples" / "quickstart"


@pytest.fixture
def operators(api_server: ControlPlane, namespace: str, database_url: str, tmp_path: Path) -> Iterator[Operators]:
    started = Operators(plane=api_server, namespace=namespace, database_url=database_url, folder=tmp_path)
    yield started
    started.end()


def read(kubectl: Kubectl, what: str, name: str) -> dict[str, Any]:
    done = kubectl("get", what, name, "--output=json", "--show-managed-fields")
    return json.loads(done.stdout) if done.returncode == 0 else {}


def dataset(name: str) -> str:
    return (QUICKSTART / "dataset.yaml").read_text().replace("name: quickstart", f"name: {name}")


def apply_dataset(kubectl: Kubectl, name: str) -> None:
    kubectl.ok("apply", "--filename=-", stdin=dataset(name))


def condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = document.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def leading(operator: OperatorProcess) -> OperatorProcess:
    eventually(operator.is_leader)
    return operator


def test_a_dataset_gets_its_job_and_its_status_and_no_trace_of_kopf(operators: Operators, kubectl: Kubectl) -> None:
    operator = leading(operators.start("a"))
    apply_dataset(kubectl, "bars")
    job = eventually(lambda: read(kubectl, "job", "bars-refresh"))
    found = eventually(lambda: (d := read(kubectl, "dataset", "bars")) and condition(d, "Ready") and d)

    assert [(o["kind"], o["uid"]) for o in job["metadata"]["ownerReferences"]] == [("Dataset", found["metadata"]["uid"])]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "cappuccino/trader:test"
    assert container["args"] == ["ingest", "--dataset-uid", found["metadata"]["uid"]]
    environment = {variable["name"]: variable for variable in container["env"]}
    secret = environment["CAPPUCCINO_DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "cappuccino-database", "key": "ingest"}
    assert container["resources"]["requests"] == {"cpu": "250m"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True

    assert condition(found, "Ready")["status"] == "False"
    assert condition(found, "Ready")["observedGeneration"] == 1
    for document in (found, job):
        managers = {entry["manager"] for entry in document["metadata"]["managedFields"]}
        assert managers <= {"cappuccino", "kubectl-client-side-apply", "kube-controller-manager"}
        assert "kopf" not in json.dumps(document["metadata"].get("annotations", {}))
        assert "kopf" not in json.dumps(document["metadata"].get("finalizers", []))

    assert operator.ask("healthz")[0] == operator.ask("readyz")[0] == 200
    assert operator.metric("cappuccino_reconciles_total", kind="Dataset", result="ok") >= 1
    assert operator.metric("cappuccino_event_to_status_seconds_count", kind="Dataset") >= 1
    assert operator.metric("cappuccino_api_calls_total", verb="create", resource="jobs", code="201") == 1
    assert operator.metric("cappuccino_objects", kind="Dataset") == 1
    assert operator.metric("cappuccino_leader") == 1


def test_the_end_of_a_pod_gets_into_the_status(operators: Operators, kubectl: Kubectl) -> None:
    leading(operators.start("a"))
    kubectl.ok("create", "serviceaccount", "workload")
    apply_dataset(kubectl, "bars")
    pod = eventually(lambda: kubectl.ok("get", "pods", "--selector=job-name=bars-refresh", "--output=name").strip())
    ended = {"exitCode": 2, "reason": "Error", "message": "no such source"}
    container = {
        "name": "worker",
        "image": "x",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": ended},
    }
    status = json.dumps({"status": {"phase": "Failed", "containerStatuses": [container]}})
    kubectl.ok("patch", pod, "--subresource=status", "--type=merge", f"--patch={status}")
    ready = eventually(lambda: "no such source" in (c := condition(read(kubectl, "dataset", "bars"), "Ready"))["message"] and c)
    assert ready["status"] == "False"


def test_a_standby_takes_over_from_one_that_ends_and_from_one_that_is_killed(operators: Operators, kubectl: Kubectl) -> None:
    first, second = leading(operators.start("a")), operators.start("b")
    eventually(lambda: second.ask("readyz")[0] == 200)
    apply_dataset(kubectl, "one")
    eventually(lambda: read(kubectl, "job", "one-refresh"))
    assert second.report()["role"] == "standby"
    assert "Lease" in eventually(lambda: second.report()["waits_for"])
    assert second.metric("cappuccino_reconciles_total") == second.metric("cappuccino_api_calls_total", verb="create") == 0
    eventually(lambda: second.metric("cappuccino_objects", kind="Dataset") == 1)  # its index is filled

    code, seconds = first.end(signal.SIGTERM)
    assert code == 0
    assert seconds < 10
    eventually(second.is_leader, seconds=6)

    third = operators.start("c")
    eventually(lambda: third.ask("readyz")[0] == 200)
    second.end(signal.SIGKILL)
    apply_dataset(kubectl, "two")
    eventually(third.is_leader, seconds=25)
    eventually(lambda: read(kubectl, "job", "two-refresh"))
    assert len(json.loads(kubectl.ok("get", "jobs", "--output=json"))["items"]) == 2


def test_one_that_finds_its_lease_in_other_hands_ends_at_once(operators: Operators, kubectl: Kubectl) -> None:
    operator = leading(operators.start("a"))
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 60, "renewTime": "2030-01-01T00:00:00.000000Z"}
    kubectl.ok("patch", "lease", "cappuccino-operator", "--type=merge", f"--patch={json.dumps({'spec': spec})}")
    assert operator.process.wait(timeout=15) == AWAY_EXIT_CODE


@pytest.mark.parametrize("seconds", [5, 14])  # less, and more than what a Lease may go without being renewed
def test_an_api_server_that_is_away_ends_nothing(
    operators: Operators, kubectl: Kubectl, api_server: ControlPlane, seconds: int
) -> None:
    operator = leading(operators.start("a"))
    apply_dataset(kubectl, "before")
    eventually(lambda: read(kubectl, "job", "before-refresh"))
    api_server.kill_apiserver()
    try:
        time.sleep(seconds)
        assert operator.ask("healthz")[0] == 200
        assert operator.is_leader() is (seconds == 5)
    finally:
        api_server.start_apiserver()
    apply_dataset(kubectl, "after")
    eventually(lambda: read(kubectl, "job", "after-refresh"), seconds=30)
    assert operator.process.poll() is None


def test_a_database_that_is_away_ends_nothing(operators: Operators, kubectl: Kubectl, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "database", settings={"fsync": "off"}) as server:
        migrate(server.url())
        operators.database_url = server.url()
        operator = leading(operators.start("a"))
        server.stop()
        apply_dataset(kubectl, "bars")
        eventually(lambda: operator.metric("cappuccino_reconciles_total", result="retry") >= 1, seconds=30)
        assert operator.ask("healthz")[0] == 200
        assert read(kubectl, "job", "bars-refresh") == {}
        server.start()
        eventually(lambda: read(kubectl, "job", "bars-refresh"), seconds=30)
        assert operator.is_leader()


def test_its_passes_are_spans_of_the_trace_of_their_object(operators: Operators, kubectl: Kubectl) -> None:
    with receiving() as receiver:
        operator = leading(operators.start("a", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url))
        apply_dataset(kubectl, "bars")
        eventually(lambda: condition(read(kubectl, "dataset", "bars"), "Ready"))
        operator.end()
    uid = read(kubectl, "dataset", "bars")["metadata"]["uid"]
    made = next(span for span in receiver.named("reconcile") if "StartWorkload" in span.attributes["cappuccino.actions"])
    assert (made.service, made.attributes["cappuccino.kind"]) == ("cappuccino-operator", "Dataset")
    assert f"00-{made.trace_id}-{made.parent_id}-01" == traceparent(uid)


def test_it_waits_for_a_cluster_and_a_database_that_are_not_there_yet(
    operators: Operators, kubectl: Kubectl, api_server: ControlPlane, server: Any, database_url: str
) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"create database late_{operators.namespace.replace('-', '_')} template template0")
    operators.database_url = server.url(f"late_{operators.namespace.replace('-', '_')}")
    apply_dataset(kubectl, "bars")
    api_server.kill_apiserver()
    try:
        operator = operators.start("a")
        eventually(lambda: operator.report().get("waits_for") == "the cluster")
        assert (operator.ask("healthz")[0], operator.ask("readyz")[0]) == (200, 503)
    finally:
        api_server.start_apiserver()
    eventually(lambda: operator.ask("readyz")[0] == 200 and operator.report()["waits_for"] == "the database", seconds=30)
    migrate(operators.database_url)
    leading(operator)
    eventually(lambda: read(kubectl, "job", "bars-refresh"))
    assert {line["level"] for line in operator.lines() if line["event"] == "waits"} == {"warning"}


def test_it_writes_nothing_but_json_lines_and_no_secrets(operators: Operators, kubectl: Kubectl) -> None:
    operator = leading(operators.start("a"))
    apply_dataset(kubectl, "bars")
    eventually(lambda: read(kubectl, "job", "bars-refresh"))
    assert operator.end()[0] == 0
    lines = operator.lines()
    assert {line["process"] for line in lines} == {"operator"}
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []
    assert operators.plane.token not in operator.log.read_text()


def test_what_is_wrong_with_its_settings_ends_it_with_one_line(operators: Operators) -> None:
    operator = operators.start("a", CAPPUCCINO_PODS="/nowhere/pods.yaml")
    assert operator.process.wait(timeout=30) != 0
    assert "/nowhere/pods.yaml" in operator.log.read_text()
