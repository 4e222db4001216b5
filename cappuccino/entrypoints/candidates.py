"""A Deployment's candidates, and the facts of them that the first gates judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.api.deployment import DeploymentSpec
from cappuccino.api.search import Constraints
from cappuccino.bundle.format import Bundle, pack
from cappuccino.bundle.network import size_bounds
from cappuccino.bundle.store import load, save
from cappuccino.bundle.strategy import ensemble_of
from cappuccino.controllers.rows import StudyRow
from cappuccino.core.blobs import Blobs
from cappuccino.core.errors import IntegrityError, InvalidInput, NotFound
from cappuccino.evaluation.evidence import Evidence
from cappuccino.evaluation.gates import ArtifactFact, BacktestFacts, IntegrityFacts
from cappuccino.exchange.venue import SIMULATED_MIN_NOTIONAL
from cappuccino.market.bars import Bars
from cappuccino.risk.sizing import capital_needed
from cappuccino.search.goal import Goal
from cappuccino.search.trials import TrialRow


@dataclass(kw_only=True)
class Candidate:
    """One bundle on its way through the gates. `members`: the trials it is made of, one unless it is an ensemble.

    listed: how many bundles it was asked to be made of. broken: why its bundle could not be loaded; empty when it could.
    """

    digest: str
    rank: int
    members: tuple[TrialRow, ...]
    listed: int = 1
    bundle: Bundle | None = None
    broken: str = ""
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def number(self) -> int | None:
        return self.members[0].number if len(self.members) == 1 else None

    @property
    def objective(self) -> float | None:
        """Of an ensemble the mean of its members'."""
        values = [row.objective for row in self.members if row.objective is not None]
        return sum(values) / len(values) if values and len(values) == len(self.members) else None

    def records(self) -> list[Mapping[str, Any]]:
        """What each member's trainer wrote of its walk-forward."""
        return [row.result.record for row in self.members if row.result and "folds" in row.result.record]

    def returns(self) -> npt.NDArray[np.float64]:
        """[T] out-of-sample returns, folds one after another; of an ensemble the equal mix of its members'."""
        curves = [np.concatenate([fold["returns"] for fold in record["folds"]]) for record in self.records()]
        shortest = min((len(curve) for curve in curves), default=0)
        if not shortest:
            return np.zeros(0)
        return np.asarray(np.mean([curve[:shortest] for curve in curves], axis=0), dtype=np.float64)


def candidates_of(
    blobs: Blobs,
    deployment: DeploymentSpec,
    listed: Sequence[Mapping[str, Any]],
    study: StudyRow,
    trials: Sequence[TrialRow],
) -> list[Candidate]:
    """The listed bundles, best first; in mode ensemble the one bundle that they make, saved under its own digest."""
    by_digest = {row.bundle_digest: row for row in trials if row.bundle_digest}
    found = []
    for rank, entry in enumerate(listed):
        digest = str(entry["bundle"])
        row = by_digest.get(digest)
        candidate = Candidate(digest=digest, rank=rank, members=(row,) if row else ())
        try:
            candidate.bundle = load(blobs, digest)
        except (IntegrityError, NotFound) as error:
            candidate.broken = str(error)
        found.append(candidate)
    if deployment.mode != "ensemble":
        return found
    broken = "; ".join(candidate.broken for candidate in found if candidate.broken)
    whole = Candidate(
        digest=found[0].digest,
        rank=0,
        members=tuple(row for candidate in found for row in candidate.members),
        listed=len(listed),
        broken=broken,
    )
    if not broken:
        try:
            bundles = [candidate.bundle for candidate in found if candidate.bundle]
            card = {"study_uid": study.uid, "members": [row.number for row in whole.members], "snapshot": study.snapshot}
            whole.bundle = ensemble_of(bundles, vote=deployment.vote, source_study=study.uid, card=card)
            whole.digest = save(blobs, whole.bundle)
        except InvalidInput as error:
            whole.broken = str(error)
    return [whole]


