"""What an order gets from a quote. Pure: one order, one quote, no account.

A taker pays the quote x (1 ± slippage), a limit order never worse than its limit; a resting limit order is filled at its
limit as soon as the quote touches it, whatever the gap. Prices are at the venue's increment, rounded half to even, except that
rounding never crosses a limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from cappuccino.core.money import round_to
from cappuccino.exchange.orders import Order, OrderRequest, Side


@dataclass(frozen=True, slots=True)
class Quote:
    """`volume` is what trades on this tick, base units. A halted quote is stale and fills nothing."""

    bid: Decimal
    ask: Decimal
    volume: Decimal
    halted: bool

    def facing(self, side: Side) -> Decimal:
        """The price that an order of this side meets."""
        return self.ask if side == "buy" else self.bid


@dataclass(frozen=True, slots=True)
class Match:
    price: Decimal
    maker: bool


def taker_price(side: Side, quote: Quote, slippage: Decimal, increment: Decimal) -> Decimal:
    """The price of a market order; `slippage` is a fraction."""
    factor = 1 + slippage if side == "buy" else 1 - slippage
    return max(round_to(quote.facing(side) * factor, increment), increment)


def stop_reached(request: OrderRequest, quote: Quote) -> bool:
    """A buy stop lies above the market, a sell stop below it."""
    assert request.stop_price is not None
    price = quote.facing(request.side)
    return price >= request.stop_price if request.side == "buy" else price <= request.stop_price


def match(order: Order, quote: Quote, *, arriving: bool, slippage: Decimal, increment: Decimal) -> Match | None:
    """The price at which the order trades on this quote, None when it does not.

    Args:
        arriving: the order has just been submitted, or its stop has just been reached: it takes. Otherwise it rests and makes.
    """
    request = order.request
    if quote.halted:
        return None
    if request.type == "market":
        return Match(taker_price(request.side, quote, slippage, increment), maker=False)
    limit = request.limit_price
    assert limit is not None
    price = quote.facing(request.side)
    if (price > limit) if request.side == "buy" else (price < limit):
        return None
    if not arriving:
        return Match(limit, maker=True)
    taken = taker_price(request.side, quote, slippage, increment)
    return Match(min(taken, limit) if request.side == "buy" else max(taken, limit), maker=False)
