"""Which running trials are given up: by the median, and by asynchronous successive halving."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.search.pruner import AshaPruner, MedianPruner, NoPruner

OTHERS = {1: [1.0, 2.0, 3.0, 4.0, 5.0], 2: [1.5, 2.5, 3.5, 4.5, 5.5]}  # means after one and after two steps


@pytest.mark.parametrize(
    ("value", "step", "pruned"), [(2.9, 1, True), (3.0, 1, False), (3.5, 2, False), (3.45, 2, True), (7.0, 2, False)]
)
def test_a_trial_is_pruned_when_its_mean_is_below_the_median_of_the_means(value: float, step: int, pruned: bool) -> None:
    pruner = MedianPruner(startup_trials=5)
    assert bool(pruner.verdict(step, value, OTHERS[step])) is pruned
    assert pruner.step({0: 9.0, step: value}) == step


def test_nothing_is_pruned_before_enough_trials_have_finished() -> None:
    assert MedianPruner(startup_trials=6).verdict(1, -100.0, OTHERS[1]) == ""
    assert MedianPruner(startup_trials=1).verdict(1, -100.0, []) == ""
    assert AshaPruner(startup_trials=6).verdict(0, -100.0, OTHERS[1]) == ""
    assert AshaPruner(startup_trials=0).verdict(0, -100.0, []) == ""


def test_a_study_without_a_pruner_goes_on() -> None:
    assert NoPruner().step({0: 1.0, 1: 1.0}) is None
    assert NoPruner().verdict(1, -100.0, OTHERS[1]) == ""


def test_rungs_are_after_min_folds_times_powers_of_the_factor() -> None:
    pruner = AshaPruner(reduction_factor=3, min_folds=1)
    reports: dict[int, float] = {}
    judged = []
    for step in range(9):
        reports[step] = 0.0
        judged.append(pruner.step(reports))
    assert judged == [0, 0, 2, 2, 2, 2, 2, 2, 8]  # after 1, 3 and 9 folds
    assert pruner.step({}) is None
    later = AshaPruner(reduction_factor=2, min_folds=2)
    assert [later.step(dict.fromkeys(range(done), 0.0)) for done in range(1, 6)] == [None, 1, 1, 3, 3]


@pytest.mark.parametrize(
    ("value", "others", "pruned"),
    [
        (1.0, [2.0], True),  # of fewer than the factor only the best goes on
        (3.0, [2.0], False),
        (2.0, [2.0], False),  # a tie goes on
        (4.0, [1.0, 2.0, 3.0, 5.0, 6.0], True),  # two of six go on, and it is the third
        (5.0, [1.0, 2.0, 3.0, 4.0, 6.0], False),
    ],
)
def test_one_trial_in_the_factor_goes_past_a_rung(value: float, others: list[float], pruned: bool) -> None:
    verdict = AshaPruner(reduction_factor=3, startup_trials=1).verdict(0, value, others)
    assert bool(verdict) is pruned
    if pruned:
        assert f"value {value:.4g} at step 0" in verdict


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40, unique=True), st.integers(2, 5))
def test_when_all_have_come_to_a_rung_exactly_the_share_that_it_lets_past_goes_on(values: list[float], factor: int) -> None:
    pruner = AshaPruner(reduction_factor=factor, startup_trials=1)
    past = [value for place, value in enumerate(values) if not pruner.verdict(0, value, values[:place] + values[place + 1 :])]
    assert sorted(past) == sorted(values)[-max(1, len(values) // factor) :]


def test_who_still_runs_is_a_peer_of_asha_and_not_of_the_median() -> None:
    assert "Running" in AshaPruner().peers
    assert set(MedianPruner().peers) == {"Complete", "Pruned"}
    assert all("Failed" not in pruner.peers for pruner in (AshaPruner(), MedianPruner(), NoPruner()))
