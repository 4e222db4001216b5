"""Plays the kubelet and what runs in its pods: a pod is started, its program does its writing to the record, the pod ends.

The Job and StatefulSet controllers are real and make the pods; no node is there, so nobody else touches them. What a program
writes goes to the real record under the role that its pod would have.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from tests.scale.api import PODS, Api

LEASE_SECONDS = 30
SYMBOLS = ["BTC/USD", "ETH/USD"]
FIRST_BAR, BARS, HOUR = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()), 3000, 3600
SNAPSHOT = "a" * 64


@dataclass
class Events:
    """When (monotonic) the world outside the operator did what the operator must then tell."""

    running: dict[str, float] = field(default_factory=dict)  # a Trial's pod, by the Trial's name
    result: dict[str, float] = field(default_factory=dict)  # a Trial's result row
    leased: dict[str, float] = field(default_factory=dict)  # a Trader's account, its pod running
    halted: dict[str, float] = field(default_factory=dict)


class Kubelet:
    """A pod takes `start_seconds` to run; a trial then trains between a half and one and a half times `train_seconds`."""

    def __init__(self, api: Api, database_url: str, *, start_seconds: float, train_seconds: float, bar_seconds: float) -> None:
        self.events = Events()
        self._api = api
        self._database_url = database_url
        self._start_seconds = start_seconds
        self._train_seconds = train_seconds
        self._bar_seconds = bar_seconds
        self._lives: dict[str, asyncio.Task[None]] = {}  # by the pod's uid
        self._tokens: dict[str, int] = {}  # by account, of the traders that run
        self._random = random.Random(1)
        self._sessions: dict[str, AsyncConnection[Any]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._trade())
            async for event, pod in self._api.watch(PODS, labelSelector="app.kubernetes.io/managed-by=cappuccino"):
                uid, metadata = pod["metadata"]["uid"], pod["metadata"]
                if event == "DELETED" or "deletionTimestamp" in metadata:
                    if (life := self._lives.pop(uid, None)) is not None:
                        life.cancel()
                elif uid not in self._lives and pod["status"]["phase"] == "Pending":
                    self._lives[uid] = group.create_task(self._live(pod))

    async def _live(self, pod: dict[str, Any]) -> None:
        arguments = pod["spec"]["containers"][0]["args"]
        path, given = f"{PODS}/{pod['metadata']['name']}/status", dict(zip(arguments[1::2], arguments[2::2], strict=False))
        await asyncio.sleep(self._start_seconds)
        started = _now()
        programs: dict[str, Coroutine[Any, Any, None]] = {
            "train": self._train(pod, given),
            "ingest": self._ingest(given),
            "trade": self._open(pod, given),
        }
        program = programs.pop(arguments[0])
        for other in programs.values():
            other.close()
        await self._api.patch(path, {"status": _running(started)})
        self.events.running[_owner(pod)] = time.monotonic()
        await program
        if arguments[0] != "trade":
            await self._api.patch(path, {"status": _succeeded(started)})

    async def _train(self, pod: dict[str, Any], given: dict[str, str]) -> None:
        await asyncio.sleep(self._train_seconds * self._random.uniform(0.5, 1.5))
        uid, number = given["--study-uid"], int(given["--trials"])
        objective = random.Random(f"{uid}/{number}").gauss(0, 1)
        await self._write(
            "trial",
            "insert into trial_result (study_uid, number, succeeded, reason, objective, bundle_digest, record)"
            " values (%s, %s, true, '', %s, %s, %s) on conflict do nothing",
            [uid, number, objective, f"{number:064x}", Jsonb({"folds": []})],
        )
        self.events.result.setdefault(_owner(pod), time.monotonic())

    async def _ingest(self, given: dict[str, str]) -> None:
        manifest = {
            "symbols": SYMBOLS, "timeframe": "1h", "first_ts": FIRST_BAR, "last_ts": FIRST_BAR + (BARS - 1) * HOUR,
            "bars": BARS, "gaps": [], "quarantined": [],
        }  # fmt: skip
        uid = given["--dataset-uid"]
        await self._write("ingest", "insert into snapshot values (%s, %s, %s)", [SNAPSHOT, uid, Jsonb(manifest)])
        await self._write("ingest", "insert into dataset_snapshot (dataset_uid, digest) values (%s, %s)", [uid, SNAPSHOT])

    # --- traders ------------------------------------------------------------------------------------

    async def _open(self, pod: dict[str, Any], given: dict[str, str]) -> None:
        account = given["--account"]
        rows = await self._write(
            "trader", "select token from account_acquire(%s, 'simulated', %s, %s)", [account, _owner(pod), LEASE_SECONDS]
        )
        self._tokens[account] = rows[0][0]
        self.events.leased.setdefault(_owner(pod), time.monotonic())

    async def _trade(self) -> None:
        """Every trader renews its lease every second and writes its equity once a bar, spread over the bar."""
        written = time.monotonic()
        while True:
            began = time.monotonic()
            if self._tokens:
                await self._write(
                    "trader",
                    "select account_renew(name, name, token, %s) from unnest(%s::text[], %s::bigint[]) as t (name, token)",
                    [LEASE_SECONDS, list(self._tokens), list(self._tokens.values())],
                )
                share = min(1.0, (began - written) / self._bar_seconds)
                due = self._random.sample(sorted(self._tokens), k=round(share * len(self._tokens)))
                written = began if due else written
                await self._write(
                    "trader",
                    "insert into equity (account, bar_at, equity_usd, cash_usd, positions)"
                    " select name, clock_timestamp(), 10000 + random() * 100, 5000, '{}' from unnest(%s::text[]) as t (name)",
                    [due],
                )
            await asyncio.sleep(max(0.0, began + 1.0 - time.monotonic()))

    async def halt(self, account: str) -> None:
        await self._write("trader", "select account_halt(%s, 'drawdown', 'trader')", [account])
        self.events.halted[account] = time.monotonic()

    # --- the record ---------------------------------------------------------------------------------

    async def _write(self, role: str, statement: str, arguments: list[Any]) -> list[Any]:
        """One connection for each role."""
        async with self._locks.setdefault(role, asyncio.Lock()):
            if role not in self._sessions:
                session = await psycopg.AsyncConnection.connect(self._database_url, autocommit=True)
                await session.execute(f"set role cappuccino_{role}".encode())
                self._sessions[role] = session
            cursor = await self._sessions[role].execute(statement.encode(), arguments)
            return await cursor.fetchall() if cursor.description else []


def _owner(pod: dict[str, Any]) -> str:
    """The name of the Trial, Trader or Dataset whose pod it is: a Job and a StatefulSet are called as what they serve."""
    return str(pod["metadata"]["ownerReferences"][0]["name"])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _running(started: str) -> dict[str, Any]:
    return {
        "phase": "Running",
        "startTime": started,
        "conditions": [
            {"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [_container({"running": {"startedAt": started}}, ready=True)],
    }


def _succeeded(started: str) -> dict[str, Any]:
    end = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": _now(), "containerID": "fake://1"}
    return {"phase": "Succeeded", "containerStatuses": [_container({"terminated": end}, ready=False)]}


def _container(state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    named = {"name": "worker", "image": "fake", "imageID": "fake"}
    return {**named, "ready": ready, "started": ready, "restartCount": 0, "state": state}
