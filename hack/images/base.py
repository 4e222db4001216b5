"""A base image where there is no registry to pull one from: Debian with its own Python, made by debootstrap.

It is made once for each recipe and kept as a tar file in the cache; times, logs and other traces of the making are left out, so
the same packages give the same bytes. It stands in for the Dockerfiles' default base on machines that test; it
gets no security updates until the file is deleted and made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from cappuccino.core.errors import InvalidInput
from hack.images.tools import CACHE, EPOCH, need, run, say

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "tzdata")
TRACES = (  # of the making, and what a container never reads
    "dev/*", "proc/*", "sys/*", "run/*", "tmp/*", "var/log/*", "var/tmp/*", "var/cache/*", "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old", "etc/hostname", "etc/resolv.conf", "etc/machine-id", "etc/*-", "etc/apt/sources.list*",
    "usr/share/doc/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/man/*", "__pycache__",
)  # fmt: skip
LAST_CHANGED = "etc/shadow"  # holds the day


def archive() -> Path:
    """The base's file system as a tar file, made now if it is not in the cache."""
    recipe = hashlib.sha256(repr((SUITE, PACKAGES, TRACES, EPOCH)).encode()).hexdigest()[:12]
    kept = CACHE / f"base-{SUITE}-{recipe}.tar"
    if kept.exists():
        return kept
    if os.getuid() != 0:
        raise InvalidInput("no base image: debootstrap needs root; name an image to build on with --base")
    need("debootstrap")
    say(f"making a base image of Debian {SUITE} with debootstrap, once: about a minute")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        root, made = Path(scratch, "root"), Path(scratch, "base.tar")
        run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), *_mirror()], quiet=True)
        shadow = root / LAST_CHANGED
        lines = [line.split(":") for line in shadow.read_text().splitlines()]
        shadow.write_text("".join(":".join([*fields[:2], "0", *fields[3:]]) + "\n" for fields in lines))
        excludes = [f"--exclude={'' if pattern == '__pycache__' else './'}{pattern}" for pattern in TRACES]
        fixed = ["--format=gnu", "--sort=name", f"--mtime=@{EPOCH}", "--numeric-owner"]
        run(["tar", *fixed, *excludes, f"--directory={root}", f"--file={made}", "--create", "."])
        made.rename(kept)
    return kept


def _mirror() -> list[str]:
    """This machine's own mirror of the suite; none leaves debootstrap its default."""
    if shutil.which("apt-get") is None:
        return []
    about = ("Created-By: Packages", f"Codename: {SUITE}", "Origin: Debian")
    return run(["apt-get", "indextargets", "--format=$(REPO_URI)", *about]).split()[:1]
