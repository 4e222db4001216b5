"""Adapters put together, for the processes that need more than one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cappuccino.adapters.postgres.engine import Role, open_async_pool
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.api.study import Pruner as PrunerSpec
from cappuccino.api.study import Sampler as SamplerSpec
from cappuccino.reconcile.observers import Search
from cappuccino.search.sampler import MedianPruner, NoPruner, Pruner, Sampler


@asynccontextmanager
async def open_record(url: str, role: Role) -> AsyncIterator[PostgresRecord]:
    """The record under a role."""
    pool = await open_async_pool(url, role, max_size=4)
    try:
        yield PostgresRecord(pool)
    finally:
        await pool.close()


def search() -> Search:
    """The library behind a search; imported by those processes only that reconcile."""
    from cappuccino.adapters.optuna import OptunaSampler

    def sampler(spec: SamplerSpec) -> Sampler:
        return OptunaSampler(type=spec.type, startup_trials=spec.startup_trials)

    def pruner(spec: PrunerSpec) -> Pruner:
        return MedianPruner(startup_trials=spec.startup_trials) if spec.type == "median" else NoPruner()

    return Search(sampler=sampler, pruner=pruner)
