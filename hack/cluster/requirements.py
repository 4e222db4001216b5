"""What a node needs from its machine. What apt can install is installed, after saying so; the rest is refused by name."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from cappuccino.core.errors import UserError
from hack.cluster import cgroups, configuration
from hack.cluster.cache import say

PACKAGES = {  # program -> Debian package
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "unshare": "util-linux",
}
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}
CONTROLLERS = {"cpu", "memory", "pids"}
BRIDGE_FILTER = Path("/proc/sys/net/bridge")
INSTEAD = "or install Docker, and the cluster runs in it by kind"


def check(directory: Path) -> None:
    """Raise UserError for the first thing that lacks and cannot be had."""
    check_rights()
    if lacking := CONTROLLERS - cgroups.controllers():
        raise UserError(
            f"a node needs the control group controllers {', '.join(sorted(lacking))}: mount them below /sys/fs/cgroup"
        )
    _install()
    if not BRIDGE_FILTER.exists() and subprocess.run(["modprobe", "br_netfilter"]).returncode != 0:
        raise UserError("a node needs the kernel module br_netfilter (see above): load it, or use a kernel that has it")
    _check_overlay(directory)


def check_rights() -> None:
    """Raise UserError where namespaces cannot be made, nor removed."""
    if platform.system() != "Linux":
        raise UserError(f"a node needs Linux, this is {platform.system()}: install Docker, and the cluster runs in it by kind")
    if os.geteuid() != 0:
        raise UserError(f"a node needs root, this is user {os.geteuid()}: run it as root, {INSTEAD}")
    held = int(_status("CapEff"), 16)
    for name, bit in CAPABILITIES.items():
        if not held >> bit & 1:
            raise UserError(f"a node needs {name}, which this root lacks: run it on a machine or in a container that has it")


def _install() -> None:
    packages = {package for program, package in PACKAGES.items() if not shutil.which(program)}
    if not configuration.cni_folder():
        packages.add("containernetworking-plugins")
    if not packages:
        return
    names = sorted(packages)
    if not shutil.which("apt-get"):
        raise UserError(
            f"a node needs {', '.join(names)} (names of Debian packages), and there is no apt-get: install them, {INSTEAD}"
        )
    say(f"installing {' '.join(names)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *names]
    for command in (["apt-get", "update", "--quiet"], install):
        if subprocess.run(command, env=environment, stdout=sys.stderr).returncode != 0:
            raise UserError(f"`{' '.join(command)}` failed (see above): install {' '.join(names)}, {INSTEAD}")


def _check_overlay(directory: Path) -> None:
    """Images are layers of overlayfs, which not every file system can hold (an overlay cannot)."""
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / "overlay-probe"
    folders = {name: probe / name for name in ("lower", "upper", "work", "merged")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format_map(folders)
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(folders["merged"])]
    tried = subprocess.run(["unshare", "--mount", *mount], capture_output=True, text=True)
    shutil.rmtree(probe)
    if tried.returncode != 0:
        raise UserError(f"a node needs overlayfs in {directory} ({tried.stderr.strip()}): put the checkout on ext4 or xfs")


def _status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
