"""What the dashboard shows of the record: newest first, bounded, in a few statements, under a role that may only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.adapters.postgres.record import PostgresRecord

_STUDIES = """
    select s.uid, s.name, s.snapshot, s.gate_starts_at, s.recorded_at, coalesce(t.trials, '{}') as trials
      from study s left join lateral (
           select jsonb_object_agg(state, n) as trials from (
                  select state, count(*) as n from trial where study_uid = s.uid group by state) by_state) t on true
     order by s.recorded_at desc, s.uid limit %s
"""

# Of a gate that was judged more than once (soak, grade) the newest row counts.
_CANDIDATES = """
    select v.deployment_uid, coalesce(v.detail ->> 'deployment', '') as deployment, v.bundle_digest,
           v.detail ->> 'verdict' as verdict, coalesce(v.detail ->> 'role', '') as role, v.message, v.recorded_at,
           coalesce(g.gates, '[]') as gates
      from evidence v
      left join lateral (
           select jsonb_agg(jsonb_build_object('gate', gate, 'outcome', outcome, 'measured', measured, 'threshold', threshold,
                                               'message', message) order by first_id) as gates
             from (select distinct on (gate) gate, outcome, measured, threshold, message,
                          min(id) over (partition by gate) as first_id
                     from evidence
                    where deployment_uid = v.deployment_uid and bundle_digest = v.bundle_digest and gate <> v.gate
                    order by gate, id desc) newest) g on true
     where v.gate = 'verdict' order by v.recorded_at desc, v.id desc limit %s
"""

_HALTS = """
    select distinct on (subject) subject, actor, recorded_at from audit
     where action = 'halt' and subject = any(%s) order by subject, seq desc
"""


@dataclass(frozen=True, kw_only=True)
class StudyOverview:
    """trials: how many are in each state."""

    uid: str
    name: str
    snapshot: str
    gate_starts_at: datetime
    recorded_at: datetime
    trials: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class CandidateOverview:
    """deployment: its name. gates: in the order in which they were first judged."""

    deployment_uid: str
    deployment: str
    bundle_digest: str
    verdict: str
    role: str
    message: str
    recorded_at: datetime
    gates: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class AccountOverview:
    """held: a trader has its lease now. equity_usd: marked at last_bar_at, both None before the first bar.
    halted_by, halted_at: as audited; all three are None while it is not halted."""

    name: str
    venue: str
    held: bool
    halted_reason: str | None
    halted_by: str | None
    halted_at: datetime | None
    equity_usd: Decimal | None
    peak_equity_usd: Decimal | None
    last_bar_at: datetime | None
    orders: int
    fills: int


class Overview:
    """All methods raise RetryLater when the database is away."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]], *, limit: int = 200) -> None:
        self._pool = pool
        self._record = PostgresRecord(pool)
        self._limit = limit

    async def studies(self) -> list[StudyOverview]:
        return [StudyOverview(**row) for row in await self._rows(_STUDIES, self._limit)]

    async def candidates(self) -> list[CandidateOverview]:
        found = await self._rows(_CANDIDATES, self._limit)
        return [CandidateOverview(**{**row, "gates": tuple(row["gates"])}) for row in found]

    async def accounts(self) -> list[AccountOverview]:
        """Every account, by name."""
        accounts = await self._record.accounts()
        activity = await self._record.activity([account.name for account in accounts])
        latched = [f"account/{account.name}" for account in accounts if account.halted_reason is not None]
        halts = {row["subject"].partition("/")[2]: row for row in await self._rows(_HALTS, latched)}
        return [
            AccountOverview(
                name=account.name,
                venue=account.venue,
                held=account.held,
                halted_reason=account.halted_reason,
                halted_by=halts.get(account.name, {}).get("actor"),
                halted_at=halts.get(account.name, {}).get("recorded_at"),
                equity_usd=activity[account.name].equity_usd,
                peak_equity_usd=activity[account.name].peak_equity_usd,
                last_bar_at=activity[account.name].last_bar_at,
                orders=activity[account.name].orders,
                fills=activity[account.name].fills,
            )
            for account in accounts
        ]

    async def check(self) -> None:
        """Returns when the database answers."""
        await self._rows("select 1 where %s > 0", 1)

    async def _rows(self, statement: str, parameter: int | list[str]) -> list[dict[str, Any]]:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement, [parameter])
                return await cursor.fetchall()
