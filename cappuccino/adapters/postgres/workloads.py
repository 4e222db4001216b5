"""The table `workload`, for the supervisor of the local cluster (which defines the port and the row's dataclass)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.controllers.decision import Key, PodNeeds, Workload

R = TypeVar("R")


class PostgresWorkloadStore(Generic[R]):
    """`row_type` is made from `workload` and the columns' names: adapters do not know each other's classes."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]], row_type: Callable[..., R]) -> None:
        self._pool = pool
        self._row_type = row_type

    async def insert(self, workload: Workload) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection:
                await connection.execute(
                    "insert into workload (name, spec, state) values (%s, %s, 'Pending') on conflict do nothing",
                    [workload.name, Jsonb(_to_json(workload))],
                )

    async def row(self, name: str) -> R | None:
        found = await self._select("select * from workload where name = %s", name)
        return found[0] if found else None

    async def rows(self) -> list[R]:
        return await self._select("select * from workload order by name")

    async def update(self, name: str, **columns: Any) -> None:
        assignments = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder()) for column in columns
        )
        statement = sql.SQL("update workload set {} where name = {}").format(assignments, sql.Placeholder())
        with away_is_retry():
            async with self._pool.connection() as connection:
                await connection.execute(statement, [*columns.values(), name])

    async def delete(self, name: str) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection:
                await connection.execute("delete from workload where name = %s", [name])

    async def _select(self, statement: str, *arguments: Any) -> list[R]:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement.encode(), list(arguments))
                return [self._row(row) for row in await cursor.fetchall()]

    def _row(self, row: Mapping[str, Any]) -> R:
        columns = {name: value for name, value in row.items() if name not in ("name", "spec")}
        return self._row_type(workload=_from_json(row["name"], row["spec"]), **columns)


def _to_json(workload: Workload) -> dict[str, Any]:
    return {
        "kind": workload.kind,
        "arguments": list(workload.arguments),
        "keys": [list(key) for key in workload.keys],
        "environment": dict(workload.environment),
        "timeout_seconds": workload.timeout_seconds,
        "retries": workload.retries,
        "secrets": list(workload.pod.secrets),
    }


def _from_json(name: str, spec: Mapping[str, Any]) -> Workload:
    return Workload(
        name=name,
        kind=spec["kind"],
        arguments=tuple(spec["arguments"]),
        keys=tuple(Key(*key) for key in spec["keys"]),
        environment=spec["environment"],
        timeout_seconds=spec["timeout_seconds"],
        retries=spec["retries"],
        pod=PodNeeds(secrets=tuple(spec.get("secrets", ()))),
    )
