"""From rows to the record's dataclasses, and the statements that more than one of its readers needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cappuccino.controllers.rows import AccountRow, Evidence, Gap, Promotion, SnapshotRow, StudyRow
from cappuccino.search.trials import TrialResult, TrialRow

TRIALS = """
    select t.*, r.study_uid is not null as has_result, r.succeeded, r.reason as result_reason, r.objective as result_objective,
           r.bundle_digest as result_bundle, r.record, case when t.state = 'Complete' then r.record -> 'metrics' end as metrics,
           (select coalesce(jsonb_object_agg(p.step, p.value), '{}') from trial_report p
             where p.study_uid = t.study_uid and p.number = t.number) as reports
      from trial t left join trial_result r using (study_uid, number)
     where t.study_uid = %s and (%s::int is null or t.number = %s) order by t.number
"""
TRIAL_STATES = TRIALS.replace(
    "r.record,", "jsonb_strip_nulls(jsonb_build_object('metrics', r.record -> 'metrics')) as record,"
)  # of the account of a result, which is most of its size, only what the controller asks for

ACCOUNTS = """
    select *, holder is not null and expires_at is not null and expires_at > clock_timestamp() as held
      from account where %s::text is null or name = %s order by name
"""


_TRIAL_COLUMNS = (
    "study_uid", "number", "phase", "parameters", "distributions", "seed", "state", "reason", "objective",
    "bundle_digest", "created_at", "started_at", "finished_at",
)  # fmt: skip


def trial(row: Mapping[str, Any]) -> TrialRow:
    """A row of TRIALS or TRIAL_STATES."""
    result = None
    if row["has_result"]:
        result = TrialResult(
            succeeded=row["succeeded"],
            reason=row["result_reason"],
            objective=row["result_objective"],
            bundle_digest=row["result_bundle"],
            record=row["record"],
        )
    reports = {int(step): float(value) for step, value in sorted(row["reports"].items(), key=lambda item: int(item[0]))}
    return TrialRow(
        **{name: row[name] for name in _TRIAL_COLUMNS}, metrics=row["metrics"] or {}, reports=reports, result=result
    )


def study(row: Mapping[str, Any]) -> StudyRow:
    return StudyRow(**{name: row[name] for name in ("uid", "name", "spec", "snapshot", "gate_starts_at")})


def snapshot(row: Mapping[str, Any]) -> SnapshotRow:
    return SnapshotRow(**{name: row[name] for name in ("digest", "dataset_uid", "manifest", "recorded_at")})


def gap(row: Mapping[str, Any]) -> Gap:
    return Gap(**{name: row[name] for name in ("symbol", "start_at", "end_at", "state")})


def evidence(row: Mapping[str, Any]) -> Evidence:
    return Evidence(**{name: value for name, value in row.items() if name != "id"})


def promotion(row: Mapping[str, Any]) -> Promotion:
    return Promotion(**{name: value for name, value in row.items() if name != "id"})


def account(row: Mapping[str, Any]) -> AccountRow:
    return AccountRow(**row)
