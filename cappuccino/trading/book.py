"""Positions and cash from fills: a pure fold. The fills of the journal are the book; nothing else is.

- A buy of q at p with fee f takes q p from cash and adds q - f units; where f is in quote currency (Coinbase), it takes
  q p + f and adds q. A sale of q at p with fee f (quote currency) takes q units and adds q p - f to cash.
- Average entry is the quantity-weighted average price of the buys of the open position; sales leave it.
- A trade is flat to flat per symbol, net of fees. A position is open while it can be sold: below the venue's smallest
  order it is flat, and what is left is dust, carried into the next position.
- A venue that does not say the fee of a fill (Alpaca's FILL activities do not) is charged what its schedule
  says; `reconciliation` checks that against the venue's own balances.

Quantities in base units, money in quote currency, all Decimal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import overload

from cappuccino.core.errors import InvariantViolation
from cappuccino.core.money import ZERO
from cappuccino.trading.orders import Side


@dataclass(frozen=True, kw_only=True)
class Fill:
    """One execution with its fee. `fee` is in `fee_asset`: the quote asset, or on a buy the base asset where the venue takes
    the fee from what is received."""

    execution_id: str
    client_order_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    filled_at: datetime

    @property
    def fee_in_units(self) -> bool:
        return self.fee_asset == self.symbol.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Holding:
    """An open position. `position_id` is the client order id of the buy that opened it: exits derive theirs from it."""

    symbol: str
    qty: Decimal
    entry: Decimal
    position_id: str
    opened_at: datetime
    bought_qty: Decimal
    paid: Decimal  # cash out for buys
    received: Decimal = ZERO  # cash in from sales, net of fees
    fees: Decimal = ZERO  # in quote currency, at fill prices


@dataclass(frozen=True, kw_only=True)
class ClosedTrade:
    """Flat to flat. `profit` is cash received less cash paid."""

    symbol: str
    opened_at: datetime
    closed_at: datetime
    qty: Decimal
    entry: Decimal
    exit: Decimal
    profit: Decimal
    fees: Decimal


class Trades(Sequence[ClosedTrade]):
    """Never changes; `plus` shares the rows of what it adds to, so that a fold over n sales copies nothing."""

    __slots__ = ("_count", "_rows")

    def __init__(self, rows: list[ClosedTrade]) -> None:
        """`rows` may grow afterwards: what comes later is not seen."""
        self._rows, self._count = rows, len(rows)

    def plus(self, trade: ClosedTrade) -> Trades:
        rows = self._rows if len(self._rows) == self._count else self._rows[: self._count]
        rows.append(trade)
        return Trades(rows)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ClosedTrade: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ClosedTrade]: ...

    def __getitem__(self, index: int | slice) -> ClosedTrade | Sequence[ClosedTrade]:
        at = range(self._count)[index]
        return self._rows[at] if isinstance(at, int) else [self._rows[i] for i in at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trades) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Book:
    """`smallest` is the venue's smallest order by symbol; `dust` what was left in a symbol after its last trade."""

    cash: Decimal
    smallest: Mapping[str, Decimal]
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    dust: Mapping[str, Decimal] = field(default_factory=dict)
    trades: Trades = field(default_factory=lambda: Trades([]))
    fees: Decimal = ZERO
    volume: Decimal = ZERO

    def qty(self, symbol: str) -> Decimal:
        """Everything of `symbol` that the account has, dust included."""
        held = self.holdings.get(symbol)
        return held.qty if held else self.dust.get(symbol, ZERO)

    def equity(self, prices: Mapping[str, Decimal]) -> Decimal:
        symbols = {*self.holdings, *(s for s, q in self.dust.items() if q)}
        return self.cash + sum((self.qty(s) * prices[s] for s in symbols), ZERO)


def apply(book: Book, fill: Fill) -> Book:
    """`book` after `fill`.

    Raises:
        InvariantViolation: a sale of more than is held or with a fee in units, or a number that is not positive.
    """
    if fill.qty <= 0 or fill.price <= 0 or fill.fee < 0:
        raise InvariantViolation(
            f"fill {fill.execution_id}: qty {fill.qty}, price {fill.price}, fee {fill.fee} must be positive"
        )
    if fill.side == "buy":
        return _buy(book, fill)
    if fill.fee_in_units:
        raise InvariantViolation(
            f"fill {fill.execution_id}: the fee of a sale is in {fill.fee_asset}: no venue we know does so"
        )
    return _sell(book, fill)


def replay(opening: Book, fills: Iterable[Fill]) -> Book:
    """The book after all of `fills`, in their order."""
    for fill in fills:
        opening = apply(opening, fill)
    return opening


def _buy(book: Book, fill: Fill) -> Book:
    value = fill.qty * fill.price
    if fill.fee_in_units:
        cost, added, fees = value, fill.qty - fill.fee, fill.fee * fill.price
    else:
        cost, added, fees = value + fill.fee, fill.qty, fill.fee
    held = book.holdings.get(fill.symbol)
    dust = dict(book.dust)
    if held is None:
        held = Holding(
            symbol=fill.symbol,
            qty=dust.pop(fill.symbol, ZERO) + added,
            entry=fill.price,
            position_id=fill.client_order_id,
            opened_at=fill.filled_at,
            bought_qty=fill.qty,
            paid=cost,
            fees=fees,
        )
    else:
        held = replace(
            held,
            qty=held.qty + added,
            entry=(held.entry * held.qty + fill.price * added) / (held.qty + added),
            bought_qty=held.bought_qty + fill.qty,
            paid=held.paid + cost,
            fees=held.fees + fees,
        )
    return replace(
        book,
        cash=book.cash - cost,
        holdings={**book.holdings, fill.symbol: held},
        dust=dust,
        fees=book.fees + fees,
        volume=book.volume + value,
    )


def _sell(book: Book, fill: Fill) -> Book:
    held = book.holdings.get(fill.symbol)
    if held is None or fill.qty > held.qty:
        raise InvariantViolation(
            f"fill {fill.execution_id} sells {fill.qty} {fill.symbol} and the book has {book.qty(fill.symbol)}: "
            f"a fill is missing; trading stops"
        )
    proceeds = fill.qty * fill.price - fill.fee
    held = replace(held, qty=held.qty - fill.qty, received=held.received + proceeds, fees=held.fees + fill.fee)
    holdings, dust, trades = dict(book.holdings), dict(book.dust), book.trades
    if held.qty < book.smallest[fill.symbol]:
        del holdings[fill.symbol]
        dust[fill.symbol] = held.qty
        trades = trades.plus(_closed(held, fill.filled_at))
    else:
        holdings[fill.symbol] = held
    return replace(
        book,
        cash=book.cash + proceeds,
        holdings=holdings,
        dust=dust,
        trades=trades,
        fees=book.fees + fill.fee,
        volume=book.volume + fill.qty * fill.price,
    )


def _closed(held: Holding, at: datetime) -> ClosedTrade:
    return ClosedTrade(
        symbol=held.symbol,
        opened_at=held.opened_at,
        closed_at=at,
        qty=held.bought_qty,
        entry=held.paid / held.bought_qty,
        exit=held.received / held.bought_qty,
        profit=held.received - held.paid,
        fees=held.fees,
    )
