"""`cappuccino train`: run trials of a Study, one after another, each to one result row.

A trial reads its pinned Study and its row, judges its strategy on walk-forward folds, refits it on all of dev, and saves the
bundle. The result row is committed before exit 0. Killed, it goes on where it was: fitted folds and the running one are
kept as checkpoints, and a fold's judgement is deterministic, so it is done again rather than stored.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.trials import TrialWriter
from cappuccino.api.study import StudySpec
from cappuccino.bundle.format import Bundle
from cappuccino.bundle.store import save
from cappuccino.core.blobs import Blobs
from cappuccino.core.clock import SystemClock, iso, to_epoch
from cappuccino.core.errors import PREEMPTED_EXIT_CODE, InvalidInput, NotFound, RetryLater, UserError
from cappuccino.core.identifiers import seed_of
from cappuccino.entrypoints.recipe import Prepared, Recipe, prepare, recipe
from cappuccino.entrypoints.settings import WorkerSettings
from cappuccino.evaluation.splits import Fold, walk_forward
from cappuccino.evaluation.walkforward import Demands, WalkForward, evaluate
from cappuccino.market import store
from cappuccino.search.trials import TrialResult, TrialRow
from cappuccino.strategies.interface import Strategy
from cappuccino.strategies.policy import Policy
from cappuccino.strategies.trend import Trend, TrendParameters
from cappuccino.telemetry.logs import configure, get_logger
from cappuccino.telemetry.traces import exported, span


@dataclass(frozen=True, kw_only=True)
class Dev:
    """Rows that a trial may see: [lo, hi), warm-up before it, the gap and the gate window after it."""

    lo: int
    hi: int
    gap: int
    folds: tuple[Fold, ...]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="cappuccino train", description=__doc__)
    parser.add_argument("--study-uid", required=True)
    parser.add_argument("--trials", required=True, help="numbers with commas between: 3,4,5")
    options = parser.parse_args(argv)
    configure(process="train")
    settings = WorkerSettings.read()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    blobs = open_blobs(settings.artifacts_url)
    with exported("train"), open_pool(settings.database_url, "trial", max_size=1) as pool:
        journal = TrialWriter(pool)
        for number in (int(text) for text in options.trials.split(",")):
            try:
                with span("trial", study_uid=options.study_uid, number=number):
                    run_trial(journal, blobs, options.study_uid, number, should_stop=stop.is_set)
            except RetryLater as error:
                if stop.is_set():
                    get_logger("train").info("preempted", trial=number, reason=str(error))
                    return PREEMPTED_EXIT_CODE
                raise
    return 0


def run_trial(
    journal: TrialWriter, blobs: Blobs, study_uid: str, number: int, *, should_stop: Callable[[], bool]
) -> TrialResult:
    """One trial to its result, which is stored; a trial that has one already is left as it is."""
    study, row = journal.study(study_uid), journal.trial(study_uid, number)
    if row.result is not None:
        forget(blobs, row)
        return row.result
    began = SystemClock().now()
    clock = time.monotonic()
    spec = StudySpec.model_validate(study.spec)

    def tell(step: int, value: float) -> bool:
        journal.report(study_uid, number, step=step, value=value)
        return False  # the controller asks the pruner, records Pruned and stops this process

    try:
        made = recipe(spec, row.parameters)
        market = prepare(store.read(blobs, store.load_manifest(blobs, study.snapshot)), made.contract)
        dev = dev_of(market, spec, gate_starts_at=to_epoch(study.gate_starts_at), lookback=made.contract.lookback)
        fitter = Fitter(made, market, row, blobs, spec.template.checkpoint_seconds, should_stop)
        outcome = judge(fitter, dev, spec, report=tell)
        bundle = None
        if outcome.state == "Complete":
            bundle = finish(fitter, dev, study.snapshot, row, outcome)
            save(blobs, bundle)
    except UserError as error:  # the trial itself is at fault: that is its result
        result = TrialResult(succeeded=False, reason=str(error), record={"error": type(error).__name__})
        stored = journal.finish(study_uid, number, result)
        forget(blobs, row)
        return stored
    record = dict(outcome.record) | {
        "study_uid": study_uid,
        "number": number,
        "parameters": dict(row.parameters),
        "seed": row.seed,
        "snapshot": study.snapshot,
        "contract": {"timeframe": str(made.contract.timeframe), "features": [f.label for f in made.contract.features]},
        "dev_rows": [dev.lo, dev.hi],
        "gap_bars": dev.gap,
        "bundle": bundle.digest if bundle else None,
        "fits": fitter.fits,
        "started_at": iso(began),
        "elapsed_seconds": round(time.monotonic() - clock, 3),
    }
    result = TrialResult(
        succeeded=outcome.state == "Complete",
        reason=outcome.reason,
        objective=outcome.objective,
        bundle_digest=bundle.digest if bundle else None,
        record=record,
    )
    stored = journal.finish(study_uid, number, result)
    forget(blobs, row)
    return stored


def dev_of(market: Prepared, spec: StudySpec, *, gate_starts_at: int, lookback: int) -> Dev:
    """The dev rows and their folds; the gap is at least the lookback and the longest hold.

    Raises:
        InvalidInput: fewer bars than warm-up and folds need.
    """
    gap = max(spec.validation.gap_bars, lookback, spec.template.barriers.max_hold_bars)
    gate = int(market.bars.ts.searchsorted(gate_starts_at))
    lo, hi = market.warmup, gate - gap
    try:
        folds = walk_forward(max(0, hi - lo), spec.validation.folds, gap)
    except InvalidInput as error:
        raise InvalidInput(f"after a warm-up of {lo} bars and before the gate window: {error}") from error
    shifted = tuple(Fold(f.train_lo + lo, f.train_hi + lo, f.test_lo + lo, f.test_hi + lo) for f in folds)
    return Dev(lo=lo, hi=hi, gap=gap, folds=shifted)


def checkpoint_prefix(row: TrialRow) -> str:
    return f"checkpoints/{row.study_uid}/{row.number:05d}"


def forget(blobs: Blobs, row: TrialRow) -> None:
    """Remove the trial's checkpoints: its result is stored."""
    for key in blobs.keys(checkpoint_prefix(row)):
        blobs.delete(key)


