"""One trial from its market to its result, fit by fit.

Its strategy is judged on walk-forward folds, refitted on all of dev, and saved as a bundle. What is to be fitted is yielded,
so that several trials can be fitted together. A fold's judgement is deterministic: after a crash it is done again rather
than stored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from cappuccino.api.study import StudySpec
from cappuccino.bundle.format import Bundle
from cappuccino.bundle.store import save
from cappuccino.controllers.rows import StudyRow
from cappuccino.core.blobs import Blobs
from cappuccino.core.clock import SystemClock, iso, to_epoch
from cappuccino.core.errors import InvalidInput, UserError
from cappuccino.entrypoints.fitting import FIT, POLICY, WEIGHTS, Files, Fit, Member
from cappuccino.entrypoints.recipe import Prepared
from cappuccino.evaluation.splits import Fold, walk_forward
from cappuccino.evaluation.walkforward import Demands, WalkForward, evaluate
from cappuccino.search.trials import TrialResult
from cappuccino.strategies.interface import Strategy
from cappuccino.strategies.policy import Policy
from cappuccino.strategies.trend import Trend, TrendParameters


@dataclass(frozen=True, kw_only=True)
class Dev:
    """Rows that a trial may see: [lo, hi), warm-up before it, the gap and the gate window after it."""

    lo: int
    hi: int
    gap: int
    folds: tuple[Fold, ...]


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


class Trial:
    """`report` gets the intermediate value of each fold but the last. `together`: numbers of the trials it is trained with."""

    def __init__(
        self,
        member: Member,
        market: Prepared,
        study: StudyRow,
        spec: StudySpec,
        blobs: Blobs,
        *,
        report: Callable[[int, float], None],
        together: tuple[int, ...],
    ) -> None:
        self.row, self.made, self.market = member.row, member.made, market
        self._study, self._spec, self._blobs = study, spec, blobs
        self._report, self._together = report, together
        self._fits: list[Mapping[str, Any]] = []

    def run(self) -> Generator[Fit, Files, TrialResult]:
        """Yields what is to be fitted and is sent its files; a UserError that is thrown in, or its own, is its result."""
        began, clock = SystemClock().now(), time.monotonic()
        try:
            gate_starts_at, lookback = to_epoch(self._study.gate_starts_at), self.made.contract.lookback
            dev = dev_of(self.market, self._spec, gate_starts_at=gate_starts_at, lookback=lookback)
            outcome = yield from self._judged(dev)
            bundle = None
            if outcome.state == "Complete":
                bundle = yield from self._bundle(dev, outcome)
                save(self._blobs, bundle)
        except UserError as error:
            return failure(error)
        contract = self.made.contract
        record = dict(outcome.record) | {
            "study_uid": self.row.study_uid,
            "number": self.row.number,
            "parameters": dict(self.row.parameters),
            "seed": self.row.seed,
            "snapshot": self._study.snapshot,
            "contract": {"timeframe": str(contract.timeframe), "features": [f.label for f in contract.features]},
            "dev_rows": [dev.lo, dev.hi],
            "gap_bars": dev.gap,
            "bundle": bundle.digest if bundle else None,
            "fits": self._fits,
            "trained_with": list(self._together),
            "started_at": iso(began),
            "elapsed_seconds": round(time.monotonic() - clock, 3),
        }
        return TrialResult(
            succeeded=outcome.state == "Complete",
            reason=outcome.reason,
            objective=outcome.objective,
            bundle_digest=bundle.digest if bundle else None,
            record=record,
        )

    def _judged(self, dev: Dev) -> Generator[Fit, Files, WalkForward]:
        """Walk forward over the folds: the objective is out of sample."""
        made, market = self.made, self.market

        def tell(step: int, value: float) -> bool:
            self._report(step, value)
            return False  # the controller asks the pruner and records Pruned

        walk = evaluate(
            market.bars,
            market.features,
            dev.folds,
            report=tell,
            capital_usd=made.capital_usd,
            costs=made.costs,
            sizing=made.sizing,
            barriers=made.barriers,
            rules=market.rules,
            demands=Demands(exposure=self._spec.validation.min_exposure, closed_trades=self._spec.validation.min_closed_trades),
        )
        try:
            index, lo, hi = next(walk)
            while True:
                strategy = yield from self._strategy(Fit(step=index, name=f"fold-{index}", rows=(lo, hi)))
                index, lo, hi = walk.send(strategy)
        except StopIteration as end:
            outcome: WalkForward = end.value
            return outcome

    def _strategy(self, fit: Fit) -> Generator[Fit, Files, Strategy]:
        """A policy is fitted, a rule is made of its parameters."""
        made = self.made
        if made.kind == "trend":
            return Trend(contract=made.contract, parameters=TrendParameters.parse(made.values), sizing=made.sizing)
        files = yield from self._fitted(fit)
        return Policy(contract=made.contract, sizing=made.sizing, model=files[POLICY])

    def _fitted(self, fit: Fit) -> Generator[Fit, Files, Files]:
        files = yield fit
        self._fits.append({"name": fit.name, "rows": list(fit.rows), **json.loads(files[FIT])})
        return files

    def _bundle(self, dev: Dev, outcome: WalkForward) -> Generator[Fit, Files, Bundle]:
        """The bundle that is traded: a refit on all of dev, never a fold's agent."""
        made, row = self.made, self.row
        card: dict[str, Any] = {
            "study_uid": row.study_uid,
            "number": row.number,
            "snapshot": self._study.snapshot,
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

            kept = yield from self._fitted(Fit(step=len(dev.folds), name="refit", rows=(dev.lo, dev.hi)))
            files = {name: kept[name] for name in (POLICY, WEIGHTS)}
            card["parity"] = json.loads(kept[FIT])["parity"]
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


def failure(error: UserError) -> TrialResult:
    """The trial itself is at fault: that is its result."""
    return TrialResult(succeeded=False, reason=str(error), record={"error": type(error).__name__})
