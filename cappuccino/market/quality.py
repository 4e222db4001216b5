"""Judges raw rows against the grid, bar by bar, and says exactly what was wrong with which.

A refused bar is treated as missing; a flagged one stays. A symbol whose coverage falls below the limit is
quarantined with the reason; the others go on. Coverage is accepted bars over those that should exist: from
the symbol's first accepted bar (its listing, as far as anyone can tell) to the end of the range.

| Problem | What | Then |
|---|---|---|
| off_grid | open time not on the timeframe's grid | refused |
| not_finite | a price or volume is NaN, null or infinite | refused |
| not_positive | a price is zero or below | refused |
| ohlc | high below low, or open or close outside them | refused |
| negative_volume | | refused |
| conflict | the same open time twice with different values | all refused |
| duplicate | the same row twice | one kept, flagged |
| unordered | an earlier open time after a later one | sorted, flagged |
| impossible_move | below an hour: a range, or a move there and back, above `max_move` | refused |
| level_shift | the same, but the price stays there | flagged |

Missing bars become flat flagged bars; before its first bar a symbol is flat at that bar's open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars, BoolArray, IntArray
from cappuccino.market.source import PRICES, SCHEMA, VALUES

Action = Literal["refused", "flagged"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`max_move` is a fraction of the price within one bar, judged on bars shorter than `max_move_below_seconds`."""

    min_coverage: float = 0.95
    max_move: float = 0.5
    max_move_below_seconds: int = 3600


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One bar and what is wrong with it. `ts` is the stamp as given, epoch seconds."""

    symbol: str
    ts: int
    problem: str
    action: Action
    value: str

    def __str__(self) -> str:
        return f"{self.symbol} {iso(from_epoch(self.ts))}: {self.problem} ({self.value}), {self.action}"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch of missing bars, start <= ts < end, epoch seconds."""

    symbol: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found. `coverage` is by symbol asked for, `quarantined` says why."""

    findings: tuple[Finding, ...] = ()
    coverage: Mapping[str, float] = field(default_factory=dict)
    quarantined: Mapping[str, str] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()

    def counts(self) -> dict[str, int]:
        """Findings by problem."""
        counted: dict[str, int] = {}
        for finding in self.findings:
            counted[finding.problem] = counted.get(finding.problem, 0) + 1
        return counted


def judge(raw: pl.DataFrame, timeframe: Timeframe, limits: Limits) -> tuple[pl.DataFrame, tuple[Finding, ...]]:
    """Raw rows (source.SCHEMA) -> (accepted rows, sorted by symbol and ts, unique; findings)."""
    accepted: list[pl.DataFrame] = []
    findings: list[Finding] = []
    for frame in raw.select(list(SCHEMA)).partition_by("symbol", maintain_order=True):
        rows, found = _judge_symbol(frame, timeframe, limits)
        accepted.append(rows)
        findings += found
    frame = pl.concat(accepted) if accepted else raw.select(list(SCHEMA)).clear()
    return frame.sort("symbol", "ts"), tuple(sorted(findings, key=lambda f: (f.symbol, f.ts, f.problem)))


def _judge_symbol(frame: pl.DataFrame, timeframe: Timeframe, limits: Limits) -> tuple[pl.DataFrame, list[Finding]]:
    symbol = frame["symbol"][0]
    findings: list[Finding] = []

    def note(at: BoolArray, problem: str, action: Action, shown: Sequence[str]) -> BoolArray:
        """Records every bar of the mask; gives the mask back."""
        for row in frame.filter(pl.Series(at)).iter_rows(named=True):
            value = ", ".join(f"{name} {row[name]}" for name in shown)
            findings.append(Finding(symbol=symbol, ts=row["ts"], problem=problem, action=action, value=value))
        return at

    ts = frame["ts"].to_numpy()
    note(np.diff(ts, prepend=ts[:1]) < 0, "unordered", "flagged", ["ts"])
    frame = frame.sort("ts", maintain_order=True)

    again = ~frame.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    note(again, "duplicate", "flagged", ["ts"])
    frame = frame.filter(pl.Series(~again))
    ts, (open_, high, low, close, volume) = frame["ts"].to_numpy(), (frame[name].to_numpy() for name in VALUES)
    finite = np.all([np.isfinite(column) for column in (open_, high, low, close, volume)], axis=0)
    positive = np.all([column > 0 for column in (open_, high, low, close)], axis=0)
    inside = (high >= low) & (high >= np.maximum(open_, close)) & (low <= np.minimum(open_, close))

    bad = note(ts % timeframe.seconds != 0, "off_grid", "refused", ["ts"])
    bad = bad | note(~bad & frame["ts"].is_duplicated().to_numpy(), "conflict", "refused", VALUES)
    bad = bad | note(~bad & ~finite, "not_finite", "refused", VALUES)
    bad = bad | note(~bad & ~positive, "not_positive", "refused", PRICES)
    bad = bad | note(~bad & ~inside, "ohlc", "refused", PRICES)
    bad = bad | note(~bad & (volume < 0), "negative_volume", "refused", ["volume"])
    frame = frame.filter(pl.Series(~bad))

    if timeframe.seconds < limits.max_move_below_seconds and len(frame):
        spikes, shifts = _moves(frame, limits.max_move)
        note(shifts, "level_shift", "flagged", PRICES)
        note(spikes, "impossible_move", "refused", PRICES)
        frame = frame.filter(pl.Series(~spikes))
    return frame, findings


def _moves(frame: pl.DataFrame, limit: float) -> tuple[BoolArray, BoolArray]:
    """(bars whose move is impossible, bars that open at another level which lasts), each [rows]."""
    open_, high, low, close = (frame[name].to_numpy() for name in PRICES)
    wide = (high > low * (1 + limit)) | (low < high * (1 - limit))
    jump = np.zeros(len(frame), dtype=np.bool_)
    jump[1:] = np.abs(open_[1:] / close[:-1] - 1) > limit
    returns = np.zeros(len(frame), dtype=np.bool_)  # the bar after it opens near the close before it
    returns[1:-1] = np.abs(open_[2:] / close[:-2] - 1) <= limit
    after_spike = np.zeros(len(frame), dtype=np.bool_)
    after_spike[1:] = (jump & returns)[:-1]
    return wide | (jump & returns), jump & ~returns & ~wide & ~after_spike


def dense(rows: pl.DataFrame, symbols: Sequence[str], timeframe: Timeframe, first: int, end: int) -> Bars:
    """Accepted rows as a panel over first <= ts < end; what is missing becomes flat flagged bars.

    Raises:
        InvalidInput: a symbol has no row in the range.
    """
    ts = np.arange(first, end, timeframe.seconds, dtype=np.int64)
    shape = (len(ts), len(symbols))
    panel = {name: np.full(shape, np.nan) for name in VALUES}
    by_symbol = {frame["symbol"][0]: frame for frame in rows.partition_by("symbol", maintain_order=True)}
    for n, symbol in enumerate(symbols):
        frame = by_symbol.get(symbol, rows.clear()).filter(pl.col("ts").is_between(first, end, closed="left"))
        if not len(frame):
            span = f"from {iso(from_epoch(first))} to {iso(from_epoch(end))}"
            raise InvalidInput(f"bars: {symbol} has none {span}: widen the range")
        index = (frame["ts"].to_numpy() - first) // timeframe.seconds
        for name in VALUES:
            panel[name][index, n] = frame[name].to_numpy()
    missing = np.isnan(panel["close"])
    known = np.maximum.accumulate(np.where(missing, -1, np.arange(len(ts))[:, None]), axis=0)
    listed = np.argmin(missing, axis=0)
    columns = np.arange(len(symbols))
    level = np.where(known >= 0, panel["close"][known, columns], panel["open"][listed, columns])
    for name in PRICES:
        panel[name] = np.where(missing, level, panel[name])
    panel["volume"] = np.where(missing, 0.0, panel["volume"])
    return Bars(symbols=tuple(symbols), timeframe=timeframe, ts=ts, missing=missing, **panel)


def assess(
    rows: pl.DataFrame,
    symbols: Sequence[str],
    timeframe: Timeframe,
    *,
    end: int,
    limits: Limits,
    findings: Sequence[Finding] = (),
) -> Report:
    """Coverage, quarantine and gaps of accepted rows against what should exist up to `end` (exclusive)."""
    coverage: dict[str, float] = {}
    quarantined: dict[str, str] = {}
    gaps: list[Gap] = []
    by_symbol = {frame["symbol"][0]: frame["ts"].to_numpy() for frame in rows.partition_by("symbol", maintain_order=True)}
    for symbol in symbols:
        refused = [f for f in findings if f.symbol == symbol and f.action == "refused"]
        because = f"; {len(refused)} bars were refused, the first: {refused[0]}" if refused else ""
        ts = by_symbol.get(symbol)
        if ts is None:
            coverage[symbol] = 0.0
            quarantined[symbol] = f"the source has no usable bars{because}"
            continue
        expected = max(1, (end - int(ts[0])) // timeframe.seconds)
        coverage[symbol] = len(ts) / expected
        if coverage[symbol] < limits.min_coverage:
            share = f"coverage {coverage[symbol]:.1%} ({len(ts)} of {expected} bars)"
            quarantined[symbol] = f"{share} is below {limits.min_coverage:.1%}{because}"
        else:
            gaps += gaps_of(symbol, ts, timeframe, end)
    return Report(findings=tuple(findings), coverage=coverage, quarantined=quarantined, gaps=tuple(gaps))


def gaps_of(symbol: str, ts: IntArray, timeframe: Timeframe, end: int) -> list[Gap]:
    """Missing stretches between the first of `ts` (sorted) and `end`."""
    step = timeframe.seconds
    after = np.append(ts[1:], end)
    holes = np.flatnonzero(after - ts > step)
    return [Gap(symbol=symbol, start=int(ts[i]) + step, end=int(after[i])) for i in holes]


def check(
    raw: pl.DataFrame,
    symbols: Sequence[str],
    timeframe: Timeframe,
    *,
    end: int,
    limits: Limits | None = None,
) -> tuple[Bars, Report]:
    """Raw rows -> (bars of the symbols that are not quarantined, report). `end` (exclusive): of the last closed bar.

    Raises:
        InvalidInput: every symbol is quarantined; the message has each one's reason.
    """
    limits = limits or Limits()
    rows, findings = judge(raw.filter(pl.col("ts") < end), timeframe, limits)
    report = assess(rows, symbols, timeframe, end=end, limits=limits, findings=findings)
    kept = kept_symbols(symbols, report)
    kept_rows = rows.filter(pl.col("symbol").is_in(kept))
    first = int(kept_rows["ts"].to_numpy().min())
    return dense(kept_rows, kept, timeframe, first, end), report


def kept_symbols(symbols: Sequence[str], report: Report) -> list[str]:
    """Symbols that are not quarantined, in order.

    Raises:
        InvalidInput: there are none.
    """
    kept = [symbol for symbol in symbols if symbol not in report.quarantined]
    if not kept:
        reasons = "; ".join(f"{symbol}: {reason}" for symbol, reason in report.quarantined.items())
        raise InvalidInput(f"every symbol is quarantined: {reasons}. Give a range or a source that has them")
    return kept
