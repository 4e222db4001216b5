"""`cappuccino ingest`: bring a Dataset's snapshot up to now, once.

Reads the Dataset's spec from CAPPUCCINO_SPEC, writes bars to the artifact store and one row to the record. Running it
again over the same bars writes nothing and registers the same digest.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.sources.alpaca_history import AlpacaHistory
from cappuccino.adapters.sources.files import FileBars
from cappuccino.api.dataset import DatasetSpec, Source
from cappuccino.controllers.rows import Gap
from cappuccino.core.clock import SystemClock, from_epoch, parse_iso, to_epoch
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.settings import WorkerSettings
from cappuccino.entrypoints.wiring import open_record
from cappuccino.market.generator import GeneratorBars, GeneratorConfig
from cappuccino.market.quality import Limits
from cappuccino.market.refresh import Refreshed, refresh
from cappuccino.market.source import BarSource
from cappuccino.telemetry.logs import configure, get_logger


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="cappuccino ingest", description=__doc__)
    parser.add_argument("--dataset-uid", required=True)
    options = parser.parse_args(argv)
    configure(process="ingest")
    asyncio.run(_run(options.dataset_uid, WorkerSettings.read()))
    return 0


async def _run(dataset_uid: str, settings: WorkerSettings) -> None:
    spec = DatasetSpec.model_validate(settings.spec)
    blobs = open_blobs(settings.artifacts_url)
    async with open_record(settings.database_url, "ingest") as record:
        previous = await record.current_snapshot(dataset_uid)
        result = refresh(
            source_of(spec.source, start=spec.start),
            blobs,
            symbols=spec.symbols,
            timeframe=Timeframe.parse(spec.timeframe),
            start=to_epoch(parse_iso(spec.start)),
            now=to_epoch(SystemClock().now()),
            end=to_epoch(parse_iso(spec.end)) if spec.end else None,
            previous=dict(previous.manifest) if previous else None,
            limits=Limits(min_coverage=spec.min_coverage),
        )
        await record.record_gaps(dataset_uid=dataset_uid, gaps=_gaps(result))
        await record.register_snapshot(dataset_uid=dataset_uid, digest=result.digest, manifest=result.manifest)
    get_logger("ingest").info(
        "refreshed",
        digest=result.digest,
        changed=result.changed,
        bars=result.manifest["bars"],
        findings=result.report.counts(),
        revised=len(result.revised),
        healed=len(result.healed),
    )


def _gaps(result: Refreshed) -> list[Gap]:
    found = [(entry["symbol"], entry["start"], entry["end"], entry["state"]) for entry in result.manifest["gaps"]]
    found += [(gap.symbol, gap.start, gap.end, "healed") for gap in result.healed]
    return [Gap(symbol=s, start_at=from_epoch(lo), end_at=from_epoch(hi), state=state) for s, lo, hi, state in found]


def source_of(source: Source, *, start: str) -> BarSource:
    """The adapter behind a Dataset's source; a generated market begins at the Dataset's start."""
    if source.generator:
        return GeneratorBars(config=GeneratorConfig(**source.generator.model_dump()), origin=to_epoch(parse_iso(start)))
    if source.file:
        return FileBars(source.file.path)
    return AlpacaHistory(url=source.alpaca.url if source.alpaca else None)
