from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars
from cappuccino.market.quality import dense
from cappuccino.market.resample import align, closed_before, resample

FIVE, HOUR, FOUR, DAY = (Timeframe.parse(name) for name in ("5m", "1h", "4h", "1d"))


def panel(candles, *, missing=(), first=0, timeframe=FIVE) -> Bars:
    """One symbol from rows of (open, high, low, close, volume)."""
    table = np.array(candles, dtype=np.float64).reshape(-1, 5)
    columns = {name: table[:, [i]] for i, name in enumerate(("open", "high", "low", "close", "volume"))}
    gone = np.zeros((len(table), 1), dtype=bool)
    gone[list(missing)] = True
    ts = first + timeframe.seconds * np.arange(len(table), dtype=np.int64)
    return Bars(symbols=("A/USD",), timeframe=timeframe, ts=ts, missing=gone, **columns)


def real_panel(rows, timeframe) -> Bars:
    first, last = int(rows["ts"].min()), int(rows["ts"].max())
    return dense(rows, sorted(rows["symbol"].unique()), timeframe, first, last + timeframe.seconds)


@pytest.mark.parametrize("coarse", ["15m", "1h"])
def test_real_five_minute_bars_give_the_coarser_files(real_rows, coarse):
    made = resample(real_panel(real_rows("5m"), FIVE), Timeframe.parse(coarse))
    given_ = real_panel(real_rows(coarse), Timeframe.parse(coarse))
    assert np.array_equal(made.ts, given_.ts)
    for name in ("open", "high", "low", "close"):
        assert np.array_equal(getattr(made, name), getattr(given_, name)), name
    np.testing.assert_allclose(made.volume, given_.volume, rtol=1e-14, atol=0)
    assert not made.missing.any()


def test_real_bars_have_no_gaps(real_rows):
    for timeframe in ("1h", "15m", "5m"):
        assert not real_panel(real_rows(timeframe), Timeframe.parse(timeframe)).missing.any()


def test_resampling_in_two_steps_is_resampling_in_one(real_rows):
    hours = real_panel(real_rows("1h"), HOUR)
    once, twice = resample(hours, DAY), resample(resample(hours, FOUR), DAY)
    assert np.array_equal(once.ts, twice.ts)
    assert np.array_equal(once.high, twice.high)
    assert len(once) == len(hours) // 24
    np.testing.assert_allclose(once.volume, twice.volume, rtol=1e-12)


def test_a_bucket_is_open_first_high_max_low_min_close_last_volume_sum():
    made = resample(panel([(10, 11, 9, 10.5, 1), (10.5, 14, 10, 13, 2), (13, 13, 8, 9, 3)]), Timeframe.parse("15m"))
    assert [float(getattr(made, name)[0, 0]) for name in ("open", "high", "low", "close", "volume")] == [10, 14, 8, 9, 6]


@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 40), count=st.integers(0, 60))
def test_only_complete_buckets_are_given(first, count):
    made = resample(panel([(1, 1, 1, 1, 1)] * count, first=first * 300), HOUR)
    complete = [h for h in range(20) if first <= h * 12 and (h + 1) * 12 <= first + count]
    assert made.ts.tolist() == [h * 3600 for h in complete]
    assert np.all(made.volume == 12)


def test_bars_that_the_source_did_not_have_count_for_nothing():
    flat = (10, 10, 10, 10, 0)
    made = resample(panel([flat, (20, 21, 19, 20, 5), (20, 20, 20, 20, 0)], missing=[0, 2]), Timeframe.parse("15m"))
    assert (made.open[0, 0], made.high[0, 0], made.low[0, 0], made.close[0, 0]) == (20, 21, 19, 20)
    assert not made.missing[0, 0]


def test_a_bucket_without_any_bar_is_missing_and_flat():
    made = resample(panel([(10, 10, 10, 10, 0)] * 3, missing=[0, 1, 2]), Timeframe.parse("15m"))
    assert made.missing[0, 0]
    assert (made.open[0, 0], made.high[0, 0], made.low[0, 0], made.close[0, 0]) == (10, 10, 10, 10)


@pytest.mark.parametrize(("have", "want"), [("1h", "5m"), ("4h", "30m")])
def test_a_finer_timeframe_than_the_bars_is_refused(have, want):
    bars = panel([(1, 1, 1, 1, 1)] * 3, timeframe=Timeframe.parse(have))
    with pytest.raises(InvalidInput, match=f"bars of {have} cannot give {want}"):
        resample(bars, Timeframe.parse(want))


@settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 30), count=st.integers(1, 80))
def test_a_fine_bar_sees_only_coarse_bars_that_have_closed(first, count):
    fine = panel([(1, 1, 1, 1, 1)] * count, first=first * 300)
    coarse = resample(fine, HOUR)
    seen = align(coarse.close_ts.astype(float), coarse=coarse, fine=fine)
    for close_ts, index, value in zip(fine.close_ts, closed_before(coarse, fine), seen, strict=True):
        closed = [ts for ts in coarse.close_ts if ts <= close_ts]
        assert index == len(closed) - 1
        assert np.isnan(value) if not closed else value == closed[-1]


def test_alignment_keeps_the_trailing_axes():
    fine = panel([(1, 1, 1, 1, 1)] * 24)
    coarse = resample(fine, HOUR)
    assert align(np.ones((2, 3, 4)), coarse=coarse, fine=fine).shape == (24, 3, 4)
