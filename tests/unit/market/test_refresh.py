from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.generator import ORIGIN, GeneratorBars, GeneratorConfig
from cappuccino.market.quality import Gap, Limits
from cappuccino.market.refresh import refresh
from cappuccino.market.store import read

HOUR = Timeframe.parse("1h")
SYMBOLS = ("BTC/USD", "ETH/USD")


def at(bar: int) -> int:
    return ORIGIN + bar * 3600


class Patchy:
    """The generator's bars, less what is `hidden`, with `revised` closes; `asked` records every request in bars."""

    def __init__(self, *, hidden=(), revised=None, known_end=None) -> None:
        self.hidden = set(hidden)
        self.revised = dict(revised or {})
        self.known_end = known_end
        self.asked: list[tuple[tuple[str, ...], int, int]] = []
        self._market = GeneratorBars(config=GeneratorConfig(seed=5))

    def available(self, symbols, timeframe):
        return {} if self.known_end is None else {symbol: (ORIGIN, at(self.known_end)) for symbol in symbols}

    def fetch(self, symbols, timeframe, start, end):
        self.asked.append((tuple(symbols), (start - ORIGIN) // 3600, (end - ORIGIN) // 3600))
        rows = self._market.fetch(symbols, timeframe, start, end)
        if self.known_end is not None:
            rows = rows.filter(pl.col("ts") < at(self.known_end))
        for symbol, bar in self.hidden:
            rows = rows.filter((pl.col("symbol") != symbol) | (pl.col("ts") != at(bar)))
        for (symbol, bar), factor in self.revised.items():
            here = (pl.col("symbol") == symbol) & (pl.col("ts") == at(bar))
            prices = ("open", "high", "low", "close")
            rows = rows.with_columns(
                pl.when(here).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name) for name in prices
            )
        return rows


def run(source, blobs, *, now, previous=None, start=0, symbols=SYMBOLS, **options):
    options.setdefault("limits", Limits(min_coverage=0.5))
    previous = previous.manifest if previous else None
    return refresh(
        source, blobs, symbols=symbols, timeframe=HOUR, start=at(start), now=now, previous=previous, overlap_bars=10, **options
    )


def test_only_closed_bars_are_taken(blobs):
    made = run(Patchy(), blobs, now=at(100) + 3599)
    assert made.manifest["last_ts"] == at(99)


def test_a_second_refresh_of_the_same_bars_changes_and_writes_nothing(blobs):
    first = run(Patchy(hidden=[("BTC/USD", 20), ("ETH/USD", 95)]), blobs, now=at(100))
    blobs.writes.clear()
    again = run(Patchy(hidden=[("BTC/USD", 20), ("ETH/USD", 95)]), blobs, now=at(100) + 1800, previous=first)
    assert again.digest == first.digest
    assert not again.changed
    assert blobs.writes == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stops=st.lists(st.integers(30, 1500), min_size=1, max_size=5),
    hidden=st.sets(st.tuples(st.sampled_from(SYMBOLS), st.integers(1, 1400)), max_size=6),
)
def test_many_small_refreshes_arrive_at_the_snapshot_of_one_large_one(blobs, stops, hidden):
    previous = None
    for stop in sorted(stops):
        previous = run(Patchy(hidden=hidden), blobs, now=at(stop), previous=previous)
    assert previous.digest == run(Patchy(hidden=hidden), blobs, now=at(max(stops))).digest


def test_a_refresh_asks_for_the_overlap_and_on_only(blobs):
    first = run(Patchy(), blobs, now=at(100))
    source = Patchy()
    second = run(source, blobs, now=at(130), previous=first)
    assert source.asked == [(SYMBOLS, 89, 130)]
    assert second.changed
    assert second.manifest["last_ts"] == at(129)


def test_months_that_did_not_change_are_not_written_again(blobs):
    first = run(Patchy(), blobs, now=at(1000))
    assert first.partitions_written == 4
    second = run(Patchy(), blobs, now=at(1010), previous=first)
    assert second.partitions_written == 2
    assert second.manifest["partitions"][0] == first.manifest["partitions"][0]


def test_a_gap_that_the_source_has_by_now_is_healed(blobs):
    hidden = [("BTC/USD", 95), ("BTC/USD", 96)]
    first = run(Patchy(hidden=hidden), blobs, now=at(100))
    assert first.manifest["gaps"] == [{"symbol": "BTC/USD", "start": at(95), "end": at(97), "state": "open"}]
    second = run(Patchy(), blobs, now=at(100), previous=first)
    assert second.healed == (Gap(symbol="BTC/USD", start=at(95), end=at(97)),)
    assert second.manifest["gaps"] == []
    assert not read(blobs, second.manifest).missing.any()


def test_an_open_gap_that_falls_behind_the_overlap_is_asked_for_by_itself(blobs):
    first = run(Patchy(hidden=[("BTC/USD", 95)]), blobs, now=at(100))
    source = Patchy()
    second = run(source, blobs, now=at(300), previous=first, start=0)
    assert second.manifest["gaps"] == []
    first = run(Patchy(hidden=[("ETH/USD", 50)]), blobs, now=at(100))
    late = Patchy(hidden=[("ETH/USD", 50)])
    run(late, blobs, now=at(300), previous=first)
    assert late.asked == [(SYMBOLS, 89, 300)]


