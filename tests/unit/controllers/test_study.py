from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.api import Study
from cappuccino.api.meta import Condition
from cappuccino.api.study import TrialCounts
from cappuccino.controllers.decision import CreateObject, Decision, DeleteObject, WriteRecord
from cappuccino.controllers.progress import FRONT_MAX, Progress, front_of
from cappuccino.controllers.study import PROPOSED_TOGETHER, Observed, TrialObject, decide, wanted
from cappuccino.search.goal import Goal
from cappuccino.search.trials import FINISHED, NewTrial, TrialRow

from .builders import NOW, STUDY_KEY, dataset, pinned, ready, row, snapshot, study


def seen(**given: Any) -> Observed:
    values: dict[str, Any] = {"study": study(), "key": STUDY_KEY, "pinned": pinned()}
    return Observed(**(values | given))


def condition(decision: Decision, kind: str) -> Condition:
    assert decision.status is not None
    return next(Condition.model_validate(c) for c in decision.status["conditions"] if c["type"] == kind)


def test_a_study_without_its_dataset_waits_and_says_which() -> None:
    decision = decide(seen(pinned=None), now=NOW)
    assert condition(decision, "Ready").reason == "DatasetNotFound"
    assert "market" in condition(decision, "Ready").message
    assert decision.actions == ()


def test_the_first_pass_pins_snapshot_spec_and_gate_window() -> None:
    market = snapshot(bars=3000)
    decision = decide(seen(pinned=None, dataset=dataset(status=ready()), snapshot=market), now=NOW)
    (pin,) = decision.actions
    assert isinstance(pin, WriteRecord)
    assert pin.operation == "pin_study"
    assert pin.arguments["snapshot"] == market.digest
    assert pin.arguments["gate_starts_at"].timestamp() == market.manifest["first_ts"] + (3000 - 720) * 3600
    assert pin.arguments["spec"]["symbols"] == ["BTC/USD", "ETH/USD"]  # what the Study left open is filled in


def test_too_few_bars_stall_with_the_number_needed() -> None:
    decision = decide(seen(pinned=None, dataset=dataset(status=ready()), snapshot=snapshot(bars=800)), now=NOW)
    assert condition(decision, "Stalled").status == "True"
    assert "800" in condition(decision, "Ready").message or "32" in condition(decision, "Ready").message
    assert decision.actions == ()


def test_a_symbol_that_the_snapshot_lacks_is_named() -> None:
    observed = seen(study=study(symbols=["SOL/USD"]), pinned=None, dataset=dataset(status=ready()), snapshot=snapshot())
    assert "SOL/USD" in condition(decide(observed, now=NOW), "Ready").message


def test_a_row_without_an_object_becomes_a_trial_on_the_next_pass() -> None:
    decision = decide(seen(trials=[row(0), row(1)], objects=[TrialObject(number=0, uid="u")]), now=NOW)
    (create,) = [a for a in decision.actions if isinstance(a, CreateObject)]
    assert create.document["metadata"]["name"] == "search-00001"
    assert create.document["metadata"]["ownerReferences"][0]["uid"] == "uid-search"
    assert create.document["spec"]["studyUid"] == "uid-search"


def test_no_more_trials_are_wanted_than_parallelism_and_budget_allow() -> None:
    assert wanted(study(), []).numbers == (0, 1)  # type: ignore[union-attr]
    assert wanted(study(), [row(0, state="Running")]).numbers == (1,)  # type: ignore[union-attr]
    assert wanted(study(), [row(n, state="Complete") for n in range(3)]).numbers == (3,)  # type: ignore[union-attr]
    assert wanted(study(), [row(n, state="Complete") for n in range(4)]) is None
    assert wanted(study(suspend=True), []) is None
    assert wanted(study(parallelism=0), []) is None


def test_many_trials_are_proposed_in_several_passes_since_results_wait_for_each() -> None:
    large = study(parallelism=20, budget={"trials": 30})
    assert wanted(large, []).numbers == tuple(range(PROPOSED_TOGETHER))  # type: ignore[union-attr]


