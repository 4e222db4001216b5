"""The trials of each Study in memory, brought up to date with what has changed since they were last read.

A state only moves forwards and numbers only grow (records are never deleted), so a read asks for rows that are new and for
unfinished ones whose state is another now. What is in memory is what any process would read: it can be dropped at any time, and
is, from the Study that was asked for the longest time ago, when there is too much.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, get_args

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.search.trials import TrialRow, TrialState

_COLUMNS = (
    "t.number, t.phase, t.parameters, t.distributions::text, t.seed, t.state, t.reason, t.objective, t.bundle_digest,"
    " t.created_at, t.started_at, t.finished_at,"
    " case when t.state = 'Complete' then (select r.record -> 'metrics' from trial_result r"
    " where r.study_uid = t.study_uid and r.number = t.number) end"
)
_CHANGED = " union all ".join(
    f"select {_COLUMNS} from trial t where t.study_uid = %(study)s and {which}"  # noqa: S608
    for which in (
        "t.number = any(%(waiting)s) and t.state <> 'Waiting'",
        "t.number = any(%(running)s) and t.state <> 'Running'",
        "t.number >= %(next)s",
    )
).encode()
_STATES: dict[str, TrialState] = {state: state for state in get_args(TrialState)}
_ROWS_KEPT = 100_000


class Histories:
    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]], *, rows_kept: int = _ROWS_KEPT) -> None:
        self._pool = pool
        self._rows_kept = rows_kept
        self._known: OrderedDict[str, _History] = OrderedDict()

    async def read(self, study_uid: str) -> tuple[TrialRow, ...]:
        """Ordered by number."""
        history = self._known.setdefault(study_uid, _History(study_uid))
        self._known.move_to_end(study_uid)
        rows = await history.read(self._pool)
        while len(self._known) > 1 and sum(len(each) for each in self._known.values()) > self._rows_kept:
            self._known.popitem(last=False)
        return rows


class _History:
    """One Study's. Reads are one after the other, so that no older one undoes a newer one."""

    def __init__(self, study_uid: str) -> None:
        self._study_uid = study_uid
        self._rows: dict[int, TrialRow] = {}
        self._waiting: set[int] = set()
        self._running: set[int] = set()
        self._next = 0  # every number below it is known
        self._distributions: dict[str, Mapping[str, Any]] = {}  # by their text: one for each phase
        self._reading = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    async def read(self, pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]) -> tuple[TrialRow, ...]:
        async with self._reading:
            with away_is_retry():
                async with pool.connection() as connection:
                    known = {"waiting": list(self._waiting), "running": list(self._running), "next": self._next}
                    cursor = await connection.execute(_CHANGED, {"study": self._study_uid, **known})
                    changed = await cursor.fetchall()
            for values in changed:
                self._note(self._row(values))
            while self._next in self._rows:
                self._next += 1
            return tuple(self._rows[number] for number in sorted(self._rows))

    def _note(self, row: TrialRow) -> None:
        self._rows[row.number] = row
        for numbers, state in ((self._waiting, "Waiting"), (self._running, "Running")):
            numbers.add(row.number) if row.state == state else numbers.discard(row.number)

    def _row(self, values: TupleRow) -> TrialRow:
        """What many rows have in common is in memory once."""
        number, phase, parameters, distributions, seed, state, reason, *rest = values
        objective, bundle_digest, created_at, started_at, finished_at, metrics = rest
        if distributions not in self._distributions:
            self._distributions[distributions] = json.loads(distributions)
        return TrialRow(
            study_uid=self._study_uid,
            number=number,
            phase=sys.intern(phase),
            parameters={sys.intern(name): value for name, value in parameters.items()},
            distributions=self._distributions[distributions],
            seed=seed,
            state=_STATES[state],
            reason=sys.intern(reason),
            objective=objective,
            bundle_digest=bundle_digest,
            created_at=created_at,
            started_at=started_at,
            finished_at=finished_at,
            metrics={sys.intern(name): value for name, value in (metrics or {}).items()},
        )
