"""What a trainer reads and writes: its trials, intermediate values, one result each. Synchronous; the pool's role is trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from cappuccino.adapters.postgres import rows
from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.controllers.rows import SnapshotRow, StudyRow
from cappuccino.core.errors import InvalidInput, NotFound
from cappuccino.search.trials import FINISHED, TrialResult, TrialRow


class TrialWriter:
    def __init__(self, pool: ConnectionPool[Connection[tuple[Any, ...]]]) -> None:
        self._pool = pool

    def study(self, uid: str) -> StudyRow:
        """Raises NotFound for a Study that was never pinned."""
        row = self._one("select * from study where uid = %s", uid)
        if row is None:
            raise NotFound(f"study {uid} is not in the record: apply the Study and wait until it searches")
        return rows.study(row)

    def snapshot(self, digest: str) -> SnapshotRow:
        """Raises NotFound for a digest that was never registered."""
        row = self._one("select * from snapshot where digest = %s", digest)
        if row is None:
            raise NotFound(f"snapshot {digest} is not in the record: refresh its Dataset")
        return rows.snapshot(row)

    def trial(self, study_uid: str, number: int) -> TrialRow:
        """Raises NotFound for a number that was never inserted."""
        row = self._one(rows.TRIALS, study_uid, number, number)
        if row is None:
            raise NotFound(f"trial {number} of study {study_uid} is not in the record: only the Study makes trials")
        return rows.trial(row)

    def finished(self, study_uid: str, numbers: Sequence[int]) -> set[int]:
        """Those of `numbers` that have a final state."""
        statement = "select number from trial where study_uid = %s and number = any(%s) and state = any(%s)"
        with away_is_retry(), self._pool.connection() as connection:
            return {number for (number,) in connection.execute(statement, [study_uid, list(numbers), list(FINISHED)])}

    def report(self, study_uid: str, number: int, *, step: int, value: float) -> None:
        """An intermediate value. The first one of a step stands, which a resumed trainer may compute again.

        Raises:
            InvalidInput: the value is not finite: such a trial has failed.
        """
        if not math.isfinite(value):
            raise InvalidInput(f"trial {number}: value {value} at step {step} is not finite: fail the trial instead")
        self._write(
            "insert into trial_report (study_uid, number, step, value) values (%s, %s, %s, %s) on conflict do nothing",
            study_uid,
            number,
            step,
            value,
        )

    def finish(self, study_uid: str, number: int, result: TrialResult) -> TrialResult:
        """Write the result once; what stands in the record is returned.

        Raises:
            InvalidInput: the objective is not finite, or the record has a value that JSON has not.
        """
        if result.objective is not None and not math.isfinite(result.objective):
            raise InvalidInput(f"trial {number}: objective {result.objective} is not finite: fail the trial instead")
        try:
            self._write(
                "insert into trial_result (study_uid, number, succeeded, reason, objective, bundle_digest, record)"
                " values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
                study_uid,
                number,
                result.succeeded,
                result.reason,
                result.objective,
                result.bundle_digest,
                Jsonb(dict(result.record)),
            )
        except psycopg.DataError as error:
            raise InvalidInput(f"result of trial {number} cannot be stored: {error}".splitlines()[0]) from error
        stored = self.trial(study_uid, number).result
        assert stored is not None  # inserted above, now or before
        return stored

    def _one(self, statement: str, *arguments: Any) -> dict[str, Any] | None:
        with away_is_retry(), self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement.encode(), list(arguments))
            return cursor.fetchone()

    def _write(self, statement: str, *arguments: Any) -> None:
        with away_is_retry(), self._pool.connection() as connection:
            connection.execute(statement.encode(), list(arguments))
