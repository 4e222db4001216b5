"""From a manifest's risk section to the limits that orders are reviewed by."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from cappuccino.api.trader import RiskLimits
from cappuccino.entrypoints.limits import limits_of
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.risk.sizing import Sizing
from cappuccino.trading.planning import scale_of


def test_the_defaults_of_a_manifest_are_those_of_the_limits() -> None:
    assert limits_of(RiskLimits(), "paper") == Limits()


def test_every_limit_of_a_manifest_arrives_under_its_own_name() -> None:
    given = RiskLimits(
        max_weight=0.21,
        max_symbol_notional_usd=22,
        max_heat=0.23,
        max_open_positions=24,
        max_orders_per_hour=25,
        max_orders_per_minute=26,
        price_band=0.27,
        max_spread=0.28,
        max_quote_age_seconds=29,
        max_daily_loss=0.3,
        daily_loss_halts=True,
        daily_profit_target=0.31,
        max_drawdown=0.32,
        max_consecutive_losses=33,
        max_rejected_orders=34,
        max_failed_decisions=35,
        stop=0.36,
        trail=0,
        take_profit=0.37,
        max_hold_bars=38,
    )
    limits = limits_of(given, "paper")
    for each in fields(Limits):
        if each.name != "barriers":
            assert getattr(limits, each.name) == getattr(given, each.name)
            assert getattr(limits, each.name) != getattr(Limits(), each.name)
    assert limits.barriers == Barriers(stop=0.36, trail=None, take_profit=0.37, max_hold_bars=38)


@pytest.mark.parametrize(("asked", "live"), [(0.3, 0.1), (1.0, 0.1), (0.1, 0.1), (0.05, 0.05)])
def test_real_money_takes_a_tenth_in_one_symbol_and_targets_are_scaled_to_it(asked: float, live: float) -> None:
    limits = limits_of(RiskLimits(max_weight=asked), "live")
    assert limits == replace(limits_of(RiskLimits(max_weight=asked), "paper"), max_weight=live)
    assert scale_of(limits, Sizing(max_weight=0.3)) == pytest.approx(live / 0.3)
