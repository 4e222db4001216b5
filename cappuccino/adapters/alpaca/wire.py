"""From Alpaca's JSON to our types. Numbers become Decimal from their text; a field that is missing is an unreadable answer.

Symbols come as BTC/USD or, on positions, as BTCUSD; `Symbols` knows the pairs that are traded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from cappuccino.core.clock import parse_iso
from cappuccino.core.money import ZERO, dec, dec_or_zero
from cappuccino.exchange.venue import AssetRules
from cappuccino.trading.orders import Execution, Report, Side, state_of
from cappuccino.trading.ports import OrderUpdate, Quote, VenueFill, VenueOrder

Raw = Mapping[str, Any]


class Symbols:
    """Names with a slash by any of their forms."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self._slashed = {form: symbol for symbol in symbols for form in (symbol, symbol.replace("/", ""))}

    def __call__(self, name: str) -> str:
        """The slashed form; a name that is not traded here stays as it is."""
        return self._slashed.get(name, name)


def optional(value: Any) -> Decimal | None:
    return None if value in (None, "") else dec(value)


def order(raw: Raw, symbols: Symbols) -> VenueOrder:
    return VenueOrder(
        client_order_id=str(raw["client_order_id"]),
        venue_order_id=str(raw["id"]),
        symbol=symbols(str(raw["symbol"])),
        side=cast("Side", raw["side"]),
        status=str(raw["status"]),
        filled_qty=dec_or_zero(raw["filled_qty"]),
        at=parse_iso(raw.get("updated_at") or raw["created_at"]),
        qty=optional(raw.get("qty")),
        notional=optional(raw.get("notional")),
        created_at=parse_iso(raw["created_at"]) if raw.get("created_at") else None,
    )


def update(message: Raw, symbols: Symbols) -> OrderUpdate:
    """A trade update of the stream. A fill's price and quantity are that fill's, the order's are cumulative."""
    told = order(message["order"], symbols)
    at = parse_iso(message.get("timestamp") or message["at"])
    report = Report(
        state=state_of(told.status, event=message["event"]),
        at=at,
        reason=str(message["event"]),
        venue_order_id=told.venue_order_id,
        filled_qty=told.filled_qty,
    )
    fill = None
    if message["event"] in ("fill", "partial_fill"):
        fill = VenueFill(
            execution=Execution(
                execution_id=str(message["execution_id"]), qty=dec(message["qty"]), price=dec(message["price"]), at=at
            ),
            venue_order_id=told.venue_order_id,
            symbol=told.symbol,
            side=told.side,
            client_order_id=told.client_order_id,
        )
    return OrderUpdate(client_order_id=told.client_order_id, report=report, fill=fill)


def fills(activities: Iterable[Raw], symbols: Symbols, *, fees_with_fills: bool) -> list[VenueFill]:
    """FILL activities with the CFEE activities that name their execution, in the order given.

    Args:
        fees_with_fills: the venue posts each fee with its fill, so that none posted means none taken; otherwise a
            missing one is not known yet.
    """
    rows = list(activities)
    fees = {
        str(row["description"]).rpartition(" ")[2]: abs(dec_or_zero(row["qty"])) or abs(dec_or_zero(row["net_amount"]))
        for row in rows
        if row["activity_type"] == "CFEE" and row.get("description")
    }
    found = []
    for row in rows:
        if row["activity_type"] != "FILL":
            continue
        execution_id = str(row["id"]).rpartition("::")[2]
        found.append(
            VenueFill(
                execution=Execution(
                    execution_id=execution_id,
                    qty=dec(row["qty"]),
                    price=dec(row["price"]),
                    at=parse_iso(row["transaction_time"]),
                    fee=fees.get(execution_id, ZERO if fees_with_fills else None),
                ),
                venue_order_id=str(row["order_id"]),
                symbol=symbols(str(row["symbol"])),
                side="buy" if row["side"] == "buy" else "sell",
            )
        )
    return found


def quote(symbol: str, raw: Raw, at: datetime) -> Quote:
    return Quote(symbol=symbol, bid=dec(raw["bp"]), ask=dec(raw["ap"]), at=at)


def rules(raw: Raw, symbol: str, *, min_buy_usd: Decimal = ZERO) -> AssetRules:
    return AssetRules(
        symbol=symbol,
        min_order_size=dec(raw["min_order_size"]),
        min_trade_increment=dec(raw["min_trade_increment"]),
        price_increment=dec(raw["price_increment"]),
        min_buy_notional=min_buy_usd if symbol.endswith("/USD") else ZERO,
    )
