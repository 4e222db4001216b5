"""How many writes of the API server a Trial costs at most: one at a time, so that no two changes fall together."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cappuccino.controllers.decision import Key
from cappuccino.search.trials import TrialResult

from .builders import NOW
from .searching import STUDY, Cluster, loop_of, settle

TRIALS, LIMIT = 10, 8


async def test_a_trial_costs_at_most_eight_writes() -> None:
    cluster = Cluster(budget={"trials": TRIALS}, parallelism=1)
    loop = loop_of(cluster)
    await settle(loop, cluster)
    for number in range(TRIALS):
        (name,) = cluster.runs
        cluster.runs[name] = replace(cluster.runs[name], state="Running", started_at=NOW)
        await settle(loop, cluster)
        result = TrialResult(succeeded=True, reason="", objective=float(number), bundle_digest="b" * 64)
        cluster.rows[number] = replace(cluster.rows[number], result=result)
        await settle(loop, cluster)
        cluster.runs[name] = replace(cluster.runs[name], state="Succeeded", finished_at=NOW + timedelta(seconds=1))
        await settle(loop, cluster)
    assert set(cluster.documents) == {STUDY, Key("Trial", "default", f"s-{TRIALS - 1:05d}")}
    assert [row.state for row in cluster.rows] == ["Complete"] * TRIALS
    assert cluster.writes == {
        "create Trial": TRIALS,
        "create Job": TRIALS,
        "status Trial": 2 * TRIALS,
        "delete Job": TRIALS,
        "delete Trial": TRIALS - 1,
        "status Study": 2 * TRIALS + 1,
        "event Study": 1,
    }
    assert cluster.writes.total() <= LIMIT * TRIALS + 2  # the Study's own beginning and end
