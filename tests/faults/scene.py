"""One seed of the proof: an exchange with faults, traders on it, and kills of both until the market ends.

Real processes, the real client libraries, a real PostgreSQL. A process that dies is started again, as a cluster would; so is
the exchange, with its book. Some processes trade one account, others several. What ends a trader by its own judgement (exit
codes 2, 3, 70) fails the proof.

When a process ends, or one of its accounts begins anew, and while the exchange is away, the orders that the record does not
know the end of are in flight: these, and no others, the interruption may explain.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import requests

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.bundle import save
from cappuccino.exchange.faults import gaps, read_plan
from cappuccino.market.features import spec_of
from cappuccino.risk.sizing import Sizing
from tests.faults.audit import Interruption
from tests.unit.trading.processes import HOUR, START, Exchange, bundle, write_bars
from tests.unit.trading.test_kills import POINTS

HISTORY = 40
CAPITAL = 10_000
SYMBOLS = tuple(f"S{n:02d}/USD" for n in range(16))
RATES: Mapping[str, float] = {
    "request_lost": 0.004,
    "answer_lost": 0.004,
    "request_late": 0.006,
    "rate_limited": 0.003,
    "error_before": 0.003,
    "error_after": 0.003,
    "html_before": 0.003,
    "html_after": 0.003,
    "slow": 0.006,
    "delayed": 0.004,
    "clock_skew": 0.2,
    "rejected_size": 0.01,
    "partial_fill": 0.03,
    "event_twice": 0.02,
    "event_late": 0.02,
    "event_lost": 0.01,
    "stream_cut": 0.002,
    "quotes_cut": 0.03,
    "symbol_halted": 0.02,
    "price_gap": 0.02,
}
RESTART_WORTH = (75, 143)  # the venue or the database was away; told to end
PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """`processes`: how many accounts each trades. `kills` are per process; the exchange is killed `exchange_kills` times. Both
    are spread over the bars."""

    processes: Sequence[int]
    bars: int
    kills: int
    exchange_kills: int


@dataclass(frozen=True, kw_only=True)
class VenueKind:
    """A face of the exchange. `venue`: what a Trader's spec says of it, for an account."""

    name: str
    venue: Callable[[str], Mapping[str, Any]]
    arguments: Sequence[str] = ()


VENUES = {
    venue.name: venue
    for venue in (
        VenueKind(name="alpaca", venue=lambda _: {"kind": "simulated"}),
        VenueKind(name="coinbase", venue=lambda account: {"kind": "coinbase", "accountSecretRef": {"name": account}}),
    )
}


@dataclass(kw_only=True)
class Tally:
    """What was done to the processes. `incidents`, `absorbed`: what the exchange tells of faults, and how often it was sent an
    order that it had. `price_gaps`: of the tape, in the bars that were traded."""

    price_gaps: int = 0
    trader_kills: int = 0
    trader_starts: int = 0
    exchange_kills: int = 0
    failures: list[str] = field(default_factory=list)
    interruptions: list[Interruption] = field(default_factory=list)
    incidents: list[dict[str, Any]] = field(default_factory=list)
    absorbed: Counter[str] = field(default_factory=Counter)


