from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import metrics, overfitting
from cappuccino.evaluation.overfitting import backtest_overfitting, deflated_sharpe, expected_max_sharpe, holm

PAPER = metrics.Moments(n=1250, mean=2.5 / math.sqrt(250), sd=1.0, skew=-3.0, kurtosis=10.0)


def trials(n: int = 20, bars: int = 640, *, edge: float = 0.0, seed: int = 0) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(0, 0.01, (bars, n))
    returns[:, 0] += edge
    return returns


def test_the_papers_worked_example_comes_out() -> None:
    hurdle = expected_max_sharpe(100, 0.5 / 250)
    assert hurdle == pytest.approx(0.1132, abs=5e-5)
    assert overfitting.probabilistic_sharpe(PAPER, hurdle) == pytest.approx(0.9004, abs=5e-5)


def test_psr_agrees_with_the_formula_written_with_scipy() -> None:
    returns = stats.skewnorm(-4).rvs(500, random_state=1) * 0.01 + 0.008
    s = returns.mean() / returns.std(ddof=1)
    spread = np.sqrt(1 - stats.skew(returns) * s + (stats.kurtosis(returns, fisher=False) - 1) / 4 * s**2)
    expected = stats.norm.cdf((s - 0.02) * np.sqrt(499) / spread)
    assert overfitting.probabilistic_sharpe(metrics.moments(returns), 0.02) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 5, 20, 100])
def test_the_expected_best_of_worthless_trials_is_what_simulation_finds(n: int) -> None:
    best = np.random.default_rng(n).normal(0, 0.05, (40_000, n)).max(axis=1).mean()
    assert expected_max_sharpe(n, 0.05**2) == pytest.approx(best, rel=0.08)


def test_one_trial_was_not_selected_and_uses_psr() -> None:
    deflated = deflated_sharpe(PAPER, [PAPER.sharpe_per_bar])
    assert (deflated.trials, deflated.hurdle) == (1, 0.0)
    assert deflated.probability == overfitting.probabilistic_sharpe(PAPER)


def test_every_further_trial_counts_against_the_candidate() -> None:
    spread = [0.05, -0.05]
    found = [deflated_sharpe(PAPER, spread * k).probability for k in (1, 2, 8, 64)]
    assert found == sorted(found, reverse=True)
    assert deflated_sharpe(PAPER, spread * 64).trials == 128


@pytest.mark.parametrize("sharpes", [[], [0.1, math.nan]])
def test_trials_without_a_score_are_refused(sharpes: list[float]) -> None:
    with pytest.raises(InvalidInput):
        deflated_sharpe(PAPER, sharpes)


def naive_pbo(returns: np.ndarray, blocks: int) -> float:
    """CSCV as the paper words it, one split at a time."""
    parts = np.array_split(returns, blocks)
    below = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[i] for i in chosen])
        outside = np.concatenate([parts[i] for i in range(blocks) if i not in chosen])
        winner = (inside.mean(0) / inside.std(0)).argmax()
        rank = stats.rankdata(outside.mean(0) / outside.std(0))[winner] / (returns.shape[1] + 1)
        below.append(math.log(rank / (1 - rank)) <= 0)
    return float(np.mean(below))


@pytest.mark.parametrize("edge", [0.0, 0.001])
def test_pbo_agrees_with_one_split_at_a_time(edge: float) -> None:
    returns = trials(7, 160, edge=edge, seed=5)
    assert backtest_overfitting(returns, 8).probability == pytest.approx(naive_pbo(returns, 8))


def test_pbo_uses_12870_splits_and_is_near_one_half_on_noise_and_near_zero_with_an_edge() -> None:
    noise = [backtest_overfitting(trials(seed=seed)).probability for seed in range(6)]
    assert len(backtest_overfitting(trials()).logits) == 12_870
    assert 0.3 < float(np.mean(noise)) < 0.7
    assert backtest_overfitting(trials(edge=0.005)).probability < 0.01


def test_trials_that_never_moved_do_not_break_pbo() -> None:
    returns = trials()
    returns[:, 3] = 0.0
    assert np.isfinite(backtest_overfitting(returns).logits).all()


@pytest.mark.parametrize("returns", [np.zeros((100, 1)), np.zeros((20, 4)), np.full((100, 3), np.nan), np.zeros(50)])
def test_what_pbo_cannot_split_is_refused(returns: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        backtest_overfitting(returns)


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.02]) == (0.02,)
    assert holm([]) == ()


@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=3))
def test_holm_never_helps_and_never_exceeds_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= raw for a, raw in zip(adjusted, p, strict=True))
    assert all(a <= min(1.0, len(p) * raw) + 1e-12 or a <= max(adjusted) for a, raw in zip(adjusted, p, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, len(p) * min(p)))
    ranked = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in ranked] == sorted(adjusted)
