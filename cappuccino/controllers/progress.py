"""What a search has come to, from one walk over its rows, and whether that is enough to end it.

Ending early starts no more trials; those that run are finished, because their results are nearly paid for. If one of them is an
improvement, the search goes on. Once all have finished nothing changes any more: the verdict is a function of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from cappuccino.api.search import StopEarly
from cappuccino.api.study import BestTrial, FrontTrial, TrialCounts
from cappuccino.search.goal import Goal
from cappuccino.search.trials import TrialRow, TrialState

FRONT_MAX = 20  # trials of a front that a status shows


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`best`: of the trials that may be chosen the one with the highest objective. `front`: of several objectives all that may
    be chosen, best objective first; else empty. `idle`: finished trials with a number above the newest improvement's."""

    counts: TrialCounts
    unfinished: tuple[TrialRow, ...]
    best: TrialRow | None
    front: tuple[TrialRow, ...]
    idle: int

    @classmethod
    def of(cls, rows: Sequence[TrialRow], goal: Goal) -> Progress:
        """`rows` are ordered by number."""
        counts = Counter(row.state for row in rows)
        front = goal.chosen(rows) if goal.minimize else ()
        best = front[0] if front else goal.best(rows)
        improved = max((row.number for row in (*front, best) if row), default=-1)
        return cls(
            counts=TrialCounts(**{state.lower(): counts[state] for state in get_args(TrialState)}),
            unfinished=tuple(row for row in rows if not row.finished) if counts["Waiting"] or counts["Running"] else (),
            best=best,
            front=front,
            idle=sum(row.finished for row in rows if row.number > improved),
        )

    def enough(self, rule: StopEarly | None) -> str:
        """Why the search ends before its budget is spent; empty while it goes on."""
        if rule is None:
            return ""
        best, value = self.best, self.best.objective if self.best else None
        if best and value is not None and rule.objective is not None and value >= rule.objective:
            return f"trial {best.number} has objective {value:.4g}, budget.stopEarly asks for {rule.objective:g}"
        patience = rule.trials_without_improvement
        if patience is not None and self.idle >= patience:
            since = f"the best, trial {best.number} with objective {value:.4g}" if best else "the begin"
            return f"{self.idle} trials without improvement since {since}, budget.stopEarly asks for {patience}"
        return ""


def best_of(progress: Progress) -> BestTrial | None:
    best = progress.best
    return BestTrial(number=best.number, objective=best.objective) if best and best.objective is not None else None


def front_of(progress: Progress) -> tuple[FrontTrial, ...]:
    """The front as a status shows it: its ends, and of a long one an even choice between them."""
    rows = progress.front
    if len(rows) > FRONT_MAX:
        rows = tuple(rows[round(place * (len(rows) - 1) / (FRONT_MAX - 1))] for place in range(FRONT_MAX))
    return tuple(
        FrontTrial(
            number=row.number,
            objective=row.objective,
            max_drawdown=row.metrics.get("max_drawdown"),
            turnover=row.metrics.get("turnover"),
        )
        for row in rows
        if row.objective is not None
    )
