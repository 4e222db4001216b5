"""The example of fifty trials on real bars runs, with fewer and shorter ones, through to its gates; the file is no part of the
repository."""

from __future__ import annotations

import pytest

from tests.bench.real import measure, summary

from .chain import ROOT

pytestmark = pytest.mark.slow

BARS = ROOT.parent / "shared" / "data" / "crypto-5m-2024-01-07.parquet"


@pytest.mark.skipif(not BARS.exists(), reason=f"{BARS.name} is not beside the checkout")
def test_a_search_on_real_bars_is_judged_on_the_month_that_was_held_back() -> None:
    figures = measure(BARS, fast=True)
    assert sum(figures["states"].values()) == 4
    spent = figures["time"]
    assert spent["workers"] == 2
    assert spent["all"] == pytest.approx(sum(spent[name] for name in ("fit", "judge", "start", "unknown")))
    assert all(trial["reason"] for trial in figures["trials"] if trial["state"] == "Failed")
    complete = figures["states"].get("Complete", 0)
    assert len(figures["candidates"]) == min(3, complete)
    for candidate in figures["candidates"]:
        assert candidate["window"]["bars"] == candidate["hodl"]["bars"] == 31 * 288 - 1  # from the first close of July on
        assert candidate["gates"]["window"]["message"]
    shown = [row[0] for _, rows in summary(figures).tables[1:2] for row in rows]
    assert shown == ([f"trial {each['trial']}" for each in figures["candidates"]] + ["HODL"] if complete else [])
