"""Connections under a role, and the migrations that make what they connect to.

Every process takes one role with SET ROLE and can write only what that role may (migrations/0001_rules.sql). Connections are in
autocommit: a statement is a transaction unless `connection.transaction()` says otherwise.

A trader holds positions, so it waits for no database that has fallen silent: its connections give up an answer after
ANSWER_SECONDS, whoever swallowed it (a network that drops packets, a proxy in between, a server that hangs), and the server
gives up a statement a little before, so that one which is only slow says so itself. Other roles may run long statements.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

import psycopg
from psycopg import AsyncConnection, Connection, sql
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from cappuccino.core.errors import InvalidInput, RetryLater

Role = Literal["migrator", "ingest", "trial", "gate", "trader", "operator", "dashboard"]
ROLES: tuple[Role, ...] = get_args(Role)

_MIGRATION_LOCK = 0x636170  # any constant of ours
_WAIT_SECONDS = 10.0
ANSWER_SECONDS = 4.0  # of a trader's statements, each
_STATEMENT_SECONDS = 3.0
_SILENT_NETWORK = {  # what libpq does about a peer that acknowledges nothing
    "tcp_user_timeout": 3000,  # milliseconds
    "keepalives_idle": 3,  # seconds, as is the interval
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
_PERMANENT = ("authentication failed", "does not exist", "pg_hba.conf", "could not translate host name")


class PromptConnection(Connection[tuple[Any, ...]]):
    """Closes itself, with OperationalError, when a statement has no answer after `answer_seconds`."""

    answer_seconds = ANSWER_SECONDS

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise  # the server's own words, or the network's
            self.close()
            raise psycopg.OperationalError(f"no answer within {self.answer_seconds:g} s") from error


@contextmanager
def patient(connection: Connection[tuple[Any, ...]], *, seconds: float) -> Iterator[None]:
    """Within a transaction: its statements may take this long, as a whole journal may that is read at the start."""
    connection.execute(sql.SQL("set local statement_timeout = {}").format(int(seconds * 1000)))
    if not isinstance(connection, PromptConnection):
        yield
        return
    connection.answer_seconds = seconds + ANSWER_SECONDS - _STATEMENT_SECONDS
    try:
        yield
    finally:
        connection.answer_seconds = ANSWER_SECONDS


@contextmanager
def away_is_retry(what: str = "database") -> Iterator[None]:
    """A lost connection, a server that starts or stops, or a full pool becomes RetryLater."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        raise RetryLater(f"{what} is away: {_line(error)}", after_seconds=1.0) from error


def open_pool(url: str, role: Role, *, min_size: int = 1, max_size: int = 4) -> ConnectionPool[Connection[tuple[Any, ...]]]:
    """An open pool whose connections have taken `role`.

    Raises:
        InvalidInput: the URL, the credentials, or a role that is not there because nothing was migrated.
        RetryLater: the server is away or still starting.
    """
    _check(url, role)

    def configure(connection: Connection[tuple[Any, ...]]) -> None:
        connection.execute(_set_role(role))
        if role == "trader":
            connection.execute(sql.SQL("set statement_timeout = {}").format(int(_STATEMENT_SECONDS * 1000)))

    connection_class: type[Connection[tuple[Any, ...]]] = PromptConnection if role == "trader" else Connection
    pool: ConnectionPool[Connection[tuple[Any, ...]]] = ConnectionPool(
        url,
        connection_class=connection_class,
        kwargs=_keywords(role),
        min_size=min_size,
        max_size=max_size,
        timeout=_WAIT_SECONDS,
        configure=configure,
        check=_check_connection,
        open=False,
        name=f"cappuccino-{role}",
    )
    with away_is_retry():
        pool.open(wait=True, timeout=_WAIT_SECONDS)
    return pool


async def open_async_pool(
    url: str, role: Role, *, min_size: int = 1, max_size: int = 4
) -> AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]:
    """As open_pool, for asyncio."""
    await asyncio.to_thread(_check, url, role)

    async def configure(connection: AsyncConnection[tuple[Any, ...]]) -> None:
        await connection.execute(_set_role(role))

    pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]] = AsyncConnectionPool(
        url,
        kwargs=_keywords(role),
        min_size=min_size,
        max_size=max_size,
        timeout=_WAIT_SECONDS,
        configure=configure,
        check=_check_async_connection,
        open=False,
        name=f"cappuccino-{role}",
    )
    with away_is_retry():
        await pool.open(wait=True, timeout=_WAIT_SECONDS)
    return pool


