"""What a search wants of a trial, and which of its trials may be chosen.

The objective, as high as it goes; beside it any number of metrics, as low as they go; and limits that some metrics must not
exceed. A trial over a limit is infeasible: it teaches the sampler, and is never chosen. With further metrics what may be
chosen is the Pareto front: the feasible trials that no other one equals or beats in everything (of trials equal in
everything the earliest). The best trial is the one of these with the highest objective, the earlier one when two are equal;
without further metrics that is simply the best feasible trial.

Metrics are those of a trial's record (evaluation/walkforward.py): max_drawdown, the deepest of any fold, as a fraction;
turnover, traded value over equity a year, mean over the folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf

from cappuccino.search.trials import TrialRow

Ranked = tuple[tuple[float, ...], int, TrialRow]  # losses, number, row: in this order they sort


@dataclass(frozen=True, kw_only=True)
class Goal:
    """`minimize`: names of the further metrics. `limits`: the most that a metric may be, by name."""

    minimize: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)

    def losses(self, row: TrialRow) -> tuple[float, ...] | None:
        """The objective, negated, and the further metrics: each better when lower. None for a trial that lacks one."""
        if row.state != "Complete" or row.objective is None or any(name not in row.metrics for name in self.minimize):
            return None
        return (-row.objective, *(row.metrics[name] for name in self.minimize))

    def excesses(self, row: TrialRow) -> dict[str, float] | None:
        """By how much each limited metric is above its limit; 0 and below keep it. None for a trial that lacks one."""
        if row.state != "Complete" or any(name not in row.metrics for name in self.limits):
            return None
        return {name: row.metrics[name] - limit for name, limit in self.limits.items()}

    def breach(self, metrics: Mapping[str, float]) -> str:
        """Which limits are not kept, as a sentence; empty when all are. A metric that is not known does not keep its limit."""
        return "; ".join(
            f"{name} {metrics[name]:.4g} is above its limit {limit:g}" if name in metrics else f"{name} is not known"
            for name, limit in self.limits.items()
            if metrics.get(name, inf) > limit
        )

    def best(self, rows: Iterable[TrialRow]) -> TrialRow | None:
        """The first of `chosen`, without the order of the others."""
        return min(self._feasible(rows), default=(None, None, None))[2]

    def chosen(self, rows: Iterable[TrialRow], *, at_most: int | None = None) -> tuple[TrialRow, ...]:
        """The trials that may be chosen, best first. `rows` in any order."""
        feasible = self._feasible(rows)
        if self.minimize:
            ranked = _front(sorted(feasible))[:at_most]
        else:
            ranked = sorted(feasible) if at_most is None else nsmallest(at_most, feasible)
        return tuple(row for _, _, row in ranked)

    def _feasible(self, rows: Iterable[TrialRow]) -> Iterator[Ranked]:
        for row in rows:
            losses = self.losses(row)
            if losses and not (self.limits and self.breach(row.metrics)):
                yield losses, row.number, row


def _front(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Of trials in the order of their losses those that none before equals or beats in everything: none after could."""
    front: list[Ranked] = []
    for mine in ranked:
        if not any(all(a <= b for a, b in zip(other[0], mine[0], strict=True)) for other in front):
            front.append(mine)
    return front
