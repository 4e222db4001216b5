"""Watches the API server as any client does and compares when a status said something with when it happened.

Times include the watch's own way to this process. Nothing here asks the operator.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.scale.api import OURS, Api
from tests.scale.kubelet import Events


@dataclass
class Seen:
    """First sights (monotonic), by name."""

    created: dict[str, float] = field(default_factory=dict)  # Trials
    running: dict[str, float] = field(default_factory=dict)
    complete: dict[str, float] = field(default_factory=dict)
    counted: list[tuple[float, str, int]] = field(default_factory=list)  # a Study's status: when, which, how many complete
    done: dict[str, float] = field(default_factory=dict)  # Studies
    ready: dict[str, float] = field(default_factory=dict)  # Traders
    halted: dict[str, float] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)  # status writes, by Trader
    deleted: set[str] = field(default_factory=set)  # Trials


class Witness:
    def __init__(self, api: Api) -> None:
        self.seen = Seen()
        self._api = api

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._trials())
            group.create_task(self._studies())
            group.create_task(self._traders())

    async def _trials(self) -> None:
        seen = self.seen
        async for event, trial in self._api.watch(f"{OURS}/trials"):
            name, status, at = trial["metadata"]["name"], trial.get("status") or {}, time.monotonic()
            seen.created.setdefault(name, at)
            if event == "DELETED":
                seen.deleted.add(name)
            if status.get("workload") == "Running":
                seen.running.setdefault(name, at)
            if _holds(status, "Complete") or _holds(status, "Failed"):
                seen.complete.setdefault(name, at)

    async def _studies(self) -> None:
        async for _, study in self._api.watch(f"{OURS}/studies"):
            name, status, at = study["metadata"]["name"], study.get("status") or {}, time.monotonic()
            if counts := status.get("trials"):
                self.seen.counted.append((at, name, counts["complete"]))
            if _holds(status, "Complete"):
                self.seen.done[name] = at
            else:
                self.seen.done.pop(name, None)

    async def _traders(self) -> None:
        seen, last = self.seen, dict[str, str]()
        async for _, trader in self._api.watch(f"{OURS}/traders"):
            name, status, at = trader["metadata"]["name"], trader.get("status") or {}, time.monotonic()
            text = json.dumps(status)
            if status and last.get(name) != text:
                seen.told[name] = seen.told.get(name, 0) + 1
                last[name] = text
            if _holds(status, "Ready"):
                seen.ready.setdefault(name, at)
            if _holds(status, "Halted"):
                seen.halted.setdefault(name, at)


def delays(events: dict[str, float], seen: dict[str, float], *, since: float = 0.0) -> list[float]:
    """Seconds from each event after `since` to its status, which may be a moment before this process knew of its own event."""
    return [max(0.0, seen[name] - at) for name, at in events.items() if at >= since and name in seen]


def study_delays(events: Events, seen: Seen, study: str, *, since: float = 0.0) -> list[float]:
    """Seconds from each result after `since` to the first status of the Study that counts as many."""
    results = sorted(at for name, at in events.result.items() if name.startswith(f"{study}-"))
    told = [(at, count) for at, name, count in seen.counted if name == study]
    counts = [count for _, count in told]
    found = []
    for number, at in enumerate(results, start=1):
        first = bisect.bisect_left(counts, number)
        if first < len(told) and at >= since:
            found.append(max(0.0, told[first][0] - at))
    return found


def _holds(status: dict[str, Any], kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or ())
