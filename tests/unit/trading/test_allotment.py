"""A step of capital sees its share of the account, and nothing of the rest."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.trading.allotment import AllottedBroker
from cappuccino.trading.ports import VenueAccount

D = Decimal


class Kept:
    """As the record keeps a reserve: the first value stands."""

    value: Decimal | None = None

    def __call__(self, usd: Decimal) -> Decimal:
        self.value = usd if self.value is None else self.value
        return self.value


def allotted(cash: str, kept: Kept, *, capital: str = "1000") -> tuple[AllottedBroker, Any]:
    venue: Any = SimpleNamespace(cash=D(cash))
    venue.account = lambda: VenueAccount(cash_usd=venue.cash, blocked=False)
    return AllottedBroker(venue, capital_usd=D(capital), reserve=kept), venue


def test_the_trader_has_its_capital_and_what_becomes_of_it() -> None:
    kept = Kept()
    broker, venue = allotted("98765.43", kept)
    assert broker.account().cash_usd == D("1000")
    venue.cash -= D("250.01")
    assert broker.account().cash_usd == D("749.99")
    again, _ = allotted(str(venue.cash), kept)  # after a restart
    assert again.account().cash_usd == D("749.99")
    assert kept.value == D("97765.43")


def test_an_account_with_less_cash_than_the_capital_is_refused() -> None:
    broker, _ = allotted("999.99", Kept())
    with pytest.raises(InvalidInput, match=r"began with 999.99 USD in cash, this step trades 1000"):
        broker.account()


def test_a_blocked_account_stays_blocked() -> None:
    broker, venue = allotted("5000", Kept())
    venue.account = lambda: VenueAccount(cash_usd=D(5000), blocked=True)
    assert broker.account().blocked
