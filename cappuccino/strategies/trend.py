"""Trend: a rule with thresholds on one feature, or on the difference of two.

Per symbol, with the newest row of features:

    signal = direction x (feature - minus)      direction +1 follows the trend, -1 fades it
    signal > enter   ->  hold `size` of the largest weight
    signal < exit    ->  hold nothing
    otherwise        ->  leave what is there    (exit <= enter: the gap between them prevents churning)

Thresholds have the feature's own unit. Parameters are text, as a Trial has them; a feature's periods
are `feature_<period>` and `minus_<period>`, the catalogue's defaults where absent:
{"feature": "return", "feature_bars": "24", "enter": "0.02", "exit": "0"}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cappuccino.core.errors import InvalidInput
from cappuccino.market.features import spec_of
from cappuccino.market.spec import FeatureSpec
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.actions import targets_of, traced
from cappuccino.strategies.interface import Contract, Decision, Json, View

_RANGES: Mapping[str, tuple[float, float]] = {
    "direction": (-1, 1),
    "enter": (-1000, 1000),
    "exit": (-1000, 1000),
    "size": (0.01, 1),
}
_FEATURES = ("feature", "minus")
_PERIOD_RANGE = (0.0, 10_000.0)


@dataclass(frozen=True, kw_only=True)
class TrendParameters:
    """`size` is the action on entry, a fraction of the largest weight. Thresholds have the feature's unit."""

    feature: FeatureSpec
    minus: FeatureSpec | None = None
    direction: int = 1
    enter: float
    exit: float
    size: float = 1.0

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """The features that the rule reads."""
        return (self.feature,) if self.minus is None else (self.feature, self.minus)

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> TrendParameters:
        """Parameters from text values.

        Raises:
            InvalidInput: an unknown name, a missing one, a value out of its range, a feature the catalogue lacks.
        """
        numbers: dict[str, float] = {}
        periods: dict[str, dict[str, float]] = {name: {} for name in _FEATURES}
        for name, text in values.items():
            owner, _, period = name.partition("_")
            if name in _RANGES:
                numbers[name] = _number(name, text, *_RANGES[name])
            elif owner in _FEATURES and period:
                periods[owner][period] = _number(name, text, *_PERIOD_RANGE)
            elif name not in _FEATURES:
                known = ", ".join((*_FEATURES, "feature_<period>", "minus_<period>", *_RANGES))
                raise InvalidInput(f"trend parameter {name!r} is unknown: use {known}")
        missing = [name for name in ("feature", "enter", "exit") if not values.get(name)]
        if missing:
            raise InvalidInput(f"trend parameter {missing[0]} is missing: give it, fixed or in the search space")
        if not values.get("minus") and periods["minus"]:
            raise InvalidInput(f"trend parameter minus_{min(periods['minus'])} is given without minus: name the feature")
        if numbers["exit"] > numbers["enter"]:
            raise InvalidInput(f"trend parameter exit {numbers['exit']:g} is above enter {numbers['enter']:g}: lower it")
        if numbers.get("direction", 1) not in (-1, 1):
            raise InvalidInput(f"trend parameter direction {values['direction']!r} is neither 1 (trend) nor -1 (reversion)")
        return cls(
            feature=spec_of(values["feature"], periods["feature"]),
            minus=spec_of(values["minus"], periods["minus"]) if values.get("minus") else None,
            direction=int(numbers.get("direction", 1)),
            enter=numbers["enter"],
            exit=numbers["exit"],
            size=numbers.get("size", 1.0),
        )

    def to_values(self) -> dict[str, str]:
        """The text form; `parse` gives back the same parameters."""
        values = {"direction": str(self.direction)} | {k: repr(float(getattr(self, k))) for k in ("enter", "exit", "size")}
        for owner, spec in (("feature", self.feature), ("minus", self.minus)):
            if spec is not None:
                values[owner] = spec.name
                values |= {f"{owner}_{name}": repr(value) for name, value in spec.params}
        return values


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Keeps no memory.

    Raises:
        InvalidInput: the contract lacks a feature that the rule reads.
    """

    contract: Contract
    parameters: TrendParameters
    sizing: Sizing

    def __post_init__(self) -> None:
        for spec in self.parameters.specs:
            self._column(spec)

    def _column(self, spec: FeatureSpec) -> int:
        if spec in self.contract.features:
            return self.contract.features.index(spec)
        known = ", ".join(feature.label for feature in self.contract.features) or "none"
        raise InvalidInput(f"trend reads feature {spec.label}, which the contract lacks (it has {known}): add it")

    def decide(self, view: View, memory: Json) -> Decision:
        """Enter, leave or keep, per symbol; a signal that is not a number keeps."""
        rule = self.parameters
        newest = view.features[:, -1, :]
        signal = newest[:, self._column(rule.feature)]
        if rule.minus is not None:
            signal = signal - newest[:, self._column(rule.minus)]
        signal = rule.direction * signal
        action = np.where(signal > rule.enter, rule.size, np.where(signal < rule.exit, -1.0, 0.0))
        return Decision(
            intents=targets_of(action, self.contract.symbols, self.sizing),
            memory=memory,
            trace={"signal": traced(signal), "action": traced(action)},
        )


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InvalidInput(f"trend parameter {name} is {text!r}: give a number from {low:g} to {high:g}")
    return value
