"""From a source and the previous snapshot to the next one.

Invariants:
- Only closed bars: ts + D <= min(now, end).
- Idempotent: the same bars give the same digest, and nothing is written.
- What is stored stays, unless the source now says otherwise: then the bar is taken over and reported as
  revised. A bar that quality refuses never replaces one that it accepted.
- The last `overlap_bars` are asked for again each time. A gap older than that is asked for once by itself; what
  the source still does not have is remembered as unfillable and not asked for again. A younger one is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from cappuccino.core.blobs import Blobs
from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import digest_of
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.quality import Finding, Gap, Limits, Report, assess, gaps_of, judge, kept_symbols
from cappuccino.market.source import VALUES, BarSource, no_rows
from cappuccino.market.store import SCHEMA_NAME, Manifest, read_rows, write_manifest, write_partitions

OVERLAP_BARS = 24
BRIDGE_BARS = 1000  # gaps closer than this are asked for in one request
KEY = ["symbol", "ts"]


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A stored bar that the source now gives differently: by column (stored, now)."""

    symbol: str
    ts: int
    changed: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """`changed` is false when the digest is the previous one; `partitions_written` counts new blobs of bars."""

    manifest: Manifest
    digest: str
    changed: bool
    partitions_written: int
    report: Report
    revised: tuple[Revision, ...]
    healed: tuple[Gap, ...]


