"""What a cluster and a record must offer to the loop. Both clusters run the contract suites of tests/contract.

Objects are plain wire documents (camelCase dictionaries with apiVersion, kind, metadata, spec, status): controllers
parse what they need. Every call may raise RetryLater when its service is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

Document = dict[str, Any]


class Key(NamedTuple):
    """What the queue holds: one object."""

    kind: str
    namespace: str
    name: str


class Objects(Protocol):
    async def get(self, key: Key) -> Document | None: ...

    async def list(self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> list[Document]:
        """Objects that carry all of `labels`, ordered by name."""
        ...

    async def create(self, document: Document) -> Document:
        """Stored with uid, generation 1, resourceVersion and creationTimestamp.

        Raises:
            Conflict: an object of that name exists.
            InvalidInput: the model refuses it.
        """
        ...

    async def apply(self, document: Document) -> Document:
        """Create, or merge spec, labels and annotations into what exists; a no-op writes nothing.

        generation grows when the spec changes, resourceVersion with every write. metadata.resourceVersion in
        `document`, when given, must be the current one.

        Raises:
            Conflict: resourceVersion is stale, or the object is being deleted.
            InvalidInput: the model refuses it, or an immutable field would change.
        """
        ...

    async def patch_status(self, key: Key, status: Document, *, uid: str) -> None:
        """Replace the status. An object that is gone, or has another uid, is left alone."""
        ...

    async def patch_metadata(
        self,
        key: Key,
        *,
        uid: str,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        finalizers: Sequence[str] | None = None,
    ) -> None:
        """Merge annotations and labels (None removes), replace finalizers. Removing the last finalizer of a
        deleted object ends it."""
        ...

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Mark deleted; it ends when its finalizers are gone, and its dependents (ownerReferences) are deleted
        after it. Absent, or another uid, is success."""
        ...

    def watch(self) -> AsyncIterator[Key]:
        """Keys of objects that changed, and of the owners of those that did; may repeat, never loses one for long."""
        ...


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A process to run. `arguments` follow the program's name: ("train", "--study-uid", ...).

    finite: ends by itself; a crash is retried up to `retries` times; exit codes 2 and 3 are final (core/errors.py),
    143 is preemption and never counts. continuous: restarted with exponential back-off whenever it ends.
    `keys` are the objects it serves: trials can be packed, portfolios share a pod.
    """

    name: str
    kind: Literal["finite", "continuous"]
    arguments: tuple[str, ...]
    keys: tuple[Key, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None
    retries: int = 3


@dataclass(frozen=True, kw_only=True)
class WorkloadStatus:
    name: str
    state: Literal["Pending", "Running", "Succeeded", "Failed"]
    keys: tuple[Key, ...]
    exit_code: int | None = None
    restarts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str = ""  # last line of its error output, or why it waits


class Workloads(Protocol):
    async def start(self, workload: Workload) -> None:
        """Idempotent by name: what exists already, running or ended, is left as it is."""
        ...

    async def observe(self, name: str) -> WorkloadStatus | None: ...

    async def list(self) -> list[WorkloadStatus]: ...

    async def stop(self, name: str, *, grace_seconds: float = 10.0) -> None:
        """SIGTERM, then SIGKILL; forgets the workload, so that its name can be used again. Absent is success."""
        ...

    def watch(self) -> AsyncIterator[Key]:
        """Keys of workloads that changed state."""
        ...
