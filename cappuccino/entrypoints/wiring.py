"""Adapters put together, for the processes that need more than one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cappuccino.adapters.postgres.engine import Role, open_async_pool
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.api.search import Pruner as PrunerSpec
from cappuccino.api.study import StudySpec
from cappuccino.reconcile.observers import Search
from cappuccino.search.pruner import AshaPruner, MedianPruner, NoPruner, Pruner
from cappuccino.search.sampler import Sampler


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

    def sampler(spec: StudySpec) -> Sampler:
        return OptunaSampler(type=spec.sampler.type, startup_trials=spec.sampler.startup_trials, goal=spec.goal)

    def pruner(spec: PrunerSpec) -> Pruner:
        match spec.type:
            case "none":
                return NoPruner()
            case "median":
                return MedianPruner(startup_trials=spec.startup_trials)
            case "asha":
                return AshaPruner(
                    reduction_factor=spec.reduction_factor, min_folds=spec.min_folds, startup_trials=spec.startup_trials
                )

    return Search(sampler=sampler, pruner=pruner)
