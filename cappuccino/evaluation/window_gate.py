"""The control: one test on the gate window that nobody has looked at.

Two one-sided bootstrap tests, mean log return > 0 and alpha over HODL > 0. Both must hold, so a candidate's p is the
larger of the two and needs no correction between them. Holm over the candidates opened together (at most three); the level is
alpha divided by the openings of the window so far, this one included.

The rule, first match wins:
1. the facts cannot be used: Error. 2. nothing was traded: Fail, not statistical.
3. too few trades or too little exposure: Inconclusive, whatever p says. 4. p <= level: Pass.
5. growth or alpha is not above 0: Fail. 6. the bootstrap has too few samples for the level: Inconclusive.
7. the bars were enough to show the claimed Sharpe with 80 % power: Fail. 8. else Inconclusive: underpowered.

Every message has the minimum detectable Sharpe. Units: Sharpe, growth and alpha annualised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import bootstrap, metrics, overfitting
from cappuccino.evaluation.evidence import Evidence, Outcome, evidence

MAX_CANDIDATES = 3
POWER = 0.8


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowFacts:
    """One candidate on the untouched gate window: simple returns [T], HODL's over the same bars, what it traded.

    `claimed_sharpe` is its walk-forward objective, what the window is asked to confirm.
    """

    returns: npt.NDArray[np.float64]
    hodl: npt.NDArray[np.float64]
    closed_trades: int
    exposure: float
    bars_per_year: float
    claimed_sharpe: float | None


@dataclass(frozen=True, kw_only=True)
class WindowThresholds:
    alpha: float = 0.025
    bootstrap_samples: int = 2000
    block_hours: float = 24.0
    min_closed_trades: int = 20
    min_exposure: float = 0.05


@dataclass(frozen=True, kw_only=True)
class WindowMeasure:
    """A candidate's tests before Holm, plain enough to store and to hand to another process.

    `mean` and `alpha` are None when `problem` (unusable facts) or `idle` (nothing was risked) is set.
    """

    n_bars: int
    bars_per_year: float
    closed_trades: int
    exposure: float
    claimed_sharpe: float | None
    sharpe: float | None = None
    sharpe_se: float | None = None
    mean: bootstrap.Tested | None = None
    alpha: bootstrap.Tested | None = None
    problem: str = ""
    idle: str = ""

    @property
    def p(self) -> float:
        """Both must hold: the larger p. 1 when nothing could be tested."""
        return max(self.mean.p, self.alpha.p) if self.mean and self.alpha else 1.0

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WindowMeasure:
        """The inverse of `dataclasses.asdict`."""
        tests = {key: bootstrap.Tested(**document[key]) if document[key] else None for key in ("mean", "alpha")}
        return cls(**{**document, **tests})


def measure_window(facts: WindowFacts, thresholds: WindowThresholds, *, seed: int) -> WindowMeasure:
    """Run both bootstrap tests of one candidate. This opens the window: record the opening first."""
    base: dict[str, Any] = {
        "n_bars": len(facts.returns),
        "bars_per_year": facts.bars_per_year,
        "closed_trades": facts.closed_trades,
        "exposure": facts.exposure,
        "claimed_sharpe": facts.claimed_sharpe,
    }
    if len(facts.returns) != len(facts.hodl):
        return WindowMeasure(**base, problem=f"{len(facts.returns)} returns against {len(facts.hodl)} of HODL")
    if not (np.isfinite(facts.returns).all() and np.isfinite(facts.hodl).all() and (facts.returns > -1).all()):
        return WindowMeasure(**base, problem="a return is not finite, or loses everything")
    if facts.closed_trades == 0 or len(facts.returns) < 2 or float(facts.returns.std()) <= 1e-12:
        return WindowMeasure(**base, idle=f"{facts.closed_trades} closed trades and no variance to speak of")
    block = bootstrap.block_bars(thresholds.block_hours, facts.bars_per_year)
    how: dict[str, Any] = {"block": block, "samples": thresholds.bootstrap_samples, "seed": seed, "level": thresholds.alpha}
    try:
        mean = bootstrap.mean_above_zero(np.log1p(facts.returns), **how)
        alpha = bootstrap.alpha_above_zero(facts.returns, facts.hodl, **how)
    except InvalidInput as error:  # HODL without variance, or a window too short for its blocks
        return WindowMeasure(**base, problem=str(error))
    return WindowMeasure(
        **base,
        sharpe=metrics.sharpe(facts.returns, facts.bars_per_year),
        sharpe_se=metrics.sharpe_standard_error(facts.returns, facts.bars_per_year),
        mean=mean,
        alpha=alpha,
    )


def judge_window(measures: Sequence[WindowMeasure], thresholds: WindowThresholds, *, openings: int) -> tuple[Evidence, ...]:
    """Judge the candidates that were opened together; one evidence each, in order.

    Args:
        openings: how often this window has been opened, this time included; candidates of one call are one opening.

    Raises:
        InvalidInput: more than three candidates, or openings below 1.
    """
    if not 1 <= len(measures) <= MAX_CANDIDATES or openings < 1:
        raise InvalidInput(
            f"{len(measures)} candidates at opening {openings}: the window takes 1 to {MAX_CANDIDATES} at a time,"
            " and openings count from 1"
        )
    level = thresholds.alpha / openings
    adjusted = overfitting.holm([measure.p for measure in measures])
    return tuple(
        _judge(measure, p, level, len(measures), openings, thresholds) for measure, p in zip(measures, adjusted, strict=True)
    )


def _judge(
    measure: WindowMeasure, p: float, level: float, family: int, openings: int, thresholds: WindowThresholds
) -> Evidence:
    def say(outcome: Outcome, message: str, *, statistical: bool = True, measured: float | None = p) -> Evidence:
        text = f"{message}; {measure.n_bars} bars detect a Sharpe of {critical:.1f} ({powered:.1f} with {POWER:.0%} power)."
        return evidence("window", outcome, measured, level, critical, text, detail | {"statistical": statistical})

    n, year = max(measure.n_bars, 1), measure.bars_per_year
    critical = metrics.minimum_detectable_sharpe(n, year, alpha=level / family)
    powered = metrics.minimum_detectable_sharpe(n, year, alpha=level / family, power=POWER)
    detail: dict[str, Any] = {
        "n_bars": measure.n_bars,
        "closed_trades": measure.closed_trades,
        "exposure": measure.exposure,
        "claimed_sharpe": measure.claimed_sharpe,
        "openings": openings,
        "family": family,
        "minimum_detectable_at_80": powered,
    }
    if measure.problem:
        return say(Outcome.ERROR, f"the gate window could not be tested: {measure.problem}", statistical=False, measured=None)
    if measure.idle or measure.mean is None or measure.alpha is None or measure.sharpe is None:
        return say(Outcome.FAIL, f"nothing was risked in the gate window: {measure.idle}", statistical=False, measured=None)
    growth, alpha = measure.mean.estimate * year, measure.alpha.estimate * year
    detail |= {
        "sharpe": measure.sharpe,
        "sharpe_se": measure.sharpe_se,
        "mean_log_growth": growth,
        "alpha": alpha,
        "p_mean": measure.mean.p,
        "p_alpha": measure.alpha.p,
        "p_holm": p,
    }
    found = f"Sharpe {measure.sharpe:.1f}, alpha {alpha:+.0%} a year, p {p:.4f} against {level:.4f}"
    if measure.closed_trades < thresholds.min_closed_trades or measure.exposure < thresholds.min_exposure:
        return say(
            Outcome.INCONCLUSIVE,
            f"too little to judge: {measure.closed_trades} closed trades ({thresholds.min_closed_trades} asked),"
            f" exposure {measure.exposure:.1%} ({thresholds.min_exposure:.0%} asked)",
        )
    if p <= level:
        return say(Outcome.PASS, f"growth and alpha are above 0: {found}")
    if growth <= 0 or alpha <= 0:
        return say(Outcome.FAIL, f"{'growth' if growth <= 0 else 'alpha'} is not above 0: {found}")
    samples = measure.mean.samples
    if family / (samples + 1) > level:
        return say(Outcome.INCONCLUSIVE, f"{samples} samples cannot reach the level; take {math.ceil(family / level)}: {found}")
    if measure.claimed_sharpe is not None and measure.claimed_sharpe >= powered:
        return say(Outcome.FAIL, f"the claimed Sharpe {measure.claimed_sharpe:.1f} would have shown and did not: {found}")
    return say(Outcome.INCONCLUSIVE, f"not significant, and the window is too short to rule an edge out: {found}")
