"""The ports of a search: what proposes the next trial, and what gives up on one that runs.

Both are functions of the record alone. A proposal that was lost in a crash is made again, the same, from the same rows and
the same seed, which the caller derives from (study uid, number).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
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
    """Stops a trial whose value at its newest step is below the median of the others' at the same step.

    A step is a fold, and its value the mean over the folds so far: one fold alone says more of the fold than of the
    trial. The others are finished trials (failed ones excepted) that reported that step; with fewer than
    `startup_trials` of them nothing is pruned. A tie goes on.
    """

    startup_trials: int = 5

    def should_prune(self, history: Sequence[TrialRow], number: int, step: int) -> bool:
        own = next((row for row in history if row.number == number), None)
        if own is None or step not in own.reports:
            return False
        others = [
            row.reports[step]
            for row in history
            if row.number != number and row.state in ("Complete", "Pruned") and step in row.reports
        ]
        return len(others) >= self.startup_trials and own.reports[step] < median(others)
