"""The grade of a paper record: published terms, a score of 0 to 100, a letter.

    25 clip(Sharpe / 3) + 25 clip(t_alpha / 2) + 20 clip(1 - drawdown / 15 %)
    + 15 clip((win rate - break-even win rate) / 0.2) + 15 fidelity            clip to [0, 1]

A from 85, B 70, C 55, D 40, else F; none before 7 market days and 20 closed trades. Fidelity of fills to what the model
of costs says: 1 - mean |filled / modelled - 1| / 25 bps, clipped.

Invariants: a term that cannot be measured is worth 0, never left out; a grade never promotes (the grade gate does,
on conditions of its own). Units: Sharpe and alpha annualised, drawdown and rates as fractions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import metrics

MIN_MARKET_DAYS = 7.0
MIN_CLOSED_TRADES = 20
FIDELITY_TOLERANCE_BPS = 25.0
LETTERS = ((85.0, "A"), (70.0, "B"), (55.0, "C"), (40.0, "D"))


@dataclass(frozen=True, kw_only=True)
class PaperRecord:
    """What a trader did on paper. None where the record has nothing to measure.

    alpha, alpha_low, alpha_high: annualised alpha over HODL with its two-sided 95 % interval.
    fidelity: of fills to modelled fills, in [0, 1].
    """

    market_days: float
    closed_trades: int
    total_return: float
    sharpe: float | None
    sharpe_se: float | None
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None
    t_alpha: float | None
    max_drawdown: float
    win_rate: float | None
    break_even_win_rate: float | None
    fidelity: float | None


@dataclass(frozen=True, kw_only=True)
class Term:
    """`value` is the measured quantity, `points` what it earned of `weight`."""

    name: str
    weight: float
    value: float | None
    points: float


@dataclass(frozen=True, kw_only=True)
class Grade:
    """`letter` and `score` are None while the record is too short; `reason` says why, or what cost most."""

    letter: str | None
    score: float | None
    terms: tuple[Term, ...]
    reason: str


def paper_record(
    *, equity: npt.ArrayLike, hodl: npt.ArrayLike, pnl: npt.ArrayLike, bars_per_year: float, fidelity: float | None
) -> PaperRecord:
    """Measure a paper record.

    Args:
        equity, hodl: [T] marked at the same closes, the second of the HODL baseline (same costs, same start).
        pnl: [K] net result of each closed trade.
        bars_per_year: of the bars of `equity`.

    Raises:
        InvalidInput: curves of different length, or not finite and positive.
    """
    returns, benchmark = metrics.simple_returns(equity), metrics.simple_returns(hodl)
    if len(returns) != len(benchmark):
        raise InvalidInput(f"equity has {len(returns) + 1} bars and HODL {len(benchmark) + 1}: give the same closes of both")
    trades = metrics.score_trades(pnl)
    sharpe = sharpe_se = alpha = low = high = t_alpha = None
    if _moves(returns):
        sharpe = metrics.sharpe(returns, bars_per_year)
        sharpe_se = metrics.sharpe_standard_error(returns, bars_per_year)
    if _moves(returns) and _moves(benchmark):
        fit = metrics.regress(returns, benchmark)
        low, high = (bars_per_year * bound for bound in fit.interval())
        alpha, t_alpha = bars_per_year * fit.alpha, fit.t_alpha
    curve = np.asarray(equity, dtype=np.float64)
    return PaperRecord(
        market_days=len(returns) / bars_per_year * 365,
        closed_trades=trades.closed,
        total_return=float(curve[-1] / curve[0] - 1),
        sharpe=sharpe,
        sharpe_se=sharpe_se,
        alpha=alpha,
        alpha_low=low,
        alpha_high=high,
        t_alpha=t_alpha,
        max_drawdown=metrics.max_drawdown(curve),
        win_rate=trades.win_rate,
        break_even_win_rate=trades.break_even_win_rate,
        fidelity=fidelity,
    )


def fill_fidelity(filled: npt.ArrayLike, modelled: npt.ArrayLike) -> float | None:
    """How near fills [K] came to the modelled prices of the same orders [K], in [0, 1]; None without fills."""
    got, expected = np.asarray(filled, dtype=np.float64), np.asarray(modelled, dtype=np.float64)
    if got.shape != expected.shape:
        raise InvalidInput(f"{len(got)} fills against {len(expected)} modelled prices: pair every fill with its model")
    if len(got) == 0:
        return None
    return _clip(1.0 - float(np.abs(got / expected - 1.0).mean()) * 1e4 / FIDELITY_TOLERANCE_BPS)


def grade(record: PaperRecord) -> Grade:
    """Score the record; no letter before 7 market days and 20 closed trades (the terms are shown all the same)."""
    edge = None
    if record.win_rate is not None and record.break_even_win_rate is not None:
        edge = record.win_rate - record.break_even_win_rate
    terms = (
        _term("Sharpe", 25, record.sharpe, 1 / 3),
        _term("t of alpha", 25, record.t_alpha, 1 / 2),
        Term(name="drawdown", weight=20, value=record.max_drawdown, points=20 * _clip(1 - record.max_drawdown / 0.15)),
        _term("win rate above break-even", 15, edge, 1 / 0.2),
        _term("fidelity of fills", 15, record.fidelity, 1.0),
    )
    if record.market_days < MIN_MARKET_DAYS or record.closed_trades < MIN_CLOSED_TRADES:
        return Grade(
            letter=None,
            score=None,
            terms=terms,
            reason=f"no grade yet: {record.market_days:.1f} of {MIN_MARKET_DAYS:g} market days and "
            f"{record.closed_trades} of {MIN_CLOSED_TRADES} closed trades",
        )
    score = sum(term.points for term in terms)
    costliest = max(terms, key=lambda term: term.weight - term.points)
    return Grade(
        letter=next((letter for bound, letter in LETTERS if score >= bound), "F"),
        score=score,
        terms=terms,
        reason=f"{score:.1f} of 100; most was lost on {costliest.name} ({costliest.points:.1f} of {costliest.weight:g})",
    )


def _term(name: str, weight: float, value: float | None, per_unit: float) -> Term:
    return Term(name=name, weight=weight, value=value, points=0.0 if value is None else weight * _clip(value * per_unit))


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def _moves(returns: npt.NDArray[np.float64]) -> bool:
    return len(returns) > 2 and float(returns.std()) > 1e-12
