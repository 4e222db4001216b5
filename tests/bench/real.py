"""Real bars: a Study of fifty PPO trials on ten pairs in bars of five minutes, and what its best do on the month held back.

It runs as users run it: a local cluster with a database of its own, the manifests of examples/five-minutes, and its
Deployment's gates. The month is the gate window, at which no trial has looked.

Seconds are wall time; what the figures of the month mean is in window.py.

    python -m tests.bench.real --bars FILE.parquet [--fast]      writes build/bench/real.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.api.study import StudySpec
from cappuccino.controllers.decision import Document, Key
from cappuccino.core.clock import to_epoch
from cappuccino.entrypoints.runner import RunnerSettings, Started, started
from cappuccino.entrypoints.scenario import EXAMPLES, read
from cappuccino.search.packing import pack_of
from cappuccino.search.trials import TrialRow
from tests.bench.report import Summary, number
from tests.bench.window import judged

RESULT = Path("build/bench/real.json")
FAST = {"trials": 4, "timesteps": 16_384}
POLL_SECONDS = 0.5
PARTS = ("training", "judging", "starting", "not known")  # of the workers' time
Figures = dict[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def measure(bars: Path, *, fast: bool = False) -> Figures:
    """Of a file that has the symbols and the range of examples/five-minutes. `fast`: few trials and short fits."""
    documents = manifests(bars, **(FAST if fast else {}))
    with tempfile.TemporaryDirectory(prefix="cappuccino-real-") as folder:
        return asyncio.run(_measured(Path(folder), documents)) | {"bars": bars.name, "fast": fast}


def manifests(bars: Path, *, trials: int | None = None, timesteps: int | None = None) -> list[Document]:
    """Those of the example, with this file, and with another size where one is given."""
    documents = read(EXAMPLES / "five-minutes")
    dataset, study, _ = (document["spec"] for document in documents)
    dataset["source"]["file"]["path"] = str(bars.resolve())
    if trials:
        study["budget"]["trials"] = trials
        study["template"]["pack"] = trials // 2
    if timesteps:
        study["strategy"]["parameters"]["total_timesteps"] = str(timesteps)
    return documents


async def _measured(folder: Path, documents: Sequence[Document]) -> Figures:
    load_before, stop, seconds = os.getloadavg()[0], asyncio.Event(), {}
    async with started(RunnerSettings(state=folder)) as services:
        objects = services.cluster.ports.objects
        cluster = asyncio.create_task(services.cluster.run(stop))
        try:
            for document in documents:
                await objects.apply(document)
            for stage, kind in (("data", "Dataset"), ("search", "Study"), ("gates", "Deployment")):
                began = time.monotonic()
                name = next(document["metadata"]["name"] for document in documents if document["kind"] == kind)
                await _ended(services, cluster, Key(kind, "default", name))
                seconds[stage] = time.monotonic() - began
            figures = await _figures(services, documents)
        finally:
            stop.set()
            await asyncio.gather(cluster, return_exceptions=True)
    trials = figures["trials"]
    return {
        "seconds": seconds | {"all": sum(seconds.values())},
        "trials_per_hour": len(trials) / seconds["search"] * 3600,
        "machine": {"cores": os.cpu_count(), "load_before": load_before, "load_after": os.getloadavg()[0]},
        **figures,
    }


async def _ended(services: Started, cluster: asyncio.Task[None], key: Key) -> None:
    """A Study that failed and a Deployment without candidates have ended too: that is a result.

    Raises:
        RuntimeError: it cannot go on, and says why.
    """
    while True:
        if cluster.done():
            cluster.result()
        found = await services.cluster.ports.objects.get(key)
        conditions = {each["type"]: each for each in ((found or {}).get("status") or {}).get("conditions", ())}
        holding = {kind: each for kind, each in conditions.items() if each["status"] == "True"}
        if holding.keys() & ({"Complete", "Failed"} if key.kind == "Study" else {"Ready"}):
            return
        stalled = holding.get("Stalled")
        if stalled:
            if stalled["reason"] in ("NoCandidates", "StudyFailed"):
                return
            raise RuntimeError(f"{key.kind} {key.name} is stalled: {stalled['message']}")
        await asyncio.sleep(POLL_SECONDS)


async def _figures(services: Started, documents: Sequence[Document]) -> Figures:
    ports, blobs = services.cluster.ports, open_blobs(services.artifacts_url)
    uids = {}
    for document in documents:
        found = await ports.objects.get(Key(document["kind"], "default", document["metadata"]["name"]))
        uids[document["kind"]] = (found or {})["metadata"]["uid"]
    study = await ports.record.study(uids["Study"])
    assert study is not None  # its search has ended
    rows = await ports.record.trials(study.uid)
    evidence = await ports.record.evidence(deployment_uid=uids["Deployment"])
    gate_starts_at = to_epoch(study.gate_starts_at)
    return {
        "states": {state: sum(row.state == state for row in rows) for state in sorted({row.state for row in rows})},
        "time": time_spent(rows, pack=StudySpec.model_validate(study.spec).template.pack),
        "candidates": await asyncio.to_thread(judged, blobs, study.snapshot, gate_starts_at, evidence),
        "trials": [_told(row) for row in rows],
    }


def time_spent(rows: Sequence[TrialRow], *, pack: int) -> Figures:
    """Seconds of all workers: `fit` trains and `judge` backtests; `start` is the process, its imports, bars and features.

    `unknown`: of workers none of whose trials came to an end, because all were pruned or had nothing to show for a score.
    """
    spent = {"workers": 0, "all": 0.0, "fit": 0.0, "judge": 0.0, "start": 0.0, "unknown": 0.0}
    for _, block in groupby(rows, key=lambda row: pack_of(rows, row.number, pack=pack)[0].number):
        members = list(block)
        began = min(row.started_at for row in members if row.started_at)
        whole = (max(row.finished_at for row in members if row.finished_at) - began).total_seconds()
        records = [row.result.record for row in members if row.result and "fits" in row.result.record]
        spent["workers"] += 1
        spent["all"] += whole
        if not records:
            spent["unknown"] += whole
            continue
        fits: dict[str, float] = {}
        for fit in (fit for record in records for fit in record["fits"]):
            fits[fit["name"]] = max(fit["seconds"], fits.get(fit["name"], 0.0))
        elapsed = max(record["elapsed_seconds"] for record in records)
        spent["fit"] += sum(fits.values())
        spent["judge"] += elapsed - sum(fits.values())
        spent["start"] += whole - elapsed
    return spent


def _told(row: TrialRow) -> Figures:
    record = row.result.record if row.result else {}
    return {
        "number": row.number,
        "state": row.state,
        "reason": row.reason,
        "sharpe": row.objective,
        "parameters": dict(row.parameters),
        "folds": [
            {name: fold[name] for name in ("sharpe", "hodl_sharpe", "total_return", "hodl_total_return", "closed_trades")}
            for fold in record.get("folds", ())
        ],
    }


def summary(figures: Mapping[str, Any]) -> Summary:
    seconds, spent, states = figures["seconds"], figures["time"], figures["states"]
    parts = (f"{spent[name] / max(spent['all'], 1e-9):.0%}" for name in ("fit", "judge", "start", "unknown"))
    counts = (str(states.get(state, 0)) for state in ("Complete", "Pruned", "Failed"))
    trials, rates = [str(len(figures["trials"])), *counts], [number(seconds["search"]), number(figures["trials_per_hour"])]
    tables: list[Table] = [
        (("trials", "complete", "pruned", "failed", "seconds", "an hour", *PARTS), [[*trials, *rates, *parts]])
    ]
    if figures["candidates"]:
        tables += _of_window(figures)
    notes = [
        f"The search alone; reading the data took {seconds['data']:.0f} s before it, the gates {seconds['gates']:.0f} s after. "
        f"Shares are of the {spent['all']:.0f} seconds of {spent['workers']} workers. Measured once.",
        "Growth and alpha are over the whole window, with 95 % intervals of a bootstrap in blocks of a day; cash has 0."
        if figures["candidates"]
        else "No trial has a score, so that there was nothing to judge.",
    ]
    return Summary(tables=tables, notes=notes)


def _of_window(figures: Mapping[str, Any]) -> list[Table]:
    """What the candidates and HODL made of it, and how the candidates stand to HODL and the gates."""
    runs, verdicts = [], []
    for candidate in figures["candidates"]:
        run, trial = candidate["window"], figures["trials"][candidate["trial"]]
        stopped = f", stopped by {candidate['stopped_by']}" if candidate["stopped_by"] else ""
        runs.append([f"trial {trial['number']}", *_row(run)])
        over_hodl = [
            _percent(run["alpha"]),
            f"{run['alpha']['p']:.3f}" if run["alpha"] else "",
            _percent(run["growth_above_hodl"]),
        ]
        verdicts.append([f"trial {trial['number']}", f"{trial['sharpe']:.2f}", *over_hodl, candidate["verdict"] + stopped])
    runs.append(["HODL", *_row(figures["candidates"][0]["hodl"])])
    return [
        (("in the window", "return", "Sharpe", "drawdown", "closed trades", "exposure", "fees USD", "log growth"), runs),
        (("best trials", "Sharpe in dev", "alpha over HODL", "p", "growth above HODL", "verdict"), verdicts),
    ]


def _row(run: Mapping[str, Any]) -> list[str]:
    return [
        f"{run['total_return']:+.1%}",
        "none" if run["sharpe"] is None else f"{run['sharpe']:.1f}",
        f"{run['max_drawdown']:.1%}",
        str(run["closed_trades"]),
        f"{run['exposure']:.0%}",
        f"{run['fees_usd']:.0f}",
        _percent(run["growth"]),
    ]


def _percent(found: Mapping[str, Any] | None) -> str:
    """Over the window."""
    if found is None:
        return "not to be tested"
    window = found["window"]
    return f"{window['estimate']:+.1%} ({window['low']:+.1%} to {window['high']:+.1%})"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=Path, required=True, help="symbol, ts, open, high, low, close, volume of 5 minutes")
    parser.add_argument("--fast", action="store_true", help="few trials and short fits: only that it runs")
    options = parser.parse_args(argv)
    figures = measure(options.bars, fast=options.fast)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    print(f"{summary(figures).markdown()}\n\n{RESULT} has every figure.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
