"""What a demo shows while it runs: a live table on a terminal, one line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cappuccino.controllers.rows import AccountActivity
from cappuccino.entrypoints.summary import Summary

STAGES = ("services", "data", "search", "gates", "paper", "grade")
Status = Mapping[str, Any]


class Display:
    """One line per stage with what it has reached; the traders below while they trade."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._lines: dict[str, str] = {}
        self._share: dict[str, float] = {}
        self._elapsed: dict[str, float] = {}
        self._stage, self._since = "", time.monotonic()
        self._traders: Sequence[Status] = ()
        self._activity: Mapping[str, AccountActivity] = {}
        self._live: Live | None = None
        self._printed = ""

    def stage(self, name: str) -> None:
        self._close()
        self._stage, self._since = name, time.monotonic()
        self._set(name, self._lines.get(name, "…"))

    def _close(self) -> None:
        if self._stage:
            self._elapsed[self._stage] = time.monotonic() - self._since
            self._share[self._stage] = 1.0

    def data(self, status: Status) -> None:
        self._set("data", f"{status.get('bars') or 0} bars, {status.get('gaps') or 0} gaps")

    def search(self, status: Status, spec: Status) -> None:
        counts, best = status.get("trials") or {}, status.get("best")
        total = spec["budget"]["trials"]
        done = sum(counts.get(state, 0) for state in ("complete", "pruned", "failed"))
        text = f"{done} of {total} trials, {counts.get('running', 0)} running, {counts.get('failed', 0)} failed"
        self._set("search", text + (f", best Sharpe {best['objective']:.2f}" if best else ""), done / total)

    def gates(self, status: Status) -> None:
        ready = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), None)
        self._set("gates", ready["message"] if ready else "…")

    def paper(self, traders: Sequence[Status], activity: Mapping[str, AccountActivity], state: Status) -> None:
        self._traders, self._activity = traders, activity
        bar, bars = state.get("bar", 0), state.get("bars", 0) or 1
        if state.get("started"):
            self._set("paper", f"bar {bar} of {bars}, market time {str(state.get('market_at', ''))[:16]}", bar / bars)
        else:
            self._set("paper", f"{len(state.get('sessions', ()))} of {len(traders)} traders have joined the exchange")

    def _set(self, stage: str, text: str, share: float | None = None) -> None:
        self._lines[stage] = text
        if share is not None:
            self._share[stage] = share
        if self._live is not None:
            self._live.update(self._render())
        elif (line := f"{stage}: {text}") != self._printed and self._worth_a_line(share):
            self._console.print(line, highlight=False, markup=False)
            self._printed = line

    def _worth_a_line(self, share: float | None) -> bool:
        """Away from a terminal a clock that moves makes a line every tenth of the way, not every half second."""
        if self._stage != "paper" or share is None:
            return True
        step = int(share * 10)
        moved = step != getattr(self, "_step", -1)
        self._step = step
        return moved

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name in STAGES:
            running = name == self._stage
            seconds = time.monotonic() - self._since if running else self._elapsed.get(name)
            mark = "▸" if running else ("✓" if name in self._elapsed else " ")
            bar = ProgressBar(
                total=1.0, completed=self._share.get(name, 0.0), width=20, pulse=running and name not in self._share
            )
            took = f"{seconds:6.1f} s" if seconds is not None else ""
            table.add_row(mark, name, bar, took, Text(self._lines.get(name, ""), overflow="ellipsis", no_wrap=True))
        parts: list[Any] = [Text(self._title, style="bold"), table]
        if self._traders:
            parts.append(self._trader_table())
        return Group(*parts)

    def _trader_table(self) -> Table:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for column in ("trader", "role", "state", "orders", "fills", "equity"):
            table.add_column(column, justify="left" if column in ("trader", "role", "state") else "right")
        for trader in self._traders:
            status = trader.get("status") or {}
            ready: Status = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
            activity = self._activity[trader["spec"]["account"]]
            table.add_row(
                trader["metadata"]["name"],
                trader["spec"].get("role", ""),
                str(ready.get("reason", "")),
                str(activity.orders),
                str(activity.fills),
                f"{activity.equity_usd:,.2f}" if activity.equity_usd is not None else "–",
            )
        return table


@contextmanager
def display(title: str) -> Iterator[Display]:
    console = Console(file=sys.stdout)
    shown = Display(console, title)
    if not console.is_terminal:
        console.print(title, highlight=False)
        yield shown
        return
    with Live(console=console, refresh_per_second=4, get_renderable=lambda: shown._render()) as live:
        shown._live = live
        yield shown


def closing(summary: Summary, folder: Path) -> str:
    """The last words: what the run found, and where it is written down."""
    lines = ["", summary.headline, ""]
    for candidate in summary.candidates:
        who = "ensemble" if candidate.trial is None else f"trial {candidate.trial}"
        lines.append(f"  {who}: {candidate.verdict}" + (f", stopped by {candidate.stopped_by}" if candidate.stopped_by else ""))
        lines += [f"    {gate.gate:16} {gate.outcome:13} {gate.message}" for gate in candidate.gates]
    if summary.traders:
        lines += ["", f"  {'trader':28} {'role':10} {'orders':>6} {'fills':>6} {'fees':>9} {'equity':>11}  grade"]
    for trader in summary.traders:
        equity = "–" if trader.final_equity_usd is None else f"{trader.final_equity_usd:,.2f}"
        grade = trader.grade or f"none ({trader.grade_reason})"
        counts = f"{trader.orders:6} {trader.fills:6} {trader.fees_usd:9.2f}"
        lines.append(f"  {trader.name:28} {trader.role:10} {counts} {equity:>11}  {grade}")
    matches = "equals" if summary.ledger_matches_exchange else "DIFFERS from"
    lines += ["", f"  The record {matches} the exchange's ledger."] if summary.traders else []
    lines += [f"    {text}" for text in summary.ledger_differences[:10]]
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in summary.elapsed_seconds.items())
    lines += ["", f"  {stages}; {sum(summary.elapsed_seconds.values()):.0f} s in all", ""]
    lines += [f"  summary  {folder / 'summary.json'}", f"  report   {folder / 'report.html'}", ""]
    return "\n".join(lines)
