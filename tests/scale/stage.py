"""What the scale run stands on: a real API server with its controllers, a real PostgreSQL, the operator as its image runs it.

Limits that are raised, because their defaults protect large clusters from many clients: controller-manager's --kube-api-qps and
--kube-api-burst, and how many Jobs, StatefulSets and dependents it works on at a time. There is no scheduler and no node.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
import yaml

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from hack.cluster import build
from hack.cluster.control_plane import LOOPBACK, ControlPlane
from tests.scale.counters import value

ROOT = Path(__file__).resolve().parents[2]
RAISED = (
    "--kube-api-qps=1000",
    "--kube-api-burst=2000",
    "--concurrent-job-syncs=20",
    "--concurrent-statefulset-syncs=20",
    "--concurrent-gc-syncs=40",
)
_PODS = {
    "images": {"train": "fake/train:1", "trader": "fake/trader:1"},
    "database": {"secret": "cappuccino-database"},
    "artifacts": {"url": "file:///artifacts", "claim": "cappuccino-artifacts"},
}


class Plane(ControlPlane):
    """Without a scheduler: nobody is to look for a node that is not there."""

    def start_controllers(self) -> None:
        self._start("controller-manager")
        self._await("/api/v1/namespaces/default/serviceaccounts/default")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of one process: seconds of CPU since it began, megabytes now and at most."""

    cpu_seconds: float
    rss_mb: float
    peak_mb: float


class Operator:
    """The process `kopf run operator/main.py`; `start` again after `kill` is the restart of a container in its pod."""

    def __init__(self, kubeconfig: Path, database_url: str, directory: Path) -> None:
        self._directory = directory
        port = _free_port()
        self._url = f"http://{LOOPBACK}:{port}"
        pods = directory / "pods.yaml"
        pods.write_text(yaml.safe_dump(_PODS))
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CAPPUCCINO_", "OTEL_"))},
            "KUBECONFIG": str(kubeconfig),
            "CAPPUCCINO_DATABASE_URL": database_url,
            "CAPPUCCINO_PODS": str(pods),
            "CAPPUCCINO_NAMESPACES": "default",
            "CAPPUCCINO_HEALTH": f"{LOOPBACK}:{port}",
            "POD_NAME": "operator-0",
            "POD_NAMESPACE": "default",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds from the start of the process until it is ready and has begun to reconcile."""
        began = time.monotonic()
        with (self._directory / "operator.log").open("ab") as log:
            self._process = subprocess.Popen(
                [ROOT / ".venv/bin/kopf", "run", "--standalone", "--namespace=default", "operator/main.py"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _wait("the operator leads", self._leads, within=120)
        return time.monotonic() - began

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=40)
            self.kill()

    def usage(self) -> Usage:
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        times = (proc / "stat").read_text().rpartition(")")[2].split()
        ticks = int(times[11]) + int(times[12])
        return Usage(
            cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
            rss_mb=int(fields["VmRSS"].split()[0]) / 1024,
            peak_mb=int(fields["VmHWM"].split()[0]) / 1024,
        )

    def metrics(self) -> str:
        return requests.get(f"{self._url}/metrics", timeout=30).text

    def _leads(self) -> bool:
        assert self._process is not None
        log = self._directory / "operator.log"
        assert self._process.poll() is None, f"the operator ended with code {self._process.returncode}: see {log}"
        try:
            ready = requests.get(f"{self._url}/readyz", timeout=5).status_code == 200
            return ready and value(self.metrics(), "cappuccino_leader") == 1.0
        except requests.RequestException:
            return False


@dataclass(frozen=True, kw_only=True)
class Stage:
    plane: ControlPlane
    database_url: str
    operator: Operator


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Everything up but the operator, which the caller starts; everything ends with the context."""
    with (
        Plane(directory / "plane", extra_controller_manager_flags=RAISED) as plane,
        EmbeddedServer(directory / "postgres") as server,
    ):
        kubectl = [build.kubectl(), f"--kubeconfig={plane.kubeconfig}", f"--cache-dir={directory / 'kubectl-cache'}"]
        for line in (["apply", "--server-side", "-f", ROOT / "crds"], ["wait", "--for=condition=Established", "crd", "--all"]):
            subprocess.run([*kubectl, *line], check=True, stdout=subprocess.DEVNULL)
        plane.start_controllers()  # after the kinds, which garbage collection then knows at once
        migrate(server.url())
        operator = Operator(plane.kubeconfig, server.url(), directory)
        try:
            yield Stage(plane=plane, database_url=server.url(), operator=operator)
        finally:
            operator.stop()


def _wait(what: str, test: Callable[[], bool], *, within: float) -> None:
    deadline = time.monotonic() + within
    while not test():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:g} s")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])
