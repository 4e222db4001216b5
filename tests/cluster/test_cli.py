"""The command line against a real API server, as people with rights of their own; the controllers work in a thread."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from cappuccino.adapters.kubernetes.client import Client
from cappuccino.adapters.kubernetes.events import KubernetesEvents
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.entrypoints.cli import main
from cappuccino.reconcile.ports import Ports
from hack.cluster.control_plane import ControlPlane
from tests.unit.controllers import builders as build
from tests.unit.entrypoints.operating import Workloads, operating

from .conftest import Kubectl

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
DIGEST = "a" * 64


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody at a terminal: the command line with a kubeconfig of their own."""

    name: str
    kubeconfig: Path
    namespace: str
    capsys: Captured

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    def run(self, *argv: str) -> tuple[int, str]:
        """Exit code, and what was printed or said to be wrong."""
        code = main([*argv, "--kubeconfig", str(self.kubeconfig)])
        captured = self.capsys.readouterr()
        return code, (captured.out or captured.err).strip()

    def ok(self, *argv: str) -> str:
        code, said = self.run(*argv)
        assert code == 0, said
        return said


def person(kubectl: Kubectl, folder: Path, capsys: Captured, name: str, *verbs: str) -> Person:
    """A service account that may do `verbs` on our kinds; who may do anything may look at events and pods too."""
    kubectl.ok("create", "serviceaccount", name)
    if verbs:
        given = [f"--verb={verb}" for verb in verbs]
        kinds = [
            f"--resource={plural}.cappuccino.dev" for plural in ("datasets", "studies", "trials", "deployments", "traders")
        ]
        kubectl.ok("create", "role", name, *given, *kinds)
        kubectl.ok("create", "role", f"{name}-looks", "--verb=list", "--resource=events,pods")
        for role in (name, f"{name}-looks"):
            kubectl.ok("create", "rolebinding", role, f"--role={role}", f"--serviceaccount={kubectl.namespace}:{name}")
    config = yaml.safe_load(kubectl.kubeconfig.read_text())
    config["users"] = [{"name": name, "user": {"token": kubectl.ok("create", "token", name).strip()}}]
    cluster = config["clusters"][0]["name"]
    config["contexts"] = [{"name": "desk", "context": {"cluster": cluster, "user": name, "namespace": kubectl.namespace}}]
    config["current-context"] = "desk"
    file = folder / f"{name}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return Person(name=name, kubeconfig=file, namespace=kubectl.namespace, capsys=capsys)


@pytest.fixture
def ada(kubectl: Kubectl, tmp_path: Path, capsys: Captured) -> Person:
    return person(kubectl, tmp_path, capsys, "ada", "get", "list", "create", "patch", "delete")


@asynccontextmanager
async def ports(kubeconfig: Path, namespace: str, database_url: str) -> AsyncIterator[Ports]:
    """The operator's, with a record of its own and every trader running."""
    pool = await open_async_pool(database_url, "operator", max_size=2)
    try:
        async with await Client.connect(kubeconfig=str(kubeconfig)) as client:
            yield Ports(
                objects=KubernetesObjects(client, ClusterIndex(client, namespaces=[namespace])),
                workloads=Workloads(),
                record=PostgresRecord(pool),
                events=KubernetesEvents(client),
            )
    finally:
        await pool.close()


@pytest.fixture
def operator(api_server: ControlPlane, namespace: str, database_url: str) -> Iterator[None]:
    with operating(lambda: ports(api_server.kubeconfig, namespace, database_url)):
        yield


def applied(kubectl: Kubectl, document: dict[str, Any]) -> None:
    metadata = {"name": document["metadata"]["name"], "namespace": kubectl.namespace}
    kubectl.ok("apply", "-f", "-", stdin=json.dumps({**document, "metadata": metadata}))


