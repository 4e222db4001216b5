from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.generator import ORIGIN, GeneratorBars, GeneratorConfig
from cappuccino.market.quality import Limits, check, judge

HOUR = Timeframe.parse("1h")
SYMBOLS = ["BTC/USD", "ETH/USD", "SOL/USD"]


def market(**config) -> GeneratorBars:
    return GeneratorBars(config=GeneratorConfig(**{"seed": 7, **config}))


def bars(source: GeneratorBars, count: int, *, symbols=SYMBOLS, first=0) -> pl.DataFrame:
    return source.fetch(symbols, HOUR, ORIGIN + first * 3600, ORIGIN + count * 3600)


def log_returns(rows: pl.DataFrame) -> np.ndarray:
    closes = [frame["close"].to_numpy() for frame in rows.partition_by("symbol", maintain_order=True)]
    return np.diff(np.log(np.stack(closes, axis=1)), axis=0)


def autocovariance(x: np.ndarray, lag: int) -> float:
    x = x - x.mean(axis=0)
    return float(np.mean(x[lag:] * x[: len(x) - lag]))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**53),
    short=st.integers(1, 300),
    more=st.integers(0, 300),
    first=st.integers(0, 299),
    regimes=st.booleans(),
    edge=st.sampled_from(
        [
            {},
            {"drift_volatility": 0.003},
            {"drift_volatility": 0.003, "drift_feedback": -0.9},
            {"drift_volatility": 0.003, "drift_feedback": 0.9, "leader": "BTC/USD"},
        ]
    ),
)
def test_a_range_is_the_same_whatever_longer_range_it_is_cut_from(seed, short, more, first, regimes, edge):
    source = market(seed=seed, regimes=regimes, jumps_per_year=500, **edge)
    whole = bars(source, short + more)
    inside = pl.col("ts").is_between(ORIGIN + first * 3600, ORIGIN + short * 3600, closed="left")
    assert_frame_equal(whole.filter(inside), bars(source, short, first=first), check_exact=True)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(SYMBOLS), count=st.integers(1, 3), leader=st.sampled_from([None, "BTC/USD"]))
def test_a_symbols_path_does_not_depend_on_what_else_is_asked(order, count, leader):
    source = market(drift_volatility=0.003, drift_feedback=0.9, leader=leader)
    alone = bars(source, 200, symbols=["ETH/USD"])
    asked = [*order[:count], *(["ETH/USD"] if "ETH/USD" not in order[:count] else [])]
    assert_frame_equal(bars(source, 200, symbols=asked).filter(pl.col("symbol") == "ETH/USD"), alone, check_exact=True)


def test_another_seed_is_another_market():
    assert not bars(market(seed=1), 50).equals(bars(market(seed=2), 50))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**53), volatility=st.floats(0.0005, 0.05), jumps=st.sampled_from([0, 12, 1000]))
def test_every_bar_passes_the_quality_checks_and_opens_near_the_previous_close(seed, volatility, jumps):
    rows = bars(market(seed=seed, volatility=volatility, jumps_per_year=jumps), 300)
    accepted, findings = judge(rows, HOUR, Limits())
    assert len(accepted) == 900
    assert findings == ()
    assert rows["volume"].min() > 0
    panel, _ = check(rows, SYMBOLS, HOUR, end=ORIGIN + 300 * 3600)
    gap = np.log(panel.open[1:] / panel.close[:-1])
    assert np.max(np.abs(gap)) < volatility
    assert not panel.missing.any()


def test_volatility_and_correlation_are_as_asked():
    returns = log_returns(bars(market(jumps_per_year=0, correlation=0.4), 20_000))
    np.testing.assert_allclose(returns.std(axis=0), 0.005, rtol=0.08)
    assert np.corrcoef(returns.T)[np.triu_indices(3, 1)] == pytest.approx(0.4, abs=0.06)


def test_volatility_clusters_and_tails_are_fat():
    returns = log_returns(bars(market(jumps_per_year=0), 20_000))
    size = np.abs(returns)
    assert autocovariance(size, 24) / autocovariance(size, 0) > 0.05
    kurtosis = np.mean((returns - returns.mean()) ** 4) / returns.var() ** 2
    assert kurtosis > 4


