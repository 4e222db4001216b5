"""`helm test` without Kubernetes: the same program over the local cluster's objects, against the chart's own market."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappuccino.adapters.local.cluster import LocalCluster
from cappuccino.controllers.trader import FINALIZER
from cappuccino.core.errors import InvalidInput, NotFound, RetryLater
from cappuccino.entrypoints import runner, smoke
from cappuccino.entrypoints.settings import DATABASE_URL, EXCHANGE_URL, SPEC
from cappuccino.reconcile.observers import DEPLOYMENT_LABEL
from tests.unit.controllers import builders as build

ROOT = Path(__file__).resolve().parents[2]
VALUES = yaml.safe_load((ROOT / "charts/cappuccino/values.yaml").read_text())
MARKET = json.dumps(VALUES["exchange"]["market"])
SYMBOL = VALUES["test"]["symbol"]


@pytest.fixture(scope="module")
def exchange() -> Iterator[str]:
    """URL of the simulated exchange, as the chart starts it."""
    values = VALUES["exchange"]
    arguments = [f"--start={values['start']}", f"--speed={values['speed']}", f"--start-with={values['startWith']}"]
    command = [sys.executable, "-m", "cappuccino.entrypoints.worker", "exchange", "--market", "--port=0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, SPEC: MARKET}) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGTERM)


@contextlib.asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    until = asyncio.Event()
    async with runner.started(runner.RunnerSettings(state=tmp_path)) as services:
        running = asyncio.create_task(services.cluster.run(until))
        yield services.cluster
        until.set()
        await running


def made(cluster: LocalCluster, said: list[str]) -> smoke.Smoke:
    return smoke.Smoke(objects=cluster.ports.objects, namespace="default", name="test-0", say=said.append)


async def left(cluster: LocalCluster) -> list[Any]:
    kinds = ("Dataset", "Study", "Trial", "Deployment", "Trader")
    return [document["metadata"]["name"] for kind in kinds for document in await cluster.ports.objects.list(kind)]


@pytest.fixture
def services(exchange: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXCHANGE_URL, exchange)
    monkeypatch.setenv(DATABASE_URL, database_url)


@pytest.mark.slow
async def test_a_trial_comes_through_to_a_halted_trader_and_nothing_is_left(tmp_path: Path, services: None) -> None:
    said: list[str] = []
    async with cluster(tmp_path) as local:
        await smoke.attempt(made(local, said), smoke.dataset(MARKET, SYMBOL), seconds=120)
        assert await left(local) == []
    states = "\n".join(said)
    for reached in ("Dataset test-0: Ready True", "Complete True", "Ready True (Trading", "Halted True (Latched: helm test)"):
        assert reached in states


async def test_a_step_that_cannot_come_ends_the_run_with_its_reason_and_is_cleaned_up(tmp_path: Path, services: None) -> None:
    """A Study that asks for more bars than its Dataset has."""
    short = smoke.dataset(MARKET, SYMBOL).model_copy(update={"end": "2024-01-05T00:00:00Z"})
    async with cluster(tmp_path) as local:
        with pytest.raises(InvalidInput, match=r"Study test-0 is (Stalled|Failed), not Complete: .*bars"):
            await smoke.attempt(made(local, []), short, seconds=60)
        assert await left(local) == []


async def test_time_that_is_up_ends_the_run_and_is_cleaned_up(tmp_path: Path, services: None) -> None:
    async with cluster(tmp_path) as local:
        with pytest.raises(RetryLater, match="not through within 1 s"):
            await smoke.attempt(made(local, []), smoke.dataset(MARKET, SYMBOL), seconds=1)
        assert await left(local) == []


async def test_what_cannot_be_deleted_is_said(tmp_path: Path, services: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reconciles here, so that a Trader's finalizer stays."""
    monkeypatch.setattr(smoke, "CLEAN_SECONDS", 1.0)
    async with runner.started(runner.RunnerSettings(state=tmp_path)) as started:
        run = made(started.cluster, [])
        metadata = {"name": "one", "namespace": "default", "labels": {DEPLOYMENT_LABEL: run.name}, "finalizers": [FINALIZER]}
        await run.objects.create(build.trader().to_json() | {"metadata": metadata})
        with pytest.raises(RetryLater, match="test-0 is not deleted after 1 s: see the events of its Trader"):
            await smoke.attempt(run, smoke.dataset(MARKET, SYMBOL), seconds=1)


async def test_an_object_that_somebody_deletes_is_missed(tmp_path: Path, services: None) -> None:
    async with cluster(tmp_path) as local:
        run = made(local, [])
        with pytest.raises(NotFound, match="Dataset test-0 is gone"):
            await run._reached("Dataset", "test-0", "Ready")


def test_a_market_without_the_symbol_or_with_too_few_bars_is_refused() -> None:
    with pytest.raises(InvalidInput, match="DOGE/USD is not a symbol of the exchange's market"):
        smoke.dataset(MARKET, "DOGE/USD")
    short = json.dumps({**VALUES["exchange"]["market"], "end": "2024-02-01T00:00:00Z"})
    with pytest.raises(InvalidInput, match="the test needs 1200 bars, to 2024-02-20T00:00:00Z"):
        smoke.dataset(short, SYMBOL)
