"""From the exchange's types to Coinbase's JSON, and orders back. Numbers are text, times RFC 3339 in UTC, products BTC-USD."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any

from aiohttp import web

from cappuccino.adapters.venue_server import wire
from cappuccino.adapters.venue_server.wire import text, when
from cappuccino.core.money import ZERO
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.orders import Fill, Order, OrderRequest, Refused, parse_request

NOTIONAL_INCREMENT = Decimal("0.01")
_AVERAGE = Context(prec=16)
STATUS = {"new": "OPEN", "partially_filled": "OPEN", "filled": "FILLED", "canceled": "CANCELLED"}
_FAILURES = {
    "insufficient_balance": "INSUFFICIENT_FUND",
    "below_minimum": "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL",
    "unknown_symbol": "INVALID_PRODUCT_ID",
    "duplicate_client_order_id": "DUPLICATE_CLIENT_ORDER_ID",
    "invalid": "INVALID_REQUEST",
    "not_found": "UNKNOWN_CANCEL_ORDER",
    "not_cancelable": "DUPLICATE_CANCEL_REQUEST",
}
_CONFIGURATIONS = {
    "market_market_ioc": ("market", "ioc"),
    "sor_limit_ioc": ("limit", "ioc"),
    "limit_limit_gtc": ("limit", "gtc"),
    "stop_limit_stop_limit_gtc": ("stop_limit", "gtc"),
}
_TYPES = {"market": "MARKET", "limit": "LIMIT", "stop_limit": "STOP_LIMIT"}
_LIVES = {"gtc": "GOOD_UNTIL_CANCELLED", "ioc": "IMMEDIATE_OR_CANCEL"}


class Unsupported(Refused):
    """An order configuration that this face does not have; `code` is Coinbase's word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__("invalid", message)
        self.code = code


def product_id(symbol: str) -> str:
    return symbol.replace("/", "-")


def error(status: int, code: str, message: str) -> web.Response:
    return wire.answer({"error": code, "error_details": message, "message": message}, status=status)


def failure_code(refused: Refused) -> str:
    return refused.code if isinstance(refused, Unsupported) else _FAILURES[refused.reason]


def failure(refused: Refused, configuration: Any) -> dict[str, Any]:
    """An order that is not taken, told with status 200."""
    code = failure_code(refused)
    return {
        "success": False,
        "failure_reason": code,
        "order_id": "",
        "error_response": {
            "error": code,
            "message": str(refused),
            "error_details": str(refused),
            "preview_failure_reason": code if code.startswith("PREVIEW_") else "UNKNOWN_PREVIEW_FAILURE_REASON",
            "new_order_failure_reason": "UNKNOWN_FAILURE_REASON" if code.startswith("PREVIEW_") else code,
        },
        "order_configuration": configuration,
    }


def success(order: Order) -> dict[str, Any]:
    """The answer to an order says that it is there, and not how far it got."""
    return {
        "success": True,
        "failure_reason": "UNKNOWN_FAILURE_REASON",
        "order_id": order.id,
        "success_response": {
            "order_id": order.id,
            "product_id": product_id(order.request.symbol),
            "side": order.request.side.upper(),
            "client_order_id": order.client_order_id,
        },
        "order_configuration": configuration(order.request),
    }


def request_of(fields: Mapping[str, Any], symbols: Mapping[str, str]) -> OrderRequest:
    """Raises Refused. Fields that Coinbase requires are there."""
    name, side, asked = fields["product_id"], fields.get("side"), fields.get("order_configuration")
    if name not in symbols:
        raise Refused("unknown_symbol", f"product {name!r} does not exist")
    if side not in ("BUY", "SELL"):
        raise Unsupported("INVALID_SIDE", f"side {side!r}: use BUY or SELL")
    kind, sizes = next(iter(asked.items())) if isinstance(asked, dict) and len(asked) == 1 else ("", None)
    if kind not in _CONFIGURATIONS or not isinstance(sizes, dict):
        raise Unsupported("UNSUPPORTED_ORDER_CONFIGURATION", f"use one of {', '.join(_CONFIGURATIONS)}")
    order_type, life = _CONFIGURATIONS[kind]
    notional = sizes.get("quote_size")
    if notional is not None and (order_type != "market" or side == "SELL"):
        raise Unsupported("UNSUPPORTED_ORDER_CONFIGURATION", "quote_size is for market orders that buy: give base_size")
    request = parse_request(
        {
            "symbol": symbols[name],
            "side": side.lower(),
            "type": order_type,
            "time_in_force": life,
            "client_order_id": fields["client_order_id"],
            "qty": sizes.get("base_size"),
            "notional": notional,
            "limit_price": sizes.get("limit_price"),
            "stop_price": sizes.get("stop_price"),
        }
    )
    if request.notional is not None and request.notional % NOTIONAL_INCREMENT != 0:
        raise Unsupported("INVALID_SIZE_PRECISION", f"quote_size {notional} is not a multiple of {NOTIONAL_INCREMENT}")
    return request


def configuration(request: OrderRequest) -> dict[str, Any]:
    kind = next(name for name, (type_, life) in _CONFIGURATIONS.items() if (type_, life) == (request.type, _life(request)))
    sizes = {
        "quote_size": request.notional,
        "base_size": request.qty,
        "limit_price": request.limit_price,
        "stop_price": request.stop_price,
    }
    return {kind: {name: text(value) for name, value in sizes.items() if value is not None}}


