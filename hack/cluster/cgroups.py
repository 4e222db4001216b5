"""The node's own part of the control group trees, one per hierarchy (version 1) or one (version 2)."""

from __future__ import annotations

import time
from pathlib import Path

from hack.cluster import uplink

MOUNTS = Path("/proc/self/mountinfo")
EMPTY_SECONDS = 10


def root(slot: int) -> str:
    """Path below each hierarchy, as the kubelet wants it."""
    return f"/cappuccino-{slot}"


def create(slot: int) -> None:
    for hierarchy in hierarchies():
        (hierarchy / root(slot)[1:]).mkdir(exist_ok=True)


def sweep() -> None:
    """Remove the trees of slots whose interface is gone. The kernel lets go of a killed process with some delay."""
    until = time.monotonic() + EMPTY_SECONDS
    for hierarchy in hierarchies():
        for tree in hierarchy.glob("cappuccino-*"):
            if not uplink.exists(int(tree.name.rpartition("-")[2])):
                _remove(tree, until)


def hierarchies() -> list[Path]:
    """Where the control group file systems are mounted; none on a machine that is not Linux."""
    if not MOUNTS.exists():
        return []
    rows = (line.split(" - ") for line in MOUNTS.read_text().splitlines())
    return [Path(left.split()[4]) for left, right in rows if right.split()[0] in ("cgroup", "cgroup2")]


def controllers() -> set[str]:
    """Names of the controllers that some hierarchy has."""
    names = set()
    for hierarchy in hierarchies():
        listed = hierarchy / "cgroup.controllers"  # version 2
        names |= set(listed.read_text().split()) if listed.exists() else set(hierarchy.name.split(","))
    return names


def _remove(tree: Path, until: float) -> None:
    folders = sorted((path for path in tree.rglob("*") if path.is_dir()), key=lambda path: len(path.parts), reverse=True)
    for folder in [*folders, tree]:
        while True:
            try:
                folder.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                break
