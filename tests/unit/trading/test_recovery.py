"""Reconciliation through a whole session: what it waits for, and what it does not take for its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest

from cappuccino.core.errors import IntegrityError
from cappuccino.trading.ports import Event

from .builders import SYMBOLS, Script, Trader, Venue, make_bars

A, B = SYMBOLS
BUSY_SECONDS = 0.01  # between two quotes of a stream that never pauses


class BusyVenue(Venue):
    """A stream that always has a quote, and balances that trail by `trail_seconds` of the session's clock."""

    trail_seconds = 0.0
    looks: list[float]

    def next(self, timeout_seconds: float) -> Event | None:
        self.time.now += BUSY_SECONDS
        return self.inbox.popleft() if self.inbox else self._quote(A)

    def positions(self) -> Mapping[str, Decimal]:
        self.looks.append(self.time.now - 1000.0)
        return super().positions() if self.looks[-1] >= self.trail_seconds else {A: Decimal(1)}


def trailing(seconds: float) -> tuple[Trader, BusyVenue]:
    venue = BusyVenue.over(make_bars())
    assert isinstance(venue, BusyVenue)
    venue.trail_seconds, venue.looks = seconds, []
    return Trader(venue=venue, strategy=Script({})), venue


def test_balances_that_trail_are_waited_for_also_while_quotes_pour_in() -> None:
    trader, venue = trailing(0.9)
    session = trader.session()
    session.start()
    trader.lease.close(release=False)
    assert venue.looks == pytest.approx([0.0, 0.5, 1.0], abs=2 * BUSY_SECONDS)


def test_balances_that_stay_different_are_a_difference() -> None:
    trader, venue = trailing(60.0)
    with pytest.raises(IntegrityError, match="AAA/USD: journal 0, venue 1"):
        trader.session().start()
    trader.lease.close(release=False)
    assert len(venue.looks) == 3


def test_where_fees_are_posted_later_the_difference_names_them() -> None:
    trader, _ = trailing(60.0)
    session = trader.session()
    session._config = replace(session._config, fees_posted_later=True)
    with pytest.raises(IntegrityError, match="posted otherwise than by its schedule"):
        session.start()
    trader.lease.close(release=False)
