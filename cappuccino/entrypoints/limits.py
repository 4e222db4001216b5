"""From a manifest's words to limits and barriers. In a manifest 0 switches a barrier off; the rules know None."""

from __future__ import annotations

from dataclasses import fields

from cappuccino.api.study import BarriersSpec
from cappuccino.api.trader import Mode, RiskLimits
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import LIVE_MAX_WEIGHT, Limits


def barriers_of(spec: BarriersSpec | RiskLimits) -> Barriers:
    """Of what a Study is made with, or of what a Trader trades under."""
    return Barriers(
        stop=spec.stop or None,
        take_profit=spec.take_profit or None,
        trail=spec.trail or None,
        trail_arms_at=spec.trail_arms_at,
        max_hold_bars=spec.max_hold_bars or None,
    )


def limits_of(risk: RiskLimits, mode: Mode) -> Limits:
    """A manifest's limits; real money takes no more than LIVE_MAX_WEIGHT in one symbol, to which targets are scaled."""
    same = {each.name: getattr(risk, each.name) for each in fields(Limits) if each.name != "barriers"}
    if mode == "live":
        same["max_weight"] = min(risk.max_weight, LIVE_MAX_WEIGHT)
    return Limits(**same, barriers=barriers_of(risk))
