from __future__ import annotations

import numpy as np
import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import metrics
from cappuccino.evaluation.arena import rolling_sharpe, standings

HOURS = 8760.0


def curve(edge: float = 0.0, *, n: int = 400, seed: int = 0, beta: float = 1.0) -> np.ndarray:
    market = np.random.default_rng(99).normal(0, 0.005, n)
    own = np.random.default_rng(seed).normal(0, 0.001, n)
    return 10_000 * np.cumprod(1 + beta * market + own + edge)


def test_entrants_are_ranked_by_sharpe_over_the_last_seven_days_only() -> None:
    faded = np.concatenate([np.full(200, 0.01), np.full(200, -0.001)]) + np.random.default_rng(0).normal(0, 0.002, 400)
    steady = curve(0.0003, seed=2, beta=0.0)
    table = standings({"faded": 1e4 * np.cumprod(1 + faded), "steady": steady, "cash": np.full(400, 1e4)}, HOURS, seed=1)
    assert [s.name for s in table] == ["steady", "cash", "faded"]
    returns = metrics.simple_returns(steady[-169:])
    assert table[0].sharpe == pytest.approx(metrics.sharpe(returns, HOURS))


def test_cash_is_ranked_at_zero_without_an_interval() -> None:
    table = standings({"loser": curve(-0.001), "cash": np.full(400, 1e4), "winner": curve(0.001)}, HOURS, seed=1)
    assert [s.name for s in table] == ["winner", "cash", "loser"]
    assert (table[1].sharpe, table[1].sharpe_low) == (None, None)
    assert table[0].sharpe is not None
    assert table[0].sharpe_high - table[0].sharpe_low == pytest.approx(2 * 1.96 * 7.2, rel=0.1)  # type: ignore[operator]


def test_pairing_finds_a_difference_that_the_intervals_hide() -> None:
    twins = {"a": curve(0.0003, seed=1), "b": curve(0.0, seed=2)}
    first, second = standings(twins, HOURS, seed=3)
    assert first.sharpe_low < second.sharpe_high  # type: ignore[operator]
    assert second.behind_low > 0
    assert not second.tied_with_leader
    assert (first.behind_leader, first.behind_low, first.behind_high) == (0, 0, 0)


def test_equals_are_tied_and_ordered_by_name() -> None:
    table = standings({"b": curve(), "a": curve(), "c": curve(seed=7)}, HOURS, seed=3)
    assert table[1].tied_with_leader
    assert [s.name for s in table if s.name in "ab"] == ["a", "b"]


def test_the_difference_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(120):
        shared = rng.normal(0, 0.004, 169)
        pair = {name: 1e4 * np.cumprod(1 + shared + rng.normal(0, 0.003, 169)) for name in "ab"}
        covered += standings(pair, HOURS, seed=trial, samples=200)[1].tied_with_leader
    assert covered >= 100  # 95 % asked, seven blocks only: at least five in six


def test_top_three_is_a_mark_for_display() -> None:
    table = standings({str(k): curve(seed=k) for k in range(5)}, HOURS, seed=1, samples=100)
    assert [s.top for s in table] == [True, True, True, False, False]


def test_rolling_sharpe_is_the_sharpe_of_each_window() -> None:
    equity = curve()
    rolling = rolling_sharpe(equity, HOURS)
    assert np.isnan(rolling[:167]).all()
    assert rolling[167] == pytest.approx(metrics.sharpe(metrics.simple_returns(equity[:169]), HOURS))
    assert rolling[-1] == pytest.approx(metrics.sharpe(metrics.simple_returns(equity[-169:]), HOURS))
    assert np.isnan(rolling_sharpe(np.full(400, 1e4), HOURS)).all()


@pytest.mark.parametrize("equity", [{}, {"a": curve(), "b": curve(n=399)}, {"a": np.array([1.0, 2.0])}])
def test_an_arena_without_comparable_curves_is_refused(equity: dict[str, np.ndarray]) -> None:
    with pytest.raises(InvalidInput):
        standings(equity, HOURS, seed=1)
