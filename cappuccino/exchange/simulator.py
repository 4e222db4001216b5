"""The simulated exchange: a deterministic state machine. The same commands on the same tape give the same book and ids.

A command is refused as a whole or applied as a whole. Accounts do not touch each other: order and execution ids follow from
(account, sequence), and each account meets the same liquidity. Nothing here reads a clock or draws a number; an account's key
and secret come in with its command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import NAMESPACE_URL, uuid5

from cappuccino.core.money import ZERO, dec, floor_to
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.admission import check
from cappuccino.exchange.commands import Advance, Cancel, Command, Edit, Join, Leave, OpenAccount, Start, Submit
from cappuccino.exchange.faults import Incident
from cappuccino.exchange.matching import Match, Quote, match, stop_reached, taker_price
from cappuccino.exchange.orders import Event, Fill, Order, OrderRequest, Refused
from cappuccino.exchange.tape import Tape, Tick
from cappuccino.exchange.terms import BPS, Terms
from cappuccino.exchange.venue import AssetRules, commission, fee_taken, simulated_rules

DAY_US = 86_400_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MARKET_MARGIN = Decimal("1.05")  # a market buy that has to wait holds back five per cent more than it would cost now


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: the events in their order, and the order it made or canceled, as it is now."""

    events: tuple[Event, ...] = ()
    order: Order | None = None


