"""Logs of pods: which pods are asked, with what, and what becomes of a refusal. The API server is a small one of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cappuccino.entrypoints.cli import main

Captured = pytest.CaptureFixture[str]
WORKLOAD = "cappuccino.dev/workload"


def pod(name: str, label: str, *, at: int, phase: str = "Running", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "desk", "creationTimestamp": f"2026-01-01T00:00:0{at}Z"}
    return {"metadata": {**metadata, "labels": {WORKLOAD: label, **labels}}, "status": {"phase": phase}}


class Server(ThreadingHTTPServer):
    """Pods and their logs; `asked` are the queries of logs, by pod."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pods = pods
        self.asked: list[tuple[str, dict[str, list[str]]]] = []

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        if path.endswith("/pods"):
            wanted = dict(pair.split("=") for pair in query["labelSelector"][0].split(","))
            found = [p for p in self.pods if wanted.items() <= p["metadata"]["labels"].items()]
            return 200, json.dumps({"metadata": {"resourceVersion": "1"}, "items": found}).encode()
        if "/traders/" in path:
            return 200, json.dumps({"spec": {"pod": "desk"} if path.endswith("/shares") else {}}).encode()
        name = path.split("/")[-2]
        self.asked.append((name, query))
        if name == "secret-0":
            status = {"kind": "Status", "message": 'pods "secret-0" is forbidden: User "bob" cannot get resource "pods/log"'}
            return 403, json.dumps(status).encode()
        return 200, f"{name}: ä line\n".encode()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        code, body = self.server.answer(url.path, parse_qs(url.query))
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    pods = [
        pod("s-00001-new", "trial.s-00001", at=2),
        pod("s-00001-old", "trial.s-00001", at=1, phase="Failed"),
        pod("waits", "trial.s-00002", at=1, phase="Pending"),
        pod("desk-gates-x", "deployment.desk.gates", at=1),
        pod("secret-0", "trader.secret", at=1),
        pod("desk-abc-0", "pod.desk", at=1),
        pod("ex-0", "", at=1, **{"app.kubernetes.io/name": "cappuccino", "app.kubernetes.io/component": "exchange"}),
    ]
    with Server(pods) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def kubeconfig(server: Server, tmp_path: Path) -> str:
    document = {
        "clusters": [{"name": "near", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "near", "user": "me", "namespace": "desk"}}],
        "current-context": "lab",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    return str(tmp_path / "kubeconfig")


def test_the_logs_of_every_attempt_are_shown_oldest_first(server: Server, kubeconfig: str, capsys: Captured) -> None:
    assert main(["logs", "trials/s-00001", "--tail", "20", "--kubeconfig", kubeconfig]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *("==> pod/s-00001-old <==", "s-00001-old: ä line", "==> pod/s-00001-new <==", "s-00001-new: ä line"),
    ]
    assert server.asked[0] == ("s-00001-old", {"container": ["worker"], "follow": ["false"], "tailLines": ["20"]})


def test_only_the_newest_is_followed(server: Server, kubeconfig: str, capsys: Captured) -> None:
    assert main(["logs", "trial/s-00001", "--follow", "--kubeconfig", kubeconfig]) == 0
    assert [(name, query["follow"]) for name, query in server.asked] == [("s-00001-old", ["false"]), ("s-00001-new", ["true"])]
    assert "tailLines" not in server.asked[0][1]


def test_a_deployments_are_those_of_its_gates_and_grades_and_the_exchange_has_one(
    server: Server, kubeconfig: str, capsys: Captured
) -> None:
    assert main(["logs", "mdep/desk", "--kubeconfig", kubeconfig]) == 0
    assert main(["logs", "exchange", "--kubeconfig", kubeconfig]) == 0
    assert capsys.readouterr().out.splitlines() == ["desk-gates-x: ä line", "ex-0: ä line"]
    assert "container" not in server.asked[-1][1]


def test_a_trader_that_shares_a_process_has_the_logs_of_its_pod(server: Server, kubeconfig: str, capsys: Captured) -> None:
    assert main(["logs", "trader/shares", "--kubeconfig", kubeconfig]) == 0
    assert capsys.readouterr().out.splitlines() == ["desk-abc-0: ä line"]


def test_what_has_not_begun_and_what_is_forbidden_are_said(server: Server, kubeconfig: str, capsys: Captured) -> None:
    assert main(["logs", "trial/s-00002", "--kubeconfig", kubeconfig]) == 2
    assert "trial/s-00002 has no pod that began in namespace desk" in capsys.readouterr().err
    assert main(["logs", "trader/secret", "--kubeconfig", kubeconfig]) == 2
    assert 'cannot get resource "pods/log"' in capsys.readouterr().err
