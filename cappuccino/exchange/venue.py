"""What a venue demands of an order, and what it charges.

Sizes come from the venue (`/v2/assets`); the defaults here are the simulated exchange's.
Fee tiers: the published schedules by 30-day volume, maker / taker in bps. Alpaca takes the fee from the asset received,
Coinbase in quote currency on both sides; what Coinbase really charges is told with each fill and by `transaction_summary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from typing import Literal

from cappuccino.core.errors import InvalidInput
from cappuccino.core.money import ZERO, dec

TRADE_INCREMENT = Decimal("0.000000001")
MONEY_INCREMENT = Decimal("0.000000001")
_PRICE_DIGITS = 7
_SIZE_DIGITS = 3

Face = Literal["alpaca", "coinbase"]

SIMULATED_MIN_NOTIONAL = Decimal(1)  # quote currency


@dataclass(frozen=True, kw_only=True)
class AssetRules:
    """One asset's sizes. Quantities in base units, prices and notionals in quote currency."""

    symbol: str
    min_order_size: Decimal
    min_trade_increment: Decimal
    price_increment: Decimal
    min_notional: Decimal = SIMULATED_MIN_NOTIONAL
    min_buy_notional: Decimal = ZERO  # of a buy, where that is more
    notional_increment: Decimal = MONEY_INCREMENT


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


COINBASE_FEE_TIERS = tuple(
    FeeTier(volume_from_usd=volume, maker_bps=Decimal(maker), taker_bps=Decimal(taker))
    for volume, maker, taker in (
        (0, 60, 120),
        (1_000, 35, 75),
        (10_000, 25, 40),
        (50_000, 15, 25),
        (100_000, 10, 20),
        (1_000_000, 8, 18),
        (15_000_000, 6, 16),
        (75_000_000, 3, 12),
        (150_000_000, 0, 8),
        (250_000_000, 0, 5),
    )
)


def fee_tier(volume_30d_usd: Decimal, tiers: tuple[FeeTier, ...] = ALPACA_FEE_TIERS) -> FeeTier:
    """The tier of an account with this 30-day volume."""
    return max(
        (tier for tier in tiers if tier.volume_from_usd <= volume_30d_usd),
        key=lambda tier: tier.volume_from_usd,
    )


def flat_fee(fee_bps: Decimal) -> tuple[FeeTier, ...]:
    """A schedule of one tier, maker as taker: what a model with one `fee_bps` assumes."""
    return (FeeTier(volume_from_usd=0, maker_bps=fee_bps, taker_bps=fee_bps),)


def fee_taken(*, side: str, qty: Decimal, price: Decimal, fee_bps: Decimal, increment: Decimal) -> Decimal:
    """The fee of one fill, from the asset received: base units of a buy, quote currency of a sale.

    Rounded up: to the trade increment for units, to nine decimals for money.
    """
    if side == "buy":
        return (qty * fee_bps / 10_000 / increment).to_integral_value(ROUND_UP) * increment
    return (qty * price * fee_bps / 10_000).quantize(MONEY_INCREMENT, rounding=ROUND_UP)


def commission(*, qty: Decimal, price: Decimal, fee_bps: Decimal) -> Decimal:
    """The fee of one fill in quote currency: on top of what a buy costs, out of what a sale brings. Nine decimals, rounded
    down, so that an amount which includes its fee is never exceeded."""
    return (qty * price * fee_bps / 10_000).quantize(MONEY_INCREMENT, rounding=ROUND_DOWN)


def simulated_rules(symbol: str, price: float | Decimal) -> AssetRules:
    """The simulated exchange's sizes for an asset whose first price in the data is `price`.

    The smallest order is worth one USD at that price (three digits, rounded up), quantities have nine decimals,
    prices seven significant digits. Built from the first price, they do not move while the market does.

    Raises:
        InvalidInput: the price is not a positive number.
    """
    first = dec(price)
    if not first.is_finite() or first <= 0:
        raise InvalidInput(f"{symbol}: the first price is {price}: sizes need a positive price, correct the data")
    smallest = 1 / first
    digits = Decimal(1).scaleb(smallest.adjusted() - _SIZE_DIGITS + 1)
    return AssetRules(
        symbol=symbol,
        min_order_size=smallest.quantize(max(digits, TRADE_INCREMENT), rounding=ROUND_UP),
        min_trade_increment=TRADE_INCREMENT,
        price_increment=Decimal(1).scaleb(first.adjusted() - _PRICE_DIGITS + 1),
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
