"""Whose trials count against a candidate: its own Study's and every earlier one's on the same bars, warm start or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cappuccino.controllers.rows import SnapshotRow, StudyRow
from cappuccino.entrypoints.gating import _rival_sharpes
from cappuccino.search.trials import TrialRow
from tests.unit.controllers import builders as build


class Past:
    """A record with an earlier Study and one that was started from it."""

    def __init__(self, earlier: SnapshotRow) -> None:
        self.snapshots = {build.SNAPSHOT: build.snapshot(), earlier.digest: earlier}
        warm = {"warmStart": {"studyRef": {"name": "earlier"}, "studyUid": "uid-earlier", "trials": 3, "history": True}}
        self.own = replace(build.pinned(), spec=build.pinned().spec | warm)
        self.earlier = replace(build.pinned(), uid="uid-earlier", snapshot=earlier.digest)
        self.rows = {
            "uid-search": [build.row(0, state="Complete", objective=1.0)],
            "uid-earlier": [
                build.row(0, state="Complete", objective=2.0),
                build.row(1, state="Pruned", reports={0: 0.5}),
                build.row(2, state="Failed"),
            ],
        }

    async def studies(self) -> list[StudyRow]:
        return [self.earlier, self.own]

    async def snapshot(self, digest: str) -> SnapshotRow:
        return self.snapshots[digest]

    async def trials(self, study_uid: str) -> list[TrialRow]:
        return self.rows[study_uid]


async def rivals(earlier: SnapshotRow) -> list[float]:
    past: Any = Past(earlier)
    return sorted(await _rival_sharpes(past, past.own))


async def test_the_trials_of_what_a_study_started_from_count_where_bars_overlap() -> None:
    assert await rivals(replace(build.snapshot(), digest="e" * 64)) == [0.5, 1.0, 2.0]


async def test_trials_on_other_bars_have_not_seen_these() -> None:
    market = build.snapshot()
    before = market.manifest["first_ts"] - 1
    manifest = {**market.manifest, "first_ts": before - 3600 * 3000, "last_ts": before}
    assert await rivals(replace(market, digest="e" * 64, manifest=manifest)) == [1.0]
    assert await rivals(replace(build.snapshot(symbols=("SOL/USD",)), digest="e" * 64)) == [1.0]
