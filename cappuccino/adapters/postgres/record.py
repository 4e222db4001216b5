"""The `Record` port over PostgreSQL. Which methods succeed depends on the role that the pool has taken.

Every write is one statement or one transaction, and repeating it changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from cappuccino.adapters.postgres import rows
from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.adapters.postgres.history import Histories
from cappuccino.adapters.postgres.listen import notifications
from cappuccino.controllers.rows import (
    AccountActivity,
    AccountRecord,
    AccountRow,
    AuditRow,
    EquityPoint,
    Evidence,
    Gap,
    Promotion,
    SnapshotRow,
    StudyRow,
)
from cappuccino.core.errors import Conflict, InvalidInput, NotFound
from cappuccino.search.trials import NewTrial, TrialRow, TrialState

_NO_ACCOUNT, _NO_REASON, _NOT_APPROVED, _ACCOUNT_EXISTS = "CP003", "CP004", "CP005", "CP006"  # of migrations/versions/*.sql
_NOT_RECORD = ("object", "workload")  # tables of the local cluster, which have watches of their own


class PostgresRecord:
    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]], *, poll_seconds: float = 30.0) -> None:
        self._pool = pool
        self._poll_seconds = poll_seconds
        self._histories = Histories(pool)

    # --- market -------------------------------------------------------------------------------------

    async def register_snapshot(self, *, dataset_uid: str, digest: str, manifest: Mapping[str, Any]) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(
                    "insert into snapshot (digest, dataset_uid, manifest) values (%s, %s, %s) on conflict do nothing",
                    [digest, dataset_uid, Jsonb(dict(manifest))],
                )
                await connection.execute(
                    "insert into dataset_snapshot (dataset_uid, digest) select %s, %s where %s is distinct from"
                    " (select digest from dataset_snapshot where dataset_uid = %s order by id desc limit 1)",
                    [dataset_uid, digest, digest, dataset_uid],
                )

    async def current_snapshot(self, dataset_uid: str) -> SnapshotRow | None:
        row = await self._one(
            "select s.digest, d.dataset_uid, s.manifest, d.recorded_at from dataset_snapshot d join snapshot s using (digest)"
            " where d.dataset_uid = %s order by d.id desc limit 1",
            dataset_uid,
        )
        return rows.snapshot(row) if row else None

    async def snapshot(self, digest: str) -> SnapshotRow | None:
        row = await self._one("select * from snapshot where digest = %s", digest)
        return rows.snapshot(row) if row else None

    async def record_gaps(self, *, dataset_uid: str, gaps: Sequence[Gap]) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                for gap in gaps:
                    await connection.execute(
                        "insert into gap (dataset_uid, symbol, start_at, end_at, state) values (%s, %s, %s, %s, %s)"
                        " on conflict (dataset_uid, symbol, start_at)"
                        " do update set end_at = excluded.end_at, state = excluded.state, recorded_at = now()"
                        " where (gap.end_at, gap.state) is distinct from (excluded.end_at, excluded.state)",
                        [dataset_uid, gap.symbol, gap.start_at, gap.end_at, gap.state],
                    )

    async def gaps(self, dataset_uid: str) -> list[Gap]:
        found = await self._all("select * from gap where dataset_uid = %s order by symbol, start_at", dataset_uid)
        return [rows.gap(row) for row in found]

    # --- search -------------------------------------------------------------------------------------

    async def pin_study(
        self, *, uid: str, name: str, spec: Mapping[str, Any], snapshot: str, gate_starts_at: datetime
    ) -> StudyRow:
        try:
            with away_is_retry():
                async with self._pool.connection() as connection:
                    await connection.execute(
                        "insert into study (uid, name, spec, snapshot, gate_starts_at) values (%s, %s, %s, %s, %s)"
                        " on conflict do nothing",
                        [uid, name, Jsonb(dict(spec)), snapshot, gate_starts_at],
                    )
        except psycopg.errors.ForeignKeyViolation as error:
            raise InvalidInput(f"Study {name}: snapshot {snapshot} is not registered: wait for its Dataset") from error
        pinned = await self.study(uid)
        assert pinned is not None  # it was inserted above, now or before, and nobody may delete it
        return pinned

    async def study(self, uid: str) -> StudyRow | None:
        row = await self._one("select * from study where uid = %s", uid)
        return rows.study(row) if row else None

    async def studies(self) -> list[StudyRow]:
        return [rows.study(row) for row in await self._all("select * from study order by recorded_at, uid")]

    async def insert_trials(self, *, study_uid: str, trials: Sequence[NewTrial], at: datetime) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                for trial in trials:
                    await connection.execute(
                        "insert into trial (study_uid, number, phase, parameters, distributions, seed, state, created_at)"
                        " values (%s, %s, %s, %s, %s, %s, 'Waiting', %s) on conflict do nothing",
                        [
                            study_uid,
                            trial.number,
                            trial.phase,
                            Jsonb(dict(trial.parameters)),
                            Jsonb(dict(trial.distributions)),
                            trial.seed,
                            at,
                        ],
                    )

    async def trials(self, study_uid: str) -> list[TrialRow]:
        return [rows.trial(row) for row in await self._all(rows.TRIALS, study_uid, None, None)]

    async def trial(self, study_uid: str, number: int) -> TrialRow | None:
        row = await self._one(rows.TRIAL_STATES, study_uid, number, number)
        return rows.trial(row) if row else None

    async def history(self, study_uid: str) -> Sequence[TrialRow]:
        return await self._histories.read(study_uid)

    async def peers(self, study_uid: str, number: int, step: int, states: Sequence[TrialState]) -> list[float]:
        row = await self._one(
            "select coalesce(array_agg(value), '{}') as peers from trial_report join trial using (study_uid, number)"
            " where study_uid = %s and step = %s and number <> %s and state = any(%s)",
            study_uid,
            step,
            number,
            list(states),
        )
        return list(row["peers"]) if row else []

    async def set_trial_state(
        self,
        *,
        study_uid: str,
        number: int,
        from_states: Sequence[TrialState],
        to_state: TrialState,
        at: datetime,
        reason: str = "",
        objective: float | None = None,
        bundle_digest: str | None = None,
    ) -> bool:
        moved = await self._one(
            "update trial set state = %(to)s, reason = %(reason)s, objective = %(objective)s, bundle_digest = %(bundle)s,"
            " started_at = case when %(to)s = 'Running' then coalesce(started_at, %(at)s) else started_at end,"
            " finished_at = case when %(to)s in ('Complete', 'Pruned', 'Failed') then %(at)s::timestamptz end"
            " where study_uid = %(study)s and number = %(number)s and state = any(%(from)s) returning number",
            {
                "to": to_state,
                "reason": reason,
                "objective": objective,
                "bundle": bundle_digest,
                "at": at,
                "study": study_uid,
                "number": number,
                "from": list(from_states),
            },
        )
        return moved is not None

    # --- gates --------------------------------------------------------------------------------------

    async def insert_evidence(self, *, evidence: Evidence) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection:
                await connection.execute(
                    "insert into evidence (bundle_digest, gate, gate_version, scope, deployment_uid, outcome, measured,"
                    " threshold, minimum_detectable, message, detail) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                    " on conflict do nothing",
                    [
                        evidence.bundle_digest,
                        evidence.gate,
                        evidence.gate_version,
                        evidence.scope,
                        evidence.deployment_uid,
                        evidence.outcome,
                        evidence.measured,
                        evidence.threshold,
                        evidence.minimum_detectable,
                        evidence.message,
                        Jsonb(dict(evidence.detail)),
                    ],
                )

    async def evidence(self, *, deployment_uid: str | None = None, bundle_digest: str | None = None) -> list[Evidence]:
        found = await self._all(
            "select * from evidence where (%s::text is null or deployment_uid = %s)"
            " and (%s::text is null or bundle_digest = %s) order by id",
            deployment_uid,
            deployment_uid,
            bundle_digest,
            bundle_digest,
        )
        return [rows.evidence(row) for row in found]

    async def open_window(
        self, *, deployment_uid: str, bundle_digest: str, symbols: Sequence[str], start_at: datetime, end_at: datetime
    ) -> int:
        with away_is_retry():
            async with self._pool.connection() as connection:
                await connection.execute(
                    "insert into window_opening (deployment_uid, bundle_digest, symbols, start_at, end_at)"
                    " values (%s, %s, %s, %s, %s) on conflict do nothing",
                    [deployment_uid, bundle_digest, list(symbols), start_at, end_at],
                )
        row = await self._one(
            "select count(distinct deployment_uid) as openings from window_opening"
            " where symbols && %s::text[] and start_at < %s and end_at > %s",
            list(symbols),
            end_at,
            start_at,
        )
        return int(row["openings"]) if row else 0

    async def record_promotion(self, *, promotion: Promotion, about: str) -> None:
        try:
            await self._one(
                "select promotion_append(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                promotion.deployment_uid,
                promotion.subject,
                promotion.bundle_digest,
                promotion.action,
                promotion.actor,
                promotion.reason,
                promotion.account,
                promotion.terms,
                promotion.step,
                about,
            )
        except psycopg.Error as error:
            if error.sqlstate == _NOT_APPROVED:
                raise Conflict(f"{about}: {error.diag.message_primary}: approve the candidate first") from error
            if error.sqlstate == _ACCOUNT_EXISTS:
                raise Conflict(f"{about}: {error.diag.message_primary}: give the Deployment another name") from error
            raise

    async def promotions(self, deployment_uid: str) -> list[Promotion]:
        found = await self._all("select * from promotion where deployment_uid = %s order by id", deployment_uid)
        return [rows.promotion(row) for row in found]

    # --- trading ------------------------------------------------------------------------------------

    async def accounts(self) -> list[AccountRow]:
        return [rows.account(row) for row in await self._all(rows.ACCOUNTS, None, None)]

    async def account(self, name: str) -> AccountRow | None:
        row = await self._one(rows.ACCOUNTS, name, name)
        return rows.account(row) if row else None

    async def halt(self, *, name: str, reason: str, actor: str) -> None:
        await self._account_change("select account_halt(%s, %s, %s)", name, reason, actor)

    async def resume(self, *, name: str, reason: str, actor: str) -> None:
        await self._account_change("select account_resume(%s, %s, %s)", name, reason, actor)

    async def activity(self, names: Sequence[str]) -> dict[str, AccountActivity]:
        found = await self._all(
            "select a.name, (select count(*) from intent where account = a.name) as orders,"
            " (select count(*) from fill where account = a.name) as fills,"
            " (select count(*) from decision where account = a.name) as decisions,"
            " (select max(equity_usd) from equity where account = a.name) as peak_equity_usd,"
            " e.bar_at as last_bar_at, e.equity_usd"
            " from unnest(%s::text[]) a (name) left join lateral (select bar_at, equity_usd from equity"
            " where account = a.name order by bar_at desc limit 1) e on true",
            list(names),
        )
        return {row["name"]: AccountActivity(**row) for row in found}

    async def record_of_account(self, name: str) -> AccountRecord:
        equity = await self._all(
            "select bar_at, equity_usd, cash_usd, positions from equity where account = %s order by bar_at", name
        )
        fills = await self._all("select * from fill where account = %s order by filled_at, execution_id", name)
        intents = await self._all(
            "select i.*, (select e.state from order_event e where e.client_order_id = i.client_order_id"
            " order by e.id desc limit 1) as state, (select max(e.venue_order_id) from order_event e"
            " where e.client_order_id = i.client_order_id) as venue_order_id"
            " from intent i where i.account = %s order by i.created_at, i.client_order_id",
            name,
        )
        decisions = await self._all("select * from decision where account = %s order by bar_at", name)
        return AccountRecord(
            name=name,
            equity=tuple(EquityPoint(**row) for row in equity),
            fills=tuple(fills),
            intents=tuple(intents),
            decisions=tuple(decisions),
        )

    # --- audit --------------------------------------------------------------------------------------

    async def audit(self, *, limit: int = 100) -> list[AuditRow]:
        found = await self._all(
            "select seq, actor, action, subject, body, recorded_at from audit order by seq desc limit %s", limit
        )
        return [AuditRow(**row) for row in reversed(found)]

    async def watch(self) -> AsyncIterator[tuple[str, str]]:
        async for note in notifications(str(self._pool.conninfo), poll_seconds=self._poll_seconds):
            if note is not None and note[0] not in _NOT_RECORD:
                yield note[0], "/".join(str(part) for part in note[1:])

    # --- statements ---------------------------------------------------------------------------------

    async def _account_change(self, statement: str, name: str, reason: str, actor: str) -> None:
        try:
            await self._one(statement, name, reason, actor)
        except psycopg.Error as error:
            if error.sqlstate == _NO_ACCOUNT:
                raise NotFound(f"account {name!r} does not exist: list accounts with `cappuccino get traders`") from error
            if error.sqlstate == _NO_REASON:
                raise InvalidInput(f"account {name!r}: a reason is needed: say why with --reason") from error
            raise

    async def _all(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement.encode(), _parameters(arguments))
                return await cursor.fetchall()

    async def _one(self, statement: str, *arguments: Any) -> dict[str, Any] | None:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement.encode(), _parameters(arguments))
                return await cursor.fetchone()


def _parameters(arguments: tuple[Any, ...]) -> Any:
    """One mapping names its parameters; anything else gives them in order."""
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], dict) else list(arguments)
