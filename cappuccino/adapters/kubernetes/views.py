"""What is kept in mind of a Job, a StatefulSet and a Pod: what a status needs, never the body.

Two views of one object are equal when nothing that a status needs has changed, whatever their resourceVersions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from cappuccino.adapters.kubernetes.naming import CONTAINER, FINGERPRINT, HISTORY, KEYS, QUEUE_LABEL, WORKLOAD
from cappuccino.controllers.decision import Document, Key
from cappuccino.core.clock import parse_iso


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A run of the container that ended. `reason` is the kubelet's word for it, `words` the last line that it said."""

    code: int
    reason: str = ""
    words: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def seconds(self) -> float:
        if self.started_at is None or self.finished_at is None:
            return 0.0
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def message(self) -> str:
        """An out-of-memory kill has words too, of a process that did not see it coming."""
        told = [part for part in (self.reason if self.reason not in ("Error", "Completed") else "", self.words) if part]
        return ": ".join(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """`ended` is how the present container ended, `before` how the one before it did; `restarts` is the kubelet's count.
    `ends_by` is until when a pod that is being deleted should have ended."""

    namespace: str
    name: str
    uid: str
    version: int = field(compare=False)
    workload: str
    owner_uid: str
    created_at: datetime
    phase: str = "Pending"
    node: str = ""
    ends_by: datetime | None = None
    disrupted: bool = False
    trouble: str = ""  # of the pod as a whole: evicted, not admitted
    unscheduled: str = ""
    waiting: str = ""
    waiting_message: str = ""
    running_since: datetime | None = None
    ended: End | None = None
    before: End | None = None
    restarts: int = 0

    @property
    def alive(self) -> bool:
        """Something of it may run, now or later."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def has_no_image(self) -> bool:
        """Its container has never run, for want of its image."""
        began = self.running_since or self.last_end
        return began is None and self.waiting in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")

    @property
    def leaving(self) -> bool:
        """Told to go by somebody else: what comes of it is no failure of the program's."""
        return self.disrupted or self.ends_by is not None

    @property
    def last_end(self) -> End | None:
        return self.ended or self.before

    @property
    def ends(self) -> int:
        """How often its container has ended."""
        if self.ended is not None or (self.before is not None and self.running_since is None):
            return self.restarts + 1
        return self.restarts


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known of its runs beyond what its present pod says, kept in an annotation (history.py).

    `pod` is the uid of the pod of which `ends` were counted. `over`: it ended with `code` and must not run again."""

    pod: str = ""
    ends: int = 0
    restarts: int = 0
    failures: int = 0
    code: int | None = None
    message: str = ""
    started_at: str = ""
    finished_at: str = ""
    over: bool = False

    @classmethod
    def read(cls, text: str) -> History:
        return cls(**json.loads(text)) if text else cls()

    def write(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value not in ("", None)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadView:
    """A Job (finite) or a StatefulSet (continuous). `owners` are the uids of the objects that it is to end with."""

    kind: Literal["finite", "continuous"]
    namespace: str
    name: str
    uid: str
    version: int = field(compare=False)
    workload: str
    label: str  # as its pods carry it
    keys: tuple[Key, ...]
    fingerprint: str
    image: str
    owners: tuple[str, ...]
    created_at: datetime
    deleting: bool = False
    history: History = field(default_factory=History)
    queue: str = ""
    suspended: bool = False
    deadline_seconds: float | None = None
    failed: int = 0
    conditions: Mapping[str, tuple[str, str, datetime | None]] = field(default_factory=dict)  # those that hold

    @property
    def over(self) -> bool:
        """Nothing of it will run again."""
        return self.history.over or "Complete" in self.conditions or "Failed" in self.conditions


def pod_view(pod: Document) -> PodView:
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    container = _container(status.get("containerStatuses") or [])
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    return PodView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        workload=(metadata.get("annotations") or {}).get(WORKLOAD, ""),
        owner_uid=next((o["uid"] for o in metadata.get("ownerReferences") or () if o.get("controller")), ""),
        created_at=parse_iso(metadata["creationTimestamp"]),
        phase=status.get("phase", "Pending"),
        node=spec.get("nodeName", ""),
        ends_by=time_of(metadata.get("deletionTimestamp", "")),
        disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
        trouble=": ".join(part for part in (status.get("reason"), status.get("message")) if part),
        unscheduled=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        waiting=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        running_since=time_of((state.get("running") or {}).get("startedAt", "")),
        ended=_end(state.get("terminated")),
        before=_end((container.get("lastState") or {}).get("terminated")),
        restarts=container.get("restartCount", 0),
    )


def workload_view(document: Document) -> WorkloadView:
    """Of a Job or a StatefulSet that carries our annotations."""
    metadata, spec, status = document["metadata"], document["spec"], document.get("status", {})
    annotations = metadata["annotations"]
    conditions = {
        c["type"]: (c.get("reason", ""), c.get("message", ""), time_of(c.get("lastTransitionTime") or ""))
        for c in status.get("conditions") or ()
        if c["status"] == "True"
    }
    return WorkloadView(
        kind="finite" if document["kind"] == "Job" else "continuous",
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        workload=annotations[WORKLOAD],
        label=(metadata.get("labels") or {}).get(WORKLOAD, ""),
        keys=keys_of(annotations[KEYS]),
        fingerprint=annotations.get(FINGERPRINT, ""),
        image=_container(spec["template"]["spec"]["containers"])["image"],
        owners=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
        created_at=parse_iso(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        history=History.read(annotations.get(HISTORY, "")),
        queue=(metadata.get("labels") or {}).get(QUEUE_LABEL, ""),
        suspended=bool(spec.get("suspend")),
        deadline_seconds=spec.get("activeDeadlineSeconds"),
        failed=status.get("failed") or 0,
        conditions=conditions,
    )


def is_ours(document: Document) -> bool:
    annotations = document["metadata"].get("annotations") or {}
    return WORKLOAD in annotations and KEYS in annotations


def keys_text(keys: Sequence[Key]) -> str:
    return json.dumps([list(key) for key in keys])


def keys_of(text: str) -> tuple[Key, ...]:
    return tuple(Key(*key) for key in json.loads(text))


def time_of(text: str) -> datetime | None:
    return parse_iso(text) if text else None


def _container(containers: Sequence[Document]) -> Document:
    """Ours of a spec's or a status's: a mesh or an agent may have put one of its own beside it."""
    return next((container for container in containers if container.get("name") == CONTAINER), {})


def _end(terminated: Mapping[str, Any] | None) -> End | None:
    if not terminated:
        return None
    lines = [line.strip() for line in (terminated.get("message") or "").splitlines() if line.strip()]
    return End(
        code=terminated["exitCode"],
        reason=terminated.get("reason", ""),
        words=lines[-1] if lines else "",
        started_at=time_of(terminated.get("startedAt") or ""),
        finished_at=time_of(terminated.get("finishedAt") or ""),
    )
