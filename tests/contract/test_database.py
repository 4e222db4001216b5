"""PostgreSQL as a pod runs it, and what the logins made by the migration may do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from cappuccino.adapters.postgres.embedded import _as_nobody
from cappuccino.adapters.postgres.engine import ROLES, Role, open_pool
from cappuccino.adapters.postgres.logins import ROLES_WITH_LOGIN, login_of, make_logins
from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.entrypoints import database

PASSWORDS: dict[Role, str] = {role: f"of {role} /:@?" for role in ROLES_WITH_LOGIN}


@dataclass
class Served:
    folder: Path
    port: int
    process: subprocess.Popen[str]

    def url(self, user: str = "postgres", password: str = "secret", name: str = "cappuccino") -> str:
        return psycopg.conninfo.make_conninfo(
            f"postgresql://127.0.0.1:{self.port}/{name}", user=user, password=password, connect_timeout="5"
        )

    def address(self, role: Role, password: str | None = None) -> str:
        secret = quote(password or PASSWORDS[role], safe="")
        return f"postgresql://{login_of(role)}:{secret}@127.0.0.1:{self.port}/cappuccino"

    @property
    def owner(self) -> str:
        return f"postgresql://postgres:secret@127.0.0.1:{self.port}/cappuccino"


def start(folder: Path) -> Served:
    """As a pod: its own user, the password in a file, no home."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    (folder / "password").write_text("secret\n")
    worker = [sys.executable, "-m", "cappuccino.entrypoints.worker", "database", "serve"]
    process = subprocess.Popen(
        [*_as_nobody(), *worker, "--data", str(folder), "--port", str(port)],
        env={**os.environ, "CAPPUCCINO_DATABASE_PASSWORD_FILE": str(folder / "password"), "HOME": "/tmp"},
        stderr=subprocess.PIPE,
        text=True,
    )
    return Served(folder, port, process)


def end(served: Served) -> int:
    served.process.send_signal(signal.SIGTERM)
    served.process.communicate(timeout=30)
    return served.process.returncode


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that was migrated, with a login for each role, while it was starting."""
    served = start(tmp_path_factory.mktemp("served"))
    try:
        database.bring_up_to_date(served.owner, PASSWORDS, wait_seconds=60)
        yield served
    finally:
        end(served)


def test_a_server_keeps_its_data_over_a_stop_that_does_not_wait_for_sessions(tmp_path: Path) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("left by an initdb that was killed")
    first = start(tmp_path)
    database.bring_up_to_date(first.owner, {}, wait_seconds=60)
    session = psycopg.connect(first.url(), autocommit=True)
    session.execute("create table kept (x int)")
    assert end(first) == 0
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")
    (tmp_path / "data").chmod(0o770)  # as a volume that was given to a group

    second = start(tmp_path)
    try:
        database.bring_up_to_date(second.owner, {}, wait_seconds=60)
        with psycopg.connect(second.url()) as connection:
            assert connection.execute("select count(*) from kept").fetchone() == (0,)
    finally:
        assert end(second) == 0


def test_nobody_connects_without_the_password(served: Served) -> None:
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(served.url(password=password))
    with psycopg.connect(served.url()) as connection:
        shown = {name: connection.execute(f"show {name}").fetchone() for name in ("unix_socket_directories", "fsync")}
        assert shown == {"unix_socket_directories": ("",), "fsync": ("on",)}
        rules = connection.execute("select type, address, auth_method from pg_hba_file_rules").fetchall()
        assert rules == [("host", "all", "scram-sha-256")]


def test_it_does_not_run_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    with pytest.raises(InvalidInput, match="runAsUser"):
        database.serve(tmp_path, 5432, password="secret")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.new").write_text("not a folder")
    refused = start(tmp_path)
    _, told = refused.process.communicate(timeout=30)
    assert refused.process.returncode == InvalidInput.exit_code
    assert f"database folder {tmp_path}" in told
    assert "may write" in told


@pytest.mark.parametrize("environment", [{}, {"CAPPUCCINO_DATABASE_PASSWORD_FILE": "/nowhere"}])
def test_a_server_without_a_password_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (database.PASSWORD, database.PASSWORD_FILE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match="CAPPUCCINO_DATABASE_PASSWORD"):
        database.main(["serve", "--data", "/nowhere"])


def test_a_database_that_stays_away_is_told_after_the_wait() -> None:
    with pytest.raises(RetryLater, match="away"):
        database.bring_up_to_date("postgresql://u:p@127.0.0.1:1/cappuccino", {}, wait_seconds=0)


@pytest.mark.parametrize("role", ROLES_WITH_LOGIN)
def test_a_login_may_take_its_own_role_and_no_other(served: Served, role: Role) -> None:
    open_pool(served.address(role), role).close()
    for other in set(ROLES) - {role}:
        with psycopg.connect(served.address(role)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"set role cappuccino_{other}")
    with psycopg.connect(served.address(role)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select * from account")  # before it has taken its role it may do nothing
    with psycopg.connect(served.address(role)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("create table mine (x int)")


def test_the_logins_are_brought_back_to_what_was_asked_for(served: Served) -> None:
    with psycopg.connect(served.url(), autocommit=True) as owner:
        owner.execute("grant cappuccino_migrator to cappuccino_trader_login")
        make_logins(served.owner, PASSWORDS | {"trader": "another"})
        stored = owner.execute("select rolname, rolpassword, rolinherit from pg_authid where rolname like '%login'").fetchall()
    assert {name for name, _, _ in stored} == {login_of(role) for role in ROLES_WITH_LOGIN}
    assert all(verifier.startswith("SCRAM-SHA-256$") and not inherits for _, verifier, inherits in stored)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(served.address("trader"))
    with psycopg.connect(served.address("trader", "another")) as trader, pytest.raises(psycopg.errors.InsufficientPrivilege):
        trader.execute("set role cappuccino_migrator")
    make_logins(served.owner, PASSWORDS)


def test_a_login_that_may_not_make_logins_is_told_what_it_lacks(served: Served) -> None:
    with pytest.raises(InvalidInput, match="CREATEROLE"):
        make_logins(served.address("operator"), {"trader": "stolen"})


def test_the_migrator_gets_no_login(database_url: str) -> None:
    with pytest.raises(InvalidInput, match="'migrator' gets no login"):
        make_logins(database_url, {"migrator": "x"})


def test_the_roles_files_hold_urls_or_passwords(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()  # as kubelet mounts a Secret
    (tmp_path / "trader").write_text("postgresql://cappuccino_trader_login:a%2Fb@db:5432/cappuccino\n")
    (tmp_path / "gate").write_text("plain\n")
    assert database.read_logins(tmp_path) == {"trader": "a/b", "gate": "plain"}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("migrator", "x", "'migrator' gets no login"),
        ("traders", "x", "'traders' gets no login"),
        ("trader", "", "cappuccino_trader_login"),
        ("trader", "postgresql://cappuccino_trader_login@db/cappuccino", "with its password"),
        ("trader", "postgresql://postgres:x@db/cappuccino", "URL of cappuccino_trader_login"),
    ],
)
def test_a_roles_file_that_cannot_be_meant_is_refused(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=told):
        database.read_logins(tmp_path)