def test_without_regimes_the_volatility_is_constant():
    size = np.abs(log_returns(bars(market(jumps_per_year=0, regimes=False), 20_000)))
    assert abs(autocovariance(size, 24) / autocovariance(size, 0)) < 0.03


def test_jumps_come_as_often_as_asked():
    calm = {"volatility": 0.001, "regimes": False, "drift_volatility": 0.0}
    with_jumps = log_returns(bars(market(jumps_per_year=200, **calm), 20_000))
    expected = 200 * 3 * 20_000 / 8760
    large = np.sum(np.abs(with_jumps) > 0.005)  # five sds of the noise, less than one of a jump's
    assert large == pytest.approx(expected * 0.53, rel=0.15)  # P(|N(0, 8)| > 5) = 0.532
    assert not np.any(np.abs(log_returns(bars(market(jumps_per_year=0, **calm), 20_000))) > 0.005)


def test_the_planted_drift_has_the_sd_and_the_half_life_that_were_asked():
    """From prices alone: the autocovariance of returns at lag k is sd^2 0.5^(k / half-life)."""
    many = [f"A{n}/USD" for n in range(12)]
    config = {"drift_volatility": 0.003, "drift_half_life": 24.0, "correlation": 0.0, "jumps_per_year": 0}
    returns = log_returns(bars(market(**config), 20_000, symbols=many))
    lags = np.arange(1, 40)
    covariance = np.array([autocovariance(returns, int(lag)) for lag in lags])
    assert np.sqrt(covariance[0]) == pytest.approx(0.003, rel=0.06)
    slope = np.polyfit(lags, np.log(covariance), 1)[0]
    assert np.log(0.5) / slope == pytest.approx(24, rel=0.15)


def test_the_oracles_drift_is_what_moves_the_price():
    source = market(drift_volatility=0.004, correlation=0.0, jumps_per_year=0, regimes=False)
    end = ORIGIN + 20_000 * 3600
    drift = source.planted_drift(SYMBOLS, HOUR, ORIGIN, end)
    returns = log_returns(bars(source, 20_000))
    assert drift.std() == pytest.approx(0.004, rel=0.06)
    slope = np.sum(drift[1:] * returns) / np.sum(drift[1:] ** 2)
    assert slope == pytest.approx(1.0, abs=0.03)
    noise = returns - drift[1:]
    assert noise.std() == pytest.approx(0.005, rel=0.02)
    assert np.array_equal(source.planted_drift(SYMBOLS, HOUR, ORIGIN + 500 * 3600, end), drift[500:])


@pytest.mark.parametrize("feedback", [0.9, -0.9])
@pytest.mark.parametrize("regimes", [True, False])
def test_returns_trend_or_revert_as_the_feedback_says(feedback, regimes):
    """The formula of the module's docstring, lag by lag, from prices alone; E[h] only where h is constant."""
    many = [f"A{n}/USD" for n in range(12)]
    sd, phi = 0.0007, 0.5 ** (1 / 12)
    config = {"drift_volatility": sd, "drift_half_life": 12.0, "drift_feedback": feedback, "regimes": regimes}
    returns = log_returns(bars(market(correlation=0.0, jumps_per_year=0, **config), 20_000, symbols=many))
    lags = np.arange(1, 7)
    measured = np.array([autocovariance(returns, int(lag)) for lag in lags])
    expected = phi ** (lags - 1) * (phi * sd**2 + feedback * sd * np.sqrt(1 - phi**2) * 0.005)
    assert np.all(np.sign(measured) == np.sign(feedback))
    if not regimes:
        error = 0.005**2 / np.sqrt(returns.size)
        np.testing.assert_allclose(measured, expected, atol=5 * error)


