"""The search space, its text values, the samplers and the pruner."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.adapters.optuna import OptunaSampler
from cappuccino.core.errors import InvalidInput
from cappuccino.search.sampler import MedianPruner, NoPruner
from cappuccino.search.space import fits, parse_space, text_of, to_wire, value_of
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
    assert fits(SPACE, proposal)
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


def test_an_empty_space_has_one_point() -> None:
    assert OptunaSampler().sample([], {}, 1) == {}


# --- pruner -----------------------------------------------------------------------------------------


def reports(number: int, *values: float, state: str = "Complete") -> TrialRow:
    return row(number, {}, reports=dict(enumerate(values)), state=state)


OTHERS = [reports(n, 1.0 + n, 2.0 + n, 3.0) for n in range(5)]  # means after two steps: 1.5 to 5.5, median 3.5


@pytest.mark.parametrize(
    ("values", "pruned"),
    [((2.9,), True), ((3.0,), False), ((0.0, 7.0), False), ((7.0, -0.1), True), ((3.0, 4.0), False)],
)
def test_a_trial_is_pruned_when_its_mean_is_below_the_median_of_the_means(values: tuple[float, ...], pruned: bool) -> None:
    own = reports(9, *values, state="Running")
    assert MedianPruner(startup_trials=5).should_prune([*OTHERS, own], 9, len(values) - 1) is pruned


def test_nothing_is_pruned_before_enough_trials_have_finished() -> None:
    own = reports(9, -100.0, state="Running")
    unfinished = [reports(20, 9.0, state="Running"), reports(21, 9.0, state="Failed")]
    assert not MedianPruner(startup_trials=6).should_prune([*OTHERS, *unfinished, own], 9, 0)


def test_a_trial_without_reports_and_a_study_without_a_pruner_go_on() -> None:
    assert not MedianPruner(startup_trials=1).should_prune(OTHERS, 99, 0)
    assert not NoPruner().should_prune([*OTHERS, reports(9, -100.0)], 9, 0)