def test_what_is_proposed_is_told_at_once_and_making_its_objects_is_no_news() -> None:
    done = [row(0, state="Complete", objective=1.0), row(1, state="Running")]
    proposals = [NewTrial(number=2, parameters={}, distributions={}, seed=2)]
    first = decide(
        seen(trials=done, objects=[TrialObject(number=n, uid=str(n)) for n in range(2)], proposals=proposals), now=NOW
    )
    assert first.status is not None
    assert (first.status["trials"]["waiting"], first.status["active"]) == (1, 2)
    of = study(status=first.status)
    rows = [*done, row(2)]
    made = decide(seen(study=of, trials=rows, objects=[TrialObject(number=n, uid=str(n)) for n in range(2)]), now=NOW)
    assert [type(action) for action in made.actions] == [CreateObject]
    assert made.status == first.status


def test_a_phase_waits_for_the_one_before_and_freezes_its_winner() -> None:
    phases = [
        {"name": "market", "trials": 2, "searchSpace": {"timeframe": {"type": "categorical", "choices": ["1h", "4h"]}}},
        {"name": "ppo", "trials": 2, "searchSpace": {"gamma": {"type": "float", "low": 0.9, "high": 0.99}}},
    ]
    of = study(phases=phases, searchSpace={})
    first = row(0, state="Complete", objective=1.0, parameters={"timeframe": "1h"})
    assert wanted(of, [first, row(1, state="Running")]) is None
    second = row(1, state="Complete", objective=2.0, parameters={"timeframe": "4h"})
    asked = wanted(of, [first, second])
    assert asked is not None
    assert (asked.phase, dict(asked.frozen), asked.numbers) == ("ppo", {"timeframe": "4h"}, (2, 3))


@pytest.mark.parametrize(("failed", "stalls"), [(1, False), (2, True)])
def test_more_failures_than_allowed_end_the_study(failed: int, stalls: bool) -> None:
    rows = [row(n, state="Failed", reason="no trades") for n in range(failed)]
    of = study(budget={"trials": 4, "maxFailedTrials": 1})
    decision = decide(seen(study=of, trials=rows), now=NOW)
    assert (condition(decision, "Stalled").status == "True") == stalls
    assert (wanted(of, rows) is None) == stalls


def test_a_spent_budget_is_complete_and_names_the_best() -> None:
    rows = [row(n, state="Complete", objective=float(n)) for n in range(4)]
    decision = decide(seen(trials=rows), now=NOW)
    assert condition(decision, "Complete").status == "True"
    assert decision.status is not None
    assert decision.status["best"] == {"number": 3, "objective": 3.0}
    assert [event.reason for event in decision.events] == ["Complete"]


def test_of_equal_objectives_the_earlier_trial_is_best() -> None:
    rows = [row(0, state="Complete", objective=-2.0), row(1, state="Complete", objective=-1.0)]
    progress = Progress.of([*rows, row(2, state="Complete", objective=-1.0), row(3, state="Pruned"), row(4)], Goal())
    assert progress.best is rows[1]
    assert progress.counts == TrialCounts(waiting=1, complete=3, pruned=1)
    assert [r.number for r in progress.unfinished] == [4]
    assert Progress.of([], Goal()).best is None


def test_a_pass_over_ten_thousand_trials_is_short_and_its_status_no_longer_than_of_ten() -> None:
    def of(count: int) -> tuple[Study, list[TrialRow]]:
        rows = [row(n, state="Complete", objective=1.0) for n in range(count - 2)]
        return study(budget={"trials": 20_000}), rows + [row(n, state="Running") for n in range(count - 2, count)]

    few, many = of(10), of(10_000)
    began = time.process_time()
    for _ in range(5):
        wanted(*many)
        status = decide(seen(study=many[0], trials=many[1]), now=NOW).status
    assert (time.process_time() - began) / 5 < 0.2  # 10 ms on one of today's cores
    short = decide(seen(study=few[0], trials=few[1]), now=NOW).status
    assert len(json.dumps(status)) - len(json.dumps(short)) < 30  # digits