def _life(request: OrderRequest) -> str:
    return {"market": "ioc", "stop_limit": "gtc"}.get(request.type, request.time_in_force)


def average(order: Order) -> str:
    return text(_AVERAGE.divide(order.filled_value, order.filled_qty)) if order.filled_qty else "0"


def leaves(order: Order) -> Decimal:
    """Units that are still to be filled; of an order by notional, as many as its average price lets expect."""
    if not order.is_open:
        return ZERO
    if order.request.qty is not None or not order.filled_qty:
        return order.remaining if order.request.qty is not None else ZERO
    return _AVERAGE.divide(order.remaining * order.filled_qty, order.filled_value)


def order_json(account: Account, order: Order) -> dict[str, Any]:
    request = order.request
    total = order.filled_value + order.fees if request.side == "buy" else order.filled_value - order.fees
    asked = request.qty if request.qty is not None else request.notional
    done = order.filled_qty if request.qty is not None else order.traded_value
    return {
        "order_id": order.id,
        "product_id": product_id(request.symbol),
        "user_id": account.id,
        "order_configuration": configuration(request),
        "side": request.side.upper(),
        "client_order_id": order.client_order_id,
        "status": STATUS[order.status],
        "time_in_force": _LIVES[_life(request)],
        "created_time": when(order.submitted_us),
        "completion_percentage": "100" if order.status == "filled" else text(_AVERAGE.divide(100 * done, asked or Decimal(1))),
        "filled_size": text(order.filled_qty),
        "average_filled_price": average(order),
        "fee": "",
        "number_of_fills": str(order.fills),
        "filled_value": text(order.filled_value),
        "pending_cancel": False,
        "size_in_quote": request.notional is not None,
        "total_fees": text(order.fees),
        "size_inclusive_of_fees": request.notional is not None,
        "total_value_after_fees": text(total),
        "trigger_status": "INVALID_ORDER_TYPE",
        "order_type": _TYPES[request.type],
        "reject_reason": "REJECT_REASON_UNSPECIFIED",
        "settled": not order.is_open,
        "product_type": "SPOT",
        "reject_message": "",
        "cancel_message": "",
        "order_placement_source": "RETAIL_ADVANCED",
        "outstanding_hold_amount": text(order.reserved),
        "last_fill_time": when(order.filled_us),
        "last_update_time": when(order.updated_us),
    }


def user_order(order: Order) -> dict[str, Any]:
    """An order on the user channel: cumulative, without its fills."""
    request = order.request
    return {
        "order_id": order.id,
        "client_order_id": order.client_order_id,
        "product_id": product_id(request.symbol),
        "order_side": request.side.upper(),
        "order_type": _TYPES[request.type].replace("_", " ").title(),
        "status": STATUS[order.status],
        "cumulative_quantity": text(order.filled_qty),
        "leaves_quantity": text(leaves(order)),
        "avg_price": average(order),
        "filled_value": text(order.filled_value),
        "total_fees": text(order.fees),
        "total_value_after_fees": text(order.filled_value + (order.fees if request.side == "buy" else -order.fees)),
        "outstanding_hold_amount": text(order.reserved),
        "limit_price": "" if request.limit_price is None else text(request.limit_price),
        "stop_price": "" if request.stop_price is None else text(request.stop_price),
        "time_in_force": _LIVES[_life(request)],
        "creation_time": when(order.submitted_us),
        "cancel_reason": "User requested cancel" if order.status == "canceled" else "",
        "reject_reason": "",
        "product_type": "SPOT",
    }


def fill_json(account: Account, fill: Fill) -> dict[str, Any]:
    """The size of a fill is in quote currency where its order's was."""
    in_quote = account.orders[fill.order_id].request.notional is not None
    return {
        "entry_id": fill.execution_id,
        "trade_id": fill.execution_id,
        "order_id": fill.order_id,
        "trade_time": when(fill.at_us),
        "trade_type": "FILL",
        "price": text(fill.price),
        "size": text(fill.value if in_quote else fill.qty),
        "commission": text(fill.fee),
        "product_id": product_id(fill.symbol),
        "sequence_timestamp": when(fill.at_us),
        "liquidity_indicator": fill.liquidity.upper(),
        "size_in_quote": in_quote,
        "user_id": account.id,
        "side": fill.side.upper(),
        "retail_portfolio_id": account.id,
    }


def wallet(account: Account, currency: str, *, available: Decimal, held: Decimal) -> dict[str, Any]:
    return {
        "uuid": wire.asset_id(f"{account.id}:{currency}"),
        "name": f"{currency} Wallet",
        "currency": currency,
        "available_balance": {"value": text(available), "currency": currency},
        "default": currency == "USD",
        "active": True,
        "created_at": when(account.opened_us),
        "updated_at": when(account.opened_us),
        "deleted_at": None,
        "type": "ACCOUNT_TYPE_FIAT" if currency == "USD" else "ACCOUNT_TYPE_CRYPTO",
        "ready": True,
        "hold": {"value": text(held), "currency": currency},
        "retail_portfolio_id": account.id,
        "platform": "ACCOUNT_PLATFORM_CONSUMER",
    }
