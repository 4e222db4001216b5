"""The lease by our own clock."""

from __future__ import annotations

import pytest

from cappuccino.core.errors import RetryLater
from cappuccino.trading.lease import MARGIN_SECONDS, LeaseKeeper
from cappuccino.trading.ports import Fenced, LeaseState

from .builders import FakeTime, MemoryLedger


def keeper(ledger: MemoryLedger, time: FakeTime) -> LeaseKeeper:
    lease = LeaseKeeper(ledger, seconds=10.0, monotonic=time)
    lease.acquire()
    lease.close(release=False)  # no thread: renewals are the test's
    return lease


def test_it_ends_a_margin_before_the_database_would_give_it_away() -> None:
    time, ledger = FakeTime(), MemoryLedger()
    lease = keeper(ledger, time)
    time.now += 10 - MARGIN_SECONDS - 0.01
    assert lease.alive
    time.now += 0.02
    with pytest.raises(Fenced):
        lease.check()


def test_a_renewal_counts_from_before_it_was_asked_for() -> None:
    time, ledger = FakeTime(), MemoryLedger()
    lease = keeper(ledger, time)
    renew = ledger.renew

    def slow() -> LeaseState:
        time.now += 5
        return renew()

    ledger.renew = slow  # type: ignore[method-assign]
    lease.renew()
    time.now += 4.5
    assert not lease.alive


def test_a_database_that_is_away_does_not_end_it_before_its_time() -> None:
    time, ledger = FakeTime(), MemoryLedger()
    lease = keeper(ledger, time)
    ledger.away = True
    lease.renew()
    assert lease.alive
    assert lease.database_away
    ledger.away = False
    lease.renew()
    assert not lease.database_away


def test_another_holder_ends_it_at_once_and_for_good() -> None:
    time, ledger = FakeTime(), MemoryLedger()
    lease = keeper(ledger, time)
    ledger.holder = -1
    lease.renew()
    assert not lease.alive
    ledger.holder = ledger.token
    lease.renew()
    assert not lease.alive


def test_a_halt_is_learned_with_the_renewal() -> None:
    time, ledger = FakeTime(), MemoryLedger()
    lease = keeper(ledger, time)
    ledger.halted = "by a person"
    assert lease.halted_reason is None
    lease.renew()
    assert lease.halted_reason == "by a person"


def test_an_account_that_is_taken_is_waited_for() -> None:
    ledger = MemoryLedger()
    ledger.acquire = lambda: LeaseState(held=False, token=0, halted_reason=None)  # type: ignore[method-assign]
    with pytest.raises(RetryLater, match="another holder"):
        LeaseKeeper(ledger, seconds=10.0, monotonic=FakeTime()).acquire()
