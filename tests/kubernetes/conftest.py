"""The whole of Cappuccino on a real cluster: images built from this tree, the chart installed, examples applied with kubectl.

Nothing here skips: a capability that lacks is a failure that names it. `--faults=all` runs every fault, `--faults=a,b` those.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster.build import binary

from .faults import DEFAULT, FAULTS
from .scene import FOLDER, ROOT, Scene, run
from .values import CLAIMS, VALUES, volume

IMAGES = ("operator", "trader", "train", "dashboard")
TAG = "e2e"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", default=",".join(DEFAULT), help="all, or names with commas between")
    parser.addoption("--loaded", action="store_true", help="the cluster has the images already: do not build them")
    parser.addoption("--keep", action="store_true", help="leave the release and the cluster as they are at the end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = ["test_path", "test_faults", "test_contract", "test_uninstall"]
    items.sort(key=lambda item: order.index(item.path.stem))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--faults")
        names = list(FAULTS) if asked == "all" else [name for name in asked.split(",") if name]
        if unknown := [name for name in names if name not in FAULTS]:
            raise pytest.UsageError(f"fault {unknown[0]!r} is unknown: use all, or {', '.join(FAULTS)}")
        metafunc.parametrize("fault", names)


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> Iterator[Path]:
    started = time.monotonic()
    run(sys.executable, "-m", "hack.cluster", "up", within=1800)
    print(f"cluster: ready after {time.monotonic() - started:.0f} s")
    yield ROOT / "build" / "cluster" / "kubeconfig"
    if not request.config.getoption("--keep"):
        run(sys.executable, "-m", "hack.cluster", "down")


@pytest.fixture(scope="session")
def images(kubeconfig: Path, request: pytest.FixtureRequest) -> str:
    """Built from this tree and known to the node; their tag."""
    if request.config.getoption("--loaded"):
        return TAG
    started, archives = time.monotonic(), FOLDER / "images"
    archives.mkdir(parents=True, exist_ok=True)
    run(
        sys.executable, "-m", "hack.images", "build", *IMAGES,
        "--tag", TAG, "--accelerator", "cpu", "--archive", archives, within=2400,
    )  # fmt: skip
    for name in IMAGES:
        run(sys.executable, "-m", "hack.cluster", "load-image", archives / f"{name}.tar")
    shutil.rmtree(archives)
    print(f"images: built and loaded after {time.monotonic() - started:.0f} s")
    return TAG


@pytest.fixture(scope="session")
def scene(kubeconfig: Path, images: str, request: pytest.FixtureRequest) -> Scene:
    """The chart, installed in a namespace of its own that admits restricted pods only."""
    scene = Scene(kubeconfig=kubeconfig, helm_binary=binary("helm"), tag=images, values=VALUES)
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": scene.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    if request.config.getoption("--loaded") and scene.helm("status", scene.release, check=False).returncode == 0:
        return scene  # as an earlier run left it with --keep
    scene.apply(namespace)
    folder = FOLDER / "volumes"
    shutil.rmtree(folder, ignore_errors=True)
    for claim in CLAIMS:
        (folder / claim).mkdir(parents=True)
        os.chown(folder / claim, 65532, 65532)
        scene.apply(*volume(claim, folder / claim, scene.namespace))
    started = time.monotonic()
    scene.install()
    print(f"chart: installed after {time.monotonic() - started:.0f} s")
    return scene
