"""The venue's truth against the journal. Pure: reads are made before, writes after.

Two steps, the same at start-up, after a gap in a stream and during the day:

`match` pairs what the venue says with the orders of the journal: fills that were missed are adopted (also those of
protective exits that were sent while the database was away: their ids are deterministic, so they are recognised);
open orders that the journal does not know are orphans, to be canceled; a fill of an order that is not ours at all
is foreign, and no reason to trade on.

`compare` holds the venue's balances against the book after adoption. The rule: a difference that no event explains
means we do not trade. What is allowed, and why:
- cash and quantities are equal to the last increment on a venue that takes the fee from each fill;
- on an account whose fees are posted later (Alpaca's older ones, at the end of the day), the venue may still hold
  the fees of the last 24 hours: a surplus of at most those fees is explained, a deficit never is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from cappuccino.core.money import CENT, ZERO
from cappuccino.trading.book import Book, Fill
from cappuccino.trading.orders import Order
from cappuccino.trading.ports import VenueFill, VenueOrder

FEE_POSTING_DELAY = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Match:
    """`fills` are ours and new to the journal, oldest first, with their client order id filled in."""

    fills: tuple[VenueFill, ...]
    unjournalled: tuple[str, ...]  # client order ids of ours that the journal lacks
    orphans: tuple[VenueOrder, ...]
    foreign: tuple[VenueFill, ...]


def match(
    orders: Mapping[str, Order],
    *,
    open_orders: Sequence[VenueOrder],
    fills: Sequence[VenueFill],
    known_executions: Collection[str],
    ids_by_venue_id: Mapping[str, str],
    adoptable: Collection[str],
) -> Match:
    """Pair the venue's orders and fills with the journal's.

    Args:
        orders: of the journal, by client order id.
        ids_by_venue_id: the client order id of each venue order id that a fill names.
        adoptable: client order ids that we may have sent without journalling them.
    """
    new, unjournalled, foreign = [], [], []
    for fill in fills:
        client_order_id = fill.client_order_id or ids_by_venue_id.get(fill.venue_order_id)
        if fill.execution.execution_id in known_executions:
            continue
        if client_order_id is None or (client_order_id not in orders and client_order_id not in adoptable):
            foreign.append(fill)
            continue
        if client_order_id not in orders and client_order_id not in unjournalled:
            unjournalled.append(client_order_id)
        new.append(
            VenueFill(
                execution=fill.execution,
                venue_order_id=fill.venue_order_id,
                symbol=fill.symbol,
                side=fill.side,
                client_order_id=client_order_id,
            )
        )
    return Match(
        fills=tuple(sorted(new, key=lambda f: f.execution.at)),
        unjournalled=tuple(unjournalled),
        orphans=tuple(o for o in open_orders if o.client_order_id not in orders),
        foreign=tuple(foreign),
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One balance on which journal and venue disagree; `allowed` is the surplus that late fees explain."""

    what: str
    book: Decimal
    venue: Decimal
    allowed: Decimal
    explained: bool

    def __str__(self) -> str:
        return f"{self.what}: journal {self.book}, venue {self.venue}"


def compare(
    book: Book,
    *,
    positions: Mapping[str, Decimal],
    cash: Decimal,
    recent: Iterable[Fill] = (),
    now: datetime | None = None,
) -> tuple[Difference, ...]:
    """Every balance that differs. Cash is compared to the cent below which venues do not report it.

    Args:
        recent, now: fills whose fee may not be posted yet; leave them out on a venue that takes fees at once.
    """
    unposted: dict[str, Decimal] = {}
    for fill in recent:
        if now is not None and now - fill.filled_at <= FEE_POSTING_DELAY:
            key = fill.symbol if fill.fee_in_units else "cash"
            unposted[key] = unposted.get(key, ZERO) + fill.fee
    found = []
    for symbol in sorted({*positions, *book.holdings, *book.dust}):
        ours, theirs = book.qty(symbol), positions.get(symbol, ZERO)
        if ours != theirs:
            found.append(_difference(symbol, ours, theirs, unposted.get(symbol, ZERO), slack=ZERO))
    if abs(book.cash - cash) > CENT:
        found.append(_difference("cash", book.cash, cash, unposted.get("cash", ZERO), slack=CENT))
    return tuple(found)


def _difference(what: str, ours: Decimal, theirs: Decimal, allowed: Decimal, *, slack: Decimal) -> Difference:
    explained = -slack <= theirs - ours <= allowed + slack and allowed > 0
    return Difference(what=what, book=ours, venue=theirs, allowed=allowed, explained=explained)