def refresh(
    source: BarSource,
    blobs: Blobs,
    *,
    symbols: Sequence[str],
    timeframe: Timeframe,
    start: int,
    now: int,
    end: int | None = None,
    previous: Manifest | None = None,
    overlap_bars: int = OVERLAP_BARS,
    limits: Limits | None = None,
) -> Refreshed:
    """Brings the snapshot up to `now`. Times are epoch seconds; `end` is exclusive, None: as far as there is.

    Raises:
        InvalidInput: no bar of the range has closed, or every symbol is quarantined.
        RetryLater: the source is away; nothing was written.
        IntegrityError: the previous snapshot's bytes are not what they were.
    """
    limits = limits or Limits()
    step = timeframe.seconds
    start = -(-start // step) * step
    stop = _last_close(source, symbols, timeframe, now=now, end=end)
    if stop <= start:
        what = f"no {timeframe} bar from {iso(from_epoch(start))} has closed by {iso(from_epoch(max(stop, 0)))}"
        raise InvalidInput(f"{what}: choose an earlier start, or a source that reaches further")
    if previous is not None and previous["timeframe"] != str(timeframe):
        previous = None
    settled = stop - overlap_bars * step

    stored = no_rows()
    if previous is not None:
        kept = [symbol for symbol in symbols if symbol in previous["symbols"]]
        stored = read_rows(blobs, previous, symbols=kept).filter(pl.col("ts").is_between(start, stop, closed="left"))
    asks = _asks(symbols, previous, start=start, stop=stop, overlap=overlap_bars * step)
    fresh, findings = _fetch(source, timeframe, asks, limits)
    revised = _revisions(stored, fresh)
    rows = _merge(stored, fresh)

    known = _gaps(previous)
    remembered = [gap for gap, state in known if state == "unfillable"]
    holes = [gap for gap in _holes(rows, timeframe, stop) if gap.end <= settled and not _within(gap, remembered)]
    found, more = _fetch(source, timeframe, [((gap.symbol,), gap.start, gap.end) for gap in _bridged(holes, step)], limits)
    rows = _merge(found, rows)  # only bars that were not there

    every_finding = tuple(sorted({*findings, *more}, key=lambda f: (f.symbol, f.ts, f.problem)))
    report = assess(rows, symbols, timeframe, end=stop, limits=limits, findings=every_finding)
    kept = kept_symbols(symbols, report)
    rows = rows.filter(pl.col("symbol").is_in(kept))
    once_missing = {*(gap for gap, _ in known), *holes}
    in_range = [gap for gap in once_missing if gap.symbol in kept and start <= gap.start < stop]
    healed = [gap for gap in in_range if not _touches(gap, report.gaps)]

    partitions, written = write_partitions(blobs, rows, timeframe, known=previous["partitions"] if previous else ())
    manifest: Manifest = {
        "schema": SCHEMA_NAME,
        "symbols": kept,
        "timeframe": str(timeframe),
        "start": start,
        "first_ts": int(rows["ts"].to_numpy().min()),
        "last_ts": stop - step,
        "bars": len(rows),
        "partitions": partitions,
        "coverage": {symbol: round(share, 6) for symbol, share in report.coverage.items()},
        "quarantined": [{"symbol": symbol, "reason": reason} for symbol, reason in report.quarantined.items()],
        "gaps": [
            {"symbol": g.symbol, "start": g.start, "end": g.end, "state": "unfillable" if g.end <= settled else "open"}
            for g in report.gaps
        ],
    }
    digest = digest_of(manifest)
    changed = previous is None or digest_of(previous) != digest
    if changed:
        write_manifest(blobs, manifest)
    return Refreshed(
        manifest=manifest,
        digest=digest,
        changed=changed,
        partitions_written=written,
        report=report,
        revised=revised,
        healed=tuple(sorted(healed, key=lambda gap: (gap.symbol, gap.start))),
    )


Ask = tuple[tuple[str, ...], int, int]


def _last_close(source: BarSource, symbols: Sequence[str], timeframe: Timeframe, *, now: int, end: int | None) -> int:
    """The instant up to which bars should exist: closed by now, wanted, and within a source that ends."""
    limit = now if end is None else min(now, end)
    ranges = source.available(symbols, timeframe)
    if all(symbol in ranges for symbol in symbols):
        limit = min(limit, max(ranges[symbol][1] for symbol in symbols))
    return timeframe.floor(limit)


def _asks(symbols: Sequence[str], previous: Manifest | None, *, start: int, stop: int, overlap: int) -> list[Ask]:
    """What to fetch: everything for a new symbol; else the overlap and on, and what now comes before."""
    if previous is None:
        return [(tuple(symbols), start, stop)]
    resume = max(start, min(previous["last_ts"], stop) - overlap)
    new = tuple(symbol for symbol in symbols if symbol not in previous["symbols"])
    old = tuple(symbol for symbol in symbols if symbol in previous["symbols"])
    asks = [(new, start, stop), (old, resume, stop), (old, start, min(previous["start"], resume))]
    return [(names, lo, hi) for names, lo, hi in asks if names and lo < hi]


def _fetch(
    source: BarSource, timeframe: Timeframe, asks: Iterable[Ask], limits: Limits
) -> tuple[pl.DataFrame, tuple[Finding, ...]]:
    frames = [source.fetch(names, timeframe, lo, hi) for names, lo, hi in asks]
    return judge(pl.concat(frames), timeframe, limits) if frames else (no_rows(), ())


def _merge(under: pl.DataFrame, over: pl.DataFrame) -> pl.DataFrame:
    """Rows of both, `over` winning, sorted."""
    return pl.concat([over, under.join(over, on=KEY, how="anti")]).sort(KEY)


def _revisions(stored: pl.DataFrame, fresh: pl.DataFrame) -> tuple[Revision, ...]:
    both = stored.join(fresh, on=KEY, how="inner", suffix="_now")
    differs = pl.any_horizontal(pl.col(name) != pl.col(f"{name}_now") for name in VALUES)
    return tuple(
        Revision(
            symbol=row["symbol"],
            ts=row["ts"],
            changed={name: (row[name], row[f"{name}_now"]) for name in VALUES if row[name] != row[f"{name}_now"]},
        )
        for row in both.filter(differs).sort(KEY).iter_rows(named=True)
    )


def _gaps(manifest: Manifest | None) -> list[tuple[Gap, str]]:
    entries: list[dict[str, Any]] = manifest["gaps"] if manifest else []
    return [(Gap(symbol=entry["symbol"], start=entry["start"], end=entry["end"]), entry["state"]) for entry in entries]


def _holes(rows: pl.DataFrame, timeframe: Timeframe, stop: int) -> list[Gap]:
    frames = rows.partition_by("symbol", maintain_order=True)
    return [gap for frame in frames for gap in gaps_of(frame["symbol"][0], frame["ts"].to_numpy(), timeframe, stop)]


def _bridged(gaps: Sequence[Gap], step: int) -> list[Gap]:
    """Fewer, wider stretches that cover all gaps (sorted by symbol and start): one request for many."""
    wider: list[Gap] = []
    for gap in gaps:
        if wider and wider[-1].symbol == gap.symbol and gap.start - wider[-1].end <= BRIDGE_BARS * step:
            wider[-1] = Gap(symbol=gap.symbol, start=wider[-1].start, end=gap.end)
        else:
            wider.append(gap)
    return wider


def _within(gap: Gap, others: Iterable[Gap]) -> bool:
    return any(gap.symbol == other.symbol and other.start <= gap.start and gap.end <= other.end for other in others)


def _touches(gap: Gap, others: Iterable[Gap]) -> bool:
    return any(gap.symbol == other.symbol and gap.start < other.end and other.start < gap.end for other in others)