class Fitter:
    """Fits a trial's strategy on rows of its market; a policy through checkpoints, a rule by reading its parameters."""

    def __init__(
        self,
        made: Recipe,
        market: Prepared,
        row: TrialRow,
        blobs: Blobs,
        checkpoint_seconds: float,
        should_stop: Callable[[], bool],
    ) -> None:
        self.made, self.market, self.row = made, market, row
        self.fits: list[Mapping[str, Any]] = []
        self._blobs, self._seconds, self._should_stop = blobs, checkpoint_seconds, should_stop
        self._prefix = checkpoint_prefix(row)

    def strategy(self, name: str, lo: int, hi: int) -> Strategy:
        """The strategy fitted on rows lo <= t < hi; `name` tells the fit apart (fold-0, refit)."""
        if self.made.kind == "trend":
            rule = TrendParameters.parse(self.made.values)
            return Trend(contract=self.made.contract, parameters=rule, sizing=self.made.sizing)
        files = self.policy_files(name, lo, hi)
        return Policy(contract=self.made.contract, sizing=self.made.sizing, model=files["policy.onnx"])

    def policy_files(self, name: str, lo: int, hi: int) -> dict[str, bytes]:
        """policy.onnx, weights.safetensors and fit.json of one training run, from its checkpoint when it is done."""
        names = ("policy.onnx", "weights.safetensors", "fit.json")
        keys = {file: f"{self._prefix}/{name}/{file}" for file in names}
        if not all(self._blobs.exists(key) for key in keys.values()):
            with span("fit", fit=name):
                trained = self._train(name, lo, hi)
            for file, payload in trained.items():
                self._blobs.replace(keys[file], payload)
            self._blobs.delete(f"{self._prefix}/{name}/running")
        files = {file: self._blobs.get(key) for file, key in keys.items()}
        self.fits.append({"name": name, "rows": [lo, hi], **json.loads(files["fit.json"])})
        return files

    def _train(self, name: str, lo: int, hi: int) -> dict[str, bytes]:
        import torch

        from cappuccino.training.checkpoint import Checkpoints
        from cappuccino.training.config import PPOConfig
        from cappuccino.training.learning import train_policy

        torch.set_num_threads(1)
        running = f"{self._prefix}/{name}/running"
        last = time.monotonic()

        def load() -> bytes | None:
            try:
                return self._blobs.get(running)
            except NotFound:
                return None

        def due() -> bool:
            return time.monotonic() - last >= self._seconds

        def keep(payload: bytes) -> None:
            nonlocal last
            self._blobs.replace(running, payload)
            last = time.monotonic()

        began = time.monotonic()
        made, market = self.made, self.market
        trained = train_policy(
            bars=market.bars,
            features=market.features,
            rows=(lo, hi),
            lookback=made.contract.lookback,
            interval=made.contract.interval,
            config=PPOConfig.from_parameters(made.values),
            sizing=made.sizing,
            barriers=made.barriers,
            costs=made.costs,
            rules=market.rules,
            capital_usd=made.capital_usd,
            seed=seed_of(self.row.seed, name),
            checkpoints=Checkpoints(load=load, save=keep, due=due),
            should_stop=self._should_stop,
        )
        if trained.trades == 0:
            raise InvalidInput(f"{name}: the agent never traded in {trained.timesteps} steps: widen its search space")
        files = trained.export(made.contract)
        fit = {
            "seconds": round(time.monotonic() - began, 3),
            "timesteps": trained.timesteps,
            "trades": trained.trades,
            "exposure": trained.exposure,
            "parity": files.parity,
            "curve": [dict(row) for row in trained.curve[:: max(1, len(trained.curve) // 50)]],
        }
        return {"policy.onnx": files.onnx, "weights.safetensors": files.weights, "fit.json": json.dumps(fit).encode()}


def judge(fitter: Fitter, dev: Dev, spec: StudySpec, *, report: Callable[[int, float], bool]) -> WalkForward:
    """Walk forward over the folds: the objective is out of sample."""
    made, market = fitter.made, fitter.market
    return evaluate(
        market.bars,
        market.features,
        dev.folds,
        lambda index, lo, hi: fitter.strategy(f"fold-{index}", lo, hi),
        report=report,
        capital_usd=made.capital_usd,
        costs=made.costs,
        sizing=made.sizing,
        barriers=made.barriers,
        rules=market.rules,
        demands=Demands(exposure=spec.validation.min_exposure, closed_trades=spec.validation.min_closed_trades),
    )


def finish(fitter: Fitter, dev: Dev, snapshot: str, row: TrialRow, outcome: WalkForward) -> Bundle:
    """The bundle that is traded: a refit on all of dev, never a fold's agent."""
    made = fitter.made
    card: dict[str, Any] = {
        "study_uid": row.study_uid,
        "number": row.number,
        "snapshot": snapshot,
        "parameters": dict(row.parameters),
        "seed": row.seed,
        "objective": outcome.objective,
        "fold_sharpes": [fold.sharpe for fold in outcome.folds],
        "dev_rows": [dev.lo, dev.hi],
    }
    parameters: dict[str, Any] = dict(made.values)
    files: dict[str, bytes] = {}
    if made.kind == "ppo":
        from cappuccino.training.config import PPOConfig

        kept = fitter.policy_files("refit", dev.lo, dev.hi)
        files = {name: kept[name] for name in ("policy.onnx", "weights.safetensors")}
        card["parity"] = json.loads(kept["fit.json"])["parity"]
        config = PPOConfig.from_parameters(made.values)
        parameters = {"network": config.network, "hidden": config.hidden, "layers": config.layers}
    return Bundle(
        kind="policy" if made.kind == "ppo" else "trend",
        contract=made.contract,
        sizing=made.sizing,
        barriers=made.barriers,
        costs=made.costs,
        capital_usd=made.capital_usd,
        parameters=parameters,
        files=files,
        card=card,
    )
