"""Every order is reviewed before it is sent; what the rules do not allow is refused.

Pure: the verdict follows from the arguments, and a refusal carries its numbers so that it can be stored. RULES are asked
in their order. Each must allow the order, shrink it or refuse it; the first refusal ends it, a shrunk order goes on to
the next rule, and an order that is not allowed by every one of them is refused: there is no other way to a Pass.

1. unknown: a number that the other rules need is not finite, or not of its kind (NaN, infinite, negative).
2. halted: nothing but protective exits while the account is halted; no entry while it is reducing.
3. order_rate: entries and rebalancing sales in one hour and one minute of market time; exits count.
4. daily_loss, daily_profit_target: no entry once the UTC day is closed (`risk/day.py`).
5. price: a price must be positive; an entry's within `price_band` of the last close, in both directions.
6. quote_age, 7. spread: an entry's quote must be fresh, not crossed, and not wider than `max_spread` of its mid.
8. max_open_positions: no new position beyond so many.
9. held: a sale is shrunk to what is held.
10. max_weight: a buy is shrunk until position / equity <= max_weight at the decision's close.
11. max_symbol_notional: ... until the position is worth no more than so much, at the price now.
12. max_heat: ... until the portfolio's heat is no more than that share of equity (`risk/heat.py`).
13. cash: ... to the cash.
14. min_notional: below the venue's minimum nothing can be sent.

Protective exits are judged by what they are alone (1, 5, 9, 14): no limit of entries holds one back. Money in quote currency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from cappuccino.core.money import ZERO, dec
from cappuccino.risk.day import Day
from cappuccino.risk.heat import stop_fraction
from cappuccino.risk.limits import Limits, TradingMode

_SLACK = Decimal("1e-9")  # relative: sizing works in floats, the limit must not refuse its rounding


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An order before it is an order: a buy by notional, or a sale by quantity."""

    symbol: str
    side: Literal["buy", "sell"]
    protective: bool
    qty: Decimal = ZERO
    notional: Decimal = ZERO

    @property
    def amount(self) -> Decimal:
        return self.notional if self.side == "buy" else self.qty

    def of(self, amount: Decimal) -> Proposal:
        return replace(self, notional=amount) if self.side == "buy" else replace(self, qty=amount)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What the rules look at. No field has a default: what is not known is said so, and refused.

    equity, close: of the decision. price: the market's now, spread: of its quote, as a fraction of its mid; both and
    quote_age_seconds are of this symbol. held: base units. open_positions: in other symbols. heat: of the whole portfolio,
    this symbol measured at its stop-loss. heat_share: how much of the room for heat is this order's; the buys of one
    decision share it by their size, so that none goes first.
    """

    mode: TradingMode
    equity: Decimal
    cash: Decimal
    held: Decimal
    close: Decimal
    price: Decimal
    spread: Decimal | None
    quote_age_seconds: Decimal | None
    min_notional: Decimal
    orders_last_hour: int
    orders_last_minute: int
    open_positions: int
    heat: Decimal
    heat_share: Decimal
    day: Day | None


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
Rule = Callable[[Proposal, Exposure, Limits], Verdict]


def review(proposal: Proposal, exposure: Exposure, limits: Limits) -> Verdict:
    """Whether `proposal` may be sent, and how much of it."""
    left, binding = proposal, None
    for rule in RULES:
        verdict = rule(left, exposure, limits)
        if isinstance(verdict, Shrink) and verdict.amount.is_finite() and ZERO <= verdict.amount < left.amount:
            left, binding = left.of(verdict.amount), verdict
        elif isinstance(verdict, Veto):
            return _explained(verdict, binding)
        elif not isinstance(verdict, Pass):
            return _veto("not_allowed", by=rule.__name__, verdict=verdict)
    if binding is None:
        return Pass()
    return replace(binding, amount=left.amount, numbers={**binding.numbers, "asked": str(proposal.amount)})


def _explained(verdict: Veto, binding: Shrink | None) -> Veto:
    """An order that another limit shrank below the venue's minimum is refused by that limit."""
    if binding is None or verdict.rule != "min_notional":
        return verdict
    return Veto(rule=binding.rule, numbers={**binding.numbers, **verdict.numbers})


def _veto(rule: str, **numbers: object) -> Veto:
    return Veto(rule=rule, numbers={name: str(value) for name, value in numbers.items()})


def _shrink(rule: str, proposal: Proposal, room: Decimal, **numbers: object) -> Verdict:
    """As much as there is room for."""
    if proposal.amount <= room:
        return Pass()
    told = {"asked": proposal.amount, "room": room, **numbers}
    return Shrink(rule=rule, amount=max(room, ZERO), numbers={name: str(value) for name, value in told.items()})


def _entry(proposal: Proposal) -> bool:
    return proposal.side != "sell"


# --- the rules --------------------------------------------------------------------------------------