def test_the_leaders_noise_moves_the_followers_drift_and_nothing_moves_the_leaders():
    source = market(
        drift_volatility=0.002, drift_half_life=8.0, drift_feedback=0.8, leader="BTC/USD", correlation=0.0,
        jumps_per_year=0, regimes=False,
    )  # fmt: skip
    end = ORIGIN + 20_000 * 3600
    drift = source.planted_drift(SYMBOLS, HOUR, ORIGIN, end)
    assert not drift[:, 0].any()
    assert drift[:, 1:].std(axis=0) == pytest.approx(0.002, rel=0.1)
    phi = 0.5 ** (1 / 8)
    innovation = (drift[2:] - phi * drift[1:-1]) / (0.002 * np.sqrt(1 - phi**2))
    returns = log_returns(bars(source, 20_000))
    for follower in (1, 2):
        assert np.corrcoef(innovation[:, follower], returns[:-1, 0])[0, 1] == pytest.approx(0.8, abs=0.02)
        assert abs(np.corrcoef(innovation[:, follower], returns[1:, 0])[0, 1]) < 0.03  # what comes after moves nothing
        slope = np.sum(drift[1:, follower] * returns[:, follower]) / np.sum(drift[1:, follower] ** 2)
        assert slope == pytest.approx(1.0, abs=0.1)
    assert abs(autocovariance(returns[:, :1], 1)) < 4 * 0.005**2 / np.sqrt(len(returns))


def test_the_drift_keeps_its_sd_whatever_moves_it():
    many = [f"A{n}/USD" for n in range(600)]
    for feedback in (-1.0, 0.5, 1.0):
        drift = market(drift_volatility=0.003, drift_feedback=feedback, correlation=0.0).planted_drift(
            many, HOUR, ORIGIN, ORIGIN + 40 * 3600
        )
        assert drift[0].std() == pytest.approx(0.003, rel=0.12)
        assert drift[-1].std() == pytest.approx(0.003, rel=0.12)


@pytest.mark.parametrize("config", [{"drift_feedback": 1.5}, {"drift_feedback": float("nan")}, {"leader": "BTC/USD"}])
def test_a_feedback_that_is_none_and_a_leader_without_followers_are_refused(config):
    with pytest.raises(InvalidInput, match="drift_feedback"):
        market(drift_volatility=0.003, **config)


def test_without_an_edge_returns_have_no_autocorrelation_and_prices_no_drift():
    many = [f"A{n}/USD" for n in range(12)]
    returns = log_returns(bars(market(correlation=0.0), 20_000, symbols=many))
    limit = 4 / np.sqrt(returns.size) * 1.6  # clustering widens the band
    for lag in (1, 2, 5, 24, 48):
        assert abs(autocovariance(returns, lag) / autocovariance(returns, 0)) < limit


@pytest.mark.parametrize("regimes", [True, False])
def test_without_an_edge_the_price_is_a_martingale(regimes):
    """At 5 % a bar, omitting the -h^2 / 2 would show as ten standard errors."""
    many = [f"A{n}/USD" for n in range(12)]
    simple = np.expm1(log_returns(bars(market(correlation=0.0, volatility=0.05, regimes=regimes), 20_000, symbols=many)))
    assert abs(simple.mean()) < 4 * simple.std() / np.sqrt(simple.size)


def test_the_drift_is_stationary_from_the_first_bar():
    many = [f"A{n}/USD" for n in range(600)]
    drift = market(drift_volatility=0.003).planted_drift(many, HOUR, ORIGIN, ORIGIN + 3600)
    assert drift.std() == pytest.approx(0.003, rel=0.12)


def test_a_constant_drift_is_the_mean_log_growth():
    source = market(drift_per_year=2.0, volatility=0.001, correlation=0.0, jumps_per_year=0)
    returns = log_returns(bars(source, 8761, symbols=[f"A{n}/USD" for n in range(12)]))
    assert returns.sum(axis=0).mean() == pytest.approx(2.0, abs=0.1)


def test_it_has_nothing_before_its_origin():
    rows = market().fetch(SYMBOLS, HOUR, ORIGIN - 10 * 3600, ORIGIN + 3600)
    assert rows["ts"].to_list() == [ORIGIN] * 3
    assert len(market().fetch(SYMBOLS, HOUR, ORIGIN - 10 * 3600, ORIGIN)) == 0


def test_a_market_that_leaves_the_floats_is_refused():
    with pytest.raises(InvalidInput, match="range of floats"):
        market(volatility=0.2, drift_volatility=0.05, drift_half_life=10_000).fetch(
            ["A/USD"], HOUR, ORIGIN, ORIGIN + 60_000 * 3600
        )


def test_three_assets_of_5000_bars_take_well_under_half_a_second():
    started = time.process_time()
    bars(market(drift_volatility=0.003), 5000)
    assert time.process_time() - started < 0.5
