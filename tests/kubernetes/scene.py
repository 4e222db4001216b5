"""A release of the chart on a real cluster, as a person with kubectl and helm sees it, and what must be true of it always.

Commands are the real ones. Processes inside containers are found and killed from the node, as a crash would.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import requests
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "e2e"
PATIENCE = 240.0
# What the parts may say when something was broken on purpose, beside errors that name what they wait for.
EXPECTED_TROUBLE = re.compile(
    r"is away|again in|RetryLater|Cannot connect|Connection refused|Server disconnected|timed out|stopped"
)


def run(
    *command: str | Path, check: bool = True, text: str | None = None, within: float = 900
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, cwd=ROOT, timeout=within, check=False
    )
    if check and done.returncode:
        shown = " ".join(str(part) for part in command)
        raise AssertionError(f"{shown}\nexit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def eventually(what: str, test: Callable[[], Any], *, within: float = PATIENCE, every: float = 0.5) -> Any:
    """The first true answer of `test`; what it last said, or failed with, when there is none."""
    deadline, last = time.monotonic() + within, None
    while time.monotonic() < deadline:
        try:
            last = test()
        except (AssertionError, OSError, requests.RequestException, psycopg.Error, subprocess.TimeoutExpired) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every)
    raise AssertionError(f"{what}: not within {within:g} s; last: {last!r}")


@dataclass
class Scene:
    """`release` in `namespace` of the cluster behind `kubeconfig`."""

    kubeconfig: Path
    helm_binary: Path
    tag: str
    namespace: str = "cappuccino"
    release: str = "cappuccino"
    values: Mapping[str, Any] = field(default_factory=dict)

    # --- commands -----------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, check: bool = True, text: str | None = None, within: float = 600) -> str:
        command = ("kubectl", "--kubeconfig", self.kubeconfig, "--namespace", self.namespace, *arguments)
        return run(*command, check=check, text=text, within=within).stdout

    def helm(self, *arguments: str, check: bool = True, within: float = 900) -> subprocess.CompletedProcess[str]:
        return run(
            self.helm_binary,
            "--kubeconfig",
            self.kubeconfig,
            "--namespace",
            self.namespace,
            *arguments,
            check=check,
            within=within,
        )

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The plugin, as kubectl starts it."""
        plugin = Path(sys.executable).with_name("kubectl-cappuccino")
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            [str(plugin), *arguments, "--namespace", self.namespace],
            capture_output=True, text=True, env=environment, timeout=300, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def apply(self, *documents: Mapping[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        chosen = ("--selector", selector) if selector else ()
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, *chosen, "-o", "json"))
        return list(found["items"])

    def condition(self, kind: str, name: str, type: str) -> dict[str, Any]:  # noqa: A002 - the API's word
        conditions = self.get(kind, name).get("status", {}).get("conditions", ())
        return next((c for c in conditions if c["type"] == type), {})

    def is_true(self, kind: str, name: str, type: str) -> bool:  # noqa: A002
        return bool(self.condition(kind, name, type).get("status") == "True")

    # --- the release --------------------------------------------------------------------------------

    def values_file(self) -> Path:
        path = FOLDER / "values.yaml"
        path.write_text(yaml.safe_dump(dict(self.values)))
        return path

    def install(self, *arguments: str) -> None:
        chart = ROOT / "charts" / "cappuccino"
        self.helm(
            "upgrade", "--install", self.release, str(chart), "--values", str(self.values_file()), "--wait", "--timeout", "6m",
            *arguments,
        )  # fmt: skip

    def pods(self, component: str) -> list[dict[str, Any]]:
        return self.list("pods", f"app.kubernetes.io/component={component}")

    # --- crashes ------------------------------------------------------------------------------------

    def processes(self, *words: str) -> list[int]:
        """Processes in the cluster's containers whose command line has all of `words`."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                inside = os.readlink(entry / "ns" / "mnt") != os.readlink("/proc/self/ns/mnt")
            except OSError:
                continue
            if inside and all(any(word in part for part in line) for word in words):
                found.append(int(entry.name))
        return sorted(found)

    def kill(self, *words: str, number: int = signal.SIGKILL) -> int:
        """Kill one such process as soon as there is one; its pid."""
        pid: int = eventually(f"a process with {words}", lambda: self.processes(*words), every=0.05)[0]
        os.kill(pid, number)
        return pid

    def part(self, verb: str, name: str) -> None:
        """Stop or start a part of the cluster itself."""
        run(sys.executable, "-m", "hack.cluster", verb, name)

    # --- what is true -------------------------------------------------------------------------------

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """A local port of a Service."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            local = int(probe.getsockname()[1])
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace]
        with subprocess.Popen(
            [*command, "port-forward", f"service/{service}", f"{local}:{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as forward:
            try:
                assert forward.stdout is not None
                assert b"Forwarding" in forward.stdout.readline(), f"no forwarding to {service}"
                yield local
            finally:
                forward.terminate()

    def secret(self, name: str, key: str) -> str:
        return base64.b64decode(self.get("secret", name)["data"][key]).decode()

    @contextmanager
    def record(self) -> Iterator[str]:
        """The record's URL for the operator's role."""
        url = self.secret(f"{self.release}-database-admin", "operator")
        with self.forwarded(f"{self.release}-database", 5432) as port:
            yield re.sub(r"@[^/]+/", f"@127.0.0.1:{port}/", url)

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with self.record() as url, psycopg.connect(url) as connection:
            connection.execute("set role cappuccino_operator")
            return list(connection.execute(statement.encode(), list(arguments)).fetchall())

    def exchange(self, path: str) -> dict[str, Any]:
        token = self.secret(f"{self.release}-exchange", "token")
        with self.forwarded(f"{self.release}-exchange", 8700) as port:
            answer = requests.get(
                f"http://127.0.0.1:{port}/control/v1/{path}", headers={"Authorization": f"Bearer {token}"}, timeout=10
            )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def assert_books_agree(self, trader: str) -> int:
        """Every fill of the exchange up to its present instant is in the record as it is there, and no other up to then.

        Returns:
            The number of fills.
        """
        account = self.get("trader", trader)["spec"]["account"]
        theirs = {row["execution_id"]: row for row in self.exchange(f"accounts/{account}/ledger")["fills"]}
        newest = max((_instant(row["at"]) for row in theirs.values()), default=datetime(1970, 1, 1, tzinfo=UTC))

        def settled() -> bool:
            statement = "select execution_id, qty, price, fee from fill where account = %s and filled_at <= %s"
            ours = {row[0]: row[1:] for row in self.rows(statement, account, newest)}
            assert ours.keys() == theirs.keys(), f"{trader}: {sorted(ours.keys() ^ theirs.keys())[:5]} on one side only"
            for key, numbers in ours.items():
                assert numbers == tuple(Decimal(str(theirs[key][name])) for name in ("qty", "price", "fee")), (trader, key)
            return True

        eventually(f"the books of {trader} agree", settled, within=60, every=1)
        return len(theirs)

    def assert_trials_whole(self, study: str, *, once: bool = False) -> None:
        """Every trial of the budget has one row and one result, and nothing of it runs any more; with `once`, each was started
        once."""
        document = self.get("study", study)
        uid, budget = document["metadata"]["uid"], document["spec"]["budget"]["trials"]
        (counted,) = self.rows(
            "select count(*), count(distinct t.number), count(r.number), max(t.number)"
            " from trial t left join trial_result r using (study_uid, number) where t.study_uid = %s and t.state = 'Complete'",
            uid,
        )
        assert counted == (budget, budget, budget, budget - 1)
        assert document["status"]["trials"]["complete"] == budget

        def jobs() -> list[str]:
            names = [job["metadata"]["name"] for job in self.list("jobs", "app.kubernetes.io/component=train")]
            return [name for name in names if name.startswith(f"{study}-")]

        eventually("its Jobs are forgotten", lambda: jobs() == [], within=60)
        if once:
            trials = self.list("trials", f"cappuccino.dev/study={study}")
            assert [trial["status"]["attempts"] for trial in trials] == [1] * budget

    def logs_since(self, began: datetime) -> list[str]:
        """Error lines of the release's own parts, other than what breaking something on purpose explains."""
        bad = []
        for pod in self.list("pods", "app.kubernetes.io/name=cappuccino"):
            name = pod["metadata"]["name"]
            text = self.kubectl("logs", name, "--all-containers", f"--since-time={began.isoformat()}", check=False)
            for line in text.splitlines():
                if ('"level": "error"' in line or "Traceback" in line) and not EXPECTED_TROUBLE.search(line):
                    bad.append(f"{name}: {line[:500]}")
        return bad


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
