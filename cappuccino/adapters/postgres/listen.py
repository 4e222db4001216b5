"""Wake-ups: what the NOTIFY triggers of the record say, with a slow poll as floor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg

_RECONNECT_SECONDS = (0.2, 5.0)


async def notifications(url: str, *, poll_seconds: float) -> AsyncIterator[list[Any] | None]:
    """Payloads `[table, key...]` as they come; None where some may have been missed (at the start, after `poll_seconds`
    without one, after a reconnect): look at everything then. Ends only when cancelled."""
    pause = _RECONNECT_SECONDS[0]
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as connection:
                await connection.execute("listen cappuccino")
                yield None
                pause = _RECONNECT_SECONDS[0]
                while True:
                    quiet = True
                    async for note in connection.notifies(timeout=poll_seconds):
                        quiet = False
                        yield json.loads(note.payload)
                    if quiet:
                        await connection.execute("select 1")  # a dead connection is silent otherwise
                    yield None
        except (psycopg.OperationalError, psycopg.InterfaceError):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RECONNECT_SECONDS[1])
