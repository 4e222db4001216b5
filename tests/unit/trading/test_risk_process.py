"""The circuit breaker's latch, and a bundle that is gone, with real processes: exchange, PostgreSQL, alpaca-py, SIGKILL."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .processes import Exchange, TraderRun, bundle, write_bars
from .test_kills import FILLS, journal, referee

HISTORY = 40
FAILED = """select refusals from decision where refusals @> '[{"rule": "no_decision"}]'"""
HALT = "2 losing trades in a row reached the limit 2"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    path = write_bars(tmp_path / "bars.parquet", bars=HISTORY + 400, sd=0.02)
    started = Exchange.start(path, history=HISTORY, arguments=("--speed", "10"))
    yield started
    started.stop()


def until(true: Callable[[], Any], *, seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def traded(database_url: str) -> int:
    return int(journal(database_url, "select count(*) from intent where reason = 'target' and side = 'buy'")[0][0])


def test_the_breaker_holds_over_kills_until_a_person_lifts_it_with_a_reason(
    exchange: Exchange, database_url: str, tmp_path: Path
) -> None:
    risk = {"maxConsecutiveLosses": 2, "stop": 0.01, "trail": 0}
    run = TraderRun.of(
        bundle(),
        exchange=exchange,
        database_url=database_url,
        artifacts=tmp_path / "artifacts",
        spec={"risk": risk, "onHalt": "hold"},
    )
    halted = lambda: journal(database_url, "select halted_reason from account")[0][0]  # noqa: E731
    process = run.start(log=tmp_path / "log")
    try:
        until(lambda: exchange.state()["sessions"])
        exchange.go()
        assert until(halted) == HALT
        process.kill()
        process.wait()
        bought, bar = traded(database_url), exchange.state()["bar"]
        process = run.start(log=tmp_path / "log")
        until(lambda: exchange.state()["bar"] >= bar + 6)
        process.kill()
        process.wait()
        assert (traded(database_url), halted()) == (bought, HALT)
        refused = journal(database_url, 'select count(*) from decision where refusals @> \'[{"rule": "halted"}]\'')
        assert refused[0][0] > 0
        with psycopg.connect(database_url, autocommit=True) as connection:
            for reason in ("", "  "):
                with pytest.raises(psycopg.Error, match="needs a reason"):
                    connection.execute("select account_resume('acc', %s, 'kim')", [reason])
            connection.execute("select account_resume('acc', 'looked at both trades: the market gapped', 'kim')")
        process = run.start(log=tmp_path / "log")
        until(lambda: traded(database_url) > bought or process.poll() is not None)
        assert traded(database_url) > bought
        process.kill()
        process.wait()
    finally:
        process.kill()
    told = journal(database_url, "select actor, action, body from audit where action in ('halt', 'resume') order by seq")
    assert told[0] == ("trader/uid-1", "halt", {"reason": HALT})
    assert told[1] == ("kim", "resume", {"reason": "looked at both trades: the market gapped", "halted_reason": HALT})


def test_a_trader_whose_bundle_is_gone_guards_what_it_holds_until_it_is_there_again(
    exchange: Exchange, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # where a trader keeps its copy of the bundle
    run = TraderRun.of(
        bundle(),
        exchange=exchange,
        database_url=database_url,
        artifacts=tmp_path / "artifacts",
        spec={"risk": {"stop": 0.005, "trail": 0}, "onHalt": "hold"},
    )
    process = run.start(log=tmp_path / "log")
    try:
        until(lambda: exchange.state()["sessions"])
        exchange.go()
        until(lambda: exchange.ledger("acc")["positions"])
        process.kill()
        process.wait()
        bought = traded(database_url)
        shutil.rmtree(tmp_path / "tmp")
        (tmp_path / "tmp").mkdir()
        shutil.move(tmp_path / "artifacts" / "bundles", tmp_path / "elsewhere")
        process = run.start(log=tmp_path / "second")
        until(lambda: not exchange.ledger("acc")["positions"] and journal(database_url, FAILED))
        shutil.move(tmp_path / "elsewhere", tmp_path / "artifacts" / "bundles")
        assert process.wait(120) == 143  # the bundle is there again: the next process decides
    finally:
        process.kill()
    assert "guarding_without_a_bundle" in [json.loads(line)["event"] for line in (tmp_path / "second").read_text().splitlines()]
    assert traded(database_url) == bought
    assert journal(database_url, "select count(*) from intent where reason = 'stop_loss'")[0][0] > 0
    assert "is not in the store" in str(journal(database_url, FAILED)[0])
    assert journal(database_url, FILLS) == referee(exchange, "acc")
