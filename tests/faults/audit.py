"""What must hold after every fault: the record against the venue's own ledger and its list of what went wrong. Reads only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from cappuccino.exchange.venue import MONEY_INCREMENT, TRADE_INCREMENT

Row = Mapping[str, Any]
TERMINAL = {"FILLED", "CANCELED", "EXPIRED", "REJECTED", "DENIED"}
REFUSING = {"rate_limited", "rejected_size"}
CUTTING = {"partial_fill", "symbol_halted"}
CONFUSING = {
    *("interrupted", "timed_out"),
    *("request_lost", "answer_lost", "request_late", "slow", "delayed"),
    *("error_before", "error_after", "html_before", "html_after"),
}
_ORDERS = """
    select i.client_order_id, i.decision, i.symbol, i.side, i.reason, i.qty, i.notional, max(e.event_at) as ended_at,
           i.recorded_at as journalled_at, min(e.recorded_at) filter (where e.state = any(%s)) as over_at,
           coalesce(array_agg(e.state::text order by e.id) filter (where e.id is not null), '{}') as states,
           coalesce(array_agg(e.reason order by e.id) filter (where e.id is not null), '{}') as reasons
      from intent i left join order_event e using (client_order_id)
     where i.account = %s group by i.client_order_id order by i.client_order_id
"""
_FILLS = "select execution_id, client_order_id, symbol, side, fee_asset, qty, price, fee from fill where account = %s"
_TEXTS, _NUMBERS = ("execution_id", "client_order_id", "symbol", "side", "fee_asset"), ("qty", "price", "fee")
_LONGEST_TICK_US = 1_200_000_000  # a bar of an hour has three ticks or more


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """A process of `accounts` went (then it is one moment), or the exchange was away; wall time."""

    accounts: Collection[str]
    began_at: datetime
    ended_at: datetime


@dataclass(kw_only=True)
class Findings:
    """`broken`: one line for each thing that must not be. `counts` are summed over accounts."""

    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def audit(
    account: str,
    *,
    database_url: str,
    ledger: Row,
    incidents: Sequence[Row],
    journal: Path,
    interruptions: Sequence[Interruption],
    findings: Findings,
) -> None:
    """Add what one account shows.

    Args:
        ledger: the referee's, of the account. incidents: all faults that happened. journal: the exchange's.
        interruptions: of the account's processes and of the exchange.
    """
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        orders = connection.execute(_ORDERS, [list(TERMINAL), account]).fetchall()
        fills = connection.execute(_FILLS, [account]).fetchall()
        state = connection.execute("select state from trader_state where account = %s", [account]).fetchone()
        halted = connection.execute("select halted_reason from account where name = %s", [account]).fetchone()
    assert state is not None
    broken = [f"halted: {halted['halted_reason']}"] if halted is not None and halted["halted_reason"] else []
    broken += _books(fills, ledger, Decimal(state["state"]["opening_cash"]))
    accepted = _accepted(account, journal)
    broken += _once(orders, ledger, accepted)
    befallen: dict[str, set[str]] = {}
    for incident in incidents:
        if incident["account"] == account:
            befallen.setdefault(incident["subject"], set()).add(incident["kind"])
    halts = [incident for incident in incidents if incident["kind"] == "symbol_halted"]
    for order in orders:
        order_id = order["client_order_id"]
        kinds = befallen.get(order_id, set()) | ({"symbol_halted"} if _halted(order, halts) else set())
        kinds |= {"timed_out"} if _timed_out(order) else set()
        kinds |= {"interrupted"} if _in_flight(order, interruptions) else set()
        filled = [fill for fill in ledger["fills"] if fill["client_order_id"] == order_id]
        what = _unexplained(order, kinds, filled, taken=order_id in accepted)
        if what:
            broken.append(f"order {order_id} ({' > '.join(order['states'])}): {what}")
    findings.broken += [f"{account}: {line}" for line in broken]
    findings.counts += _counts(orders, fills)
    findings.counts["in flight at an interruption"] += sum(_in_flight(order, interruptions) for order in orders)


def _books(fills: Sequence[Row], ledger: Row, opening: Decimal) -> list[str]:
    """Fill by fill, then cash and every quantity, to the last digit."""
    ours = {(*(fill[n] for n in _TEXTS), *(fill[n] for n in _NUMBERS)) for fill in fills}
    theirs = {(*(fill[n] for n in _TEXTS), *(Decimal(fill[n]) for n in _NUMBERS)) for fill in ledger["fills"]}
    found = [f"fill only in the record: {fill}" for fill in ours - theirs]
    found += [f"fill only at the venue: {fill}" for fill in theirs - ours]
    cash, held = opening, Counter[str]()
    for fill in fills:
        sign = 1 if fill["side"] == "buy" else -1
        in_units = fill["fee_asset"] == fill["symbol"].partition("/")[0]
        cash -= sign * fill["qty"] * fill["price"] + (0 if in_units else fill["fee"])
        held[fill["symbol"]] += sign * fill["qty"] - (fill["fee"] if in_units else 0)
    if cash != Decimal(ledger["cash_usd"]):
        found.append(f"cash is {cash} in the record and {ledger['cash_usd']} at the venue")
    quantities = {symbol: Decimal(row["qty"]) for symbol, row in ledger["positions"].items()}
    if {symbol: qty for symbol, qty in held.items() if qty} != quantities:
        found.append(f"positions are {dict(held)} in the record and {quantities} at the venue")
    return found


def _accepted(account: str, journal: Path) -> Counter[str]:
    """How often the venue took each client order id, by its own journal."""
    found: Counter[str] = Counter()
    for line in journal.read_text().splitlines()[1:]:
        command = json.loads(line)
        if command[0] == "submit" and command[1] == account:
            found[command[2]["client_order_id"]] += 1
    return found


def _once(orders: Sequence[Row], ledger: Row, accepted: Counter[str]) -> list[str]:
    """The venue took each id at most once, nothing that is not ours, and one order for each thing that was decided."""
    known = {order["client_order_id"] for order in orders}
    found = [f"the venue acted {n} times on {order_id}" for order_id, n in accepted.items() if n > 1]
    found += [f"the venue has {order_id}, the record has not" for order_id in accepted.keys() - known]
    if ledger["orders"] != len(accepted) or ledger["open_orders"]:
        found.append(f"the venue has {ledger['orders']} orders, {ledger['open_orders']} of them open, and took {len(accepted)}")
    meant = Counter((o["decision"], o["symbol"], o["side"]) for o in orders if o["reason"] == "target")
    return found + [f"{n} orders for one decision: {key}" for key, n in meant.items() if n > 1]


def _in_flight(order: Row, interruptions: Sequence[Interruption]) -> bool:
    """Whether it was in the journal, and its end not in the record, at any moment of an interruption."""
    return any(
        order["journalled_at"] <= each.ended_at and (order["over_at"] is None or order["over_at"] >= each.began_at)
        for each in interruptions
    )


def _timed_out(order: Row) -> bool:
    """Our client did not wait longer: the machine was busy, and the counts say how often."""
    return any("Timeout" in reason for reason in order["reasons"])


def _halted(order: Row, halts: Sequence[Row]) -> bool:
    """Whether the order's symbol was not traded when the order ended."""
    if order["ended_at"] is None:
        return False
    at_us = order["ended_at"].timestamp() * 1e6
    return any(
        halt["symbol"] == order["symbol"] and halt["at_us"] <= at_us <= halt["at_us"] + halt["ticks"] * _LONGEST_TICK_US
        for halt in halts
    )


