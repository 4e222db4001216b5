"""What builds: a Docker engine where one answers, else buildah with its storage in the cache folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cappuccino.core.errors import RetryLater
from hack.images import base
from hack.images.tools import CACHE, EPOCH, need, run, say

STORAGE_GB = 20  # of old and new layers; one set of images takes about 2, with CUDA 7


@dataclass(frozen=True, kw_only=True)
class Build:
    """One image to build from the repository. secrets: files by id."""

    dockerfile: Path
    reference: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]

    def options(self) -> list[str]:
        """Those that both engines understand."""
        named = [f"--build-arg={name}={value}" for name, value in sorted(self.arguments.items())]
        mounted = [f"--secret=id={name},src={path}" for name, path in sorted(self.secrets.items())]
        return [*named, *mounted, f"--file={self.dockerfile}", f"--tag={self.reference}"]


@dataclass(frozen=True, kw_only=True)
class Built:
    """digest: of the configuration, which in turn names every layer by digest. size_bytes: of the layers, uncompressed."""

    digest: str
    size_bytes: int


class Engine(Protocol):
    name: str

    def stand_in(self, default: str) -> str | None:
        """What to build on when `default`, the Dockerfiles' base, cannot be had; None when it can."""

    def build(self, build: Build) -> Built: ...

    def save(self, reference: str, path: Path) -> None:
        """Write the image as a docker-archive."""

    def room(self) -> str:
        """What is kept for the next build, in words."""


def engine() -> Engine:
    return Docker() if Docker.answers() else Buildah()


def _gigabytes(folder: Path) -> float:
    """On disk."""
    return int(run(["du", "--summarize", "--block-size=1", str(folder)]).split()[0]) / 1e9 if folder.exists() else 0.0


class Docker:
    name = "docker"

    @staticmethod
    def answers() -> bool:
        if shutil.which("docker") is None:
            return False
        asked = ["docker", "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0  # noqa: S603

    def stand_in(self, default: str) -> str | None:  # noqa: ARG002 - its engine pulls
        return None

    def build(self, build: Build) -> Built:
        fixed = ["--provenance=false", f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}"]
        run(["docker", "build", *fixed, *build.options(), "."], environment={"DOCKER_BUILDKIT": "1"})
        found = json.loads(run(["docker", "image", "inspect", build.reference]))[0]
        return Built(digest=found["Id"], size_bytes=found["Size"])

    def save(self, reference: str, path: Path) -> None:
        run(["docker", "image", "save", f"--output={path}", reference])

    def room(self) -> str:
        return "layers are kept by the Docker engine"


class Buildah:
    """chroot isolation asks for no more than root has inside a container, and uses this machine's network as it is."""

    name = "buildah"

    def __init__(self) -> None:
        need("buildah")
        self._scratch = CACHE / "tmp"  # layers under way, and the cache mounts
        self._scratch.mkdir(parents=True, exist_ok=True)
        if _gigabytes(CACHE / "storage") > STORAGE_GB:
            say(f"the layers in {CACHE} have outgrown {STORAGE_GB} GB: starting afresh")
            self._run("rmi", "--all", "--force", quiet=True)

    def stand_in(self, default: str) -> str | None:
        try:
            self._run("pull", "--quiet", "--policy=missing", default, quiet=True)
        except RetryLater:
            say(f"{default} cannot be pulled here")
        else:
            return None
        archive = base.archive()
        reference = f"localhost/cappuccino/{archive.stem}"
        if not self._images(reference):
            container = self._run("from", "scratch").strip()
            self._run("add", "--quiet", container, str(archive), "/")
            self._run("commit", "--quiet", "--rm", f"--timestamp={EPOCH}", "--identity-label=false", container, reference)
        return reference

    def build(self, build: Build) -> Built:
        fixed = ["--isolation=chroot", "--layers", f"--timestamp={EPOCH}", "--identity-label=false", "--pull=false"]
        self._run("build", *fixed, *build.options(), ".")
        found = json.loads(self._run("inspect", "--type=image", build.reference))
        layers = json.loads(found["Manifest"])["layers"]
        return Built(digest=f"sha256:{found['FromImageID']}", size_bytes=sum(layer["size"] for layer in layers))

    def save(self, reference: str, path: Path) -> None:
        self._run("push", "--quiet", f"localhost/{reference}", f"docker-archive:{path}:{reference}")

    def room(self) -> str:
        kept = {name: _gigabytes(CACHE / name) for name in ("storage", "tmp")}
        return f"{kept['storage']:.1f} GB of layers and {kept['tmp']:.1f} GB of packages are kept in {CACHE}"

    def _images(self, reference: str) -> list[Any]:
        return [image for image in json.loads(self._run("images", "--json")) if f"{reference}:latest" in (image["names"] or ())]

    def _run(self, *arguments: str, quiet: bool = False) -> str:
        command = ["buildah", f"--root={CACHE / 'storage'}", f"--runroot={CACHE / 'run'}", *arguments]
        return run(command, quiet=quiet, environment={"TMPDIR": str(self._scratch)})
