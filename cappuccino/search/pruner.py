"""What gives up on a trial that still runs: a function of the record alone.

A step is a fold, and its value the mean over the folds so far: one fold alone says more of the fold than of the trial. At
one step all trials have been judged on the same bars, so that their values compare.

Sources: the median rule of Golovin and others (2017), "Google Vizier: a service for black-box optimization", section 3;
asynchronous successive halving, in the form that stops trials instead of promoting them, of Li and others (2020), "A system for
massively parallel hyperparameter tuning".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from cappuccino.search.trials import TrialState


class Pruner(Protocol):
    @property
    def peers(self) -> tuple[TrialState, ...]:
        """States of the trials that a running one is compared with; failed ones have no value that counts."""
        ...

    def step(self, reports: Mapping[int, float]) -> int | None:
        """At which step a trial with these reports is judged; None: not yet."""
        ...

    def verdict(self, step: int, value: float, peers: Sequence[float]) -> str:
        """Why a trial with `value` at `step` should stop; empty: it goes on. `peers`: the values of others at that step."""
        ...


@dataclass(frozen=True, kw_only=True)
class NoPruner:
    peers: tuple[TrialState, ...] = ()

    def step(self, reports: Mapping[int, float]) -> int | None:  # noqa: ARG002
        return None

    def verdict(self, step: int, value: float, peers: Sequence[float]) -> str:  # noqa: ARG002
        return ""


@dataclass(frozen=True, kw_only=True)
class MedianPruner:
    """Stops a trial whose value at its newest step is below the median of the finished ones'. With fewer than
    `startup_trials` of them nothing is pruned. A tie goes on."""

    startup_trials: int = 5
    peers: tuple[TrialState, ...] = ("Complete", "Pruned")

    def step(self, reports: Mapping[int, float]) -> int | None:
        return max(reports, default=None)

    def verdict(self, step: int, value: float, peers: Sequence[float]) -> str:
        if len(peers) < self.startup_trials or value >= median(peers):
            return ""
        return f"value {value:.4g} at step {step} is below the median {median(peers):.4g} of {len(peers)} others"


@dataclass(frozen=True, kw_only=True)
class AshaPruner:
    """Lets a trial past a rung when it is among the best 1 in `reduction_factor` of those that came to it, itself included, or
    the best of fewer; a tie goes on.

    Rungs are after min_folds, min_folds x reduction_factor, ... folds. Trials that still run count as peers: nobody waits for a
    rung to fill, and a trial that falls out of the best while it runs to the next rung is stopped then. With fewer than
    `startup_trials` others at the rung nothing is pruned.
    """

    reduction_factor: int = 3
    min_folds: int = 1
    startup_trials: int = 5
    peers: tuple[TrialState, ...] = ("Running", "Complete", "Pruned")

    def step(self, reports: Mapping[int, float]) -> int | None:
        done, folds, rung = max(reports, default=-1) + 1, self.min_folds, None
        while folds <= done:
            rung, folds = folds - 1, folds * self.reduction_factor
        return rung

    def verdict(self, step: int, value: float, peers: Sequence[float]) -> str:
        keep = max(1, (len(peers) + 1) // self.reduction_factor)
        better = sum(peer > value for peer in peers)
        if len(peers) < self.startup_trials or better < keep:
            return ""
        return f"value {value:.4g} at step {step} is number {better + 1} of {len(peers) + 1}: the best {keep} go on"
