"""What the observers ask of the search: proposals that a warm start gives, and verdicts of the pruner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cappuccino.api import Study, StudySpec, Trial
from cappuccino.controllers.decision import Document
from cappuccino.controllers.rows import StudyRow
from cappuccino.entrypoints.wiring import search
from cappuccino.reconcile.observers import StudyController, TrialController
from cappuccino.reconcile.ports import Ports
from cappuccino.search.trials import TrialRow, TrialState
from tests.unit.controllers import builders as build

WARM = {"studyRef": {"name": "earlier"}, "best": 1, "studyUid": "uid-earlier", "trials": 12}


class World:
    """One Study, the rows of it and of an earlier one, and the reports of its trials."""

    def __init__(self, of: Study, rows: dict[str, Sequence[TrialRow]], reports: dict[int, dict[int, float]]) -> None:
        self.pinned = replace(build.pinned(of), spec=of.spec.to_json())
        self.rows, self.reports = rows, reports

    async def study(self, uid: str) -> StudyRow:
        return self.pinned

    async def history(self, study_uid: str) -> Sequence[TrialRow]:
        return self.rows[study_uid]

    async def trial(self, study_uid: str, number: int) -> TrialRow:
        return replace(self.rows[study_uid][number], reports=self.reports[number])

    async def peers(self, study_uid: str, number: int, step: int, states: Sequence[TrialState]) -> list[float]:
        others = [row for row in self.rows[study_uid] if row.number != number and row.state in states]
        return [self.reports[row.number][step] for row in others if step in self.reports[row.number]]

    async def index(self, kind: str, **_: Any) -> list[Any]:
        return []

    async def observe(self, name: str) -> None:
        return None

    def ports(self) -> Ports:
        this: Any = self
        return Ports(objects=this, workloads=this, record=this, events=this)


def document(resource: Study | Trial) -> Document:
    found: Document = resource.to_json()
    return found


def earlier(count: int = 12) -> list[TrialRow]:
    """Complete trials, the better the closer `enter` was to 0.015."""
    rows = []
    for number in range(count):
        enter = 0.002 + 0.0015 * number
        values: dict[str, Any] = {"state": "Complete", "objective": -abs(enter - 0.015), "parameters": {"enter": repr(enter)}}
        rows.append(build.row(number, study_uid="uid-earlier", **values))
    return rows


async def proposals(**warm: Any) -> list[str]:
    of = build.study(warmStart=WARM | warm, sampler={"startupTrials": 5}, parallelism=4)
    world = World(of, {"uid-search": (), "uid-earlier": earlier()}, {})
    seen = await StudyController(ports=world.ports(), search=search()).observe(build.STUDY_KEY, document(of))
    return [new.parameters["enter"] for new in seen.proposals]


async def test_the_best_of_the_earlier_study_is_tried_first_and_the_sampler_goes_on() -> None:
    best = max(earlier(), key=lambda row: row.objective or 0.0).parameters["enter"]
    first, *others = await proposals()
    assert first == best
    assert len(set(others) | {first}) == 4
    assert await proposals() == [first, *others]


async def test_with_history_the_sampler_starts_where_the_earlier_one_ended() -> None:
    plain, taught = await proposals(), await proposals(history=True)
    assert taught[0] == plain[0]
    assert taught[1:] != plain[1:]

    def distance(drawn: list[str]) -> float:
        return sum(abs(float(enter) - 0.015) for enter in drawn[1:])

    assert distance(taught) < distance(plain)


async def test_asha_is_asked_at_the_newest_rung_and_compares_with_those_that_run() -> None:
    pruner = {"type": "asha", "startupTrials": 2, "reductionFactor": 2}
    of = build.study(pruner=pruner, validation={"folds": 4, "gateBars": 720, "gapBars": 48})
    rows = [build.row(0, state="Running"), build.row(1, state="Running"), build.row(2, state="Complete", objective=1.0)]
    reports = {0: {0: 0.1, 1: 0.4, 2: 9.0}, 1: {0: 2.0, 1: 2.0}, 2: {0: 1.0, 1: 1.0, 2: 1.0}}

    async def verdict(number: int) -> str:
        world = World(of, {"uid-search": rows}, reports)
        controller = TrialController(ports=world.ports(), search=search())
        seen = await controller.observe(build.STUDY_KEY, document(build.trial(number)))
        return seen.prune

    assert await verdict(0) == "value 0.4 at step 1 is number 3 of 3: the best 1 go on"  # rungs after 1 and 2 folds, not 3
    assert await verdict(1) == ""
    assert await verdict(2) == ""


def test_a_study_says_what_its_sampler_and_its_pruner_are_to_do() -> None:
    spec = StudySpec.model_validate(
        build.study(
            objective={"alsoMinimize": ["turnover"]}, constraints={"maxDrawdown": 0.2}, pruner={"type": "none"}
        ).spec.to_json()
    )
    sampler: Any = search().sampler(spec)
    assert (sampler.goal.minimize, sampler.goal.limits) == (("turnover",), {"max_drawdown": 0.2})
    assert search().pruner(spec.pruner).step({0: 1.0}) is None
