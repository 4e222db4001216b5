"""A bare Kubernetes API for tests: etcd and kube-apiserver, and the controllers where they are wanted, on loopback.

    with ControlPlane(directory) as plane:
        ...  # plane.kubeconfig, or plane.url with plane.token and plane.ca

The parts are children that end with this process, however it ends. Nothing is kept: leaving kills them. A part may be
killed and started again on the same port and data while the others run, which is how tests make faults.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from cappuccino.core.errors import RetryLater
from hack.cluster import credentials, parts
from hack.cluster.api import Api, wait
from hack.cluster.build import binary

LOOPBACK = "127.0.0.1"


class ControlPlane:
    """`directory` gets the data, the credentials, `kubeconfig` and `logs/`. Enter to start, leave to end."""

    def __init__(
        self,
        directory: Path,
        *,
        controllers: bool = False,
        extra_apiserver_flags: Sequence[str] = (),
        extra_controller_manager_flags: Sequence[str] = (),
    ) -> None:
        apiserver_port, etcd_port, etcd_peer_port = _free_ports(3)
        self._plane = parts.Plane(
            directory=directory,
            address=LOOPBACK,
            apiserver_port=apiserver_port,
            etcd_port=etcd_port,
            etcd_peer_port=etcd_peer_port,
        )
        self._controllers = controllers
        self._command_lines = {
            "etcd": parts.etcd(self._plane),
            "apiserver": [*parts.apiserver(self._plane, nodes=False), *extra_apiserver_flags],
            "controller-manager": [*parts.controller_manager(self._plane), *extra_controller_manager_flags],
            "scheduler": parts.scheduler(self._plane),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._suspended: set[str] = set()
        self.kubeconfig = directory / "kubeconfig"
        self.ca = self._plane.credentials / "ca.crt"

    @property
    def url(self) -> str:
        return self._plane.url

    @property
    def token(self) -> str:
        return credentials.token(self._plane.credentials)

    def __enter__(self) -> ControlPlane:
        binary("kube")
        (self._plane.directory / "logs").mkdir(parents=True, exist_ok=True)
        credentials.write(self._plane.credentials, [LOOPBACK])
        credentials.kubeconfig(self._plane.credentials, self.kubeconfig, url=self.url)
        for part in parts.LEADERS:
            user = f"system:kube-{part}"
            credentials.kubeconfig(self._plane.credentials, self._plane.kubeconfig(part), url=self.url, user=user)
        try:
            self._start("etcd")
            self.start_apiserver()
            if self._controllers:
                self.start_controllers()
        except BaseException:
            self._kill(*parts.LEADERS, "apiserver", "etcd")
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kill(*parts.LEADERS, "apiserver", "etcd")

    def start_controllers(self) -> None:
        """Start controller-manager and scheduler, and wait until the namespace `default` has its service account."""
        self._start(*parts.LEADERS)
        self._await("/api/v1/namespaces/default/serviceaccounts/default")

    def start_apiserver(self) -> None:
        """Start it and wait until it serves the namespace `default`."""
        self._start("apiserver")
        self._await("/readyz")
        self._await("/api/v1/namespaces/default")
        self._resume()

    def kill_apiserver(self) -> None:
        self._suspend("apiserver")

    def start_etcd(self) -> None:
        """Start it on the data it had. The API server finds it again by itself."""
        self._start("etcd")
        if "apiserver" in self._processes:
            self._await("/readyz")
            self._resume()

    def kill_etcd(self) -> None:
        self._suspend("etcd")

    def _suspend(self, part: str) -> None:
        """Kill it, and the leaders, which would end without it."""
        self._suspended |= self._processes.keys() & set(parts.LEADERS)
        self._kill(part, *self._suspended)

    def _resume(self) -> None:
        self._start(*self._suspended)
        self._suspended.clear()

    def _start(self, *wanted: str) -> None:
        for part in wanted:
            if part in self._processes and self._processes[part].poll() is None:
                continue
            with self._log(part).open("ab") as log:
                self._processes[part] = subprocess.Popen(
                    [binary("kube"), *self._command_lines[part]],
                    stdin=subprocess.PIPE,  # closes with this process, and the part ends with it
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "KUBE_END_WITH_STDIN": "1"},
                    start_new_session=True,
                )

    def _kill(self, *wanted: str) -> None:
        for part in wanted:
            process = self._processes.pop(part, None)
            if process is not None:
                process.kill()
                process.communicate()

    def _await(self, path: str) -> None:
        """Wait until a GET of the path succeeds while all parts run."""
        api = Api(url=self.url, ca=self.ca, token=self.token)

        def served() -> bool:
            for part, process in self._processes.items():
                if process.poll() is not None:
                    raise RetryLater(f"{part} ended with code {process.returncode}: {_last_lines(self._log(part))}")
            return bool(api.get(path))

        wait(f"{self.url}{path}", served, see=self._log("apiserver"))

    def _log(self, part: str) -> Path:
        return self._plane.directory / "logs" / f"{part}.log"


def _free_ports(number: int) -> list[int]:
    """Ports below those that the kernel gives to outgoing connections, which could take the port of a part that is down."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < number:
            probe = held.enter_context(socket.socket())
            port = 20_000 + secrets.randbelow(10_000)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                ports.append(port)
        return ports


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
