"""A Deployment with its Traders and its record, for tests over many passes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from cappuccino.controllers.decision import CreateObject, Decision, DeleteObject, Key, WriteRecord
from cappuccino.controllers.deployment import Observed, decide
from cappuccino.controllers.requests import APPROVE, setting
from cappuccino.controllers.rows import Evidence, Promotion

from .builders import BAR, NOW, deployment, evidence, result, row, study, trader
from .passes import Passes

KEY = Key("Deployment", "default", "desk")
GOOD, OTHER, OBSERVER, BROKEN = "1" * 64, "2" * 64, "3" * 64, "4" * 64
COMPLETE = {"conditions": [{"type": "Complete", "status": "True", "reason": "BudgetSpent"}]}


def judged() -> list[Evidence]:
    """Two that passed and soaked, one that observes, one that was refused, and the baselines."""
    said = [
        (GOOD, "Passed", "candidate"),
        (OTHER, "Passed", "candidate"),
        (OBSERVER, "Observer", "observer"),
        (BROKEN, "Refused", None),
    ]
    rows = []
    for rank, (digest, verdict, role) in enumerate(said):
        stopped = {"Observer": "window", "Refused": "backtest"}.get(verdict)
        if stopped:
            rows.append(evidence(digest, stopped, "Fail", message=f"{stopped} says no.", measured=0.1, threshold=0.5))
        detail = {"verdict": verdict, "role": role, "rank": rank, "number": rank, "kind": "trend", "stopped_by": stopped}
        rows.append(evidence(digest, "verdict", detail=detail))
        rows += [evidence(digest, gate, detail=BAR) for gate in ("soak", "grade") if role]
    return [
        *rows,
        evidence("5" * 64, "baseline", detail={"kind": "hodl"}),
        evidence("6" * 64, "baseline", detail={"kind": "cash"}),
    ]


@dataclass
class Desk(Passes):
    """A Deployment with its Traders and its record."""

    deleted: bool = False
    spec: dict[str, Any] = field(default_factory=lambda: {"top": 4})
    evidence: list[Evidence] = field(default_factory=judged)
    traders: dict[str, dict[str, Any]] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)  # Traders that are deleted and sell out
    promotions: list[Promotion] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)
    moment: int = 0
    generations: list[str] = field(default_factory=list)
    halted: str | None = None  # the account that was started last

    @property
    def generation(self) -> int:
        """As the API server counts it: one more for each other spec."""
        spec = json.dumps(self.spec, sort_keys=True)
        if self.generations[-1:] != [spec]:
            self.generations.append(spec)
        return len(self.generations)

    def look(self) -> Decision:
        of = deployment(
            annotations=dict(self.annotations),
            finalizers=self.finalizers,
            deleted=self.deleted,
            generation=self.generation,
            status=self.status,
            **self.spec,
        )
        digests = {e.bundle_digest: e.detail["number"] for e in self.evidence if e.gate == "verdict"}
        trials = [
            row(n, state="Complete", objective=9.0 - n, bundle_digest=digest, result=result())
            for digest, n in list(digests.items())[:4]
        ]
        seen = Observed(
            deployment=of,
            key=KEY,
            study=study(status=COMPLETE),
            trials=trials,
            evidence=self.evidence,
            promotions=self.promotions,
            halted=self.halted,
            traders=[
                trader(spec=spec, name=name, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if name in self.leaving else {}))
                for name, spec in self.traders.items()
            ],
        )
        return decide(seen, now=NOW)

    def apply(self, action: Any) -> None:
        super().apply(action)
        if isinstance(action, CreateObject):
            self.traders.setdefault(action.document["metadata"]["name"], action.document["spec"])
        elif isinstance(action, DeleteObject):
            self.leaving.add(action.key.name)
        elif isinstance(action, WriteRecord):
            assert action.operation == "record_promotion"
            self.record(action.arguments["promotion"], action.arguments["about"])

    def record(self, promotion: Promotion, about: str) -> None:
        """As promotion_append of the database: the row and its audit row, or neither."""
        judged = [
            p for p in self.promotions if p.subject == promotion.subject and p.action in ("approved", "revoked", "demoted")
        ]
        assert promotion.action != "started" or judged[-1].action == "approved"
        self.promotions.append(promotion)
        self.halted = None if promotion.action == "started" else self.halted  # another account
        body = {"reason": promotion.reason, "step": promotion.step}
        audited = {"actor": promotion.actor, "action": f"promotion {promotion.action}", "subject": about, "body": body}
        self.audit.append(audited)

    def gone(self) -> None:
        """What was deleted has sold out."""
        for name in self.leaving:
            del self.traders[name]
        self.leaving.clear()

    def approve(self, which: str, *, actor: str = "ada", reason: str = "read the report") -> None:
        """Of the Deployment as it is now."""
        self.moment += 1
        self.annotations |= setting(APPROVE, which, actor=actor, reason=reason, at=str(self.moment), generation=self.generation)

    def condition(self, kind: str) -> tuple[str, str]:
        assert self.status is not None
        found: dict[str, Any] = next((c for c in self.status["conditions"] if c["type"] == kind), {"reason": "", "message": ""})
        return found["reason"], found["message"]

    @property
    def said(self) -> tuple[str, str]:
        return self.condition("Promoted")

    @property
    def recorded(self) -> list[tuple[str, str, str]]:
        return [(p.bundle_digest[:1], p.action, p.actor) for p in self.promotions]

    def verdicts(self) -> dict[int, str]:
        assert self.status is not None
        return {c["number"]: c["verdict"] for c in self.status["candidates"]}
