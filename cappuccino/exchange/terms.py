"""What the simulated exchange charges and grants.

Slippage is applied once: a market order fills at the quote x (1 ± slippage). The spread of the published quotes is
therefore zero by default (bid = ask = the tape's price); who sets one pays half of it on top.
Every account meets the same liquidity: what one fills does not depend on who else trades.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.venue import ALPACA_FEE_TIERS, COINBASE_FEE_TIERS, Face, FeeTier

BPS = Decimal(10_000)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Basis points of the price, and fractions of volume.

    fee_tiers, coinbase_fee_tiers: by 30-day volume in USD, for the accounts of each face; a schedule of one tier pins the fee.
    liquidity_share: of a tick's volume (the bar's, spread evenly over its ticks), for limit orders.
    participation_cap: the same for market orders; None fills them whole.
    """

    fee_tiers: tuple[FeeTier, ...] = ALPACA_FEE_TIERS
    coinbase_fee_tiers: tuple[FeeTier, ...] = COINBASE_FEE_TIERS
    slippage_bps: Decimal = Decimal(5)
    slippage_by_symbol_bps: Mapping[str, Decimal] = field(default_factory=dict)
    spread_bps: Decimal = Decimal(0)
    liquidity_share: Decimal = Decimal("0.1")
    participation_cap: Decimal | None = None

    def __post_init__(self) -> None:
        bps = [self.slippage_bps, self.spread_bps, *self.slippage_by_symbol_bps.values()]
        schedules = (self.fee_tiers, self.coinbase_fee_tiers)
        bps += [fee for tiers in schedules for tier in tiers for fee in (tier.maker_bps, tier.taker_bps)]
        for value in bps:
            if not 0 <= value < BPS:
                raise InvalidInput(f"exchange terms: {value} basis points is outside [0, 10000): correct the option")
        for name, share in (("liquidity share", self.liquidity_share), ("participation cap", self.participation_cap)):
            if share is not None and not 0 < share <= 1:
                raise InvalidInput(f"exchange terms: {name} {share} is outside (0, 1]: correct the option")
        if not all(any(tier.volume_from_usd == 0 for tier in tiers) for tiers in schedules):
            raise InvalidInput("exchange terms: no fee tier starts at a volume of 0: add one")

    def slippage(self, symbol: str) -> Decimal:
        """Fraction of the price, not bps."""
        return self.slippage_by_symbol_bps.get(symbol, self.slippage_bps) / BPS

    def tiers(self, face: Face) -> tuple[FeeTier, ...]:
        return self.fee_tiers if face == "alpaca" else self.coinbase_fee_tiers

    def describe(self) -> dict[str, object]:
        """Everything that changes a fill, as JSON: part of the journal's header."""
        return {
            "fee_tiers": _schedule(self.fee_tiers),
            "coinbase_fee_tiers": _schedule(self.coinbase_fee_tiers),
            "slippage_bps": str(self.slippage_bps),
            "slippage_by_symbol_bps": {symbol: str(bps) for symbol, bps in sorted(self.slippage_by_symbol_bps.items())},
            "spread_bps": str(self.spread_bps),
            "liquidity_share": str(self.liquidity_share),
            "participation_cap": None if self.participation_cap is None else str(self.participation_cap),
        }


def _schedule(tiers: tuple[FeeTier, ...]) -> list[list[object]]:
    return [[tier.volume_from_usd, str(tier.maker_bps), str(tier.taker_bps)] for tier in tiers]
