"""Who a process is. A pid alone is no identity: it is used again. A pid with its start time is one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_PROC = Path("/proc/self/stat")


def started(pid: int) -> str | None:
    """When the process started, as an opaque text that never changes while it lives; None when it is gone or a zombie."""
    if _PROC.exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in ("Z", "X") else f"{_boot()}:{fields[19]}"
    shown = subprocess.run(  # noqa: S603
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout.strip()
    return None if not shown or shown.startswith("Z") else " ".join(shown.split()[1:])


def command_line(pid: int) -> str:
    """Its arguments with spaces between; empty when it is gone."""
    if _PROC.exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""
    return subprocess.run(  # noqa: S603
        ["ps", "-o", "args=", "-p", str(pid)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()


def _boot() -> str:
    """A reboot starts the count of ticks again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""
