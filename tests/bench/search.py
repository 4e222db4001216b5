"""Time that pruning saves: one Study run with no pruner, with the median and with ASHA, on a local cluster.

The sampler is random, so that the parameter sets of one seed are the same under every pruner: what differs is which of them
are given up, and what that costs or saves. A trial is a process, as it always is: its start is in the figures. Seconds are
those from the first trial's row to the last one's end, by the record's clock.

    python -m tests.bench.search [--fast]        prints one JSON document
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cappuccino.api.meta import API_VERSION
from cappuccino.controllers.decision import Document, Key
from cappuccino.entrypoints.runner import RunnerSettings, started
from cappuccino.reconcile.ports import Ports
from cappuccino.search.trials import TrialRow

MARKET = {
    "symbols": ["BTC/USD", "ETH/USD", "SOL/USD"],
    "timeframe": "1h",
    "start": "2024-01-01T00:00:00Z",
    "end": "2024-06-20T08:00:00Z",
    "source": {"generator": {"seed": 11, "driftVolatility": 0.0035}},
}
PPO = {"num_envs": "256", "num_steps": "32", "hidden": "32", "network": "shared"}
SPACE = {
    "learning_rate": {"type": "float", "low": 0.0005, "high": 0.02, "log": True},
    "gamma": {"type": "float", "low": 0.8, "high": 0.99},
    "ent_coef": {"type": "float", "low": 0.0001, "high": 0.05, "log": True},
}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"type": "none"},
    "median": {"type": "median", "startupTrials": 4},
    "asha": {"type": "asha", "startupTrials": 2, "reductionFactor": 3, "minFolds": 1},
}
POLL_SECONDS = 0.5


def study(pruner: str, seed: int, *, trials: int, folds: int, timesteps: int) -> Document:
    return {
        "apiVersion": API_VERSION,
        "kind": "Study",
        "metadata": {"name": f"{pruner}-{seed}", "namespace": "default"},
        "spec": {
            "datasetRef": {"name": "market"},
            "strategy": {"kind": "ppo", "parameters": PPO | {"total_timesteps": str(timesteps)}},
            "searchSpace": SPACE,
            "validation": {"folds": folds, "gateBars": 720, "minClosedTrades": 10},
            "sampler": {"type": "random", "seed": seed},
            "pruner": PRUNERS[pruner],
            "budget": {"trials": trials, "maxFailedTrials": trials},
            "parallelism": 2,
            "template": {"costs": {"slippageBps": 5}},
        },
    }


def measure(*, fast: bool = False) -> dict[str, Any]:
    """By pruner: each seed's figures, their medians, and the share of time saved against none."""
    size = {"trials": 8, "folds": 4, "timesteps": 65_536} if fast else {"trials": 24, "folds": 6, "timesteps": 131_072}
    seeds = range(1 if fast else 3)
    with tempfile.TemporaryDirectory() as folder:
        runs = asyncio.run(_runs(Path(folder), seeds, size))
    pruners = {pruner: summary([runs[pruner, seed] for seed in seeds]) for pruner in PRUNERS}
    for figures in pruners.values():
        saved = [
            1 - mine["seconds"] / full["seconds"] for mine, full in zip(figures["runs"], pruners["none"]["runs"], strict=True)
        ]
        figures["time_saved"] = {"median": median(saved), "min": min(saved), "max": max(saved)}
    return {"size": size | {"seeds": len(seeds), "parallelism": 2}, "pruners": pruners}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def spread(name: str) -> dict[str, float]:
        values = [run[name] for run in runs]
        return {"median": median(values), "min": min(values), "max": max(values)}

    return {"runs": list(runs)} | {name: spread(name) for name in ("seconds", "trials_per_hour", "pruned", "best")}


async def _runs(folder: Path, seeds: Sequence[int], size: dict[str, int]) -> dict[tuple[str, int], dict[str, Any]]:
    """One Study after another on one cluster, the pruners in turn for each seed."""
    stop, runs = asyncio.Event(), {}
    async with started(RunnerSettings(state=folder)) as services:
        ports = services.cluster.ports
        cluster = asyncio.create_task(services.cluster.run(stop))
        market = {"apiVersion": API_VERSION, "kind": "Dataset", "metadata": {"name": "market", "namespace": "default"}}
        await ports.objects.apply(market | {"spec": MARKET})
        for seed in seeds:
            for pruner in PRUNERS:
                rows = await _searched(ports, cluster, study(pruner, seed, **size))
                runs[pruner, seed] = figures_of(rows)
        stop.set()
        await cluster
    return runs


async def _searched(ports: Ports, cluster: asyncio.Task[None], document: Document) -> Sequence[TrialRow]:
    """Raises RuntimeError for a Study that did not complete."""
    await ports.objects.apply(document)
    key = Key("Study", "default", document["metadata"]["name"])
    while True:
        if cluster.done():
            cluster.result()
        found = await ports.objects.get(key)
        conditions = {each["type"]: each for each in ((found or {}).get("status") or {}).get("conditions", ())}
        if found and conditions.get("Complete", {}).get("status") == "True":
            return await ports.record.history(found["metadata"]["uid"])
        for kind in ("Failed", "Stalled"):
            if conditions.get(kind, {}).get("status") == "True":
                raise RuntimeError(f"Study {key.name} is {kind}: {conditions[kind]['message']}")
        await asyncio.sleep(POLL_SECONDS)


def figures_of(rows: Sequence[TrialRow]) -> dict[str, Any]:
    began = min(row.created_at for row in rows if row.created_at)
    seconds = (max(row.finished_at for row in rows if row.finished_at) - began).total_seconds()
    best = max((row for row in rows if row.objective is not None), key=lambda row: row.objective or 0.0)
    states = [row.state for row in rows]
    return {
        "seconds": seconds,
        "trials_per_hour": len(rows) / seconds * 3600,
        "complete": states.count("Complete"),
        "pruned": states.count("Pruned"),
        "failed": states.count("Failed"),
        "best": best.objective,
        "best_trial": best.number,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one seed and few trials")
    print(json.dumps(measure(fast=parser.parse_args().fast), indent=2))
