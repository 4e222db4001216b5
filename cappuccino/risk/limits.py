"""Every order is reviewed before it is sent; what no rule allows is refused.

Pure: the verdict follows from the arguments, and a refusal carries its numbers so that it can be stored.
Rules, in this order (the first that objects decides; a shrink goes on to the next):

1. halted: an entry is refused while the account is halted or reducing; protective exits always pass this rule.
2. order_rate: entries and rebalancing sales in one hour of market time; protective exits count but are never refused.
3. price: a price must be positive and finite, and an entry's within `price_band` of the last close, in both directions.
4. held: a sale is shrunk to what is held.
5. max_weight: a buy is shrunk until position / equity <= max_weight at the decision's close.
6. cash: a buy is shrunk to the cash.
7. min_notional: below the venue's minimum nothing can be sent.

Drawdown is no rule of an order: it halts the account (`drawdown_breach`), from the persisted baseline.
A limit of 0 is off (max_drawdown, max_orders_per_hour). Money in quote currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from cappuccino.core.money import ZERO, dec
from cappuccino.risk.barriers import Barriers

TradingMode = Literal["active", "reducing", "halted"]
_SLACK = Decimal("1e-9")  # relative: sizing works in floats, the limit must not refuse its rounding


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Fractions of equity or of a price; the defaults are those of a Trader manifest."""

    max_weight: float = 0.30
    max_drawdown: float = 0.20
    max_orders_per_hour: int = 60
    price_band: float = 0.50
    barriers: Barriers = field(default_factory=Barriers)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An order before it is an order: a buy by notional, or a sale by quantity."""

    symbol: str
    side: Literal["buy", "sell"]
    protective: bool
    qty: Decimal = ZERO
    notional: Decimal = ZERO


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What the rules look at. `close` is the decision's, `price` the market's now; both of this symbol."""

    mode: TradingMode
    equity: Decimal
    cash: Decimal
    held: Decimal
    close: Decimal
    price: Decimal
    min_notional: Decimal
    orders_last_hour: int


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Send it as it is."""


@dataclass(frozen=True, kw_only=True)
class Shrink:
    """Send less: `amount` is a quantity for a sale, a notional for a buy."""

    rule: str
    amount: Decimal
    numbers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Veto:
    """Do not send it."""

    rule: str
    numbers: Mapping[str, str]


Verdict = Pass | Shrink | Veto


def review(proposal: Proposal, exposure: Exposure, limits: Limits) -> Verdict:
    """Whether `proposal` may be sent, and how much of it."""
    entry = proposal.side == "buy"
    if entry and exposure.mode != "active":
        return Veto(rule="halted", numbers={"mode": exposure.mode})
    if exposure.mode == "halted" and not proposal.protective:
        return Veto(rule="halted", numbers={"mode": exposure.mode})
    rate = limits.max_orders_per_hour
    if rate and not proposal.protective and exposure.orders_last_hour >= rate:
        return Veto(rule="order_rate", numbers={"orders_last_hour": str(exposure.orders_last_hour), "limit": str(rate)})
    if (refusal := _price(exposure, limits, entry=entry)) is not None:
        return refusal
    return _buy(proposal, exposure, limits) if entry else _sell(proposal, exposure)


def drawdown_breach(equity: Decimal, baseline: Decimal, limits: Limits) -> str | None:
    """Why the account must halt, or None. `baseline` is the persisted one, never this process's start."""
    if not limits.max_drawdown or baseline <= 0:
        return None
    loss = 1 - equity / baseline
    if loss < dec(limits.max_drawdown):
        return None
    return f"drawdown {loss:.4f} of the baseline {baseline} reached the limit {limits.max_drawdown} (equity {equity:.2f})"


def _price(exposure: Exposure, limits: Limits, *, entry: bool) -> Veto | None:
    numbers = {"price": str(exposure.price), "close": str(exposure.close), "band": str(limits.price_band)}
    if not exposure.price.is_finite() or exposure.price <= 0:
        return Veto(rule="price", numbers=numbers)
    if entry and (exposure.close <= 0 or abs(exposure.price / exposure.close - 1) > dec(limits.price_band)):
        return Veto(rule="price", numbers=numbers)
    return None


def _sell(proposal: Proposal, exposure: Exposure) -> Verdict:
    qty = min(proposal.qty, exposure.held)
    notional = qty * exposure.price
    if notional < exposure.min_notional or qty <= 0:
        return Veto(rule="min_notional", numbers={"notional": str(notional), "minimum": str(exposure.min_notional)})
    if qty < proposal.qty:
        return Shrink(rule="held", amount=qty, numbers={"asked": str(proposal.qty), "held": str(exposure.held)})
    return Pass()


def _buy(proposal: Proposal, exposure: Exposure, limits: Limits) -> Verdict:
    notional, rule, numbers = proposal.notional, "", {}
    room = dec(limits.max_weight) * exposure.equity * (1 + _SLACK) - exposure.held * exposure.close
    if notional > room:
        rule, numbers = "max_weight", {"asked": str(notional), "room": str(room), "max_weight": str(limits.max_weight)}
        notional = room
    if notional > exposure.cash:
        rule, numbers = "cash", {"asked": str(proposal.notional), "cash": str(exposure.cash)}
        notional = exposure.cash
    if notional < exposure.min_notional or notional <= 0:
        return Veto(
            rule=rule or "min_notional", numbers={**numbers, "notional": str(notional), "minimum": str(exposure.min_notional)}
        )
    return Shrink(rule=rule, amount=notional, numbers=numbers) if rule else Pass()