class Scene:
    """`folder` is the seed's own; accounts are named after the seed, so that seeds share a database."""

    def __init__(self, venue: VenueKind, *, seed: int, sizes: Sizes, folder: Path, database_url: str) -> None:
        self.groups = [[f"{venue.name}-{seed}-{p}-{n}" for n in range(count)] for p, count in enumerate(sizes.processes)]
        self.accounts = [account for group in self.groups for account in group]
        self.tally = Tally()
        self._venue, self._sizes, self._folder, self._database_url = venue, sizes, folder, database_url
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._closed = False
        self._running: dict[int, subprocess.Popen[str]] = {}
        folder.mkdir(parents=True)
        self._bars = write_bars(
            folder / "bars.parquet", bars=HISTORY + sizes.bars, seed=seed, sd=0.02, symbols=SYMBOLS, ratio=1.3
        )
        self._plan = folder / "faults.json"
        self._plan.write_text(json.dumps({"seed": seed, "rates": dict(RATES), "script": []}))
        jumps = gaps(read_plan(self._plan.read_text()), START + HOUR * np.arange(HISTORY + sizes.bars), SYMBOLS)
        self.tally.price_gaps = int((np.diff(jumps[HISTORY - 1 :], axis=0) != 0).sum())
        self.journal = folder / "exchange.journal"
        self._digest = self._bundle()
        self.exchange = self._exchange()

    def _bundle(self) -> str:
        """A rule that trades every symbol often, in orders that a faulty venue leaves room for."""
        made = bundle(symbols=SYMBOLS, enter="0", exit="0", feature_bars="1")
        contract = replace(made.contract, features=(spec_of("return", {"bars": 1}),))
        sized = replace(made, sizing=Sizing(max_weight=0.055, min_change=0.0), contract=contract)
        return save(open_blobs((self._folder / "artifacts").as_uri()), sized)

    def _exchange(self, port: str = "0") -> Exchange:
        options = ("--requests-per-minute", "0", "--tick-bps", "10000", "--faults", str(self._plan), "--port", port)
        arguments = (*options, *self._venue.arguments)
        exchange = Exchange.start(self._bars, history=HISTORY, journal=self.journal, arguments=arguments)
        self._up.set()
        return exchange

    def play(self) -> None:
        """Until every trader has reached the end of the market."""
        processes = [
            threading.Thread(target=self._trade, args=(number, random.Random(self._rng.random())), daemon=True)
            for number in range(len(self.groups))
        ]
        for thread in processes:
            thread.start()
        self._start()
        threading.Thread(target=self._disturb, daemon=True).start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for thread in processes:
            thread.join(max(deadline - time.monotonic(), 0.1))
            if thread.is_alive():
                self.tally.failures.append(f"a trader did not end within {PATIENCE_SECONDS:.0f} s: {self.exchange.state()}")
        if self.tally.failures:
            return
        self._up.wait()
        self._ask_what_happened()
        self.tally.interruptions += self._begun_anew()

    def close(self) -> None:
        self._closed = True
        for process in self._running.values():
            process.kill()
            process.wait()
        self.exchange.process.kill()
        self.exchange.process.wait()

    def _start(self) -> None:
        """The clock starts when everybody has joined, though some may have been killed since."""
        while len(self.exchange.state()["sessions"]) < len(self.accounts) and not self.tally.failures:
            time.sleep(0.05)
        self.exchange.go()

    # --- the exchange -------------------------------------------------------------------------------

    def _disturb(self) -> None:
        try:
            self._kill_exchange()
        except (AssertionError, OSError) as error:
            self.tally.failures.append(f"the exchange: {error}")
            self._give_up()

    def _kill_exchange(self) -> None:
        """Kill it at bars that are spread over the market, and start it again on its journal."""
        at = sorted(self._rng.sample(range(2, self._sizes.bars - 1), self._sizes.exchange_kills))
        for bar in at:
            while (state := self._state()) is None or state["bar"] < bar:
                if self._closed:
                    return
                time.sleep(0.1)
            time.sleep(self._rng.uniform(0.0, 0.3))
            port = self.exchange.url.rpartition(":")[2]
            self._ask_what_happened()
            self._up.clear()
            began_at = datetime.now(UTC)
            self.exchange.process.kill()
            self.exchange.process.wait()
            self.tally.exchange_kills += 1
            self.exchange = self._exchange(port)
            self._interrupted(self.accounts, began_at)

    def _state(self) -> dict[str, Any] | None:
        try:
            return self.exchange.state()
        except requests.RequestException:
            return None

    def _ask_what_happened(self) -> None:
        """`absorbed` counts from the exchange's last start; what comes between this and its kill is lost."""
        told = requests.get(f"{self.exchange.url}/control/v1/faults", timeout=30).json()
        self.tally.incidents = told["incidents"]
        self.tally.absorbed.update(told["absorbed"])

    # --- the traders --------------------------------------------------------------------------------

    def _trade(self, number: int, rng: random.Random) -> None:
        kills, log, accounts = 0, self._folder / f"process-{number}.log", self.groups[number]
        bars_a_kill = self._sizes.bars / (self._sizes.kills + 1)
        while not self._closed:
            self._up.wait()
            mode = rng.choice(("failpoint", "failpoint", "signal")) if kills < self._sizes.kills else ""
            visits = max(int(rng.uniform(0, 2 * bars_a_kill * len(accounts))), 1)
            process = self._begin(number, failpoint=f"{rng.choice(POINTS)}:{visits}" if mode == "failpoint" else "", log=log)
            code = self._outlive(process, rng) if mode == "signal" else process.wait()
            with self._lock:
                if code == 0:
                    return
                self._interrupted(accounts, datetime.now(UTC))
                if code == -signal.SIGKILL:
                    kills += 1
                    self.tally.trader_kills += 1
                elif code not in RESTART_WORTH:
                    last = log.read_text().strip().splitlines()[-1][:300]
                    self.tally.failures.append(f"process of {', '.join(accounts)} ended with {code}: {last}")
                    self._give_up()
                    return

    def _begin(self, number: int, *, failpoint: str, log: Path) -> subprocess.Popen[str]:
        accounts = self.groups[number]
        environment = {
            **os.environ,
            "CAPPUCCINO_DATABASE_URL": self._database_url,
            "CAPPUCCINO_ARTIFACTS_URL": (self._folder / "artifacts").as_uri(),
            "CAPPUCCINO_EXCHANGE_URL": self.exchange.url,
            "CAPPUCCINO_REHEARSAL": str(CAPITAL),
            "CAPPUCCINO_FAILPOINT": failpoint,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "cappuccino.entrypoints.trade", "--health-port", "0"]
        if len(accounts) == 1:
            environment["CAPPUCCINO_SPEC"] = json.dumps(self._spec(accounts[0]))
            command += ["--account", accounts[0], "--trader-uid", f"uid-{accounts[0]}", "--bundle", self._digest]
        else:
            several = self._folder / f"process-{number}.json"
            several.write_text(json.dumps([{"traderUid": f"uid-{each}", "spec": self._spec(each)} for each in accounts]))
            command += ["--portfolios", str(several)]
        self.tally.trader_starts += 1
        process = subprocess.Popen(command, env=environment, stderr=log.open("a"), text=True)
        self._running[number] = process
        return process

    def _spec(self, account: str) -> dict[str, Any]:
        return {
            "account": account,
            "venue": dict(self._venue.venue(account)),
            "mode": "paper",
            "capitalUsd": CAPITAL,
            "bundleDigest": self._digest,
            "risk": {"maxDrawdown": 0, "maxOrdersPerHour": 0, "stop": 0.03, "maxHoldBars": 12},
        }

    def _interrupted(self, accounts: Sequence[str], began_at: datetime) -> None:
        self.tally.interruptions.append(Interruption(accounts=accounts, began_at=began_at, ended_at=datetime.now(UTC)))

    def _begun_anew(self) -> list[Interruption]:
        """Accounts that lost the venue, or their lease, in a process that went on."""
        lines = [line for log in self._folder.glob("process-*.log") for line in log.read_text().splitlines()]
        told = [json.loads(line) for line in lines if '"portfolio_away"' in line]
        moments = [(each["account"], datetime.fromisoformat(each["timestamp"])) for each in told]
        return [Interruption(accounts=(account,), began_at=at, ended_at=at) for account, at in moments]

    def _give_up(self) -> None:
        """A trader that stopped holds the market up for all the others: nothing more is to be learned."""
        self._closed = True
        for process in self._running.values():
            process.kill()

    def _outlive(self, process: subprocess.Popen[str], rng: random.Random) -> int:
        try:
            return process.wait(rng.uniform(3.0, 20.0))
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
