"""Two traders for one account: who lost the lease sends nothing more, even in the middle of a batch of orders.

Each time a real process waits for the answer to its first of three orders, and loses the account meanwhile. It notices by its
own clock or by the record; the two orders that it had journalled stay unsent.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
import requests

from cappuccino.core.errors import InvariantViolation, RetryLater
from cappuccino.entrypoints.portfolio import Portfolio

from .partition import Partition
from .processes import Exchange, TraderRun, bundle, write_bars
from .test_kills import journal

HISTORY, LEASE_SECONDS, UNDER_WAY_SECONDS = 40, 3.0, 8.0
PATIENCE = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def submissions(exchange: Exchange) -> list[str]:
    """Client order ids of every request for an order, in their order: each is slow by nothing, so that it is listed."""
    told = requests.get(f"{exchange.url}/control/v1/faults", timeout=30).json()["incidents"]
    return [incident["subject"] for incident in told]


@contextmanager
def exchange_that_keeps_the_first_order_waiting(tmp_path: Path) -> Iterator[Exchange]:
    bars = write_bars(tmp_path / "bars.parquet", bars=HISTORY + 3)
    exchange = Exchange.start(bars, history=HISTORY)
    script = [
        {"kind": "delayed", "operation": "submit", "seconds": UNDER_WAY_SECONDS},
        {"kind": "slow", "operation": "submit", "seconds": 0, "times": 1000},
    ]
    requests.post(f"{exchange.url}/control/v1/faults", json={"script": script}, timeout=30).raise_for_status()
    try:
        yield exchange
    finally:
        exchange.process.kill()
        exchange.process.wait()


def taken_over(connection: psycopg.Connection[Any]) -> bool:
    """Another holder asks for the account as soon as it may have it."""
    return connection.execute("select token from account_acquire('acc', 'simulated', 'uid-2', 600)").fetchone() is not None


@pytest.mark.parametrize("how", ["undisturbed", "paused", "partitioned", "the database's clock jumped"])
def test_who_lost_the_account_sends_nothing_more(how: str, database_url: str, tmp_path: Path) -> None:
    partition = Partition(database_url)
    with (
        exchange_that_keeps_the_first_order_waiting(tmp_path) as exchange,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        run = TraderRun.of(bundle(kind="hold"), exchange=exchange, database_url=partition.url, artifacts=tmp_path / "artifacts")
        process = run.start("--lease-seconds", str(LEASE_SECONDS), log=tmp_path / "log")
        try:
            until(lambda: exchange.state()["sessions"] or process.poll() is not None)
            exchange.go()
            until(lambda: submissions(exchange))
            assert len(journal(database_url, "select client_order_id from intent")) == 3  # all of the batch
            if how == "paused":
                process.send_signal(signal.SIGSTOP)
            elif how == "partitioned":
                partition.cut()
            elif how == "the database's clock jumped":
                connection.execute("update account set expires_at = now() - interval '1 hour'")
            if how != "undisturbed":
                until(lambda: taken_over(connection))
            process.send_signal(signal.SIGCONT)
            code = process.wait(PATIENCE)
            if how == "undisturbed":  # that the scene would show it
                assert code == 0
                assert len(submissions(exchange)) == 3
            else:
                assert code == 75
                assert len(submissions(exchange)) == 1
                assert exchange.ledger("acc")["orders"] == 1
        finally:
            process.kill()
            process.wait()
            partition.close()


class Away:
    """A ledger whose database is away for the first tries."""

    def __init__(self, tries: int) -> None:
        self.tries = tries
        self.halted = ""

    def halt(self, reason: str) -> None:
        self.tries -= 1
        if self.tries >= 0:
            raise RetryLater("the database is away")
        self.halted = reason


def test_a_broken_rule_halts_the_account_before_the_process_ends_also_when_the_database_comes_back_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cappuccino.entrypoints.portfolio._RECORD_SECONDS", 0.0)
    portfolio = Portfolio.__new__(Portfolio)
    portfolio._stopped = ""
    portfolio._settings = cast("Any", SimpleNamespace(flatten=False))
    portfolio._shared = cast("Any", SimpleNamespace(starting=nullcontext()))
    ended: list[str] = []

    def start() -> None:
        raise InvariantViolation("order o1: FILLED -> REJECTED")

    ledger = Away(tries=3)
    venue = SimpleNamespace(leave=lambda: None, feed=SimpleNamespace(close=lambda: ended.append("feed")))
    lease = SimpleNamespace(close=lambda *, release: ended.append(f"lease {release}"))
    with pytest.raises(InvariantViolation):
        portfolio._trade(cast("Any", SimpleNamespace(start=start)), cast("Any", ledger), cast("Any", lease), cast("Any", venue))
    assert ledger.halted == "invariant violation: order o1: FILLED -> REJECTED"
    assert ended == ["feed", "lease False"]  # the lease runs out by itself: nobody is let in early
