"""Coinbase's market data over REST: products, candles, best bid and ask, the time. With a token, and without under /market."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from cappuccino.adapters.venue_server import wire as json_of
from cappuccino.adapters.venue_server.candles import bar_rows
from cappuccino.adapters.venue_server.coinbase import wire
from cappuccino.adapters.venue_server.coinbase.face import PREFIX, Face
from cappuccino.adapters.venue_server.faults import SKEW
from cappuccino.adapters.venue_server.trading_rest import parse_time
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.orders import Refused
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.exchange.tape import MICROSECONDS

Handler = Callable[[web.Request], Awaitable[web.Response]]

MOST_CANDLES = 350
GRANULARITIES = {
    "ONE_MINUTE": 60,
    "FIVE_MINUTE": 300,
    "FIFTEEN_MINUTE": 900,
    "THIRTY_MINUTE": 1800,
    "ONE_HOUR": 3600,
    "TWO_HOUR": 7200,
    "FOUR_HOUR": 14_400,
    "SIX_HOUR": 21_600,
    "ONE_DAY": 86_400,
}


class Market:
    def __init__(self, face: Face) -> None:
        self._face = face
        self._exchange = face.exchange

    def routes(self) -> list[web.RouteDef]:
        routes = [web.get(f"{PREFIX}/time", self._face.public(self._time))]
        routes.append(web.get(f"{PREFIX}/best_bid_ask", self._face.private(self._best)))
        for path, handler in (
            ("products", self._products),
            ("products/{id}", self._product),
            ("products/{id}/candles", self._candles),
        ):
            routes.append(web.get(f"{PREFIX}/{path}", self._face.private(_with_account(handler))))
            routes.append(web.get(f"{PREFIX}/market/{path}", self._face.public(handler)))
        return routes

    def _symbol(self, request: web.Request) -> str:
        name = request.match_info["id"]
        if name not in self._face.symbols:
            raise Refused("not_found", f"product {name} not found")
        return self._face.symbols[name]

    async def _time(self, request: web.Request) -> web.Response:
        at_us = self._exchange.tick.at_us + request.get(SKEW, 0)
        return json_of.answer(
            {
                "iso": json_of.when(at_us),
                "epochSeconds": str(at_us // MICROSECONDS),
                "epochMillis": str(at_us * 1000 // MICROSECONDS),
            }
        )

    async def _best(self, request: web.Request, _: Account) -> web.Response:
        books = [pricebook(self._exchange, symbol) for symbol in self._face.named(request)]
        return json_of.answer({"pricebooks": books})

    async def _products(self, request: web.Request) -> web.Response:
        """Product ids that do not exist are left out."""
        asked = set(request.query.getall("product_ids", []))
        chosen = [symbol for name, symbol in self._face.symbols.items() if not asked or name in asked]
        found = [product_json(self._exchange, symbol) for symbol in chosen]
        return json_of.answer({"products": found, "num_products": len(found)})

    async def _product(self, request: web.Request) -> web.Response:
        return json_of.answer(product_json(self._exchange, self._symbol(request)))

    async def _candles(self, request: web.Request) -> web.Response:
        """Complete candles with start <= open <= end, newest first."""
        seconds = GRANULARITIES.get(request.query.get("granularity", ""), 0)
        own = self._exchange.tape.timeframe
        if not seconds or seconds % own.seconds:
            raise Refused("invalid", f"granularity {request.query.get('granularity')!r}: this exchange's candles are {own}")
        start, end = (_epoch(request, name) for name in ("start", "end"))
        if (end - start) // seconds > MOST_CANDLES:
            raise Refused("invalid", f"more than {MOST_CANDLES} candles: ask for a shorter time")
        rows = bar_rows(
            self._exchange, self._symbol(request), seconds=seconds, start=start, end=end, limit=MOST_CANDLES, newest_first=True
        )
        return json_of.answer(
            {
                "candles": [
                    {
                        "start": str(parse_time(row["t"], "t") // MICROSECONDS),
                        **{
                            name: str(row[key])
                            for name, key in (("low", "l"), ("high", "h"), ("open", "o"), ("close", "c"), ("volume", "v"))
                        },
                    }
                    for row in rows
                ]
            }
        )


def _with_account(handler: Handler) -> Callable[[web.Request, Account], Awaitable[web.Response]]:
    return lambda request, _: handler(request)


def _epoch(request: web.Request, name: str) -> int:
    raw = request.query.get(name, "")
    if not raw.isdigit():
        raise Refused("invalid", f"{name} {raw!r} is not a time in epoch seconds")
    return int(raw)


def product_json(exchange: SimulatedExchange, symbol: str) -> dict[str, Any]:
    rules, quote = exchange.rules[symbol], exchange.quote(symbol)
    base, _, quoted = symbol.partition("/")
    return {
        "product_id": wire.product_id(symbol),
        "price": json_of.text(exchange.price(symbol)),
        "mid_market_price": json_of.text((quote.bid + quote.ask) / 2),
        "price_percentage_change_24h": "0",
        "volume_24h": "0",
        "volume_percentage_change_24h": "0",
        "base_increment": json_of.text(rules.min_trade_increment),
        "quote_increment": json_of.text(wire.NOTIONAL_INCREMENT),
        "price_increment": json_of.text(rules.price_increment),
        "base_min_size": json_of.text(rules.min_order_size),
        "base_max_size": "1000000000",
        "quote_min_size": json_of.text(rules.min_notional),
        "quote_max_size": "1000000000",
        "base_name": base,
        "quote_name": quoted,
        "base_currency_id": base,
        "quote_currency_id": quoted,
        "base_display_symbol": base,
        "quote_display_symbol": quoted,
        "display_name": wire.product_id(symbol),
        "product_type": "SPOT",
        "status": "online",
        "watched": False,
        "new": False,
        "is_disabled": False,
        "cancel_only": False,
        "limit_only": False,
        "post_only": False,
        "trading_disabled": False,
        "auction_mode": False,
        "view_only": False,
        "alias": "",
        "alias_to": [],
    }


def pricebook(exchange: SimulatedExchange, symbol: str) -> dict[str, Any]:
    """Nothing is bid or asked for a product that is not traded now."""
    if exchange.halted(symbol):
        return {"product_id": wire.product_id(symbol), "bids": [], "asks": [], "time": json_of.when(exchange.tick.at_us)}
    quote = exchange.quote(symbol)
    level = {"size": json_of.text(quote.volume)}
    return {
        "product_id": wire.product_id(symbol),
        "bids": [{"price": json_of.text(quote.bid), **level}],
        "asks": [{"price": json_of.text(quote.ask), **level}],
        "time": json_of.when(exchange.tick.at_us),
    }
