"""From a closed bar to what is asked for: the view, and the orders that its targets need. Pure.

Orders are planned at the decision's close by `risk/sizing.plan`, each is reviewed by `risk/review`, and only then
does the decision become a row. Sells are sized here; buys keep their gross notional. Once the sells are over, the buys
are shrunk to the cash that is then there (`fit_buys`), and reviewed again on what is then true (`review_buys`): that is
the review before sending, and both are the same rules.

A trader whose limit is below the bundle's maximum weight (live's 10 %) multiplies every target by the ratio and shows
the strategy its weights divided by it: the bundle decides as it was trained, and nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from math import isfinite

import numpy as np

from cappuccino.core.errors import InvariantViolation
from cappuccino.core.money import dec, floor_to
from cappuccino.exchange.venue import AssetRules
from cappuccino.market.bars import BoolArray, FloatArray
from cappuccino.risk.limits import Limits
from cappuccino.risk.positions import NEVER, Watch
from cappuccino.risk.review import Proposal, Shrink, Veto, review
from cappuccino.risk.sizing import Sizing, plan, shrink
from cappuccino.strategies.interface import Contract, Decision, Strategy, Target, View
from cappuccino.telemetry.logs import get_logger
from cappuccino.trading.book import Book
from cappuccino.trading.facts import Facts, exposure_of, minimum_notional, refusal_of, refusals_of, review_buys
from cappuccino.trading.ports import Json

_WHY_MAX = 300  # characters of an error that are stored

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a decision asks for, after review. Quantities in base units, notionals in quote currency."""

    sells: Mapping[str, Decimal]
    buys: Mapping[str, Decimal]
    refusals: tuple[Json, ...]


def scale_of(limits: Limits, sizing: Sizing) -> float:
    """What targets are multiplied by: 1 unless the trader's limit is below the bundle's."""
    return min(1.0, limits.max_weight / sizing.max_weight)


def view_of(
    contract: Contract,
    *,
    at: datetime,
    features: FloatArray,
    close: FloatArray,
    tradable: BoolArray,
    book: Book,
    watches: Mapping[str, Watch],
    since_stop: Mapping[str, int],
    scale: float,
) -> View:
    """What the strategy sees. features: [N, L, F]; close, tradable: [N]."""
    symbols = contract.symbols
    qty = np.array([float(book.qty(s)) for s in symbols])
    entry = np.array([watches[s].entry if s in watches else 0.0 for s in symbols])
    equity = float(book.cash) + float(np.sum(qty * close))
    weights = qty * close / equity / scale if equity > 0 else np.zeros(len(symbols))
    held = entry > 0
    return View(
        at=at,
        features=features,
        close=close,
        weights=weights,
        cash_weight=float(book.cash) / equity if scale == 1.0 and equity > 0 else 1.0 - float(np.sum(weights)),
        equity_usd=equity,
        entry_return=np.where(held, close / np.where(held, entry, 1.0) - 1.0, 0.0),
        bars_held=np.array([watches[s].bars_held if s in watches else 0 for s in symbols], dtype=np.int64),
        bars_since_stop=np.array([since_stop.get(s, NEVER) for s in symbols], dtype=np.int64),
        tradable=tradable,
    )


def decision_of(strategy: Strategy, view: View, memory: Json) -> tuple[Decision, list[Json]]:
    """What `strategy` decides; when it fails: to hold, with the reason as a refusal.

    Whatever a bundle makes of a market must not end the process that guards its positions.

    Raises:
        InvariantViolation: a rule of our own was broken, and what would be guarded may be wrong as well.
    """
    try:
        return strategy.decide(view, memory), []
    except InvariantViolation:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:_WHY_MAX]
        log.exception("no_decision", error=why)
        held = Decision(intents=(), memory=memory, trace={"error": why})
        return held, [{"rule": "no_decision", "verdict": "veto", "numbers": {"error": why}}]


def plan_orders(targets: Sequence[Target], view: View, facts: Facts, *, symbols: Sequence[str], sizing: Sizing) -> Planned:
    """Orders for `targets`, reviewed: sells first, then buys as if the sells were over and the cash were there."""
    wanted, refusals = _wanted(targets, symbols, scale_of(facts.limits, sizing))
    sell_qty, buy_notional = plan(
        np,
        target=np.array([wanted.get(s, 0.0) for s in symbols]),
        hold=np.array([s not in wanted for s in symbols]) | ~view.tradable,
        equity=np.float64(view.equity_usd),
        holdings=np.array([float(facts.book.qty(s)) for s in symbols]),
        close=view.close,
        min_notional=np.array([float(minimum_notional(facts.rules[s], facts.closes[s])) for s in symbols]),
        sizing=replace(sizing, max_weight=sizing.max_weight * scale_of(facts.limits, sizing)),
    )
    sells: dict[str, Decimal] = {}
    for symbol, qty in zip(symbols, sell_qty.tolist(), strict=True):
        if not qty > 0:
            continue
        increment = facts.rules[symbol].min_trade_increment
        asked = facts.book.qty(symbol) if wanted[symbol] <= 0 else dec(qty)
        proposal = Proposal(symbol=symbol, side="sell", protective=False, qty=floor_to(asked, increment))
        verdict = review(proposal, exposure_of(symbol, facts, sent=len(sells)), facts.limits)
        refusals += refusals_of(proposal, verdict)
        if not isinstance(verdict, Veto):
            sells[symbol] = floor_to(verdict.amount, increment) if isinstance(verdict, Shrink) else proposal.qty
    asked_buys = {
        s: floor_to(dec(n), facts.rules[s].notional_increment)
        for s, n in zip(symbols, buy_notional.tolist(), strict=True)
        if n > 0
    }
    buys, refused = review_buys(asked_buys, facts, cash=None, sold=sells)
    return Planned(sells=sells, buys=buys, refusals=(*refusals, *refused))


def fit_buys(
    buys: Mapping[str, Decimal],
    *,
    cash: Decimal,
    closes: Mapping[str, Decimal],
    rules: Mapping[str, AssetRules],
    sizing: Sizing,
) -> dict[str, Decimal]:
    """`buys` shrunk by one factor to `cash` less the buffer; what falls below the venue's minimum is left out."""
    symbols = tuple(buys)
    if not symbols:
        return {}
    fitted = shrink(
        np,
        buy_notional=np.array([float(buys[s]) for s in symbols]),
        cash=np.float64(cash),
        min_notional=np.array([float(minimum_notional(rules[s], closes[s], "buy")) for s in symbols]),
        sizing=sizing,
    )
    amounts = {
        s: min(floor_to(dec(x), rules[s].notional_increment), buys[s]) for s, x in zip(symbols, fitted.tolist(), strict=True)
    }
    return {s: amount for s, amount in amounts.items() if amount > 0}


def _wanted(targets: Sequence[Target], symbols: Sequence[str], scale: float) -> tuple[dict[str, float], list[Json]]:
    """Scaled target weights by symbol; a target that is no number, or of a symbol that is not traded, is refused."""
    wanted: dict[str, float] = {}
    refusals: list[Json] = []
    for target in targets:
        if target.symbol in symbols and isfinite(target.weight):
            wanted[target.symbol] = target.weight * scale
        else:
            refusals.append(refusal_of(target.symbol, "", Veto(rule="unknown", numbers={"weight": str(target.weight)})))
    return wanted, refusals
