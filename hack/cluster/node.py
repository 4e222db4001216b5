"""A cluster of one node without Docker: the control plane and the kubelet in namespaces of their own.

`up` may be called in any state: it makes what lacks, starts what does not run, and waits until the node is ready and names
resolve. `down` may be called in any state: afterwards nothing is left. A part can be killed and started again on the data
it had, for tests of faults; nothing starts it again by itself. `witness` is a second node that takes no pods: without it
the loss of the only node would evict nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cappuccino.core.errors import NotFound
from hack.cluster import configuration, credentials, images, namespaces, parts, requirements
from hack.cluster.api import Api, wait
from hack.cluster.build import binary, kubectl
from hack.cluster.cache import say
from hack.cluster.namespaces import Namespaces
from hack.cluster.parts import Plane

CTR = ("ctr", "--address", configuration.SOCKET, "--namespace", "k8s.io")
PROXY_READY_PORT = 10256
FIRST = ("etcd", "apiserver", "containerd")  # the others need them when they start
USERS = {  # part -> as whom it speaks to the API server
    "controller-manager": "system:kube-controller-manager",
    "scheduler": "system:kube-scheduler",
    "kubelet": f"system:node:{credentials.NODE_NAME}",
    "kube-proxy": "system:kube-proxy",
    "coredns": "system:coredns",
    "witness": f"system:node:{credentials.WITNESS_NAME}",
}
PARTS = (*FIRST, *USERS)


class Node:
    """The node whose files are in `directory`, which exists exactly as long as its namespaces."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self._found = namespaces.find(directory)

    @property
    def namespaces(self) -> Namespaces:
        if self._found is None:
            raise NotFound(f"no cluster runs in {self.directory}: start it with `make cluster`")
        return self._found

    def exists(self) -> bool:
        return self._found is not None

    def up(self) -> None:
        requirements.check(self.directory)
        for program in ("kube", "pause", "coredns"):
            binary(program)
        if self._found and not self.kubeconfig.exists():
            say("it was left unfinished, or its files are gone: starting anew")
            self.down()
        if self._found is None:
            shutil.rmtree(self.directory, ignore_errors=True)  # a crash has ended its pods, so the record that is left is wrong
            (self.directory / "logs").mkdir(parents=True)
            self._found = namespaces.create(self.directory, configuration.resolv_conf())
            self._write_files()
        stopped = [part for part in PARTS if not self.pids(part)]
        say(f"starting {', '.join(stopped)}" if stopped else "all parts run already")
        self._start(*FIRST)
        self._create_objects()
        self._start(*USERS)

    def down(self) -> None:
        requirements.check_rights()
        if self._found is not None:
            namespaces.destroy(self._found)
            self._found = None
        namespaces.sweep()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)

    def start(self, part: str) -> None:
        self._start(part, *parts.LEADERS if part in parts.LEASE_KEEPERS else ())

    def stop(self, part: str) -> None:
        """Kill it, as a crash would."""
        for name in (part, *parts.LEADERS) if part in parts.LEASE_KEEPERS else (part,):
            for pid in self.pids(name):
                os.kill(pid, signal.SIGKILL)
            wait(f"the end of {name}", partial(lambda name: not self.pids(name), name), seconds=10, see=self._log(name))

    def pids(self, part: str) -> list[int]:
        return self.namespaces.find(*self._command(part)[:2])

    def report(self) -> list[str]:
        """One line for each part; a part that does not run is `stopped`."""
        if self._found is None:
            return []
        return [
            f"{part}: {' '.join(['running,', 'pid', *map(str, found)]) if (found := self.pids(part)) else 'stopped'}"
            for part in PARTS
        ]

    def load_image(self, archive: Path) -> None:
        with archive.open("rb") as content:  # by a pipe: inside, the path may mean something else
            subprocess.run(self.namespaces.command(*CTR, "images", "import", "-"), stdin=content, stdout=sys.stderr, check=True)

    def _write_files(self) -> None:
        plane = self._plane
        credentials.write(plane.credentials, [plane.address, "127.0.0.1", parts.KUBERNETES_SERVICE])
        for part, user in USERS.items():
            credentials.kubeconfig(plane.credentials, plane.kubeconfig(part), url=plane.url, user=user)
        configuration.write(plane, self.namespaces.slot)
        credentials.kubeconfig(plane.credentials, self.kubeconfig, url=plane.url)  # last: it says that all the rest is there

    def _start(self, *wanted: str) -> None:
        """Start those that do not run, then wait for each."""
        for part in wanted:
            if not self.pids(part):
                self.namespaces.spawn(self._log(part), *self._command(part))
        for part in wanted:
            if part in self._ready:
                wait(part, self._ready[part], see=self._log(part))

    def _create_objects(self) -> None:
        archive = self.directory / "pause.tar"
        images.archive(archive, configuration.PAUSE_IMAGE, {"/pause": binary("pause").read_bytes()}, entrypoint=["/pause"])
        self.load_image(archive)
        objects = self.directory / "configuration/objects.yaml"
        command = [kubectl(), "--kubeconfig", str(self.kubeconfig), "apply", "--server-side", "-f", str(objects)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def _command(self, part: str) -> list[str]:
        plane, files = self._plane, self.directory / "configuration"
        kube = str(binary("kube"))
        match part:
            case "etcd":
                return [kube, *parts.etcd(plane)]
            case "apiserver":
                return [kube, *parts.apiserver(plane, nodes=True)]
            case "controller-manager":
                return [kube, *parts.controller_manager(plane)]
            case "scheduler":
                return [kube, *parts.scheduler(plane)]
            case "containerd":
                return ["containerd", "--config", str(files / "containerd.toml")]
            case "kubelet":
                return [kube, *configuration.kubelet(plane)]
            case "kube-proxy":
                return [kube, *configuration.kube_proxy(plane)]
            case "coredns":
                return [str(binary("coredns")), "-conf", str(files / "Corefile")]
            case "witness":
                return [kube, "witness", str(plane.kubeconfig(part)), credentials.WITNESS_NAME]
        raise NotFound(f"no part {part!r}: name one of {', '.join(PARTS)}")

    @property
    def _plane(self) -> Plane:
        return Plane(directory=self.directory, address=self.namespaces.address)

    @property
    def _ready(self) -> dict[str, Callable[[], bool]]:
        plane = self._plane
        api = Api(url=plane.url, ca=plane.credentials / "ca.crt", token=credentials.token(plane.credentials))

        def node_ready(name: str) -> bool:
            conditions = api.get(f"/api/v1/nodes/{name}")["status"]["conditions"]
            return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

        return {
            "containerd": lambda: subprocess.run(self.namespaces.command(*CTR, "version"), capture_output=True).returncode == 0,
            "apiserver": lambda: bool(api.get("/readyz") and api.get("/api/v1/namespaces/kube-system")),
            "controller-manager": lambda: bool(api.get("/api/v1/namespaces/default/serviceaccounts/default")),
            "kubelet": lambda: node_ready(credentials.NODE_NAME),
            "witness": lambda: node_ready(credentials.WITNESS_NAME),
            "kube-proxy": lambda: _answers(f"http://{plane.address}:{PROXY_READY_PORT}/healthz"),
            "coredns": lambda: _answers(f"http://{plane.address}:{configuration.DNS_READY_PORT}/ready"),
        }

    def _log(self, part: str) -> Path:
        return self.directory / f"logs/{part}.log"


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5):
        return True
