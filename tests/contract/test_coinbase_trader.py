"""A Trader of venue kind coinbase, end to end: real SDK, real exchange process, which plays Coinbase, real PostgreSQL."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
import requests

from cappuccino.core.errors import RetryLater

from ..unit.trading.processes import Exchange, TraderRun, bundle, write_bars
from ..unit.trading.test_kills import FILLS, WITHOUT_OUTCOME, joined, journal, referee

HISTORY, BARS = 40, 12
LIMIT_SECONDS = 120
ON_SUBMIT = ("answer_lost", "request_lost", "error_after", "html_after", "error_before", "rate_limited")
FAULTS = {
    "seed": 3,
    "rates": {"event_lost": 0.1, "event_twice": 0.1},
    "script": [{"kind": kind, "operation": "submit", "skip": 1} for kind in ON_SUBMIT],
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real venues are played by the exchange."""
    monkeypatch.setenv("CAPPUCCINO_REHEARSAL", "10000")


@contextmanager
def traded(tmp_path: Path, database_url: str, *arguments: str) -> Iterator[tuple[Exchange, TraderRun]]:
    bars = write_bars(tmp_path / "bars.parquet", bars=HISTORY + BARS, sd=0.02)
    exchange = Exchange.start(bars, history=HISTORY, arguments=("--requests-per-minute", "0", *arguments))
    spec = {"venue": {"kind": "coinbase", "accountSecretRef": {"name": "acc"}}}
    try:
        yield (
            exchange,
            TraderRun.of(bundle(), exchange=exchange, database_url=database_url, artifacts=tmp_path / "artifacts", spec=spec),
        )
    finally:
        exchange.stop()


def to_the_end(exchange: Exchange, run: TraderRun, failpoints: list[str], log: Path) -> int:
    """Start the trader, again after every kill and whenever it asks for it; how often it was killed."""
    kills, started = 0, False
    while True:
        process = run.start(failpoint=failpoints[kills] if kills < len(failpoints) else "", log=log)
        if not started:
            joined(exchange, process)
            started = bool(exchange.state()["sessions"])
            if started:
                exchange.go()
        code = process.wait(LIMIT_SECONDS)
        if code == 0:
            return kills
        assert code in (-signal.SIGKILL, RetryLater.exit_code), log.read_text()[-3000:]
        kills += code == -signal.SIGKILL


def agree(exchange: Exchange, database_url: str) -> None:
    """The journal is the venue's book to the last increment, and nothing was done twice or is without an outcome."""
    theirs = referee(exchange, "acc")
    assert journal(database_url, FILLS) == theirs
    ledger = exchange.ledger("acc")
    assert len({fill[1] for fill in theirs}) == ledger["orders"] == len(theirs)  # every id was acted on once, and filled
    assert ledger["open_orders"] == 0
    assert journal(database_url, WITHOUT_OUTCOME) == []
    assert journal(database_url, "select distinct fee_asset from fill") == [("USD",)]
    cash, held = Decimal(10_000), dict[str, Decimal]()
    for _, _, symbol, side, qty, price, fee in journal(database_url, FILLS):
        signed = qty if side == "buy" else -qty
        cash -= signed * price + fee
        held[symbol] = held.get(symbol, Decimal(0)) + signed
    assert cash == Decimal(ledger["cash_usd"])
    assert {symbol: qty for symbol, qty in held.items() if qty} == {
        symbol: Decimal(position["qty"]) for symbol, position in ledger["positions"].items()
    }


def test_a_trader_on_coinbase_ends_with_the_venues_books(tmp_path: Path, database_url: str) -> None:
    with traded(tmp_path, database_url) as (exchange, run):
        assert to_the_end(exchange, run, [], tmp_path / "log") == 0
        agree(exchange, database_url)
        assert len(referee(exchange, "acc")) > 5
        assert journal(database_url, "select count(*) from decision") == [(BARS + 1,)]
        incidents = requests.get(f"{exchange.url}/control/v1/faults", timeout=5).json()["incidents"]
        assert incidents == []
        assert "stream_gap" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("arguments", [(), ("--refuse-duplicates",)], ids=["returns-duplicates", "refuses-duplicates"])
def test_lost_answers_lost_messages_and_kills_change_nothing(
    arguments: tuple[str, ...], tmp_path: Path, database_url: str
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(FAULTS))
    with traded(tmp_path, database_url, "--faults", str(plan), *arguments) as (exchange, run):
        assert to_the_end(exchange, run, ["answered:2", "submitted:1", "settled:2"], tmp_path / "log") == 3
        agree(exchange, database_url)
        incidents = requests.get(f"{exchange.url}/control/v1/faults", timeout=5).json()["incidents"]
        assert {*ON_SUBMIT, "event_lost"} <= {each["kind"] for each in incidents}
        assert "order_outcome_unknown" in (tmp_path / "log").read_text()
