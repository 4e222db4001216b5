"""The steps of an image build. Each runs inside it, as root, as one layer: `python3 -B install.py STEP`.

    wheel                    the project as /dist/*.whl, from the sources beside this file
    dependencies             a virtual environment with what uv.lock says, without the project; user 65532
    extra NAME [ACCELERATOR] the packages of one extra of pyproject.toml on top; cpu instead of cuda: see without_cuda.py
    code                     the wheel on top

The same inputs give the same bytes: uv.lock names every package by digest, uv itself is pinned, and bytecode is compiled by
one process in a fixed order, never checked against file times (an image is read-only). The packages' own tests are left out.
The folder /var/cache/cappuccino is a cache mount and not part of the image. Two secret mounts, both optional, say how this
machine reaches its package index: `host.env` (NAME=VALUE lines for pip and uv) and `host.ca` (certificates).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

UV_VERSION = "0.13.9"
ENVIRONMENT = Path("/opt/cappuccino")
CACHE = Path("/var/cache/cappuccino")
HERE = Path(__file__).resolve().parent
HOST = Path("/run/secrets/host.env")
SYNC = ("sync", "--locked", "--no-default-groups", "--no-install-project")
USER = 65532


def dependencies() -> None:
    with Path("/etc/passwd").open("a") as passwd:
        passwd.write(f"cappuccino:x:{USER}:{USER}:cappuccino:/tmp:/usr/sbin/nologin\n")  # initdb wants a name for its user
    with Path("/etc/group").open("a") as group:
        group.write(f"cappuccino:x:{USER}:\n")
    uv(*SYNC)
    compile_below(Path(sysconfig.get_path("stdlib")))
    finish()


def extra(name: str, *, accelerator: str) -> None:
    if accelerator == "cuda":
        uv(*SYNC, "--inexact", f"--extra={name}")
    else:
        import without_cuda  # beside this file in the training image only

        left_out = without_cuda.left_out((HERE / "uv.lock").read_text())
        uv(*SYNC, "--inexact", f"--extra={name}", *(f"--no-install-package={package}" for package in left_out))
        without_cuda.make_do(ENVIRONMENT)
    finish()


def wheel() -> None:
    uv("build", "--wheel", "--out-dir", "/dist", str(HERE))


def code() -> None:
    wheels = [str(path) for path in Path("/dist").glob("*.whl")]
    into = f"--python={ENVIRONMENT}/bin/python"
    run([tool("pip"), into, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", *wheels])
    finish()


def uv(*arguments: str) -> None:
    run([tool("uv"), *arguments])


def tool(name: str) -> str:
    """Path of pip or uv, from the cache mount or put there now."""
    folder = CACHE / f"uv-{UV_VERSION}/bin"
    if not (folder / "uv").exists():
        run([sys.executable, "-m", "venv", str(folder.parent)])
        run([f"{folder}/pip", "install", "--quiet", f"uv=={UV_VERSION}"])
    return f"{folder}/{name}"


def run(command: list[str]) -> None:
    settings = dict(os.environ)
    if HOST.exists():
        settings |= {name: value for name, _, value in (line.partition("=") for line in HOST.read_text().splitlines())}
    settings |= {
        "TMPDIR": str(CACHE),  # nothing is left in /tmp
        "UV_CACHE_DIR": f"{CACHE}/uv",
        "UV_LINK_MODE": "copy",
        "UV_NO_PROGRESS": "1",
        "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT),
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
    }
    subprocess.run(command, check=True, cwd=HERE, env=settings)  # noqa: S603


def finish() -> None:
    for tests in sorted(ENVIRONMENT.glob("lib/python*/site-packages/**/tests")):
        shutil.rmtree(tests, ignore_errors=True)  # one may have been inside of another
    (ENVIRONMENT / ".lock").unlink(missing_ok=True)  # uv's, which anybody may write
    compile_below(ENVIRONMENT / "lib")


def compile_below(folder: Path) -> None:
    """Bytecode of every module that has none. Files that are not meant for this Python stay without."""
    for source in sorted(folder.rglob("*.py")):
        compiled = importlib.util.cache_from_source(str(source))
        if not Path(compiled).exists():
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(source), compiled, quiet=2, invalidation_mode=mode)


def main() -> None:
    fixed = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}  # both change bytes of the image; -B is for this process
    if any(os.environ.get(name) != value for name, value in fixed.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **fixed})  # noqa: S606
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for step in ("wheel", "dependencies", "code"):
        steps.add_parser(step)
    of_extra = steps.add_parser("extra")
    of_extra.add_argument("name")
    of_extra.add_argument("accelerator", nargs="?", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    if options.step == "extra":
        extra(options.name, accelerator=options.accelerator)
    else:
        {"wheel": wheel, "dependencies": dependencies, "code": code}[options.step]()


if __name__ == "__main__":
    main()
