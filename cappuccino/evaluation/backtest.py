"""One strategy over one panel of bars, event by event: the reference for the rules of the market.

Per bar u, in this order (docs/architecture.md, "The market's rules"):

1. the decision made at the close of u - 1 fills at the open of u: sells first, then buys with the cash there is;
2. barriers look at that open, then at low, high, close; what they sell is not bought again before the next decision;
3. equity is marked at the close.

Fills, fees, dust and minimum sizes are `book`'s. `bars_held` and `bars_since_stop` count decisions. Ruin (equity below
20 % of the start) ends the run. Deterministic: the same arguments give the same result, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from cappuccino.core.clock import from_epoch
from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import metrics
from cappuccino.evaluation.book import Book
from cappuccino.evaluation.trades import Fill, Trade, closed_trades
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Json, Strategy

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RUIN = 0.20


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """What was asked for at the close of one bar. Absent symbols are held."""

    at: datetime
    targets: Mapping[str, float]
    trace: Json


@dataclass(frozen=True, kw_only=True, eq=False)
class BacktestResult:
    """K bars after the first decision; row 0 of the curves is that decision's close.

    at: [K+1] close instants, epoch seconds. equity, cash: [K+1] quote currency. holdings: [K+1, N] base
    units. weights: [K+1, N] position value / equity. returns: [K] simple returns per bar.
    trades: closed ones only. fees_usd: all fees at the price of their fill. turnover: traded value
    over equity, a year. exposure: mean invested share. memory: the strategy's, after the last decision.
    """

    at: IntArray
    equity: FloatArray
    cash: FloatArray
    holdings: FloatArray
    weights: FloatArray
    returns: FloatArray
    fills: tuple[Fill, ...]
    trades: tuple[Trade, ...]
    fees_usd: float
    turnover: float
    exposure: float
    decisions: tuple[DecisionRecord, ...]
    ruined: bool
    memory: Json
    bars_per_year: float

    @property
    def n_decisions(self) -> int:
        return len(self.decisions)

    @property
    def total_return(self) -> float:
        return float(self.equity[-1] / self.equity[0] - 1.0)


def backtest(
    strategy: Strategy,
    bars: Bars,
    features: FloatArray,
    *,
    first_decision: int,
    last: int,
    capital_usd: float,
    costs: Costs,
    sizing: Sizing,
    barriers: Barriers,
    rules: Mapping[str, AssetRules],
    interval: int | None = None,
    memory: Json | None = None,
) -> BacktestResult:
    """Trade `strategy` from the close of row `first_decision` to the close of row `last`, starting flat.

    Args:
        features: [T, N, F] raw values on the rows of `bars`, columns in the order of the contract.
        rules: the venue's sizes, one entry per symbol.
        interval: bars from one decision to the next; None takes the contract's.
        memory: the strategy's memory before its first decision.

    Raises:
        InvalidInput: rows outside the bars, another shape or order than the contract's, a symbol without
            rules, or a capital whose full action is below a venue minimum.
    """
    step = strategy.contract.interval if interval is None else interval
    _check(strategy, bars, features, rules, first_decision=first_decision, last=last, interval=step)
    book = Book(bars=bars, capital_usd=capital_usd, costs=costs, sizing=sizing, barriers=barriers, rules=rules)
    book.refuse_small_capital(first_decision)
    lookback = strategy.contract.lookback
    at = bars.close_ts
    memory = {} if memory is None else memory
    decisions: list[DecisionRecord] = []
    rows = last - first_decision + 1
    N = len(bars.symbols)
    equity, cash = np.empty(rows), np.empty(rows)
    holdings, weights, traded = np.zeros((rows, N)), np.zeros((rows, N)), np.zeros(rows)
    equity[0] = cash[0] = capital_usd
    used = rows
    for k in range(1, rows):
        t, u = first_decision + k - 1, first_decision + k
        if (k - 1) % step == 0:
            if k > 1:
                book.count_decision()
            when = from_epoch(int(at[t]))
            window = features[t - lookback + 1 : t + 1].transpose(1, 0, 2)
            view = book.view(t, at=when, equity=float(equity[k - 1]), features=window)
            decision = strategy.decide(view, memory)
            memory = decision.memory
            targets = {intent.symbol: intent.weight for intent in decision.intents}
            decisions.append(DecisionRecord(at=when, targets=targets, trace=decision.trace))
            if decision.intents:
                book.rebalance(u, decision.intents, equity=float(equity[k - 1]))
        book.watch(u)
        value = book.holdings * bars.close[u]
        cash[k], equity[k] = book.cash, book.cash + value.sum()
        holdings[k], weights[k] = book.holdings, value / equity[k]
        traded[k] = book.traded_usd
        if equity[k] < RUIN * capital_usd:
            used = k + 1
            break
    equity, fills = equity[:used], tuple(book.fills)
    return BacktestResult(
        at=at[first_decision : first_decision + used],
        equity=equity,
        cash=cash[:used],
        holdings=holdings[:used],
        weights=weights[:used],
        returns=metrics.simple_returns(equity),
        fills=fills,
        trades=closed_trades(fills),
        fees_usd=sum(fill.fee_usd for fill in fills),
        turnover=metrics.turnover(np.diff(traded[:used]), equity[1:], bars.timeframe.bars_per_year),
        exposure=metrics.exposure(weights[1:used]),
        decisions=tuple(decisions),
        ruined=bool(equity[-1] < RUIN * capital_usd),
        memory=memory,
        bars_per_year=bars.timeframe.bars_per_year,
    )


def _check(
    strategy: Strategy,
    bars: Bars,
    features: FloatArray,
    rules: Mapping[str, AssetRules],
    *,
    first_decision: int,
    last: int,
    interval: int,
) -> None:
    contract = strategy.contract
    if bars.symbols != contract.symbols or bars.timeframe != contract.timeframe:
        raise InvalidInput(
            f"backtest: bars of {', '.join(bars.symbols)} on {bars.timeframe}, but the strategy was made for "
            f"{', '.join(contract.symbols)} on {contract.timeframe}: select and resample them first"
        )
    expected = (len(bars), len(bars.symbols), len(contract.features))
    if features.shape != expected:
        raise InvalidInput(
            f"backtest: features have shape {features.shape}, expected {expected}: compute the contract's features"
        )
    if not contract.lookback - 1 <= first_decision < last < len(bars):
        raise InvalidInput(
            f"backtest: first decision at row {first_decision}, last row {last}: "
            f"need {contract.lookback - 1} <= first < last < {len(bars)}"
        )
    if interval < 1:
        raise InvalidInput(f"backtest: interval is {interval} bars: give 1 or more")
    lacking = [symbol for symbol in bars.symbols if symbol not in rules]
    if lacking:
        raise InvalidInput(f"backtest: no venue rules for {', '.join(lacking)}: give its minimum and increments")
