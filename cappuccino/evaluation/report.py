"""The report of a run: one HTML file that needs nothing else.

It shows what was searched, which gate stopped which candidate and by how much, what each trader did on paper against
HODL and cash, its grade term by term, where the time went, and what the numbers cannot say. `render` is pure: the same
input gives the same bytes; every text is escaped; plots are inline SVG; there is no script and no outside resource.

Units: equity in US dollars at closes, times in epoch seconds (UTC), elapsed time in wall seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import metrics, plots
from cappuccino.evaluation.arena import Standing
from cappuccino.evaluation.evidence import Evidence
from cappuccino.evaluation.grade import Grade

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CAVEATS = (
    "The best of several trials looks better than it is, because it was chosen for looking good. "
    "DSR and PBO measure by how much; the gate window, which the search never saw, is the control.",
    "Inconclusive is not a pass. It says that these bars cannot tell skill from luck; "
    "the minimum detectable Sharpe says how large an edge would have to be for them to tell.",
    "Paper is not live. Fills are modelled, nobody trades against you, and the order book has no depth.",
    "The past window is one draw of the market. Symbols chosen today survived until today.",
    "A grade describes a paper record. It promotes nobody, and neither does a place among the top three.",
)


@dataclass(frozen=True, kw_only=True)
class TrialPoint:
    """One trial of the search; `objective` is None unless it completed or was pruned with a value."""

    number: int
    state: str  # Complete, Infeasible, Pruned, Failed, ...
    objective: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class TradeMark:
    """One fill on the price. `side` is buy or sell."""

    at: int
    symbol: str
    side: str
    price: float
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class CandidateReport:
    name: str
    digest: str
    verdict: str
    evidence: Sequence[Evidence]


@dataclass(frozen=True, kw_only=True, eq=False)
class TraderReport:
    """at: [T] closes. equity, hodl, cash: [T] US dollars; a baseline that did not run is None.

    prices: by symbol, [T] closes for the trades to stand on. facts: label and text, shown as they are.
    """

    name: str
    role: str
    at: IntArray
    equity: FloatArray
    hodl: FloatArray | None = None
    cash: FloatArray | None = None
    prices: Mapping[str, FloatArray] = field(default_factory=dict)
    trades: Sequence[TradeMark] = ()
    facts: Sequence[tuple[str, str]] = ()
    grade: Grade | None = None


@dataclass(frozen=True, kw_only=True)
class ReportInput:
    """`headline` is one honest sentence about the run; `facts` are labels and texts of its summary."""

    title: str
    headline: str
    generated_at: datetime
    bars_per_year: float
    facts: Sequence[tuple[str, str]] = ()
    trials: Sequence[TrialPoint] = ()
    candidates: Sequence[CandidateReport] = ()
    traders: Sequence[TraderReport] = ()
    standings: Sequence[Standing] = ()
    elapsed_seconds: Sequence[tuple[str, float]] = ()
    notes: Sequence[str] = ()


def render(report: ReportInput) -> str:
    """The report as one HTML document.

    Raises:
        InvalidInput: a trader's curves and closes differ in length, or it has fewer than 2 closes.
    """
    total = sum(seconds for _, seconds in report.elapsed_seconds)
    return _template().render(
        report=report,
        generated=iso(report.generated_at),
        search=_search_plot(report.trials),
        traders=[_trader(trader) for trader in report.traders],
        stages=[(name, seconds, seconds / total if total > 0 else 0.0) for name, seconds in report.elapsed_seconds],
        total=total,
        caveats=[*_power_caveat(report), *CAVEATS, *report.notes],
    )


def _trader(trader: TraderReport) -> dict[str, Any]:
    curves = {"equity": trader.equity, "HODL": trader.hodl, "cash": trader.cash, **trader.prices}
    for name, values in curves.items():
        if values is not None and (len(values) != len(trader.at) or len(values) < 2):
            raise InvalidInput(
                f"trader {trader.name}: {name} has {len(values)} values for {len(trader.at)} closes;"
                " give one per close, and at least 2"
            )
    lines = [
        plots.Series(label=label, values=values, css=css)
        for label, values, css in (("cash", trader.cash, "c2"), ("HODL", trader.hodl, "c1"), (trader.name, trader.equity, "c0"))
        if values is not None
    ]
    falls = [
        plots.Series(label=f"drawdown of {s.label}", values=-metrics.drawdown(s.values), css=s.css, area=s.css == "c0")
        for s in lines
        if s.css != "c2"
    ]
    return {
        "of": trader,
        "period": f"{iso(from_epoch(float(trader.at[0])))} to {iso(from_epoch(float(trader.at[-1])))}",
        "legend": [(s.label, s.css) for s in reversed(lines)],
        "equity": plots.time_plot(trader.at, lines, label=f"Equity of {trader.name} in US dollars"),
        "drawdown": plots.time_plot(
            trader.at, falls, label=f"Drawdown of {trader.name}", height=120, number=lambda v: f"{v:.1%}"
        ),
        "prices": [(symbol, *_price_plot(trader, symbol)) for symbol in trader.prices],
    }


def _price_plot(trader: TraderReport, symbol: str) -> tuple[Markup, int]:
    trades = [trade for trade in trader.trades if trade.symbol == symbol]
    marks = [
        plots.Mark(
            x=trade.at,
            y=trade.price,
            css="buy" if trade.side == "buy" else "sell",
            shape="up" if trade.side == "buy" else "down",
            title=f"{trade.side} at {trade.price:g}, {iso(from_epoch(trade.at))} {trade.reason}".strip(),
        )
        for trade in trades
        if trader.at[0] <= trade.at <= trader.at[-1]
    ]
    price = plots.Series(label=symbol, values=trader.prices[symbol], css="price")
    drawn = plots.time_plot(
        trader.at, (price,), label=f"Price of {symbol} with trades", height=170, marks=marks, number=lambda v: f"{v:,.6g}"
    )
    return drawn, len(marks)


def _search_plot(trials: Sequence[TrialPoint]) -> Markup | None:
    if not trials:
        return None
    ordered = sorted(trials, key=lambda trial: trial.number)
    complete = [t.objective if t.state == "Complete" and t.objective is not None else -np.inf for t in ordered]
    best = np.maximum.accumulate(np.array(complete, dtype=np.float64))
    values = [t.objective for t in ordered if t.objective is not None]
    floor = min(values, default=0.0)  # trials without a value stand on the bottom line
    marks = [
        plots.Mark(
            x=t.number,
            y=floor if t.objective is None else t.objective,
            css={"Complete": "done", "Pruned": "pruned"}.get(t.state, "failed"),
            shape="dot" if t.state == "Complete" else "down",
            title=_trial_title(t),
        )
        for t in ordered
    ]
    numbers = np.array([t.number for t in ordered], dtype=np.float64)
    return plots.history_plot(numbers, best, marks, label="Objective of each trial, and the best so far")


def _trial_title(trial: TrialPoint) -> str:
    value = "no value" if trial.objective is None else f"{trial.objective:.3f}"
    return f"trial {trial.number}: {trial.state}, {value} {trial.reason}".strip()


def _power_caveat(report: ReportInput) -> list[str]:
    if not report.traders:
        return []
    bars = max(len(trader.at) for trader in report.traders) - 1
    needed = metrics.minimum_detectable_sharpe(bars, report.bars_per_year, alpha=0.05)
    error = (report.bars_per_year / bars) ** 0.5
    return [
        f"{bars} bars on paper know an annualised Sharpe ratio to about plus or minus {error:.1f}; "
        f"only one above {needed:.1f} would differ from zero at the 5 % level."
    ]


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4g}"
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    return environment.from_string((files("cappuccino.evaluation") / "report.html.j2").read_text(encoding="utf-8"))
