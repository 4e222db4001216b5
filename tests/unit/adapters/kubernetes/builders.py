"""Documents as an API server shows them, and workloads, with defaults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cappuccino.adapters.kubernetes import pods
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.controllers.decision import Document, Key, PodNeeds, Summary, Workload
from cappuccino.core.clock import iso

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = PodSettings.model_validate(
    {
        "images": {"train": "registry.example/train:1", "trader": "registry.example/trader:1"},
        "imagePullSecrets": ["pull"],
        "serviceAccountName": "cappuccino-workload",
        "database": {"secret": "database"},
        "artifacts": {"url": "file:///artifacts", "claim": "artifacts"},
        "exchange": {"url": "http://exchange:8700", "secret": "exchange"},
        "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318"},
        "programs": {
            "train": {"requests": {"cpu": "1", "memory": "2Gi"}},
            "trade": {"requests": {"cpu": "100m", "memory": "400Mi"}, "limits": {"memory": "1Gi"}},
        },
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 10}],
    }
)


def trial(name: str = "s-00007", **options: Any) -> Workload:
    key = Key("Trial", "lab", name)
    needs = PodNeeds(requests={"memory": "4Gi"}, limits={"cpu": "3500m", "nvidia.com/gpu": "1"}, shared_memory="1Gi")
    given = {
        "arguments": ("train", "--study-uid", "u", "--trials", "7"),
        "environment": {"TRACEPARENT": "00-1-2-01"},
        "timeout_seconds": 600.5,
        "retries": 2,
        "pod": needs,
    }
    return Workload(name=key.workload(), kind="finite", keys=(key,), **{**given, **options})


def trader(name: str = "d-00007", **options: Any) -> Workload:
    key = Key("Trader", "lab", name)
    given: dict[str, Any] = {
        "arguments": ("trade", "--account", "a", "--trader-uid", "u", "--bundle", "b"),
        "environment": {"CAPPUCCINO_SPEC": "{}"},
        "pod": PodNeeds(secrets=("alpaca-one",)),
    }
    return Workload(name=key.workload(), kind="continuous", keys=(key,), **{**given, **options})


def owner(workload: Workload, uid: str = "owner-uid", **labels: str) -> Summary:
    return Summary(key=workload.keys[0], uid=uid, labels=labels)


def stored(document: Document, *, uid: str = "w", version: int = 10, status: Document | None = None) -> Document:
    metadata = {**document["metadata"], "uid": uid, "resourceVersion": str(version), "creationTimestamp": iso(NOW)}
    return {**document, "metadata": metadata, "status": status or {}}


def job(workload: Workload | None = None, *, conditions: list[Document] | None = None, **options: Any) -> Document:
    options["status"] = {"conditions": conditions or [], **options.get("status", {})}
    return stored(pods.document(workload or trial(), SETTINGS), **options)


def statefulset(workload: Workload | None = None, **options: Any) -> Document:
    return stored(pods.document(workload or trader(), SETTINGS), **options)


def condition(kind: str, reason: str = "", message: str = "") -> Document:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": iso(NOW)}


def pod(
    of: Document,
    *,
    name: str = "p",
    uid: str = "p",
    version: int = 20,
    phase: str = "Running",
    state: Document | None = None,
    before: Document | None = None,
    restarts: int = 0,
    conditions: list[Document] | None = None,
    deleting: bool = False,
    age_seconds: float = 0,
    **status: Any,
) -> Document:
    metadata = {
        "namespace": of["metadata"]["namespace"],
        "name": name,
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": iso(NOW - timedelta(seconds=age_seconds)),
        "labels": of["metadata"]["labels"],
        "annotations": of["spec"]["template"]["metadata"]["annotations"],
        "ownerReferences": [
            {"kind": of["kind"], "name": of["metadata"]["name"], "uid": of["metadata"]["uid"], "controller": True}
        ],
    }
    if deleting:
        metadata["deletionTimestamp"] = iso(NOW)
    container = {"name": "worker", "restartCount": restarts, "state": state or {}, "lastState": before or {}}
    sidecar = {"name": "mesh", "restartCount": 9, "state": {"terminated": {"exitCode": 99}}}
    told = {"phase": phase, "containerStatuses": [sidecar, container], "conditions": conditions or [], **status}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n1"}, "status": told}


def running() -> Document:
    return {"running": {"startedAt": iso(NOW)}}


def terminated(code: int, words: str = "", *, seconds: float = 5, reason: str = "Error") -> Document:
    times = {"startedAt": iso(NOW - timedelta(seconds=seconds)), "finishedAt": iso(NOW)}
    return {"terminated": {"exitCode": code, "reason": reason, "message": words, **times}}


def waiting(reason: str, message: str = "") -> Document:
    return {"waiting": {"reason": reason, "message": message}}
