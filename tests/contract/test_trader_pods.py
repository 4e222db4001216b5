"""Traders that share a process, on the local cluster: the real controllers, the real runner, the real exchange."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.bundle import save
from cappuccino.controllers import pod, trader
from cappuccino.controllers.decision import Document, Key
from cappuccino.entrypoints import cli
from cappuccino.entrypoints.runner import RunnerSettings, started
from cappuccino.reconcile.ports import Objects
from tests.unit.trading.processes import Exchange, bundle, write_bars
from tests.unit.trading.test_kills import journal, referee

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

HISTORY, BARS = 60, 2000
NAME = pod.workload_name("default", "shared")


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    path = write_bars(tmp_path / "bars.parquet", bars=HISTORY + BARS, sd=0.02)
    running = Exchange.start(path, history=HISTORY, arguments=("--speed", "3"))
    yield running
    running.stop()


@asynccontextmanager
async def cluster(database_url: str, folder: Path, exchange: Exchange, patch: pytest.MonkeyPatch) -> AsyncIterator[Objects]:
    patch.setenv("CAPPUCCINO_DATABASE_URL", database_url)
    patch.setenv("CAPPUCCINO_EXCHANGE_URL", exchange.url)
    for module in (pod, trader):
        patch.setattr(module, "SETTLED_SECONDS", 0.7)
    stop = asyncio.Event()
    async with started(RunnerSettings(state=folder)) as services:
        running = asyncio.create_task(services.cluster.run(stop))
        try:
            yield services.cluster.ports.objects
        finally:
            stop.set()
            await running


def manifest(name: str, digest: str) -> Document:
    return {
        "apiVersion": "cappuccino.dev/v1alpha1",
        "kind": "Trader",
        "metadata": {"name": name},
        "spec": {"venue": {"kind": "simulated"}, "bundleDigest": digest, "account": f"of-{name}", "pod": "shared"},
    }


async def until(true: Callable[[], Awaitable[Any]], *, seconds: float = 60.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await true()):
            await asyncio.sleep(0.05)
    return found


def fills(url: str, account: str) -> list[tuple[Any, ...]]:
    columns = "execution_id, client_order_id, symbol, side, qty, price, fee"
    return journal(url, f"select {columns} from fill where account = '{account}' order by filled_at")


async def test_traders_of_one_pod_trade_in_one_process_come_go_and_survive_its_kill(
    database_url: str, exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = save(open_blobs((tmp_path / "state" / "artifacts").as_uri()), bundle())

    def process() -> tuple[int, list[str]] | None:
        """Its pid and whom it serves. There is never a second one."""
        with psycopg.connect(database_url) as connection:
            rows = connection.execute(
                "select name, pid, spec -> 'keys' from workload where name not like '%.farewell'"
            ).fetchall()
        assert {name for name, _, _ in rows} <= {NAME}
        return (rows[0][1], [name for _, _, name in rows[0][2]]) if rows and rows[0][1] else None

    async with cluster(database_url, tmp_path / "state", exchange, monkeypatch) as objects:

        async def conditions(name: str) -> dict[str, tuple[str, str]]:
            document = await objects.get(Key("Trader", "default", name)) or {}
            return {c["type"]: (c["status"], c["reason"]) for c in document.get("status", {}).get("conditions", ())}

        async def trading(*names: str, besides: tuple[str, ...] = ()) -> bool:
            alive = process()
            if alive is None or alive[1] != sorted([*names, *besides]):
                return False
            return all([(await conditions(name)).get("Ready") == ("True", "Trading") for name in names])

        async def traded_on(*names: str) -> None:
            before = {name: len(fills(database_url, f"of-{name}")) for name in names}

            async def more() -> bool:
                return all(len(fills(database_url, f"of-{name}")) > before[name] for name in names)

            await until(more)

        for name in ("a", "b", "c"):
            await objects.apply(manifest(name, digest))
        await until(lambda: trading("a", "b", "c"))
        exchange.go()
        await traded_on("a", "b", "c")

        await objects.apply(manifest("d", digest))
        await objects.apply(manifest("wrong", "0" * 64))
        await until(lambda: trading("a", "b", "c", "d", besides=("wrong",)))
        await traded_on("a", "b", "c", "d")
        assert (await conditions("wrong"))["Stalled"] == ("True", "Refused")

        state = str(tmp_path / "state")
        assert await asyncio.to_thread(cli.main, ["logs", "trader/b", "--tail", "-1", "--state", state]) == 0
        assert '"account": "of-b"' in capsys.readouterr().out

        alive = process()
        assert alive is not None
        os.kill(alive[0], signal.SIGKILL)
        await traded_on("a", "b", "c", "d")
        again = process()
        assert again is not None
        assert again[0] != alive[0]

        for name in ("b", "wrong"):
            await objects.delete(Key("Trader", "default", name))

        async def gone() -> bool:
            return not [name for name in ("b", "wrong") if await objects.get(Key("Trader", "default", name))]

        await until(gone)
        assert not exchange.ledger("of-b")["positions"]
        await until(lambda: trading("a", "c", "d"))
        await traded_on("a", "c", "d")

        for name in ("a", "c", "d"):
            await objects.delete(Key("Trader", "default", name))

        async def all_gone() -> bool:
            return not await objects.list("Trader")

        await until(all_gone)
        assert process() is None

    for name in ("a", "b", "c", "d"):
        book = sorted(referee(exchange, f"of-{name}"))
        assert sorted(fills(database_url, f"of-{name}")) == book
        assert len(book) > 3
        assert not exchange.ledger(f"of-{name}")["positions"]
