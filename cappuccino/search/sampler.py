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
    def should_prune(self, value: float, peers: Sequence[float]) -> bool:
        """Whether a trial whose newest report is `value` should stop. `peers` are the reports at the same step of trials that
        have finished, failed ones excepted."""
        ...


class NoPruner:
    def should_prune(self, value: float, peers: Sequence[float]) -> bool:  # noqa: ARG002
        return False


@dataclass(frozen=True, kw_only=True)
class MedianPruner:
    """Stops a trial whose value at its newest step is below the median of its peers'.

    A step is a fold, and its value the mean over the folds so far: one fold alone says more of the fold than of the
    trial. With fewer than `startup_trials` peers nothing is pruned. A tie goes on.
    """

    startup_trials: int = 5

    def should_prune(self, value: float, peers: Sequence[float]) -> bool:
        return len(peers) >= self.startup_trials and value < median(peers)
