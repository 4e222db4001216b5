"""Which orders the venue takes: consistent requests, sizes at increments and above the minimum, and a balance that pays."""

from __future__ import annotations

from decimal import Decimal

from cappuccino.core.money import floor_to
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.matching import Quote
from cappuccino.exchange.orders import OrderRequest, Refused
from cappuccino.exchange.venue import MONEY_INCREMENT, AssetRules


def check(
    request: OrderRequest,
    *,
    rules: AssetRules,
    account: Account,
    quote: Quote,
    market_price: Decimal,
    on_top: Decimal,
) -> None:
    """Raises Refused unless the order may enter the book.

    Args:
        market_price: what a market order of this side would be filled at now.
        on_top: fraction of a buy's value that its fee takes from cash as well; a notional includes it.
    """
    _shape(request)
    _increments(request, rules)
    if quote.ask <= 0:
        raise Refused("invalid", f"{request.symbol} has no quote yet: wait for its first bar")
    price = request.limit_price or market_price
    cost = price * (1 + on_top)
    qty = request.qty if request.qty is not None else floor_to((request.notional or 0) / cost, rules.min_trade_increment)
    if qty < rules.min_order_size:
        raise Refused(
            "below_minimum", f"quantity {qty:f} of {request.symbol} is below the minimal order size {rules.min_order_size:f}"
        )
    value = request.notional if request.notional is not None else qty * price
    if value < rules.min_notional:
        raise Refused("below_minimum", f"cost basis must be >= minimal amount of order {rules.min_notional:f}")
    _balance(request, account, qty=qty, value=request.notional if request.notional is not None else qty * cost)


def _shape(request: OrderRequest) -> None:
    if (request.qty is None) == (request.notional is None):
        raise Refused("invalid", "one of qty or notional is required, and not both")
    if request.notional is not None and request.type != "market":
        raise Refused("invalid", f"notional is for market orders only: give a {request.type} order its qty")
    if (request.limit_price is None) != (request.type == "market"):
        verb = "require no" if request.type == "market" else "require a"
        raise Refused("invalid", f"{request.type} orders {verb} limit_price")
    if (request.stop_price is None) == (request.type == "stop_limit"):
        verb = "require a" if request.type == "stop_limit" else "require no"
        raise Refused("invalid", f"{request.type} orders {verb} stop_price")


def _increments(request: OrderRequest, rules: AssetRules) -> None:
    for name, value, increment in (
        ("qty", request.qty, rules.min_trade_increment),
        ("notional", request.notional, MONEY_INCREMENT),
        ("limit_price", request.limit_price, rules.price_increment),
        ("stop_price", request.stop_price, rules.price_increment),
    ):
        if value is not None and (value > 10**12 or value % increment != 0):
            raise Refused("invalid", f"{name} {value:f} of {request.symbol} is not a multiple of {increment:f}")


def _balance(request: OrderRequest, account: Account, *, qty: Decimal, value: Decimal) -> None:
    if request.side == "buy":
        asset, requested, available, balance = "USD", value, account.available_cash, account.cash
    else:
        held = account.position(request.symbol)
        asset, requested, available, balance = request.symbol.split("/")[0], qty, held.available, held.qty
    if requested > available:
        raise Refused(
            "insufficient_balance",
            f"insufficient balance for {asset} (requested: {requested:f}, available: {available:f})",
            available=f"{available:f}",
            balance=f"{balance:f}",
            symbol=asset,
        )
