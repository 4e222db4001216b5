from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import plots
from cappuccino.evaluation.arena import standings
from cappuccino.evaluation.evidence import Outcome, evidence
from cappuccino.evaluation.grade import grade, paper_record
from cappuccino.evaluation.report import CandidateReport, ReportInput, TradeMark, TraderReport, TrialPoint, render

HOURS = 8760.0
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects text, tags and attributes, and fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes, self.open = "", [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def trader(name: str = "quick-1", n: int = 720, seed: int = 1) -> TraderReport:
    rng = np.random.default_rng(seed)
    at = 1_720_000_800 + 3600 * np.arange(n)
    market = rng.normal(0.0001, 0.006, n)
    btc = 60_000 * np.cumprod(1 + market)
    hodl, equity = 1e4 * np.cumprod(1 + market), 1e4 * np.cumprod(1 + 0.4 * market + rng.normal(0.0001, 0.002, n))
    trades = [
        TradeMark(at=int(at[k]), symbol="BTC/USD", side="buy" if k % 80 == 0 else "sell", price=float(btc[k]), reason="target")
        for k in range(0, n, 40)
    ]
    paper = paper_record(equity=equity, hodl=hodl, pnl=[2.0, -1.0] * 15, bars_per_year=HOURS, fidelity=0.95)
    return TraderReport(
        name=name,
        role="observer",
        at=at,
        equity=equity,
        hodl=hodl,
        cash=np.full(n, 1e4),
        prices={"BTC/USD": btc},
        trades=trades,
        facts=[("Orders", "36"), ("Fees", "$41.20"), ("Final equity", f"${equity[-1]:,.2f}")],
        grade=grade(paper),
    )


def report(**changes: object) -> ReportInput:
    one = trader()
    base = ReportInput(
        title="Quickstart",
        headline="No candidate passed: two intact ones failed on statistics only and traded as observers.",
        generated_at=datetime(2026, 1, 2, tzinfo=UTC),
        bars_per_year=HOURS,
        facts=[("Trials", "3 complete, 1 failed"), ("Snapshot", "ab12cd34")],
        trials=[
            TrialPoint(number=0, state="Complete", objective=0.4),
            TrialPoint(number=1, state="Pruned", objective=-0.8),
            TrialPoint(number=2, state="Failed", objective=None, reason="no trades"),
            TrialPoint(number=3, state="Complete", objective=1.7),
        ],
        candidates=[
            CandidateReport(
                name="quick-00003",
                digest="f" * 64,
                verdict="Observer",
                evidence=[
                    evidence("integrity", Outcome.PASS, 0.0, 0.0, None, "all files verified.", {}),
                    evidence("window", Outcome.INCONCLUSIVE, 0.21, 0.0125, 7.8, "720 bars detect a Sharpe of 7.8.", {}),
                    evidence("overfitting_pbo", Outcome.INCONCLUSIVE, None, 0.2, None, "shown only.", {"gating": False}),
                ],
            )
        ],
        traders=[one],
        standings=standings({one.name: one.equity, "hodl": one.hodl, "cash": one.cash}, HOURS, seed=1, samples=100),  # type: ignore[dict-item]
        elapsed_seconds=[("data", 4.2), ("search", 61.0), ("paper", 40.5)],
        notes=["The market was generated."],
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_report_is_well_formed_and_needs_nothing_from_outside() -> None:
    html = render(report())
    page = Page(html)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not [value for name, value in page.attributes if name in {"src", "href"}]
    assert "http" not in html
    assert "url(" not in html
    assert len(html) < 300_000


def test_the_report_says_what_was_measured_what_was_asked_and_what_could_be_seen() -> None:
    text = Page(render(report())).text
    for words in ("0.21", "0.0125", "7.8", "Inconclusive", "720 bars detect a Sharpe of 7.8.", "shown only", "Observer"):
        assert words in text
    for words in ("61.0 s", "105.7 s", "Sharpe", "fidelity of fills", "The market was generated.", "ffffffffffff"):
        assert words in text
    assert "719 bars on paper know an annualised Sharpe ratio to about plus or minus 3.5" in text


def test_every_plot_has_the_curves_and_marks_it_should() -> None:
    html = render(report())
    drawn = [ET.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in html.split("<svg")[1:]]
    names = [svg.attrib["aria-label"] for svg in drawn]
    assert names == [
        "Equity of quick-1 in US dollars",
        "Drawdown of quick-1",
        "Price of BTC/USD with trades",
        "Objective of each trial, and the best so far",
    ]
    classes = [[p.attrib["class"] for p in svg.iter("path")] for svg in drawn]
    assert classes[0] == ["line c2", "line c1", "line c0"]
    assert classes[1] == ["line c1", "area c0", "line c0"]
    assert (classes[2].count("mark buy"), classes[2].count("mark sell")) == (9, 9)
    assert [c for c in classes[3] if c.startswith("mark")] == ["mark done", "mark pruned", "mark failed", "mark done"]


def test_every_text_is_escaped() -> None:
    evil = "<script>alert('x')</script>&\""
    one = trader()
    nasty = report(
        title=evil,
        headline=evil,
        facts=[(evil, evil)],
        trials=[TrialPoint(number=0, state=evil, objective=1.0, reason=evil)],
        candidates=[
            CandidateReport(
                name=evil, digest=evil, verdict=evil, evidence=[evidence(evil, Outcome.FAIL, 1.0, 2.0, None, evil, {})]
            )
        ],
        traders=[
            replace(
                one,
                name=evil,
                role=evil,
                prices={evil: one.equity},
                facts=[(evil, evil)],
                trades=[TradeMark(at=int(one.at[5]), symbol=evil, side=evil, price=1e4, reason=evil)],
            )
        ],
        elapsed_seconds=[(evil, 1.0)],
        notes=[evil],
    )
    html = render(nasty)
    assert "<script" not in html
    assert "alert('x')</script>&\"" in Page(html).text


def test_an_empty_run_still_gives_a_readable_report() -> None:
    empty = ReportInput(
        title="Nothing", headline="No trial completed.", generated_at=datetime(2026, 1, 1, tzinfo=UTC), bars_per_year=HOURS
    )
    text = Page(render(empty)).text
    for words in ("No candidate reached the gates.", "Nobody traded.", "No trials.", "What these numbers cannot say"):
        assert words in text


def test_the_same_input_gives_the_same_bytes() -> None:
    assert render(report()) == render(report())


def test_a_curve_that_does_not_fit_its_closes_is_refused_by_name() -> None:
    broken = replace(trader(), hodl=np.full(719, 1e4))
    with pytest.raises(InvalidInput, match="HODL has 719 values for 720 closes"):
        render(report(traders=[broken]))


def test_a_search_in_which_nothing_completed_is_drawn_without_a_best() -> None:
    html = render(report(trials=[TrialPoint(number=0, state="Failed", objective=None)]))
    assert 'class="mark failed"' in html
    assert "inf" not in html.split('id="search"')[1].split("</svg>")[0]


def test_thinning_a_long_curve_keeps_its_spike() -> None:
    values = np.zeros(100_000)
    values[54_321] = 9.0
    svg = str(plots.time_plot(3600 * np.arange(100_000), [plots.Series(label="x", values=values, css="c0")], label="x"))
    flat = str(plots.time_plot(3600 * np.arange(100_000), [plots.Series(label="x", values=values * 0, css="c0")], label="x"))
    heights = {point.split(" ")[1] for point in svg.split(' d="M')[1].split('"')[0].split("L")}
    assert len(heights) == 2
    assert len(svg) < 30_000
    assert flat.count("<path") == 1


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 1.0), (-3.2, 7.7), (9990.0, 10010.0), (1e-6, 2e-6), (5.0, 5.0)])
def test_ticks_are_few_round_and_inside(lo: float, hi: float) -> None:
    ticks = plots.nice_ticks(lo, hi)
    assert 1 <= len(ticks) <= 11
    assert all(lo - 1e-9 <= t <= hi + 1e-9 for t in ticks)
