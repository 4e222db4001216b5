"""Plots as inline SVG: lines over time, marks on a price, the history of a search.

No script and no outside resource. Colours come from CSS classes of the page (`c0`, `c1`, ... and `buy`, `sell`), so that one
drawing reads on light and dark. Invariants: every label is escaped; long curves are thinned by the extremes of each
bucket, so that a spike or a trough is never lost; values that are not finite leave a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

FloatArray = npt.NDArray[np.float64]

WIDTH = 860
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 10, 24
_POINTS = 800


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One curve over the shared x values; `css` is its colour class, `area` fills it towards 0."""

    label: str
    values: FloatArray
    css: str
    area: bool = False


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point on the plot; `shape` is up, down or dot."""

    x: float
    y: float
    css: str
    shape: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    lo: float
    hi: float
    ticks: tuple[float, ...]

    def place(self, value: float, start: float, end: float) -> float:
        return start + (value - self.lo) / (self.hi - self.lo) * (end - start)


def time_plot(
    at: npt.NDArray[np.int64],
    series: Sequence[Series],
    *,
    label: str,
    height: int = 220,
    marks: Sequence[Mark] = (),
    number: Callable[[float], str] = lambda v: f"{v:,.0f}",
) -> Markup:
    """Curves over time. `at` [T] epoch seconds; every series has T values; marks are in the same units."""
    ticks = _time_ticks(float(at[0]), float(at[-1]))
    x_axis = Axis(lo=float(at[0]), hi=max(float(at[-1]), float(at[0]) + 1), ticks=ticks)
    return _plot(at.astype(np.float64), series, x_axis, label, height, marks, number, _date)


def history_plot(x: FloatArray, best: FloatArray, marks: Sequence[Mark], *, label: str, height: int = 220) -> Markup:
    """Trials by number: one mark each, and the best so far as a stair (`x`, `best` [K])."""
    lo, hi = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    whole = tuple(sorted({float(round(t)) for t in nice_ticks(lo, hi) if lo <= round(t) <= hi}))
    x_axis = Axis(lo=lo - 0.5, hi=hi + 0.5, ticks=whole or (lo,))
    steps = (Series(label="best so far", values=np.repeat(best, 2)[:-1], css="c0"),)
    return _plot(np.repeat(x, 2)[1:], steps, x_axis, label, height, marks, lambda v: f"{v:g}", lambda v: f"{v:.0f}")


def nice_ticks(lo: float, hi: float, count: int = 5) -> tuple[float, ...]:
    """About `count` round numbers within [lo, hi]."""
    if not hi > lo:
        return (lo,)
    raw = (hi - lo) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(lo / step - 1e-9)
    return tuple(round(k * step, 12) for k in range(first, math.floor(hi / step + 1e-9) + 1))


def _plot(
    x: FloatArray,
    series: Sequence[Series],
    x_axis: Axis,
    label: str,
    height: int,
    marks: Sequence[Mark],
    number: Callable[[float], str],
    x_text: Callable[[float], str],
) -> Markup:
    y_axis = _value_axis([s.values for s in series] + [np.array([m.y for m in marks])], zero=any(s.area for s in series))
    bottom, right = height - _BOTTOM, WIDTH - _RIGHT
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for tick in y_axis.ticks:
        y = y_axis.place(tick, bottom, _TOP)
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(number(tick))}</text>')
    for tick in x_axis.ticks:
        at = x_axis.place(tick, _LEFT, right)
        out.append(f'<text class="tick" x="{at:.1f}" y="{height - 6}" text-anchor="middle">{escape(x_text(tick))}</text>')
    for s in series:
        out.append(_curve(x, s, x_axis, y_axis, bottom, right))
    for mark in marks:
        px, py = x_axis.place(mark.x, _LEFT, right), y_axis.place(mark.y, bottom, _TOP)
        out.append(f'<path class="mark {mark.css}" d="{_shape(mark.shape, px, py)}"><title>{escape(mark.title)}</title></path>')
    out.append("</svg>")
    return Markup("".join(out))  # noqa: S704 - every text in it was escaped above


def _curve(x: FloatArray, s: Series, x_axis: Axis, y_axis: Axis, bottom: float, right: float) -> str:
    keep = _thin(s.values)
    drawn, path, pen = [], "", "M"
    for i in keep:
        if not math.isfinite(s.values[i]):
            pen = "M"
            continue
        px, py = x_axis.place(float(x[i]), _LEFT, right), y_axis.place(float(s.values[i]), bottom, _TOP)
        path += f"{pen}{px:.1f} {py:.1f}"
        drawn.append(px)
        pen = "L"
    if not drawn:
        return ""
    line = f'<path class="line {s.css}" d="{path}"><title>{escape(s.label)}</title></path>'
    if not s.area:
        return line
    zero = y_axis.place(0.0, bottom, _TOP)
    return f'<path class="area {s.css}" d="{path}L{drawn[-1]:.1f} {zero:.1f}L{drawn[0]:.1f} {zero:.1f}Z"/>' + line


def _thin(values: FloatArray) -> npt.NDArray[np.int64]:
    """Indexes to draw: all of a short curve, else ends and both extremes of each bucket."""
    n = len(values)
    if n <= _POINTS:
        return np.arange(n)
    edges = np.linspace(0, n, _POINTS // 2 + 1).astype(np.int64)
    keep = {0, n - 1}
    for lo, hi in pairwise(edges.tolist()):
        bucket = values[lo:hi]
        keep |= {lo + int(np.argmin(bucket)), lo + int(np.argmax(bucket))}
    return np.array(sorted(keep))


def _value_axis(arrays: Sequence[FloatArray], *, zero: bool) -> Axis:
    every = np.concatenate([np.asarray(a, dtype=np.float64) for a in arrays])
    every = every[np.isfinite(every)]
    lo, hi = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    if zero:
        lo, hi = min(lo, 0.0), max(hi, 0.0)
    if hi - lo <= 1e-9 * max(abs(lo), abs(hi)):
        pad = max(abs(hi) * 0.01, 1e-6)
        lo, hi = lo - pad, hi + pad
    pad = 0.04 * (hi - lo)
    lo, hi = lo - (0 if zero and lo == 0 else pad), hi + (0 if zero and hi == 0 else pad)
    return Axis(lo=lo, hi=hi, ticks=nice_ticks(lo, hi, 4))


def _time_ticks(lo: float, hi: float) -> tuple[float, ...]:
    days = max((hi - lo) / 86400, 1e-9)
    step = next((d for d in (0.25, 0.5, 1, 2, 5, 7, 14, 30, 61, 91, 182, 365) if days / d <= 8), 730) * 86400
    first = math.ceil(lo / step) * step
    return tuple(first + k * step for k in range(math.floor((hi - first) / step) + 1)) if first <= hi else (lo,)


def _date(epoch: float) -> str:
    at = datetime.fromtimestamp(epoch, UTC)
    return at.strftime("%d %b" if at.hour == 0 else "%d %b %Hh")


def _shape(shape: str, x: float, y: float) -> str:
    if shape == "up":
        return f"M{x:.1f} {y + 3:.1f}l-4.5 8h9z"
    if shape == "down":
        return f"M{x:.1f} {y - 3:.1f}l-4.5 -8h9z"
    return f"M{x - 3.5:.1f} {y:.1f}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z"
