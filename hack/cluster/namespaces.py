"""The node: namespaces of its own, held by a process `pause` that is process 1 inside.

Mounts, interfaces, iptables rules, pods and the processes of Kubernetes live and die with that process: to kill it is to
remove them, after a crash as well as in order. It is found by its command line, so no file has to say where it is; what
is left on the machine (see `uplink` and `cgroups`) is found by its name.

Inside, /run and the folders with fixed names that containers need are the node's own; the rest of the file system is
the machine's, so volumes of type hostPath mean the machine's paths.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cappuccino.core import processes
from cappuccino.core.errors import RetryLater
from hack.cluster import cgroups, uplink
from hack.cluster.build import binary

PROC = Path("/proc")
MARK = "cappuccino-node"
MOUNT_POINTS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"))  # made on the machine where they lack, and stay empty there
OWN_FOLDERS = {"/var/lib/kubelet": "kubelet", "/var/lib/cni": "cni", "/var/log": "logs/node"}  # inside -> below the directory
START_SECONDS = END_SECONDS = 10


@dataclass(frozen=True)
class Namespaces:
    """`init` is the pid, seen from the machine, of the process that holds them."""

    slot: int
    init: int

    @property
    def address(self) -> str:
        return uplink.node_address(self.slot)

    def command(self, *command: str | Path) -> list[str]:
        """The command line that runs a command inside."""
        return ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--", *map(str, command)]

    def run(self, *command: str | Path) -> None:
        subprocess.run(self.command(*command), check=True)

    def spawn(self, log: Path, *command: str | Path) -> None:
        """Start a process inside that this one does not own."""
        with log.open("ab") as output:
            subprocess.run(
                ["setsid", "--fork", *self.command(*command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=True,
            )

    def find(self, program: str, argument: str) -> list[int]:
        """Pids of the node's own processes (not the pods') that run this program, in any version, with this first argument."""
        wanted, namespace = [Path(program).name, argument], _pid_namespace(self.init)
        return [
            pid
            for pid, words in _command_lines()
            if [Path(words[0]).name, *words[1:2]] == wanted and _pid_namespace(pid) == namespace
        ]


def find(directory: Path) -> Namespaces | None:
    """The node whose state is in the directory, if it runs."""
    for pid, words in _command_lines():
        if len(words) == 4 and words[1] == MARK and words[3] == str(directory):
            return Namespaces(slot=int(words[2]), init=pid)
    return None


def create(directory: Path, resolv_conf: str) -> Namespaces:
    """Make the namespaces, with the cable and this name resolution."""
    sweep()
    slot = uplink.free_slot()
    own = {inside: directory / below for inside, below in OWN_FOLDERS.items()}
    for folder in (*own.values(), *MOUNT_POINTS):
        folder.mkdir(parents=True, exist_ok=True)
    (directory / "resolv.conf").write_text(resolv_conf)
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
    holder = [str(binary("pause")), MARK, str(slot), str(directory)]
    with (directory / "logs/namespaces.log").open("ab") as log:
        subprocess.run(["setsid", "--fork", *unshare, *holder], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    node = _await(directory)
    uplink.connect(slot, node.init)
    cgroups.create(slot)
    resolves = Path("/etc/resolv.conf").resolve()  # often a link into /run
    script = [
        "mount --make-rshared /",
        "mount -t tmpfs -o mode=755 tmpfs /run",
        *(f"mount --bind {shlex.quote(str(folder))} {inside}" for inside, folder in own.items()),
        f"mkdir -p {resolves.parent}",
        f"test -e {resolves} || touch {resolves}",
        f"mount --bind {shlex.quote(str(directory / 'resolv.conf'))} {resolves}",
        "ip link set lo up",
        f"ip address add {node.address}/30 dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {uplink.machine_address(slot)}",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "if test -e /proc/sys/net/bridge; then echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables; fi",
    ]
    node.run("sh", "-euc", "\n".join(script))
    return node


def destroy(node: Namespaces) -> None:
    """Kill everything inside, and take away what the machine had of it."""
    identity = processes.started(node.init)
    os.kill(node.init, signal.SIGKILL)
    until = time.monotonic() + END_SECONDS
    while processes.started(node.init) == identity:
        if time.monotonic() > until:
            raise RetryLater(f"process {node.init} of the node does not end after {END_SECONDS} s: run it again")
        time.sleep(0.02)
    uplink.disconnect(node.slot)
    sweep()


def sweep() -> None:
    """Remove what nodes that are gone have left on the machine: it is recognized by its name alone."""
    uplink.sweep()
    cgroups.sweep()
    if not any(map(uplink.exists, uplink.SLOTS)):
        for folder in MOUNT_POINTS:
            with contextlib.suppress(OSError):  # it is not ours: it is not empty
                folder.rmdir()


def _await(directory: Path) -> Namespaces:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if node := find(directory):
            return node
        time.sleep(0.02)
    raise RetryLater(f"the node's namespaces were not made: see {directory / 'logs/namespaces.log'}")


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for folder in PROC.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:  # it has ended meanwhile
            continue
        if words:
            yield int(folder.name), words


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(PROC / str(pid) / "ns/pid")
    except OSError:
        return ""
