"""One Study from its manifest to the verdicts: the real controllers, trainer and gates over a record in memory.

The generated market is stored by `market.refresh`; the Study's controller pins it; the sampler proposes and
`train.run_trials` judges and refits, one trial after another; the Deployment's controller lists the best, and
`gating.run_gates` gives evidence and verdicts. Costs are zero. A Study is a function of its setup and its seed alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from cappuccino.adapters.optuna import OptunaSampler
from cappuccino.api import Dataset, Deployment, Study
from cappuccino.controllers import deployment as deploying
from cappuccino.controllers import study as searching
from cappuccino.controllers.candidacy import VERDICT
from cappuccino.controllers.decision import Key, WriteRecord
from cappuccino.controllers.rows import SnapshotRow, StudyRow
from cappuccino.core.clock import iso, parse_iso, to_epoch
from cappuccino.core.identifiers import seed_of
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.gating import run_gates
from cappuccino.entrypoints.train import run_trials
from cappuccino.evaluation.evidence import PRE_TRADE_GATES
from cappuccino.market.generator import GeneratorBars, GeneratorConfig
from cappuccino.market.refresh import refresh
from cappuccino.search.space import parse_space, to_wire
from cappuccino.search.trials import NewTrial
from tests.calibrate.record import Blobs, Journal, Kept, Record

START = "2024-01-01T00:00:00Z"
TIMEFRAME = Timeframe.parse("1h")
SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD")
WARMUP_BARS, DEV_BARS, GAP_BARS, GATE_BARS = 200, 2400, 48, 720  # 100 days to search on, one month for the gates
BARS = WARMUP_BARS + DEV_BARS + GAP_BARS + GATE_BARS
DRIFT_PER_YEAR = 1.0  # in log price: HODL of the three has a Sharpe of about 3


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that a Study depends on but its seed. `search`: the part of its manifest that says what is searched."""

    search: Mapping[str, Any]
    trials: int
    pack: int = 1
    folds: int = 3
    drift_volatility: float = 0.0
    drift_per_year: float = DRIFT_PER_YEAR
    barriers: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"bars": BARS, "gate_bars": GATE_BARS, "gap_bars": GAP_BARS, "symbols": list(SYMBOLS)}

    def market(self, seed: int) -> GeneratorBars:
        config = GeneratorConfig(
            seed=seed_of("market", seed), drift_volatility=self.drift_volatility, drift_per_year=self.drift_per_year
        )
        return GeneratorBars(config=config, origin=to_epoch(parse_iso(START)))


def run_study(setup: Setup, seed: int) -> dict[str, Any]:
    """The Study's outcome, as plain values."""
    began = time.perf_counter()
    blobs = Blobs()
    study, kept = _pinned(setup, seed, blobs)
    _search(study, kept, blobs, setup.pack)
    deployment = Deployment.parse(_document("Deployment", _deployment_spec(setup)))
    listed = _gated(study, deployment, kept, blobs)
    states = [row.state for row in kept.trials]
    return {
        "seed": seed,
        "complete": states.count("Complete"),
        "failed": states.count("Failed"),
        "reasons": sorted({row.reason.split(":")[-1].strip()[:80] for row in kept.trials if row.state == "Failed"}),
        "candidates": [_told(kept, entry, deployment) for entry in listed],
        "seconds": round(time.perf_counter() - began, 3),
    }


def _pinned(setup: Setup, seed: int, blobs: Blobs) -> tuple[Study, Kept]:
    """The Study as its controller pins it on the snapshot of a generated market."""
    end = parse_iso(START) + timedelta(hours=BARS)
    source = setup.market(seed)
    spec = {"symbols": list(SYMBOLS), "source": {"generator": {"seed": 0}}, "start": START, "end": iso(end)}
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Complete"}], "observedGeneration": 1}
    dataset = Dataset.parse(_document("Dataset", spec) | {"status": ready})
    study = Study.parse(_document("Study", _study_spec(setup, seed)))
    stored = refresh(
        source, blobs, symbols=SYMBOLS, timeframe=TIMEFRAME, start=source.origin, now=to_epoch(end), end=to_epoch(end)
    )
    snapshot = SnapshotRow(digest=stored.digest, dataset_uid=dataset.uid, manifest=stored.manifest, recorded_at=end)
    asked = searching.Observed(study=study, key=Key("Study", "default", study.name), dataset=dataset, snapshot=snapshot)
    (pin,) = searching.decide(asked, now=end).actions
    assert isinstance(pin, WriteRecord)  # anything else is a mistake in the manifests above
    return study, Kept(study=StudyRow(**pin.arguments), snapshot=snapshot)


