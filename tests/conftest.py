"""One real PostgreSQL per test process, and a fresh, migrated database per test, copied from a template."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate


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
