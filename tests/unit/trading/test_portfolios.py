"""Several portfolios in one process: they share a market and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.ledger import PostgresLedger, renew_together
from cappuccino.bundle import save
from cappuccino.controllers import pod
from cappuccino.core.clock import from_epoch
from cappuccino.core.errors import IntegrityError, InvalidInput, RetryLater
from cappuccino.entrypoints import traders
from cappuccino.entrypoints.portfolios import Portfolios
from cappuccino.strategies.interface import Contract
from cappuccino.telemetry.metrics import TraderMetrics, render_together
from cappuccino.trading.lease import LeaseKeeper, Rounds, one_by_one
from cappuccino.trading.ports import LeaseState, Quote, Stop
from cappuccino.trading.window import Series, Window
from tests.unit.controllers.builders import trader as a_trader

from .builders import HOUR, START, SYMBOLS, T0, FakeTime, MemoryLedger, Venue, make_bars
from .processes import Exchange, bundle
from .test_kills import FILLS, journal, referee
from .test_trade_process import HISTORY, exchange_of, until  # noqa: F401 - a fixture

A, B = SYMBOLS


# --- one fails, the others go on --------------------------------------------------------------------


@dataclass
class Played:
    """A portfolio that does what its script says, run by run."""

    account: str
    script: list[Any]
    max_restarts: int = 2
    ended: str | None = None
    runs: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> int:
        self.runs += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        if step == "until stopped":
            assert self.stopped.wait(30)
            return 143
        return int(step)

    def end(self, reason: str) -> None:
        self.ended = reason

    def stop(self, reason: str) -> None:
        self.stopped.set()


def test_a_portfolio_that_is_refused_ends_alone_and_says_why() -> None:
    refused, other = Played("a", [InvalidInput("no such symbol")]), Played("b", [0])
    assert Portfolios([refused, other]).run() == 2
    assert (refused.ended, other.ended) == ("no such symbol", "")
    assert (refused.runs, other.runs) == (1, 1)


def test_the_gravest_end_is_the_exit_code() -> None:
    assert Portfolios([Played("a", [0]), Played("b", [IntegrityError("x")]), Played("c", [InvalidInput("y")])]).run() == 3
    assert Portfolios([Played("a", [0]), Played("b", [0])]).run() == 0


def test_one_whose_venue_is_away_is_started_again_as_often_as_it_takes() -> None:
    away = Played("a", [*(RetryLater("away", after_seconds=0.01) for _ in range(9)), 0])
    assert Portfolios([away]).run() == 0
    assert away.runs == 10


def test_one_that_crashes_is_started_again_until_it_crashed_more_often_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cappuccino.entrypoints.portfolios.LONGEST_PAUSE_SECONDS", 0.01)
    crashing, recovering = Played("a", [ValueError("bug")]), Played("b", [ValueError("bug"), ValueError("bug"), 0])
    assert Portfolios([crashing, recovering]).run() == 1
    assert (crashing.runs, recovering.runs) == (3, 3)
    assert crashing.ended == "crashed 3 times: bug"
    assert recovering.ended == ""


def test_asked_to_stop_all_of_them_end_and_none_is_started_again() -> None:
    trading, waiting = Played("a", ["until stopped"]), Played("b", [RetryLater("away", after_seconds=60.0)])
    together = Portfolios([trading, waiting])
    threading.Timer(0.2, together.stop, ["SIGTERM"]).start()
    assert together.run() == 143
    assert waiting.runs == 1
    assert (trading.ended, waiting.ended) == (None, None)


# --- what is shared ---------------------------------------------------------------------------------


def test_the_newest_quote_of_a_symbol_waits_in_its_place_and_nothing_else_is_lost() -> None:
    inbox = Inbox()

    def quote(symbol: str, bid: int) -> Quote:
        return Quote(symbol=symbol, bid=Decimal(bid), ask=Decimal(bid), at=T0 + timedelta(seconds=bid))

    stop = Stop(reason="x")
    for event in (quote(A, 1), quote(B, 2), quote(A, 3), stop, quote(A, 4), quote(B, 5)):
        inbox.put(event)
    assert [inbox.get(0.0) for _ in range(4)] == [quote(A, 4), quote(B, 5), stop, None]
    inbox.put(quote(A, 6))
    assert inbox.get(0.0) == quote(A, 6)


def test_sessions_of_one_contract_fetch_a_bar_once_and_a_late_one_gets_its_own() -> None:
    venue = Venue.over(make_bars(bars=14), history=4)
    contract = Contract(symbols=SYMBOLS, timeframe=make_bars().timeframe, features=(), lookback=1, warmup_bars=2)
    asked: list[int] = []
    closed_bars = venue.closed_bars

    def counted(*given: Any, start: int, end: int) -> Any:
        asked.append((end - start) // HOUR)
        return closed_bars(*given, start=start, end=end)

    venue.closed_bars = counted  # type: ignore[method-assign]
    series = Series(contract)
    first, second = Window(contract, venue, series), Window(contract, venue, series)
    at = from_epoch(START + 4 * HOUR)
    first.warm_up(at)
    second.warm_up(at)
    assert asked == [2]
    for _ in range(40):
        venue.done(venue.ticks[-1] if venue.ticks else None, until=None)  # type: ignore[arg-type]
        if venue.exchange.tick.bar == 6:
            break
    assert first.take(from_epoch(START + 6 * HOUR)) == START + 6 * HOUR
    assert second.take(from_epoch(START + 5 * HOUR)) == START + 5 * HOUR
    assert asked == [2, 2]
    assert second.newest.ts == first.newest.ts - HOUR
    assert second.take(from_epoch(START + 6 * HOUR)) == START + 6 * HOUR
    assert (second.newest.close == first.newest.close).all()


def test_leases_are_renewed_together_and_each_is_lost_alone() -> None:
    time, rounds_of, go_on = FakeTime(), [], threading.Event()

    def together(ledgers: Any) -> Any:
        rounds_of.append(len(ledgers))
        assert go_on.wait(30)
        return one_by_one(ledgers)

    rounds = Rounds(together, monotonic=time)
    ledgers = [MemoryLedger() for _ in range(5)]
    keepers = [LeaseKeeper(each, seconds=10.0, monotonic=time, rounds=rounds) for each in ledgers]
    for keeper in keepers:
        keeper.acquire()
    ledgers[2].holder = -1
    ledgers[3].halted = "by a person"
    until(lambda: rounds_of)  # the first round is under way while all of them ask for one
    threads = [threading.Thread(target=keeper.renew) for keeper in keepers]
    for thread in threads:
        thread.start()
    rounds_before = len(rounds_of)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert [keeper.alive for keeper in keepers] == [True, True, False, True, True]
    assert [keeper.halted_reason for keeper in keepers] == [None, None, None, "by a person", None]
    assert rounds_of[-1] == 5
    assert len(rounds_of) <= rounds_before + 2  # one for all that asked, and the one that is due each second
    for keeper in keepers:
        keeper.close(release=False)


def test_a_database_that_is_away_ends_no_lease_before_its_time_and_is_told_to_all() -> None:
    def away(ledgers: Any) -> Any:
        raise RetryLater("away")

    time = FakeTime()
    rounds = Rounds(away, monotonic=time)
    keepers = [LeaseKeeper(MemoryLedger(), seconds=10.0, monotonic=time, rounds=rounds) for _ in range(3)]
    for keeper in keepers:
        keeper.acquire()
    keepers[0].renew()
    assert [(k.alive, k.database_away) for k in keepers] == [(True, True)] * 3
    time.now += 9.5
    assert not any(keeper.alive for keeper in keepers)
    for keeper in keepers:
        keeper.close(release=False)


def test_the_database_renews_all_leases_in_one_statement(database_url: str) -> None:
    with open_pool(database_url, "trader") as pool:
        ledgers = [
            PostgresLedger(pool, account=name, venue="simulated", trader_uid=name, holder=name, lease_seconds=30.0)
            for name in ("c", "a", "b", "never-acquired")
        ]
        for ledger in ledgers[:3]:
            ledger.acquire()
        ledgers[1].halt("by a person")
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("update account set token = token + 1 where name = 'b'")
            before = dict(other.execute("select name, expires_at from account").fetchall())
            told = renew_together(pool, ledgers)
            after = dict(other.execute("select name, expires_at from account").fetchall())
    assert told == [
        LeaseState(held=True, token=1, halted_reason=None),
        LeaseState(held=True, token=1, halted_reason="by a person"),
        LeaseState(held=False, token=0, halted_reason=None),
        LeaseState(held=False, token=0, halted_reason=None),
    ]
    assert {name for name in before if after[name] > before[name]} == {"a", "c"}


def test_samples_of_several_portfolios_differ_by_account() -> None:
    several = {name: TraderMetrics() for name in ("a", "b")}
    several["a"].refused("halted")
    several["b"].halted.set(1)
    text = render_together(several).decode()
    assert 'cappuccino_trader_refusals_total{account="a",rule="halted"} 1.0' in text
    assert 'cappuccino_trader_halted{account="a"} 0.0' in text
    assert 'cappuccino_trader_halted{account="b"} 1.0' in text
    assert text.count("# TYPE cappuccino_trader_halted gauge") == 1


# --- the process ------------------------------------------------------------------------------------


def start_several(
    exchange: Exchange, database_url: str, tmp_path: Path, specs: dict[str, dict[str, Any]]
) -> subprocess.Popen[str]:
    digest = save(open_blobs((tmp_path / "artifacts").as_uri()), bundle())
    base = {"venue": {"kind": "simulated"}, "capitalUsd": 10000, "bundleDigest": digest}
    several = [{"traderUid": f"uid-{name}", "spec": {**base, "account": name, **spec}} for name, spec in specs.items()]
    path = tmp_path / "portfolios.json"
    path.write_text(json.dumps(several))
    environment = {
        **os.environ,
        "CAPPUCCINO_DATABASE_URL": database_url,
        "CAPPUCCINO_ARTIFACTS_URL": (tmp_path / "artifacts").as_uri(),
        "CAPPUCCINO_EXCHANGE_URL": exchange.url,
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "cappuccino.entrypoints.trade", "--portfolios", str(path), "--health-port", "0"]
    return subprocess.Popen(command, env=environment, stderr=(tmp_path / "log").open("a"), text=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_portfolios_of_one_process_trade_as_if_alone_and_one_that_is_refused_holds_up_nobody(
    exchange_of: Callable[..., Exchange],  # noqa: F811 - the fixture
    database_url: str,
    tmp_path: Path,
) -> None:
    exchange = exchange_of()
    names = ("one", "two", "three", "quiet")
    specs: dict[str, dict[str, Any]] = {name: {} for name in names}
    specs["quiet"] = {"mode": "shadow"}
    specs["wrong"] = {"bundleDigest": "0" * 64}
    process = start_several(exchange, database_url, tmp_path, specs)
    until(lambda: len(exchange.state()["sessions"]) == len(names) or process.poll() is not None)
    exchange.go()
    assert process.wait(120) == 2  # what the one that was refused would have ended with
    books = [referee(exchange, name) for name in names[:3]]
    for name, theirs in zip(names, books, strict=False):
        assert journal(database_url, FILLS.replace(" order by", f" where account = '{name}' order by")) == theirs
    told = [[fill[2:] for fill in book] for book in books]  # without ids, which have the account in them
    assert told[0] == told[1] == told[2]
    assert len(told[0]) > 3
    assert exchange.ledger("quiet")["orders"] == 0
    assert journal(database_url, "select count(*) from equity") == [(4 * 11,)]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["account"] for line in lines if line["event"] == "portfolio_ended"] == ["wrong"]
    ended = dict(journal(database_url, "select name, ended from account"))
    assert "0" * 64 in ended.pop("wrong")
    assert ended == dict.fromkeys(names, "")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_portfolio_is_halted_and_told_of_by_itself_and_sigterm_ends_all(
    exchange_of: Callable[..., Exchange],  # noqa: F811 - the fixture
    database_url: str,
    tmp_path: Path,
) -> None:
    exchange = exchange_of("--speed", "4", bars=40)
    process = start_several(exchange, database_url, tmp_path, {"one": {}, "two": {"onHalt": "flatten"}, "three": {}})

    def port() -> Any:
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        return next((line["port"] for line in lines if line["event"] == "health_listening"), None)

    try:
        until(lambda: len(exchange.state()["sessions"]) == 3)
        url = f"http://127.0.0.1:{until(port)}"
        exchange.go()
        until(lambda: exchange.ledger("two")["positions"] and requests.get(f"{url}/healthz", timeout=5).status_code == 200)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("select account_halt('two', 'by a person', 'test')")
        until(lambda: requests.get(f"{url}/healthz/two", timeout=5).json()["halted"] == "by a person")
        until(lambda: not exchange.ledger("two")["positions"])
        reports = requests.get(f"{url}/healthz", timeout=5)
        assert reports.status_code == 503
        assert {name: each["trading"] for name, each in reports.json()["portfolios"].items()} == {
            "one": True,
            "two": False,
            "three": True,
        }
        assert requests.get(f"{url}/healthz/one", timeout=5).status_code == 200
        assert requests.get(f"{url}/healthz/nobody", timeout=5).status_code == 404
        assert 'cappuccino_trader_halted{account="two"} 1.0' in requests.get(f"{url}/metrics", timeout=5).text
        orders = exchange.ledger("two")["orders"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert exchange.ledger("two")["orders"] == orders
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "names no Trader"),
        ("{", "is no list of Traders"),
        ('[{"traderUid": "u"}]', "is no list of Traders"),
        ('[{"traderUid": "u", "spec": {"colour": "red"}}]', "unknown field"),
    ],
)
def test_a_list_of_portfolios_that_is_wrong_is_one_line(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setenv("CAPPUCCINO_ARTIFACTS_URL", tmp_path.as_uri())
    path = tmp_path / "portfolios.json"
    path.write_text(body)
    with pytest.raises(InvalidInput, match=said):
        traders.several_of(traders.parser().parse_args(["--portfolios", str(path)]))


def test_without_a_file_the_list_is_what_the_pods_traders_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setenv("CAPPUCCINO_ARTIFACTS_URL", tmp_path.as_uri())
    members = [a_trader(name="b", spec={"account": "two", "pod": "p"}), a_trader(name="a", spec={"account": "one", "pod": "p"})]
    told = pod.workload("p", members, trace={})
    options = traders.parser().parse_args(told.arguments[1:])
    monkeypatch.setenv(pod.PORTFOLIOS, told.environment[pod.PORTFOLIOS])
    found = traders.several_of(options)
    assert [(each.account, each.trader_uid, each.spec) for each in found] == [
        ("one", "uid-a", members[1].spec),
        ("two", "uid-b", members[0].spec),
    ]
    for wrong in ("", "bm8=", told.environment[pod.PORTFOLIOS][:40], "ü"):
        monkeypatch.setenv(pod.PORTFOLIOS, wrong)
        with pytest.raises(InvalidInput, match="CAPPUCCINO_PORTFOLIOS is no list of Traders"):
            traders.several_of(options)


def test_a_live_trader_and_an_account_that_is_named_twice_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setenv("CAPPUCCINO_ARTIFACTS_URL", tmp_path.as_uri())
    path = tmp_path / "portfolios.json"
    one = {"venue": {"kind": "simulated"}, "account": "a", "bundleDigest": "0" * 64}
    path.write_text(json.dumps([{"traderUid": "u", "spec": one}, {"traderUid": "v", "spec": one}]))
    options = traders.parser().parse_args(["--portfolios", str(path)])
    with pytest.raises(InvalidInput, match="account a is there twice"):
        traders.several_of(options)
    live = {**one, "mode": "live", "venue": {"kind": "alpaca", "accountSecretRef": {"name": "s-live"}}}
    path.write_text(json.dumps([{"traderUid": "u", "spec": live}]))
    with pytest.raises(InvalidInput, match="process to itself"):
        traders.several_of(options)
