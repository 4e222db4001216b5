"""The ports of a search: what proposes the next trial, and what gives up on one that runs.

Both are functions of the record alone. A proposal that was lost in a crash is made again, the same, from the same rows and
the same seed, which the caller derives from (study uid, number).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Protocol

from cappuccino.search.space import Space
from cappuccino.search.trials import TrialRow


class Sampler(Protocol):
    def sample(self, history: Sequence[TrialRow], space: Space, seed: int) -> dict[str, str]:
        """One value per dimension of `space`, as text. Deterministic. May take a while: call it in a thread.

        Rows of another space (an earlier phase) teach nothing; those that still run are expected to be bad, so that
        proposals made at the same time differ.
        """
        ...


class Pruner(Protocol):
    def should_prune(self, history: Sequence[TrialRow], number: int, step: int) -> bool:
        """Whether trial `number`, which has reported up to `step`, should stop."""
        ...


class NoPruner:
    def should_prune(self, history: Sequence[TrialRow], number: int, step: int) -> bool:  # noqa: ARG002
        return False


@dataclass(frozen=True, kw_only=True)
class MedianPruner:
    """Stops a trial whose mean over its steps so far is below the median of the others' means over the same steps.

    Means, because a step is a fold: its value says more of the fold than of the trial, so that neither the best nor
    the newest one is a fair measure. The others are finished trials (failed ones excepted) that reported all those steps;
    with fewer than `startup_trials` of them nothing is pruned. A tie goes on.
    """

    startup_trials: int = 5

    def should_prune(self, history: Sequence[TrialRow], number: int, step: int) -> bool:
        own = next((row for row in history if row.number == number), None)
        steps = sorted(s for s in own.reports if s <= step) if own else []
        if own is None or not steps:
            return False
        others = [
            fmean(row.reports[s] for s in steps)
            for row in history
            if row.number != number and row.state in ("Complete", "Pruned") and all(s in row.reports for s in steps)
        ]
        return len(others) >= self.startup_trials and fmean(own.reports[s] for s in steps) < median(others)
