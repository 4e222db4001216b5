"""One runner per database: an advisory lock, held by a connection of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from psycopg import AsyncConnection

from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.core.errors import Conflict, RetryLater

_KEY = 0x72756E  # any constant of ours
_LOOK_SECONDS = 2.0


class RunnerLock:
    def __init__(self, url: str, *, patience_seconds: float = 3.0) -> None:
        self._url = url
        self._patience_seconds = patience_seconds  # a runner that was just killed loses its lock in a moment
        self._connection: AsyncConnection[Any] | None = None

    async def acquire(self) -> None:
        """Raises Conflict when another runner has the database, RetryLater when the database is away."""
        deadline = time.monotonic() + self._patience_seconds
        with away_is_retry():
            self._connection = await AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5)
            while True:
                cursor = await self._connection.execute("select pg_try_advisory_lock(%s)", [_KEY])
                row = await cursor.fetchone()
                if row is not None and row[0]:
                    return
                if time.monotonic() > deadline:
                    await self.release()
                    raise Conflict("another runner works on this database: stop it, or use another database for this one")
                await asyncio.sleep(0.05)

    async def keep(self) -> None:
        """Hold the lock over restarts of the database; ends only by raising Conflict when another runner took it then."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if self._connection is None:
                    await self.acquire()
                else:
                    with away_is_retry():
                        await self._connection.execute("select 1")
            except RetryLater:
                await self.release()

    async def release(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
