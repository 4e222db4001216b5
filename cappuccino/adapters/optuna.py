"""Optuna as a sampler: a study in memory, rebuilt from the trial table for every proposal. Optuna stores nothing for us.

Source: multivariate tree-structured Parzen estimator with constant liar for running trials (optuna.samplers.TPESampler).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cappuccino.search.space import Choices, Dimension, FloatRange, Space, fits, text_of, to_wire, value_of
from cappuccino.search.trials import TrialRow

_STATES = {
    "Waiting": TrialState.RUNNING,
    "Running": TrialState.RUNNING,
    "Complete": TrialState.COMPLETE,
    "Pruned": TrialState.PRUNED,
}
_SEED_MODULUS = 2**32  # of NumPy's generator


@dataclass(frozen=True, kw_only=True)
class OptunaSampler:
    """Random until `startup_trials` are complete, then TPE; or random for good."""

    type: Literal["tpe", "random"] = "tpe"
    startup_trials: int = 10

    def sample(self, history: Sequence[TrialRow], space: Space, seed: int) -> dict[str, str]:
        if not space:
            return {}
        distributions = {name: _distribution(dimension) for name, dimension in sorted(space.items())}
        logging.getLogger("optuna").setLevel(logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=self._sampler(seed % _SEED_MODULUS))
        if self.type == "tpe":
            study.add_trials([_frozen(row, space, distributions) for row in _comparable(history, space)])
        trial = study.ask(fixed_distributions=distributions)
        return {name: text_of(trial.params[name]) for name in distributions}

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self.type == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self.startup_trials
        )


def _comparable(history: Sequence[TrialRow], space: Space) -> list[TrialRow]:
    """Rows drawn from this very space, in the order of their numbers; failed ones taught nothing."""
    wire = to_wire(space)
    rows = (row for row in history if dict(row.distributions) == wire and fits(space, row.parameters))
    return sorted(
        (row for row in rows if row.state in _STATES and not (row.state == "Complete" and row.objective is None)),
        key=lambda row: row.number,
    )


def _frozen(row: TrialRow, space: Space, distributions: dict[str, BaseDistribution]) -> Any:
    state = _STATES[row.state]
    return optuna.trial.create_trial(
        state=state,
        params={name: value_of(dimension, row.parameters[name]) for name, dimension in space.items()},
        distributions=distributions,
        value=row.objective if state is TrialState.COMPLETE else None,
        intermediate_values=dict(row.reports),
    )


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.options)
    if isinstance(dimension, FloatRange):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
