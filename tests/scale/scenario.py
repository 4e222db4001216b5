"""What is asked of the operator, phase by phase, and what of it goes into the table."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.scale import counters
from tests.scale.api import OURS, Api
from tests.scale.kubelet import SYMBOLS, Events, Kubelet
from tests.scale.report import MEMORY_MB, RESTART_SECONDS, WRITES_PER_TRIAL, Report
from tests.scale.stage import Operator, Usage
from tests.scale.witness import Witness, delays, study_delays

KEPT = 100  # Trial objects of a Study, at most a tenth of them
TRIALS_EACH = 20  # of the many Studies, two at a time
STEADY_SECONDS = 150.0
HALTS = 50
APPLIED_PER_SECOND = 5.0  # Traders: as a script would


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """`past`: how many Trials the one Study has after its budget is raised; as many as `trials`: it is not."""

    trials: int
    past: int
    parallelism: int
    traders: int
    studies: int


class Scenario:
    def __init__(self, api: Api, operator: Operator, kubelet: Kubelet, witness: Witness, sizes: Sizes, report: Report) -> None:
        self._api = api
        self._operator = operator
        self._kubelet = kubelet
        self._seen = witness.seen
        self._sizes = sizes
        self._report = report
        self._peak_mb = 0.0

    @property
    def _events(self) -> Events:
        return self._kubelet.events

    async def one_study(self) -> None:
        sizes, report = self._sizes, self._report
        await self._api.create(f"{OURS}/datasets", _dataset())
        await self._until("the Dataset is ready", self._dataset_is_ready, within=60)
        before, began = await self._counts(), time.monotonic()
        await self._api.create(
            f"{OURS}/studies", _study("search", trials=sizes.trials, parallelism=sizes.parallelism, kept=sizes.past)
        )
        await self._until("some trials are done", lambda: len(self._seen.complete) >= sizes.trials / 20, within=900)
        early = await self._size("studies/search")
        await self._complete("search", sizes.trials)
        seconds = time.monotonic() - began
        usage, counted = self._usage(), since(before, await self._counts())
        what = f"{sizes.trials} Trials at parallelism {sizes.parallelism}"
        report.add(what, f"{sizes.trials / seconds:.1f} trials/s, {seconds:.0f} s")
        self._tell_delays()
        self._tell_calls(counted, sizes.trials)
        grown = await self._size("studies/search") - early
        report.add("Growth of the Study from 5 % to all of its Trials", f"{grown} bytes", wanted="digits", met=grown < 40)
        report.add("Operator: CPU per Trial", f"{(usage.cpu_seconds) / sizes.trials * 1000:.0f} ms")
        self._tell_memory(f"Operator: memory with {sizes.trials} Trial objects", usage)
        report.figures["one_study"] = {"trials": sizes.trials, "seconds": round(seconds, 1), **counted}

    async def past_the_mark(self) -> None:
        """On with the same Study, its budget raised while it is complete."""
        sizes = self._sizes
        began = time.monotonic()
        await self._api.patch(f"{OURS}/studies/search", {"spec": {"budget": {"trials": sizes.past}}})
        await self._complete("search", sizes.past)
        seconds, more = time.monotonic() - began, sizes.past - sizes.trials
        self._report.add(f"On to {sizes.past} Trials of one Study", f"{more / seconds:.1f} trials/s, {seconds:.0f} s")
        late = [at for name, at in self._events.result.items() if at >= began]
        self._report.delays(f"Result -> Trial status, Trials {sizes.trials} to {sizes.past}", self._trial_delays(began))
        assert len(late) == more
        self._tell_memory(f"Operator: memory with {sizes.past} Trial objects", self._usage())

    async def restart(self) -> None:
        objects = len(self._seen.created) - len(self._seen.deleted)
        self._operator.kill()
        seconds = await asyncio.to_thread(self._operator.start)
        what = f"Killed and started again with {objects} Trials: ready"
        self._report.add(what, f"{seconds:.1f} s", wanted=f"< {RESTART_SECONDS:g} s", met=seconds < RESTART_SECONDS)
        began = time.monotonic()
        await self._until("the queue is empty", self._queue_is_empty, within=600)
        self._report.add("and has looked at each of them after", f"{time.monotonic() - began:.1f} s more")
        self._tell_memory("Operator: memory after the restart", self._usage())

    async def surplus(self) -> None:
        """The Trials that were kept go, as they do one by one in a Study that keeps few."""
        began, before, there = time.monotonic(), await self._counts(), self._sizes.past
        kept = min(KEPT, there // 10)
        await self._api.patch(f"{OURS}/studies/search", {"spec": {"finishedTrialsKept": kept}})
        await self._until("surplus Trials are gone", lambda: len(self._seen.deleted) >= there - kept, within=1200)
        writes = counters.writes(since(before, await self._counts())["operator"])
        each = sum(writes.values()) / (there - kept)
        self._report.add(f"{there - kept} surplus Trials deleted", f"{time.monotonic() - began:.0f} s, {each:.2f} writes each")
        self._report.figures["surplus"] = {"writes": writes}

    async def many_studies(self) -> None:
        count, before, began = self._sizes.studies, await self._counts(), time.monotonic()
        names = [f"many-{n:03d}" for n in range(count)]
        for name in names:
            await self._api.create(f"{OURS}/studies", _study(name, trials=TRIALS_EACH, parallelism=2, kept=KEPT))
        await self._until("all Studies are complete", lambda: all(n in self._seen.done for n in names), within=1800)
        seconds, trials = time.monotonic() - began, count * TRIALS_EACH
        what = f"{count} Studies of {TRIALS_EACH} Trials, 2 at a time each"
        self._report.add(what, f"{trials / seconds:.1f} trials/s, {seconds:.0f} s")
        self._report.delays("Result -> Trial status, many Studies", self._trial_delays(began))
        counted = since(before, await self._counts())
        writes = counters.writes(counted["operator"])
        per_trial = sum(writes.values()) / trials
        self._report.add(
            "Operator's own API writes per Trial, many Studies", f"{per_trial:.2f}",
            wanted=f"<= {WRITES_PER_TRIAL:g}", met=per_trial <= WRITES_PER_TRIAL,
        )  # fmt: skip
        self._report.figures["many_studies"] = counted

    async def traders(self) -> None:
        count, report, began = self._sizes.traders, self._report, time.monotonic()
        names = [f"desk-{n:04d}" for n in range(count)]
        for number, name in enumerate(names):
            await self._api.create(f"{OURS}/traders", _trader(name))
            await asyncio.sleep(max(0.0, began + number / APPLIED_PER_SECOND - time.monotonic()))
        await self._until("all Traders are ready", lambda: len(self._seen.ready) >= count, within=900)
        report.add(
            f"{count} Traders applied, {APPLIED_PER_SECOND:g} a second", f"all trade after {time.monotonic() - began:.0f} s"
        )
        report.delays("Account leased, pod running -> Trader Ready", delays(self._events.leased, self._seen.ready))
        await self._until("the queue is empty", self._queue_is_empty, within=300)
        told, before, usage = dict(self._seen.told), await self._counts(), self._usage()
        await asyncio.sleep(STEADY_SECONDS)
        minutes = STEADY_SECONDS / 60
        written = sum(self._seen.told.values()) - sum(told.values())
        each = written / count / minutes
        report.add("Status writes per Trader and minute, trading", f"{each:.2f}", wanted="<= 1", met=each <= 1.0)
        now = self._usage()
        busy = (now.cpu_seconds - usage.cpu_seconds) / STEADY_SECONDS
        report.add(f"Operator: CPU while {count} Traders trade", f"{busy * 100:.0f} % of a core")
        report.figures["traders"] = since(before, await self._counts())
        halted = names[:: max(1, count // HALTS)][:HALTS]
        for name in halted:
            await self._kubelet.halt(name)
            await asyncio.sleep(0.1)
        await self._until("halts are told", lambda: all(n in self._seen.halted for n in halted), within=120)
        report.delays("Halted in the record -> Trader Halted", delays(self._events.halted, self._seen.halted))
        self._tell_memory(f"Operator: memory with {count} Traders besides", self._usage())

    # --- what the phases share ----------------------------------------------------------------------

    async def _complete(self, study: str, trials: int) -> None:
        """Until it is, with a line every half minute; not a moment longer than nothing has happened for three minutes."""
        shown, moved, last = time.monotonic(), time.monotonic(), -1
        while study not in self._seen.done or len(self._seen.complete) < trials:
            await asyncio.sleep(0.2)
            now, done = time.monotonic(), len(self._seen.complete)
            moved, last = (now, done) if done != last else (moved, last)
            assert now - moved < 180, f"{done} of {trials} trials are complete and none has been for three minutes"
            if now - shown > 30:
                usage = self._usage()
                print(f"  {done} of {trials}, operator {usage.rss_mb:.0f} MB, {usage.cpu_seconds:.0f} CPU s", flush=True)
                shown = now

    def _trial_delays(self, since: float = 0.0) -> list[float]:
        return delays(self._events.result, self._seen.complete, since=since)

    def _tell_delays(self) -> None:
        report = self._report
        report.delays("Pod runs -> Trial status", delays(self._events.running, self._seen.running))
        report.delays("Result -> Trial status", self._trial_delays())
        report.delays("Result -> counted in the Study's status", study_delays(self._events, self._seen, "search"))

    def _tell_calls(self, counted: dict[str, dict[str, int]], trials: int) -> None:
        own = counted["operator"]
        writes, reads = counters.writes(own), sum(own.values()) - sum(counters.writes(own).values())
        per_trial = sum(writes.values()) / trials + 1  # and its deletion, which is measured later
        met = per_trial <= WRITES_PER_TRIAL
        parts = ", ".join(f"{name} {count / trials:.2f}" for name, count in sorted(writes.items()))
        self._report.add(
            "Operator's own API writes per Trial, deletion included",
            f"{per_trial:.2f}",
            wanted=f"<= {WRITES_PER_TRIAL:g}",
            met=met,
        )
        print(f"  {parts}", flush=True)
        server = sum(count for name, count in counted["server"].items()) / trials + 1
        self._report.add("The same as the API server counts it, without Events", f"{server:.2f}")
        self._report.add("Operator's API reads per Trial", f"{reads / trials:.2f}")

    def _tell_memory(self, what: str, usage: Usage) -> None:
        measured = f"{usage.rss_mb:.0f} MB, at most {usage.peak_mb:.0f}"
        self._report.add(what, measured, wanted=f"< {MEMORY_MB:g} MB", met=usage.peak_mb < MEMORY_MB)

    def _usage(self) -> Usage:
        return self._operator.usage()

    async def _counts(self) -> dict[str, dict[str, int]]:
        own = await asyncio.to_thread(self._operator.metrics)
        return {"operator": counters.own_calls(own), "server": counters.server_writes(await self._api.text("/metrics"))}

    async def _queue_is_empty(self) -> bool:
        return counters.value(await asyncio.to_thread(self._operator.metrics), "cappuccino_queue_depth") == 0

    async def _dataset_is_ready(self) -> bool:
        status = (await self._api.get(f"{OURS}/datasets/market")).get("status") or {}
        return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))

    async def _size(self, path: str) -> int:
        return len(json.dumps(await self._api.get(f"{OURS}/{path}")))

    @staticmethod
    async def _until(what: str, test: Callable[[], Any], *, within: float) -> None:
        deadline = time.monotonic() + within
        while True:
            answer = test()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            assert time.monotonic() < deadline, f"{what}: not within {within:g} s"
            await asyncio.sleep(0.1)


def since(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {name: counters.since(before[name], after[name]) for name in after}


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "cappuccino.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _dataset() -> dict[str, Any]:
    source = {"generator": {"seed": 1}}
    spec = {"symbols": SYMBOLS, "source": source, "start": "2024-01-01T00:00:00Z", "end": "2024-05-01T00:00:00Z"}
    return _object("Dataset", "market", spec)


def _study(name: str, *, trials: int, parallelism: int, kept: int) -> dict[str, Any]:
    space = {
        "enter": {"type": "float", "low": 0.001, "high": 0.02, "log": True},
        "exit": {"type": "float", "low": 0.0, "high": 0.01},
        "lookback": {"type": "int", "low": 2, "high": 48},
        "weight": {"type": "float", "low": 0.1, "high": 1.0},
        "side": {"type": "categorical", "choices": ["long", "both", "flat"]},
    }
    spec = {
        "datasetRef": {"name": "market"},
        "strategy": {"kind": "trend", "parameters": {"feature": "return"}},
        "searchSpace": space,
        "budget": {"trials": trials, "maxFailedTrials": 0},
        "parallelism": parallelism,
        "finishedTrialsKept": kept,
        "validation": {"folds": 2, "gateBars": 720, "gapBars": 48},
        "pruner": {"type": "none"},
    }
    return _object("Study", name, spec)


def _trader(name: str) -> dict[str, Any]:
    spec = {"venue": {"kind": "simulated"}, "mode": "paper", "bundleDigest": "b" * 64, "account": name}
    return _object("Trader", name, spec)
