from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from cappuccino.api import Trial
from cappuccino.controllers.decision import Decision, Key, StartWorkload, StopWorkload, WriteRecord
from cappuccino.controllers.trial import Observed, decide

from .builders import BUNDLE, NOW, result, row, running, study, trial

KEY = Key("Trial", "default", "search-00000")


def seen(**given: Any) -> Observed:
    values: dict[str, Any] = {"trial": trial(), "key": KEY, "row": row(), "study": study().spec}
    return Observed(**(values | given))


def with_status(observed: Observed, decision: Decision) -> Observed:
    """As it is seen in the pass after `decision`."""
    return replace(observed, trial=Trial.parse(trial().to_json() | {"status": decision.status}))


def first_reason(decision: Decision) -> str:
    return next(str(a.arguments["reason"]) for a in decision.actions if isinstance(a, WriteRecord))


def moves(decision: Decision) -> list[str]:
    return [a.arguments["to_state"] for a in decision.actions if isinstance(a, WriteRecord)]


def test_a_waiting_trial_runs_one_workload_named_after_it() -> None:
    decision = decide(seen(), now=NOW)
    (start,) = [a for a in decision.actions if isinstance(a, StartWorkload)]
    assert start.workload.name == "default.trial.search-00000"
    assert start.workload.arguments == ("train", "--study-uid", "uid-search", "--trials", "0")
    assert moves(decision) == ["Running"]


def test_a_lost_workload_is_started_again() -> None:
    decision = decide(seen(row=row(state="Running", started_at=NOW)), now=NOW)
    assert any(isinstance(a, StartWorkload) for a in decision.actions)
    assert moves(decision) == []


def test_the_result_decides_even_when_the_workload_failed_afterwards() -> None:
    decision = decide(
        seen(
            row=row(state="Running", result=result(objective=2.0)),
            workload=running(KEY.workload(), state="Failed", exit_code=1),
        ),
        now=NOW,
    )
    assert moves(decision) == ["Complete"]
    (move,) = decision.actions
    assert isinstance(move, WriteRecord)
    assert move.arguments["objective"] == 2.0


def test_how_often_it_was_started_is_told_although_nobody_saw_it_run() -> None:
    ended = running(KEY.workload(), state="Succeeded", restarts=1, finished_at=NOW)
    decision = decide(seen(row=row(state="Running", result=result()), workload=ended), now=NOW)
    assert decision.status is not None
    assert decision.status["attempts"] == 2
    assert "workload" not in decision.status


def test_a_result_that_says_no_trades_fails_the_trial_with_its_reason() -> None:
    failed = result(succeeded=False, objective=None, reason="fold 0: no closed trade in 700 bars")
    decision = decide(seen(row=row(state="Running", result=failed), workload=running(KEY.workload())), now=NOW)
    (move,) = decision.actions
    assert isinstance(move, WriteRecord)
    assert (move.arguments["to_state"], move.arguments["reason"]) == ("Failed", failed.reason)


def test_a_workload_that_failed_for_good_fails_the_trial() -> None:
    gone = running(KEY.workload(), state="Failed", exit_code=2, message="features 'x' is not a set")
    decision = decide(seen(row=row(state="Running"), workload=gone), now=NOW)
    assert moves(decision) == ["Failed"]


def test_success_without_a_result_is_read_again_before_it_is_a_failure() -> None:
    done = running(KEY.workload(), state="Succeeded", exit_code=0, finished_at=NOW)
    assert decide(seen(row=row(state="Running"), workload=done), now=NOW).requeue_after == 1.0
    later = decide(seen(row=row(state="Running"), workload=done), now=NOW + timedelta(seconds=6))
    assert moves(later) == ["Failed"]


def test_a_pruned_trial_is_recorded_first_and_its_workload_stopped_next() -> None:
    first = decide(
        seen(row=row(state="Running", reports={0: 0.1}), workload=running(KEY.workload()), prune="value 0.1 at step 0 is low"),
        now=NOW,
    )
    assert moves(first) == ["Pruned"]
    assert len(first.actions) == 1
    assert first.requeue_after == 0.0
    second = seen(row=row(state="Pruned", reason=first_reason(first), finished_at=NOW), workload=running(KEY.workload()))
    assert decide(second, now=NOW).status == first.status  # a pass that was cut off before the status says the same
    assert decide(with_status(second, first), now=NOW).actions == (StopWorkload(name=KEY.workload()),)