def test_a_study_in_which_nothing_completed_failed() -> None:
    rows = [row(n, state="Failed", reason="no closed trade") for n in range(4)]
    decision = decide(seen(trials=rows), now=NOW)
    assert condition(decision, "Failed").status == "True"
    assert "no closed trade" in condition(decision, "Failed").message


def test_finished_objects_above_the_limit_go_and_their_rows_stay() -> None:
    rows = [row(n, state="Complete", objective=1.0) for n in range(4)]
    objects = [TrialObject(number=n, uid=f"u{n}") for n in range(4)]
    decision = decide(seen(study=study(finishedTrialsKept=3), trials=rows, objects=objects), now=NOW)
    assert [a.key.name for a in decision.actions if isinstance(a, DeleteObject)] == ["search-00000"]


# --- ending early -----------------------------------------------------------------------------------


def test_trials_without_improvement_end_the_search_when_those_that_run_have_finished() -> None:
    of = study(budget={"trials": 20, "stopEarly": {"trialsWithoutImprovement": 3}})
    rows = [row(n, state="Complete", objective=1.0 - n / 10) for n in range(3)]
    assert wanted(of, rows) is not None
    rows.append(row(3, state="Pruned"))
    running = [*rows, row(4, state="Running")]
    assert wanted(of, running) is None
    assert condition(decide(seen(study=of, trials=running), now=NOW), "Ready").reason == "Stopping"
    assert condition(decide(seen(study=of, trials=running), now=NOW), "Complete").status == "False"
    done = decide(seen(study=of, trials=rows), now=NOW)
    assert (condition(done, "Complete").status, condition(done, "Complete").reason) == ("True", "StoppedEarly")
    assert condition(done, "Complete").message == (
        "3 trials without improvement since the best, trial 0 with objective 1, budget.stopEarly asks for 3; "
        "3 complete, 1 pruned, 0 failed of 20"
    )
    assert [event.reason for event in done.events] == ["Complete"]


def test_a_trial_that_ran_on_and_is_better_keeps_the_search_going() -> None:
    of = study(budget={"trials": 20, "stopEarly": {"trialsWithoutImprovement": 2}})
    rows = [row(n, state="Complete", objective=-float(n)) for n in range(3)]
    assert wanted(of, rows) is None
    assert wanted(of, [*rows, row(3, state="Complete", objective=1.0)]) is not None


def test_an_objective_that_is_reached_ends_the_search() -> None:
    of = study(budget={"trials": 20, "stopEarly": {"objective": 2.0}})
    assert wanted(of, [row(0, state="Complete", objective=1.9)]) is not None
    reached = [row(0, state="Complete", objective=2.0)]
    assert wanted(of, reached) is None
    message = condition(decide(seen(study=of, trials=reached), now=NOW), "Complete").message
    assert message.startswith("trial 0 has objective 2, budget.stopEarly asks for 2")


def test_of_several_objectives_a_new_trial_of_the_front_is_an_improvement() -> None:
    of = study(
        budget={"trials": 20, "stopEarly": {"trialsWithoutImprovement": 2}},
        objective={"alsoMinimize": ["max_drawdown"]},
        pruner={"type": "none"},
    )

    def done(number: int, objective: float, drawdown: float) -> TrialRow:
        return row(number, state="Complete", objective=objective, metrics={"max_drawdown": drawdown})

    rows = [done(0, 2.0, 0.3), done(1, 1.0, 0.4), done(2, 1.0, 0.1)]
    assert wanted(of, rows) is not None
    beaten = [*rows, done(3, 0.5, 0.2), done(4, 0.5, 0.3)]
    assert wanted(of, beaten) is None
    status = decide(seen(study=of, trials=beaten), now=NOW).status
    assert status is not None
    assert status["best"] == {"number": 0, "objective": 2.0}
    assert status["front"] == [
        {"number": 0, "objective": 2.0, "maxDrawdown": 0.3},
        {"number": 2, "objective": 1.0, "maxDrawdown": 0.1},
    ]
    assert status["frontSize"] == 2


