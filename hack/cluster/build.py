"""The cluster's programs, built from the pinned Go modules below `go/`, each once.

`binary(name)` is the door. A built program is kept in a folder named by its version and by a digest of what it is built
from (the module's files, flags, platform), so a change of any of them builds anew and two checkouts share one cache.
Nothing is built with cgo: the programs run on any Linux, and inside of an image without a C library.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cappuccino.core.errors import NotFound, UserError
from hack.cluster.cache import CACHE, exclusive, say
from hack.cluster.go_toolchain import go

MODULES = Path(__file__).parent / "go"
SAY_EVERY_SECONDS = 15
LAST_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Program:
    """`pin` is the required module whose version is the program's; `stamp` are linker variables that show it."""

    module: str
    package: str = "."
    pin: str = ""
    stamp: tuple[str, ...] = ()


_KUBERNETES = tuple(
    f"k8s.io/{module}.git{part}={{{part}}}"
    for module in ("component-base/version", "client-go/pkg/version")
    for part in ("Version", "Major", "Minor")
)
PROGRAMS = {
    "kube": Program(module="kube", pin="k8s.io/kubernetes", stamp=_KUBERNETES),
    "kubectl": Program(module="kube", package="k8s.io/kubernetes/cmd/kubectl", pin="k8s.io/kubernetes", stamp=_KUBERNETES),
    "coredns": Program(module="coredns", pin="github.com/coredns/coredns"),
    "helm": Program(
        module="helm",
        package="helm.sh/helm/v3/cmd/helm",
        pin="helm.sh/helm/v3",
        stamp=("helm.sh/helm/v3/internal/version.version={Version}",),
    ),
    "kind": Program(module="kind", package="sigs.k8s.io/kind", pin="sigs.k8s.io/kind"),
    "pause": Program(module="pause"),
}


def binary(name: str) -> Path:
    """Path of the program, built now if it has not been built before."""
    if name not in PROGRAMS:
        raise NotFound(f"no program {name!r} in hack/cluster: name one of {', '.join(PROGRAMS)}")
    program = PROGRAMS[name]
    path = CACHE / "-".join(filter(None, [name, _version(program), _digest(program)])) / name
    if path.exists():
        return path
    toolchain = go()
    with exclusive(path.parent.name):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                _build(toolchain, program, Path(scratch), name).rename(path.parent)
    return path


def kubectl() -> str:
    """kubectl from PATH, where it usually is, else built."""
    return shutil.which("kubectl") or str(binary("kubectl"))


def _version(program: Program) -> str:
    """`v1.2.3`, or nothing for a program of our own."""
    if not program.pin:
        return ""
    found = re.search(rf"{re.escape(program.pin)} (v\S+)", (MODULES / program.module / "go.mod").read_text())
    if not found:
        raise NotFound(f"hack/cluster/go/{program.module}/go.mod does not require {program.pin}: run `go mod tidy` in it")
    return found[1]


def _digest(program: Program) -> str:
    digest = hashlib.sha256(repr((program, os.uname().sysname, os.uname().machine, _flags(program))).encode())
    for file in sorted((MODULES / program.module).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _flags(program: Program) -> list[str]:
    version = _version(program)
    major, minor = [*re.findall(r"\d+", version), "", ""][:2]
    stamps = [f"-X {stamp.format(Version=version, Major=major, Minor=minor)}" for stamp in program.stamp]
    return ["-trimpath", "-buildvcs=false", f"-ldflags={' '.join(['-s', '-w', *stamps])}"]


def _build(toolchain: Path, program: Program, scratch: Path, name: str) -> Path:
    """Build into scratch/built. `go build -v` names each package as it is compiled: that tells how far it is."""
    started = time.monotonic()
    folder = MODULES / program.module
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    arguments = [*_flags(program), program.package]
    say(f"building {' '.join([name, *filter(None, [_version(program)])])} once, into {CACHE}; reading its modules")
    listing = [str(toolchain), "list", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", *arguments]
    stale = subprocess.run(listing, cwd=folder, env=environment, capture_output=True, text=True)
    _check(program, stale.returncode, stale.stderr)
    total = len(stale.stdout.split())
    built, log = scratch / "built", scratch / "log"
    building = [str(toolchain), "build", "-v", "-o", str(built / name), *arguments]
    with log.open("w") as output, subprocess.Popen(building, cwd=folder, env=environment, stderr=output) as process:
        while _still_runs(process, SAY_EVERY_SECONDS):
            compiled = len(log.read_text().splitlines())
            elapsed = time.monotonic() - started
            say(f"{name}: {compiled} of {total} packages ({compiled / max(total, 1):.0%}) after {elapsed:.0f} s")
    _check(program, process.returncode, log.read_text())
    say(f"built {name} in {time.monotonic() - started:.0f} s")
    return built


def _still_runs(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _check(program: Program, code: int, output: str) -> None:
    if code != 0:
        reason = "\n".join(output.splitlines()[-LAST_LINES:])
        raise UserError(
            f"go cannot build hack/cluster/go/{program.module}: its reason is below; it needs the Go module proxy "
            f"(`go env GOPROXY`) the first time, 2 GB of memory and 4 GB on disk\n{reason}"
        )
