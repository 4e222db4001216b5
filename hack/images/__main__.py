"""`python -m hack.images build [NAME...]`: the images of this repository, by Docker or buildah.

From the repository's root. The same sources give the same digests: uv.lock fixes the packages, and the only time in an image is
a constant (tools.py). Nothing of this machine gets into one: how it reaches its package index is handed in as secret mounts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from cappuccino.core.errors import CappuccinoError, InvalidInput
from hack.cluster.cache import exclusive
from hack.images.engine import Build, Engine, engine
from hack.images.tools import say

DOCKERFILES = {
    "trader": Path("Dockerfile.trader"),
    "operator": Path("images/operator/Dockerfile"),
    "dashboard": Path("images/dashboard/Dockerfile"),
    "train": Path("Dockerfile.train"),
}
INDEX_SETTINGS = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_HTTP_TIMEOUT",
    "UV_INDEX", "UV_INDEX_URL", "UV_INSECURE_HOST",
)  # fmt: skip
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def build(names: Sequence[str], *, tag: str, base: str | None, accelerator: str, archives: Path | None) -> None:
    builder = engine()
    say(f"building {', '.join(names)} with {builder.name}")
    base = base or builder.stand_in(_default_base(DOCKERFILES["trader"]))
    common = {"BASE_IMAGE": base} if base else {}
    with tempfile.TemporaryDirectory() as folder:
        secrets = _secrets(Path(folder))
        for name in names:
            started = time.monotonic()
            plan = Build(
                dockerfile=DOCKERFILES[name],
                reference=f"cappuccino/{name}:{tag}",
                arguments=common | ({"ACCELERATOR": accelerator} if name == "train" else {}),
                secrets=secrets,
            )
            built = builder.build(plan)
            _tell(plan.reference, built.digest, built.size_bytes, started)
            if archives:
                save(builder, plan.reference, built.digest, archives / f"{name}.tar")
    say(builder.room())


def save(builder: Engine, reference: str, digest: str, path: Path) -> None:
    """The image as a file, unless that file holds it already."""
    if path.exists() and _archived(path) == (reference, digest):
        return
    started = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    builder.save(reference, fresh)
    fresh.rename(path)
    _tell(str(path), digest, path.stat().st_size, started)


def _tell(what: str, digest: str, size_bytes: int, started: float) -> None:
    print(f"{what}  {digest[:19]}  {size_bytes / 1e6:,.0f} MB  {time.monotonic() - started:.0f} s", flush=True)


def _archived(path: Path) -> tuple[str, str]:
    """The reference and the digest of the one image in a docker-archive."""
    with tarfile.open(path) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        (entry,) = json.load(member)
    reference = entry["RepoTags"][0].removeprefix("docker.io/")
    return reference, f"sha256:{re.sub(r'.*/|[.]json$', '', entry['Config'])}"


def _secrets(folder: Path) -> dict[str, Path]:
    """How this machine reaches its package index, for the duration of the build."""
    settings = {name: os.environ[name] for name in INDEX_SETTINGS if os.environ.get(name)}
    secrets = {"host.env": folder / "host.env"}
    certificates = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    if certificates:
        secrets["host.ca"] = Path(certificates)
        settings |= dict.fromkeys(CERTIFICATES, "/run/secrets/host.ca")
    secrets["host.env"].write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return secrets


def _default_base(dockerfile: Path) -> str:
    found = re.search(r"^ARG BASE_IMAGE=(\S+)", dockerfile.read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.images", description="Build the images of this repository.")
    command = parser.add_subparsers(dest="command", required=True).add_parser("build", help="build, and print what was built")
    command.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DOCKERFILES)}; default: all")
    command.add_argument("--tag", help="default: the project's version")
    command.add_argument("--archive", type=Path, metavar="DIR", help="also write DIR/NAME.tar, a docker-archive")
    command.add_argument("--base", help="image to build on; default: the Dockerfiles' own, or a Debian made here")
    command.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda", help="what the train image runs on")
    options = parser.parse_args()
    try:
        unknown = set(options.names) - set(DOCKERFILES)
        if unknown:
            raise InvalidInput(f"no image {', '.join(sorted(unknown))}: name one of {', '.join(DOCKERFILES)}")
        version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
        with exclusive("images"):
            build(
                options.names or list(DOCKERFILES),
                tag=options.tag or version,
                base=options.base,
                accelerator=options.accelerator,
                archives=options.archive,
            )
    except CappuccinoError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
