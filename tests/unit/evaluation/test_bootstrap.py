from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import bootstrap
from cappuccino.evaluation.bootstrap import alpha_above_zero, mean_above_zero


def autocorrelated(n: int = 720, *, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    shocks = np.random.default_rng(seed).normal(0, 0.01, n + 7)
    return mean + np.convolve(shocks, np.ones(8) / 8, "valid")


def run(returns: np.ndarray, **options: object) -> bootstrap.Tested:
    return mean_above_zero(returns, **({"block": 24.0, "samples": 1000, "seed": 1, "level": 0.025} | options))  # type: ignore[arg-type]


def test_the_distribution_of_the_mean_is_that_of_archs_stationary_bootstrap() -> None:
    series = autocorrelated()
    ours = np.concatenate([series[index].mean(axis=1) for index in bootstrap.resamples(720, 24, 4000, 5)])
    theirs = StationaryBootstrap(24, series, seed=6).apply(np.mean, 4000).ravel()
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * theirs.std() / np.sqrt(2000))
    assert ours.std() == pytest.approx(theirs.std(), rel=0.06)
    for q in (0.025, 0.25, 0.75, 0.975):
        assert np.quantile(ours, q) == pytest.approx(np.quantile(theirs, q), abs=0.1 * theirs.std())


@settings(max_examples=30, deadline=None)
@given(n=st.integers(20, 200), block=st.floats(1.0, 10.0), seed=st.integers(0, 99))
def test_a_resample_is_made_of_wrapped_runs_of_the_series(n: int, block: float, seed: int) -> None:
    index = bootstrap.stationary_indices(n, block, 40, np.random.default_rng(seed))
    assert index.shape == (40, n)
    assert set(np.unique(index)) == set(range(n))  # every bar is drawn, first and last included
    restarts = (np.diff(index, axis=1) % n != 1).mean()
    expected = (1 - 1 / n) / block  # a new block may happen to go on where the last ended
    assert restarts == pytest.approx(expected, abs=5 * np.sqrt(expected / (40 * (n - 1))) + 1e-12)


def test_the_same_seed_gives_the_same_p_and_another_seed_nearly_the_same() -> None:
    series = autocorrelated(mean=0.0005)
    assert run(series) == run(series)
    assert run(series).p != run(series, seed=2).p
    assert run(series).p == pytest.approx(run(series, seed=2).p, abs=0.05)


def test_chunks_do_not_change_the_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_CHUNK", 720 * 7)
    assert sum(len(index) for index in bootstrap.resamples(720, 24, 100, 0)) == 100
    assert run(autocorrelated()).samples == 1000


def test_p_is_never_zero_and_falls_as_the_mean_rises() -> None:
    p = [run(autocorrelated(mean=mean)).p for mean in (-0.01, 0.0002, 0.0006, 0.01)]
    assert p == sorted(p, reverse=True)
    assert p[0] > 0.99
    assert p[-1] == 1 / 1001


def test_the_lower_bound_and_p_agree_about_zero() -> None:
    for seed in range(8):
        tested = run(autocorrelated(mean=0.0008, seed=seed), level=0.05)
        assert (tested.lower > 0) == (tested.p < 0.05) or tested.p == pytest.approx(0.05, abs=0.002)


def test_correlated_bars_get_a_wider_error_than_independent_ones() -> None:
    series = autocorrelated(3000)
    naive = series.std() / np.sqrt(3000)
    assert run(series).standard_error > 2 * naive
    shuffled = np.random.default_rng(0).permutation(series)
    assert run(shuffled).standard_error == pytest.approx(naive, rel=0.2)


def test_alpha_is_found_beside_a_market_that_drifts() -> None:
    market = autocorrelated(2160, mean=0.001, seed=3)
    own = autocorrelated(2160, seed=4)
    how = {"block": 24.0, "samples": 500, "seed": 1, "level": 0.025}
    assert alpha_above_zero(0.7 * market + own, market, **how).p > 0.025  # type: ignore[arg-type]
    assert mean_above_zero(0.7 * market + own, **how).p < 0.025  # type: ignore[arg-type]
    found = alpha_above_zero(0.7 * market + own + 0.002, market, **how)  # type: ignore[arg-type]
    assert found.p < 0.01
    assert found.estimate == pytest.approx(0.002, abs=0.0009)


def test_a_copy_of_the_benchmark_has_no_alpha() -> None:
    market = autocorrelated(mean=0.001)
    tested = alpha_above_zero(market, market, block=24, samples=200, seed=0, level=0.025)
    assert (tested.p, tested.estimate) == (1.0, 0.0)


@pytest.mark.parametrize(
    "series", [np.zeros(100), np.full(100, 0.01), np.array([0.1]), np.array([0.1, np.nan, 0.2]), np.ones((10, 2))]
)
def test_what_cannot_be_tested_is_refused(series: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        run(series, block=2.0)


def test_a_window_shorter_than_its_blocks_is_refused_with_the_number_needed() -> None:
    with pytest.raises(InvalidInput, match="at least 49"):
        run(autocorrelated(48))


def test_blocks_are_hours_of_market_time() -> None:
    assert bootstrap.block_bars(24, 8760) == pytest.approx(24)
    assert bootstrap.block_bars(24, 8760 * 12) == pytest.approx(288)
    assert bootstrap.block_bars(24, 365) == 1
