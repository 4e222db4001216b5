"""One real PostgreSQL per test process, and a fresh, migrated database per test, copied from a template. One real API server.

What uses the API server is marked `xdist_group("cluster")`, so that one pytest-xdist worker starts it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from hack.cluster import build
from hack.cluster.control_plane import ControlPlane

settings.register_profile("untimed", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("untimed")

CRDS = Path(__file__).parents[1] / "crds"


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A server of its own for each pytest-xdist worker; nothing survives the session."""
    directory = Path(tempfile.mkdtemp(prefix=f"cap-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-"))
    settings = {"fsync": "off", "shared_buffers": "32MB", "full_page_writes": "off", "autovacuum": "off"}
    embedded = EmbeddedServer(directory, settings=settings)
    try:
        embedded.start()
        migrate(embedded.url())
        yield embedded
    finally:
        embedded.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def database_url(server: EmbeddedServer) -> Iterator[str]:
    """The URL (superuser) of an empty, migrated database that this test has for itself."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"create database {name} template cappuccino strategy file_copy")
        yield server.url(name)
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver, and the controllers, with `crds/` applied and served; they end with the session."""
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        cache = plane.kubeconfig.parent / "kubectl-cache"
        kubectl = [build.kubectl(), f"--kubeconfig={plane.kubeconfig}", f"--cache-dir={cache}"]
        for line in (["apply", "--server-side", "-f", CRDS], ["wait", "--for=condition=Established", "crd", "--all"]):
            subprocess.run([*kubectl, *line], check=True, stdout=subprocess.DEVNULL)
        plane.start_controllers()  # after the kinds, which garbage collection then knows at once
        yield plane
