"""One seed of the proof: an exchange with faults, traders on it, and kills of both until the market ends.

Real processes, the real client library, a real PostgreSQL. A trader that dies is started again, as a cluster would; so is the
exchange, with its book. What ends a trader by its own judgement (exit codes 2, 3, 70) fails the proof.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests

from cappuccino.market.features import spec_of
from cappuccino.risk.sizing import Sizing
from tests.unit.trading.processes import Exchange, TraderRun, bundle, write_bars
from tests.unit.trading.test_kills import POINTS

HISTORY = 40
SYMBOLS = tuple(f"S{n:02d}/USD" for n in range(16))
RATES: Mapping[str, float] = {
    "request_lost": 0.006,
    "answer_lost": 0.006,
    "rate_limited": 0.004,
    "error_before": 0.004,
    "error_after": 0.004,
    "html_before": 0.003,
    "html_after": 0.003,
    "slow": 0.01,
    "delayed": 0.005,
    "clock_skew": 0.2,
    "rejected_size": 0.01,
    "partial_fill": 0.03,
    "event_twice": 0.02,
    "event_late": 0.02,
    "event_lost": 0.01,
    "stream_cut": 0.003,
    "symbol_halted": 0.02,
    "price_gap": 0.004,
}
RESTART_WORTH = (75, 143)  # the venue or the database was away; told to end
PATIENCE_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """`kills` per trader; the exchange is killed `exchange_kills` times, spread over the bars."""

    traders: int
    bars: int
    kills: int
    exchange_kills: int


@dataclass(frozen=True, kw_only=True)
class VenueKind:
    """A face of the exchange: what a Trader's spec says of it."""

    name: str
    spec: Mapping[str, Any]


VENUES = {venue.name: venue for venue in (VenueKind(name="alpaca", spec={"kind": "simulated"}),)}


@dataclass(kw_only=True)
class Tally:
    """What was done to the processes."""

    trader_kills: int = 0
    trader_restarts: int = 0
    exchange_kills: int = 0
    failures: list[str] = field(default_factory=list)


class Scene:
    """`folder` is the seed's own; accounts are named after the seed, so that seeds share a database."""

    def __init__(self, venue: VenueKind, *, seed: int, sizes: Sizes, folder: Path, database_url: str) -> None:
        self.accounts = [f"{venue.name}-{seed}-{n}" for n in range(sizes.traders)]
        self.tally = Tally()
        self._venue, self._sizes, self._folder, self._database_url = venue, sizes, folder, database_url
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._closed = False
        self._running: dict[str, subprocess.Popen[str]] = {}
        folder.mkdir(parents=True)
        self._bars = write_bars(
            folder / "bars.parquet", bars=HISTORY + sizes.bars, seed=seed, sd=0.02, symbols=SYMBOLS, ratio=1.3
        )
        self._plan = folder / "faults.json"
        self._plan.write_text(json.dumps({"seed": seed, "rates": dict(RATES), "script": []}))
        self.journal = folder / "exchange.journal"
        self.exchange = self._exchange()

    def _exchange(self, port: str = "0") -> Exchange:
        options = ("--requests-per-minute", "0", "--tick-bps", "10000", "--faults", str(self._plan), "--port", port)
        exchange = Exchange.start(self._bars, history=HISTORY, journal=self.journal, arguments=options)
        self._up.set()
        return exchange

    def play(self) -> None:
        """Until every trader has reached the end of the market."""
        traders = [
            threading.Thread(target=self._trade, args=(account, random.Random(self._rng.random())), daemon=True)
            for account in self.accounts
        ]
        for thread in traders:
            thread.start()
        self._start()
        threading.Thread(target=self._disturb_exchange, daemon=True).start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for thread in traders:
            thread.join(max(deadline - time.monotonic(), 0.1))
            if thread.is_alive():
                self.tally.failures.append(f"a trader did not end within {PATIENCE_SECONDS:.0f} s: {self.exchange.state()}")

    def close(self) -> None:
        self._closed = True
        for process in self._running.values():
            process.kill()
        self.exchange.process.kill()
        self.exchange.process.wait()

    def _start(self) -> None:
        """The clock starts when everybody has joined, though some may have been killed since."""
        while len(self.exchange.state()["sessions"]) < len(self.accounts) and not self.tally.failures:
            time.sleep(0.1)
        self.exchange.go()

    def _disturb_exchange(self) -> None:
        """Kill it at bars that are spread over the market, and start it again on its journal."""
        at = sorted(self._rng.sample(range(2, self._sizes.bars - 1), self._sizes.exchange_kills))
        for bar in at:
            while (state := self._state()) is None or state["bar"] < bar:
                time.sleep(0.2)
            time.sleep(self._rng.uniform(0.0, 0.5))
            port = self.exchange.url.rpartition(":")[2]
            self._up.clear()
            self.exchange.process.kill()
            self.exchange.process.wait()
            self.tally.exchange_kills += 1
            self.exchange = self._exchange(port)

    def _state(self) -> dict[str, Any] | None:
        try:
            return self.exchange.state()
        except requests.RequestException:
            return None

    def _trade(self, account: str, rng: random.Random) -> None:
        sizing = Sizing(max_weight=0.055, min_change=0.0)
        made = bundle(symbols=SYMBOLS, enter="0", exit="0", feature_bars="1")
        contract = replace(made.contract, features=(spec_of("return", {"bars": 1}),))
        run = TraderRun.of(
            replace(made, sizing=sizing, contract=contract),
            exchange=self.exchange,
            database_url=self._database_url,
            artifacts=self._folder / "artifacts",
            account=account,
            trader_uid=f"uid-{account}",
            spec={
                "venue": dict(self._venue.spec),
                "risk": {"maxDrawdown": 0, "maxOrdersPerHour": 0, "stop": 0.03, "maxHoldBars": 12},
            },
        )
        kills, log = 0, self._folder / f"{account}.log"
        while not self._closed:
            self._up.wait()
            mode = rng.choice(("failpoint", "failpoint", "signal")) if kills < self._sizes.kills else ""
            bars_a_kill = self._sizes.bars / (self._sizes.kills + 1)
            visits = max(int(rng.uniform(0, 2 * bars_a_kill)), 1)
            process = run.start(failpoint=f"{rng.choice(POINTS)}:{visits}" if mode == "failpoint" else "", log=log)
            self._running[account] = process
            code = self._outlive(process, rng) if mode == "signal" else process.wait()
            with self._lock:
                if code == 0:
                    return
                self.tally.trader_restarts += 1
                if code == -signal.SIGKILL:
                    kills += 1
                    self.tally.trader_kills += 1
                elif code not in RESTART_WORTH:
                    last = log.read_text().strip().splitlines()[-1][:300]
                    self.tally.failures.append(f"trader {account} ended with {code}: {last}")
                    self._give_up()
                    return

    def _give_up(self) -> None:
        """A trader that stopped holds the market up for all the others: nothing more is to be learned."""
        for account in self.accounts:
            requests.delete(f"{self.exchange.url}/control/v1/sessions/{account}", timeout=10)

    def _outlive(self, process: subprocess.Popen[str], rng: random.Random) -> int:
        try:
            return process.wait(rng.uniform(3.0, 20.0))
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
