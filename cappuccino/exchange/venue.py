"""What a venue demands of an order, and what it charges.

Sizes come from the venue (`/v2/assets`); the defaults here are the simulated exchange's.
Fee tiers: Alpaca's published crypto schedule by 30-day volume, maker / taker in bps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, kw_only=True)
class AssetRules:
    """One asset's sizes. Quantities in base units, prices in quote currency."""

    symbol: str
    min_order_size: Decimal
    min_trade_increment: Decimal
    price_increment: Decimal
    min_notional: Decimal = Decimal("1")


@dataclass(frozen=True, kw_only=True)
class FeeTier:
    volume_from_usd: int
    maker_bps: Decimal
    taker_bps: Decimal


ALPACA_FEE_TIERS = tuple(
    FeeTier(volume_from_usd=volume, maker_bps=Decimal(maker), taker_bps=Decimal(taker))
    for volume, maker, taker in (
        (0, 15, 25),
        (100_000, 12, 22),
        (500_000, 10, 20),
        (1_000_000, 8, 18),
        (10_000_000, 5, 15),
        (25_000_000, 2, 13),
        (50_000_000, 2, 12),
        (100_000_000, 0, 10),
    )
)


def fee_tier(volume_30d_usd: Decimal) -> FeeTier:
    """The tier of an account with this 30-day volume."""
    return max(
        (tier for tier in ALPACA_FEE_TIERS if tier.volume_from_usd <= volume_30d_usd),
        key=lambda tier: tier.volume_from_usd,
    )


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Modelled costs of a market order: fee from the asset received, slippage against the taker, per side."""

    fee_bps: float = 25.0
    slippage_bps: float = 5.0
    slippage_by_symbol_bps: Mapping[str, float] = field(default_factory=dict)

    def slippage(self, symbol: str) -> float:
        """Fraction of the price, not bps."""
        return self.slippage_by_symbol_bps.get(symbol, self.slippage_bps) / 1e4

    @property
    def fee(self) -> float:
        """Fraction of the asset received, not bps."""
        return self.fee_bps / 1e4