def _unexplained(order: Row, befallen: set[str], filled: Sequence[Row], *, taken: bool) -> str:
    """Why nothing explains what became of the order; empty when something does."""
    states, reasons = order["states"], order["reasons"]
    if not states or states[-1] not in TERMINAL:
        return "it has no outcome"
    outcome, confused = states[-1], bool(befallen & CONFUSING)
    if order["qty"] is not None:
        whole = sum((Decimal(fill["qty"]) for fill in filled), Decimal(0)) == order["qty"]
    else:
        left = order["notional"] - sum((_cost(fill) for fill in filled), Decimal(0))
        left -= MONEY_INCREMENT * len(filled)  # fees are rounded down
        whole = any(left < _cost(fill) / Decimal(fill["qty"]) * TRADE_INCREMENT for fill in filled)  # it buys no increment more
    if outcome in ("REJECTED", "DENIED") and taken:
        return "it was refused, and the venue took it"
    if "UNKNOWN" in states and not confused:
        return "its outcome was unknown, and nothing had happened"
    if outcome == "FILLED" and not whole:
        return f"the venue filled {[fill['qty'] for fill in filled]}"
    if outcome == "REJECTED" and not befallen & REFUSING:
        return f"it was rejected ({reasons[-1]}), and no fault refused it"
    if outcome == "DENIED" and not confused:
        return f"it was not sent ({reasons[-1]})"
    if outcome in ("CANCELED", "EXPIRED"):
        if taken and not whole and not befallen & CUTTING:
            return f"it was not filled whole ({reasons[-1]}), and no fault cut it short"
        if (whole or not taken) and not confused:
            return f"it was given up ({reasons[-1]}), and nothing had happened"
    return ""


def _cost(fill: Row) -> Decimal:
    """Of a buy by notional, in quote currency. A venue that takes its fee in that includes it."""
    in_units = fill["fee_asset"] == fill["symbol"].partition("/")[0]
    return Decimal(fill["qty"]) * Decimal(fill["price"]) + (0 if in_units else Decimal(fill["fee"]))


def _counts(orders: Sequence[Row], fills: Sequence[Row]) -> Counter[str]:
    counts = Counter[str]({"orders": len(orders), "fills": len(fills)})
    for order in orders:
        counts[f"ended {order['states'][-1] if order['states'] else 'NOWHERE'}"] += 1
        counts["UNKNOWN resolved"] += "UNKNOWN" in order["states"] and order["states"][-1] in TERMINAL
        counts["timed out"] += _timed_out(order)
        counts["sent again"] += ("UNKNOWN", "SUBMITTED") in pairwise(order["states"])
        counts["protective exits"] += order["reason"] != "target"
    return counts
