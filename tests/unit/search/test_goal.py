"""What may be chosen of a search: limits, the Pareto front, the best; and that the sampler learns of both."""

from __future__ import annotations

import random
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.adapters.optuna import OptunaSampler
from cappuccino.search.goal import Goal
from cappuccino.search.space import parse_space, text_of, to_wire
from cappuccino.search.trials import TrialRow

SPACE = parse_space({"risk": {"type": "float", "low": 0.0, "high": 1.0}, "speed": {"type": "float", "low": 0.0, "high": 1.0}})
WIRE = to_wire(SPACE)


def row(number: int, objective: float | None = 0.0, drawdown: float = 0.1, turnover: float = 5.0, **given: Any) -> TrialRow:
    base: dict[str, Any] = {
        "study_uid": "u", "phase": "", "parameters": {}, "distributions": WIRE, "seed": number, "state": "Complete",
        "metrics": {"max_drawdown": drawdown, "turnover": turnover},
    }  # fmt: skip
    return TrialRow(**{**base, "number": number, "objective": objective, **given})


def test_a_trial_over_a_limit_is_never_chosen_and_it_is_said_by_how_much() -> None:
    goal = Goal(limits={"max_drawdown": 0.2})
    rows = [row(0, 1.0, 0.2), row(1, 9.0, 0.21), row(2, 2.0, 0.05), row(3, 5.0, metrics={}), row(4, 3.0, state="Pruned")]
    assert [each.number for each in goal.chosen(rows)] == [2, 0]
    assert goal.breach(rows[0].metrics) == ""
    assert goal.breach(rows[1].metrics) == "max_drawdown 0.21 is above its limit 0.2"
    assert goal.breach({}) == "max_drawdown is not known"
    assert goal.excesses(rows[1]) == pytest.approx({"max_drawdown": 0.01})


def test_without_further_objectives_every_complete_trial_may_be_chosen_best_first_and_the_earlier_of_equals() -> None:
    rows = [row(0, 1.0), row(1, 2.0), row(2, None, state="Failed"), row(3, 2.0, metrics={}), row(4, None)]
    assert [each.number for each in Goal().chosen(reversed(rows))] == [1, 3, 0]
    assert [each.number for each in Goal().chosen(reversed(rows), at_most=2)] == [1, 3]
    assert Goal().best(reversed(rows)) is rows[1]
    assert Goal().best(rows[2:3]) is None


def test_the_front_is_what_nothing_equals_or_beats_in_everything() -> None:
    goal = Goal(minimize=("max_drawdown", "turnover"))
    rows = [
        row(0, 2.0, 0.30, 9.0),  # the best Sharpe
        row(1, 1.0, 0.10, 9.0),
        row(2, 1.0, 0.20, 9.0),  # 1 beats it
        row(3, 0.5, 0.10, 1.0),
        row(4, 0.5, 0.10, 1.0),  # equal to 3
        row(5, 1.9, 0.31, 9.1),  # 0 beats it in everything
    ]
    assert [each.number for each in goal.chosen(rows)] == [0, 1, 3]


objectives = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


@given(st.lists(objectives, max_size=25))
def test_the_front_holds_exactly_those_that_no_other_dominates(points: list[tuple[int, int, int]]) -> None:
    goal = Goal(minimize=("max_drawdown", "turnover"))
    rows = [row(number, -float(a), float(b), float(c)) for number, (a, b, c) in enumerate(points)]
    expected = {
        number
        for number, mine in enumerate(points)
        if not any(
            all(x <= y for x, y in zip(theirs, mine, strict=True)) and (theirs != mine or other < number)
            for other, theirs in enumerate(points)
            if other != number
        )
    }
    assert {each.number for each in goal.chosen(rows)} == expected


def past(count: int) -> list[TrialRow]:
    """A market in which more risk earns more and draws down more, and speed costs turnover for nothing."""
    draw, rows = random.Random(3), []
    for number in range(count):
        risk, speed = draw.random(), draw.random()
        parameters = {"risk": repr(risk), "speed": repr(speed)}
        rows.append(row(number, 3 * risk - speed, 0.5 * risk, 100 * speed, parameters=parameters))
    return rows


def proposals(goal: Goal, rows: list[TrialRow], **given: Any) -> dict[str, list[float]]:
    sampler = OptunaSampler(goal=goal, startup_trials=5, **given)
    drawn = [sampler.sample(rows, SPACE, seed) for seed in range(30)]
    return {name: sorted(float(each[name]) for each in drawn) for name in SPACE}


def test_the_sampler_keeps_to_where_limits_were_kept() -> None:
    free, bound = proposals(Goal(), past(60)), proposals(Goal(limits={"max_drawdown": 0.2}), past(60))
    assert free["risk"][15] > 0.7  # the median
    assert bound["risk"][15] < 0.5
    assert sum(risk <= 0.45 for risk in bound["risk"]) >= 20


def test_when_no_trial_keeps_the_limits_the_sampler_goes_where_they_are_least_exceeded() -> None:
    drawn = proposals(Goal(limits={"max_drawdown": 0.001}), past(60))
    assert drawn["risk"][15] < 0.25


def test_the_sampler_of_several_objectives_seeks_the_whole_front() -> None:
    drawn = proposals(Goal(minimize=("max_drawdown", "turnover")), past(80))
    assert drawn["speed"][15] < 0.35  # nobody wants speed
    assert drawn["risk"][24] - drawn["risk"][5] > 0.25  # and any risk is on the front


def test_of_several_objectives_the_same_record_and_seed_give_the_same_proposal() -> None:
    goal, rows = Goal(minimize=("turnover",), limits={"max_drawdown": 0.3}), past(40)
    sampler = OptunaSampler(goal=goal, startup_trials=5)
    assert sampler.sample(rows, SPACE, 1) == sampler.sample(list(reversed(rows)), SPACE, 1)
    assert sampler.sample(rows, SPACE, 1) != sampler.sample(rows, SPACE, 2)
    assert sampler.sample([*rows, row(40, 9.0, metrics={})], SPACE, 1) == sampler.sample(rows, SPACE, 1)  # it teaches nothing


def test_a_proposal_under_limits_is_what_optuna_proposes_from_the_same_trials() -> None:
    goal, rows = Goal(minimize=("turnover",), limits={"max_drawdown": 0.3}), past(40)
    distributions = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in sorted(SPACE)}
    for seed in range(3):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed))
        for each in rows:
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: float(text) for name, text in each.parameters.items()},
                    distributions=distributions,
                    values=[each.objective or 0.0, each.metrics["turnover"]],
                    constraints={"max_drawdown": each.metrics["max_drawdown"] - 0.3},
                )
            )
        asked = study.ask(fixed_distributions=distributions)
        expected = {name: text_of(value) for name, value in asked.params.items()}
        assert OptunaSampler(goal=goal).sample(rows, SPACE, seed) == expected
