"""The Markdown of docs/learning.md's results, from the figures that `make learn` leaves: one column a market."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.bench.report import table
from tests.learning.markets import COSTLY

OPTIMUM, PPO, OPTIMUM_STOPPED, PPO_AWARE, PPO_UNAWARE = (
    "optimum: predicted, executed",
    "PPO",
    "optimum traded with barriers",
    "PPO trained and traded with barriers",
    "PPO trained without, traded with: never done",
)
OPTIMUM_IN_CASH, PPO_IN_CASH = "optimum: exposure", "PPO: exposure"
Row = Mapping[str, Any]


def markdown(found: Mapping[str, Any]) -> str:
    rows: dict[tuple[str, str], Row] = {(row["market"], row["what"]): row for row in found["rows"]}
    markets = [market for market, what in rows if what == OPTIMUM]
    lines: list[tuple[str, str, str, Callable[[Row], str]]] = [
        ("optimum: growth predicted, bps a bar", "", OPTIMUM, lambda row: f"{row['predicted_bps']:.2f}"),
        ("executed [over paths]", "", OPTIMUM, lambda row: _interval(row["executed_bps"], 2)),
        ("its exposure; turnover a bar", "", OPTIMUM, lambda row: f"{row['exposure']:.2f}; {row['turnover']:.3f}"),
        ("**PPO: share of it [over seeds]**", "", PPO, lambda row: f"**{_interval(row['interval'], 3)}**"),
        ("each seed", "", PPO, lambda row: " ".join(f"{score:.3f}" for score in row["scores"])),
        ("standard error of the paths", "", PPO, lambda row: f"{row['paths_error']:.3f}"),
        ("its exposure; turnover a bar", "", PPO, _activity),
        ("with barriers: optimum, traded through them", "", OPTIMUM_STOPPED, lambda row: f"{row['interval']['mean']:.3f}"),
        ("PPO trained and traded with them", "", PPO_AWARE, lambda row: _interval(row["interval"], 3)),
        ("PPO trained without, traded with: never done", "", PPO_UNAWARE, lambda row: _interval(row["interval"], 3)),
        ("costly: the optimum's exposure", COSTLY, OPTIMUM_IN_CASH, lambda row: row["shown"]),
        ("PPO's exposure [over seeds]", COSTLY, PPO_IN_CASH, lambda row: _interval(row["exposure"], 4)),
        ("its growth, bps a bar", COSTLY, PPO_IN_CASH, lambda row: _interval(row["growth_bps"], 3)),
    ]
    return table(
        ("", *markets), [(label, *(show(rows[market + kind, what]) for market in markets)) for label, kind, what, show in lines]
    )


def _activity(row: Row) -> str:
    return f"{_mean(row['exposure']):.2f}; {_mean(row['turnover']):.3f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(interval: Mapping[str, float], digits: int) -> str:
    return f"{interval['mean']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"