def trader(kubectl: Kubectl, name: str) -> None:
    spec = {"bundleDigest": DIGEST, "account": name, "venue": {"kind": "simulated"}}
    applied(kubectl, {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Trader", "metadata": {"name": name}, "spec": spec})


def account(database_url: str, *names: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in names:
            connection.execute("insert into account (name, venue) values (%s, 'simulated')", [name])


def halted(database_url: str) -> dict[str, str | None]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        return dict(connection.execute("select name, halted_reason from account").fetchall())


def annotations(kubectl: Kubectl, what: str) -> dict[str, str]:
    found = json.loads(kubectl.ok("get", what, "-o", "json"))["metadata"]["annotations"]
    return {name.removeprefix("cappuccino.dev/"): value for name, value in found.items() if name.startswith("cappuccino.dev/")}


def test_a_halt_is_latched_in_the_record_in_the_name_of_who_asked(
    operator: None, kubectl: Kubectl, ada: Person, database_url: str
) -> None:
    trader(kubectl, "t-0")
    account(database_url, "t-0")
    for _ in range(2):  # the second has the same text
        assert ada.ok("halt", "t-0", "--reason", "odd spread") == "trader/t-0 halted"
        assert halted(database_url) == {"t-0": "odd spread"}
        said = annotations(kubectl, "mtd/t-0")
        assert (said["halt"], said["halted-by"]) == ("odd spread", ada.user)
        assert ada.ok("resume", "t-0", "--reason", "feed is back") == "trader/t-0 resumed"
        assert halted(database_url) == {"t-0": None}
        said = annotations(kubectl, "mtd/t-0")
        assert (said["resume"], said["resumed-by"]) == ("feed is back", ada.user)
    with psycopg.connect(database_url, autocommit=True) as connection:
        audited = connection.execute("select actor, action, body ->> 'reason' from audit order by seq").fetchall()
    assert audited == [(ada.user, "halt", "odd spread"), (ada.user, "resume", "feed is back")] * 2


def test_everybody_is_halted_at_once(operator: None, kubectl: Kubectl, ada: Person, database_url: str) -> None:
    names = [f"t-{number}" for number in range(5)]
    for name in names:
        trader(kubectl, name)
    account(database_url, *names[:4])  # the last has not started yet
    said = ada.ok("halt", "--all", "--reason", "maintenance").splitlines()
    assert sorted(said) == [f"trader/{name} halted" for name in names]
    assert halted(database_url) == dict.fromkeys(names[:4], "maintenance")


def test_what_the_operator_has_not_done_is_not_said_to_be_done(kubectl: Kubectl, ada: Person) -> None:
    for name in ("t-0", "t-1"):
        trader(kubectl, name)
    code, said = ada.run("halt", "--all", "--reason", "odd", "--timeout", "0.5")
    assert code == 75
    assert said.startswith("error: context desk: 2 traders are not known to be halted: ")
    assert "asked for, and not acted on within 0.5 s" in said
    assert [annotations(kubectl, f"mtd/{name}")["halt"] for name in ("t-0", "t-1")] == ["odd", "odd"]


def test_who_may_not_halt_is_told_which_permission_is_missing(kubectl: Kubectl, tmp_path: Path, capsys: Captured) -> None:
    trader(kubectl, "t-0")
    bob = person(kubectl, tmp_path, capsys, "bob", "get", "list")
    code, said = bob.run("halt", "t-0", "--reason", "odd")
    assert code == 2
    assert f'User "{bob.user}" cannot patch resource "traders"' in said
    assert "the chart's role <release>-halter holds it" in said
    nobody = person(kubectl, tmp_path, capsys, "nobody")
    code, said = nobody.run("get", "traders")
    assert code == 2
    assert 'cannot list resource "traders"' in said
    code, said = replace(nobody, kubeconfig=_with_token(nobody.kubeconfig, "wrong")).run("get", "traders")
    assert code == 2
    assert "Unauthorized" in said


def _with_token(kubeconfig: Path, token: str) -> Path:
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"]["token"] = token
    other = kubeconfig.with_suffix(".wrong")
    other.write_text(yaml.safe_dump(config))
    return other


def test_a_candidate_is_promoted_in_the_name_of_who_approved(
    operator: None, kubectl: Kubectl, ada: Person, database_url: str
) -> None:
    spec = {"bundles": [DIGEST], "traderTemplate": {"venue": {"kind": "simulated"}, "mode": "paper"}}
    applied(
        kubectl, {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "desk"}, "spec": spec}
    )
    uid = kubectl.ok("get", "mdep/desk", "-o", "jsonpath={.metadata.uid}")
    verdict = {"verdict": "Passed", "role": "candidate", "rank": 0, "number": 2, "kind": "trend"}
    rows = [("backtest", {}), ("soak", build.BAR), ("verdict", verdict), ("grade", build.BAR)]

    def write(gate: str, detail: dict[str, Any]) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "insert into evidence (bundle_digest, gate, gate_version, scope, deployment_uid, outcome, measured, threshold,"
                " message, detail) values (%s, %s, 1, 's', %s, 'Pass', 0.62, 0.6, 'fine', %s)",
                [DIGEST, gate, uid, json.dumps(detail)],
            )

    for gate, detail in rows[:-1]:
        write(gate, detail)
    code, said = ada.run("promote", "mdep/desk", "desk-00002", "--reason", "too eager")
    assert code == 2
    assert "grade has not been judged yet" in said
    write(*rows[-1])
    assert (
        ada.ok("promote", "mdep/desk", "desk-00002", "--reason", "read it") == f"desk-00002 was approved by {ada.user}: read it"
    )
    given = annotations(kubectl, "mdep/desk")
    assert (given["approve"], given["approved-by"], given["approve-reason"]) == ("desk-00002", ada.user, "read it")
    kubectl.ok("wait", "mdep/desk", "--for=condition=Promoted", "--timeout=10s")
    table = ada.ok("evidence", "mdep/desk").splitlines()
    assert table[1].split() == [DIGEST[:12], "backtest", "Pass", "0.62", "0.6", "-", "fine"]
    assert "candidate desk-00002  Promoted" in ada.ok("status", "deployments/desk")
    assert "Approved" in ada.ok("describe", "mdep/desk").partition("Events:")[2]


@pytest.fixture
def exec_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Path:
    """A kubectl whose `exec` runs here what it would run in the pod; the file has the arguments it was called with."""
    calls = tmp_path / "calls"
    script = tmp_path / "bin" / "kubectl"
    script.parent.mkdir()
    script.write_text(f"""#!/bin/sh
echo "$@" >> {calls}
while [ "$1" != "--" ]; do shift; done
shift 2
exec {sys.executable} "$@"
""")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", database_url)
    monkeypatch.setenv("CAPPUCCINO_ARTIFACTS_URL", (tmp_path / "artifacts").as_uri())
    return calls


def operator_pod(kubectl: Kubectl) -> None:
    labels = {"app.kubernetes.io/name": "cappuccino", "app.kubernetes.io/component": "operator"}
    spec = {"containers": [{"name": "operator", "image": "none"}], "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator-0", "labels": labels}, "spec": spec}
    kubectl.ok("create", "-f", "-", stdin=json.dumps(pod))
    kubectl.ok("patch", "pod/operator-0", "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Running"}}')


