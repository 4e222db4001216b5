"""From Coinbase's JSON to our types. Numbers become Decimal from their text; a field that is missing is an unreadable answer.

Products are BTC-USD here and BTC/USD in the rest of the program. Order states are told in the words of `trading.orders`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from cappuccino.core.clock import parse_iso
from cappuccino.core.errors import InvariantViolation
from cappuccino.core.money import ZERO, dec, dec_or_zero, round_to
from cappuccino.exchange.venue import AssetRules
from cappuccino.trading.orders import Execution, Intent, Report, Side, state_of
from cappuccino.trading.ports import OrderUpdate, Quote, VenueFill, VenueOrder

Raw = Mapping[str, Any]

STATES: Mapping[str, str] = {
    "PENDING": "pending_new",
    "QUEUED": "accepted",
    "OPEN": "new",
    "EDIT_QUEUED": "pending_replace",
    "CANCEL_QUEUED": "pending_cancel",
    "FILLED": "filled",
    "CANCELLED": "canceled",
    "EXPIRED": "expired",
    "FAILED": "rejected",
}


def product(symbol: str) -> str:
    return symbol.replace("/", "-")


def symbol_of(product_id: str) -> str:
    return product_id.replace("-", "/")


def status_of(status: str, filled: Decimal) -> str:
    """Raises InvariantViolation for a status that is not in the table."""
    if status not in STATES:
        raise InvariantViolation(f"order status {status!r} of Coinbase is not one we know: add it to wire.STATES")
    if filled and status in ("OPEN", "PENDING"):
        return "partially_filled"
    if filled and status == "FAILED":
        return "canceled"  # what was filled before it failed is ours
    return STATES[status]


def order(raw: Raw) -> VenueOrder:
    filled = dec_or_zero(raw["filled_size"])
    sizes: Raw = next(iter(raw["order_configuration"].values()))
    notional, qty = sizes.get("quote_size"), sizes.get("base_size")
    return VenueOrder(
        client_order_id=str(raw["client_order_id"]),
        venue_order_id=str(raw["order_id"]),
        symbol=symbol_of(str(raw["product_id"])),
        side=_side(raw["side"]),
        status=status_of(raw["status"], filled),
        filled_qty=filled,
        at=parse_iso(raw.get("last_fill_time") or raw["created_time"]),
        qty=dec(qty) if qty else None,
        notional=dec(notional) if notional else None,
        created_at=parse_iso(raw["created_time"]),
    )


def taken(intent: Intent, order_id: str, at: datetime) -> VenueOrder:
    """An order that the venue has just taken: what it has become of it is asked for."""
    return VenueOrder(
        client_order_id=intent.client_order_id,
        venue_order_id=order_id,
        symbol=intent.symbol,
        side=intent.side,
        status="pending_new",
        filled_qty=ZERO,
        at=at,
        qty=intent.qty,
        notional=intent.notional,
    )


def update(raw: Raw, at: datetime) -> OrderUpdate:
    """An order of the user channel. It is cumulative and does not name its fills: they are asked for over REST, where each has
    its id, its exact price and its commission."""
    filled = dec_or_zero(raw["cumulative_quantity"])
    return OrderUpdate(
        client_order_id=str(raw["client_order_id"]),
        report=Report(
            state=state_of(status_of(raw["status"], filled)),
            at=at,
            reason=str(raw.get("reject_reason") or raw.get("cancel_reason") or raw["status"]).lower(),
            venue_order_id=str(raw["order_id"]),
            filled_qty=filled,
        ),
    )


def fill(raw: Raw, increments: Mapping[str, Decimal]) -> VenueFill:
    """A fill whose size is in quote currency is brought back to units, at the product's increment."""
    symbol, price, size = symbol_of(str(raw["product_id"])), dec(raw["price"]), dec(raw["size"])
    qty = round_to(size / price, increments[symbol]) if raw["size_in_quote"] and symbol in increments else size
    return VenueFill(
        execution=Execution(
            execution_id=str(raw["entry_id"]),
            qty=qty,
            price=price,
            at=parse_iso(raw["trade_time"]),
            fee=dec(raw["commission"]),
            fee_asset=symbol.partition("/")[2],
        ),
        venue_order_id=str(raw["order_id"]),
        symbol=symbol,
        side=_side(raw["side"]),
    )


def balances(wallets: Iterable[Raw]) -> dict[str, Decimal]:
    """What each currency's wallets hold, what open orders hold back included; nothing for those that are empty."""
    found: dict[str, Decimal] = {}
    for raw in wallets:
        value = dec(raw["available_balance"]["value"]) + dec(raw["hold"]["value"])
        found[raw["currency"]] = found.get(raw["currency"], ZERO) + value
    return {currency: value for currency, value in found.items() if value}


def quote(raw: Raw, at: datetime, *, bid: Any, ask: Any) -> Quote:
    return Quote(symbol=symbol_of(str(raw["product_id"])), bid=dec(bid), ask=dec(ask), at=at)


def rules(raw: Raw, symbol: str) -> AssetRules:
    return AssetRules(
        symbol=symbol,
        min_order_size=dec(raw["base_min_size"]),
        min_trade_increment=dec(raw["base_increment"]),
        price_increment=dec(raw.get("price_increment") or raw["quote_increment"]),
        min_notional=dec(raw["quote_min_size"]),
        notional_increment=dec(raw["quote_increment"]),
    )


def tradable(raw: Raw) -> bool:
    closed: Sequence[str] = ("is_disabled", "trading_disabled", "cancel_only", "limit_only", "post_only", "view_only")
    return raw.get("status", "online") == "online" and not any(raw.get(name) for name in closed)


def _side(text: Any) -> Side:
    if text not in ("BUY", "SELL"):
        raise ValueError(f"side {text!r}")
    return "buy" if text == "BUY" else "sell"
