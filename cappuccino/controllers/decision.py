"""What a controller sees of the cluster and what it may ask for. Everything here is data: deciding has no effects.

A controller's pass is `observe -> decide -> apply -> status -> events`. `decide` is pure and returns a Decision; the
loop (cappuccino/reconcile) applies it. Applying treats "already exists" and "not found" as success, so that a pass
that was cut off anywhere can be repeated.

Documents are wire documents: camelCase dictionaries with apiVersion, kind, metadata, spec and status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from cappuccino.core.identifiers import digest_of

Document = dict[str, Any]


class Key(NamedTuple):
    """What the queue holds: one object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    def workload(self, role: str = "") -> str:
        """Name of this object's workload, of its `role` when it has several: no two objects share one, whatever their kinds,
        and none is called like a service of the cluster."""
        return ".".join(part for part in (self.namespace, self.kind.lower(), self.name, role) if part)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is kept in mind of every object: enough to find it, never its body. `refers` are those fields of its spec by which
    others look it up (reconcile/wake.py)."""

    key: Key
    uid: str
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    refers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PodNeeds:
    """What a workload's pod needs on Kubernetes; a laptop's process takes what the machine has.

    `requests`, `limits`, `node_selector` and `tolerations` are as in a PodSpec. `claims` are names of ResourceClaimTemplates,
    `shared_memory` the size of /dev/shm, `queue` a Kueue LocalQueue. `secrets` are mounted for the program, and no others are.
    `portfolios` is how many it trades, each of which takes a little more.
    """

    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    claims: Sequence[str] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    shared_memory: str = ""
    queue: str = ""
    secrets: tuple[str, ...] = ()
    portfolios: int = 1


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A process to run. `arguments` follow the program's name: ("train", "--study-uid", ...).

    Exit code 0 is success and 2, 3 and 70 are final (core/errors.py); after anything else it runs again, with exponential
    back-off; 143 (preemption) and 75 (a dependency is away) never count as failures. finite: at most `retries` failures,
    and each attempt within `timeout_seconds`, exceeding which is final. continuous: for as long as it takes.
    `keys` are the objects it serves: trials can be packed, portfolios share a pod.
    """

    name: str
    kind: Literal["finite", "continuous"]
    arguments: tuple[str, ...]
    keys: tuple[Key, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None
    retries: int = 3
    pod: PodNeeds = PodNeeds()

    @property
    def fingerprint(self) -> str:
        """Of what the process is told: another fingerprint under the same name is another process."""
        return digest_of([self.kind, list(self.arguments), dict(self.environment)])[:16]


@dataclass(frozen=True, kw_only=True)
class WorkloadStatus:
    name: str
    state: Literal["Pending", "Running", "Succeeded", "Failed"]
    keys: tuple[Key, ...]
    exit_code: int | None = None
    restarts: int = 0
    failures: int = 0  # in a row; a long enough run ends the row
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str = ""  # last line of its error output, or why it waits
    fingerprint: str = ""  # of the workload that was started; empty: not known


# --- actions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreateObject:
    """An object of that name that exists already is left as it is."""

    document: Document


@dataclass(frozen=True, kw_only=True)
class ApplyObject:
    """Create, or merge spec, labels and annotations into what exists."""

    document: Document


@dataclass(frozen=True, kw_only=True)
class DeleteObject:
    key: Key
    uid: str | None = None


@dataclass(frozen=True, kw_only=True)
class PatchMetadata:
    """None removes a label or an annotation; `finalizers`, when given, replace the present ones."""

    key: Key
    uid: str
    annotations: Mapping[str, str | None] | None = None
    labels: Mapping[str, str | None] | None = None
    finalizers: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class StartWorkload:
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class StopWorkload:
    name: str
    grace_seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class WriteRecord:
    """A method of the Record port by name, with its keyword arguments; repeating it must change nothing."""

    operation: str
    arguments: Mapping[str, Any]


Action = CreateObject | ApplyObject | DeleteObject | PatchMetadata | StartWorkload | StopWorkload | WriteRecord


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened, for a person: one sentence under a reason. Emitted only after the status was written."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`actions` are applied in order. `status` replaces the object's when it differs; None leaves it alone.
    `requeue_after` is in wall seconds; None waits for the next change or resync. `wakes` are objects that are to be looked at
    for what this one has become."""

    actions: tuple[Action, ...] = ()
    status: Document | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    wakes: tuple[Key, ...] = ()
