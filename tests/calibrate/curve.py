"""The power curve as an SVG file: the share of Studies that pass, against the median Sharpe in the gate window.

One curve for the window gate, whose minimum detectable Sharpe stands beside it, and one for all statistical gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cappuccino.evaluation.plots import Axis, nice_ticks

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44
STYLE = (
    "text{font:12px sans-serif;fill:#555}.grid{stroke:#ddd}.mark{stroke:#777;stroke-dasharray:4 3}"
    ".line{fill:none;stroke-width:2}.window{stroke:#1f77b4}.every{stroke:#d62728}"
    ".fill-window{fill:#1f77b4}.fill-every{fill:#d62728}"
)
CURVES = (("window", "window", "window gate"), ("statistical", "every", "all statistical gates"))  # rate, class, words


def power_curve(points: Sequence[Mapping[str, Any]]) -> str:
    """`points`: summaries (results.py); whiskers are 95 % intervals, dashed lines what the window gate calls detectable."""
    ordered = sorted((p for p in points if p["sharpe_window"] is not None), key=lambda p: p["sharpe_window"])
    detectable, powered = ordered[0]["detectable"], ordered[0]["detectable_at_80"]
    sharpes = [p["sharpe_window"] for p in ordered]
    lo, hi = min(0.0, *sharpes), max(powered, *sharpes) * 1.05
    across, up = Axis(lo=lo, hi=hi, ticks=nice_ticks(lo, hi)), Axis(lo=0.0, hi=1.0, ticks=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))

    def x(value: float) -> float:
        return across.place(value, LEFT, WIDTH - RIGHT)

    def y(value: float) -> float:
        return up.place(value, HEIGHT - BOTTOM, TOP)

    def rule(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
        return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'

    def text(at_x: float, at_y: float, anchor: str, words: str) -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}">{words}</text>'

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>']
    out.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>')
    for tick in up.ticks:
        out += [rule("grid", LEFT, y(tick), WIDTH - RIGHT, y(tick)), text(LEFT - 8, y(tick) + 4, "end", f"{tick:.0%}")]
    out += [text(x(tick), HEIGHT - BOTTOM + 18, "middle", f"{tick:g}") for tick in across.ticks]
    out.append(text((LEFT + WIDTH) / 2, HEIGHT - 6, "middle", "median Sharpe of the first candidate in the gate window"))
    for value, side, words in ((detectable, -1, "detectable"), (powered, 1, "with 80 % power")):
        beside = text(x(value) + 4 * side, y(1) + 12, "end" if side < 0 else "start", f"{words}: {value:.1f}")
        out += [rule("mark", x(value), y(0), x(value), y(1)), beside]
    for number, (judged, css, words) in enumerate(CURVES):
        found = [p[judged] for p in ordered]
        line = " ".join(f"{x(s):.1f},{y(p['rate']):.1f}" for s, p in zip(sharpes, found, strict=True))
        out.append(f'<polyline class="line {css}" points="{line}"/>')
        for sharpe, p in zip(sharpes, found, strict=True):
            out.append(rule(css, x(sharpe), y(p["low"]), x(sharpe), y(p["high"])))
            out.append(f'<circle class="fill-{css}" cx="{x(sharpe):.1f}" cy="{y(p["rate"]):.1f}" r="3.5"/>')
        at_y = y(1) + 34 + 18 * number
        out += [rule(f"line {css}", LEFT + 12, at_y - 4, LEFT + 36, at_y - 4), text(LEFT + 42, at_y, "start", words)]
    return "\n".join([*out, "</svg>"]) + "\n"
