"""One login for each role, so that a process whose credentials leak is held to what its role may.

The login `cappuccino_<role>_login` may take `cappuccino_<role>` with SET ROLE and nothing else; before it does, it may do
nothing. The migrator has none: it is the database's owner. The server gets only the verifier of a password, never its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import Connection, sql

from cappuccino.adapters.postgres.engine import ROLES, Role, away_is_retry, parse_url
from cappuccino.core.errors import InvalidInput

ROLES_WITH_LOGIN: tuple[Role, ...] = tuple(role for role in ROLES if role != "migrator")
_LOCK = 0x636170_01  # any constant of ours


def login_of(role: Role) -> str:
    return f"cappuccino_{role}_login"


def make_logins(url: str, passwords: Mapping[Role, str]) -> None:
    """Make or correct the logins of these roles. Idempotent; several at once wait for each other.

    Raises:
        InvalidInput: `url` may not create roles, or a role has no login.
        RetryLater: the server is away.
    """
    parse_url(url)
    for role in passwords:
        if role not in ROLES_WITH_LOGIN:
            raise InvalidInput(f"role {role!r} gets no login: use {', '.join(ROLES_WITH_LOGIN)}")
    with away_is_retry(), psycopg.connect(url, connect_timeout=5) as connection:  # one transaction: all of them or none
        connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        try:
            for role, password in sorted(passwords.items()):
                _make(connection, role, password)
        except psycopg.errors.InsufficientPrivilege as error:
            raise InvalidInput(
                f"the database login may not make logins ({error.diag.message_primary}): grant it CREATEROLE"
            ) from error


def _make(connection: Connection[Any], role: Role, password: str) -> None:
    name = login_of(role)
    login = sql.Identifier(name)
    if connection.execute("select from pg_roles where rolname = %s", [name]).fetchone() is None:
        connection.execute(sql.SQL("create role {} login").format(login))
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("alter role {} login noinherit password {}").format(login, sql.Literal(verifier)))
    member = "select roleid::regrole::text from pg_auth_members where member = %s::regrole and roleid::regrole::text <> %s"
    own = f"cappuccino_{role}"
    for (other,) in connection.execute(member, [name, own]).fetchall():
        connection.execute(sql.SQL("revoke {} from {}").format(sql.SQL(other), login))
    connection.execute(sql.SQL("grant {} to {} with inherit false, set true, admin false").format(sql.Identifier(own), login))