def integrity_facts(
    candidate: Candidate, deployment: DeploymentSpec, study: StudyRow, trials: Sequence[TrialRow], bars: Bars
) -> IntegrityFacts:
    """Is the candidate what its record says, and does it fit the market and the trader that would run it?"""
    row = candidate.members[0] if candidate.members else None
    number = row.number if row else -1
    record = candidate.records()[0] if candidate.records() else {}
    ensemble = deployment.mode == "ensemble"
    stored = candidate.objective if ensemble else (row.objective if row else None)
    values = [item["objective"] for item in candidate.records()]
    recorded = sum(values) / len(values) if values else None
    return IntegrityFacts(
        study_uid=study.uid,
        number=number,
        training_state=next((m.state for m in candidate.members if m.state != "Complete"), row.state if row else "unknown"),
        artifacts=_artifacts(candidate),
        identity_matches=sum(other.number == number for other in trials),
        recorded_number=record.get("number"),
        recorded_value=recorded,
        stored_value=stored,
        contract_mismatches=tuple(_mismatches(candidate, deployment, study, bars)),
        members=len(candidate.members) if ensemble else 0,
        expected_members=candidate.listed if ensemble else 0,
    )


def backtest_facts(candidate: Candidate) -> BacktestFacts:
    """The walk-forward of the trial, or of an ensemble the mean of its members'."""
    records = candidate.records()
    folds = [fold for record in records for fold in record["folds"]]
    return BacktestFacts(
        objective=candidate.objective,
        fold_sharpes=tuple(float(fold["sharpe"]) for fold in folds if fold["sharpe"] is not None),
        exposure=float(np.mean([record["exposure"] for record in records])) if records else 0.0,
        closed_trades=int(np.mean([record["closed_trades"] for record in records])) if records else 0,
        max_drawdown=max((float(fold["max_drawdown"]) for fold in folds), default=1.0),
        n_bars=max(len(candidate.returns()), 1),
        bars_per_year=float(records[0]["bars_per_year"]) if records else 8760.0,
    )


def _artifacts(candidate: Candidate) -> tuple[ArtifactFact, ...]:
    """Loading has verified every digest and size; a bundle that did not load shows as one file that is not what it says."""
    bundle = candidate.bundle
    if bundle is None:
        return (ArtifactFact(name=f"bundle {candidate.digest[:12]}", expected_bytes=None, actual_bytes=0, verified=False),)
    bounds = size_bounds(bundle.parameters, bundle.contract) if bundle.kind == "policy" else {}
    facts = []
    for name, body in pack(bundle).items():
        low, high = bounds.get(name, (0, 0))
        middle = (low + high) // 2
        facts.append(
            ArtifactFact(
                name=name,
                expected_bytes=middle or None,
                actual_bytes=len(body),
                verified=True,
                tolerance=(high - low) / 2 / middle if middle else 0.0,
            )
        )
    return tuple(facts)


def _mismatches(candidate: Candidate, deployment: DeploymentSpec, study: StudyRow, bars: Bars) -> list[str]:
    bundle, risk = candidate.bundle, deployment.trader_template.risk
    if bundle is None:
        return [candidate.broken]
    found = [f"symbol {symbol} is not in the data" for symbol in bundle.contract.symbols if symbol not in bars.symbols]
    if bundle.contract.timeframe.seconds % bars.timeframe.seconds:
        found.append(f"timeframe {bundle.contract.timeframe} cannot be made from {bars.timeframe} bars")
    judged = {tuple(str(fold["test_between"]) for fold in record["folds"]) for record in candidate.records()}
    if len(judged) > 1:
        found.append("its members were judged on different bars, so that their record is not one")
    named = bundle.card.get("study_uid")
    if named != study.uid:
        found.append(f"its card names study {named}, not {study.uid}")
    for name, trained, traded in (
        ("stop", bundle.barriers.stop, risk.stop),
        ("trail", bundle.barriers.trail, risk.trail),
        ("trail armed at", bundle.barriers.trail and bundle.barriers.trail_arms_at, risk.trail and risk.trail_arms_at),
        ("take profit", bundle.barriers.take_profit, risk.take_profit),
        ("longest hold", bundle.barriers.max_hold_bars, risk.max_hold_bars),
    ):
        if (trained or 0) != (traded or 0):
            found.append(f"it was trained with {name} {trained or 0:g} and would be traded with {traded or 0:g}")
    goal = Goal(limits=Constraints.model_validate(study.spec.get("constraints") or {}).limits())
    found += [
        f"trial {row.number} breaks its Study's constraints: {breach}"
        for row in candidate.members
        if (breach := goal.breach(row.metrics))
    ]
    capital = deployment.trader_template.capital_usd
    needed = capital_needed(float(SIMULATED_MIN_NOTIONAL), bundle.sizing)
    if capital < needed:
        found.append(
            f"a capital of {capital:g} USD cannot trade: a full action clears the venue's minimum from {needed:.2f} on"
        )
    if bundle.sizing.max_weight > risk.max_weight:
        found.append(f"its largest weight {bundle.sizing.max_weight:g} is above the risk limit {risk.max_weight:g}")
    return found
