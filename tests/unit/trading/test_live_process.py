"""A live trader as a process: it trades what the record permits and nothing else, with its share of the account.

In rehearsal: the simulated exchange plays the real account, which only the operator's process setting can ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cappuccino.api.trader import TraderSpec
from cappuccino.controllers.live import terms

from .processes import Exchange, TraderRun, bundle, write_bars
from .test_kills import journal
from .test_trade_process import finish, run_of

HISTORY = 40
REAL = {"kind": "alpaca", "accountSecretRef": {"name": "desk-live"}}
LIVE = {"venue": REAL, "mode": "live", "dryRun": False, "capitalUsd": 2000}
APPEND = "select promotion_append('dep', 's', 'b', %s, 'ada', %s, %s, %s, %s, 'deployment/x/y')"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    monkeypatch.setenv("CAPPUCCINO_REHEARSAL", "100000")
    running = Exchange.start(write_bars(tmp_path / "bars.parquet", bars=HISTORY + 10, sd=0.02), history=HISTORY)
    yield running
    running.stop()


def permit(url: str, run: TraderRun, **changed: Any) -> None:
    """As the operator records the start of what `run` is, but for what is `changed`."""
    spec = {**run.spec, "account": run.account, "bundleDigest": run.digest, **changed}
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(APPEND, ["approved", "good", None, None, None])
        admin.execute(APPEND, ["started", "step 1", run.account, terms(TraderSpec.model_validate(spec)), 1])


def test_with_a_permit_it_trades_its_share_and_after_it_only_sells(
    exchange: Exchange, database_url: str, tmp_path: Path
) -> None:
    run = run_of(exchange, database_url, tmp_path, spec=LIVE, bundle=bundle())
    permit(database_url, run)
    assert finish(exchange, run.start(log=tmp_path / "log")) == 0
    assert journal(database_url, "select baseline_usd, reserve_usd, venue from account") == [
        (Decimal(2000), Decimal(98_000), "rehearsal/alpaca/live")
    ]
    ((most,),) = journal(database_url, "select max(notional) from intent where side = 'buy'")
    ((equity,),) = journal(database_url, "select max(equity_usd) from equity")
    assert 0 < most <= Decimal("0.31") * equity < 5000
    assert exchange.ledger("desk-live")["orders"] > 3
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(APPEND, ["revoked", "changed", None, None, None])
    assert run.start(log=tmp_path / "log2").wait(60) == 2
    assert "has no standing approval" in (tmp_path / "log2").read_text()
    assert run.start("--flatten", log=tmp_path / "log3").wait(60) == 0  # what it holds it may still sell
    assert exchange.ledger("desk-live")["positions"] == {}


def test_a_permit_is_for_the_whole_of_what_was_started(exchange: Exchange, database_url: str, tmp_path: Path) -> None:
    run = run_of(exchange, database_url, tmp_path, spec=LIVE)
    for changed in ({"dryRun": True}, {"capitalUsd": 1000}):
        permit(database_url, run, **changed)
        log = tmp_path / "-".join(changed)
        assert run.start(log=log).wait(60) == 2
        assert "has no standing approval" in log.read_text()
    assert exchange.state()["sessions"] == []


def test_a_dry_run_reads_the_market_and_sends_nothing(exchange: Exchange, database_url: str, tmp_path: Path) -> None:
    run = run_of(exchange, database_url, tmp_path, spec={**LIVE, "dryRun": True})
    permit(database_url, run)
    assert finish(exchange, run.start(log=tmp_path / "log")) == 0
    assert len(journal(database_url, "select * from intent")) > 3  # what it would have sent
    assert exchange.ledger("acc")["orders"] == 0
    assert journal(database_url, "select venue from account") == [("rehearsal/alpaca/dry-run",)]
