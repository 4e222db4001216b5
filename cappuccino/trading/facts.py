"""What an order is reviewed on: the decision that it follows from, and the account and the market as they are now. Pure.

`review_buys` judges the buys of one instant together, at the decision and again before they are sent: the rules are those
of `risk/review`, and no order of symbols decides which of them fits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from cappuccino.core.money import ZERO, dec, floor_to
from cappuccino.exchange.venue import AssetRules
from cappuccino.risk.day import Day
from cappuccino.risk.heat import at_risk, at_risk_to_stop
from cappuccino.risk.limits import Limits, TradingMode
from cappuccino.risk.positions import Watch
from cappuccino.risk.review import Exposure, Pass, Proposal, Shrink, Verdict, Veto, review
from cappuccino.trading.book import Book
from cappuccino.trading.orders import Side
from cappuccino.trading.ports import Json, Quote


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a review is made on. `equity` and `closes` are the decision's; everything else is what is true at `now`."""

    mode: TradingMode
    now: datetime
    day: Day | None
    book: Book
    watches: Mapping[str, Watch]
    equity: Decimal
    closes: Mapping[str, Decimal]
    quotes: Mapping[str, Quote]
    rules: Mapping[str, AssetRules]
    limits: Limits
    orders_last_hour: int
    orders_last_minute: int


def is_price(value: Decimal) -> bool:
    return value.is_finite() and value > 0


def minimum_notional(rules: AssetRules, price: Decimal, side: Side = "sell") -> Decimal:
    """The smallest order that the venue takes at this price, in quote currency."""
    least = max(rules.min_notional, rules.min_order_size * price)
    return max(least, rules.min_buy_notional) if side == "buy" else least


def review_buys(
    buys: Mapping[str, Decimal], facts: Facts, *, cash: Decimal | None, sold: Mapping[str, Decimal] | None = None
) -> tuple[dict[str, Decimal], list[Json]]:
    """What may be sent of `buys`, all of one instant, and what was refused of them.

    Args:
        cash: what they may use together. None: what the sells will bring is not known yet, each may use all equity.
        sold: sales that come before them, taken as filled. They count for the order rate.

    The room for heat is shared by size, and places for new positions go to the largest: no order of symbols decides.
    """
    sold, total, left = sold or {}, sum(buys.values(), ZERO), cash
    flat = {s for s in sold if facts.book.qty(s) - sold[s] < facts.rules[s].min_order_size}
    open_now = facts.book.holdings.keys() - flat
    opening = sorted((s for s in buys if s not in open_now), key=lambda s: -buys[s])
    heat = _heat(facts, sold, buying=buys.keys())
    allowed: dict[str, Decimal] = {}
    refusals: list[Json] = []
    for symbol, notional in buys.items():
        proposal = Proposal(symbol=symbol, side="buy", protective=False, notional=notional)
        exposure = exposure_of(
            symbol,
            facts,
            side="buy",
            sent=len(sold) + len(allowed),
            cash=facts.equity if left is None else left,
            open_positions=len(open_now - {symbol}) + (opening.index(symbol) if symbol in opening else 0),
            heat=heat,
            heat_share=notional / total if total > 0 else ZERO,
        )
        verdict = review(proposal, exposure, facts.limits)
        refusals += refusals_of(proposal, verdict)
        if not isinstance(verdict, Veto):
            increment = facts.rules[symbol].notional_increment
            allowed[symbol] = floor_to(verdict.amount, increment) if isinstance(verdict, Shrink) else notional
            left = None if left is None else left - allowed[symbol]
    return allowed, refusals


def exposure_of(
    symbol: str,
    facts: Facts,
    *,
    side: Side = "sell",
    sent: int = 0,
    cash: Decimal | None = None,
    open_positions: int = 0,
    heat: Decimal = ZERO,
    heat_share: Decimal = ZERO,
) -> Exposure:
    """What the rules look at for an order of `symbol`; `sent` orders of this instant came before it."""
    quote, rules = facts.quotes.get(symbol), facts.rules[symbol]
    close = facts.closes.get(symbol, Decimal("NaN"))
    price = quote.mid if quote is not None else ZERO
    return Exposure(
        mode=facts.mode,
        equity=facts.equity,
        cash=facts.book.cash if cash is None else cash,
        held=floor_to(facts.book.qty(symbol), rules.min_trade_increment),
        close=close,
        price=price,
        spread=(quote.ask - quote.bid) / price if quote is not None and is_price(price) else None,
        quote_age_seconds=dec((facts.now - quote.at).total_seconds()) if quote is not None else None,
        min_notional=minimum_notional(rules, price if close.is_nan() else close, side),
        orders_last_hour=facts.orders_last_hour + sent,
        orders_last_minute=facts.orders_last_minute + sent,
        open_positions=open_positions,
        heat=heat,
        heat_share=heat_share,
        day=facts.day,
    )


def refusal_of(symbol: str, side: str, verdict: Shrink | Veto) -> Json:
    """What is stored of a verdict."""
    amount = {"sent": str(verdict.amount)} if isinstance(verdict, Shrink) else {}
    return {
        "symbol": symbol,
        "side": side,
        "verdict": type(verdict).__name__.lower(),
        "rule": verdict.rule,
        "numbers": dict(verdict.numbers),
        **amount,
    }


def refusals_of(proposal: Proposal, verdict: Verdict) -> list[Json]:
    return [] if isinstance(verdict, Pass) else [refusal_of(proposal.symbol, proposal.side, verdict)]


def _heat(facts: Facts, sold: Mapping[str, Decimal], *, buying: Collection[str]) -> Decimal:
    """The portfolio's heat after `sold`, at the decision's closes; what is bought is measured at its stop-loss."""
    heat = ZERO
    for symbol, held in facts.book.holdings.items():
        qty = held.qty - sold.get(symbol, ZERO)
        price, watch = facts.closes[symbol], facts.watches.get(symbol)
        if symbol in buying or watch is None:
            heat += at_risk_to_stop(qty=qty, price=price, entry=held.entry, barriers=facts.limits.barriers)
        else:
            peak = max(dec(watch.peak), price)
            heat += at_risk(qty=qty, price=price, entry=held.entry, peak=peak, barriers=watch.barriers)
    return heat
