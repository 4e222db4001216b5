"""Optuna as a sampler: a study in memory, made from the trial table for every proposal. Optuna stores nothing for us.

What a proposal costs is bounded: of a long history it sees the best trials and the newest ones, which is a function of the
record alone, so that any process proposes the same.

Source: tree-structured Parzen estimator with constant liar for running trials (optuna.samplers.TPESampler), multivariate for
one objective. Of several it ranks trials by non-domination and hypervolume; those that break a limit come behind all others,
the least excess first. It is preferred to NSGA-II because a budget here is tens of trials, less than a few generations, and
because it is a function of the trials alone: a genetic sampler also needs to know which generation each was born in.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from cappuccino.search.goal import Goal
from cappuccino.search.space import Choices, Dimension, FloatRange, Space, text_of, to_wire, values_of
from cappuccino.search.trials import TrialRow

_STATES = {
    "Waiting": TrialState.RUNNING,
    "Running": TrialState.RUNNING,
    "Complete": TrialState.COMPLETE,
    "Pruned": TrialState.PRUNED,
}
_SEED_MODULUS = 2**32  # of NumPy's generator
_NEWEST = 500  # trials that are always seen
_BEST = 25  # and as many of the older ones as the estimator ever calls good (default_gamma of its source)


@dataclass(frozen=True, kw_only=True)
class OptunaSampler:
    """Random until `startup_trials` are complete, then TPE; or random for good."""

    type: Literal["tpe", "random"] = "tpe"
    startup_trials: int = 10
    goal: Goal = field(default_factory=Goal)

    def sample(self, history: Sequence[TrialRow], space: Space, seed: int) -> dict[str, str]:
        if not space:
            return {}
        distributions = {name: _distribution(dimension) for name, dimension in sorted(space.items())}
        logging.getLogger("optuna").setLevel(logging.WARNING)
        past = _past(history, space, distributions, self.goal) if self.type == "tpe" else []
        study = optuna.create_study(
            directions=["minimize"] * (1 + len(self.goal.minimize)),
            sampler=self._sampler(seed % _SEED_MODULUS),
            storage=_Past(past),
        )
        trial = study.ask(fixed_distributions=distributions)
        return {name: text_of(trial.params[name]) for name in distributions}

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self.type == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=self.startup_trials)


class _Past(InMemoryStorage):
    """Shows `past` without copying it, which is most of what Optuna's own storage does. The trial that is asked for is kept
    apart from it and has number 0; those of `past` count from 1."""

    def __init__(self, past: list[FrozenTrial]) -> None:
        super().__init__()
        self._past = past

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._past if states is None or trial.state in states]


def _past(
    history: Sequence[TrialRow], space: Space, distributions: dict[str, BaseDistribution], goal: Goal
) -> list[FrozenTrial]:
    """What there is to learn from, in the order of the numbers."""
    trials: list[FrozenTrial] = []
    for row in _learnt(history, space, goal):
        if (params := values_of(space, row.parameters)) is not None:
            trials.append(_frozen(len(trials) + 1, row, params, distributions, goal))
    return trials


def _learnt(history: Sequence[TrialRow], space: Space, goal: Goal) -> list[TrialRow]:
    """Rows drawn from this very space, failed ones excepted; of many the best and the newest."""
    wire = to_wire(space)
    same: dict[int, bool] = {}  # by identity: rows of one phase share their distributions
    rows = []
    for row in history:
        drawn = row.distributions
        if id(drawn) not in same:
            same[id(drawn)] = dict(drawn) == wire
        if same[id(drawn)] and row.state in _STATES and not (row.state == "Complete" and not _told(row, goal)):
            rows.append(row)
    rows.sort(key=lambda row: row.number)
    best = goal.chosen(rows[:-_NEWEST], at_most=_BEST)
    return sorted(best, key=lambda row: row.number) + rows[-_NEWEST:]


def _told(row: TrialRow, goal: Goal) -> bool:
    """Whether a complete trial has all that the goal speaks of."""
    return goal.losses(row) is not None and goal.excesses(row) is not None


def _frozen(
    number: int, row: TrialRow, params: dict[str, Any], distributions: dict[str, BaseDistribution], goal: Goal
) -> FrozenTrial:
    """Without its reports: a pruned trial is worse than every complete one, whatever it reported."""
    trial = FrozenTrial(
        number=number,
        trial_id=number,
        state=_STATES[row.state],
        value=None,
        values=goal.losses(row),
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
    for name, excess in (goal.excesses(row) or {}).items():
        trial.set_constraint(name, excess)
    return trial


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.options)
    if isinstance(dimension, FloatRange):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
