"""Halts through the dashboard's own process, a real API server and the chart's roles and policies: it may what the caller may.

hal halts, vera views, pat has the bare verb `patch`; all three are service accounts that ask with tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
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
from .helm import CHART, TRY, Helm
from .operators import eventually

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True, kw_only=True)
class Page:
    """The dashboard's process, and tokens of people."""

    url: str
    log: Path
    kubectl: Kubectl
    tokens: dict[str, str]

    def ask(self, who: str, what: str, reason: str, *, trader: str = "t-0", wait: float = 0) -> tuple[int, Any]:
        path = f"api/v1/namespaces/{self.kubectl.namespace}/traders/{trader}/{what}"
        bearer = {"Authorization": f"Bearer {self.tokens[who]}"}
        answer = requests.post(f"{self.url}/{path}", json={"reason": reason}, headers=bearer, params={"wait": wait}, timeout=60)
        return answer.status_code, answer.json() if "json" in answer.headers["Content-Type"] else answer.text

    def get(self, path: str, who: str = "") -> Any:
        bearer = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return requests.get(f"{self.url}/api/v1/{path}", headers=bearer, timeout=30).json()["items"]

    def user(self, name: str) -> str:
        return f"system:serviceaccount:{self.kubectl.namespace}:{name}"

    def stored(self) -> Any:
        return json.loads(self.kubectl.ok("get", "trader", "t-0", "-o", "json"))["metadata"]


@pytest.fixture
def desk(api_server: ControlPlane, kubectl: Kubectl) -> Iterator[Kubectl]:
    """The chart in a namespace, with one Trader."""
    for name in ("hal", "vera", "pat"):
        kubectl.ok("create", "serviceaccount", name)
    where = {"kind": "ServiceAccount", "namespace": kubectl.namespace}
    people = [
        f"--set-json=access.{role}=" + json.dumps([where | {"name": name}])
        for role, name in {"halters": "hal", "viewers": "vera"}.items()
    ]
    quiet = "--set=crds.enabled=false,database.embedded.persistence.enabled=false"
    Helm.of(api_server, kubectl.namespace).ok("install", "cap", CHART, "-f", TRY, quiet, *people)
    kubectl.ok("create", "role", "pat", "--verb=get,patch", "--resource=traders.cappuccino.dev")
    kubectl.ok("create", "rolebinding", "pat", "--role=pat", f"--serviceaccount={kubectl.namespace}:pat")
    trader = build.trader(spec={"account": "acct-0"}).to_json() | {"metadata": {"name": "t-0"}}
    kubectl.ok("create", "-f", "-", stdin=json.dumps(trader))
    pat = f"--as=system:serviceaccount:{kubectl.namespace}:pat"
    probe = ("annotate", "trader/t-0", "cappuccino.dev/halt=x", pat, "--dry-run=server")
    eventually(lambda: "needs the verb halt" in kubectl(*probe).stderr)
    yield kubectl
    kubectl.ok(
        *("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings"),
        *("-l", "app.kubernetes.io/instance=cap"),
    )


