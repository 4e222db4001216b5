"""The gates of one Deployment, from the record and the artifact store to evidence rows.

Order: integrity and backtest for every candidate; the gate window for the three best that passed both (every look is
recorded before it is taken); overfitting; last the verdicts, which the controller waits for. Baselines are bundles like
any other and are made here, where the market is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.api.deployment import DeploymentSpec
from cappuccino.bundle.format import Bundle
from cappuccino.bundle.store import load, save
from cappuccino.bundle.strategy import strategy_of
from cappuccino.controllers.deployment import BASELINE, VERDICT
from cappuccino.controllers.rows import Evidence as EvidenceRow
from cappuccino.controllers.rows import StudyRow
from cappuccino.core import failpoints
from cappuccino.core.blobs import Blobs
from cappuccino.core.clock import from_epoch, to_epoch
from cappuccino.core.errors import NotFound
from cappuccino.core.identifiers import seed_of
from cappuccino.entrypoints.candidates import Candidate, backtest_facts, candidates_of, integrity_facts
from cappuccino.entrypoints.recipe import Prepared, prepare
from cappuccino.evaluation import gates, window_gate
from cappuccino.evaluation.backtest import BacktestResult, backtest
from cappuccino.evaluation.evidence import Evidence, Outcome, Verdict, evidence, stopped_by, verdict
from cappuccino.market import store
from cappuccino.market.bars import Bars
from cappuccino.reconcile.ports import Record
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.search.trials import TrialRow
from cappuccino.strategies.hold import Hold
from cappuccino.strategies.interface import Contract

OUTCOMES = {Verdict.PASSED: Outcome.PASS, Verdict.OBSERVER: Outcome.INCONCLUSIVE, Verdict.REFUSED: Outcome.FAIL}
BASELINE_KINDS = {"hodl": "hold", "cash": "cash"}


async def run_gates(record: Record, blobs: Blobs, spec: Mapping[str, Any]) -> None:
    """Judge every candidate of `spec` (see controllers/deployment.gates_workload), unless all have a verdict already."""
    uid, deployment = str(spec["deploymentUid"]), DeploymentSpec.model_validate(spec["deployment"])
    study, trials = await _source(record, spec["studyUid"] or _named_by(blobs, str(spec["candidates"][0]["bundle"])))
    candidates = candidates_of(blobs, deployment, spec["candidates"], study, trials)
    judged = {row.bundle_digest for row in await record.evidence(deployment_uid=uid) if row.gate == VERDICT}
    if all(candidate.digest in judged for candidate in candidates):
        return
    bars = store.read(blobs, store.load_manifest(blobs, study.snapshot))
    demands = deployment.gates.backtest
    thresholds = gates.BacktestThresholds(
        min_sharpe=demands.min_sharpe,
        min_exposure=demands.min_exposure,
        min_closed_trades=demands.min_closed_trades,
        max_drawdown=demands.max_drawdown,
    )
    for candidate in candidates:
        candidate.evidence.append(gates.integrity(integrity_facts(candidate, deployment, study, trials, bars)))
        if candidate.bundle is not None:
            candidate.evidence.append(gates.backtest(backtest_facts(candidate), thresholds))
    await _open_window(record, candidates, deployment, study, bars, uid=uid)
    rivals = await _rival_sharpes(record, study)
    for candidate in candidates:
        if candidate.bundle is not None:
            year = candidate.bundle.contract.timeframe.bars_per_year
            limits = deployment.gates.overfitting
            candidate.evidence.append(gates.overfitting_dsr(candidate.returns(), rivals, year, min_dsr=limits.min_dsr))
            candidate.evidence.append(gates.overfitting_pbo(_search_matrix(trials, candidate), max_pbo=limits.max_pbo))
    for candidate in candidates:
        if len(candidate.members) > 1:
            candidate.evidence = [_of_members(item) for item in candidate.evidence]
    rows = [_row(candidate.digest, item, study, uid) for candidate in candidates for item in candidate.evidence]
    rows += _baseline_rows(blobs, candidates, deployment, study, uid=uid)
    rows += _verdict_rows(
        candidates, deployment, study, uid=uid, name=str(spec["deploymentName"])
    )  # last: what the controller waits for
    for row in rows:
        failpoints.reach("evidence-write")
        await record.insert_evidence(evidence=row)


def _named_by(blobs: Blobs, digest: str) -> str:
    """The Study that a bundle's card names, for a Deployment that lists bundles instead of a Study."""
    return str(load(blobs, digest).card.get("study_uid", ""))


