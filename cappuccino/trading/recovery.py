"""Start-up and recovery are one path: ask the venue, adopt what is ours, cancel what is not, compare, then trade.

1. Fills since the oldest order that is not settled (or since the last agreement) are fetched; those of ours are adopted.
2. Orders of the journal that are not settled become UNKNOWN and are resolved by client order id.
3. Open orders that the journal lacks are canceled.
4. Balances are compared with the book. A difference that no event explains raises IntegrityError: we do not trade.

A venue that does not answer raises RetryLater; it never counts as "nothing there".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import product

from cappuccino.core.clock import iso
from cappuccino.core.errors import IntegrityError, RetryLater
from cappuccino.core.identifiers import client_order_id
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.desk import Desk
from cappuccino.trading.orders import EXIT_REASONS, Intent, OrderState, Report, observe
from cappuccino.trading.ports import Broker
from cappuccino.trading.reconciliation import Difference, Match, compare, match

ATTEMPTS = 8  # exits of one position that may have been sent while the database was away
OVERLAP = timedelta(minutes=2)  # clocks that time orders and fills may differ by this much
_LOOKS = 3  # balances may trail fills for a moment on a real venue
_PAUSE_SECONDS = 0.5

log = get_logger(__name__)


def exit_id(account: str, position_id: str, symbol: str, reason: str, attempt: int) -> str:
    """The deterministic id of a protective exit."""
    return client_order_id(account=account, decision=position_id, symbol=symbol, leg=reason, attempt=attempt)


def reconcile(
    desk: Desk, broker: Broker, *, account: str, trader_uid: str, since: datetime, fees_posted_later: bool
) -> datetime:
    """Bring the desk's orders and book to the venue's truth; the venue's time at which they agreed.

    Args:
        since: fills before it are in the journal for certain.
        fees_posted_later: the venue books fees at the end of the day, not with each fill.

    Raises:
        IntegrityError: venue and journal differ, and nothing explains it.
        RetryLater: the venue does not answer.
    """
    desk.gap = False
    try:
        at = _adopt_missed(desk, broker, account=account, trader_uid=trader_uid, since=since)
        _compare(desk, broker, account=account, fees_posted_later=fees_posted_later)
    except RetryLater:
        desk.gap = True  # what was missed is still missing
        raise
    return at


def _adopt_missed(desk: Desk, broker: Broker, *, account: str, trader_uid: str, since: datetime) -> datetime:
    """Everything but the comparison. Fills enter the book oldest first, whatever order they belong to."""
    at = broker.now()
    for order in desk.blotter.unfinished:
        if order.state is OrderState.INITIALIZED:
            desk.blotter.orders[order.id] = observe(order, Report(state=OrderState.UNKNOWN, at=at))
    adoptable = _adoptable(desk, account)
    known_since = min((o.intent.created_at for o in desk.blotter.unfinished), default=since)
    found = _match(desk, broker, since=min(known_since, since) - OVERLAP, adoptable=set(adoptable))
    for order_id in found.unjournalled:
        _adopt(desk, broker, order_id, adoptable[order_id], account=account, trader_uid=trader_uid, at=at)
    for fill in found.fills:
        desk.take_in(fill)
    desk.settle([order.id for order in desk.blotter.unfinished])
    for orphan in found.orphans:
        log.warning("orphan_order_canceled", order=orphan.client_order_id, symbol=orphan.symbol)
        broker.cancel(orphan.venue_order_id)
    if found.foreign:
        fill = found.foreign[0]
        raise IntegrityError(
            f"account {account}: the venue has {len(found.foreign)} fills of orders that are not ours, the first "
            f"{fill.side} {fill.execution.qty} {fill.symbol} at {iso(fill.execution.at)}: nothing is traded; "
            f"use an account that nothing else trades on"
        )
    return at


def _match(desk: Desk, broker: Broker, *, since: datetime, adoptable: set[str]) -> Match:
    fills = broker.fills_since(since)
    ids = {o.venue_order_id: o.id for o in desk.blotter.orders.values() if o.venue_order_id is not None}
    for fill in fills:
        unknown = fill.client_order_id is None and fill.venue_order_id not in ids
        if unknown and fill.execution.execution_id not in desk.blotter.known_executions:
            order = broker.order_by_venue_id(fill.venue_order_id)
            if order is not None:
                ids[fill.venue_order_id] = order.client_order_id
    return match(
        desk.blotter.orders,
        open_orders=broker.open_orders(),
        fills=fills,
        known_executions=desk.blotter.known_executions,
        ids_by_venue_id=ids,
        adoptable=adoptable,
    )


def _adoptable(desk: Desk, account: str) -> Mapping[str, tuple[str, str, str]]:
    """Ids of exits that may have been sent without the journal -> (position id, symbol, reason). Of positions in the book, and
    of those that an unfinished buy may have opened: its fill is not in the journal either while the database is away."""
    positions = {held.position_id: held.symbol for held in desk.blotter.book.holdings.values()}
    positions |= {order.id: order.intent.symbol for order in desk.blotter.unfinished if order.intent.side == "buy"}
    found: dict[str, tuple[str, str, str]] = {}
    for (position_id, symbol), reason in product(positions.items(), EXIT_REASONS):
        sent = exit_attempts(desk, position_id, reason, account=account, symbol=symbol)
        for attempt in range(sent, sent + ATTEMPTS):
            found[exit_id(account, position_id, symbol, reason, attempt)] = (position_id, symbol, reason)
    return found


def _adopt(
    desk: Desk, broker: Broker, order_id: str, origin: tuple[str, str, str], *, account: str, trader_uid: str, at: datetime
) -> None:
    position_id, symbol, reason = origin
    order = broker.order_by_client_id(order_id)
    if order is None or (order.qty is None) == (order.notional is None):
        raise IntegrityError(f"account {account}: the venue filled order {order_id} of {symbol} and cannot say what it was")
    log.warning("exit_adopted", order=order_id, symbol=symbol, reason=reason)
    desk.blotter.adopt(
        Intent(
            client_order_id=order_id,
            account=account,
            trader_uid=trader_uid,
            decision=position_id,
            symbol=symbol,
            side=order.side,
            reason=reason,
            created_at=min(order.at, at),
            qty=order.qty,
            notional=order.notional,
        )
    )


def _compare(desk: Desk, broker: Broker, *, account: str, fees_posted_later: bool) -> None:
    differences: tuple[Difference, ...] = ()
    for look in range(_LOOKS):
        if look:
            desk.take_in_for(_PAUSE_SECONDS)
        venue_account, positions = broker.account(), broker.positions()
        if venue_account.blocked:
            raise IntegrityError(f"account {account} is blocked by the venue: nothing is traded; ask the venue why")
        differences = compare(
            desk.blotter.book,
            positions=positions,
            cash=venue_account.cash_usd,
            recent=desk.blotter.recent_fills if fees_posted_later else (),
            now=broker.now(),
        )
        if all(d.explained for d in differences):
            for difference in differences:
                log.info("difference_explained_by_late_fees", difference=str(difference))
            return
    told = "; ".join(str(d) for d in differences if not d.explained)
    if fees_posted_later:
        told += "; a fee that the venue posted otherwise than by its schedule is such a difference"
    raise IntegrityError(
        f"account {account}: journal and venue differ and no event explains it ({told}): nothing is traded; "
        f"find what changed the account, then start again with a new account"
    )


def exit_attempts(desk: Desk, position_id: str, reason: str, *, account: str, symbol: str) -> int:
    """How many exits of this position were sent for this reason: the number of the next attempt."""
    attempt = 0
    while exit_id(account, position_id, symbol, reason, attempt) in desk.blotter.orders:
        attempt += 1
    return attempt
