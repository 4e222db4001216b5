"""The table: what was measured, against what was wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

EVENT_TO_STATUS_SECONDS, WRITES_PER_TRIAL, MEMORY_MB, RESTART_SECONDS = 2.0, 8.0, 400.0, 10.0


@dataclass(frozen=True, kw_only=True)
class Line:
    what: str
    measured: str
    wanted: str = ""
    met: bool | None = None


@dataclass
class Report:
    """`figures` are what summary.json has besides the table."""

    lines: list[Line] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, measured: str, *, wanted: str = "", met: bool | None = None) -> None:
        line = Line(what=what, measured=measured, wanted=wanted, met=met)
        self.lines.append(line)
        print(_row(line), flush=True)

    def delays(self, what: str, seconds: Sequence[float]) -> None:
        p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
        measured = f"p50 {p50:.2f} s, p99 {p99:.2f} s (n = {len(seconds)})"
        self.figures[what] = {"p50": round(p50, 3), "p99": round(p99, 3), "n": len(seconds)}
        self.add(what, measured, wanted=f"p99 < {EVENT_TO_STATUS_SECONDS:g} s", met=p99 < EVENT_TO_STATUS_SECONDS)

    @property
    def missed(self) -> list[str]:
        return [line.what for line in self.lines if line.met is False]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {"table": [asdict(line) for line in self.lines], "figures": self.figures, "missed": self.missed}
        path.write_text(json.dumps(body, indent=2) + "\n")

    def table(self) -> str:
        return "\n".join(["", f"{'':<58} {'measured':<44} {'wanted':<14}", *map(_row, self.lines)])


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank; NaN of nothing, which meets no target."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered) + 0.5) - 1))]


def _row(line: Line) -> str:
    mark = {True: "ok", False: "MISSED", None: ""}[line.met]
    return f"{line.what:<58} {line.measured:<44} {line.wanted:<14} {mark}".rstrip()
