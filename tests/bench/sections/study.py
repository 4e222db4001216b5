"""Seconds a trial and a Study, and where they go: whole Studies on a local cluster with a database of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cappuccino.api.meta import API_VERSION
from cappuccino.controllers.decision import Document
from cappuccino.entrypoints.runner import RunnerSettings, started
from tests.bench import search
from tests.bench.real import time_spent
from tests.bench.report import Summary, number
from tests.bench.section import Figures, Machine, Section

WORKERS = 2


def measure(machine: Machine, *, trials: int, packs: list[int], folds: int, timesteps: int) -> Figures:
    """One Study for each pack size, two workers at a time, without a pruner: every trial goes to its end."""
    with tempfile.TemporaryDirectory(prefix="cappuccino-study-") as folder:
        studies = asyncio.run(_studies(Path(folder), packs, trials=trials, folds=folds, timesteps=timesteps))
    return {"trials": trials, "folds": folds, "timesteps": timesteps, "workers": WORKERS, "studies": studies}


async def _studies(folder: Path, packs: list[int], **size: int) -> list[Figures]:
    stop, measured = asyncio.Event(), []
    async with started(RunnerSettings(state=folder)) as services:
        ports = services.cluster.ports
        cluster = asyncio.create_task(services.cluster.run(stop))
        market = {"apiVersion": API_VERSION, "kind": "Dataset", "metadata": {"name": "market", "namespace": "default"}}
        await ports.objects.apply(market | {"spec": search.MARKET})
        for pack in packs:
            rows = await search._searched(ports, cluster, _document(pack, **size))
            spent = time_spent(await ports.record.trials(rows[0].study_uid), pack=pack)
            measured.append({"pack": pack, **search.figures_of(rows), "spent": spent})
        stop.set()
        await cluster
    return measured


def _document(pack: int, **size: int) -> Document:
    document = search.study("none", 0, **size)
    document["metadata"]["name"] = f"pack-{pack}"
    document["spec"]["parallelism"] = WORKERS * pack
    document["spec"]["template"]["pack"] = pack
    return document


def summary(figures: Mapping[str, Any]) -> Summary:
    rows = []
    for each in figures["studies"]:
        spent, trials, workers = each["spent"], figures["trials"], figures["workers"]
        idle = 1.0 - spent["all"] / (workers * each["seconds"])
        parts = (spent[name] / (workers * each["seconds"]) for name in ("fit", "judge", "start", "unknown"))
        rows.append(
            [
                f"{trials} trials" + (f", {each['pack']} in a pack" if each["pack"] > 1 else ", a worker each"),
                number(each["seconds"]),
                number(spent["all"] / trials),
                *(f"{part:.0%}" for part in (*parts, idle)),
            ]
        )
    header = ("Study", "seconds", "worker seconds a trial", "training", "judging", "starting", "not known", "idle")
    return Summary(
        tables=[(header, rows)],
        notes=[
            f"{figures['workers']} workers at a time with one thread each; a trial is {figures['folds']} folds and a refit of "
            f"{number(figures['timesteps'])} steps. Starting: the process, its imports, bars and features. Judging: backtests "
            f"of the folds. Idle: places without a worker, that is operator, record and sampler, and the end. Measured once.",
        ],
    )


SECTION = Section(
    title="A Study",
    measure=measure,
    summary=summary,
    full={"trials": 50, "packs": [1, 10], "folds": 3, "timesteps": 65_536},
    fast={"trials": 4, "packs": [2], "folds": 2},
)
