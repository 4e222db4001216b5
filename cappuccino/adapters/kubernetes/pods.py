"""From a Workload to the Job or StatefulSet that runs it: pure.

Every pod is restricted: no root, no capability, a read-only root file system, no API token; it may write to /tmp. Its program
finds the record, the artifacts and, a trader, the exchange in its environment. A Job counts as failures what retrying may mend,
never a preemption (143), a dependency that is away (75) or a disruption; 2, 3 and 70 end it at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils import quantity as untyped_quantity

from cappuccino.adapters.kubernetes.client import JOB, STATEFULSET
from cappuccino.adapters.kubernetes.naming import CONTAINER, FINGERPRINT, KEYS, QUEUE_LABEL, WORKLOAD, labels, place
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.adapters.kubernetes.views import keys_text
from cappuccino.api import API_VERSION
from cappuccino.controllers.decision import Document, Summary, Workload
from cappuccino.core.errors import AWAY_EXIT_CODE, FINAL_EXIT_CODES, PREEMPTED_EXIT_CODE

parse_quantity: Callable[[str], Decimal] = untyped_quantity.parse_quantity

USER = 65532
HEALTH_PORT = 8081
KEPT_SECONDS = 7 * 86400  # of a finished Job, whose controller deletes it long before that
TMP, SECRETS, ARTIFACTS = "/tmp", "/secrets", "/artifacts"  # noqa: S108 - an emptyDir of the pod's own

_ROLES = {"train": "trial", "validate": "gate", "trade": "trader", "ingest": "ingest"}  # of programs in the database


def document(workload: Workload, settings: PodSettings, owners: Sequence[Summary] = ()) -> Document:
    """`owners` are the objects it serves, as far as they are known: it ends with the last of them."""
    namespace, name = place(workload)
    metadata: Document = {
        "name": name,
        "namespace": namespace,
        "labels": {**_labels_of(owners), **labels(workload)},
        "annotations": {WORKLOAD: workload.name, KEYS: keys_text(workload.keys), FINGERPRINT: workload.fingerprint},
    }
    if owners:
        metadata["ownerReferences"] = [_owner(owner) for owner in owners]
    if workload.kind == "finite":
        return _job(workload, settings, metadata)
    return _statefulset(workload, settings, metadata)


def _job(workload: Workload, settings: PodSettings, metadata: Document) -> Document:
    ignored = [AWAY_EXIT_CODE, PREEMPTED_EXIT_CODE]
    spec: Document = {
        "backoffLimit": workload.retries,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": _codes(ignored)},
                {"action": "FailJob", "onExitCodes": _codes(FINAL_EXIT_CODES)},
            ]
        },
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": _template(workload, settings, metadata, restart_policy="Never"),
    }
    if workload.timeout_seconds is not None:
        spec["activeDeadlineSeconds"] = math.ceil(workload.timeout_seconds)
    if workload.pod.queue:
        metadata["labels"] |= {QUEUE_LABEL: workload.pod.queue}
        spec["suspend"] = True  # until the queue admits it
    return {"apiVersion": JOB.api_version, "kind": JOB.kind, "metadata": metadata, "spec": spec}


def _statefulset(workload: Workload, settings: PodSettings, metadata: Document) -> Document:
    chosen = {name: metadata["labels"][name] for name in labels(workload)}
    spec: Document = {
        "replicas": 1,
        "podManagementPolicy": "Parallel",  # a pod that never became ready does not hold up its successor
        "serviceName": metadata["name"],
        "selector": {"matchLabels": chosen},
        "template": _template(workload, settings, metadata, restart_policy="Always"),
    }
    return {"apiVersion": STATEFULSET.api_version, "kind": STATEFULSET.kind, "metadata": metadata, "spec": spec}


def _template(workload: Workload, settings: PodSettings, metadata: Document, *, restart_policy: str) -> Document:
    needs, program = workload.pod, workload.arguments[0]
    volumes, mounts = _volumes(workload, settings)
    spec: Document = {
        "restartPolicy": restart_policy,
        "serviceAccountName": settings.service_account_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.deletion_grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.images.train if program == "train" else settings.images.trader,
                "imagePullPolicy": settings.image_pull_policy,
                "args": list(workload.arguments),
                "env": _environment(workload, settings),
                **_environment_from(settings),
                "resources": _resources(workload, settings),
                "volumeMounts": mounts,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                **(_health() if program == "trade" and workload.kind == "continuous" else {}),
            }
        ],
        "volumes": volumes,
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if node_selector := {**settings.node_selector, **needs.node_selector}:
        spec["nodeSelector"] = node_selector
    if tolerations := [*(toleration.to_json() for toleration in settings.tolerations), *map(dict, needs.tolerations)]:
        spec["tolerations"] = tolerations
    if needs.claims:
        spec["resourceClaims"] = [{"name": claim, "resourceClaimTemplateName": claim} for claim in needs.claims]
    return {"metadata": {"labels": dict(metadata["labels"]), "annotations": {WORKLOAD: workload.name}}, "spec": spec}


def _environment(workload: Workload, settings: PodSettings) -> list[Document]:
    program = workload.arguments[0]
    plain = {"HOME": TMP, "OMP_NUM_THREADS": str(_threads(_resources(workload, settings)))}
    plain["CAPPUCCINO_ARTIFACTS_URL"] = settings.artifacts.url
    if program == "trade":
        if settings.exchange.url:
            plain["CAPPUCCINO_EXCHANGE_URL"] = settings.exchange.url
        if workload.kind == "continuous":
            plain["CAPPUCCINO_HEALTH"] = f"0.0.0.0:{HEALTH_PORT}"
    if workload.pod.secrets:
        plain["CAPPUCCINO_SECRETS"] = SECRETS
    plain |= {**settings.environment, **workload.environment}
    secret = {}
    if role := _ROLES.get(program):
        secret["CAPPUCCINO_DATABASE_URL"] = (settings.database.secret, getattr(settings.database.keys, role))
    if program == "trade" and settings.exchange.secret:
        secret["CAPPUCCINO_EXCHANGE_TOKEN"] = (settings.exchange.secret, "token")
    return [
        *({"name": name, "value": value} for name, value in sorted(plain.items())),
        *(
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
            for variable, (name, key) in sorted(secret.items())
        ),
    ]


def _environment_from(settings: PodSettings) -> Document:
    if not settings.artifacts.secret:
        return {}
    return {"envFrom": [{"secretRef": {"name": settings.artifacts.secret}}]}


def _volumes(workload: Workload, settings: PodSettings) -> tuple[list[Document], list[Document]]:
    """Volumes of the pod, and where the container mounts them."""
    volumes: list[Document] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[Document] = [{"name": "tmp", "mountPath": TMP}]
    if workload.pod.shared_memory:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": workload.pod.shared_memory}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    if settings.artifacts.claim:
        volumes.append({"name": "artifacts", "persistentVolumeClaim": {"claimName": settings.artifacts.claim}})
        mounts.append({"name": "artifacts", "mountPath": ARTIFACTS, "readOnly": workload.arguments[0] == "trade"})
    if secrets := workload.pod.secrets:
        sources = [{"secret": _secret(name, optional=workload.pod.portfolios > 1)} for name in secrets]
        volumes.append({"name": "accounts", "projected": {"sources": sources, "defaultMode": 0o440}})
        mounts.append({"name": "accounts", "mountPath": SECRETS, "readOnly": True})
    return volumes, mounts


def _secret(name: str, *, optional: bool) -> Document:
    """A folder of its name with the two files of an account. Optional: it is missed by the one who needs it, not by the pod."""
    items = [{"key": key, "path": f"{name}/{key}"} for key in ("key_id", "secret_key")]
    return {"name": name, "items": items, **({"optional": True} if optional else {})}


def _resources(workload: Workload, settings: PodSettings) -> Document:
    given, needs = settings.resources(workload.arguments[0]), workload.pod
    resources: Document = {
        part: {
            name: _added(quantity, settings.further_portfolio.get(name, "0"), times=needs.portfolios - 1)
            for name, quantity in {**base, **own}.items()
        }
        for part, base, own in (("requests", given.requests, needs.requests), ("limits", given.limits, needs.limits))
    }
    if needs.claims:
        resources["claims"] = [{"name": claim} for claim in needs.claims]
    return {name: part for name, part in resources.items() if part}


def _added(quantity: str, further: str, *, times: int) -> str:
    """`quantity` and `times` of `further`, in the unit of `further`; as it is when that is nothing."""
    more = parse_quantity(further) * times
    if not more:
        return quantity
    unit = further.lstrip("0123456789.")
    return f"{math.ceil((parse_quantity(quantity) + more) / parse_quantity(f'1{unit}'))}{unit}"


def _threads(resources: Mapping[str, Any]) -> int:
    """Whole processors that the container may count on."""
    cpu = resources.get("limits", {}).get("cpu") or resources.get("requests", {}).get("cpu") or "1"
    return max(1, math.ceil(parse_quantity(cpu)))


def _health() -> Document:
    """Ready is: may trade. Alive is: answers at all, for a halted trader must go on."""
    asked = {"port": HEALTH_PORT, "scheme": "HTTP"}
    return {
        "ports": [{"name": "metrics", "containerPort": HEALTH_PORT}],
        "startupProbe": {"httpGet": {"path": "/metrics", **asked}, "periodSeconds": 5, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/metrics", **asked}, "periodSeconds": 15, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/healthz", **asked}, "periodSeconds": 5, "timeoutSeconds": 5},
    }


def _codes(values: Sequence[int]) -> Document:
    return {"containerName": CONTAINER, "operator": "In", "values": sorted(values)}


def _labels_of(owners: Sequence[Summary]) -> dict[str, str]:
    """The Study's or Deployment's name, for selectors, where all owners have the same."""
    shared = set.intersection(*(set(owner.labels.items()) for owner in owners)) if owners else set()
    return {name: value for name, value in sorted(shared) if name.startswith("cappuccino.dev/")}


def _owner(owner: Summary) -> Document:
    """Without blockOwnerDeletion: a Trader that is deleted in the foreground still says farewell first."""
    return {"apiVersion": API_VERSION, "kind": owner.key.kind, "name": owner.key.name, "uid": owner.uid}
