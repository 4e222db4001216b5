"""A network that drops every byte and says nothing: no connection of a trader waits for an answer that never comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest

from cappuccino.adapters.postgres import engine
from cappuccino.adapters.postgres.engine import ANSWER_SECONDS, open_pool, patient
from cappuccino.adapters.postgres.ledger import Pool, PostgresLedger, renew_together
from cappuccino.core.errors import RetryLater
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.trading.lease import RENEW_SECONDS, LeaseKeeper, Rounds
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import Tick

from .builders import ACCOUNT, SYMBOLS, Script, Trader, Venue, make_bars
from .partition import Partition

A, B = SYMBOLS
SLACK_SECONDS = 4.0  # of a busy machine

pytestmark = pytest.mark.timeout(120)  # a connection without a limit hangs for a quarter of an hour


@pytest.fixture
def partition(database_url: str) -> Iterator[Partition]:
    made = Partition(database_url)
    yield made
    made.close()


@pytest.fixture
def pool(partition: Partition) -> Iterator[Pool]:
    with open_pool(partition.url, "trader", min_size=2, max_size=2) as opened:
        yield opened


def ledger_over(pool: Pool) -> PostgresLedger:
    return PostgresLedger(pool, account=ACCOUNT, venue="simulated", trader_uid="uid", holder="uid", lease_seconds=60.0)


def test_a_statement_that_nobody_answers_is_a_database_that_is_away(pool: Pool, partition: Partition) -> None:
    ledger = ledger_over(pool)
    ledger.acquire()
    partition.silence()
    started = time.monotonic()
    with pytest.raises(RetryLater, match="no answer within"):
        ledger.save({})
    assert time.monotonic() - started < ANSWER_SECONDS + SLACK_SECONDS
    partition.heal()
    ledger.renew()  # the other connection had lost nothing
    ledger.save({"v": 1})


def test_the_round_of_leases_tells_all_portfolios_that_the_database_is_away(pool: Pool, partition: Partition) -> None:
    ledger = ledger_over(pool)
    with open_pool(partition.url, "trader", min_size=1, max_size=1) as own:
        rounds = Rounds(lambda ledgers: renew_together(own, cast("Any", ledgers)), monotonic=time.monotonic)
        keeper = LeaseKeeper(ledger, seconds=60.0, monotonic=time.monotonic, rounds=rounds)
        keeper.acquire()
        partition.silence()
        started = time.monotonic()
        while not keeper.database_away:
            assert time.monotonic() - started < RENEW_SECONDS + ANSWER_SECONDS + SLACK_SECONDS
            time.sleep(0.05)
        assert keeper.alive
        partition.heal()
        keeper.close(release=False)


def test_a_slow_statement_is_given_up_by_the_server_and_a_long_journal_may_be_read(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_STATEMENT_SECONDS", 0.3)
    monkeypatch.setattr(engine.PromptConnection, "answer_seconds", 0.6)
    with open_pool(database_url, "trader", max_size=1) as pool, pool.connection() as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(60)")
        with connection.transaction(), patient(connection, seconds=30):
            connection.execute("select pg_sleep(1)")
        assert connection.execute("show statement_timeout").fetchone() == ("300ms",)


def test_other_roles_may_run_long_statements(database_url: str) -> None:
    with open_pool(database_url, "operator") as pool, pool.connection() as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("0",)
        assert "tcp_user_timeout" not in connection.info.get_parameters()


def test_a_network_that_acknowledges_nothing_is_told_by_the_kernel(pool: Pool) -> None:
    with pool.connection() as connection:
        told = connection.info.get_parameters()
    assert (told["tcp_user_timeout"], told["keepalives_idle"]) == ("3000", "3")


def test_a_protective_exit_goes_out_while_the_network_to_the_database_is_silent(
    pool: Pool, partition: Partition, database_url: str
) -> None:
    prices = {A: [100, 100, 100, 101, 95, 94, 94], B: [100] * 7}
    stops = Limits(barriers=Barriers(stop=0.03, trail=None))
    trader = Trader(venue=Venue.over(make_bars(prices)), strategy=Script({0: {A: 0.3}}), limits=stops)
    trader.ledger = cast("Any", ledger_over(pool))
    since: list[float] = []
    waited: list[float] = []

    def silence(tick: Tick) -> None:
        if trader.venue.exchange.tick.bar == 4 and not tick.bar_closed and not since:
            partition.silence()
            since.append(time.monotonic())

    def heal(intent: Intent) -> None:
        if intent.reason == "stop_loss":
            assert partition.is_silent
            assert trader.lease.alive
            waited.append(time.monotonic() - since[0])
            partition.heal()

    trader.venue.on_tick, trader.venue.on_submit = silence, heal
    assert trader.run().finished
    assert len(waited) == 1
    assert waited[0] < 2 * ANSWER_SECONDS + SLACK_SECONDS
    assert not trader.venue.account_book.positions
    with psycopg.connect(database_url) as connection:
        written = connection.execute("select count(*) from fill f join intent i using (client_order_id)").fetchone()
    assert written == (len(trader.venue.account_book.fills),)
