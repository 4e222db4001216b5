"""`cappuccino run`: the local cluster in one process, until it is told to end.

It starts what it needs (PostgreSQL in the state folder unless CAPPUCCINO_DATABASE_URL names one; the simulated exchange when
bars are given), brings the schema up to date, and reconciles. Everything it keeps is in the state folder and the database:
killed at any moment and started again by the same command, it goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cappuccino.adapters.local.cluster import LocalCluster
from cappuccino.adapters.local.store import WorkloadRow
from cappuccino.adapters.local.workloads import LocalWorkloads
from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate, open_async_pool
from cappuccino.adapters.postgres.events import PostgresEvents
from cappuccino.adapters.postgres.lock import RunnerLock
from cappuccino.adapters.postgres.objects import PostgresObjects
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.adapters.postgres.workloads import PostgresWorkloadStore
from cappuccino.controllers.decision import Workload
from cappuccino.core.clock import SystemClock
from cappuccino.entrypoints import presence
from cappuccino.entrypoints.settings import (
    ARTIFACTS_URL,
    DATABASE_URL,
    EXCHANGE_TOKEN,
    EXCHANGE_URL,
    REHEARSAL,
    SECRETS,
    state_folder,
)
from cappuccino.entrypoints.wiring import search
from cappuccino.reconcile.observers import controllers
from cappuccino.telemetry.logs import configure, get_logger
from cappuccino.telemetry.traces import exported

EXCHANGE = "exchange"
EXCHANGE_PORT = 8700
# What a child may inherit: its interpreter and its numeric libraries need them. Nothing else of the shell's gets to a trader.
INHERITED = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS", "VIRTUAL_ENV", "CAPPUCCINO_FAILPOINT"),
    *(
        EXCHANGE_TOKEN,
        REHEARSAL,
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
    ),
)


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """exchange: arguments of `cappuccino exchange` (without port and journal), None: no simulated exchange."""

    state: Path
    exchange: tuple[str, ...] | None = None
    exchange_port: int = EXCHANGE_PORT


@dataclass(frozen=True, kw_only=True)
class Started:
    """A cluster with its services, ready to run."""

    cluster: LocalCluster
    database_url: str
    artifacts_url: str
    exchange_url: str


@asynccontextmanager
async def started(settings: RunnerSettings) -> AsyncIterator[Started]:
    """Services up, schema migrated, cluster assembled.

    Raises:
        InvalidInput, Conflict: a folder, a port or a database that cannot be used.
        RetryLater: the database is away.
    """
    state = settings.state
    state.mkdir(parents=True, exist_ok=True)
    server = None if os.environ.get(DATABASE_URL) else EmbeddedServer(state / "postgres")
    database_url = os.environ[DATABASE_URL] if server is None else await asyncio.to_thread(server.start)
    try:
        await asyncio.to_thread(migrate, database_url)
        artifacts_url = os.environ.get(ARTIFACTS_URL) or (state / "artifacts").as_uri()
        own = f"http://127.0.0.1:{settings.exchange_port}"
        exchange_url = own if settings.exchange is not None else os.environ.get(EXCHANGE_URL) or own
        pool = await open_async_pool(database_url, "operator", max_size=8)
        try:
            clock = SystemClock()
            workloads = LocalWorkloads(
                PostgresWorkloadStore(pool, WorkloadRow),
                command=(sys.executable, "-m", "cappuccino.entrypoints.worker"),
                environment=_environment(database_url, artifacts_url, exchange_url),
                secrets=(SECRETS, Path(os.environ.get(SECRETS) or state / "secrets")),
                log_directory=state / "logs",
                clock=clock,
            )
            cluster = LocalCluster(
                objects=PostgresObjects(pool, clock=clock),
                record=PostgresRecord(pool),
                events=PostgresEvents(pool),
                workloads=workloads,
                controllers=lambda ports: controllers(ports, search()),
                lock=RunnerLock(database_url),
                clock=clock,
            )
            if settings.exchange is not None:
                await workloads.start(_exchange(settings))
            yield Started(cluster=cluster, database_url=database_url, artifacts_url=artifacts_url, exchange_url=exchange_url)
        finally:
            await pool.close()
    finally:
        if server is not None:
            await asyncio.to_thread(server.stop)


async def run(settings: RunnerSettings, until: asyncio.Event) -> None:
    async with started(settings) as services:
        try:
            presence.announce(settings.state, services.database_url)
            get_logger("runner").info("ready", state=str(settings.state), exchange=services.exchange_url)
            await services.cluster.run(until)
        finally:
            presence.withdraw(settings.state)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="cappuccino run", description=__doc__)
    parser.add_argument("--state", type=Path, help="folder of everything that is kept (default .cappuccino)")
    parser.add_argument("--exchange-bars", type=Path, help="serve the simulated exchange over this file of bars")
    parser.add_argument("--exchange-start", help="market time at which its clock starts, RFC 3339")
    parser.add_argument("--exchange-speed", default="1", help="bars per wall second at most (default %(default)s)")
    parser.add_argument("--exchange-traders", default="1", help="its clock starts with so many (default %(default)s)")
    parser.add_argument("--exchange-port", type=int, default=EXCHANGE_PORT)
    options = parser.parse_args(argv)
    configure(process="runner")
    exchange: list[str] | None = None
    if options.exchange_bars:
        exchange = ["--bars", str(options.exchange_bars.resolve()), "--speed", options.exchange_speed]
        exchange += ["--start-with", options.exchange_traders]
        exchange += ["--start", options.exchange_start] if options.exchange_start else []
    settings = RunnerSettings(
        state=state_folder(options.state),
        exchange=tuple(exchange) if exchange is not None else None,
        exchange_port=options.exchange_port,
    )
    with exported("runner"):
        asyncio.run(_until_signal(settings))
    return 0


async def _until_signal(settings: RunnerSettings) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await run(settings, stop)


def _exchange(settings: RunnerSettings) -> Workload:
    journal = settings.state / "exchange.journal"
    return Workload(
        name=EXCHANGE,
        kind="continuous",
        arguments=(
            "exchange",
            *(settings.exchange or ()),
            "--port",
            str(settings.exchange_port),
            "--journal",
            str(journal),
        ),
        keys=(),
    )


def _environment(database_url: str, artifacts_url: str, exchange_url: str) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("OTEL_")}
    return kept | {
        DATABASE_URL: database_url,
        ARTIFACTS_URL: artifacts_url,
        EXCHANGE_URL: exchange_url,
        "OMP_NUM_THREADS": kept.get("OMP_NUM_THREADS", "1"),
        "PYTHONUNBUFFERED": "1",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
