"""The same cluster by kind, where a Docker engine answers. kind is taken from PATH, else built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from cappuccino.core.errors import NotFound
from hack.cluster.build import binary

NAME = "cappuccino"
CONFIGURATION = Path(__file__).resolve().parents[1] / "kind.yaml"
MANIFESTS = "/etc/kubernetes/manifests"
SERVICES = ("kubelet", "containerd")
STATIC_PODS = ("etcd", "apiserver", "controller-manager", "scheduler")


def docker_answers() -> bool:
    return bool(shutil.which("docker")) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


class Kind:
    """The cluster `cappuccino` of kind; its kubeconfig is in `directory`, and no other is touched."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"

    def exists(self) -> bool:
        listed = subprocess.run([_kind(), "get", "clusters"], capture_output=True, text=True, check=True)
        return NAME in listed.stdout.split()

    def up(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.exists():
            self._run("export", "kubeconfig")
        else:
            self._run("create", "cluster", "--config", str(CONFIGURATION), "--wait", "120s")

    def down(self) -> None:
        self._run("delete", "cluster")
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self, part: str) -> None:
        self._switch(part, "stop", [f"{MANIFESTS}/{_pod(part)}", f"/etc/kubernetes/{_pod(part)}"])

    def start(self, part: str) -> None:
        self._switch(part, "start", [f"/etc/kubernetes/{_pod(part)}", f"{MANIFESTS}/{_pod(part)}"])

    def report(self) -> list[str]:
        return ["kind: running"] if self.exists() else []

    def load_image(self, archive: Path) -> None:
        subprocess.run([_kind(), "load", "image-archive", str(archive), "--name", NAME], check=True)

    def _switch(self, part: str, verb: str, move: list[str]) -> None:
        if part in SERVICES:
            container, command = f"{NAME}-worker", ["systemctl", verb, part]
        elif part in STATIC_PODS:
            container, command = f"{NAME}-control-plane", ["mv", *move]  # the kubelet runs what is in that folder
        else:
            raise NotFound(f"kind cannot {verb} {part!r}: name one of {', '.join((*SERVICES, *STATIC_PODS))}")
        subprocess.run(["docker", "exec", container, *command], check=True)

    def _run(self, *command: str) -> None:
        subprocess.run([_kind(), *command, "--name", NAME, "--kubeconfig", str(self.kubeconfig)], stdout=sys.stderr, check=True)


def _pod(part: str) -> str:
    return f"{part}.yaml" if part == "etcd" else f"kube-{part}.yaml"


def _kind() -> str:
    return shutil.which("kind") or str(binary("kind"))