class SimulatedExchange:
    """Attributes: accounts by name; the present tick; whether the clock was started and has ended; accounts joined to the
    lockstep, in their order of joining; prices at the last midnight UTC; the faults that happened, oldest first."""

    def __init__(self, tape: Tape, terms: Terms, rules: Mapping[str, AssetRules] | None = None) -> None:
        self.tape = tape
        self.terms = terms
        self.rules = dict(rules or {symbol: simulated_rules(symbol, tape.first_price(symbol)) for symbol in tape.symbols})
        self.accounts: dict[str, Account] = {}
        self.joined: dict[str, None] = {}
        self.incidents: list[Incident] = []
        self.started = False
        self.ended = False
        self.tick: Tick = tape.tick(0)
        self._column = {symbol: column for column, symbol in enumerate(tape.symbols)}
        self._quotes: dict[str, Quote] = {}
        self._halts: dict[str, tuple[int, int]] = {}  # first tick of a symbol's last halt, and the one at which it ends
        self._half_spread = terms.spread_bps / BPS / 2
        self.midnight_prices = self.prices()

    # --- what is ---------------------------------------------------------------------------------

    def account(self, name: str) -> Account:
        """Raises Refused when there is no such account."""
        if name not in self.accounts:
            raise Refused("not_found", f"account {name!r} does not exist: open it with POST /control/v1/accounts")
        return self.accounts[name]

    def price(self, symbol: str) -> Decimal:
        """The tape's price now; 0 before a symbol's first bar."""
        return dec(self.tick.prices[self._column[symbol]])

    def prices(self) -> dict[str, Decimal]:
        return {symbol: dec(price) for symbol, price in zip(self.tape.symbols, self.tick.prices, strict=True)}

    def quote(self, symbol: str) -> Quote:
        quote = self._quotes.get(symbol)
        if quote is None:
            column, price = self._column[symbol], self.price(symbol)
            quote = Quote(
                bid=price * (1 - self._half_spread),
                ask=price * (1 + self._half_spread),
                volume=dec(self.tick.volume[column]),
                halted=self.halted(symbol),
            )
            self._quotes[symbol] = quote
        return quote

    def halted(self, symbol: str) -> bool:
        """Whether the symbol is not traded now: its bar is missing, or it was halted."""
        return self.tick.halted[self._column[symbol]] or self.tick.number < self._halts.get(symbol, (0, 0))[1]

    def quoted(self, symbol: str) -> Tick:
        """The newest tick at which no fault halted the symbol. Its bar may be missing."""
        since, until = self._halts.get(symbol, (0, 0))
        return self.tape.tick(max(since - 1, 0)) if self.tick.number < until else self.tick

    def equity(self, account: Account) -> Decimal:
        return account.equity(self.prices()) if account.positions else account.cash

    # --- what happens ----------------------------------------------------------------------------

    def apply(self, command: Command) -> Outcome:
        """Raises Refused; then nothing has changed."""
        if isinstance(command, Advance):
            return self._advance()
        if isinstance(command, Submit):
            return self._submit(self.account(command.account), command.request, share=command.share)
        if isinstance(command, Cancel):
            return self._cancel(self.account(command.account), command.order_id)
        if isinstance(command, Edit):
            return self._edit(self.account(command.account), command)
        if isinstance(command, OpenAccount):
            self._open(command)
        elif isinstance(command, Start):
            self.started = True
        elif isinstance(command, Join):
            self.joined[self.account(command.account).name] = None
        elif isinstance(command, Leave):
            self.joined.pop(command.account, None)
        elif isinstance(command, Incident):
            self._befall(command)
        return Outcome()

    def _befall(self, incident: Incident) -> None:
        """Most faults befall what is said about the book; these befall the book."""
        fault = incident.fault
        if fault.kind == "balance_changed":
            self.account(incident.account).adjust(fault.asset, fault.amount)
        elif fault.kind == "symbol_halted":
            if fault.symbol not in self.rules:
                raise Refused("unknown_symbol", f'could not find asset "{fault.symbol}"')
            number = self.tick.number
            since, until = self._halts.get(fault.symbol, (number, 0))
            self._halts[fault.symbol] = (since if number < until else number, number + fault.ticks)
            self._quotes.pop(fault.symbol, None)
        self.incidents.append(incident)

    def _open(self, command: OpenAccount) -> None:
        if not _NAME.fullmatch(command.name):
            raise Refused(
                "invalid", f"account name {command.name!r} is invalid: use up to 63 letters, digits, '.', '_' and '-'"
            )
        if command.name in self.accounts:
            raise Refused("invalid", f"account {command.name!r} exists already")
        if not command.capital_usd.is_finite() or not 0 < command.capital_usd <= 10**9:
            raise Refused("invalid", f"capital_usd {command.capital_usd} is outside (0, 1000000000]")
        self.accounts[command.name] = Account(
            name=command.name,
            id=str(uuid5(NAMESPACE_URL, f"cappuccino:account:{command.name}")),
            key_id=command.key_id,
            secret_key=command.secret_key,
            capital=command.capital_usd,
            opened_us=self.tick.at_us,
            cash=command.capital_usd,
            last_equity=command.capital_usd,
            face=command.face,
        )

    def _advance(self) -> Outcome:
        if self.tick.number == len(self.tape) - 1:
            self.ended = True
            return Outcome()
        tick = self.tape.tick(self.tick.number + 1)
        if tick.at_us // DAY_US != self.tick.at_us // DAY_US:
            self.midnight_prices = self.prices()
            for account in self.accounts.values():
                account.last_equity = account.equity(self.midnight_prices)
        self.tick = tick
        self._quotes.clear()
        events: list[Event] = []
        for account in self.accounts.values():
            for order_id in list(account.open_ids):
                self._work(account, account.orders[order_id], events, arriving=False)
        return Outcome(tuple(events))

    def _submit(self, account: Account, request: OrderRequest, *, share: Decimal | None) -> Outcome:
        if request.symbol not in self.rules:
            raise Refused("unknown_symbol", f'could not find asset "{request.symbol}"')
        if request.client_order_id in account.by_client_id:
            raise Refused("duplicate_client_order_id", "client_order_id must be unique")
        rules, quote = self.rules[request.symbol], self.quote(request.symbol)
        price = taker_price(request.side, quote, self.terms.slippage(request.symbol), rules.price_increment)
        on_top = self._on_top(account, request)
        check(request, rules=rules, account=account, quote=quote, market_price=price, on_top=on_top)
        sequence = len(account.orders)
        order_id = str(uuid5(NAMESPACE_URL, f"{account.id}:order:{sequence}"))
        last_us = next(reversed(account.orders.values())).submitted_us if account.orders else 0
        submitted_us = max(self.tick.at_us, last_us + 1)  # distinct, so that a list can be paged by time
        order = Order(
            id=order_id,
            sequence=sequence,
            client_order_id=request.client_order_id or str(uuid5(NAMESPACE_URL, f"{order_id}:client")),
            request=request,
            submitted_us=submitted_us,
            updated_us=submitted_us,
        )
        account.add(order)
        account.hold(order, self._needed(account, order, price))
        events = [Event(account=account.name, kind="new", order=copy(order), at_us=submitted_us)]
        self._work(account, order, events, arriving=True, share=share)
        return Outcome(tuple(events), copy(order))

    def _cancel(self, account: Account, order_id: str) -> Outcome:
        order = account.order(order_id)
        if not order.is_open:
            raise Refused("not_cancelable", f'order is already in "{order.status}" state')
        events: list[Event] = []
        self._close(account, order, events)
        return Outcome(tuple(events), copy(order))

    def _edit(self, account: Account, command: Edit) -> Outcome:
        order = account.order(command.order_id)
        if not order.is_open or order.request.type != "limit":
            raise Refused("not_cancelable", "only a limit order that rests can be edited")
        if command.qty <= order.filled_qty:
            raise Refused("invalid", f"{order.filled_qty:f} are filled already: a size must be above that")
        rules, quote, held = self.rules[order.request.symbol], self.quote(order.request.symbol), order.reserved
        request = replace(order.request, qty=command.qty, limit_price=command.limit_price)
        account.hold(order, ZERO)
        try:
            rest = replace(request, qty=command.qty - order.filled_qty)
            on_top = self._on_top(account, request)
            check(rest, rules=rules, account=account, quote=quote, market_price=command.limit_price, on_top=on_top)
        except Refused:
            account.hold(order, held)
            raise
        order.request = request
        order.updated_us = max(self.tick.at_us, order.updated_us)
        account.hold(order, self._needed(account, order, command.limit_price))
        events = [Event(account=account.name, kind="new", order=copy(order), at_us=order.updated_us)]
        self._work(account, order, events, arriving=True)
        return Outcome(tuple(events), copy(order))

    def _work(
        self, account: Account, order: Order, events: list[Event], *, arriving: bool, share: Decimal | None = None
    ) -> None:
        """Let an open order meet the present quote."""
        request = order.request
        quote = self.quote(request.symbol)
        if request.type == "stop_limit" and not order.triggered:
            if quote.halted or not stop_reached(request, quote):
                return  # ioc counts from the moment at which the stop is reached
            order.triggered = arriving = True
        found = match(
            order,
            quote,
            arriving=arriving,
            slippage=self.terms.slippage(request.symbol),
            increment=self.rules[request.symbol].price_increment,
        )
        short_of_cash = False
        if found is not None:
            wanted, affordable = self._sizes(account, order, found)
            qty = min(wanted, affordable, self._liquidity(account, order, quote))
            if share is not None:
                qty = floor_to(qty * share, self.rules[request.symbol].min_trade_increment)
            short_of_cash = affordable < wanted
            if qty > 0:
                self._fill(account, order, qty, found, events, complete=qty == wanted)
        if order.is_open and (request.time_in_force == "ioc" or short_of_cash):
            self._close(account, order, events)

    def _sizes(self, account: Account, order: Order, found: Match) -> tuple[Decimal, Decimal]:
        """(units still wanted, units that the balance allows) at this price."""
        request, increment = order.request, self.rules[order.request.symbol].min_trade_increment
        cost = found.price * (1 + self._on_top(account, request))
        wanted = order.remaining if request.qty is not None else floor_to(order.remaining / cost, increment)
        if request.side == "sell":
            return wanted, account.position(request.symbol).available + order.reserved
        return wanted, floor_to((account.available_cash + order.reserved) / cost, increment)

    def _on_top(self, account: Account, request: OrderRequest) -> Decimal:
        """The fraction of its value that a buy's fee takes from cash: 0 where the fee is taken from the units."""
        if request.side == "sell" or account.face == "alpaca":
            return ZERO
        return account.tier(self.terms.tiers(account.face), self.tick.at_us).taker_bps / BPS

    def _fee(self, account: Account, order: Order, qty: Decimal, found: Match, at_us: int) -> tuple[Decimal, str]:
        """(fee, asset in which it is taken) of a fill."""
        request, tier = order.request, account.tier(self.terms.tiers(account.face), at_us)
        bps = tier.maker_bps if found.maker else tier.taker_bps
        base, _, quoted = request.symbol.partition("/")
        if account.face == "coinbase":
            return commission(qty=qty, price=found.price, fee_bps=bps), quoted
        increment = self.rules[request.symbol].min_trade_increment
        fee = fee_taken(side=request.side, qty=qty, price=found.price, fee_bps=bps, increment=increment)
        return fee, base if request.side == "buy" else quoted

    def _liquidity(self, account: Account, order: Order, quote: Quote) -> Decimal:
        """Units that this tick has left for the account."""
        symbol = order.request.symbol
        share = self.terms.participation_cap if order.request.type == "market" else self.terms.liquidity_share
        if share is None:
            return Decimal("Infinity")
        left = quote.volume * share - account.taken(symbol, self.tick.number)
        return max(floor_to(left, self.rules[symbol].min_trade_increment), ZERO)

    def _fill(self, account: Account, order: Order, qty: Decimal, found: Match, events: list[Event], *, complete: bool) -> None:
        """`complete`: it was for all that is wanted; the rounding of a fee may leave enough for another increment."""
        request, at_us = order.request, max(self.tick.at_us, order.updated_us)
        fee, fee_asset = self._fee(account, order, qty, found, at_us)
        order.filled_qty += qty
        order.filled_value += qty * found.price
        order.fills += 1
        if account.face == "coinbase":
            order.fees += fee
        fill = Fill(
            execution_id=str(uuid5(NAMESPACE_URL, f"{account.id}:execution:{len(account.fills)}")),
            order_id=order.id,
            client_order_id=order.client_order_id,
            symbol=request.symbol,
            side=request.side,
            qty=qty,
            price=found.price,
            fee=fee,
            fee_asset=fee_asset,
            liquidity="maker" if found.maker else "taker",
            at_us=at_us,
            cumulative_qty=order.filled_qty,
            completes=complete,
        )
        account.hold(order, ZERO)
        position = account.settle(fill)
        if request.type != "market" or self.terms.participation_cap is not None:
            account.take(request.symbol, self.tick.number, qty)
        order.status = "filled" if complete else "partially_filled"
        order.updated_us = at_us
        order.filled_us = at_us if complete else None
        if complete:
            del account.open_ids[order.id]
        else:
            account.hold(order, self._needed(account, order, found.price))
        events.append(
            Event(
                account=account.name,
                kind="fill" if complete else "partial_fill",
                order=copy(order),
                at_us=at_us,
                fill=fill,
                position_qty=position.qty,
            )
        )

    def _close(self, account: Account, order: Order, events: list[Event]) -> None:
        account.hold(order, ZERO)
        del account.open_ids[order.id]
        order.status = "canceled"
        order.updated_us = order.canceled_us = max(self.tick.at_us, order.updated_us)
        events.append(Event(account=account.name, kind="canceled", order=copy(order), at_us=order.updated_us))

    def _needed(self, account: Account, order: Order, price: Decimal) -> Decimal:
        """What an order that waits holds back: units of a sale, cash of a buy."""
        request = order.request
        if request.side == "sell":
            if request.qty is not None:
                return order.remaining
            units = floor_to(order.remaining / price * _MARKET_MARGIN, self.rules[request.symbol].min_trade_increment)
            return min(units, account.position(request.symbol).available)
        if request.notional is not None:
            return order.remaining
        factor = 1 + self._on_top(account, request)
        if request.limit_price is not None:
            return order.remaining * request.limit_price * factor
        return min(order.remaining * price * _MARKET_MARGIN * factor, account.available_cash)
