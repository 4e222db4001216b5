"""A Study that starts from an earlier one: when it may, what it takes over, and that this never changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cappuccino.api import Study
from cappuccino.api.meta import Condition
from cappuccino.api.search import WarmStart
from cappuccino.controllers.decision import Decision, WriteRecord
from cappuccino.controllers.study import Observed, decide
from cappuccino.controllers.warmstart import Source, lessons, repeated
from cappuccino.search.goal import Goal
from cappuccino.search.space import parse_space, to_wire
from cappuccino.search.trials import TrialRow

from .builders import NOW, STUDY_KEY, dataset, pinned, ready, row, snapshot, study

SPACE = parse_space({"enter": {"type": "float", "low": 0.001, "high": 0.02}})
COMPLETE = {"conditions": [{"type": "Complete", "status": "True", "reason": "BudgetSpent"}]}
MARKET = snapshot(bars=3000)


def earlier(*, status: dict[str, Any] | None = COMPLETE) -> Study:
    found = study(status=status)
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"name": "earlier", "uid": "uid-earlier"})})


def done(number: int, objective: float, enter: str, **given: Any) -> TrialRow:
    values: dict[str, Any] = {"state": "Complete", "objective": objective, "parameters": {"enter": enter, "other": "1"}}
    return row(number, study_uid="uid-earlier", **(values | given))


ROWS = [done(0, 1.0, "0.01"), done(1, 3.0, "0.5"), done(2, 2.0, "0.002"), done(3, 2.5, "0.002"), row(4, state="Failed")]


def seen(*, source: Source, **spec: Any) -> Observed:
    warm = {"studyRef": {"name": "earlier"}} | spec.pop("warm", {})
    of = study(warmStart=warm, **spec)
    return Observed(study=of, key=STUDY_KEY, dataset=dataset(status=ready()), snapshot=MARKET, source=source)


def source(**given: Any) -> Source:
    values: dict[str, Any] = {"study": earlier(), "pinned": replace(pinned(), gate_starts_at=gate()), "trials": ROWS}
    return Source(**(values | given))


def gate() -> Any:
    """Where the gate window of the builders' Study starts."""
    (pin,) = decide(Observed(study=study(), key=STUDY_KEY, dataset=dataset(status=ready()), snapshot=MARKET), now=NOW).actions
    assert isinstance(pin, WriteRecord)
    return pin.arguments["gate_starts_at"]


def ready_of(decision: Decision) -> Condition:
    assert decision.status is not None
    return next(Condition.model_validate(c) for c in decision.status["conditions"] if c["type"] == "Ready")


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (Source(), "WarmStartNotFound"),
        (source(pinned=None), "WarmStartNotFound"),
        (source(study=earlier(status=None)), "WarmStartSearching"),
        (source(trials=[*ROWS, row(5, state="Running")]), "WarmStartSearching"),
    ],
)
def test_it_waits_for_the_earlier_study_to_complete(there: Source, reason: str) -> None:
    decision = decide(seen(source=there), now=NOW)
    assert decision.actions == ()
    assert ready_of(decision).reason == reason
    assert "earlier" in ready_of(decision).message


def test_the_first_pass_pins_the_earlier_studys_uid_and_trials() -> None:
    (pin,) = decide(seen(source=source()), now=NOW).actions
    assert isinstance(pin, WriteRecord)
    warm = pin.arguments["spec"]["warmStart"]
    assert (warm["studyUid"], warm["trials"]) == ("uid-earlier", 5)
    status = decide(
        Observed(
            study=study(warmStart={"studyRef": {"name": "earlier"}}),
            key=STUDY_KEY,
            pinned=replace(pinned(), spec=pin.arguments["spec"]),
        ),
        now=NOW,
    ).status
    assert status is not None
    assert status["warmStartUid"] == "uid-earlier"


def test_it_is_refused_when_the_earlier_study_searched_on_bars_of_this_gate_window() -> None:
    late = replace(pinned(), gate_starts_at=gate() + timedelta(hours=1))
    decision = decide(seen(source=source(pinned=late)), now=NOW)
    assert decision.actions == ()
    assert ready_of(decision).reason == "WarmStartPeeks"


def test_it_is_refused_when_nothing_of_the_earlier_study_fits_and_when_that_failed() -> None:
    far = {"enter": {"type": "float", "low": 5.0, "high": 6.0}}
    assert ready_of(decide(seen(source=source(), searchSpace=far), now=NOW)).reason == "WarmStartEmpty"
    failed = {"conditions": [{"type": "Failed", "status": "True", "reason": "NoResult", "message": "no trial completed"}]}
    assert ready_of(decide(seen(source=source(study=earlier(status=failed))), now=NOW)).reason == "WarmStartFailed"


WARM = WarmStart.model_validate({"studyRef": {"name": "earlier"}, "best": 2, "history": True, "studyUid": "u", "trials": 5})


def test_the_best_that_fit_come_first_each_once_and_only_in_what_is_searched() -> None:
    assert repeated(WARM, ROWS, Goal(), SPACE) == ({"enter": "0.002"}, {"enter": "0.01"})
    assert repeated(WARM.model_copy(update={"best": 1}), ROWS, Goal(), SPACE) == ({"enter": "0.002"},)


def test_what_was_not_there_when_it_was_pinned_is_not_taken_over() -> None:
    grown = [*ROWS, done(5, 99.0, "0.015")]
    assert repeated(WARM, grown, Goal(), SPACE) == repeated(WARM, ROWS, Goal(), SPACE)
    assert lessons(WARM, grown, SPACE) == lessons(WARM, ROWS, SPACE)


def test_lessons_are_rows_of_this_space_before_the_first_trial() -> None:
    taught = lessons(WARM, ROWS, SPACE)
    assert [(each.number, dict(each.parameters)) for each in taught] == [
        (-5, {"enter": "0.01"}),
        (-3, {"enter": "0.002"}),
        (-2, {"enter": "0.002"}),
        (-1, {"enter": "0.01"}),
    ]
    assert all(each.distributions == to_wire(SPACE) for each in taught)
    assert lessons(WARM.model_copy(update={"history": False}), ROWS, SPACE) == ()