async def _source(record: Record, study_uid: str) -> tuple[StudyRow, list[TrialRow]]:
    study = await record.study(study_uid)
    if study is None:
        raise NotFound(f"study {study_uid} is not in the record: its Deployment must name one that has searched")
    return study, await record.trials(study_uid)


async def _open_window(
    record: Record,
    candidates: Sequence[Candidate],
    deployment: DeploymentSpec,
    study: StudyRow,
    bars: Bars,
    *,
    uid: str,
) -> None:
    """Test the finalists on the gate window together; a candidate that is no finalist is not tested and cannot pass."""
    sound = [c for c in candidates if all(e.outcome is Outcome.PASS or e.statistical for e in c.evidence) and c.bundle]
    finalists, rest = sound[: window_gate.MAX_CANDIDATES], sound[window_gate.MAX_CANDIDATES :]
    start = to_epoch(study.gate_starts_at)
    end = int(bars.close_ts[-1])
    wanted = deployment.gates.window
    thresholds = window_gate.WindowThresholds(
        alpha=wanted.alpha,
        bootstrap_samples=wanted.bootstrap_samples,
        block_hours=wanted.block_hours,
        min_closed_trades=deployment.gates.backtest.min_closed_trades,
        min_exposure=deployment.gates.backtest.min_exposure,
    )
    openings = 1
    for candidate in finalists:
        assert candidate.bundle is not None  # sound ones have one
        openings = await record.open_window(
            deployment_uid=uid,
            bundle_digest=candidate.digest,
            symbols=candidate.bundle.contract.symbols,
            start_at=study.gate_starts_at,
            end_at=from_epoch(end),
        )
    measures = []
    for candidate in finalists:
        assert candidate.bundle is not None  # sound ones have one
        run, hodl = window_runs(candidate.bundle, prepare(bars, candidate.bundle.contract), start)
        facts = window_gate.WindowFacts(
            returns=run.returns,
            hodl=hodl.returns[: len(run.returns)],
            closed_trades=len(run.trades),
            exposure=run.exposure,
            bars_per_year=run.bars_per_year,
            claimed_sharpe=candidate.objective,
        )
        # Nothing in the seed that another run of the same manifests would change.
        seed = seed_of(study.snapshot, start, end, candidate.rank)
        measures.append(window_gate.measure_window(facts, thresholds, seed=seed))
    if measures:
        for candidate, verdict_ in zip(
            finalists, window_gate.judge_window(measures, thresholds, openings=openings), strict=True
        ):
            candidate.evidence.append(verdict_)
    for candidate in rest:
        text = (
            f"not opened: the window is opened for the best {len(finalists)} only, and this one is number {candidate.rank + 1}."
        )
        candidate.evidence.append(evidence("window", Outcome.INCONCLUSIVE, None, None, None, text, {"statistical": True}))


def window_runs(bundle: Bundle, market: Prepared, start: int) -> tuple[BacktestResult, BacktestResult]:
    """The bundle and HODL over the rows from `start` (epoch seconds) to the end, both flat at the first close."""
    strategy = strategy_of(bundle)
    first, last = int(market.bars.ts.searchsorted(start)), len(market.bars) - 1

    def run(decides: Any, barriers: Barriers) -> BacktestResult:
        return backtest(
            decides,
            market.bars,
            market.features,
            first_decision=first,
            last=last,
            capital_usd=bundle.capital_usd,
            costs=bundle.costs,
            sizing=bundle.sizing,
            barriers=barriers,
            rules=market.rules,
        )

    return run(strategy, bundle.barriers), run(Hold(contract=strategy.contract), Barriers.off())


async def _rival_sharpes(record: Record, study: StudyRow) -> list[float]:
    """Annualised out-of-sample Sharpe of every trial that looked at overlapping bars of a common symbol: this Study's and
    earlier ones', pruned ones with their last report. Each of them counts against a candidate."""
    found = []
    own = await record.snapshot(study.snapshot)
    for other in await record.studies():
        theirs = await record.snapshot(other.snapshot)
        if own is None or theirs is None or not _overlap(own.manifest, theirs.manifest):
            continue
        for row in await record.trials(other.uid):
            value = row.objective if row.objective is not None else (row.reports[max(row.reports)] if row.reports else None)
            if value is not None and np.isfinite(value):
                found.append(float(value))
    return found


