"""The book of one account: cash, positions, what open orders hold back, fills, 30-day volume. The referee's numbers.

Invariants, checked at every settlement: cash and positions are never negative, and never less than what is reserved.
Cash moves by qty x price exactly; fees as `venue.fee_taken` says, on the Coinbase face `venue.commission`. Quantities in base
units, money in USD.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

from cappuccino.core.errors import InvariantViolation
from cappuccino.core.money import ZERO
from cappuccino.exchange.orders import Fill, Order, Refused
from cappuccino.exchange.venue import Face, FeeTier, fee_tier

THIRTY_DAYS_US = 30 * 86_400 * 1_000_000


@dataclass(kw_only=True, slots=True)
class Position:
    """`average_entry` is the quantity-weighted price of the open position's buys; sales leave it."""

    qty: Decimal = ZERO
    reserved: Decimal = ZERO
    average_entry: Decimal = ZERO

    @property
    def available(self) -> Decimal:
        return self.qty - self.reserved


@dataclass(kw_only=True)
class Account:
    """`last_equity` is the equity at the last midnight UTC."""

    name: str
    id: str
    key_id: str
    secret_key: str
    capital: Decimal
    opened_us: int
    cash: Decimal
    last_equity: Decimal
    face: Face = "alpaca"
    reserved_cash: Decimal = ZERO
    fees_usd: Decimal = ZERO
    positions: dict[str, Position] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)  # by id, in order of submission
    by_client_id: dict[str, str] = field(default_factory=dict)
    open_ids: dict[str, None] = field(default_factory=dict)  # an ordered set
    fills: list[Fill] = field(default_factory=list)
    _taken: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    _volume: deque[tuple[int, Decimal]] = field(default_factory=deque)
    _volume_usd: Decimal = ZERO

    @property
    def available_cash(self) -> Decimal:
        return self.cash - self.reserved_cash

    def position(self, symbol: str) -> Position:
        """The position, an empty one if there is none."""
        return self.positions.get(symbol) or Position()

    def order(self, order_id: str) -> Order:
        """Raises Refused when the account has no such order."""
        if order_id not in self.orders:
            raise Refused("not_found", f"order not found for {order_id}")
        return self.orders[order_id]

    def by_client_order_id(self, client_order_id: str) -> Order:
        """Raises Refused when the account has no such order."""
        if client_order_id not in self.by_client_id:
            raise Refused("not_found", f"order not found for {client_order_id}")
        return self.orders[self.by_client_id[client_order_id]]

    def add(self, order: Order) -> None:
        self.orders[order.id] = order
        self.by_client_id[order.client_order_id] = order.id
        self.open_ids[order.id] = None

    def hold(self, order: Order, amount: Decimal) -> None:
        """Let the order hold back `amount` in place of what it did."""
        change = amount - order.reserved
        order.reserved = amount
        if order.request.side == "buy":
            self.reserved_cash += change
        elif change:
            self.positions[order.request.symbol].reserved += change

    def taken(self, symbol: str, tick: int) -> Decimal:
        """Units of the tick's liquidity that this account has had."""
        number, qty = self._taken.get(symbol, (tick, ZERO))
        return qty if number == tick else ZERO

    def take(self, symbol: str, tick: int, qty: Decimal) -> None:
        self._taken[symbol] = (tick, self.taken(symbol, tick) + qty)

    def tier(self, tiers: tuple[FeeTier, ...], at_us: int) -> FeeTier:
        """The fee tier by the volume of the last 30 days of market time."""
        while self._volume and self._volume[0][0] <= at_us - THIRTY_DAYS_US:
            self._volume_usd -= self._volume.popleft()[1]
        return fee_tier(self._volume_usd, tiers)

    def settle(self, fill: Fill) -> Position:
        """Move cash and units for one fill whose order has already released what it held for it.

        Raises:
            InvariantViolation: the fill would spend what is not there.
        """
        position = self.positions.setdefault(fill.symbol, Position())
        value = fill.value
        if fill.side == "buy":
            received = fill.qty - fill.fee if fill.fee_in_units else fill.qty
            held = position.qty + received
            if held:
                position.average_entry = (position.average_entry * position.qty + fill.price * received) / held
            position.qty = held
            self.cash -= value if fill.fee_in_units else value + fill.fee
            self.fees_usd += fill.fee * fill.price if fill.fee_in_units else fill.fee
        else:
            position.qty -= fill.qty
            self.cash += value - fill.fee
            self.fees_usd += fill.fee
        if self.cash < self.reserved_cash or self.reserved_cash < 0 or not 0 <= position.reserved <= position.qty:
            raise InvariantViolation(
                f"account {self.name}: fill {fill.execution_id} of {fill.symbol} leaves cash {self.cash} (reserved"
                f" {self.reserved_cash}) and {position.qty} units (reserved {position.reserved}): the exchange's book is wrong"
            )
        if position.qty == 0:
            del self.positions[fill.symbol]
        self.fills.append(fill)
        self._volume.append((fill.at_us, value))
        self._volume_usd += value
        return position

    def adjust(self, asset: str, amount: Decimal) -> None:
        """Let `amount` of USD, or units of a symbol, come or go, as if by hand. Raises Refused when they are not there."""
        if asset == "USD":
            if self.available_cash + amount < 0:
                raise Refused("invalid", f"account {self.name} has {self.available_cash} USD: {amount} cannot go")
            self.cash += amount
            return
        held = self.position(asset)
        if held.available + amount < 0:
            raise Refused("invalid", f"account {self.name} has {held.available} {asset}: {amount} cannot go")
        self.positions[asset] = held
        held.qty += amount
        if held.qty == 0:
            del self.positions[asset]

    def equity(self, prices: dict[str, Decimal]) -> Decimal:
        """Cash and positions at these prices."""
        return self.cash + sum((held.qty * prices[symbol] for symbol, held in self.positions.items()), ZERO)
