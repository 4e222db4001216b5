"""Halts: what each way of `onHalt` does, that a halt outlives every process, and three layers that need nothing of each other.

The layers: the account row (the database refuses the intent), SIGTERM (the process sends nothing more and ends), and the lease
that runs out (the trader finds itself without one, by its own clock).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.ledger import Pool, PostgresLedger
from cappuccino.core.errors import RetryLater
from cappuccino.exchange.terms import Terms
from cappuccino.trading.desk import PATIENCE_SECONDS
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import LeaseState, Tick

from .builders import ACCOUNT, SYMBOLS, Script, Trader, Venue, make_bars

A, B = SYMBOLS
EVERY_BAR = {n: {A: 0.3 if n % 2 else 0.0, B: 0.0 if n % 2 else 0.3} for n in range(30)}
THIN = Terms(participation_cap=Decimal("0.002"))  # market orders fill in part and stay open


def trader(*, on_halt: str = "cancel", terms: Terms | None = None, bars: int = 14, ledger: Any = None) -> Trader:
    made = Trader(venue=Venue.over(make_bars(bars=bars), terms=terms), strategy=Script(EVERY_BAR), on_halt=on_halt)
    if ledger is not None:
        made.ledger = ledger
    return made


def halt_on_submit(halted: Trader, number: int) -> None:
    """A halt that comes while the submission of this number is answered; the lease's thread learns of it at once."""

    def halt(_: Intent) -> None:
        if len(halted.venue.submissions) == number:
            halted.ledger.halted = "by a person"
            halted.lease.renew()

    halted.venue.on_submit = halt


# --- onHalt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_halt", "waited"), [("hold", True), ("cancel", False), ("flatten", False)])
def test_an_entry_that_is_open_when_the_halt_comes_is_left_to_fill_or_canceled_at_once(on_halt: str, waited: bool) -> None:
    halted = trader(on_halt=on_halt, terms=THIN, bars=4)
    halt_on_submit(halted, 1)
    submit, cancel, times = halted.venue._submit, halted.venue.cancel, []

    def working(intent: Intent) -> Any:
        times.append(halted.venue.time.now)
        return submit(replace(intent, time_in_force="gtc"))

    def canceling(venue_order_id: str) -> None:
        times.append(halted.venue.time.now)
        cancel(venue_order_id)

    halted.venue._submit, halted.venue.cancel = working, canceling  # type: ignore[method-assign]
    halted.run()
    sent, canceled = times[:2]
    assert (canceled - sent >= PATIENCE_SECONDS) is waited
    assert (canceled - sent < 1.0) is not waited
    assert [i for i in halted.venue.submissions if not i.is_exit] == halted.venue.submissions[:1]
    assert bool(halted.venue.account_book.positions) is (on_halt != "flatten")
    assert halted.venue.account_book.open_ids == {}
    assert halted.books_agree()


@pytest.mark.parametrize("on_halt", ["hold", "cancel", "flatten"])
def test_a_halt_holds_over_every_restart_until_it_is_lifted(on_halt: str) -> None:
    halted = trader(on_halt=on_halt, bars=20)
    halt_on_submit(halted, 3)
    bars: list[Tick] = []

    def stop_after_two_bars(tick: Tick) -> None:
        bars.extend([tick] if tick.bar_closed else [])
        if tick.bar_closed and len(bars) % 3 == 0:
            halted.venue.stop("SIGTERM")

    halted.venue.on_tick = stop_after_two_bars
    for _ in range(5):
        assert not halted.run().finished
        halted.venue.inbox.clear()
    assert len(halted.venue.submissions) >= 3
    assert [i for i in halted.venue.submissions[3:] if not i.is_exit] == []
    assert len(halted.ledger.decisions) > 8
    assert bool(halted.venue.account_book.positions) is (on_halt != "flatten")
    halted.ledger.halted = None
    halted.venue.on_tick = lambda tick: None
    assert halted.run().finished
    assert [i for i in halted.venue.submissions[3:] if not i.is_exit]
    assert halted.books_agree()


# --- the account row alone --------------------------------------------------------------------------


class Deaf(PostgresLedger):
    """A trader that is told nothing: it has its lease, and does not hear of halts."""

    def acquire(self) -> LeaseState:
        return replace(super().acquire(), halted_reason=None)

    def renew(self) -> LeaseState:
        return replace(super().renew(), halted_reason=None)


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with open_pool(database_url, "trader") as opened:
        yield opened


def test_the_account_row_alone_stops_a_trader_that_hears_of_nothing(pool: Pool, database_url: str) -> None:
    ledger = Deaf(pool, account=ACCOUNT, venue="simulated", trader_uid="uid", holder="uid", lease_seconds=60.0)
    deaf = trader(ledger=ledger)

    def halt(tick: Tick) -> None:
        if len([t for t in deaf.venue.ticks if t.bar_closed]) == 4 and tick.bar_closed:
            with psycopg.connect(database_url, autocommit=True) as person:
                person.execute("select account_halt(%s, 'by a person', 'test')", [ACCOUNT])
            before.append(len(deaf.venue.submissions))

    before: list[int] = []
    deaf.venue.on_tick = halt
    assert deaf.run().finished
    assert before[0] > 0
    assert len(deaf.venue.submissions) == before[0]  # the trader decided on, and the database refused every intent
    with psycopg.connect(database_url) as connection:
        refused = connection.execute("select count(*) from decision where refusals::text like '%\"halted\"%'").fetchone()
    assert refused is not None
    assert refused[0] >= 5


# --- SIGTERM alone ----------------------------------------------------------------------------------


def test_asked_to_stop_between_two_orders_of_a_bar_it_sends_no_second_one_and_the_next_process_does() -> None:
    both = {n: {A: 0.3, B: 0.3} if n % 2 else {A: 0.0, B: 0.0} for n in range(30)}
    stopped, reference = trader(), trader()
    stopped.strategy, reference.strategy = Script(both), Script(both)
    reference.run()

    def stop(_: Intent) -> None:
        if len(stopped.venue.submissions) == 1:
            stopped.venue.stop("SIGTERM")

    stopped.venue.on_submit = stop
    assert not stopped.run().finished
    assert len(stopped.venue.submissions) == 1
    assert len(stopped.ledger.intents) == 2
    stopped.venue.inbox.clear()
    assert stopped.run().finished
    assert stopped.ledger.equity == reference.ledger.equity
    assert stopped.books_agree()


# --- the lease alone --------------------------------------------------------------------------------


def test_the_lease_alone_stops_a_trader_that_nobody_can_reach() -> None:
    """No row, since the database is away, and no signal: entries end at once, and with the lease everything does."""
    cut_off = trader(bars=40)
    cut_at: list[float] = []

    def cut(tick: Tick) -> None:
        if len(cut_off.venue.ticks) == 8:
            cut_off.ledger.away = True
            cut_at.append(cut_off.venue.time.now)

    cut_off.venue.on_tick = cut
    with pytest.raises(RetryLater):
        cut_off.run()
    sent = len(cut_off.venue.submissions)
    assert cut_off.venue.time.now - cut_at[0] < 16
    assert not cut_off.lease.alive
    assert sent == len(cut_off.ledger.intents)
    assert {i.created_at for i in cut_off.venue.submissions} == {i.created_at for i in cut_off.ledger.intents.values()}
