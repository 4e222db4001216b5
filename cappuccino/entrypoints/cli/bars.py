"""data: look at files of bars before a Dataset uses them, and at the features that a Dataset or Study may name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.cli import options
from cappuccino.entrypoints.cli.options import Document

data = typer.Typer(help="Look at bars and features.", no_args_is_help=True)

File = Annotated[
    Path, typer.Argument(help="Parquet, CSV or Feather: symbol, ts, open, high, low, close, volume.", show_default=False)
]
Timeframe = Annotated[str | None, typer.Option("--timeframe", help="Of the bars. Default: the file's own.", show_default=False)]


@data.command()
def check(
    file: File,
    timeframe: Timeframe = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Findings to print.")] = 20,
    output: options.TextOrJson = Document.TEXT,
) -> int:
    """Judge every bar of a file; the exit code is 0 only when there is nothing to say.

    A refused bar would be treated as missing, a flagged one would stay.

    Examples:

    \b
      cappuccino data check bars.parquet
      cappuccino data check bars.csv --timeframe 1h -o json
    """
    from cappuccino.market.quality import Limits, assess, judge

    source, frame = _opened(file, timeframe)
    symbols, limits = source.symbols(), Limits()
    ranges = source.available(symbols, frame)
    end = max(upto for _, upto in ranges.values())
    raw = source.fetch(symbols, frame, min(start for start, _ in ranges.values()), end)
    rows, findings = judge(raw, frame, limits)
    report = assess(rows, symbols, frame, end=end, limits=limits, findings=findings)
    wrong = bool(report.findings or report.quarantined)
    if output is Document.JSON:
        document = {
            "file": str(file),
            "timeframe": str(frame),
            "bars": len(rows),
            "findings": [str(finding) for finding in report.findings],
            "coverage": dict(report.coverage),
            "quarantined": dict(report.quarantined),
            "gaps": len(report.gaps),
        }
        typer.echo(json.dumps(document, indent=2))
        return InvalidInput.exit_code if wrong else 0
    for finding in report.findings[:limit]:
        typer.echo(str(finding))
    if len(report.findings) > limit:
        typer.echo(f"... and {len(report.findings) - limit} more: --limit {len(report.findings)} shows them")
    for symbol, reason in report.quarantined.items():
        typer.echo(f"{symbol}: quarantined: {reason}")
    gaps = f", {len(report.gaps)} gaps" if report.gaps else ", no gaps"
    typer.echo(f"{file}: {len(symbols)} symbols, {len(rows):,} good bars of {frame}{gaps}")
    if wrong:
        counted = ", ".join(f"{count} {problem}" for problem, count in report.counts().items()) or "quarantined symbols"
        raise InvalidInput(f"{file}: {counted}: correct them at their source, or accept that refused bars count as missing")
    return 0


@data.command()
def show(file: File, timeframe: Timeframe = None, output: options.TextOrJson = Document.TEXT) -> None:
    """Say what a file has: symbols, timeframe, range.

    Examples:

    \b
      cappuccino data show bars.parquet
    """
    from cappuccino.core.clock import from_epoch, iso
    from cappuccino.entrypoints.cli.tables import table

    source, frame = _opened(file, timeframe)
    ranges = source.available(source.symbols(), frame)
    body = [
        [symbol, str(frame), iso(from_epoch(start)), iso(from_epoch(end)), str((end - start) // frame.seconds)]
        for symbol, (start, end) in sorted(ranges.items())
    ]
    head = ["Symbol", "Timeframe", "First", "End", "Slots"]
    if output is Document.JSON:
        typer.echo(json.dumps([dict(zip(map(str.lower, head), row, strict=True)) for row in body], indent=2))
    else:
        typer.echo(table(head, body))


@data.command()
def export(
    manifest: Annotated[Path, typer.Argument(help="A manifest, or a folder of them, with one Dataset.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    days: Annotated[int, typer.Option("--days", min=0, help="Days beyond the Dataset's end, to trade on paper.")] = 0,
) -> None:
    """Write a Dataset's bars to a file, straight from its source: what the simulated exchange can be run over.

    Examples:

    \b
      cappuccino data export examples/quickstart --days 32 -o market.parquet
    """
    from cappuccino.api import Dataset
    from cappuccino.api.manifests import load, parse
    from cappuccino.core.clock import parse_iso, to_epoch
    from cappuccino.core.timeframe import Timeframe as Frame
    from cappuccino.entrypoints.ingest import source_of

    found = [resource for document, where in load(manifest) if isinstance(resource := parse(document, source=where), Dataset)]
    if len(found) != 1 or found[0].spec.end is None:
        raise InvalidInput(f"{manifest}: {len(found)} Datasets with an end: name a manifest that has one")
    spec = found[0].spec
    assert spec.end is not None  # checked above
    start, end = to_epoch(parse_iso(spec.start)), to_epoch(parse_iso(spec.end)) + days * 86400
    rows = source_of(spec.source, start=spec.start).fetch(spec.symbols, Frame.parse(spec.timeframe), start, end)
    rows.write_parquet(out)
    typer.echo(f"{out}: {len(rows):,} bars of {len(spec.symbols)} symbols")


@data.command()
def features(output: options.TextOrJson = Document.TEXT) -> None:
    """List the features that a Dataset or a Study may name, with their periods, and the named sets.

    Examples:

    \b
      cappuccino data features
    """
    from cappuccino.entrypoints.cli.tables import table
    from cappuccino.market.catalogue import CATALOGUE
    from cappuccino.market.features import FEATURE_SETS, warmup_bars
    from cappuccino.market.features import spec_of as spec

    entries = [(name, dict(entry.defaults), warmup_bars([spec(name)]), entry.description) for name, entry in CATALOGUE.items()]
    sets = {name: [one.label for one in members] for name, members in FEATURE_SETS.items()}
    if output is Document.JSON:
        listed = [{"name": n, "params": p, "warmup_bars": w, "description": d} for n, p, w, d in entries]
        typer.echo(json.dumps({"features": listed, "sets": sets}, indent=2))
        return
    body = [[n, ", ".join(f"{k}={v:g}" for k, v in p.items()) or "-", str(w), d] for n, p, w, d in entries]
    typer.echo(table(["Name", "Periods", "Warm-up", "Meaning"], body))
    typer.echo("\n" + table(["Set", "Members"], [[name, ", ".join(members)] for name, members in sets.items()]))


def _opened(file: Path, timeframe: str | None):  # type: ignore[no-untyped-def]  # both types are slow to import
    from cappuccino.adapters.sources.files import FileBars
    from cappuccino.core.timeframe import Timeframe as Frame

    source = FileBars(file)
    frame = Frame.parse(timeframe) if timeframe else source.timeframe()
    if frame is None:
        raise InvalidInput(f"{file}: no two bars are neighbours, so its timeframe is unknown: give --timeframe")
    return source, frame