def _search(study: Study, kept: Kept, blobs: Blobs, pack: int) -> None:
    """Pack after pack, as at a parallelism of one pack."""
    spec = study.spec
    sampler = OptunaSampler(type=spec.sampler.type, startup_trials=spec.sampler.startup_trials, goal=spec.goal)
    space = parse_space({name: parameter.to_json() for name, parameter in spec.search_space.items()})
    for first in range(0, spec.budget.trials, pack):
        numbers = range(first, min(first + pack, spec.budget.trials))
        for number in numbers:
            seed = seed_of(spec.sampler.seed, number)
            values = sampler.sample(kept.trials, space, seed)
            kept.propose(NewTrial(number=number, parameters=values, distributions=to_wire(space), seed=seed))
        run_trials(Journal(kept), blobs, study.uid, numbers, should_stop=lambda: False)
        for number in numbers:
            kept.settle(number)


def _gated(study: Study, deployment: Deployment, kept: Kept, blobs: Blobs) -> list[dict[str, Any]]:
    """The Deployment's candidates, as its controller lists them, judged."""
    key = Key("Deployment", "default", deployment.name)
    observed = deploying.Observed(deployment=deployment, key=key, study=study, trials=kept.trials)
    spec = json.loads(deploying.gates_workload(observed, deployment).environment["CAPPUCCINO_SPEC"])
    if spec["candidates"]:
        asyncio.run(run_gates(Record(kept), blobs, spec))
    return list(spec["candidates"])


def _told(kept: Kept, entry: Mapping[str, Any], deployment: Deployment) -> dict[str, Any]:
    """A candidate's evidence. `tested`: no gate that is not statistical kept it from any that is."""
    found = {row.gate: row for row in kept.evidence if row.bundle_digest == entry["bundle"]}
    window, asked = found["window"], deployment.spec.gates.backtest
    traded, exposure = window.detail.get("closed_trades", 0), window.detail.get("exposure", 0.0)
    return {
        "number": entry["number"],
        "objective": kept.trials[int(entry["number"])].objective,
        "verdict": found[VERDICT].detail["verdict"],
        "stopped_by": found[VERDICT].detail["stopped_by"],
        "tested": window.measured is not None and traded >= asked.min_closed_trades and exposure >= asked.min_exposure,
        "gates": {
            gate: {"outcome": row.outcome, "measured": row.measured, "gating": bool(row.detail.get("gating", True))}
            for gate, row in found.items()
            if gate in PRE_TRADE_GATES
        },
        "window": {name: window.detail.get(name) for name in ("sharpe", "alpha", "p_mean", "p_alpha")}
        | {"closed_trades": traded, "exposure": exposure, "detectable": window.minimum_detectable}
        | {"detectable_at_80": window.detail.get("minimum_detectable_at_80")},
        "dsr": {name: found["overfitting_dsr"].detail.get(name) for name in ("sharpe", "hurdle", "skew", "kurtosis", "n_bars")},
    }


def _deployment_spec(setup: Setup) -> dict[str, Any]:
    template: dict[str, Any] = {"venue": {"kind": "simulated"}}
    if not setup.barriers:
        template["risk"] = {"stop": 0, "trail": 0}
    return {"studyRef": {"name": "calibrate"}, "traderTemplate": template}


def _study_spec(setup: Setup, seed: int) -> dict[str, Any]:
    template: dict[str, Any] = {"costs": {"feeBps": 0, "slippageBps": 0}}
    if not setup.barriers:
        template["barriers"] = {"stop": 0, "trail": 0}
    return {
        "datasetRef": {"name": "calibrate"},
        "symbols": list(SYMBOLS),
        "timeframe": "1h",
        "validation": {"folds": setup.folds, "gateBars": GATE_BARS, "gapBars": GAP_BARS},
        "sampler": {"seed": seed},
        "pruner": {"type": "none"},
        "budget": {"trials": setup.trials, "maxFailedTrials": setup.trials},
        "template": template,
        **setup.search,
    }


def _document(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": "calibrate", "namespace": "default", "uid": f"calibrate-{kind.lower()}", "generation": 1}
    return {"apiVersion": "cappuccino.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}
