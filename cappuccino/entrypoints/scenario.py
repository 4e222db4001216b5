"""What a demo runs: manifests, the venue's bars, and the moment at which paper trading begins.

The past up to the Dataset's end is for search and gates; then a gap; then the paper period, which only the exchange has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cappuccino.adapters.sources.files import FileBars
from cappuccino.api import Dataset, Study
from cappuccino.api.manifests import load, parse
from cappuccino.core.clock import from_epoch, iso, parse_iso, to_epoch
from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.ingest import source_of
from cappuccino.entrypoints.reporting import Told
from cappuccino.market import quality
from cappuccino.market.bars import Bars
from cappuccino.market.source import BarSource

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PAPER_DAYS = 30
MAX_SYMBOLS = 10

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`start`, `paper_start`, `end` in epoch seconds; the exchange has all bars, its clock starts at `paper_start`."""

    title: str
    source: str
    documents: tuple[Document, ...]
    bars: BarSource
    start: int
    paper_start: int
    end: int

    def _named(self, kind: str) -> Document:
        return next(document for document in self.documents if document["kind"] == kind)

    @property
    def dataset(self) -> str:
        return str(self._named("Dataset")["metadata"]["name"])

    @property
    def study(self) -> str:
        return str(self._named("Study")["metadata"]["name"])

    @property
    def deployment(self) -> str:
        return str(self._named("Deployment")["metadata"]["name"])

    @property
    def paper_starts_at(self) -> str:
        return iso(from_epoch(self.paper_start))

    @property
    def exchange_terms(self) -> tuple[str, ...]:
        """The venue charges what the Study's market charges."""
        costs = Study.parse(self._named("Study")).spec.template.costs
        named = [f"{symbol}={bps:g}" for symbol, bps in costs.slippage_by_symbol_bps.items()]
        extra = [word for pair in named for word in ("--symbol-slippage-bps", pair)]
        return ("--fee-bps", f"{costs.fee_bps:g}", "--slippage-bps", f"{costs.slippage_bps:g}", *extra)

    @property
    def timeframe(self) -> Timeframe:
        return Timeframe.parse(Dataset.parse(self._named("Dataset")).spec.timeframe)

    def rows(self) -> pl.DataFrame:
        symbols = Dataset.parse(self._named("Dataset")).spec.symbols
        return self.bars.fetch(symbols, self.timeframe, self.start, self.end)

    def write_bars(self, path: Path) -> None:
        draft = path.with_suffix(".draft")
        self.rows().write_parquet(draft)
        draft.replace(path)

    def bars_of(self, path: Path) -> Bars:
        """The venue's bars, as written."""
        symbols = Dataset.parse(self._named("Dataset")).spec.symbols
        frame = FileBars(path).fetch(symbols, self.timeframe, self.start, self.end)
        return quality.check(frame, list(symbols), self.timeframe, end=self.end)[0]

    def trades_end(self, told: Told) -> bool:
        """Whether every trader reached the end of the paper period; without traders there is nothing to reach."""
        day = self.end - 86400  # a trader on daily bars has its last close within the last day
        return all(item.closes and to_epoch(max(item.closes)) > day for item in told.traded)


def generated(manifests: Path | None = None, paper_days: int = PAPER_DAYS) -> Scenario:
    """The generated market of the quickstart."""
    documents = read(manifests or EXAMPLES / "quickstart")
    dataset = Dataset.parse(_one(documents, "Dataset"))
    timeframe, spec = Timeframe.parse(dataset.spec.timeframe), dataset.spec
    if spec.end is None:
        raise InvalidInput(f"dataset/{dataset.name}: a demo's Dataset needs an end: paper trading begins after it")
    gap = Study.parse(_one(documents, "Study")).spec.validation.gap_bars
    paper_start = to_epoch(parse_iso(spec.end)) + gap * timeframe.seconds
    return Scenario(
        title="Cappuccino quickstart: a generated market",
        source="generator",
        documents=tuple(documents),
        bars=source_of(spec.source, start=spec.start),
        start=to_epoch(parse_iso(spec.start)),
        paper_start=paper_start,
        end=paper_start + paper_days * 86400,
    )


def real(path: Path, manifests: Path | None = None, paper_days: int = PAPER_DAYS) -> Scenario:
    """The manifests of examples/real-bars on the file's own symbols, timeframe and range; its last month is for paper.

    Raises:
        InvalidInput: the file cannot be read, or has not more than that month.
    """
    source = FileBars(path.resolve())
    symbols, timeframe = source.symbols(), source.timeframe()
    if timeframe is None:
        raise InvalidInput(f"{path}: no two bars are neighbours, so the timeframe is unknown: give an unbroken stretch of bars")
    ranges = source.available(symbols, timeframe).values()
    start, end = min(first for first, _ in ranges), max(last for _, last in ranges)
    documents = read(manifests or EXAMPLES / "real-bars")
    gap = Study.parse(_one(documents, "Study")).spec.validation.gap_bars * timeframe.seconds
    paper_start = end - paper_days * 86400
    if paper_start - gap <= start:
        have = (end - start) / 86400
        raise InvalidInput(
            f"{path}: {have:.1f} days of bars: the last {paper_days} are for paper, search needs at least twice that"
        )
    dataset = _one(documents, "Dataset")
    dataset["spec"] |= {
        "symbols": symbols[:MAX_SYMBOLS],
        "timeframe": str(timeframe),
        "start": iso(from_epoch(start)),
        "end": iso(from_epoch(paper_start - gap)),
        "source": {"file": {"path": str(path.resolve())}},
    }
    return Scenario(
        title=f"Cappuccino on {path.name}",
        source=str(path),
        documents=tuple(documents),
        bars=source,
        start=start,
        paper_start=paper_start,
        end=end,
    )


def read(folder: Path) -> list[Document]:
    """Every document of the folder, in the order in which they are best applied."""
    order = ("Dataset", "Study", "Deployment")
    documents = [parse(document, source=where).to_json() for document, where in load(folder)]
    for kind in order:
        _one(documents, kind)
    return sorted(documents, key=lambda document: order.index(document["kind"]))


def _one(documents: Sequence[Mapping[str, Any]], kind: str) -> Any:
    found = [document for document in documents if document["kind"] == kind]
    if len(found) != 1:
        raise InvalidInput(f"a demo needs one {kind}, its manifests have {len(found)}")
    return found[0]
