"""How a Study searches: what it wants, how trials are proposed and given up, when it ends, and what it starts from."""

from __future__ import annotations

import json
from typing import Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.meta import Model, Reference, validations


class Objective(Model):
    """What a trial is scored by. The metric is the objective: what `best`, ranking and pruning mean."""

    model_config = validations(
        (
            "self.alsoMinimize.all(m, self.alsoMinimize.exists_one(n, n == m))",
            "alsoMinimize has {self.alsoMinimize}: name each metric once",
        ),
    )

    metric: Literal["sharpe"] = Field(
        default="sharpe", description="Annualised Sharpe ratio out of sample, mean over the folds."
    )
    direction: Literal["maximize"] = Field(
        default="maximize", description="Direction of the search: a higher metric is better."
    )
    also_minimize: tuple[Literal["max_drawdown", "turnover"], ...] = Field(
        default=(),
        max_length=2,
        description="Further objectives: max_drawdown, the deepest of any fold; turnover, traded value over equity a year, "
        "mean over the folds. The search is then for the Pareto front, and only trials on it become candidates.",
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.also_minimize)) < len(self.also_minimize):
            raise ValueError(f"alsoMinimize has {json.dumps(self.also_minimize)}: name each metric once")
        return self


class Constraints(Model):
    """What a trial must keep to: one that does not is complete, teaches the sampler, and is never best nor a candidate."""

    max_drawdown: float | None = Field(
        default=None, gt=0, le=1, description="Largest drawdown in any fold, as a fraction; absent: any."
    )
    max_turnover: float | None = Field(
        default=None, gt=0, le=1e6, description="Largest traded value over equity a year, mean over the folds; absent: any."
    )

    def limits(self) -> dict[str, float]:
        """By the metric's name."""
        limits = {"max_drawdown": self.max_drawdown, "turnover": self.max_turnover}
        return {name: limit for name, limit in limits.items() if limit is not None}


class Sampler(Model):
    """How the next trial's parameters are chosen. Seeded by (study uid, trial number) beside `seed`."""

    type: Literal["tpe", "random"] = Field(default="tpe", description="tpe: tree-structured Parzen estimator; random: uniform.")
    seed: int = Field(default=0, ge=0, le=2**53, description="Seed of the search; another seed makes another search.")
    startup_trials: int = Field(default=10, ge=1, le=10_000, description="Random trials before the estimator is used.")


class Pruner(Model):
    """When a trial is stopped before its last fold."""

    type: Literal["none", "median", "asha"] = Field(
        default="median",
        description="median: stops a trial that is below the median of its peers at the same fold, for a few folds; "
        "asha: asynchronous successive halving, stops all but the best at each rung; none: stops nothing.",
    )
    startup_trials: int = Field(default=5, ge=1, le=10_000, description="Other trials at the same fold before one is pruned.")
    reduction_factor: int = Field(default=3, ge=2, le=10, description="With asha one trial in so many goes on at each rung.")
    min_folds: int = Field(
        default=1,
        ge=1,
        le=9,
        description="With asha the folds before the first rung; each later one is reductionFactor times as far.",
    )


class StopEarly(Model):
    """When a search ends before its budget is spent. Trials that run then are finished; a better one keeps the search going."""

    model_config = validations(
        (
            "has(self.trialsWithoutImprovement) || has(self.objective)",
            "stopEarly says when to stop and this one does not: set trialsWithoutImprovement or objective",
        ),
    )

    trials_without_improvement: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Finished trials after the best one (with alsoMinimize: the front's newest) that end the search.",
    )
    objective: float | None = Field(default=None, description="Objective that ends the search when a trial reaches it.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.trials_without_improvement is None and self.objective is None:
            raise ValueError("stopEarly says when to stop and this one does not: set trialsWithoutImprovement or objective")
        return self


class Budget(Model):
    """How much is searched. It may grow while the Study runs, never shrink."""

    trials: int = Field(default=20, ge=1, le=1_000_000, description="Trials in all; phases, if any, add up to it.")
    max_failed_trials: int = Field(default=10, ge=0, le=1_000_000, description="More than these and the Study fails.")
    stop_early: StopEarly | None = Field(default=None, description="When the search ends before; absent: it does not.")


class WarmStart(Model):
    """What is taken over from an earlier Study, which must have completed. Its trials count against every candidate of this one
    where both saw the same bars."""

    model_config = validations(
        (
            "self.best > 0 || self.history",
            "warmStart takes nothing from {self.studyRef.name}: set best above 0, or history to true",
        ),
    )

    study_ref: Reference = Field(description="The earlier Study. Its uid and its trials are pinned on the first pass.")
    best: int = Field(default=5, ge=0, le=1000, description="So many of its best trials are tried again first, where they fit.")
    history: bool = Field(
        default=False,
        description="Whether the sampler learns from all its trials that fit; only sensible on the same or very similar bars.",
    )
    study_uid: str | None = Field(default=None, max_length=64, description="Uid of that Study; filled in when it is pinned.")
    trials: int | None = Field(
        default=None, ge=1, le=1_000_000, description="How many trials it had; filled in when it is pinned."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.best == 0 and not self.history:
            raise ValueError(f"warmStart takes nothing from {self.study_ref.name}: set best above 0, or history to true")
        return self
