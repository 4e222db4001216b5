"""The gates before trading: facts in, evidence out. Pure; every threshold is an argument.

The seven checkpoints of the earlier system map to `integrity` (training complete, model files, identity, record,
manifest, content), `backtest` (scores net of costs) and, in `paper_gates`, `soak` (live health) and `grade` (promotion).
`overfitting_dsr`, `overfitting_pbo` and the test of `window_gate` keep luck out.

When is a statistical gate Fail and when Inconclusive? It passes only on significance. Short of that it is Fail when the
estimate lies on the wrong side (DSR below one half: luck alone was expected to do better; growth or alpha not above 0),
or when the bars would have shown what the candidate claims and did not; else it is Inconclusive, and says what it could
have detected. Either way nothing is promoted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import metrics, overfitting
from cappuccino.evaluation.evidence import Evidence, Outcome, evidence

VALUE_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class ArtifactFact:
    """One file of a bundle. `expected_bytes` follows from the declared architecture; None where nothing declares it.

    `verified` says that its digest is the manifest's; a size may differ from the expected one by `tolerance` (headers).
    """

    name: str
    expected_bytes: int | None
    actual_bytes: int | None
    verified: bool
    tolerance: float = 0.25

    @property
    def fits(self) -> bool:
        if self.expected_bytes is None or self.actual_bytes is None:
            return True
        return abs(self.actual_bytes - self.expected_bytes) <= self.tolerance * self.expected_bytes


@dataclass(frozen=True, kw_only=True)
class IntegrityFacts:
    """What was found of a trial and its bundle.

    identity_matches: records under (study uid, number); exactly one is right.
    contract_mismatches: what in the feature contract does not fit the data, a phrase each.
    members, expected_members: bundles of an ensemble found and named; both 0 otherwise.
    unreadable: what could not be looked at; anything here makes the gate an Error, not a Fail.
    """

    study_uid: str
    number: int
    training_state: str
    artifacts: tuple[ArtifactFact, ...]
    identity_matches: int
    recorded_number: int | None
    recorded_value: float | None
    stored_value: float | None
    contract_mismatches: tuple[str, ...] = ()
    members: int = 0
    expected_members: int = 0
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BacktestFacts:
    """The walk-forward result: annualised mean Sharpe over folds, mean exposure, trades of all folds, worst drawdown."""

    objective: float | None
    fold_sharpes: tuple[float, ...]
    exposure: float
    closed_trades: int
    max_drawdown: float
    n_bars: int
    bars_per_year: float


@dataclass(frozen=True, kw_only=True)
class BacktestThresholds:
    min_sharpe: float = 0.0
    min_exposure: float = 0.05
    min_closed_trades: int = 20
    max_drawdown: float = 0.5
    alpha: float = 0.05  # of the minimum detectable Sharpe that is printed


def integrity(facts: IntegrityFacts) -> Evidence:
    """Is the candidate what its record says it is? measured: findings, threshold: 0."""
    findings = list(_integrity_findings(facts))
    who = f"trial {facts.number} of study {facts.study_uid}"
    if facts.unreadable:
        outcome, message = Outcome.ERROR, f"{who} could not be checked: {'; '.join(facts.unreadable)}."
    elif findings:
        outcome, message = Outcome.FAIL, f"{who} is not intact: {'; '.join(findings)}."
    else:
        outcome = Outcome.PASS
        message = f"{who} is intact: {len(facts.artifacts)} files verified, value {facts.stored_value:g} as recorded."
    detail = {"findings": findings, "unreadable": list(facts.unreadable), "statistical": False}
    return evidence("integrity", outcome, float(len(findings)), 0.0, None, message, detail)


def backtest(facts: BacktestFacts, thresholds: BacktestThresholds) -> Evidence:
    """Does the walk-forward result clear the bar? measured: objective, threshold: min_sharpe.

    Falling short on the objective alone is statistical; on exposure, trades or drawdown it is not.
    """
    detectable = metrics.minimum_detectable_sharpe(facts.n_bars, facts.bars_per_year, alpha=thresholds.alpha)
    detail: dict[str, Any] = {
        "fold_sharpes": list(facts.fold_sharpes),
        "exposure": facts.exposure,
        "closed_trades": facts.closed_trades,
        "max_drawdown": facts.max_drawdown,
        "n_bars": facts.n_bars,
        "statistical": False,
    }
    values = (facts.objective, *facts.fold_sharpes, facts.exposure, facts.max_drawdown)
    if facts.objective is None or not all(value is not None and math.isfinite(value) for value in values):
        message = f"the walk-forward result has no finite objective ({facts.objective}): the trial must be run again."
        return evidence("backtest", Outcome.ERROR, None, thresholds.min_sharpe, detectable, message, {"statistical": False})
    behaviour = []
    if facts.closed_trades < thresholds.min_closed_trades:
        behaviour.append(f"{facts.closed_trades} closed trades (at least {thresholds.min_closed_trades})")
    if facts.exposure < thresholds.min_exposure:
        behaviour.append(f"exposure {facts.exposure:.1%} (at least {thresholds.min_exposure:.0%})")
    if facts.max_drawdown > thresholds.max_drawdown:
        behaviour.append(f"drawdown {facts.max_drawdown:.1%} (at most {thresholds.max_drawdown:.0%})")
    weak = facts.objective < thresholds.min_sharpe
    asked = f"Sharpe {facts.objective:.2f} (at least {thresholds.min_sharpe:g}; detectable {detectable:.1f})"
    detail |= {"failed": behaviour + ([asked] if weak else []), "statistical": weak and not behaviour}
    if detail["failed"]:
        outcome, message = Outcome.FAIL, f"walk-forward falls short: {'; '.join(detail['failed'])}."
    else:
        outcome = Outcome.PASS
        message = f"walk-forward {asked}, {facts.closed_trades} trades, exposure {facts.exposure:.1%}."
    return evidence("backtest", outcome, facts.objective, thresholds.min_sharpe, detectable, message, detail)


def overfitting_dsr(
    returns: npt.NDArray[np.float64], trial_sharpes: Sequence[float], bars_per_year: float, *, min_dsr: float = 0.95
) -> Evidence:
    """Is the Sharpe more than the best of so many worthless trials would show? measured: DSR (PSR for one trial).

    Args:
        returns: [T] the candidate's walk-forward test returns, folds one after another.
        trial_sharpes: annualised, of every trial with an out-of-sample value on overlapping bars, its own included.
    """
    root = math.sqrt(bars_per_year)
    try:
        m = metrics.moments(returns)
        deflated = overfitting.deflated_sharpe(m, [value / root for value in trial_sharpes])
    except InvalidInput as error:
        return evidence("overfitting_dsr", Outcome.ERROR, None, min_dsr, None, f"{error}.", {"statistical": False})
    needed = (deflated.hurdle + metrics.NORMAL.inv_cdf(min_dsr) * metrics.per_bar_standard_error(m)) * root
    name = "PSR" if deflated.trials == 1 else f"DSR over {deflated.trials} trials"
    outcome = Outcome.PASS if deflated.probability >= min_dsr else Outcome.FAIL
    if outcome is Outcome.FAIL and deflated.probability >= 0.5:
        outcome = Outcome.INCONCLUSIVE
    message = (
        f"{name} is {deflated.probability:.3f} ({min_dsr:g} asked): Sharpe {m.sharpe_per_bar * root:.2f} against"
        f" {deflated.hurdle * root:.2f} expected of luck; {needed:.2f} would do on these {m.n} bars."
    )
    detail = {
        "statistical": True,
        "sharpe": m.sharpe_per_bar * root,
        "hurdle": deflated.hurdle * root,
        "trials": deflated.trials,
        "n_bars": m.n,
        "skew": m.skew,
        "kurtosis": m.kurtosis,
    }
    return evidence("overfitting_dsr", outcome, deflated.probability, min_dsr, needed, message, detail)


def overfitting_pbo(returns: npt.NDArray[np.float64], *, max_pbo: float = 0.2) -> Evidence:
    """How often does the in-sample winner of the search disappoint? `returns` [T, N] of all N trials on the same bars.

    Below 16 trials the figure is shown if it can be had, and gates nothing.
    """
    trials = returns.shape[1] if returns.ndim == 2 else 0
    gating = trials >= overfitting.MIN_TRIALS_PBO
    detail: dict[str, Any] = {"statistical": True, "gating": gating, "trials": trials}
    try:
        measured = overfitting.backtest_overfitting(returns).probability
    except InvalidInput as error:
        outcome = Outcome.ERROR if gating else Outcome.INCONCLUSIVE
        message = f"PBO cannot be measured: {error}." if gating else f"PBO gates from 16 trials on, there are {trials}."
        return evidence("overfitting_pbo", outcome, None, max_pbo, None, message, detail)
    if not gating:
        message = f"PBO is {measured:.2f} over {trials} trials: shown only, it gates from 16 on (noise is often below 0.2)."
        return evidence("overfitting_pbo", Outcome.INCONCLUSIVE, measured, max_pbo, None, message, detail)
    outcome = Outcome.PASS if measured <= max_pbo else Outcome.FAIL
    message = f"PBO is {measured:.2f} over {trials} trials (at most {max_pbo:g})."
    return evidence("overfitting_pbo", outcome, measured, max_pbo, None, message, detail)


def _integrity_findings(facts: IntegrityFacts) -> list[str]:
    found = []
    if facts.training_state != "Complete":
        found.append(f"its training is {facts.training_state}, not Complete")
    if not facts.artifacts:
        found.append("it has no artifacts")
    for artifact in facts.artifacts:
        if artifact.actual_bytes is None:
            found.append(f"{artifact.name} is missing")
        elif not artifact.verified:
            found.append(f"{artifact.name} is not what its digest says")
        elif not artifact.fits:
            found.append(
                f"{artifact.name} has {artifact.actual_bytes} bytes where its architecture needs {artifact.expected_bytes}"
            )
    if facts.identity_matches != 1:
        found.append(f"{facts.identity_matches} records carry its identity, not 1")
    if facts.recorded_number is None:
        found.append("its record is missing")
    elif facts.recorded_number != facts.number:
        found.append(f"its record is of trial {facts.recorded_number}")
    if facts.stored_value is None or not math.isfinite(facts.stored_value):
        found.append(f"its stored value is {facts.stored_value}")
    elif facts.recorded_value is None or not abs(facts.recorded_value - facts.stored_value) <= VALUE_TOLERANCE:
        found.append(f"its record says {facts.recorded_value} and the store {facts.stored_value}")
    if facts.members != facts.expected_members:
        found.append(f"{facts.members} of {facts.expected_members} members are there")
    return found + list(facts.contract_mismatches)
