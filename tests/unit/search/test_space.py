"""The search space, its text values, and the samplers of one objective."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.adapters.optuna import OptunaSampler
from cappuccino.core.errors import InvalidInput
from cappuccino.search.space import parse_space, text_of, to_wire, value_of, values_of
from cappuccino.search.trials import TrialRow

DOCUMENTS: dict[str, dict[str, Any]] = {
    "rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "share": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
    "width": {"type": "int", "low": 8, "high": 64, "log": True},
    "depth": {"type": "int", "low": 1, "high": 9, "step": 2},
    "fixed": {"type": "int", "low": 3, "high": 3},
    "mode": {"type": "categorical", "choices": ["true", "2", "x"]},
}
SPACE = parse_space(DOCUMENTS)


def row(number: int, parameters: dict[str, str], **changes: Any) -> TrialRow:
    base: dict[str, Any] = {
        "study_uid": "u", "phase": "", "distributions": to_wire(SPACE), "seed": number, "state": "Complete", "objective": 0.0,
    }  # fmt: skip
    return TrialRow(**{**base, "number": number, "parameters": parameters, **changes})


def test_a_space_survives_its_wire_form() -> None:
    assert parse_space(to_wire(SPACE)) == SPACE


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "text"}, "type 'text' is unknown"),
        ({"type": "float", "low": 2, "high": 1}, "in this order"),
        ({"type": "float", "low": 0, "high": math.inf}, "finite"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "above 0"),
        ({"type": "float", "low": 1, "high": 2, "log": True, "step": 0.1}, "exclude"),
        ({"type": "int", "low": 1.5, "high": 2}, "no whole number"),
        ({"type": "categorical", "choices": ["a", "a"]}, "name each once"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused_by_name(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=rf"search space width: .*{message}"):
        parse_space({"width": document})


@given(st.floats(min_value=1e-5, max_value=1e-2))
def test_a_float_reads_back_from_its_text_exactly(value: float) -> None:
    assert value_of(SPACE["rate"], text_of(value)) == value


@pytest.mark.parametrize(("name", "text"), [("rate", "2"), ("rate", "nan"), ("depth", "1.5"), ("depth", "99"), ("mode", "y")])
def test_a_text_outside_its_dimension_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidInput):
        value_of(SPACE[name], text)


@pytest.mark.parametrize("kind", ["tpe", "random"])
@given(seed=st.integers(0, 2**63 - 1))
def test_a_proposal_lies_in_the_space(kind: Any, seed: int) -> None:
    proposal = OptunaSampler(type=kind).sample([], SPACE, seed)
    assert proposal.keys() == SPACE.keys()
    assert values_of(SPACE, proposal) is not None
    assert proposal["fixed"] == "3"
    assert int(proposal["depth"]) % 2 == 1
    assert float(proposal["share"]) * 4 == int(float(proposal["share"]) * 4)


def history(count: int) -> list[TrialRow]:
    rows: list[TrialRow] = []
    for number in range(count):
        parameters = OptunaSampler(type="random").sample([], SPACE, number)
        rows.append(row(number, parameters, objective=-abs(math.log10(float(parameters["rate"])) + 3)))
    return rows


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_the_same_record_and_seed_give_the_same_proposal_in_whatever_order_rows_come(kind: Any) -> None:
    sampler, rows = OptunaSampler(type=kind, startup_trials=5), history(20)
    first = sampler.sample(rows, SPACE, 11)
    assert sampler.sample(list(reversed(rows)), SPACE, 11) == first
    assert sampler.sample(rows, SPACE, 12) != first


def test_tpe_searches_where_trials_were_good() -> None:
    sampler, rows = OptunaSampler(startup_trials=5), history(40)

    def distance(kind: Any) -> float:
        chosen = sampler if kind == "tpe" else OptunaSampler(type="random")
        proposals = [chosen.sample(rows, SPACE, seed) for seed in range(40)]
        return sum(abs(math.log10(float(p["rate"])) + 3) for p in proposals) / len(proposals)

    assert distance("tpe") < 0.7 * distance("random")


def test_running_trials_count_and_failed_or_foreign_ones_do_not() -> None:
    sampler, rows = OptunaSampler(startup_trials=3), history(12)
    plain = sampler.sample(rows, SPACE, 5)
    foreign = row(12, {"rate": "0.001"}, distributions={"rate": DOCUMENTS["rate"]}, objective=9.0)
    failed = row(13, rows[0].parameters, state="Failed", objective=None)
    assert sampler.sample([*rows, foreign, failed], SPACE, 5) == plain
    running = [row(14 + n, plain, state="Running", objective=None) for n in range(3)]
    assert sampler.sample([*rows, *running], SPACE, 5) != plain


def test_parameters_without_a_dimension_or_outside_it_are_no_point_of_the_space() -> None:
    point = {"rate": "0.001", "share": "0.25", "width": "8", "depth": "3", "fixed": "3", "mode": "x"}
    assert values_of(SPACE, point) == {"rate": 0.001, "share": 0.25, "width": 8, "depth": 3, "fixed": 3, "mode": "x"}
    assert values_of(SPACE, {**point, "depth": "99"}) is None
    assert values_of(SPACE, {name: text for name, text in point.items() if name != "mode"}) is None


def test_a_proposal_is_what_optuna_proposes_from_the_same_trials() -> None:
    rows = [replace(each, state="Pruned", objective=None) if each.number % 4 == 0 else each for each in history(60)]
    rows += [row(60 + n, rows[n].parameters, state="Running", objective=None) for n in range(5)]
    states = {"Complete": optuna.trial.TrialState.COMPLETE, "Pruned": optuna.trial.TrialState.PRUNED}
    distributions = {name: optuna.distributions.json_to_distribution(_json(name)) for name in sorted(SPACE)}
    for seed in range(5):
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        )
        for each in rows:
            values = {name: value_of(SPACE[name], text) for name, text in each.parameters.items()}
            state = states.get(each.state, optuna.trial.TrialState.RUNNING)
            study.add_trial(
                optuna.trial.create_trial(state=state, params=values, distributions=distributions, value=each.objective)
            )
        asked = study.ask(fixed_distributions=distributions)
        expected = {name: text_of(value) for name, value in asked.params.items()}
        assert OptunaSampler().sample(rows, SPACE, seed) == expected


def _json(name: str) -> str:
    """Optuna's own way of writing down a distribution."""
    document = DOCUMENTS[name]
    if document["type"] == "categorical":
        return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": document["choices"]}})
    kind = "FloatDistribution" if document["type"] == "float" else "IntDistribution"
    step = document.get("step", None if document["type"] == "float" else 1)
    bounds = {"low": document["low"], "high": document["high"], "log": document.get("log", False), "step": step}
    return json.dumps({"name": kind, "attributes": bounds})


