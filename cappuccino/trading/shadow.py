"""A venue that exists only here: shadow mode decides on real quotes, and its orders go no further.

It fills market orders whole at the quote x (1 ± slippage) and takes the fee from the asset received, as the market's
rules say. Its memory is the journal: `fills` of the account at start; what it filled and nobody journalled never was. While the
market's quotes cannot be read, the outcome of an order is as unclear as one that a venue does not answer.
Everything that is read of the market comes from the real venue's broker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from cappuccino.core.errors import RetryLater, UserError
from cappuccino.core.money import ZERO, dec, floor_to, round_to
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules, Costs, fee_taken
from cappuccino.market.bars import Bars
from cappuccino.trading.book import Book, Fill, apply, replay
from cappuccino.trading.orders import Execution, Intent
from cappuccino.trading.ports import Answered, Broker, Quote, Refused, Unclear, VenueAccount, VenueFill, VenueOrder


class ShadowBroker:
    """`market` is read, never sent to."""

    def __init__(
        self, market: Broker, *, symbols: Sequence[str], capital_usd: Decimal, costs: Costs, fills: Sequence[Fill]
    ) -> None:
        self._market = market
        self._rules = market.rules(symbols)
        self._costs = costs
        smallest = {symbol: rules.min_order_size for symbol, rules in self._rules.items()}
        self._book = replay(Book(cash=capital_usd, smallest=smallest), fills)
        self._fills = list(fills)
        self._orders: dict[str, VenueOrder] = {}
        for fill in fills:
            before = self._orders.get(fill.client_order_id)
            self._orders[fill.client_order_id] = _order(fill, filled=(before.filled_qty if before else ZERO) + fill.qty)

    def submit(self, intent: Intent) -> Answered | Refused | Unclear:
        if intent.client_order_id in self._orders:
            return Refused(code="duplicate", message="client_order_id must be unique")
        try:
            quote = self._market.latest_quotes([intent.symbol]).get(intent.symbol)
        except (RetryLater, UserError) as error:
            return Unclear(message=str(error))
        if quote is None:
            return Refused(code="no_quote", message=f"{intent.symbol} has no quote")
        rules = self._rules[intent.symbol]
        slippage = dec(self._costs.slippage(intent.symbol))
        price = round_to(
            quote.ask * (1 + slippage) if intent.side == "buy" else quote.bid * (1 - slippage), rules.price_increment
        )
        qty = intent.qty if intent.qty is not None else floor_to((intent.notional or ZERO) / price, rules.min_trade_increment)
        held = self._book.qty(intent.symbol)
        minimum = max(rules.min_notional, rules.min_buy_notional) if intent.side == "buy" else rules.min_notional
        if qty < rules.min_order_size or qty * price < minimum:
            return Refused(code="minimum", message=f"{qty} {intent.symbol} is below the smallest order")
        if (intent.side == "buy" and qty * price > self._book.cash) or (intent.side == "sell" and qty > held):
            return Refused(code="balance", message=f"{qty} {intent.symbol} at {price}: cash {self._book.cash}, held {held}")
        base, _, quoted = intent.symbol.partition("/")
        fill = Fill(
            execution_id=f"shadow-{intent.client_order_id}",
            client_order_id=intent.client_order_id,
            symbol=intent.symbol,
            side=intent.side,
            qty=qty,
            price=price,
            fee=fee_taken(
                side=intent.side, qty=qty, price=price, fee_bps=dec(self._costs.fee_bps), increment=rules.min_trade_increment
            ),
            fee_asset=base if intent.side == "buy" else quoted,
            filled_at=max(quote.at, intent.created_at),
        )
        self._book = apply(self._book, fill)
        self._fills.append(fill)
        self._orders[intent.client_order_id] = _order(fill, filled=qty)
        return Answered(order=self._orders[intent.client_order_id])

    def cancel(self, venue_order_id: str) -> None:
        """Nothing of a shadow is ever open."""

    def account(self) -> VenueAccount:
        return VenueAccount(cash_usd=self._book.cash, blocked=False)

    def positions(self) -> Mapping[str, Decimal]:
        return {symbol: qty for symbol in self._rules if (qty := self._book.qty(symbol))}

    def order_by_client_id(self, client_order_id: str) -> VenueOrder | None:
        return self._orders.get(client_order_id)

    def order_by_venue_id(self, venue_order_id: str) -> VenueOrder | None:
        return self._orders.get(venue_order_id.removeprefix("shadow-"))

    def open_orders(self) -> Sequence[VenueOrder]:
        return []

    def fills_since(self, at: datetime) -> Sequence[VenueFill]:
        return [
            VenueFill(
                execution=Execution(execution_id=f.execution_id, qty=f.qty, price=f.price, at=f.filled_at, fee=f.fee),
                venue_order_id=f"shadow-{f.client_order_id}",
                symbol=f.symbol,
                side=f.side,
                client_order_id=f.client_order_id,
            )
            for f in self._fills
            if f.filled_at >= at
        ]

    def now(self) -> datetime:
        return self._market.now()

    def rules(self, symbols: Sequence[str]) -> Mapping[str, AssetRules]:
        return self._market.rules(symbols)

    def latest_quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        return self._market.latest_quotes(symbols)

    def closed_bars(self, symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Bars:
        return self._market.closed_bars(symbols, timeframe, start=start, end=end)


def _order(fill: Fill, *, filled: Decimal) -> VenueOrder:
    return VenueOrder(
        client_order_id=fill.client_order_id,
        venue_order_id=f"shadow-{fill.client_order_id}",
        symbol=fill.symbol,
        side=fill.side,
        status="filled",
        filled_qty=filled,
        at=fill.filled_at,
        qty=filled,
    )
