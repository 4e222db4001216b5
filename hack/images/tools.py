"""What the image build does with this machine: its cache folder, its programs, its words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from cappuccino.core.errors import InvalidInput, RetryLater
from hack.cluster.cache import CACHE as ALL

CACHE = ALL / "images"
EPOCH = 315532800  # 1980: what zip files can hold. Not the commit's time, or a cached layer would differ from one built anew


def say(line: str) -> None:
    print(f"images: {line}", file=sys.stderr, flush=True)


def run(command: Sequence[str], *, quiet: bool = False, environment: Mapping[str, str] | None = None) -> str:
    """Its standard output. With `quiet` its standard error is not shown, but for the last line when it fails.

    Raises:
        RetryLater: it failed.
    """
    done = subprocess.run(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise RetryLater(f"{' '.join(command)}: exit code {done.returncode} {last}".strip())
    return done.stdout


def need(*programs: str) -> None:
    """Have these programs on PATH; on a Debian machine, as root, install what is missing from packages of the same name."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise InvalidInput(f"{' and '.join(missing)} not found: install it, or start a Docker engine")
    say(f"installing {' and '.join(missing)} with apt-get")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], quiet=True, environment=quiet)
    run(["apt-get", "install", "-qq", "--no-install-recommends", *missing], quiet=True, environment=quiet)
