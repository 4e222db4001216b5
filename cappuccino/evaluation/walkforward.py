"""A trial's pipeline: fit on each fold's past, trade each fold's future, and one number for all.

Each fold is its own run: the strategy starts flat with the full capital at the close of the first test row and is
marked at the last; nothing is traded across a cut, and the rows between training and test are seen by neither side's
targets (features at a test row may reach back over them). HODL runs beside it on the same rows at the same costs.

Objective: the mean over the folds of the annualised out-of-sample Sharpe. After each fold but the last the mean so
far is reported, and the trial may be pruned. A trial that does not trade is a failure, never a score: no closed trade
or too little exposure in a fold, ruin, returns that have no Sharpe, too few closed trades in all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import metrics
from cappuccino.evaluation.backtest import BacktestResult, backtest
from cappuccino.evaluation.splits import Fold
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.hold import Hold
from cappuccino.strategies.interface import Strategy

Report = Callable[[int, float], bool]


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a run must have done before its Sharpe counts. `exposure` in each fold, `closed_trades` over all."""

    exposure: float = 0.05
    closed_trades: int = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldResult:
    """One fold out of sample. None where a curve has no Sharpe. `returns`, `hodl_returns`: per bar, the same bars."""

    fold: Fold
    run: BacktestResult
    sharpe: float | None
    hodl: BacktestResult
    hodl_sharpe: float | None

    def to_json(self, bars: Bars) -> dict[str, Any]:
        """For the trial record; row numbers are those of the bars, times the open times of rows (ends exclusive)."""
        run = self.run
        fold = self.fold

        def between(lo: int, hi: int) -> list[str]:
            return [iso(from_epoch(int(bars.ts[lo]))), iso(from_epoch(int(bars.close_ts[hi - 1])))]

        return {
            "train_rows": [fold.train_lo, fold.train_hi],
            "train_between": between(fold.train_lo, fold.train_hi),
            "test_rows": [fold.test_lo, fold.test_hi],
            "test_between": between(fold.test_lo, fold.test_hi),
            "sharpe": self.sharpe,
            "hodl_sharpe": self.hodl_sharpe,
            "total_return": run.total_return,
            "hodl_total_return": self.hodl.total_return,
            "max_drawdown": metrics.max_drawdown(run.equity),
            "hodl_max_drawdown": metrics.max_drawdown(self.hodl.equity),
            "closed_trades": len(run.trades),
            "exposure": run.exposure,
            "turnover": run.turnover,
            "fees_usd": run.fees_usd,
            "decisions": run.n_decisions,
            "ruined": run.ruined,
            "exits": _exits(run),
            "returns": run.returns.tolist(),
            "hodl_returns": self.hodl.returns.tolist(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class WalkForward:
    """`objective` is None unless the state is Complete; `reason` says why a trial failed or was pruned."""

    state: Literal["Complete", "Pruned", "Failed"]
    reason: str
    objective: float | None
    folds: tuple[FoldResult, ...]
    record: Mapping[str, Any]


Walk = Generator[tuple[int, int, int], Strategy, WalkForward]


def evaluate(
    bars: Bars,
    features: npt.NDArray[np.float64],
    folds: Sequence[Fold],
    *,
    report: Report,
    capital_usd: float,
    costs: Costs,
    sizing: Sizing,
    barriers: Barriers,
    rules: Mapping[str, AssetRules],
    demands: Demands,
    interval: int | None = None,
) -> Walk:
    """Judge a strategy on every fold, fold by fold, so that several trials can be fitted together.

    Yields (fold index, train_lo, train_hi), is sent the strategy fitted on rows train_lo <= t < train_hi and on no others,
    and returns the outcome.

    Args:
        features: [T, N, F] raw values on the rows of `bars`.
        report: (step, mean Sharpe of folds 0..step) -> True to prune; not asked after the last fold.

    Raises:
        InvalidInput: no folds, or a fold whose test rows overlap its training rows or leave the bars.
    """
    _check_folds(folds, len(bars))
    results: list[FoldResult] = []
    for index, fold in enumerate(folds):
        strategy = yield index, fold.train_lo, fold.train_hi
        run, hodl = (
            backtest(
                candidate,
                bars,
                features,
                first_decision=fold.test_lo,
                last=fold.test_hi - 1,
                capital_usd=capital_usd,
                costs=costs,
                sizing=sizing,
                barriers=exits,
                rules=rules,
                interval=interval,
            )
            for candidate, exits in ((strategy, barriers), (Hold(contract=strategy.contract), Barriers.off()))
        )
        result = FoldResult(fold=fold, run=run, sharpe=_sharpe(run), hodl=hodl, hodl_sharpe=_sharpe(hodl))
        results.append(result)
        defect = _defect(result, demands)
        if defect:
            return _ended("Failed", f"fold {index}: {defect}", results, bars)
        so_far = _mean_sharpe(results)
        if index < len(folds) - 1 and report(index, so_far):
            return _ended("Pruned", f"pruned after fold {index} at mean Sharpe {so_far:.3f}", results, bars)
    closed = sum(len(result.run.trades) for result in results)
    if closed < demands.closed_trades:
        return _ended(
            "Failed", f"{closed} closed trades in {len(folds)} folds: {demands.closed_trades} are needed", results, bars
        )
    return _ended("Complete", "", results, bars)


def _defect(result: FoldResult, demands: Demands) -> str:
    """Why the fold is no score; empty when it is one."""
    run = result.run
    if run.ruined:
        return f"ruined: equity fell to {run.equity[-1] / run.equity[0]:.1%} of the start"
    undefined = sum(None in decision.trace.get("action", ()) for decision in run.decisions)
    if undefined:
        return f"the action is not a number in {undefined} of {run.n_decisions} decisions"
    if not run.trades:
        return f"no closed trade in {len(run.returns)} bars ({len(run.fills)} fills, exposure {run.exposure:.1%})"
    if run.exposure < demands.exposure:
        return f"exposure {run.exposure:.1%} is below {demands.exposure:.1%}"
    if result.sharpe is None:
        return "its returns have no Sharpe ratio (constant or not a number)"
    return ""


def _sharpe(run: BacktestResult) -> float | None:
    try:
        value = metrics.sharpe(run.returns, run.bars_per_year)
    except InvalidInput:  # constant, too short or not finite: a failure, not a score
        return None
    return value if np.isfinite(value) else None


def _mean_sharpe(results: Sequence[FoldResult]) -> float:
    return fmean(result.sharpe for result in results if result.sharpe is not None)


def _ended(
    state: Literal["Complete", "Pruned", "Failed"], reason: str, results: Sequence[FoldResult], bars: Bars
) -> WalkForward:
    sharpes = [result.sharpe for result in results if result.sharpe is not None]
    hodl = [result.hodl_sharpe for result in results if result.hodl_sharpe is not None]
    objective = _mean_sharpe(results) if state == "Complete" else None
    bars_judged = sum(len(result.run.returns) for result in results)
    record = {
        "state": state,
        "reason": reason,
        "objective": objective,
        "metrics": _metrics(results) if state == "Complete" else {},
        "sharpe_mean": fmean(sharpes) if sharpes else None,
        "sharpe_deviation": pstdev(sharpes) if sharpes else None,
        "hodl_sharpe_mean": fmean(hodl) if hodl else None,
        "closed_trades": sum(len(result.run.trades) for result in results),
        "exposure": sum(r.run.exposure * len(r.run.returns) for r in results) / bars_judged if bars_judged else 0.0,
        "fees_usd": sum(result.run.fees_usd for result in results),
        "bars_per_year": bars.timeframe.bars_per_year,
        "folds": [result.to_json(bars) for result in results],
    }
    return WalkForward(state=state, reason=reason, objective=objective, folds=tuple(results), record=record)


def _metrics(results: Sequence[FoldResult]) -> dict[str, float]:
    """What a search may minimise or limit beside the objective (search/goal.py)."""
    return {
        "max_drawdown": max(float(metrics.max_drawdown(result.run.equity)) for result in results),
        "turnover": fmean(result.run.turnover for result in results),
    }


def _exits(run: BacktestResult) -> dict[str, int]:
    """Closed trades by what ended them."""
    reasons = [trade.exit_reason for trade in run.trades]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _check_folds(folds: Sequence[Fold], rows: int) -> None:
    if not folds:
        raise InvalidInput("walk-forward: no folds: give at least one")
    for index, fold in enumerate(folds):
        if not 0 <= fold.train_lo < fold.train_hi <= fold.test_lo < fold.test_hi - 1 < rows:
            raise InvalidInput(
                f"walk-forward: fold {index} trains on rows {fold.train_lo}..{fold.train_hi} and tests on "
                f"{fold.test_lo}..{fold.test_hi} of {rows}: training must end before the test, inside the bars"
            )
