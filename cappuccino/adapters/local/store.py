"""What the supervisor remembers of each workload, so that the next runner knows what the last one ran."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from cappuccino.controllers.decision import Workload, WorkloadStatus


@dataclass(frozen=True, kw_only=True)
class WorkloadRow:
    """`process` is the start time of `pid`: together they name one process. Stopped: to be ended and forgotten."""

    workload: Workload
    state: Literal["Pending", "Running", "Succeeded", "Failed", "Stopped"] = "Pending"
    pid: int | None = None
    process: str | None = None
    exit_code: int | None = None
    restarts: int = 0
    failures: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    due_at: datetime | None = None
    message: str = ""

    def status(self) -> WorkloadStatus:
        return WorkloadStatus(
            name=self.workload.name,
            state="Running" if self.state == "Stopped" else self.state,
            keys=self.workload.keys,
            exit_code=self.exit_code,
            restarts=self.restarts,
            failures=self.failures,
            started_at=self.started_at,
            finished_at=self.finished_at,
            message=self.message,
            fingerprint=self.workload.fingerprint,
        )


class WorkloadStore(Protocol):
    """Every call may raise RetryLater."""

    async def insert(self, workload: Workload) -> None:
        """A name that exists keeps its row."""
        ...

    async def row(self, name: str) -> WorkloadRow | None: ...

    async def rows(self) -> list[WorkloadRow]:
        """Ordered by name."""
        ...

    async def update(self, name: str, **columns: Any) -> None:
        """Set columns of a row by the names of WorkloadRow; absent is success."""
        ...

    async def delete(self, name: str) -> None: ...
