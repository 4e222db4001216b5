"""Packs of trials through the loop: whatever happens in which order, every trial ends and no workload is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.controllers.decision import Key, WorkloadStatus
from cappuccino.core.identifiers import trial_name
from cappuccino.reconcile.loop import Loop
from cappuccino.search.trials import TrialResult

from .builders import NOW
from .searching import STUDY, Cluster, loop_of, settle

PACK, TRIALS = 3, 8
RESULT = TrialResult(succeeded=True, reason="", objective=1.0, bundle_digest="b" * 64)


class Packed(Cluster):
    """Its workers write results and end. A workload starts when all that it serves are there, and goes when none needs it."""

    def __init__(self) -> None:
        super().__init__(budget={"trials": TRIALS}, parallelism=2 * PACK, template={"pack": PACK})
        self.starts: list[tuple[str, ...]] = []

    async def start(self, workload: Any) -> None:
        if workload.name not in self.runs:
            there = [key for key in workload.keys if key in self.documents or self.rows[int(key.name[-5:])].finished]
            assert there == list(workload.keys), f"{workload.name} would not be owned by all that it serves"
            await super().start(workload)
            self.starts.append(tuple(key.name for key in workload.keys))
            self.runs[workload.name] = replace(self.runs[workload.name], state="Running", started_at=NOW)

    async def stop(self, name: str, **_: Any) -> None:
        assert all(self.rows[number].finished for number in served(self.runs[name])), f"{name} is needed"
        await super().stop(name)

    def deliver(self, number: int) -> None:
        """The trainer writes the result of a trial and, after the last one, ends."""
        row = self.rows[number]
        for name, run in self.runs.items():
            if number in served(run) and run.state == "Running":
                if not row.finished:
                    self.rows[number] = replace(row, result=RESULT)
                if all(self.rows[each].finished or self.rows[each].result for each in served(run)):
                    self.runs[name] = replace(run, state="Succeeded", finished_at=NOW)

    async def prune(self, number: int) -> None:
        if self.rows[number].state == "Running" and self.rows[number].result is None:
            await self.set_trial_state(
                number=number, to_state="Pruned", at=NOW, reason="low", objective=None, bundle_digest=None
            )


def served(run: WorkloadStatus) -> list[int]:
    return [int(key.name[-5:]) for key in run.keys]


async def all_pass(loop: Loop, cluster: Packed) -> None:
    """As `settle`, and passes of those that are gone and whose workload is not."""
    await settle(loop, cluster)
    for run in list(cluster.runs.values()):
        for key in run.keys:
            await loop.reconcile(key)
    await settle(loop, cluster)


async def test_a_pack_is_one_workload_for_its_trials_and_ends_with_the_last() -> None:
    cluster = Packed()
    loop = loop_of(cluster)
    await settle(loop, cluster)
    assert cluster.starts == [tuple(trial_name("s", n) for n in block) for block in ((0, 1, 2), (3, 4, 5))]
    cluster.deliver(0)
    await cluster.prune(1)
    await settle(loop, cluster)
    assert [row.state for row in cluster.rows[:3]] == ["Complete", "Pruned", "Running"]
    assert set(cluster.runs) == {f"default.trial.s-0000{leader}" for leader in (0, 3, 6)}  # the last is of two
    cluster.deliver(2)
    await all_pass(loop, cluster)
    assert set(cluster.runs) == {"default.trial.s-00003", "default.trial.s-00006"}
    for number in (3, 4, 5, 6, 7):
        cluster.deliver(number)
        await all_pass(loop, cluster)
    assert Counter(row.state for row in cluster.rows) == {"Complete": 7, "Pruned": 1}
    assert cluster.runs == {}
    assert len(cluster.starts) == 3


async def test_a_leader_whose_object_is_gone_does_not_take_the_workload_with_it() -> None:
    cluster = Packed()
    loop = loop_of(cluster)
    await settle(loop, cluster)
    cluster.documents.pop(STUDY)
    cluster.documents.pop(Key("Trial", "default", "s-00000"))
    for number in range(3):
        await loop.reconcile(Key("Trial", "default", trial_name("s", number)))
    assert "default.trial.s-00000" in cluster.runs
    for number in range(6):  # the Study was deleted: all go
        cluster.documents.pop(Key("Trial", "default", trial_name("s", number)), None)
        if number < 3:
            cluster.rows[number] = replace(cluster.rows[number], state="Pruned", finished_at=NOW)
    await loop.reconcile(Key("Trial", "default", "s-00000"))
    assert "default.trial.s-00000" not in cluster.runs


events = st.lists(
    st.tuples(st.sampled_from(["pass", "pass", "pass", "deliver", "prune", "lose", "delete"]), st.integers(0, TRIALS - 1)),
    max_size=60,
)


@settings(max_examples=150)
@given(events)
def test_whatever_happens_every_trial_ends_and_no_workload_is_left(happenings: list[tuple[str, int]]) -> None:
    asyncio.run(_lives_through(happenings))


async def _lives_through(happenings: list[tuple[str, int]]) -> None:
    cluster = Packed()
    loop = loop_of(cluster)
    for _ in range(3):
        await loop.reconcile(STUDY)
    for what, number in happenings:
        key = Key("Trial", "default", trial_name("s", number))
        if what == "pass":
            await loop.reconcile(key)
            await loop.reconcile(STUDY)
        elif what == "lose":
            for name in [name for name, run in cluster.runs.items() if number in served(run) and run.state == "Running"]:
                del cluster.runs[name]
        elif what == "delete":
            cluster.documents.pop(key, None)
        elif number < len(cluster.rows):
            if what == "deliver":
                cluster.deliver(number)
            else:
                await cluster.prune(number)
        keys = [key for run in cluster.runs.values() for key in run.keys]
        assert len(keys) == len(set(keys)), "a trial is served twice"
    while not all(row.finished for row in cluster.rows) or len(cluster.rows) < TRIALS or cluster.runs:
        before = (list(cluster.rows), dict(cluster.runs))
        await all_pass(loop, cluster)
        for number in range(len(cluster.rows)):
            cluster.deliver(number)
        await all_pass(loop, cluster)
        assert before != (cluster.rows, cluster.runs), "nothing moves any more"
    assert {row.state for row in cluster.rows} <= {"Complete", "Pruned"}