@pytest.fixture
def page(desk: Kubectl, api_server: ControlPlane, database_url: str, tmp_path: Path) -> Iterator[Page]:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("insert into account (name, venue) values ('acct-0', 'simulated')")
    own = {
        "CAPPUCCINO_DATABASE_URL": database_url,
        "CAPPUCCINO_API_SERVER": api_server.url,
        "CAPPUCCINO_API_SERVER_CA": str(api_server.ca),
    }
    log = tmp_path / "dashboard.log"
    command = [sys.executable, "-m", "cappuccino.entrypoints.worker", "dashboard", "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env={**os.environ, **own}, stdout=file, stderr=file)

    def port() -> int:
        said = [json.loads(line) for line in log.read_text().splitlines()]
        return next((line["port"] for line in said if line["event"] == "listening"), 0)

    tokens = {name: desk.ok("create", "token", name).strip() for name in ("hal", "vera", "pat")} | {"eve": "not.a.token"}
    try:
        yield Page(url=f"http://127.0.0.1:{eventually(port)}", log=log, kubectl=desk, tokens=tokens)
    finally:
        process.kill()
        process.wait()


def kubeconfig(page: Page, api_server: ControlPlane, folder: Path, name: str, token: str) -> Path:
    config = yaml.safe_load(api_server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    config["contexts"][0]["context"]["namespace"] = page.kubectl.namespace
    file = folder / f"{name}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture
def operator(page: Page, api_server: ControlPlane, database_url: str, tmp_path: Path) -> Iterator[None]:
    """The controllers, with the rights that the chart gives the operator."""
    token = page.kubectl.ok("create", "token", "cap-cappuccino-operator").strip()
    config = kubeconfig(page, api_server, tmp_path, "operator", token)

    @asynccontextmanager
    async def ports() -> AsyncIterator[Ports]:
        pool = await open_async_pool(database_url, "operator", max_size=2)
        try:
            async with await Client.connect(kubeconfig=str(config)) as client:
                yield Ports(
                    objects=KubernetesObjects(client, ClusterIndex(client, namespaces=[page.kubectl.namespace])),
                    workloads=Workloads(),
                    record=PostgresRecord(pool),
                    events=KubernetesEvents(client),
                )
        finally:
            await pool.close()

    with operating(ports):
        yield


def test_who_may_halt_halts_and_resumes_and_a_page_can_show_it(operator: None, page: Page) -> None:
    hal = page.user("hal")
    status, said = page.ask("hal", "halt", "odd spread", wait=20)
    assert status == 200, said
    assert (said["asked"], said["by"], said["trader"]["halted_reason"]) == ("halt", hal, "odd spread")
    (account,) = page.get("accounts")
    assert (account["halted_reason"], account["halted_by"]) == ("odd spread", hal)
    (trader,) = page.get(f"namespaces/{page.kubectl.namespace}/traders", "vera")
    assert (trader["name"], trader["account"], trader["on_halt"]) == ("t-0", "acct-0", "cancel")
    assert trader["halt"] == {"reason": "odd spread", "by": hal, "at": trader["halt"]["at"], "acted_on": True}
    status, said = page.ask("hal", "resume", "feed is back", wait=20)
    assert (status, said["trader"]["halted_reason"]) == (200, None), said
    assert page.ask("hal", "resume", "again", wait=5) == (409, {"error": "trader/t-0 is not halted: there is nothing to lift"})
    assert page.get("accounts")[0]["halted_by"] is None


def test_who_may_not_is_refused_in_the_clusters_words_and_nothing_changes(page: Page) -> None:
    before = page.stored()
    for what in ("halt", "resume"):
        page.kubectl.ok(
            "patch", "trader", "t-0", "--subresource=status", "--type=merge", "-p", '{"status":{"haltedReason":"x"}}'
        )
        before = page.stored()
        status, said = page.ask("vera", what, "odd")
        assert status == 403
        assert f'User "{page.user("vera")}" cannot patch resource "traders"' in said["error"]
        assert "the chart's role <release>-halter holds it" in said["error"]
        status, said = page.ask("pat", what, "odd")
        assert status == 403
        assert (
            f"annotation cappuccino.dev/{what} needs the verb {what} on traders.cappuccino.dev: ask for the role"
            in said["error"]
        )
        assert page.ask("eve", what, "odd")[0] == 401
    assert page.ask("hal", "halt", "odd", trader="t-9")[0] == 404
    assert page.ask("pat", "halt", "odd", trader="..%2F..%2Fsecrets")[0] == 404
    assert page.stored() == before
    status, said = page.ask("hal", "halt", "odd")  # the same request of one who may
    assert (status, said["by"]) == (202, page.user("hal"))
    assert page.stored()["annotations"]["cappuccino.dev/halt"] == "odd"
    text = page.log.read_text()
    assert '"asked"' in text
    assert not [who for who, token in page.tokens.items() if token in text]


def test_each_way_to_halt_and_resume_is_audited_with_who_and_why(
    operator: None,
    page: Page,
    api_server: ControlPlane,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By annotation, by the plugin, over HTTP; and by the command line beside the record, as tests/unit does as well."""
    hal, config = page.user("hal"), kubeconfig(page, api_server, tmp_path, "hal", page.tokens["hal"])
    kubectl = replace(page.kubectl, kubeconfig=config)

    def annotated(what: str, reason: str) -> None:
        by = {"halt": "halted-by", "resume": "resumed-by"}[what]
        kubectl.ok("annotate", "trader/t-0", "--overwrite", f"cappuccino.dev/{what}={reason}", f"cappuccino.dev/{by}={hal}")

    def plugin(what: str, reason: str) -> None:
        monkeypatch.setattr(sys, "argv", ["kubectl-cappuccino"])
        assert main([what, "t-0", "--reason", reason, "--kubeconfig", str(config)]) == 0

    def posted(what: str, reason: str) -> None:
        assert page.ask("hal", what, reason, wait=20)[0] == 200

    told = "jsonpath={.status.haltedReason}"
    ways: dict[str, Callable[[str, str], None]] = {"annotation": annotated, "plugin": plugin, "http": posted}
    for name, way in ways.items():
        way("halt", f"{name} says stop")
        eventually(lambda: page.get("accounts")[0]["halted_reason"])
        eventually(lambda: page.kubectl.ok("get", "trader", "t-0", "-o", told))  # what a resume lifts
        way("resume", f"{name} says go")
        eventually(lambda: not page.get("accounts")[0]["halted_reason"])
        eventually(lambda: not page.kubectl.ok("get", "trader", "t-0", "-o", told))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["cappuccino"])
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", database_url)
    assert main(["audit", "verify", "--rows", "9"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("audit: 6 rows, unbroken")
    assert [row.split("  ")[2:] for row in rows] == [
        [hal, action, "account/acct-0", f"{name} says {word}"]
        for name in ways
        for action, word in (("halt", "stop"), ("resume", "go"))
    ]
