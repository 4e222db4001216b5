"""How much of what is attainable a trained policy reaches, and how well that is known.

Score = (policy - cash) / (optimum - cash) in mean log growth a bar, where cash is 0. Never Sharpe: it rewards trading little.
All on the same fresh paths. Two things vary: the training (seed, and with it the training path), and the paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from tests.learning.execution import Result

BPS = 1e4


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over n values with its two-sided 95 % limits by Student's t; none from a single value."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean=mean, low=math.nan, high=math.nan)
        reach = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1)) / math.sqrt(len(values))
        return cls(mean=mean, low=mean - reach, high=mean + reach)

    def text(self, digits: int) -> str:
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def scores(policies: Sequence[Result], optimum: Result) -> list[float]:
    """One per trained policy."""
    return [float(policy.growth.mean() / optimum.growth.mean()) for policy in policies]


def error_of_paths(policies: Sequence[Result], optimum: Result) -> float:
    """Standard error of the mean score that comes from these being only so many paths: of a ratio of means (delta method)."""
    ours: npt.NDArray[np.float64] = np.mean([policy.growth for policy in policies], axis=0)
    ratio = ours.mean() / optimum.growth.mean()
    left = ours - ratio * optimum.growth
    return float(left.std(ddof=1) / math.sqrt(len(left)) / optimum.growth.mean())
