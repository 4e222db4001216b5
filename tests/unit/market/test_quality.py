from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.quality import Gap, Limits, check, judge
from cappuccino.market.source import SCHEMA

HOUR, MINUTE = Timeframe.parse("1h"), Timeframe.parse("1m")
GOOD = (100.0, 101.0, 99.0, 100.5, 10.0)


def rows(candles, *, symbol="A/USD", timeframe=HOUR, stamps=None) -> pl.DataFrame:
    """Candles (o, h, l, c, v) at consecutive open times, or at `stamps` in bars."""
    stamps = range(len(candles)) if stamps is None else stamps
    table = [(symbol, round(t * timeframe.seconds), *candle) for t, candle in zip(stamps, candles, strict=True)]
    return pl.DataFrame(table, schema=SCHEMA, orient="row")


def problems(raw, timeframe=HOUR, **limits):
    """[(bar, problem, action)] and the accepted bars' indices."""
    accepted, findings = judge(raw, timeframe, Limits(**limits))
    found = [(f.ts / timeframe.seconds, f.problem, f.action) for f in findings]
    return found, [ts // timeframe.seconds for ts in accepted["ts"]]


@pytest.mark.parametrize(
    ("candle", "problem"),
    [
        ((100, 99, 101, 100, 1), "ohlc"),
        ((100, 101, 99, 102, 1), "ohlc"),
        ((98, 101, 99, 100, 1), "ohlc"),
        ((0, 101, 0, 100, 1), "not_positive"),
        ((100, 101, -5, 100, 1), "not_positive"),
        ((100, 101, 99, math.nan, 1), "not_finite"),
        ((100, math.inf, 99, 100, 1), "not_finite"),
        ((100, 101, 99, 100, math.nan), "not_finite"),
        ((100, 101, 99, 100, None), "not_finite"),
        ((100, 101, 99, 100, -1), "negative_volume"),
    ],
)
def test_a_wrong_bar_is_refused_and_its_neighbours_are_not(candle, problem):
    found, accepted = problems(rows([GOOD, candle, GOOD]))
    assert found == [(1, problem, "refused")]
    assert accepted == [0, 2]


def test_stamps_off_the_grid_are_refused():
    found, accepted = problems(rows([GOOD] * 3, stamps=[0, 0.5, 2]))
    assert found == [(0.5, "off_grid", "refused")]
    assert accepted == [0, 2]


def test_the_same_row_twice_is_kept_once_and_flagged():
    found, accepted = problems(rows([GOOD] * 3, stamps=[0, 1, 1]))
    assert found == [(1, "duplicate", "flagged")]
    assert accepted == [0, 1]


def test_the_same_open_time_with_other_values_is_refused_altogether():
    found, accepted = problems(rows([GOOD, GOOD, (50.0, 51.0, 49.0, 50.0, 1.0)], stamps=[0, 1, 1]))
    assert found == [(1, "conflict", "refused")] * 2
    assert accepted == [0]


def test_unordered_rows_are_sorted_and_flagged():
    found, accepted = problems(rows([GOOD] * 3, stamps=[0, 2, 1]))
    assert found == [(1, "unordered", "flagged")]
    assert accepted == [0, 1, 2]


def test_a_spike_there_and_back_within_a_minute_is_refused():
    found, accepted = problems(rows([GOOD, (1000, 1001, 999, 1000, 1), GOOD], timeframe=MINUTE), MINUTE)
    assert found == [(1, "impossible_move", "refused")]
    assert accepted == [0, 2]


def test_a_range_of_more_than_half_within_a_minute_is_refused():
    found, _ = problems(rows([GOOD, (100, 101, 40, 100, 1), GOOD], timeframe=MINUTE), MINUTE)
    assert found == [(1, "impossible_move", "refused")]


def test_a_new_level_that_lasts_is_flagged_and_kept():
    high = tuple(10 * x for x in GOOD)
    found, accepted = problems(rows([GOOD, GOOD, high, high], timeframe=MINUTE), MINUTE)
    assert found == [(2, "level_shift", "flagged")]
    assert accepted == [0, 1, 2, 3]


def test_a_move_below_the_limit_or_in_an_hour_is_possible():
    wild = (100.0, 160.0, 70.0, 100.0, 1.0)
    assert problems(rows([GOOD, wild, GOOD]))[0] == []
    assert problems(rows([GOOD, wild, GOOD], timeframe=MINUTE), MINUTE, max_move=2.0)[0] == []
    assert problems(rows([GOOD, wild, GOOD], timeframe=MINUTE), MINUTE)[0] == [(1, "impossible_move", "refused")]


def test_missing_bars_are_flat_at_the_last_close_and_flagged():
    bars, report = check(rows([GOOD, GOOD], stamps=[0, 3]), ["A/USD"], HOUR, end=5 * 3600, limits=Limits(min_coverage=0.1))
    assert bars.missing[:, 0].tolist() == [False, True, True, False, True]
    for name in ("open", "high", "low", "close"):
        assert getattr(bars, name)[[1, 2, 4], 0].tolist() == [100.5] * 3
    assert bars.volume[:, 0].tolist() == [10, 0, 0, 10, 0]
    assert report.gaps == (Gap(symbol="A/USD", start=3600, end=3 * 3600), Gap(symbol="A/USD", start=4 * 3600, end=5 * 3600))


def test_a_symbol_listed_later_is_flat_at_its_first_open_and_covered_from_there():
    raw = pl.concat([rows([GOOD] * 6, symbol="A/USD"), rows([GOOD] * 3, symbol="B/USD", stamps=[3, 4, 5])])
    bars, report = check(raw, ["A/USD", "B/USD"], HOUR, end=6 * 3600)
    assert report.coverage == {"A/USD": 1.0, "B/USD": 1.0}
    assert bars.missing[:, 1].tolist() == [True] * 3 + [False] * 3
    assert bars.close[:3, 1].tolist() == [100.0] * 3
    assert report.gaps == ()


def test_a_bad_symbol_is_quarantined_with_the_reason_and_the_others_go_on():
    nan = (math.nan,) * 5
    raw = pl.concat([rows([GOOD] * 10), rows([GOOD] * 5 + [nan] * 5, symbol="B/USD")])
    bars, report = check(raw, ["B/USD", "A/USD", "C/USD"], HOUR, end=10 * 3600)
    assert bars.symbols == ("A/USD",)
    assert report.quarantined == {
        "B/USD": "coverage 50.0% (5 of 10 bars) is below 95.0%; 5 bars were refused, the first: B/USD 1970-01-01T05:00:00Z: "
        "not_finite (open nan, high nan, low nan, close nan, volume nan), refused",
        "C/USD": "the source has no usable bars",
    }
    assert report.counts() == {"not_finite": 5}


def test_nothing_but_bad_symbols_is_refused_with_every_reason():
    with pytest.raises(InvalidInput, match=r"every symbol is quarantined: A/USD: coverage 20\.0%.*; B/USD: the source has no"):
        check(rows([GOOD] * 2), ["A/USD", "B/USD"], HOUR, end=10 * 3600)


def test_bars_that_have_not_closed_are_not_looked_at():
    bars, _ = check(rows([GOOD, GOOD, (math.nan,) * 5]), ["A/USD"], HOUR, end=2 * 3600)
    assert len(bars) == 2


candle = st.tuples(*[st.sampled_from([100.0, 101.0, 99.0, 0.0, -1.0, math.nan, 1e9])] * 5)


@settings(max_examples=60, deadline=None)
@given(candles=st.lists(st.tuples(st.sampled_from([0, 1, 1.5, 2, 3, 4, 5, 6, 7]), candle), min_size=1, max_size=25))
def test_what_is_accepted_is_clean_and_every_other_bar_is_accounted_for(candles):
    raw = rows([GOOD, *(c for _, c in candles)], stamps=[9, *(t for t, _ in candles)], timeframe=MINUTE)
    accepted, findings = judge(raw, MINUTE, Limits())
    refused = sum(f.action == "refused" for f in findings)
    again = sum(f.problem == "duplicate" for f in findings)
    assert len(accepted) + refused + again == len(raw)
    assert accepted["ts"].is_unique().all()
    bars, _ = check(raw, ["A/USD"], MINUTE, end=600, limits=Limits(min_coverage=0))
    for name in ("open", "high", "low", "close"):
        column = getattr(bars, name)
        assert np.all(np.isfinite(column) & (column > 0))
        assert np.all((bars.low <= column) & (column <= bars.high))
    assert np.all(bars.volume >= 0)


def test_the_shared_real_bars_are_clean(real_rows):
    for timeframe in ("1h", "15m", "5m"):
        frame = real_rows(timeframe)
        end = int(frame["ts"].max()) + Timeframe.parse(timeframe).seconds
        bars, report = check(frame, sorted(frame["symbol"].unique()), Timeframe.parse(timeframe), end=end)
        assert (report.counts(), report.gaps, report.quarantined) == ({}, (), {})
        assert set(report.coverage.values()) == {1.0}
        assert not bars.missing.any()
