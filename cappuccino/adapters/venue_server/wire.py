"""From the exchange's types to Alpaca's JSON. Quantities and money are text, data prices are numbers, times RFC 3339 in UTC."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from aiohttp import web

from cappuccino.core.money import ZERO
from cappuccino.exchange.accounts import Account, Position
from cappuccino.exchange.orders import Event, Fill, Order, Refused
from cappuccino.exchange.simulator import SimulatedExchange

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AVERAGE = Context(prec=16)
_REFUSALS = {
    "insufficient_balance": (403, 40310000),
    "below_minimum": (403, 40310000),
    "unknown_symbol": (422, 42210000),
    "duplicate_client_order_id": (422, 40010001),
    "invalid": (422, 42210000),
    "not_found": (404, 40410000),
    "not_cancelable": (422, 42210000),
}


def text(value: Decimal) -> str:
    """Plain digits, without an exponent or trailing zeros."""
    return f"{value.normalize():f}"


def when(at_us: int | None) -> str | None:
    return None if at_us is None else f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m-%dT%H:%M:%S.%fZ}"


def answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps(value, separators=(",", ":")).encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def error(status: int, code: int, message: str, **details: Any) -> web.Response:
    return answer({"code": code, "message": message, **details}, status=status)


def refusal(refused: Refused) -> web.Response:
    status, code = _REFUSALS[refused.reason]
    return error(status, code, str(refused), **refused.details)


@lru_cache(maxsize=4096)
def asset_id(symbol: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"cappuccino:asset:{symbol}"))


def order_json(order: Order) -> dict[str, Any]:
    request = order.request
    average = _AVERAGE.divide(order.filled_value, order.filled_qty) if order.filled_qty else None
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": when(order.submitted_us),
        "updated_at": when(order.updated_us),
        "submitted_at": when(order.submitted_us),
        "filled_at": when(order.filled_us),
        "expired_at": None,
        "canceled_at": when(order.canceled_us),
        "failed_at": None,
        "replaced_at": None,
        "replaced_by": None,
        "replaces": None,
        "asset_id": asset_id(request.symbol),
        "symbol": request.symbol,
        "asset_class": "crypto",
        "notional": None if request.notional is None else text(request.notional),
        "qty": None if request.qty is None else text(request.qty),
        "filled_qty": text(order.filled_qty),
        "filled_avg_price": None if average is None else text(average),
        "order_class": "",
        "order_type": request.type,
        "type": request.type,
        "side": request.side,
        "position_intent": "buy_to_open" if request.side == "buy" else "sell_to_close",
        "time_in_force": request.time_in_force,
        "limit_price": None if request.limit_price is None else text(request.limit_price),
        "stop_price": None if request.stop_price is None else text(request.stop_price),
        "status": order.status,
        "extended_hours": False,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
    }


def trade_update(event: Event) -> dict[str, Any]:
    update: dict[str, Any] = {"event": event.kind, "order": order_json(event.order), "timestamp": when(event.at_us)}
    update["at"] = update["timestamp"]
    if event.fill is not None:
        update |= {
            "execution_id": event.fill.execution_id,
            "price": text(event.fill.price),
            "qty": text(event.fill.qty),
            "position_qty": text(event.position_qty or ZERO),
        }
    return update


def position_json(exchange: SimulatedExchange, symbol: str, held: Position) -> dict[str, Any]:
    price, lastday = exchange.price(symbol), exchange.midnight_prices[symbol] or exchange.price(symbol)
    value, cost = held.qty * price, held.qty * held.average_entry
    today = held.qty * (price - lastday)
    return {
        "asset_id": asset_id(symbol),
        "symbol": symbol.replace("/", ""),
        "exchange": "CRYPTO",
        "asset_class": "crypto",
        "asset_marginable": False,
        "qty": text(held.qty),
        "qty_available": text(held.available),
        "avg_entry_price": text(_AVERAGE.plus(held.average_entry)),
        "side": "long",
        "market_value": text(value),
        "cost_basis": text(_AVERAGE.plus(cost)),
        "unrealized_pl": text(_AVERAGE.plus(value - cost)),
        "unrealized_plpc": text(_AVERAGE.divide(value - cost, cost)),
        "unrealized_intraday_pl": text(today),
        "unrealized_intraday_plpc": text(_AVERAGE.divide(price - lastday, lastday)),
        "current_price": text(price),
        "lastday_price": text(lastday),
        "change_today": text(_AVERAGE.divide(price - lastday, lastday)),
    }


def account_json(exchange: SimulatedExchange, account: Account) -> dict[str, Any]:
    equity = exchange.equity(account)
    available, value = text(account.available_cash), text(equity - account.cash)
    return {
        "id": account.id,
        "account_number": f"SIM{account.key_id[-9:]}",
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "currency": "USD",
        "cash": text(account.cash),
        "buying_power": available,
        "non_marginable_buying_power": available,
        "equity": text(equity),
        "portfolio_value": text(equity),
        "last_equity": text(account.last_equity),
        "long_market_value": value,
        "position_market_value": value,
        "short_market_value": "0",
        "initial_margin": "0",
        "maintenance_margin": "0",
        "accrued_fees": "0",
        "multiplier": "1",
        "shorting_enabled": False,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "created_at": when(account.opened_us),
        "crypto_tier": 1 + exchange.terms.fee_tiers.index(account.tier(exchange.terms.fee_tiers, exchange.tick.at_us)),
    }


def asset_json(exchange: SimulatedExchange, symbol: str) -> dict[str, Any]:
    rules = exchange.rules[symbol]
    return {
        "id": asset_id(symbol),
        "class": "crypto",
        "exchange": "CRYPTO",
        "symbol": symbol,
        "name": f"{symbol} (simulated)",
        "status": "active",
        "tradable": True,
        "marginable": False,
        "maintenance_margin_requirement": 100,
        "shortable": False,
        "easy_to_borrow": False,
        "fractionable": True,
        "attributes": [],
        "min_order_size": text(rules.min_order_size),
        "min_trade_increment": text(rules.min_trade_increment),
        "price_increment": text(rules.price_increment),
    }


def fill_activity(account: Account, fill: Fill) -> dict[str, Any]:
    order = account.orders[fill.order_id]
    total = order.request.qty if order.request.qty is not None else fill.cumulative_qty
    return {
        "id": _activity_id(fill, fill.execution_id),
        "account_id": account.id,
        "activity_type": "FILL",
        "transaction_time": when(fill.at_us),
        "type": "fill" if fill.completes else "partial_fill",
        "price": text(fill.price),
        "qty": text(fill.qty),
        "side": fill.side,
        "symbol": fill.symbol,
        "leaves_qty": text(total - fill.cumulative_qty),
        "order_id": fill.order_id,
        "cum_qty": text(fill.cumulative_qty),
        "order_status": "filled" if fill.completes else "partially_filled",
    }


def fee_activity(account: Account, fill: Fill) -> dict[str, Any]:
    """Coins for a buy (`qty`), money for a sale (`net_amount`)."""
    coins = fill.side == "buy"
    return {
        "id": _activity_id(fill, str(uuid5(NAMESPACE_URL, f"{fill.execution_id}:fee"))),
        "account_id": account.id,
        "activity_type": "CFEE",
        "date": f"{_EPOCH + timedelta(microseconds=fill.at_us):%Y-%m-%d}",
        "net_amount": "0" if coins else text(-fill.fee),
        "description": f"fee of execution {fill.execution_id}",
        "symbol": fill.symbol,
        "qty": text(-fill.fee) if coins else "0",
        "price": text(fill.price),
        "status": "executed",
    }


def _activity_id(fill: Fill, unique: str) -> str:
    return f"{_EPOCH + timedelta(microseconds=fill.at_us):%Y%m%d%H%M%S}{fill.at_us // 1000 % 1000:03d}::{unique}"


def ledger_json(exchange: SimulatedExchange, account: Account) -> dict[str, Any]:
    """The referee's whole record of one account."""
    return {
        "account": account.name,
        "account_id": account.id,
        "at": when(exchange.tick.at_us),
        "capital_usd": text(account.capital),
        "cash_usd": text(account.cash),
        "equity_usd": text(exchange.equity(account)),
        "fees_usd": text(account.fees_usd),
        "orders": len(account.orders),
        "open_orders": len(account.open_ids),
        "positions": {
            symbol: {
                "qty": text(held.qty),
                "average_entry_price": text(_AVERAGE.plus(held.average_entry)),
                "price": text(exchange.price(symbol)),
            }
            for symbol, held in sorted(account.positions.items())
        },
        "fills": [
            {
                "execution_id": fill.execution_id,
                "order_id": fill.order_id,
                "client_order_id": fill.client_order_id,
                "symbol": fill.symbol,
                "side": fill.side,
                "qty": text(fill.qty),
                "price": text(fill.price),
                "fee": text(fill.fee),
                "fee_asset": fill.fee_asset,
                "liquidity": fill.liquidity,
                "at": when(fill.at_us),
            }
            for fill in account.fills
        ],
    }
