"""Objects and rows with defaults that pass: a test names only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cappuccino.api import Dataset, Deployment, Study, Trader, Trial
from cappuccino.controllers.candidacy import gates_of
from cappuccino.controllers.decision import Key, WorkloadStatus
from cappuccino.controllers.rows import AccountRow, Evidence, SnapshotRow, StudyRow
from cappuccino.search.trials import TrialResult, TrialRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SNAPSHOT = "a" * 64
BUNDLE = "b" * 64
HOUR = 3600
SYMBOLS = ("BTC/USD", "ETH/USD")


def metadata(name: str, **given: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1} | given


def ready(status: str = "True") -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": status, "reason": "Complete"}], "observedGeneration": 1}


def dataset(*, status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **meta: Any) -> Dataset:
    document = {
        "symbols": list(SYMBOLS),
        "source": {"generator": {"seed": 1}},
        "start": "2024-01-01T00:00:00Z",
        "end": "2024-06-01T00:00:00Z",
    } | (spec or {})
    body = {
        "apiVersion": "cappuccino.dev/v1alpha1",
        "kind": "Dataset",
        "metadata": metadata("market", **meta),
        "spec": document,
    }
    return Dataset.parse(body | ({"status": status} if status else {}))


def snapshot(*, bars: int = 3000, symbols: tuple[str, ...] = SYMBOLS) -> SnapshotRow:
    first = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    manifest = {
        "symbols": list(symbols),
        "timeframe": "1h",
        "first_ts": first,
        "last_ts": first + (bars - 1) * HOUR,
        "bars": bars,
        "gaps": [],
        "quarantined": [],
    }
    return SnapshotRow(digest=SNAPSHOT, dataset_uid="uid-market", manifest=manifest, recorded_at=NOW)


def study(*, status: dict[str, Any] | None = None, **spec: Any) -> Study:
    document = {
        "datasetRef": {"name": "market"},
        "strategy": {"kind": "trend", "parameters": {"feature": "return", "enter": "0.01", "exit": "0"}},
        "searchSpace": {"enter": {"type": "float", "low": 0.001, "high": 0.02}},
        "budget": {"trials": 4},
        "parallelism": 2,
        "validation": {"folds": 2, "gateBars": 720, "gapBars": 48},
    } | spec
    body = {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Study", "metadata": metadata("search"), "spec": document}
    return Study.parse(body | ({"status": status} if status else {}))


STUDY_KEY = Key("Study", "default", "search")


def pinned(of: Study | None = None) -> StudyRow:
    spec = (of or study()).spec.to_json()
    return StudyRow(uid="uid-search", name="search", spec=spec, snapshot=SNAPSHOT, gate_starts_at=NOW)


def row(number: int = 0, **given: Any) -> TrialRow:
    values: dict[str, Any] = {
        "study_uid": "uid-search",
        "number": number,
        "phase": "",
        "parameters": {"enter": "0.01"},
        "distributions": {},
        "seed": number,
        "state": "Waiting",
        "created_at": NOW,
    }
    return TrialRow(**(values | given))


def result(*, succeeded: bool = True, objective: float | None = 1.5, reason: str = "") -> TrialResult:
    return TrialResult(succeeded=succeeded, reason=reason, objective=objective, bundle_digest=BUNDLE if succeeded else None)


def trial(number: int = 0, **meta: Any) -> Trial:
    spec = {
        "studyName": "search",
        "studyUid": "uid-search",
        "number": number,
        "parameters": {"enter": "0.01"},
        "snapshot": SNAPSHOT,
        "gateStartsAt": "2026-01-01T00:00:00Z",
    }
    name = f"search-{number:05d}"
    return Trial.parse(
        {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Trial", "metadata": metadata(name, **meta), "spec": spec}
    )


def running(name: str, **given: Any) -> WorkloadStatus:
    values: dict[str, Any] = {"name": name, "state": "Running", "keys": (), "started_at": NOW}
    return WorkloadStatus(**(values | given))


def deployment(
    *,
    annotations: dict[str, str] | None = None,
    finalizers: Sequence[str] = (),
    deleted: bool = False,
    generation: int = 1,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Deployment:
    document = {
        "studyRef": {"name": "search"},
        "top": 2,
        "traderTemplate": {"venue": {"kind": "simulated"}, "mode": "paper"},
    } | spec
    meta = metadata("desk", annotations=annotations or {}, finalizers=list(finalizers), generation=generation)
    meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    body = {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Deployment", "metadata": meta, "spec": document}
    return Deployment.parse(body | ({"status": status} if status else {}))


BAR = {"bar_at": "2024-01-08T00:00:00Z", "gates": gates_of(deployment().spec)}  # detail of a soak or grade


def evidence(bundle: str, gate: str, outcome: str = "Pass", **given: Any) -> Evidence:
    values: dict[str, Any] = {
        "bundle_digest": bundle,
        "gate": gate,
        "gate_version": 1,
        "scope": SNAPSHOT,
        "deployment_uid": "uid-desk",
        "outcome": outcome,
        "message": "",
        "recorded_at": NOW,
    }
    return Evidence(**(values | given))


def trader(
    *, name: str = "desk-00001", status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **meta: Any
) -> Trader:
    document = {"venue": {"kind": "simulated"}, "mode": "paper", "bundleDigest": BUNDLE, "account": "desk-00001"} | (spec or {})
    meta = {"finalizers": ["cappuccino.dev/flatten"]} | meta
    body = {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Trader", "metadata": metadata(name, **meta)}
    return Trader.parse(body | {"spec": document} | ({"status": status} if status else {}))


def account(**given: Any) -> AccountRow:
    values: dict[str, Any] = {
        "name": "desk-00001",
        "venue": "simulated",
        "holder": "h",
        "token": 1,
        "expires_at": NOW,
        "held": True,
        "halted_reason": None,
        "baseline_usd": None,
    }
    return AccountRow(**(values | given))
