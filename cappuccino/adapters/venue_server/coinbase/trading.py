"""Coinbase's orders, fills and accounts under /api/v3/brokerage.

A market order's quote_size includes its fee. A client order id that was used is answered with its first order, or, when the
face is told to, refused as a duplicate: the venue is known to do both.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from aiohttp import web

from cappuccino.adapters.venue_server import wire as json_of
from cappuccino.adapters.venue_server.coinbase import wire
from cappuccino.adapters.venue_server.coinbase.face import PREFIX, Face, instant, page_size
from cappuccino.core.money import floor_to
from cappuccino.exchange.accounts import THIRTY_DAYS_US, Account
from cappuccino.exchange.admission import check
from cappuccino.exchange.commands import Cancel, Edit, Submit
from cappuccino.exchange.matching import taker_price
from cappuccino.exchange.orders import Order, Refused, parse_request
from cappuccino.exchange.terms import BPS

PAGE, LARGEST_PAGE = 100, 1000
WALLETS, MOST_WALLETS = 49, 250


class Trading:
    def __init__(self, face: Face, *, refuse_duplicates: bool) -> None:
        self._face = face
        self._desk, self._exchange = face.desk, face.exchange
        self._refuse_duplicates = refuse_duplicates

    def routes(self) -> list[web.RouteDef]:
        private = self._face.private
        return [
            web.post(f"{PREFIX}/orders", private(self._create)),
            web.post(f"{PREFIX}/orders/preview", private(self._preview)),
            web.post(f"{PREFIX}/orders/edit", private(self._edit)),
            web.post(f"{PREFIX}/orders/batch_cancel", private(self._cancel)),
            web.get(f"{PREFIX}/orders/historical/batch", private(self._orders)),
            web.get(f"{PREFIX}/orders/historical/fills", private(self._fills)),
            web.get(f"{PREFIX}/orders/historical/{{id}}", private(self._order)),
            web.get(f"{PREFIX}/accounts", private(self._accounts)),
            web.get(f"{PREFIX}/accounts/{{uuid}}", private(self._account)),
            web.get(f"{PREFIX}/transaction_summary", private(self._summary)),
        ]

    # --- orders -------------------------------------------------------------------------------------

    async def _create(self, request: web.Request, account: Account) -> web.Response:
        fields = await _body(request, "client_order_id", "product_id")
        first = account.by_client_id.get(fields["client_order_id"])
        if first is not None and not self._refuse_duplicates:
            self._desk.absorbed[fields["client_order_id"]] += 1
            return json_of.answer(wire.success(account.orders[first]))
        try:
            asked = wire.request_of(fields, self._face.symbols)
            sizes = next(iter(fields["order_configuration"].values()))
            if sizes.get("post_only") and self._crosses(asked.symbol, asked.side, asked.limit_price):
                raise wire.Unsupported("INVALID_LIMIT_PRICE_POST_ONLY", "a post_only order would be filled at once")
            outcome = await self._desk.execute(Submit(account=account.name, request=asked))
        except Refused as refused:
            return json_of.answer(wire.failure(refused, fields.get("order_configuration")))
        assert outcome.order is not None
        return json_of.answer(wire.success(outcome.order))

    def _crosses(self, symbol: str, side: str, limit: Decimal | None) -> bool:
        quote = self._exchange.quote(symbol)
        return limit is not None and (limit >= quote.ask if side == "buy" else limit <= quote.bid)

    async def _preview(self, request: web.Request, account: Account) -> web.Response:
        """What the order would come to now; nothing changes."""
        fields = await _body(request, "product_id")
        exchange, errors = self._exchange, []
        try:
            asked = wire.request_of({"client_order_id": "", **fields}, self._face.symbols)
        except Refused as refused:
            return json_of.answer({"errs": [wire.failure_code(refused)], "warning": []})
        rules, quote = exchange.rules[asked.symbol], exchange.quote(asked.symbol)
        market = taker_price(asked.side, quote, exchange.terms.slippage(asked.symbol), rules.price_increment)
        rate = account.tier(exchange.terms.tiers("coinbase"), exchange.tick.at_us).taker_bps / BPS
        on_top = rate if asked.side == "buy" else Decimal(0)
        try:
            check(asked, rules=rules, account=account, quote=quote, market_price=market, on_top=on_top)
        except Refused as refused:
            errors.append(wire.failure_code(refused))
        price = asked.limit_price or market
        qty = asked.qty or floor_to((asked.notional or Decimal(0)) / (price * (1 + on_top)), rules.min_trade_increment)
        value, fee = qty * price, qty * price * rate
        return json_of.answer(
            {
                "order_total": json_of.text(value + fee if asked.side == "buy" else value - fee),
                "commission_total": json_of.text(fee),
                "errs": errors,
                "warning": [],
                "quote_size": json_of.text(value),
                "base_size": json_of.text(qty),
                "best_bid": json_of.text(quote.bid),
                "best_ask": json_of.text(quote.ask),
                "average_filled_price": json_of.text(price),
                "slippage": json_of.text(exchange.terms.slippage(asked.symbol)),
                "is_max": False,
            }
        )

    async def _edit(self, request: web.Request, account: Account) -> web.Response:
        """Price and size of a limit order that rests; it keeps its id."""
        fields = await _body(request, "order_id", "price", "size")
        wanted = parse_request({"symbol": "-", "side": "buy", "qty": fields["size"], "limit_price": fields["price"]})
        assert wanted.qty is not None
        assert wanted.limit_price is not None
        try:
            await self._desk.execute(
                Edit(account=account.name, order_id=fields["order_id"], qty=wanted.qty, limit_price=wanted.limit_price)
            )
        except Refused as refused:
            code = {"not_found": "ORDER_NOT_FOUND", "not_cancelable": "ONLY_OPEN_ORDERS_CAN_BE_EDITED"}.get(refused.reason)
            reason = code or wire.failure_code(refused)
            return json_of.answer({"success": False, "errors": [{"edit_failure_reason": reason}]})
        return json_of.answer({"success": True, "success_response": {"order_id": fields["order_id"]}, "errors": []})

    async def _cancel(self, request: web.Request, account: Account) -> web.Response:
        fields = await _body(request, "order_ids")
        if not isinstance(fields["order_ids"], list):
            raise Refused("invalid", "order_ids is a list")
        results: list[dict[str, Any]] = []
        for order_id in map(str, fields["order_ids"]):
            reason = "UNKNOWN_CANCEL_FAILURE_REASON"
            try:
                await self._desk.execute(Cancel(account=account.name, order_id=order_id))
            except Refused as refused:
                reason = wire.failure_code(refused)
            results.append({"success": reason.startswith("UNKNOWN_CANCEL_F"), "failure_reason": reason, "order_id": order_id})
        return json_of.answer({"results": results})

    async def _order(self, request: web.Request, account: Account) -> web.Response:
        return json_of.answer({"order": wire.order_json(account, account.order(request.match_info["id"]))})

    async def _orders(self, request: web.Request, account: Account) -> web.Response:
        """Newest first; the cursor is the id of the last order of the page before."""
        query = request.query
        start, end, size = instant(request, "start_date"), instant(request, "end_date"), page_size(request, **_PAGES)
        states, named, cursor = set(query.getall("order_status", [])), set(self._face.named(request)), query.get("cursor")
        ids, side = set(query.getall("order_ids", [])), query.get("order_side")
        found: list[dict[str, Any]] = []
        before = account.orders[cursor].sequence if cursor in account.orders else len(account.orders)
        more = False
        for order in reversed(account.orders.values()):
            if start is not None and order.submitted_us < start:
                break
            if order.sequence >= before or (end is not None and order.submitted_us >= end) or order.request.symbol not in named:
                continue
            if not _chosen(order, states=states, ids=ids, side=side):
                continue
            if len(found) == size:
                more = True
                break
            found.append(wire.order_json(account, order))
        return json_of.answer(
            {"orders": found, "sequence": "0", "has_next": more, "cursor": found[-1]["order_id"] if more else ""}
        )

    async def _fills(self, request: web.Request, account: Account) -> web.Response:
        """Newest first; the cursor is the number of fills that come before the page's last one."""
        query = request.query
        start, end = instant(request, "start_sequence_timestamp"), instant(request, "end_sequence_timestamp")
        ids, named, size = set(query.getall("order_ids", [])), set(self._face.named(request)), page_size(request, **_PAGES)
        cursor = query.get("cursor", "")
        found: list[dict[str, Any]] = []
        number = int(cursor) if cursor.isdigit() else len(account.fills)
        while number and len(found) < size:
            fill = account.fills[number - 1]
            if start is not None and fill.at_us < start:
                number = 0
                break
            number -= 1
            if (not ids or fill.order_id in ids) and fill.symbol in named and (end is None or fill.at_us < end):
                found.append(wire.fill_json(account, fill))
        return json_of.answer({"fills": found, "cursor": str(number) if number else ""})

    # --- accounts -----------------------------------------------------------------------------------

    def _wallets(self, account: Account) -> list[dict[str, Any]]:
        wallets = [wire.wallet(account, "USD", available=account.available_cash, held=account.reserved_cash)]
        for symbol in self._exchange.tape.symbols:
            held = account.position(symbol)
            base = symbol.partition("/")[0]
            wallets.append(wire.wallet(account, base, available=held.available, held=held.reserved))
        return wallets

    async def _accounts(self, request: web.Request, account: Account) -> web.Response:
        size, cursor = page_size(request, default=WALLETS, largest=MOST_WALLETS), request.query.get("cursor", "")
        wallets, first = self._wallets(account), int(cursor) if cursor.isdigit() else 0
        page, more = wallets[first : first + size], len(wallets) > first + size
        return json_of.answer(
            {"accounts": page, "has_next": more, "cursor": str(first + size) if more else "", "size": len(page)}
        )

    async def _account(self, request: web.Request, account: Account) -> web.Response:
        for wallet in self._wallets(account):
            if wallet["uuid"] == request.match_info["uuid"]:
                return json_of.answer({"account": wallet})
        raise Refused("not_found", "account not found")

    async def _summary(self, _: web.Request, account: Account) -> web.Response:
        """Volume and fees of the last 30 days, and the tier that follows."""
        now, tiers = self._exchange.tick.at_us, self._exchange.terms.tiers("coinbase")
        tier = account.tier(tiers, now)
        recent = [fill for fill in account.fills if fill.at_us > now - THIRTY_DAYS_US]
        place = tiers.index(tier)
        return json_of.answer(
            {
                "total_volume": float(sum(fill.value for fill in recent)),
                "total_fees": float(sum(fill.fee for fill in recent)),
                "advanced_trade_only_volume": float(sum(fill.value for fill in recent)),
                "advanced_trade_only_fees": float(sum(fill.fee for fill in recent)),
                "fee_tier": {
                    "pricing_tier": f"Tier {place + 1}",
                    "usd_from": str(tier.volume_from_usd),
                    "usd_to": str(tiers[place + 1].volume_from_usd) if place + 1 < len(tiers) else "",
                    "taker_fee_rate": json_of.text(tier.taker_bps / BPS),
                    "maker_fee_rate": json_of.text(tier.maker_bps / BPS),
                },
            }
        )


_PAGES = {"default": PAGE, "largest": LARGEST_PAGE}


def _chosen(order: Order, *, states: set[str], ids: set[str], side: str | None) -> bool:
    return (
        (not states or wire.STATUS[order.status] in states)
        and (not ids or order.id in ids)
        and (side is None or side == order.request.side.upper())
    )


async def _body(request: web.Request, *required: str) -> dict[str, Any]:
    """Raises Refused."""
    try:
        fields = json.loads(await request.read(), parse_float=Decimal, parse_int=Decimal)
    except ValueError:
        fields = None
    absent = [name for name in required if not isinstance(fields, dict) or not fields.get(name)]
    if absent:
        raise Refused("invalid", f"the body is JSON with {', '.join(required)}; absent: {', '.join(absent)}")
    assert isinstance(fields, dict)
    return fields
