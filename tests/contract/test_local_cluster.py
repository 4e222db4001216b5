"""The local cluster as a whole: a controller whose objects want a process each, a runner that is killed, and its successor."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate, open_async_pool
from cappuccino.adapters.postgres.objects import PostgresObjects
from cappuccino.controllers.decision import Document, Key
from cappuccino.core.clock import SystemClock
from cappuccino.core.errors import Conflict, RetryLater
from cappuccino.core.processes import started

PROGRAM = Path(__file__).parent / "cluster_runner.py"


def module() -> Any:
    spec = importlib.util.spec_from_file_location("cluster_runner", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def trader(name: str) -> Document:
    return {
        "apiVersion": "cappuccino.dev/v1alpha1",
        "kind": "Trader",
        "metadata": {"name": name, "finalizers": ["cappuccino.dev/flatten"]},
        "spec": {"venue": {"kind": "simulated"}, "bundleDigest": "a" * 64, "account": name},
    }


@pytest.fixture
async def objects(database_url: str) -> AsyncIterator[PostgresObjects]:
    pool = await open_async_pool(database_url, "operator")
    yield PostgresObjects(pool, clock=SystemClock())
    await pool.close()


def pids(folder: Path) -> list[int]:
    path = folder / "begun"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


async def until(test: Any) -> None:
    async with asyncio.timeout(60):
        while not (await test() if asyncio.iscoroutinefunction(test) else test()):
            await asyncio.sleep(0.02)


async def test_a_killed_runner_and_its_successor_lose_and_double_nothing(
    database_url: str, objects: PostgresObjects, tmp_path: Path
) -> None:
    for _ in range(3):
        count = len(pids(tmp_path))
        with subprocess.Popen([sys.executable, str(PROGRAM), database_url, str(tmp_path)]) as runner:
            try:
                await objects.apply(trader("t"))
                await until(lambda before=count: len(pids(tmp_path)) > before)
            finally:
                runner.kill()
    stop = asyncio.Event()
    running = asyncio.create_task(module().main(database_url, tmp_path, stop))
    await until(lambda: len(pids(tmp_path)) == 4 and started(pids(tmp_path)[-1]) is not None)
    assert [started(pid) for pid in pids(tmp_path)[:-1]] == [None, None, None]
    assert not (tmp_path / "double").exists()

    async def told() -> bool:
        document = await objects.get(Key("Trader", "default", "t"))
        return document is not None and document.get("status", {}).get("restarts", 0) >= 3

    await until(told)
    await objects.delete(Key("Trader", "default", "t"))

    async def gone() -> bool:
        return await objects.get(Key("Trader", "default", "t")) is None

    await until(gone)
    assert started(pids(tmp_path)[-1]) is None
    stop.set()
    await running


async def test_a_second_runner_on_the_database_is_refused(database_url: str, tmp_path: Path) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(module().main(database_url, tmp_path, stop))
    await until(lambda: (tmp_path / "running").exists())
    with pytest.raises(Conflict, match="another runner"):
        await module().main(database_url, tmp_path, asyncio.Event())
    stop.set()
    await running


@pytest.mark.slow
async def test_a_database_that_is_killed_under_a_runner_is_waited_for_and_its_workloads_go_on(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "pg") as server:
        migrate(server.url())
        stop = asyncio.Event()
        running = asyncio.create_task(module().main(server.url(), tmp_path, stop))
        await until(lambda: (tmp_path / "running").exists())
        pool = await open_async_pool(server.url(), "operator")
        objects = PostgresObjects(pool, clock=SystemClock())
        await objects.apply(trader("t"))
        await until(lambda: len(pids(tmp_path)) == 1)
        os.kill(int((tmp_path / "pg/data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        async with asyncio.timeout(60):
            while True:
                try:
                    await objects.apply({**trader("t"), "metadata": {"name": "t", "labels": {"back": "yes"}}})
                    break
                except RetryLater:
                    await asyncio.sleep(0.1)
        assert not running.done()
        assert started(pids(tmp_path)[0]) is not None  # a workload does not depend on the runner's database
        await objects.patch_metadata(
            Key("Trader", "default", "t"),
            uid=(await objects.list("Trader"))[0]["metadata"]["uid"],
            finalizers=["cappuccino.dev/flatten"],
        )
        await objects.delete(Key("Trader", "default", "t"))

        async def gone() -> bool:
            return await objects.get(Key("Trader", "default", "t")) is None

        await until(gone)
        await pool.close()
        stop.set()
        await running
