"""What a trader may risk: the limits of a Trader manifest, and what each of them means.

    max_weight                shrinks a buy to this share of equity; targets are scaled to it beforehand, never clipped
    max_symbol_notional_usd   shrinks a buy until the position is worth no more
    max_heat                  shrinks a buy until the portfolio's heat (`risk/heat.py`) is this share of equity
    max_open_positions        refuses a buy that would open one more
    max_orders_per_hour, max_orders_per_minute             refuse entries and rebalancing sales
    price_band, max_spread, max_quote_age_seconds          refuse a buy whose price cannot be trusted
    max_daily_loss, daily_profit_target                    refuse buys for the rest of the UTC day (`risk/day.py`)
    max_drawdown, max_consecutive_losses, max_rejected_orders, max_failed_decisions, daily_loss_halts
                              halt the account until a person resumes it (`risk/breaker.py`)
    barriers                  sell a position (`risk/barriers.py`)

0 switches a limit off. Nothing here stops a protective exit. Fractions are of equity or of a price, money is in quote
currency, time is the market's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from cappuccino.core.errors import InvalidInput
from cappuccino.risk.barriers import Barriers

TradingMode = Literal["active", "reducing", "halted"]
LIVE_MAX_WEIGHT = 0.10  # of equity in one symbol while money is real, whatever the manifest says


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The defaults are those of a Trader manifest.

    Raises:
        InvalidInput: a limit is negative, or no number.
    """

    max_weight: float = 0.30
    max_symbol_notional_usd: float = 0.0
    max_heat: float = 0.0
    max_open_positions: int = 0
    max_orders_per_hour: int = 60
    max_orders_per_minute: int = 0
    price_band: float = 0.50
    max_spread: float = 0.05
    max_quote_age_seconds: float = 60.0
    max_daily_loss: float = 0.0
    daily_loss_halts: bool = False
    daily_profit_target: float = 0.0
    max_drawdown: float = 0.20
    max_consecutive_losses: int = 0
    max_rejected_orders: int = 10
    max_failed_decisions: int = 3
    barriers: Barriers = field(default_factory=Barriers)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "barriers" and not (math.isfinite(value) and value >= 0):
                raise InvalidInput(f"risk limit {each.name} is {value}: give a number from 0 (which switches it off)")
