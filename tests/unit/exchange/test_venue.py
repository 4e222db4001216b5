"""Sizes and fees of the simulated venue."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.terms import Terms
from cappuccino.exchange.venue import fee_taken, fee_tier, flat_fee, simulated_rules


@given(st.floats(min_value=1e-7, max_value=1e6))
def test_the_smallest_order_is_worth_one_dollar_at_the_first_price(price: float) -> None:
    rules = simulated_rules("X/USD", price)
    assert 1 <= rules.min_order_size * Decimal(str(price)) < Decimal("1.02")
    assert rules.min_order_size % rules.min_trade_increment == 0
    assert rules.price_increment <= Decimal(str(price)) / 10**6 <= rules.price_increment * 10


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_sizes_are_refused_without_a_positive_price(price: float) -> None:
    with pytest.raises(InvalidInput, match="BTC/USD"):
        simulated_rules("BTC/USD", price)


@pytest.mark.parametrize(("volume", "maker", "taker"), [(0, 15, 25), (99_999, 15, 25), (100_000, 12, 22), (10**9, 0, 10)])
def test_the_fee_tier_follows_the_volume(volume: int, maker: int, taker: int) -> None:
    tier = fee_tier(Decimal(volume))
    assert (tier.maker_bps, tier.taker_bps) == (maker, taker)


def test_a_flat_fee_is_the_same_at_any_volume() -> None:
    assert fee_tier(Decimal(10**9), flat_fee(Decimal(7))).taker_bps == 7


@pytest.mark.parametrize(
    ("side", "qty", "price", "fee"),
    [
        ("buy", "1.00000015", "100", "0.002500001"),
        ("sell", "1", "100.0000001", "0.250000001"),
        ("sell", "1.5", "100.1", "0.375375"),
    ],
)
def test_the_fee_is_taken_from_what_is_received_and_rounded_up(side: str, qty: str, price: str, fee: str) -> None:
    taken = fee_taken(side=side, qty=Decimal(qty), price=Decimal(price), fee_bps=Decimal(25), increment=Decimal("0.000000001"))
    assert taken == Decimal(fee)


@pytest.mark.parametrize(
    "wrong",
    [{"slippage_bps": Decimal(-1)}, {"liquidity_share": Decimal(0)}, {"participation_cap": Decimal(2)}, {"fee_tiers": ()}],
)
def test_terms_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="exchange terms"):
        Terms(**wrong)
