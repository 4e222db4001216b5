"""Trials of one pack: one workload, which ends with the last of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cappuccino.api import Trial
from cappuccino.controllers.decision import Decision, Key, StartWorkload, StopWorkload, WriteRecord
from cappuccino.controllers.trial import LEAVING_SECONDS, Observed, decide
from cappuccino.search.trials import TrialRow

from .builders import NOW, result, row, running, study, trial

KEYS = tuple(Key("Trial", "default", f"search-{number:05d}") for number in range(3))
WORKLOAD = "default.trial.search-00000"


def seen(number: int = 1, pack: tuple[TrialRow, ...] | None = None, **given: Any) -> Observed:
    rows = pack or tuple(row(n) for n in range(3))
    of = study(template={"pack": 3, "timeoutSeconds": 100}).spec
    values: dict[str, Any] = {"trial": trial(number), "key": KEYS[number], "row": rows[number], "study": of, "pack": rows}
    return Observed(**(values | given))


def rows(*states: str) -> tuple[TrialRow, ...]:
    ended = {"finished_at": NOW, "started_at": NOW}
    return tuple(
        row(n, state=state, **(ended if state not in ("Waiting", "Running") else {})) for n, state in enumerate(states)
    )


def told(observed: Observed) -> Observed:
    """As it is seen once its status was written."""
    decision = decide(observed, now=NOW)
    assert observed.trial is not None
    return replace(observed, trial=Trial.parse(observed.trial.to_json() | {"status": decision.status}))


def started(decision: Decision) -> list[StartWorkload]:
    return [action for action in decision.actions if isinstance(action, StartWorkload)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_whoever_comes_first_starts_the_same_workload_for_all(number: int) -> None:
    (start,) = started(decide(seen(number), now=NOW))
    assert start.workload.name == WORKLOAD
    assert start.workload.arguments == ("train", "--study-uid", "uid-search", "--trials", "0,1,2")
    assert start.workload.keys == KEYS
    assert start.workload.timeout_seconds == 300


def test_it_is_started_when_all_that_own_it_are_there() -> None:
    early = decide(seen(complete=False), now=NOW)
    assert started(early) == []
    assert early.requeue_after is not None


def test_one_that_runs_says_in_whose_workload() -> None:
    decision = decide(seen(pack=rows("Running", "Running", "Running"), workload=running(WORKLOAD)), now=NOW)
    assert decision.status is not None
    condition = next(c for c in decision.status["conditions"] if c["type"] == "Complete")
    assert (condition["reason"], condition["message"]) == (
        "Training",
        "in the workload of search-00000, which serves 3 trials",
    )


def test_one_that_is_pruned_leaves_the_workload_to_the_others() -> None:
    running_rows = rows("Running", "Running", "Running")
    decision = decide(seen(pack=running_rows, workload=running(WORKLOAD), prune="value 0.1 is low"), now=NOW)
    assert [a.arguments["to_state"] for a in decision.actions if isinstance(a, WriteRecord)] == ["Pruned"]
    after = told(seen(pack=rows("Running", "Pruned", "Running"), workload=running(WORKLOAD)))
    decision = decide(after, now=NOW)
    assert (decision.actions, decision.requeue_after) == ((), None)


def test_the_last_one_ends_the_workload_by_whatever_name_it_has_itself() -> None:
    done = told(seen(2, pack=rows("Complete", "Pruned", "Complete"), workload=running(WORKLOAD)))
    waits = decide(done, now=NOW + timedelta(seconds=4))
    assert (waits.actions, waits.requeue_after) == ((), LEAVING_SECONDS - 4)
    assert decide(done, now=NOW + timedelta(seconds=LEAVING_SECONDS)).actions == (StopWorkload(name=WORKLOAD),)
    pruned = told(seen(2, pack=rows("Pruned", "Pruned", "Pruned"), workload=running(WORKLOAD)))
    assert decide(pruned, now=NOW).actions == (StopWorkload(name=WORKLOAD),)


def test_of_two_that_end_at_once_the_one_whose_pass_is_later_ends_the_workload() -> None:
    """Each of them saw the other one running when it moved; each looks again once it has told."""
    before = seen(0, pack=rows("Running", "Running", "Pruned"), workload=running(WORKLOAD))
    assert before.row is not None
    moved = decide(replace(before, row=replace(before.row, result=result())), now=NOW)
    assert moved.requeue_after is not None


def test_a_workload_that_failed_for_good_fails_those_that_have_no_result() -> None:
    pack = (row(0, state="Complete", finished_at=NOW), row(1, state="Running"), row(2, state="Running", result=result()))
    gone = running(WORKLOAD, state="Failed", exit_code=3, message="bars are not what their digest says")
    moves = [
        [a.arguments["to_state"] for a in decide(seen(n, pack=pack, workload=gone), now=NOW).actions if hasattr(a, "arguments")]
        for n in range(3)
    ]
    assert moves == [[], ["Failed"], ["Complete"]]


def test_a_lost_workload_is_started_again_for_those_that_have_not_finished() -> None:
    pack = rows("Complete", "Running", "Pruned")
    assert started(decide(seen(0, pack=pack), now=NOW)) == []
    (start,) = started(decide(seen(1, pack=pack), now=NOW))
    assert start.workload == started(decide(seen(1), now=NOW))[0].workload


def test_a_leader_that_is_gone_leaves_the_workload_while_others_need_it() -> None:
    gone = Observed(trial=None, key=KEYS[0], workload=running(WORKLOAD, keys=KEYS), needed=True)
    decision = decide(gone, now=NOW)
    assert (decision.actions, decision.requeue_after) == ((), LEAVING_SECONDS)
    assert decide(replace(gone, needed=False), now=NOW).actions == (StopWorkload(name=WORKLOAD),)


def test_a_block_of_one_is_as_a_trial_by_itself() -> None:
    """The last block of a phase may be one trial."""
    block, alone = (seen(0, pack=(row(0),)), replace(seen(0, pack=(row(0),)), pack=()))
    assert decide(block, now=NOW) == decide(alone, now=NOW)
