"""The trader as a process: exit codes, signals, health, modes. Real exchange, real PostgreSQL, real alpaca-py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate

from .processes import Exchange, TraderRun, bundle, write_bars
from .test_kills import FILLS, journal, referee

HISTORY = 40

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def exchange_of(tmp_path: Path) -> Iterator[Callable[..., Exchange]]:
    started: list[Exchange] = []

    def start(*arguments: str, bars: int = 10) -> Exchange:
        path = write_bars(tmp_path / "bars.parquet", bars=HISTORY + bars, sd=0.02)
        started.append(Exchange.start(path, history=HISTORY, arguments=arguments))
        return started[-1]

    yield start
    for exchange in started:
        exchange.stop()


def until(true: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def run_of(exchange: Exchange, database_url: str, tmp_path: Path, **kwargs: Any) -> TraderRun:
    return TraderRun.of(
        kwargs.pop("bundle", bundle()), exchange=exchange, database_url=database_url, artifacts=tmp_path / "artifacts", **kwargs
    )


def finish(exchange: Exchange, process: subprocess.Popen[str], sessions: int = 1) -> int:
    until(lambda: len(exchange.state()["sessions"]) == sessions or process.poll() is not None)
    exchange.go()
    return process.wait(120)


def test_importing_the_trader_brings_no_torch() -> None:
    heavy = "torch", "optuna", "skfolio", "kubernetes", "scipy", "arch", "aiohttp.web"
    program = f"import sys, cappuccino.entrypoints.trade; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_a_fee_that_is_not_the_schedules_is_taken_from_the_venue(
    exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path
) -> None:
    exchange = exchange_of("--fee-bps", "7")
    log = tmp_path / "log"
    assert finish(exchange, run_of(exchange, database_url, tmp_path).start(log=log)) == 0
    ours = journal(database_url, FILLS)
    assert ours == referee(exchange, "acc")
    assert len(ours) > 3
    secret = requests.post(
        f"{exchange.url}/control/v1/accounts", json={"name": "acc", "capital_usd": "10000"}, timeout=5
    ).json()
    text = log.read_text()
    assert secret["secret_key"] not in text
    assert all(json.loads(line)["account"] == "acc" for line in text.splitlines())


def test_sigterm_ends_it_with_143_and_the_next_one_goes_on_to_the_end(
    exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path
) -> None:
    exchange = exchange_of("--speed", "10", bars=20)
    run = run_of(exchange, database_url, tmp_path)
    process = run.start(log=tmp_path / "log")
    until(lambda: exchange.state()["sessions"])
    exchange.go()
    until(lambda: exchange.state()["bar"] >= 4)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    bar = exchange.state()["bar"]
    assert run.start(log=tmp_path / "log").wait(120) == 0
    assert bar < 20
    assert journal(database_url, FILLS) == referee(exchange, "acc")
    assert journal(database_url, "select count(*) from equity") == [(21,)]


def test_health_and_metrics_tell_the_truth_about_trading(
    exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path
) -> None:
    exchange = exchange_of("--speed", "4", bars=30)
    log = tmp_path / "log"
    process = run_of(exchange, database_url, tmp_path, spec={"onHalt": "flatten"}).start(log=log)

    def told_port() -> int | None:
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return next((line["port"] for line in lines if line["event"] == "health_listening"), None)

    url = f"http://127.0.0.1:{until(told_port)}"
    try:
        until(lambda: exchange.state()["sessions"])
        exchange.go()
        until(lambda: requests.get(f"{url}/healthz", timeout=5).json()["equity_usd"])
        healthy = requests.get(f"{url}/healthz", timeout=5)
        assert healthy.status_code == 200
        assert healthy.json()["lease"] is True
        assert healthy.json()["last_reconciliation_at"]
        until(lambda: referee(exchange, "acc"))
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("select account_halt('acc', 'by a person', 'test')")
        until(lambda: requests.get(f"{url}/healthz", timeout=5).json()["halted"] == "by a person")
        assert requests.get(f"{url}/healthz", timeout=5).status_code == 503
        until(lambda: not exchange.ledger("acc")["positions"])
        metrics = requests.get(f"{url}/metrics", timeout=5).text
        assert "cappuccino_trader_halted 1.0" in metrics
        assert 'cappuccino_trader_exits_total{reason="flatten"}' in metrics
        assert '"acc"' not in metrics  # no label names a trader
        assert requests.get(f"{url}/else", timeout=5).status_code == 404
    finally:
        process.kill()
        process.wait()


def test_flatten_leaves_cash_and_leaves_the_lockstep(
    exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path
) -> None:
    exchange = exchange_of("--speed", "10", bars=30)
    run = run_of(exchange, database_url, tmp_path)
    process = run.start(log=tmp_path / "log")
    until(lambda: exchange.state()["sessions"])
    exchange.go()
    until(lambda: exchange.ledger("acc")["positions"])
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    until(lambda: not any(s["connected"] for s in exchange.state()["sessions"]))
    assert run.start("--flatten", log=tmp_path / "log").wait(60) == 0
    assert exchange.ledger("acc")["positions"] == {}
    assert exchange.state()["sessions"] == []
    assert journal(database_url, FILLS) == referee(exchange, "acc")


def test_shadow_decides_and_sends_nothing(exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path) -> None:
    exchange = exchange_of()
    run = run_of(exchange, database_url, tmp_path, spec={"mode": "shadow"})
    assert finish(exchange, run.start(log=tmp_path / "log")) == 0
    assert exchange.ledger("acc")["orders"] == 0
    fills = journal(database_url, FILLS)
    assert len(fills) > 3
    assert all(fill[0] == f"shadow-{fill[1]}" for fill in fills)
    assert journal(database_url, "select count(*) from decision") == [(11,)]


def test_two_traders_of_one_account_one_waits(exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path) -> None:
    exchange = exchange_of("--speed", "4", bars=30)
    run = run_of(exchange, database_url, tmp_path)
    first = run.start(log=tmp_path / "log")
    try:
        until(lambda: exchange.state()["sessions"])
        second = TraderRun(**{**run.__dict__, "trader_uid": "uid-2"}).start(log=tmp_path / "second")
        assert second.wait(60) == 75
        assert "another holder" in (tmp_path / "second").read_text()
        usurper = run.start(log=tmp_path / "third")  # the same trader again: it takes over, and the first is fenced out
        assert first.wait(60) == 75
        exchange.go()
        assert usurper.wait(120) == 0
        assert journal(database_url, FILLS) == referee(exchange, "acc")
    finally:
        first.kill()


def test_a_database_that_goes_away_for_some_seconds_costs_nothing(exchange_of: Callable[..., Exchange], tmp_path: Path) -> None:
    exchange = exchange_of("--speed", "10", bars=20)
    server = EmbeddedServer(tmp_path / "pg", settings={"fsync": "off"})
    migrate(server.start())
    try:
        process = run_of(exchange, server.url(), tmp_path).start(log=tmp_path / "log")
        until(lambda: exchange.state()["sessions"])
        exchange.go()
        until(lambda: exchange.state()["bar"] >= 5)
        server.stop()
        time.sleep(3.0)  # the outage itself
        server.start()
        assert process.wait(120) == 0
        assert journal(server.url(), FILLS) == referee(exchange, "acc")
        assert journal(server.url(), "select count(*) from equity") == [(21,)]
    finally:
        server.stop()


def test_an_exchange_that_is_killed_and_started_again_is_waited_for(database_url: str, tmp_path: Path) -> None:
    bars = write_bars(tmp_path / "bars.parquet", bars=HISTORY + 20, sd=0.02)
    arguments = {"history": HISTORY, "journal": tmp_path / "journal"}
    exchange = Exchange.start(bars, **arguments, arguments=("--speed", "10"))  # type: ignore[arg-type]
    port = exchange.url.rpartition(":")[2]
    try:
        process = run_of(exchange, database_url, tmp_path).start(log=tmp_path / "log")
        until(lambda: exchange.state()["sessions"])
        exchange.go()
        until(lambda: exchange.state()["bar"] >= 5)
        exchange.process.kill()
        exchange.process.wait()
        exchange = Exchange.start(bars, **arguments, arguments=("--speed", "10", "--port", port))  # type: ignore[arg-type]
        assert process.wait(120) == 0
        assert journal(database_url, FILLS) == referee(exchange, "acc")
        assert journal(database_url, "select count(*) from equity") == [(21,)]
    finally:
        exchange.stop()


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ({"mode": "live", "venue": {"kind": "alpaca", "accountSecretRef": {"name": "s-live"}}}, 2, "no standing approval"),
        ({"venue": {"kind": "coinbase", "accountSecretRef": {"name": "s"}}}, 2, "no paper accounts"),
        ({"venue": {"kind": "alpaca", "accountSecretRef": {"name": "s"}}}, 2, "CAPPUCCINO_SECRETS is not set"),
        ({"capitalUsd": -5}, 2, "capitalUsd"),
        ({"colour": "red"}, 2, "unknown field"),
        ({"venue": {"kind": "simulated", "url": "http://127.0.0.1:9"}}, 75, "is away"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_code(
    spec: dict[str, Any], code: int, said: str, database_url: str, tmp_path: Path
) -> None:
    exchange = Exchange(process=None, url="http://127.0.0.1:9")  # type: ignore[arg-type]
    process = run_of(exchange, database_url, tmp_path, spec=spec).start(log=tmp_path / "log")
    assert process.wait(60) == code
    last = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert said in last
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_bundle_changed_by_one_byte_a_history_too_short_and_an_unknown_symbol_are_final(
    exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path
) -> None:
    exchange = exchange_of()
    run = run_of(exchange, database_url, tmp_path, bundle=bundle(warmup_bars=HISTORY + 1))
    process = run.start(log=tmp_path / "log")
    assert process.wait(60) == 2
    assert f"warms up on {HISTORY + 1}" in (tmp_path / "log").read_text()
    other = bundle(symbols=("ZZZ/USD",))
    process = run_of(exchange, database_url, tmp_path, bundle=other, account="other").start(log=tmp_path / "log2")
    assert process.wait(60) == 2
    assert "does not trade ZZZ/USD" in (tmp_path / "log2").read_text()
    tampered = run_of(exchange, database_url, tmp_path, bundle=bundle(enter="0.0123"))
    manifest = next((tmp_path / "artifacts").glob(f"**/{tampered.digest}/manifest.json"))
    manifest.write_bytes(manifest.read_bytes().replace(b"0.0123", b"0.0124"))
    assert tampered.start(log=tmp_path / "log3").wait(60) == 3
    assert manifest.exists()


def test_a_balance_changed_by_hand_is_final_and_nothing_is_sent(
    exchange_of: Callable[..., Exchange], database_url: str, tmp_path: Path
) -> None:
    exchange = exchange_of("--speed", "10", bars=20)
    run = run_of(exchange, database_url, tmp_path)
    process = run.start(log=tmp_path / "log")
    until(lambda: exchange.state()["sessions"])
    exchange.go()
    with psycopg.connect(database_url, autocommit=True) as connection:
        until(lambda: connection.execute("select count(*) from fill").fetchone() != (0,))
        process.kill()
        process.wait()  # and now the journal says otherwise than the venue
        connection.execute("update fill set qty = qty + 0.000000001 where side = 'buy'")
    orders = exchange.ledger("acc")["orders"]
    assert run.start(log=tmp_path / "log").wait(60) in (3, 70)
    assert exchange.ledger("acc")["orders"] == orders
    assert exchange.state()["sessions"] == []  # the market does not wait for a person
    assert Decimal(exchange.ledger("acc")["cash_usd"]) > 0