def _check_connection(connection: Connection[Any]) -> None:
    if _has_news(connection.fileno()):
        ConnectionPool.check_connection(connection)


async def _check_async_connection(connection: AsyncConnection[Any]) -> None:
    if _has_news(connection.fileno()):
        await AsyncConnectionPool.check_connection(connection)


def _has_news(fileno: int) -> bool:
    """Whether an idle connection has something to read: its end, if its server has gone. A question each time would cost as
    much as most statements."""
    poll = select.poll()
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))


def migrate(url: str) -> None:
    """Bring the schema to the newest version. Idempotent; several at once wait for each other; it only ever adds.

    Raises:
        InvalidInput: the login may not create roles, or the URL is wrong.
        RetryLater: the server is away.
    """
    from alembic import command  # 20 MB that only a migrator needs
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    parse_url(url)
    with away_is_retry(), psycopg.connect(url, **_keywords("migrator")) as lock:
        lock.execute("select pg_advisory_lock(%s)", [_MIGRATION_LOCK])
        try:
            _make_roles(lock)
        except psycopg.errors.InsufficientPrivilege as error:
            raise InvalidInput(
                f"the database login may not prepare the schema ({_line(error)}): grant it CREATEROLE and the database"
            ) from error
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(url, connect_timeout=5), poolclass=NullPool
        )
        with engine.begin() as connection:
            connection.exec_driver_sql("set local role cappuccino_migrator")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def parse_url(url: str) -> dict[str, Any]:
    """The parts of a connection URL.

    Raises:
        InvalidInput: it is none.
    """
    try:
        if not url.startswith(("postgresql://", "postgres://")):
            raise psycopg.ProgrammingError("it does not start with postgresql://")
        parts = dict(conninfo_to_dict(url))
        if not all(port.isdigit() for port in str(parts.get("port", "0")).split(",")):
            raise psycopg.ProgrammingError(f"port {parts['port']!r} is not a number")
        return parts
    except psycopg.ProgrammingError as error:
        raise InvalidInput(
            f"database URL is wrong ({_line(error)}): write postgresql://user:password@host:port/database"
        ) from error


def _make_roles(connection: Connection[Any]) -> None:
    """Group roles are shared by all databases of a server, so another database's migration may be making them too."""
    for role in ROLES:
        name = sql.Identifier(f"cappuccino_{role}")
        have = connection.execute("select 1 from pg_roles where rolname = %s", [f"cappuccino_{role}"]).fetchone()
        if have is None:
            with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("create role {} nologin").format(name))
        member = connection.execute("select pg_has_role(current_user, %s, 'SET')", [f"cappuccino_{role}"]).fetchone()
        if member is None or not member[0]:
            connection.execute(sql.SQL("grant {} to current_user").format(name))
    connection.execute("grant usage, create on schema public to cappuccino_migrator")


def _check(url: str, role: Role) -> None:
    """One connection with its errors told apart, which a pool's background worker cannot do."""
    parse_url(url)
    if role not in ROLES:
        raise InvalidInput(f"role {role!r} is unknown: use one of {', '.join(ROLES)}")
    try:
        with psycopg.connect(url, **_keywords(role)) as connection:
            connection.execute(_set_role(role))
    except psycopg.OperationalError as error:
        text = str(error)
        if any(sign in text for sign in _PERMANENT) and "No such file" not in text:
            raise InvalidInput(f"database refuses the connection: {_line(error)}: correct CAPPUCCINO_DATABASE_URL") from error
        raise RetryLater(f"database is away: {_line(error)}", after_seconds=1.0) from error
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege) as error:
        raise InvalidInput(f"database has no role for us ({_line(error)}): run the migration as its owner first") from error


def _keywords(role: Role) -> dict[str, Any]:
    keywords = {"autocommit": True, "connect_timeout": 5, "application_name": f"cappuccino-{role}"}
    return keywords | _SILENT_NETWORK if role == "trader" else keywords


def _set_role(role: Role) -> sql.Composed:
    return sql.SQL("set role {}").format(sql.Identifier(f"cappuccino_{role}"))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