def _unknown(proposal: Proposal, at: Exposure, _: Limits) -> Verdict:
    needed = {"amount": proposal.amount, "held": at.held, "min_notional": at.min_notional}
    if _entry(proposal):
        needed |= {"equity": at.equity, "cash": at.cash, "close": at.close, "heat": at.heat, "heat_share": at.heat_share}
    wrong = {name: value for name, value in needed.items() if not value.is_finite() or value < 0}
    if _entry(proposal) and not wrong and at.equity == 0:
        wrong = {"equity": at.equity}
    return _veto("unknown", **wrong) if wrong else Pass()


def _halted(proposal: Proposal, at: Exposure, _: Limits) -> Verdict:
    allowed = at.mode == "active" or proposal.protective or (at.mode == "reducing" and not _entry(proposal))
    return Pass() if allowed and not (proposal.protective and _entry(proposal)) else _veto("halted", mode=at.mode)


def _order_rate(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    if proposal.protective:
        return Pass()
    hour, minute = limits.max_orders_per_hour, limits.max_orders_per_minute
    if hour and at.orders_last_hour >= hour:
        return _veto("order_rate", orders_last_hour=at.orders_last_hour, limit=hour)
    if minute and at.orders_last_minute >= minute:
        return _veto("order_rate", orders_last_minute=at.orders_last_minute, limit=minute)
    return Pass()


def _day(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    if not _entry(proposal):
        return Pass()
    if at.day is None:
        limited = limits.max_daily_loss or limits.daily_profit_target
        return _veto("unknown", day=None) if limited else Pass()
    if not at.day.closed_by:
        return Pass()
    limit = limits.max_daily_loss if at.day.closed_by == "daily_loss" else limits.daily_profit_target
    return _veto(at.day.closed_by, opening_equity=at.day.opening_equity, equity=at.day.closed_equity, limit=limit)


def _price(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    refused = _veto("price", price=at.price, close=at.close, band=limits.price_band)
    if not at.price.is_finite() or at.price <= 0:
        return refused
    if _entry(proposal) and (at.close <= 0 or (limits.price_band and abs(at.price / at.close - 1) > dec(limits.price_band))):
        return refused
    return Pass()


def _quote_age(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    if not _entry(proposal) or not limits.max_quote_age_seconds:
        return Pass()
    age = at.quote_age_seconds
    if age is None or not age.is_finite() or age > dec(limits.max_quote_age_seconds):
        return _veto("quote_age", quote_age_seconds=age, limit=limits.max_quote_age_seconds)
    return Pass()


def _spread(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    if not _entry(proposal) or not limits.max_spread:
        return Pass()
    if at.spread is None or not at.spread.is_finite() or not 0 <= at.spread <= dec(limits.max_spread):
        return _veto("spread", spread=at.spread, limit=limits.max_spread)
    return Pass()


def _open_positions(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    limit = limits.max_open_positions
    opens = _entry(proposal) and at.held * at.close < at.min_notional  # dust is no position
    if not limit or not opens or at.open_positions < limit:
        return Pass()
    return _veto("max_open_positions", open_positions=at.open_positions, limit=limit)


def _held(proposal: Proposal, at: Exposure, _: Limits) -> Verdict:
    return Pass() if _entry(proposal) else _shrink("held", proposal, at.held)


def _max_weight(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    if not _entry(proposal):
        return Pass()
    room = dec(limits.max_weight) * at.equity * (1 + _SLACK) - at.held * at.close
    return _shrink("max_weight", proposal, room, equity=at.equity, max_weight=limits.max_weight)


def _max_symbol_notional(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    if not _entry(proposal) or not limits.max_symbol_notional_usd:
        return Pass()
    room = dec(limits.max_symbol_notional_usd) - at.held * at.price
    return _shrink("max_symbol_notional", proposal, room, limit=limits.max_symbol_notional_usd)


def _max_heat(proposal: Proposal, at: Exposure, limits: Limits) -> Verdict:
    stop = stop_fraction(limits.barriers)
    if not _entry(proposal) or not limits.max_heat or not stop:
        return Pass()
    left = max(dec(limits.max_heat) * at.equity - at.heat, ZERO)
    room = left * min(at.heat_share, Decimal(1)) / stop
    return _shrink("max_heat", proposal, room, heat=at.heat, equity=at.equity, limit=limits.max_heat, stop=stop)


def _cash(proposal: Proposal, at: Exposure, _: Limits) -> Verdict:
    return _shrink("cash", proposal, at.cash) if _entry(proposal) else Pass()


def _min_notional(proposal: Proposal, at: Exposure, _: Limits) -> Verdict:
    notional = proposal.notional if _entry(proposal) else proposal.qty * at.price
    if proposal.amount <= 0 or notional < at.min_notional:
        return _veto("min_notional", notional=notional, minimum=at.min_notional)
    return Pass()


RULES: tuple[Rule, ...] = (
    _unknown,
    _halted,
    _order_rate,
    _day,
    _price,
    _quote_age,
    _spread,
    _open_positions,
    _held,
    _max_weight,
    _max_symbol_notional,
    _max_heat,
    _cash,
    _min_notional,
)
