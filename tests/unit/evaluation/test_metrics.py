from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.evaluation import metrics

HOURS = Timeframe.parse("1h").bars_per_year
curves = hnp.arrays(np.float64, st.integers(3, 60), elements=st.floats(1.0, 1e6))


def noise(n: int = 2000, *, mean: float = 0.0, sd: float = 0.01, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, n)


def test_defect_01_the_benchmark_that_rises_has_positive_returns() -> None:
    assert metrics.simple_returns([100.0, 110.0, 99.0]) == pytest.approx([0.10, -0.10])


def test_defect_02_returns_are_ratios_so_that_a_losing_curve_scores_below_zero() -> None:
    equity = 10_000 * np.cumprod(1 + noise(3000, mean=-0.0001, sd=0.01, seed=4))
    score = metrics.sharpe(metrics.simple_returns(equity), HOURS)
    assert score < 0
    assert score == pytest.approx(metrics.sharpe(metrics.simple_returns(equity * 1e-3), HOURS))  # dollars do not matter
    assert np.isfinite(metrics.log_returns(equity)).all()
    assert np.expm1(metrics.log_returns(equity)) == pytest.approx(metrics.simple_returns(equity))


def test_defect_03_annualisation_follows_the_bar_and_not_the_length_of_the_data() -> None:
    once = noise(500, mean=0.0005)
    assert metrics.sharpe(np.tile(once, 8), HOURS) == pytest.approx(metrics.sharpe(once, HOURS), rel=2e-3)
    day, hour = Timeframe.parse("1d").bars_per_year, HOURS
    assert metrics.sharpe(once, hour) == pytest.approx(metrics.sharpe(once, day) * math.sqrt(24))


def test_sharpe_is_mean_over_sample_deviation() -> None:
    assert metrics.sharpe([0.01, 0.03], 4.0) == pytest.approx(0.02 / math.sqrt(0.0002) * 2)


@pytest.mark.parametrize("returns", [[0.0] * 50, [0.01] * 50, [0.01], [0.01, math.nan]])
def test_a_series_that_cannot_be_scored_is_refused(returns: list[float]) -> None:
    with pytest.raises(InvalidInput):
        metrics.sharpe(returns, HOURS)


@pytest.mark.parametrize("equity", [[100.0], [100.0, 0.0], [100.0, -1.0], [100.0, math.inf]])
def test_an_equity_curve_that_has_no_returns_is_refused_with_the_value(equity: list[float]) -> None:
    with pytest.raises(InvalidInput):
        metrics.simple_returns(equity)


def test_standard_error_is_los_for_normal_returns_and_mertens_for_skewed_ones() -> None:
    normal = noise(50_000, mean=0.002)
    per_bar = metrics.moments(normal).sharpe_per_bar
    lo = math.sqrt((1 + per_bar**2 / 2) / len(normal))
    assert metrics.sharpe_standard_error(normal, 1.0) == pytest.approx(lo, rel=0.01)
    skewed = metrics.Moments(n=1250, mean=2.5 / math.sqrt(250), sd=1.0, skew=-3.0, kurtosis=10.0)
    assert metrics.per_bar_standard_error(skewed) == pytest.approx(math.sqrt(1.53057) / math.sqrt(1249), rel=1e-4)


def test_standard_error_is_the_spread_of_sharpes_over_many_samples() -> None:
    rng = np.random.default_rng(3)
    draws = 0.2 + rng.gamma(1.0, 1.0, size=(3000, 400)) * -1 + 1.1  # skewed to the left
    spread = np.std([metrics.sharpe(row, 1.0) for row in draws])
    assert np.mean([metrics.sharpe_standard_error(row, 1.0) for row in draws]) == pytest.approx(spread, rel=0.06)


@pytest.mark.parametrize(("days", "error"), [(7, 7.2), (30, 3.5), (90, 2.0)])
def test_the_published_standard_errors_of_an_hourly_sharpe(days: int, error: float) -> None:
    assert metrics.sharpe_standard_error(noise(days * 24), HOURS) == pytest.approx(error, abs=0.06)


def test_the_published_detectable_sharpes_are_those_of_even_power() -> None:
    def detect(alpha: float, power: float = 0.5) -> float:
        return metrics.minimum_detectable_sharpe(720, HOURS, alpha=alpha, power=power)

    assert detect(0.05) == pytest.approx(5.7, abs=0.05)
    assert detect(0.025 / 3) == pytest.approx(8.4, abs=0.06)
    assert detect(0.05, 0.8) == pytest.approx(8.7, abs=0.05)
    assert detect(0.025 / 3, 0.8) == pytest.approx(11.3, abs=0.05)


