"""`cappuccino validate`: take a Deployment's candidates through the gates, or grade its traders.

Reads what to judge from CAPPUCCINO_SPEC and writes evidence rows. Both are idempotent: a verdict that stands is kept.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.entrypoints.gating import run_gates
from cappuccino.entrypoints.grading import run_grades
from cappuccino.entrypoints.settings import WorkerSettings
from cappuccino.entrypoints.wiring import open_record
from cappuccino.telemetry.logs import configure
from cappuccino.telemetry.traces import exported, span


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="cappuccino validate", description=__doc__)
    parser.add_argument("what", choices=("gates", "grade"))
    options = parser.parse_args(argv)
    configure(process="validate")
    with exported("validate"), span(options.what):
        asyncio.run(_run(options.what, WorkerSettings.read()))
    return 0


async def _run(what: str, settings: WorkerSettings) -> None:
    blobs = open_blobs(settings.artifacts_url)
    async with open_record(settings.database_url, "gate") as record:
        await (run_gates if what == "gates" else run_grades)(record, blobs, settings.spec)
