"""Adapters put together, for the processes that need more than one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cappuccino.adapters.postgres.engine import Role, open_async_pool
from cappuccino.adapters.postgres.record import PostgresRecord


@asynccontextmanager
async def open_record(url: str, role: Role) -> AsyncIterator[PostgresRecord]:
    """The record under a role."""
    pool = await open_async_pool(url, role, max_size=4)
    try:
        yield PostgresRecord(pool)
    finally:
        await pool.close()