def test_a_gap_that_the_source_has_not_is_remembered_and_not_asked_for_again(blobs):
    hidden = [("BTC/USD", 40), ("BTC/USD", 41), ("BTC/USD", 60)]
    source = Patchy(hidden=hidden)
    first = run(source, blobs, now=at(100))
    assert source.asked == [(SYMBOLS, 0, 100), (("BTC/USD",), 40, 61)]
    assert [gap["state"] for gap in first.manifest["gaps"]] == ["unfillable", "unfillable"]
    source = Patchy(hidden=hidden)
    second = run(source, blobs, now=at(120), previous=first)
    assert source.asked == [(SYMBOLS, 89, 120)]
    assert second.manifest["gaps"] == first.manifest["gaps"]
    assert read(blobs, second.manifest).missing[:, 0].nonzero()[0].tolist() == [40, 41, 60]


def test_a_gap_that_a_second_request_fills_is_healed_at_once(blobs):
    class Forgetful(Patchy):
        def fetch(self, symbols, timeframe, start, end):
            self.hidden = {("BTC/USD", 40)} if not self.asked else set()
            return super().fetch(symbols, timeframe, start, end)

    made = run(Forgetful(), blobs, now=at(100))
    assert made.healed == (Gap(symbol="BTC/USD", start=at(40), end=at(41)),)
    assert made.manifest["gaps"] == []


def test_a_changed_historical_bar_is_taken_over_and_reported(blobs):
    first = run(Patchy(), blobs, now=at(100))
    second = run(Patchy(revised={("ETH/USD", 95): 1.001}), blobs, now=at(100), previous=first)
    (revision,) = second.revised
    assert (revision.symbol, revision.ts) == ("ETH/USD", at(95))
    assert set(revision.changed) == {"open", "high", "low", "close"}
    stored, now = revision.changed["close"]
    assert now == stored * 1.001
    assert second.digest != first.digest
    assert read(blobs, second.manifest).close[95, 1] == now
    assert read(blobs, first.manifest).close[95, 1] == stored


def test_a_refused_bar_never_replaces_one_that_was_accepted(blobs):
    first = run(Patchy(), blobs, now=at(100))
    second = run(Patchy(revised={("ETH/USD", 95): -1.0}), blobs, now=at(100), previous=first)
    assert second.report.counts() == {"not_positive": 1}
    assert second.revised == ()
    assert second.digest == first.digest


def test_one_bad_symbol_is_quarantined_and_comes_back_when_it_is_good(blobs):
    hidden = {("ETH/USD", bar) for bar in range(10, 100)}
    first = run(Patchy(hidden=hidden), blobs, now=at(100))
    assert first.manifest["symbols"] == ["BTC/USD"]
    assert first.manifest["quarantined"][0]["symbol"] == "ETH/USD"
    assert "coverage 10.0%" in first.manifest["quarantined"][0]["reason"]
    second = run(Patchy(), blobs, now=at(110), previous=first)
    assert second.manifest["symbols"] == list(SYMBOLS)
    assert second.manifest["quarantined"] == []
    assert second.manifest["coverage"] == {"BTC/USD": 1.0, "ETH/USD": 1.0}


def test_a_new_symbol_is_fetched_from_the_start(blobs):
    first = run(Patchy(), blobs, now=at(100), symbols=("BTC/USD",))
    source = Patchy()
    second = run(source, blobs, now=at(101), previous=first)
    assert source.asked == [(("ETH/USD",), 0, 101), (("BTC/USD",), 89, 101)]
    assert second.digest == run(Patchy(), blobs, now=at(101)).digest


def test_a_moved_start_trims_or_fetches_what_came_before(blobs):
    whole, late = run(Patchy(), blobs, now=at(100)), run(Patchy(), blobs, now=at(100), start=50)
    assert run(Patchy(), blobs, now=at(100), start=50, previous=whole).digest == late.digest
    source = Patchy()
    assert run(source, blobs, now=at(100), previous=late).digest == whole.digest
    assert source.asked == [(SYMBOLS, 89, 100), (SYMBOLS, 0, 50)]


def test_a_source_that_ends_sets_the_end(blobs):
    made = run(Patchy(known_end=80), blobs, now=at(5000))
    assert made.manifest["last_ts"] == at(79)
    assert made.manifest["coverage"] == {"BTC/USD": 1.0, "ETH/USD": 1.0}


def test_an_end_in_the_past_closes_the_dataset(blobs):
    assert run(Patchy(), blobs, now=at(100), end=at(60)).manifest["last_ts"] == at(59)


def test_a_range_without_a_closed_bar_is_refused(blobs):
    with pytest.raises(InvalidInput, match="no 1h bar from 2024-01-05T04:00:00Z has closed by 2024-01-05T04:00:00Z"):
        run(Patchy(), blobs, now=at(100) + 3599, start=100)


def test_a_source_that_is_away_leaves_everything_as_it_was(blobs):
    class Away(Patchy):
        def fetch(self, symbols, timeframe, start, end):
            raise RetryLater("away")

    first = run(Patchy(), blobs, now=at(100))
    blobs.writes.clear()
    with pytest.raises(RetryLater):
        run(Away(), blobs, now=at(120), previous=first)
    assert blobs.writes == []
