"""What `make faults` accepts as an explanation of an order's end, a row per case: it must not explain everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.audit import _unexplained

D = Decimal
WHOLE = {"symbol": "A/USD", "side": "buy", "qty": "2", "price": "50", "fee": "0.1", "fee_asset": "A"}
PART = {**WHOLE, "qty": "1.5"}


def told(states: str, befallen: str = "", filled: Sequence[Mapping[str, Any]] = (), *, taken: bool = True, **size: Any) -> str:
    order = {"states": states.split(), "reasons": ["why"], "qty": D(2), "notional": None, **size}
    return _unexplained(order, set(befallen.split()), filled, taken=taken)


@pytest.mark.parametrize(
    ("states", "befallen", "filled"),
    [
        ("ACCEPTED FILLED", "", [WHOLE]),
        ("UNKNOWN FILLED", "answer_lost", [WHOLE]),
        ("UNKNOWN FILLED", "interrupted", [WHOLE]),
        ("ACCEPTED CANCELED", "partial_fill", [PART]),
        ("ACCEPTED CANCELED", "symbol_halted", []),
    ],
)
def test_what_a_fault_of_that_order_explains(states: str, befallen: str, filled: list[dict[str, str]]) -> None:
    assert told(states, befallen, filled) == ""


@pytest.mark.parametrize(
    ("states", "befallen", "filled", "says"),
    [
        ("", "interrupted", [], "no outcome"),
        ("SUBMITTED UNKNOWN", "answer_lost", [], "no outcome"),
        ("UNKNOWN FILLED", "event_lost", [WHOLE], "its outcome was unknown"),
        ("ACCEPTED FILLED", "answer_lost", [PART], "the venue filled"),
        ("ACCEPTED CANCELED", "answer_lost", [PART], "no fault cut it short"),
        ("REJECTED", "rejected_size", [], "refused, and the venue took it"),
        ("ACCEPTED CANCELED", "event_late", [WHOLE], "given up"),
    ],
)
def test_what_nothing_explains(states: str, befallen: str, filled: list[dict[str, str]], says: str) -> None:
    assert says in told(states, befallen, filled)


def test_an_order_that_the_venue_never_took_needs_a_fault_that_refused_or_confused() -> None:
    assert told("REJECTED", "rate_limited", taken=False) == ""
    assert "no fault refused it" in told("REJECTED", "slow", taken=False)
    assert told("UNKNOWN CANCELED", "request_lost", taken=False) == ""
    assert "nothing had happened" in told("CANCELED", taken=False)
    assert "not sent" in told("DENIED", taken=False)


@pytest.mark.parametrize(("notional", "whole"), [("100.00000004", True), ("100.0000001", False)])
def test_a_notional_is_filled_when_what_is_left_buys_no_increment(notional: str, whole: bool) -> None:
    assert (told("FILLED", filled=[WHOLE], qty=None, notional=D(notional)) == "") == whole


def test_a_fee_in_quote_currency_is_part_of_a_notional() -> None:
    fill = {**WHOLE, "fee_asset": "USD"}
    assert told("FILLED", filled=[fill], qty=None, notional=D("100.1")) == ""
    assert "the venue filled" in told("FILLED", filled=[WHOLE], qty=None, notional=D("100.1"))
