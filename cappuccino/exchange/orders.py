"""Orders as the venue keeps them: what was asked, and how far it got.

States: new -> partially_filled -> filled | canceled. A market order that meets a quote is filled at once; ioc never rests.
Quantities are base units, prices and notionals quote currency, times microseconds of market time.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from cappuccino.core.errors import UserError
from cappuccino.core.money import ZERO

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop_limit"]
TimeInForce = Literal["gtc", "ioc"]
Status = Literal["new", "partially_filled", "filled", "canceled"]
RefusalReason = Literal[
    "insufficient_balance",
    "below_minimum",
    "unknown_symbol",
    "duplicate_client_order_id",
    "invalid",
    "not_found",
    "not_cancelable",
]

OPEN: frozenset[Status] = frozenset({"new", "partially_filled"})


class Refused(UserError):
    """The exchange will not do it; nothing has changed. `details` go into the answer beside the message."""

    def __init__(self, reason: RefusalReason, message: str, **details: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = details


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderRequest:
    """Exactly one of `qty` and `notional`; `notional` for market orders only. An empty client id is given one."""

    symbol: str
    side: Side
    type: OrderType = "market"
    time_in_force: TimeInForce = "gtc"
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    client_order_id: str = ""


@dataclass(kw_only=True, slots=True)
class Order:
    """`reserved` is what the order still holds back: cash of a buy, units of a sale. `fees` is what the fills cost so far where
    fees are in quote currency on both sides; the notional of a buy includes them."""

    id: str
    sequence: int  # within the account
    client_order_id: str
    request: OrderRequest
    submitted_us: int
    updated_us: int
    status: Status = "new"
    triggered: bool = False  # a stop_limit whose stop was reached
    filled_qty: Decimal = ZERO
    filled_value: Decimal = ZERO
    fills: int = 0
    fees: Decimal = ZERO
    filled_us: int | None = None
    canceled_us: int | None = None
    reserved: Decimal = ZERO

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def remaining(self) -> Decimal:
        """Units still to fill; of a notional order, quote currency still to trade."""
        if self.request.qty is not None:
            return self.request.qty - self.filled_qty
        return (self.request.notional or ZERO) - self.traded_value

    @property
    def traded_value(self) -> Decimal:
        """What its fills used up of a notional. A sale's fees come out of what it brings."""
        return self.filled_value + (self.fees if self.request.side == "buy" else ZERO)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """`fee` in `fee_asset`, base units or quote currency. Value is qty x price exactly."""

    execution_id: str
    order_id: str
    client_order_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    liquidity: Literal["maker", "taker"]
    at_us: int
    cumulative_qty: Decimal
    completes: bool

    @property
    def value(self) -> Decimal:
        return self.qty * self.price

    @property
    def fee_in_units(self) -> bool:
        return self.fee_asset == self.symbol.partition("/")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What a trade update tells; `order` is a copy as it was then, `position_qty` follows a fill."""

    account: str
    kind: Literal["new", "partial_fill", "fill", "canceled"]
    order: Order
    at_us: int
    fill: Fill | None = None
    position_qty: Decimal | None = None


def parse_request(fields: dict[str, Any]) -> OrderRequest:
    """A request from its JSON fields, whose numbers are Decimal or text.

    Raises:
        Refused: a field is absent, of another type, or a combination the venue does not know.
    """
    kind, life, side = fields.get("type", "market"), fields.get("time_in_force", "gtc"), fields.get("side")
    symbol, client_order_id = fields.get("symbol"), fields.get("client_order_id") or ""
    if not isinstance(symbol, str) or not symbol:
        raise Refused("invalid", "symbol is required")
    if side not in ("buy", "sell"):
        raise Refused("invalid", f"side {side!r} is invalid: use buy or sell")
    if kind not in ("market", "limit", "stop_limit"):
        raise Refused("invalid", f"invalid order type for crypto order: {kind!r}: use market, limit or stop_limit")
    if life not in ("gtc", "ioc"):
        raise Refused("invalid", f"invalid crypto time_in_force: {life!r}: use gtc or ioc")
    if fields.get("order_class") not in (None, "", "simple"):
        raise Refused("invalid", f"order_class {fields['order_class']!r} is invalid for crypto: use simple")
    if not isinstance(client_order_id, str) or len(client_order_id) > 128:
        raise Refused("invalid", "client_order_id must be text of at most 128 characters")
    return OrderRequest(
        symbol=symbol,
        side=side,
        type=kind,
        time_in_force=life,
        qty=_positive(fields, "qty"),
        notional=_positive(fields, "notional"),
        limit_price=_positive(fields, "limit_price"),
        stop_price=_positive(fields, "stop_price"),
        client_order_id=client_order_id,
    )


def _positive(fields: dict[str, Any], name: str) -> Decimal | None:
    raw = fields.get(name)
    if raw is None or raw == "":
        return None
    try:
        value = Decimal(str(raw)) if not isinstance(raw, bool) else ZERO
    except ArithmeticError:
        value = ZERO
    if not value.is_finite() or value <= 0:
        raise Refused("invalid", f"{name} must be a number above 0, not {raw!r}")
    return value