def test_what_needs_the_record_is_done_in_the_operators_pod(
    kubectl: Kubectl, ada: Person, exec_here: Path, database_url: str, tmp_path: Path
) -> None:
    code, said = ada.run("audit", "verify")
    assert code == 2
    assert "no operator runs in namespace" in said
    operator_pod(kubectl)
    assert ada.ok("audit", "verify").startswith("audit: 0 rows, unbroken")
    called = exec_here.read_text().splitlines()[-1]
    assert f"--context=desk --namespace={ada.namespace} --container=operator operator-0 -- python" in called
    spec = {"bundles": [DIGEST], "traderTemplate": {"venue": {"kind": "simulated"}, "mode": "paper"}}
    applied(
        kubectl, {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "desk"}, "spec": spec}
    )
    page = tmp_path / "page.html"
    assert ada.ok("report", "mdep/desk", "--out", str(page)) == f"{page}: made in the cluster"
    assert "No candidate was judged." in page.read_text()
    assert "deployment/none does not exist" in ada.run("report", "mdep/none", "--out", str(page))[1]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""select audit_append('me', 'halt', 'account/a', '{"reason": "x"}')""")
        connection.execute("alter table audit disable trigger all")
        connection.execute("""update audit set body = '{"reason": "y"}'""")
    code, said = ada.run("audit", "verify")
    assert code == 3  # as in the pod
    assert "audit: row 1 is not what was written" in said


def test_status_tells_why_everything_waits(kubectl: Kubectl, ada: Person) -> None:
    study = build.study().to_json() | {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Study"}
    applied(kubectl, study)
    waits = {
        "search-00000": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
        "search-00001": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
        "search-00002": "ImagePullBackOff: no such image",
    }
    for number, (name, why) in enumerate(waits.items()):
        document = build.trial(number).to_json()
        metadata = {"name": name, "namespace": kubectl.namespace, "labels": {"cappuccino.dev/study": "search"}}
        made = {**document, "apiVersion": "cappuccino.dev/v1alpha1", "kind": "Trial", "metadata": metadata}
        made.pop("status", None)
        kubectl.ok("apply", "-f", "-", stdin=json.dumps(made))
        told = {
            "workload": "Pending",
            "conditions": [{"type": "Complete", "status": "False", "reason": "Waiting", "message": why}],
        }
        kubectl.ok("patch", f"mtr/{name}", "--subresource=status", "--type=merge", "-p", json.dumps({"status": told}))
    status = {
        "trials": {"waiting": 3, "running": 0, "complete": 0, "pruned": 0, "failed": 0},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Searching", "message": "0 complete of 4"}],
    }
    kubectl.ok("patch", "mst/search", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    assert ada.ok("status", "studies/search").splitlines() == [
        "study/search  Searching: 0 complete of 4",
        "├─ dataset/market  does not exist: apply it",
        "└─ trials  3 waiting",
        f"   ├─ 2 waiting: search-00000, search-00001: {waits['search-00000']}",
        f"   └─ 1 waiting: search-00002: {waits['search-00002']}",
    ]


def test_objects_are_applied_listed_and_deleted_as_on_a_laptop(kubectl: Kubectl, ada: Person) -> None:
    folder = str(ROOT / "examples" / "quickstart")
    made = ada.ok("apply", "-f", folder).splitlines()
    assert made == ["dataset/quickstart created", "deployment/quickstart created", "study/quickstart created"]
    assert all(line.endswith(" unchanged") for line in ada.ok("apply", "-f", folder).splitlines())
    assert [line.split()[0] for line in ada.ok("get", "studies").splitlines()] == ["NAME", "quickstart"]
    assert "managedFields" not in ada.ok("get", "study/quickstart", "-o", "yaml")
    assert "trader/x is not in namespace" in ada.run("get", "trader/x")[1]
    assert "dataset/quickstart has no pod that began" in ada.run("logs", "dataset/quickstart")[1]
    assert ada.ok("delete", "-f", folder).splitlines()[0] == "dataset/quickstart deleted"
    assert ada.ok("get", "all") == f"no objects in namespace {kubectl.namespace}"
