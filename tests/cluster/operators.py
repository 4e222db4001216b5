"""The operator's process, as its image runs it, against the API server and a database of a test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from hack.cluster.control_plane import ControlPlane

MAIN = Path(__file__).parents[2] / "operator" / "main.py"
PODS = {
    "images": {"train": "cappuccino/train:test", "trader": "cappuccino/trader:test"},
    "serviceAccountName": "workload",
    "database": {"secret": "cappuccino-database"},
    "artifacts": {"url": "file:///artifacts", "claim": "cappuccino-artifacts"},
    "programs": {"ingest": {"requests": {"cpu": "250m"}}},
}


def eventually(holds: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """What `holds` answers as soon as it is true."""
    until = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.1)
    return answer


@dataclass
class OperatorProcess:
    """`log` is all that it has written."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    samples: dict[str, float] = field(default_factory=dict)

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"{self.url}/{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def report(self, path: str = "readyz") -> Mapping[str, Any]:
        body = self.ask(path)[1]
        return json.loads(body) if body else {}

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the samples of that name that carry these labels."""
        families = text_string_to_metric_families(self.ask("metrics")[1])
        found = [s for family in families for s in family.samples if s.name == name and labels.items() <= s.labels.items()]
        return sum(sample.value for sample in found)

    def is_leader(self) -> bool:
        return self.report().get("role") == "leader"

    def lines(self) -> list[dict[str, Any]]:
        """Its log; each line is one JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Exit code, and the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        return code, time.monotonic() - began


@dataclass
class Operators:
    """Starts them; all of them look at one namespace and one database."""

    plane: ControlPlane
    namespace: str
    database_url: str
    folder: Path
    started: list[OperatorProcess] = field(default_factory=list)

    def start(self, name: str, **environment: str) -> OperatorProcess:
        pods = self.folder / "pods.json"
        pods.write_text(json.dumps(PODS))
        port = _free_port()
        own = {
            "KUBECONFIG": str(self.plane.kubeconfig),
            "CAPPUCCINO_DATABASE_URL": self.database_url,
            "CAPPUCCINO_PODS": str(pods),
            "CAPPUCCINO_NAMESPACES": self.namespace,
            "CAPPUCCINO_HEALTH": f"127.0.0.1:{port}",
            "POD_NAME": name,
            "POD_NAMESPACE": self.namespace,
        }
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "kopf", "run", "--standalone", f"--namespace={self.namespace}", str(MAIN)],
                env={**os.environ, **own, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.started.append(OperatorProcess(name, process, f"http://127.0.0.1:{port}", log))
        return self.started[-1]

    def end(self) -> None:
        for operator in self.started:
            operator.process.kill()
            operator.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
