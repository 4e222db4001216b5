"""An object over many passes of its controller; each may be cut off after some of its writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cappuccino.controllers.decision import Decision, Event, PatchMetadata


@dataclass
class Passes:
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    status: dict[str, Any] | None = None
    events: list[Event] = field(default_factory=list)

    def look(self) -> Decision:
        raise NotImplementedError

    def apply(self, action: Any) -> None:
        """What an action does to the object itself."""
        if isinstance(action, PatchMetadata):
            for name, value in (action.annotations or {}).items():
                self.annotations.pop(name, None)
                if value is not None:
                    self.annotations[name] = value
            if action.finalizers is not None:
                self.finalizers = tuple(action.finalizers)

    def reconcile(self, *, cut_after: int | None = None) -> Decision:
        decision = self.look()
        for action in decision.actions[:cut_after]:
            self.apply(action)
        if cut_after is None:
            self.status = decision.status
            self.events += decision.events
        return decision
