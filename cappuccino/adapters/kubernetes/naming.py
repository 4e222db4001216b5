"""Names, labels and annotations of what we make in a cluster.

A workload is called `namespace.kind.name[.role]`; its Job or StatefulSet is called `name[-role]` in that namespace, so that a
Trial's Job is called as the Trial. What would be too long ends in a digest instead, and so does a pod of Traders, whose name is
no object's: a Trader may have the same.
"""

from __future__ import annotations

from typing import NamedTuple

from cappuccino.api import GROUP
from cappuccino.controllers.decision import Workload
from cappuccino.core.identifiers import sha256_hex

MANAGED_BY = "app.kubernetes.io/managed-by"
SELECTOR = f"{MANAGED_BY}=cappuccino"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
WORKLOAD = f"{GROUP}/workload"  # label: for people and selectors; annotation: the whole name
KEYS = f"{GROUP}/keys"
FINGERPRINT = f"{GROUP}/fingerprint"
HISTORY = f"{GROUP}/history"
CONTAINER = "worker"

_LABEL_MAX = 63
_JOB_MAX = 63  # the Job controller puts the name into a label
_STATEFULSET_MAX = 52  # and the StatefulSet controller puts the name and a revision into one
_DIGEST = 8


class Place(NamedTuple):
    namespace: str
    name: str


def place(workload: Workload) -> Place:
    """Where its Job or StatefulSet is."""
    namespace, kind, name, role = _parts(workload)
    longest = _JOB_MAX if workload.kind == "finite" else _STATEFULSET_MAX
    suffix = f"-{role}" if role else f"-{_digest(workload.name)}" if kind == "pod" else ""
    return Place(namespace, _shortened(f"{name}{suffix}", longest, of=workload.name, keep=suffix))


def labels(workload: Workload) -> dict[str, str]:
    _, kind, name, role = _parts(workload)
    value = ".".join(part for part in (kind, name, role) if part)
    return {
        MANAGED_BY: "cappuccino",
        "app.kubernetes.io/name": "cappuccino",
        "app.kubernetes.io/component": workload.arguments[0],
        WORKLOAD: _shortened(value, _LABEL_MAX, of=workload.name),
    }


def _parts(workload: Workload) -> tuple[str, str, str, str]:
    """Namespace, kind, name, role; a name of another form is one in the namespace of its first object."""
    parts = workload.name.split(".")
    if len(parts) in (3, 4):
        namespace, kind, name, role = (*parts, "")[:4]
        return namespace, kind, name, role
    return workload.keys[0].namespace if workload.keys else "default", "", workload.name, ""


def _shortened(text: str, longest: int, *, of: str, keep: str = "") -> str:
    if len(text) <= longest:
        return text
    head = text[: longest - len(keep) - _DIGEST - 1].rstrip("-.")
    return f"{head}-{_digest(of)}{keep}"


def _digest(name: str) -> str:
    return sha256_hex(name.encode())[:_DIGEST]
