"""A halt survives the death of everything: `cappuccino run` with four traders, three of them halted, and kill -9 for
all there is.

The judge is the exchange's own ledger. The clock waits for every trader, so a bar that passes says that all four are at work
again; the fourth is not halted and goes on trading, or the rest would prove nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.bundle import save
from cappuccino.entrypoints.cli import main

from ..unit.trading.processes import bundle, write_bars
from .chain import ROOT, free_port, wait_for
from .test_kills import children

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HALTED, CONTROL = ("hold", "cancel", "flatten"), "control"
SYMBOLS = tuple(f"{letter * 3}/USD" for letter in "ABCDEFGH")  # so many that at any time something is held
BARS = 2000
Ledger = dict[str, Any]


@dataclass
class Scene:
    """One runner with its state folder, and what the exchange says."""

    folder: Path
    port: int
    runner: subprocess.Popen[bytes]
    before: dict[str, Ledger] = field(default_factory=dict)

    @classmethod
    def start(cls, folder: Path) -> Scene:
        write_bars(folder / "bars.parquet", bars=BARS, sd=0.02, symbols=SYMBOLS, ratio=1.0)
        port = free_port()
        return cls(folder=folder, port=port, runner=_run(folder, port))

    def again(self) -> None:
        self.runner = _run(self.folder, self.port)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def _exchange(self, path: str) -> Any:
        return requests.get(f"http://127.0.0.1:{self.port}/control/v1/{path}", timeout=10).json()

    def ledger(self, account: str) -> Ledger:
        return dict(self._exchange(f"accounts/{account}/ledger"))

    def bar(self) -> int:
        """The exchange's newest bar; -1 while it is away."""
        try:
            return int(self._exchange("state")["bar"])
        except (requests.ConnectionError, requests.Timeout):
            return -1

    def told(self, *argv: str) -> None:
        assert main([*argv, "--state", str(self.state)]) == 0

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(EmbeddedServer(self.state / "postgres").url()) as connection:
            return connection.execute(statement.encode()).fetchall()

    def pass_bars(self, number: int) -> None:
        until = max(self.bar(), 0) + number
        wait_for(lambda: self.bar() >= until, within=60, why=f"the exchange's bar {until}, with every trader there")

    def pids(self, *words: str) -> list[int]:
        return [pid for word in words for pid in children(self.folder, word)]

    def postmaster(self) -> int:
        return int((self.state / "postgres" / "data" / "postmaster.pid").read_text().split()[0])

    def database_since(self) -> datetime | None:
        """Since when the server runs; None while it does not answer."""
        try:
            return datetime.fromisoformat(str(self.query("select pg_postmaster_start_time()")[0][0]))
        except psycopg.OperationalError:
            return None


def _run(folder: Path, port: int) -> subprocess.Popen[bytes]:
    exchange = ["--exchange-bars", str(folder / "bars.parquet"), "--exchange-start", "2024-01-02T16:00:00Z"]
    exchange += ["--exchange-speed", "16", "--exchange-traders", "4", "--exchange-port", str(port)]
    with (folder / "runner.log").open("ab") as log:
        command = [sys.executable, "-m", "cappuccino.entrypoints.runner", "--state", str(folder / "state"), *exchange]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene.start(tmp_path)
    try:
        yield scene
    finally:
        scene.runner.terminate()
        scene.runner.wait(60)


def kill(pids: Sequence[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not [pid for pid in pids if _lives(pid)], why="killed processes go")


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def traders(scene: Scene) -> None:
    digest = save(open_blobs((scene.state / "artifacts").as_uri()), bundle(symbols=SYMBOLS, enter="-0.02", exit="-0.04"))
    documents = [
        {
            "apiVersion": "cappuccino.dev/v1alpha1",
            "kind": "Trader",
            "metadata": {"name": name},
            "spec": {
                "bundleDigest": digest,
                "account": name,
                "venue": {"kind": "simulated"},
                "mode": "paper",
                "onHalt": "cancel" if name == CONTROL else name,
                "risk": {"stop": 0, "trail": 0, "maxDrawdown": 1},
            },
        }
        for name in (*HALTED, CONTROL)
    ]
    (scene.folder / "traders.yaml").write_text(yaml.safe_dump_all(documents))
    scene.told("apply", "-f", str(scene.folder / "traders.yaml"))


def reason(name: str) -> str:
    return f"{name}: odd spread"


def assert_still_halted(scene: Scene, *, died: str) -> None:
    """Nothing was sent for those that are halted since `scene.before`, and the control has traded."""
    traded = scene.ledger(CONTROL)["orders"]
    wait_for(lambda: scene.ledger(CONTROL)["orders"] >= traded + 2, why=f"the control trades after {died}")
    for name in HALTED:
        now, then = scene.ledger(name), scene.before[name]
        assert (now["orders"], now["fills"]) == (then["orders"], then["fills"]), f"{name} has sent orders after {died}"
        assert {s: p["qty"] for s, p in now["positions"].items()} == {s: p["qty"] for s, p in then["positions"].items()}
        assert now["open_orders"] == 0
    told = scene.query("select name, halted_reason from account where name <> 'control' order by name")
    assert told == [(name, reason(name)) for name in sorted(HALTED)]
    told = scene.query("select name, status ->> 'haltedReason' from object where kind = 'Trader'")
    assert dict(told) == {**{name: reason(name) for name in HALTED}, CONTROL: None}


def test_three_halts_hold_whatever_dies_and_a_resume_with_a_reason_lifts_them(scene: Scene) -> None:
    wait_for(lambda: scene.bar() >= 0, why="the exchange serves")
    traders(scene)
    wait_for(lambda: scene.bar() >= 1, within=90, why="four traders join and the clock starts")
    wait_for(lambda: all(scene.ledger(name)["positions"] for name in HALTED), why="all three hold something")
    for name in HALTED:
        scene.told("halt", name, "--reason", reason(name))
    scene.pass_bars(2)  # what was on its way at that moment has arrived
    scene.before = {name: scene.ledger(name) for name in HALTED}
    assert [bool(scene.before[name]["positions"]) for name in HALTED] == [True, True, False]
    assert_still_halted(scene, died="nothing")

    since = scene.database_since()
    kill([scene.postmaster()])
    wait_for(lambda: scene.database_since() not in (None, since), why="PostgreSQL is started again")
    scene.pass_bars(3)
    assert_still_halted(scene, died="PostgreSQL")

    kill(scene.pids("exchange", "trade"))
    scene.pass_bars(3)
    assert_still_halted(scene, died="the exchange and all traders")

    kill([scene.postmaster(), *scene.pids("exchange", "trade"), scene.runner.pid])
    scene.again()
    wait_for(lambda: scene.bar() >= 0, why="the exchange serves again")
    scene.pass_bars(3)
    assert_still_halted(scene, died="everything at once")

    for name in HALTED:
        scene.told("resume", name, "--reason", "looked at it")
    for name in HALTED:
        entered = len(bought(scene.before[name]))
        wait_for(lambda name=name, entered=entered: len(bought(scene.ledger(name))) > entered, why=f"{name} enters again")
    scene.told("audit", "verify")
    assert scene.query("select action, count(*) from audit group by 1 order by 1") == [("halt", 3), ("resume", 3)]


def bought(ledger: Ledger) -> list[Any]:
    return [fill for fill in ledger["fills"] if fill["side"] == "buy"]
