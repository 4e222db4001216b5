"""kubectl for the tests of this folder, on the API server of tests/conftest.py. One xdist worker runs them all."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hack.cluster import build
from hack.cluster.control_plane import ControlPlane

from .access import Release, installed

ROOT = Path(__file__).parents[2]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("cluster"))


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """The real kubectl against one server, in one namespace. Calling it never raises; `ok` expects success."""

    program: str
    kubeconfig: Path
    namespace: str = "default"

    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        cache = f"--cache-dir={self.kubeconfig.parent / 'kubectl-cache'}"
        line = [self.program, cache, f"--namespace={self.namespace}", *map(str, arguments)]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(line, env=environment, input=stdin, text=True, capture_output=True, timeout=60)

    def ok(self, *arguments: str | Path, stdin: str | None = None) -> str:
        done = self(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout


def administrator(plane: ControlPlane) -> Kubectl:
    """kubectl in the namespace `default`."""
    return Kubectl(program=build.kubectl(), kubeconfig=plane.kubeconfig)


@pytest.fixture
def namespace(api_server: ControlPlane) -> str:
    """A namespace that this test has for itself."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    administrator(api_server).ok("create", "namespace", name)
    return name


@pytest.fixture
def kubectl(api_server: ControlPlane, namespace: str) -> Kubectl:
    """kubectl in that namespace."""
    return replace(administrator(api_server), namespace=namespace)


@pytest.fixture(scope="module")
def release(api_server: ControlPlane) -> Iterator[Release]:
    """The chart with its roles and policies, and objects to try them on."""
    with installed(api_server, administrator(api_server)) as release:
        yield release