LONG = 1000


@pytest.fixture(scope="module")
def long_history() -> list[TrialRow]:
    """More trials than a proposal looks at; the best ones are the oldest."""
    draw = random.Random(7)
    wire = to_wire(SPACE)
    rows = []
    for number in range(LONG):
        good = number < 25
        rate = draw.uniform(9e-5, 1.1e-4) if good else draw.uniform(1e-3, 1e-2)
        parameters = {
            "rate": repr(rate), "share": "0.25", "width": str(draw.randint(8, 64)), "depth": draw.choice("13579"),
            "fixed": "3", "mode": draw.choice(["true", "2", "x"]),
        }  # fmt: skip
        rows.append(row(number, parameters, distributions=wire, objective=(1.0 if good else 0.0) + draw.random() / 10))
    return rows


def test_of_a_long_history_the_best_trials_are_seen_however_old(long_history: list[TrialRow]) -> None:
    sampler = OptunaSampler()
    rates = [float(sampler.sample(long_history, SPACE, seed)["rate"]) for seed in range(10)]
    assert sum(rate < 5e-4 for rate in rates) >= 7
    forgetful = [float(sampler.sample(long_history[25:], SPACE, seed)["rate"]) for seed in range(10)]
    assert sum(rate < 5e-4 for rate in forgetful) <= 3


def test_of_a_long_history_the_middling_old_trials_are_not_seen(long_history: list[TrialRow]) -> None:
    sampler = OptunaSampler()
    plain = sampler.sample(long_history, SPACE, 3)

    def bad_there(first: int, end: int) -> list[TrialRow]:
        """As if trials at the proposed point had been tried and were not good."""
        return [replace(each, parameters=plain) if first <= each.number < end else each for each in long_history]

    assert sampler.sample(bad_there(25, LONG - 500), SPACE, 3) == plain
    assert sampler.sample(bad_there(LONG - 500, LONG), SPACE, 3) != plain


def test_an_empty_space_has_one_point() -> None:
    assert OptunaSampler().sample([], {}, 1) == {}
