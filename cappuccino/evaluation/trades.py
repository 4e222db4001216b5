"""Fills, and the trades made of them: flat to flat per symbol, net of costs.

A trade begins with the buy that opens a position and ends with the sale that leaves nothing the venue
could still sell. What is left then (dust below the venue's increment, because the fee is taken from the
asset received) counts as spent. A position that is still open is no trade yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cappuccino.core.clock import from_epoch, iso

Side = Literal["buy", "sell"]
SIGNAL = "signal"


@dataclass(frozen=True, kw_only=True)
class Fill:
    """One execution. `price` includes slippage; the fee is in quote currency, whichever asset paid it.

    ts: open time of the bar in which it happened, epoch seconds.
    reason: `signal` for a decision's order, else the barrier (`stop_loss`, ...).
    flat: whether it left no position.
    """

    ts: int
    symbol: str
    side: Side
    qty: float
    price: float
    fee_usd: float
    reason: str
    flat: bool

    @property
    def notional_usd(self) -> float:
        return self.qty * self.price


@dataclass(frozen=True, kw_only=True)
class Trade:
    """Flat to flat in one symbol. Prices are averages weighted by quantity and include slippage.

    qty: units bought, before fees. pnl_usd: net of fees. return_: pnl / what the buys cost.
    """

    symbol: str
    entry_ts: int
    exit_ts: int
    entry_price: float
    exit_price: float
    qty: float
    fees_usd: float
    pnl_usd: float
    return_: float
    exit_reason: str

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["return"] = document.pop("return_")
        document["entry_at"] = iso(from_epoch(document.pop("entry_ts")))
        document["exit_at"] = iso(from_epoch(document.pop("exit_ts")))
        return document


def closed_trades(fills: Iterable[Fill]) -> tuple[Trade, ...]:
    """The trades that `fills` (in order of time) complete, in order of their exits."""
    trades: list[Trade] = []
    open_fills: dict[str, list[Fill]] = {}
    for fill in fills:
        group = open_fills.setdefault(fill.symbol, [])
        group.append(fill)
        if fill.flat:
            trades.append(_trade(open_fills.pop(fill.symbol)))
    return tuple(trades)


def _trade(group: list[Fill]) -> Trade:
    buys = [fill for fill in group if fill.side == "buy"]
    sells = [fill for fill in group if fill.side == "sell"]
    cost = sum(fill.notional_usd for fill in buys)
    proceeds = sum(fill.notional_usd - fill.fee_usd for fill in sells)
    bought = sum(fill.qty for fill in buys)
    sold = sum(fill.qty for fill in sells)
    return Trade(
        symbol=group[0].symbol,
        entry_ts=group[0].ts,
        exit_ts=group[-1].ts,
        entry_price=cost / bought,
        exit_price=sum(fill.notional_usd for fill in sells) / sold,
        qty=bought,
        fees_usd=sum(fill.fee_usd for fill in group),
        pnl_usd=proceeds - cost,
        return_=(proceeds - cost) / cost,
        exit_reason=group[-1].reason,
    )