def _overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    common = set(a["symbols"]) & set(b["symbols"])
    return bool(common) and a["first_ts"] <= b["last_ts"] and b["first_ts"] <= a["last_ts"]


def _search_matrix(trials: Sequence[TrialRow], candidate: Candidate) -> npt.NDArray[np.float64]:
    """[T, N] out-of-sample returns of the trials that were judged on the candidate's own bars, its own among them."""

    def judged(record: Mapping[str, Any]) -> list[Any]:
        return [fold["test_between"] for fold in record["folds"]]

    own = candidate.records()
    curves = [
        np.concatenate([np.asarray(fold["returns"]) for fold in row.result.record["folds"]])
        for row in trials
        if row.state == "Complete" and row.result and own and judged(row.result.record) == judged(own[0])
    ]
    return np.stack(curves, axis=1) if curves else np.zeros((0, 0))


def _of_members(item: Evidence) -> Evidence:
    """An ensemble has no walk-forward of its own: say of whom the figures are. Its window test is its own."""
    if item.gate not in ("backtest", "overfitting_dsr"):
        return item
    return replace(
        item, message=f"Of the members' equal mix: {item.message}", detail={**item.detail, "of": "members' equal mix"}
    )


def _verdict_rows(
    candidates: Sequence[Candidate], deployment: DeploymentSpec, study: StudyRow, *, uid: str, name: str
) -> list[EvidenceRow]:
    """Each candidate's verdict: observers are taken by rank while there is room."""
    rows, observers = [], 0
    for candidate in candidates:
        answer = verdict(candidate.evidence)
        role = {Verdict.PASSED: "candidate", Verdict.REFUSED: None, Verdict.OBSERVER: None}[answer]
        if answer is Verdict.OBSERVER and observers < deployment.observers:
            role, observers = "observer", observers + 1
        stopped = stopped_by(candidate.evidence)
        detail = {
            "deployment": name,
            "verdict": str(answer),
            "role": role,
            "rank": candidate.rank,
            "number": candidate.number,
            "members": [row.number for row in candidate.members],
            "kind": candidate.bundle.kind if candidate.bundle else "unreadable",
            "stopped_by": stopped,
        }
        text = "passed every gate before trading" if stopped is None else f"stopped by {stopped}"
        rows.append(_row(candidate.digest, evidence(VERDICT, OUTCOMES[answer], None, None, None, text, detail), study, uid))
    return rows


def _baseline_rows(
    blobs: Blobs, candidates: Sequence[Candidate], deployment: DeploymentSpec, study: StudyRow, *, uid: str
) -> list[EvidenceRow]:
    """Bundles of the baselines, on the first readable candidate's market and costs."""
    first = next((c.bundle for c in candidates if c.bundle), None)
    if first is None:
        return []
    rows = []
    for name in deployment.baselines:
        contract = Contract(
            symbols=first.contract.symbols, timeframe=first.contract.timeframe, features=(), lookback=1, warmup_bars=1
        )
        bundle = Bundle(
            kind=BASELINE_KINDS[name],  # type: ignore[arg-type]
            contract=contract,
            sizing=Sizing(max_weight=1.0),
            barriers=Barriers.off(),
            costs=first.costs,
            capital_usd=deployment.trader_template.capital_usd,
        )
        save(blobs, bundle)
        text = f"{name} trades beside the candidates"
        row = evidence(BASELINE, Outcome.PASS, None, None, None, text, {"kind": name})
        rows.append(_row(bundle.digest, row, study, uid))
    return rows


def _row(digest: str, item: Evidence, study: StudyRow, uid: str) -> EvidenceRow:
    return EvidenceRow(
        bundle_digest=digest,
        gate=item.gate,
        gate_version=item.version,
        scope=study.snapshot,
        deployment_uid=uid,
        outcome=str(item.outcome),  # type: ignore[arg-type]
        message=item.message,
        measured=item.measured,
        threshold=item.threshold,
        minimum_detectable=item.minimum_detectable,
        detail=item.detail,
    )
