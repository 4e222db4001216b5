"""The `Events` port over the table `event`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.controllers.decision import Event, Key


class PostgresEvents:
    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]) -> None:
        self._pool = pool

    async def emit(self, key: Key, uid: str, event: Event, *, at: datetime) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection:
                await connection.execute(
                    "insert into event (kind, namespace, name, uid, type, reason, message, first_at, last_at)"
                    " values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (uid, type, reason, message)"
                    " do update set count = event.count + 1, last_at = excluded.last_at",
                    [*key, uid, event.type, event.reason, event.message, at, at],
                )

    async def of(self, key: Key) -> list[dict[str, Any]]:
        """Rows of the object's events, oldest first, those of former objects of the name included."""
        with away_is_retry():
            async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(
                    "select * from event where kind = %s and namespace = %s and name = %s order by last_at, reason", list(key)
                )
                return await cursor.fetchall()
