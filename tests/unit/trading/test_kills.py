"""kill -9 of a trader process, anywhere in the life of an order: real alpaca-py, real exchange process, real PostgreSQL."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .processes import Exchange, TraderRun, bundle, write_bars

HISTORY, BARS = 60, 16
POINTS = (
    "before_commit",
    "committed",
    "before_journal",
    "journalled",
    "answered",
    "submitted",
    "settled",
    "before_record",
    "recorded",
    "acknowledged",
)
LIMIT_SECONDS = 120

pytestmark = pytest.mark.timeout(600)


def run_to_the_end(exchange: Exchange, run: TraderRun, failpoints: list[str], log: Path) -> int:
    """Start the trader, again after every kill, until it ends by itself; how often it was killed."""
    kills, started = 0, False
    while True:
        process = run.start(failpoint=failpoints[kills] if kills < len(failpoints) else "", log=log)
        if not started:
            joined(exchange, process)
            exchange.go()
            started = True
        code = process.wait(LIMIT_SECONDS)
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, log.read_text()[-3000:]
        kills += 1


def joined(exchange: Exchange, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not exchange.state()["sessions"]:
        if process.poll() is not None:
            return  # killed before it joined
        assert time.monotonic() < deadline
        time.sleep(0.02)


def referee(exchange: Exchange, account: str) -> list[tuple[Any, ...]]:
    return [
        (f["execution_id"], f["client_order_id"], f["symbol"], f["side"], *(Decimal(f[k]) for k in ("qty", "price", "fee")))
        for f in exchange.ledger(account)["fills"]
    ]


def journal(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


FILLS = "select execution_id, client_order_id, symbol, side, qty, price, fee from fill order by filled_at"
WITHOUT_OUTCOME = """
    select client_order_id from intent i where not exists (
      select 1 from order_event e where e.client_order_id = i.client_order_id
        and e.state in ('FILLED', 'CANCELED', 'EXPIRED', 'REJECTED', 'DENIED'))
"""
REFERENCE: dict[int, list[tuple[Any, ...]]] = {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_trader_killed_anywhere_does_what_it_would_have_done(seed: int, tmp_path: Path, database_url: str) -> None:
    rng = random.Random(seed)
    points = [POINTS[(seed * 3 + k) % len(POINTS)] for k in range(5)]
    failpoints = [f"{point}:{rng.randint(1, 3)}" for point in points]
    bars = write_bars(tmp_path / "bars.parquet", bars=HISTORY + BARS, sd=0.02, seed=seed)
    outcomes = []
    for account, kills in (("undisturbed", []), ("killed", failpoints)):
        exchange = Exchange.start(bars, history=HISTORY)
        try:
            run = TraderRun.of(
                bundle(), exchange=exchange, database_url=database_url, artifacts=tmp_path / "artifacts", account=account
            )
            killed = run_to_the_end(exchange, run, kills, tmp_path / f"{account}.log")
            assert killed == len(kills)
            theirs = referee(exchange, account)
            ours = journal(database_url, FILLS.replace(" order by", f" where account = '{account}' order by"))
            assert ours == theirs
            ledger = exchange.ledger(account)
            assert len({f[1] for f in theirs}) == ledger["orders"] == len(theirs)  # every id was acted on once, and filled
            counts = journal(database_url, f"select count(*), count(distinct bar_at) from decision where account = '{account}'")
            assert counts == [(BARS + 1, BARS + 1)]
            assert ledger["open_orders"] == 0
            outcomes.append([(symbol, side, qty, price, fee) for _, _, symbol, side, qty, price, fee in theirs])
        finally:
            exchange.stop()
    assert journal(database_url, WITHOUT_OUTCOME) == []
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) > 5
