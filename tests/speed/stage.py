"""What is measured: `trade` processes, an exchange process, and a PostgreSQL that waits for its disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import requests

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from cappuccino.bundle import save
from tests.unit.trading.processes import HOUR, START, bundle, write_bars

HISTORY = 60
SYMBOLS = tuple(f"S{n:02d}/USD" for n in range(10))
PATIENCE_SECONDS = 900.0


@dataclass
class Stamps:
    """When bars closed, by number, and when orders were accepted: (seconds, account, client order id)."""

    bars: dict[int, float] = field(default_factory=dict)
    orders: list[tuple[float, str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Stamps:
        found = cls()
        for line in path.read_text().splitlines():
            at, kind, *rest = line.split()
            if kind == "bar":
                found.bars[int(rest[0])] = float(at)
            else:
                found.orders.append((float(at), rest[0], rest[1]))
        return found


@dataclass(kw_only=True)
class Stage:
    """One market. `bars` come after the history."""

    folder: Path
    server: EmbeddedServer
    url: str
    exchange: subprocess.Popen[str]
    digest: str
    stamps: Path
    traders: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, accounts: Sequence[str], *, name: str = "traders") -> subprocess.Popen[str]:
        """One process with these accounts."""
        spec = {"venue": {"kind": "simulated", "url": self.url}, "mode": "paper", "capitalUsd": 100_000, "onHalt": "hold"}
        spec["bundleDigest"] = self.digest
        spec["risk"] = {"maxOrdersPerHour": 0}
        several = [{"traderUid": f"uid-{account}", "spec": {**spec, "account": account}} for account in accounts]
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(several))
        environment = {
            **os.environ,
            "CAPPUCCINO_DATABASE_URL": self.server.url(),
            "CAPPUCCINO_ARTIFACTS_URL": (self.folder / "artifacts").as_uri(),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "cappuccino.entrypoints.trade", "--health-port", "0"]
        if len(accounts) == 1:
            environment["CAPPUCCINO_SPEC"] = json.dumps(several[0]["spec"])
            command += ["--account", accounts[0], "--trader-uid", f"uid-{accounts[0]}", "--bundle", self.digest]
        else:
            command += ["--portfolios", str(path)]
        log = (self.folder / f"{name}.log").open("a")
        self.traders.append(subprocess.Popen(command, env=environment, stderr=log, text=True))
        return self.traders[-1]

    def closed_bars(self) -> int:
        """Read where it costs the exchange nothing."""
        return self.stamps.read_bytes().count(b" bar ")

    def cpu_seconds(self) -> dict[str, float]:
        """Used until now, by whom."""
        postmaster = int((self.folder / "pg" / "data" / "postmaster.pid").read_text().split()[0])
        return {
            "the traders": sum(map(_cpu_seconds, (process.pid for process in self.traders))),
            "the exchange": _cpu_seconds(self.exchange.pid),
            "PostgreSQL": _cpu_seconds(postmaster),
        }

    def joined(self, count: int) -> None:
        until(lambda: sum(s["connected"] for s in self.state()["sessions"]) >= count, self.traders)

    def go(self) -> None:
        requests.post(f"{self.url}/control/v1/start", timeout=30).raise_for_status()

    def state(self) -> dict[str, Any]:
        return dict(requests.get(f"{self.url}/control/v1/state", timeout=30).json())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def stage(folder: Path, *, bars: int, arguments: Sequence[str] = (), seconds: int = HOUR) -> Iterator[Stage]:
    """`seconds`: of a bar."""
    folder.mkdir(parents=True, exist_ok=True)
    history = HISTORY
    path = write_bars(folder / "bars.parquet", bars=history + bars, sd=0.01, symbols=SYMBOLS, ratio=1.3, seconds=seconds)
    traded = bundle(symbols=SYMBOLS, seconds=seconds, enter="0.0001", exit="-0.0001")
    digest = save(open_blobs((folder / "artifacts").as_uri()), traded)
    stamps = folder / "stamps"
    stamps.touch()
    begins = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + seconds * history))
    command = [sys.executable, "-m", "tests.speed.venue", str(stamps), "--bars", str(path), "--port", "0", "--start", begins]
    command += ["--requests-per-minute", "0", "--tick-bps", "100000", *arguments]
    server = EmbeddedServer(folder / "pg", settings={"max_connections": "100"})
    exchange = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stood: Stage | None = None
    try:
        migrate(server.start())
        assert exchange.stdout is not None
        url = json.loads(exchange.stdout.readline())["url"]
        stood = Stage(folder=folder, server=server, url=url, exchange=exchange, digest=digest, stamps=stamps)
        yield stood
    finally:
        for process in (*(stood.traders if stood else ()), exchange):
            process.kill()
            process.wait()
        server.stop()


def memory_mb(process: subprocess.Popen[str]) -> float:
    """Resident now, MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1e3


def _cpu_seconds(pid: int) -> float:
    """Of a process, its children that live and those that have ended."""
    ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(_cpu_seconds, map(int, children.split())))


def until(true: Callable[[], Any], processes: Sequence[subprocess.Popen[str]] = (), *, pause: float = 0.1) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(requests.RequestException):
            if found := true():
                return found
        assert all(process.poll() in (None, 0) for process in processes), "a trader ended: see its log"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