def test_a_trainer_that_wrote_its_result_may_end_by_itself_before_it_is_stopped() -> None:
    done = row(state="Complete", objective=1.0, finished_at=NOW)
    observed = seen(row=done, workload=running(KEY.workload()))
    observed = with_status(observed, decide(observed, now=NOW))
    waits = decide(observed, now=NOW + timedelta(seconds=4))
    assert observed.trial is not None
    assert observed.trial.status is not None
    assert (waits.actions, waits.requeue_after, waits.status) == ((), 6.0, observed.trial.status.to_json())
    stop = (StopWorkload(name=KEY.workload()),)
    assert decide(observed, now=NOW + timedelta(seconds=10)).actions == stop
    ended = replace(observed, workload=running(KEY.workload(), state="Succeeded"))
    assert decide(ended, now=NOW + timedelta(seconds=1)).actions == stop


def test_a_finished_trial_whose_workload_is_forgotten_asks_for_nothing() -> None:
    decision = decide(seen(row=row(state="Complete", objective=1.0)), now=NOW)
    assert decision.actions == ()


def test_the_status_is_written_when_it_runs_and_when_it_is_over() -> None:
    """From row to end, as the loop makes the passes; what is written is what would be an API call."""
    done = row(state="Complete", started_at=NOW, finished_at=NOW, objective=1.5, bundle_digest=BUNDLE)
    steps = [
        seen(),
        seen(row=row(state="Running", started_at=NOW), workload=running(KEY.workload(), state="Pending", started_at=None)),
        seen(row=row(state="Running", started_at=NOW), workload=running(KEY.workload())),
        seen(row=row(state="Running", started_at=NOW, result=result()), workload=running(KEY.workload())),
        seen(row=done, workload=running(KEY.workload())),
        seen(row=done, workload=running(KEY.workload(), state="Succeeded")),
        seen(row=done),
    ]
    status: dict[str, Any] | None = None
    written, events, actions = [], [], []
    for observed in steps:
        of = Trial.parse(trial().to_json() | ({"status": status} if status else {}))
        decision = decide(replace(observed, trial=of), now=NOW)
        events += [event.reason for event in decision.events]
        actions += [type(action).__name__ for action in decision.actions]
        if decision.status is not None and decision.status != status:
            status = decision.status
            written.append((status.get("workload"), status.get("objective")))
    assert written == [("Running", None), (None, 1.5)]
    assert actions == ["WriteRecord", "StartWorkload", "WriteRecord", "StopWorkload"]
    assert events == []


def test_a_workload_that_stays_pending_says_what_it_waits_for() -> None:
    pending = running(KEY.workload(), state="Pending", started_at=None, message="queue is full")
    observed = seen(row=row(state="Running", started_at=NOW), workload=pending)
    soon = decide(observed, now=NOW + timedelta(seconds=0.5))
    assert (soon.status, soon.requeue_after) == (None, 1.5)
    later = decide(observed, now=NOW + timedelta(seconds=2))
    assert later.status is not None
    waiting = next(c for c in later.status["conditions"] if c["type"] == "Complete")
    assert (waiting["status"], waiting["reason"], waiting["message"]) == ("False", "Waiting", "queue is full")


def test_a_trial_tells_of_its_failure_once() -> None:
    observed = seen(row=row(state="Failed", reason="no closed trade", finished_at=NOW))
    first = decide(observed, now=NOW)
    assert [(event.type, event.reason, event.message) for event in first.events] == [("Warning", "Failed", "no closed trade")]
    assert decide(with_status(observed, first), now=NOW).events == ()


def test_a_deleted_trial_stops_its_workload() -> None:
    assert decide(seen(trial=None, workload=running(KEY.workload())), now=NOW).actions == (StopWorkload(name=KEY.workload()),)


def test_a_trial_that_no_study_made_is_stalled() -> None:
    decision = decide(seen(row=None), now=NOW)
    assert decision.actions == ()
    assert decision.status is not None
    assert any(c["type"] == "Stalled" and c["status"] == "True" for c in decision.status["conditions"])


def test_a_complete_trial_that_breaks_a_constraint_says_so() -> None:
    of = study(constraints={"maxDrawdown": 0.2}).spec
    for drawdown, said in ((0.25, "never chosen: max_drawdown 0.25 is above its limit 0.2"), (0.2, "")):
        done = replace(result(), record={"metrics": {"max_drawdown": drawdown}})
        decision = decide(seen(study=of, row=row(state="Running", result=done)), now=NOW)
        assert moves(decision) == ["Complete"]
        assert first_reason(decision) == said