def test_a_long_front_is_shown_by_its_ends_and_an_even_choice_between() -> None:
    goal = Goal(minimize=("turnover",))
    rows = [row(n, state="Complete", objective=-float(n), metrics={"turnover": 100.0 - n}) for n in range(100)]
    shown = front_of(Progress.of(rows, goal))
    assert len(shown) == FRONT_MAX
    assert (shown[0].number, shown[-1].number) == (0, 99)
    assert max(b.number - a.number for a, b in itertools.pairwise(shown)) <= 6


def test_a_study_in_which_no_trial_kept_the_constraints_failed_and_says_what_was_broken() -> None:
    of = study(constraints={"maxDrawdown": 0.1})
    rows = [
        row(n, state="Complete", objective=1.0, metrics={"max_drawdown": 0.2}, reason="never chosen: max_drawdown 0.2")
        for n in range(4)
    ]
    decision = decide(seen(study=of, trials=rows), now=NOW)
    assert condition(decision, "Failed").reason == "NotFeasible"
    assert "max_drawdown 0.2" in condition(decision, "Failed").message
    assert decision.status is not None
    assert "best" not in decision.status


class World:
    """The record and the objects of one Study, with just enough behaviour to apply a decision."""

    def __init__(self, rows: list[TrialRow], objects: set[int]) -> None:
        self.rows = {r.number: r for r in rows}
        self.objects = set(objects)
        self.status: dict[str, Any] | None = None

    def observe(self) -> Observed:
        of = study(status=self.status)
        rows = [self.rows[n] for n in sorted(self.rows)]
        asked = wanted(of, rows)
        proposals = [NewTrial(number=n, parameters={}, distributions={}, seed=n) for n in asked.numbers] if asked else []
        objects = [TrialObject(number=n, uid=str(n)) for n in sorted(self.objects)]
        return Observed(study=of, key=STUDY_KEY, pinned=pinned(), trials=rows, objects=objects, proposals=proposals)

    def apply(self, decision: Decision, *, at_most: int | None = None) -> None:
        """Apply the first `at_most` actions, as a pass does that is killed after them."""
        for action in decision.actions[:at_most]:
            if isinstance(action, WriteRecord):
                for new in action.arguments["trials"]:
                    self.rows.setdefault(new.number, row(new.number))
            elif isinstance(action, CreateObject):
                self.objects.add(action.document["spec"]["number"])
            elif isinstance(action, DeleteObject):
                self.objects.discard(int(action.key.name[-5:]))
        if at_most is None:
            self.status = decision.status


states = st.sampled_from(["Waiting", "Running", "Complete", "Failed", "Pruned"])


@given(st.lists(states, max_size=4), st.sets(st.integers(0, 3)), st.integers(0, 4))
def test_from_any_state_repeated_passes_converge_and_a_cut_off_pass_loses_nothing(
    found: list[str], objects: set[int], cut: int
) -> None:
    rows = [row(n, state=state, objective=1.0 if state == "Complete" else None) for n, state in enumerate(found)]
    world = World(rows, {n for n in objects if n < len(rows)})
    world.apply(decide(world.observe(), now=NOW), at_most=cut)
    for _ in range(30):
        decision = decide(world.observe(), now=NOW)
        world.apply(decision)
        if not decision.actions:
            unfinished = next((n for n, r in world.rows.items() if not r.finished), None)
            if unfinished is None:
                break
            world.rows[unfinished] = replace(world.rows[unfinished], state="Complete", objective=1.0)
    assert sorted(world.rows) == list(range(4))
    assert all(r.state in FINISHED for r in world.rows.values())
    again = decide(world.observe(), now=NOW)
    assert (again.actions, again.status) == ((), world.status)