@given(curves)
def test_drawdown_lies_between_nothing_and_everything_and_ignores_scale(equity: np.ndarray) -> None:
    falls = metrics.drawdown(equity)
    assert ((falls >= 0) & (falls < 1)).all()
    assert metrics.drawdown(equity * 7.0) == pytest.approx(falls)
    assert (metrics.max_drawdown(np.sort(equity))) == 0


def test_drawdown_is_measured_from_the_highest_value_so_far() -> None:
    assert metrics.drawdown([100, 120, 90, 130]) == pytest.approx([0, 0, 0.25, 0])


def test_exposure_is_the_mean_invested_share() -> None:
    assert metrics.exposure([[0.3, 0.3], [0.0, 0.0]]) == pytest.approx(0.3)
    assert metrics.exposure([]) == 0


def test_turnover_counts_both_sides_a_year() -> None:
    assert metrics.turnover([1000, 0, 0, 1000], [1000] * 4, 8760) == pytest.approx(0.5 * 8760)
    with pytest.raises(InvalidInput):
        metrics.turnover([1.0], [1.0, 2.0], 8760)


def test_trade_frequency_is_per_hour_whatever_the_bar() -> None:
    assert metrics.trades_per_hour(48, 24, HOURS) == pytest.approx(2)
    assert metrics.trades_per_hour(48, 96, HOURS * 4) == pytest.approx(2)


def test_break_even_win_rate_stands_beside_the_win_rate() -> None:
    score = metrics.score_trades([1.0, 1.0, 1.0, -6.0, 0.0])
    assert (score.closed, score.wins, score.win_rate) == (5, 3, 0.6)
    assert score.break_even_win_rate == pytest.approx(6 / 7)
    assert score.profit_factor == pytest.approx(0.5)


def test_no_trades_and_no_losses_leave_nothing_to_divide_by() -> None:
    nothing = metrics.score_trades([])
    assert (nothing.win_rate, nothing.break_even_win_rate, nothing.profit_factor, nothing.mean_pnl) == (None,) * 4
    assert metrics.score_trades([1.0]).break_even_win_rate == 0
    assert metrics.score_trades([-1.0]).break_even_win_rate == 1


@given(st.lists(st.sampled_from([-3.0, -1.0, 1.0, 2.0]), min_size=2, max_size=40))
def test_winning_more_often_than_break_even_is_the_same_as_making_money(pnl: list[float]) -> None:
    score = metrics.score_trades(pnl)
    assert score.win_rate is not None
    assert score.break_even_win_rate is not None
    assert (score.win_rate > score.break_even_win_rate + 1e-9) == (sum(pnl) > 0)


def test_alpha_and_beta_of_a_known_line_are_found() -> None:
    market = noise(4000, mean=0.001)
    fit = metrics.regress(0.0005 + 0.6 * market + noise(4000, sd=0.001, seed=1), market)
    assert fit.beta == pytest.approx(0.6, abs=0.01)
    assert fit.alpha == pytest.approx(0.0005, abs=5e-5)
    low, high = fit.interval()
    assert low < 0.0005 < high
    assert fit.t_alpha == pytest.approx(fit.alpha / fit.alpha_se)


def test_newey_west_widens_the_error_of_correlated_residuals_and_is_right_about_it() -> None:
    rng = np.random.default_rng(8)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        shocks = rng.normal(0, 0.01, 1040)
        residual = np.convolve(shocks, np.ones(5) / 5, "valid")[:1000]
        return residual, rng.normal(0, 0.01, 1000)

    fits = [(metrics.regress(*pair), metrics.regress(*pair, lags=0)) for pair in (sample() for _ in range(300))]
    spread = np.std([wide.alpha for wide, _ in fits])
    assert np.mean([wide.alpha_se for wide, _ in fits]) == pytest.approx(spread, rel=0.2)
    assert np.mean([naive.alpha_se for _, naive in fits]) < 0.6 * spread


def test_regression_without_lags_is_least_squares() -> None:
    x, y = noise(500, seed=1), noise(500, seed=2)
    slope, intercept = np.polyfit(x, y, 1)
    fit = metrics.regress(y, x)
    assert (fit.alpha, fit.beta) == pytest.approx((intercept, slope))
    assert fit.lags == 5


def test_hodl_against_itself_has_no_alpha_and_no_evidence() -> None:
    market = noise()
    fit = metrics.regress(market, market)
    assert (fit.beta, fit.t_alpha) == pytest.approx((1.0, 0.0), abs=1e-6)


@pytest.mark.parametrize("benchmark", [np.zeros(2000), noise(1999)])
def test_a_benchmark_that_explains_nothing_is_refused(benchmark: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        metrics.regress(noise(), benchmark)
