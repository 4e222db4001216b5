"""`database serve`: one PostgreSQL server in a pod. `database migrate`: the record's schema brought up to date, and logins.

serve: the data is in DIR/data, made on the first start with the superuser `postgres`, whose password is in the file named by
CAPPUCCINO_DATABASE_PASSWORD_FILE or in CAPPUCCINO_DATABASE_PASSWORD, and with the database `cappuccino`. Nobody connects
without a password, and there is no Unix socket. SIGTERM ends all sessions and shuts the server down cleanly.

migrate: by CAPPUCCINO_DATABASE_URL, whose login must own the database. With --logins also a login for each role
(adapters/postgres/logins.py): DIR has a file for each, with the URL that its processes use or with the password alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cappuccino.adapters.postgres.embedded import find_binaries
from cappuccino.adapters.postgres.engine import Role, migrate, parse_url
from cappuccino.adapters.postgres.logins import ROLES_WITH_LOGIN, login_of, make_logins
from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.entrypoints.settings import DATABASE_URL, required
from cappuccino.telemetry.logs import configure, get_logger

PASSWORD = "CAPPUCCINO_DATABASE_PASSWORD"  # noqa: S105 - the name of a variable
PASSWORD_FILE = "CAPPUCCINO_DATABASE_PASSWORD_FILE"  # noqa: S105
SETTINGS = {
    "max_connections": "300",
    "listen_addresses": "*",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
ACCESS = "host all all all scram-sha-256\n"  # pg_hba.conf
SIGNALS = {signal.SIGTERM: signal.SIGINT, signal.SIGINT: signal.SIGINT, signal.SIGQUIT: signal.SIGQUIT}  # INT: a fast shutdown


def serve(directory: Path, port: int, *, password: str) -> int:
    """Run the server until it ends; its exit code.

    Raises:
        InvalidInput: run by root, no binaries, or a folder that cannot be written or made into a database.
    """
    if os.getuid() == 0:
        raise InvalidInput("PostgreSQL does not run as root: give the pod runAsUser, or run this as another user")
    binaries, data = find_binaries(), directory / "data"
    server: subprocess.Popen[bytes] | None = None

    def stop(received: int, _: object) -> None:
        if server is None:
            raise SystemExit(128 + received)
        server.send_signal(SIGNALS[signal.Signals(received)])

    for each in SIGNALS:
        signal.signal(each, stop)  # as the first process of a container it has no default for them
    try:
        if not data.exists():
            _initialize(binaries, data, password)
        data.chmod(0o700)  # a volume may have come back with its group's permissions
        (data / "pg_hba.conf").write_text(ACCESS)
    except OSError as error:
        raise InvalidInput(
            f"database folder {directory}: {error.strerror}: mount a volume that user {os.getuid()} may write"
        ) from error
    options = [f"--{name}={value}" for name, value in {**SETTINGS, "port": str(port)}.items()]
    server = subprocess.Popen([str(binaries / "postgres"), "-D", str(data), *options])  # noqa: S603
    return server.wait()


def _initialize(binaries: Path, data: Path, password: str) -> None:
    """The folder appears complete or not at all: what a killed initdb left is made anew."""
    fresh = data.with_name("data.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    with tempfile.NamedTemporaryFile("w", prefix="password-") as file:
        file.write(password + "\n")
        file.flush()
        _run(
            [
                str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", f"--pwfile={file.name}", "--encoding=UTF8",
                "--locale=C", "--auth=scram-sha-256", "--no-instructions",
            ]
        )  # fmt: skip
    _run([str(binaries / "postgres"), "--single", "-D", str(fresh), "postgres"], "create database cappuccino\n")
    fresh.rename(data)


def _run(command: Sequence[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise InvalidInput(f"{Path(command[0]).name} failed: {reason}")


def bring_up_to_date(url: str, logins: Mapping[Role, str], *, wait_seconds: float) -> None:
    """Migrate, then make the logins; wait for the database first.

    Raises:
        InvalidInput: the URL or its login. RetryLater: the database is still away after that time.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            migrate(url)
            make_logins(url, logins)
        except RetryLater as error:
            if time.monotonic() + error.after_seconds > deadline:
                raise
            get_logger(__name__).info("waiting", reason=str(error))
            time.sleep(error.after_seconds)
        else:
            get_logger(__name__).info("migrated", logins=sorted(logins))
            return


def read_logins(folder: Path) -> dict[Role, str]:
    """Passwords by role.

    Raises:
        InvalidInput: no such folder, a file that is no role's, an empty one, or a URL of another login.
    """
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))  # a mounted Secret has such folders
        contents = {path.name: path.read_text().strip() for path in files}
    except OSError as error:
        raise InvalidInput(f"--logins {folder}: {error.strerror}: mount the Secret with the roles' URLs there") from error
    passwords: dict[Role, str] = {}
    for name, content in contents.items():
        if name not in ROLES_WITH_LOGIN:
            raise InvalidInput(f"--logins {folder}: {name!r} gets no login: name the files {', '.join(ROLES_WITH_LOGIN)}")
        role = name
        parts = parse_url(content) if "://" in content else {"user": login_of(role), "password": content}
        if parts.get("user") != login_of(role) or not parts.get("password"):
            raise InvalidInput(f"--logins {folder}/{name}: write a URL of {login_of(role)} with its password, or the password")
        passwords[role] = str(parts["password"])
    return passwords


def _password(environment: Mapping[str, str]) -> str:
    if environment.get(PASSWORD_FILE):
        try:
            password = Path(environment[PASSWORD_FILE]).read_text().strip()
        except OSError as error:
            raise InvalidInput(
                f"{PASSWORD_FILE} {environment[PASSWORD_FILE]}: {error.strerror}: mount the Secret there"
            ) from error
    else:
        password = environment.get(PASSWORD, "")
    if not password:
        raise InvalidInput(f"the superuser has no password: set {PASSWORD_FILE} or {PASSWORD}")
    return password


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="database", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_serve = commands.add_parser("serve", help="run a PostgreSQL server")
    of_serve.add_argument("--data", type=Path, required=True, metavar="DIR", help="volume for the data")
    of_serve.add_argument("--port", type=int, default=5432)
    of_migrate = commands.add_parser("migrate", help="bring the schema up to date")
    of_migrate.add_argument("--logins", type=Path, metavar="DIR", help="make the roles' logins from these files")
    of_migrate.add_argument("--wait", type=float, default=120.0, metavar="SECONDS", help="for the database; default: 120")
    options = parser.parse_args(argv)
    configure(process="database")
    if options.command == "serve":
        return serve(options.data, options.port, password=_password(os.environ))
    logins = read_logins(options.logins) if options.logins else {}
    bring_up_to_date(required(DATABASE_URL), logins, wait_seconds=options.wait)
    return 0
