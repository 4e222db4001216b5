"""How each candidate of a Deployment stands, from the evidence. Of each gate the newest row counts; of soak and grade only when
the thresholds that it was judged by are the present ones.

What goes into a status is bounded: so many candidates, each gate's message cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cappuccino.api.deployment import CANDIDATES_MAX, MESSAGE_MAX, CandidateStatus, Deployment, DeploymentSpec, GateStatus
from cappuccino.controllers.rows import Evidence, Promotion
from cappuccino.core.identifiers import digest_of

VERDICT, BASELINE, SOAK, GRADE, LIVE = "verdict", "baseline", "soak", "grade", "live"


def gates_of(spec: DeploymentSpec) -> str:
    """Digest of the thresholds that soak and grade judge by; in the `detail` of each of their rows."""
    return digest_of({SOAK: spec.gates.soak.to_json(), GRADE: spec.gates.grade.to_json()})


def standings(deployment: Deployment, evidence: Sequence[Evidence]) -> tuple[CandidateStatus, ...]:
    """Every candidate that has a verdict, in the order of the ranking."""
    rows: dict[str, list[Evidence]] = {}
    verdicts: dict[str, Evidence] = {}  # the first stands
    for row in evidence:
        rows.setdefault(row.bundle_digest, []).append(row)
        if row.gate == VERDICT:
            verdicts.setdefault(row.bundle_digest, row)
    ranked = sorted(verdicts.values(), key=lambda row: (row.detail["rank"], row.bundle_digest))
    return tuple(_candidate(deployment, verdict, rows[verdict.bundle_digest]) for verdict in ranked)


def _candidate(deployment: Deployment, verdict: Evidence, rows: Sequence[Evidence]) -> CandidateStatus:
    present = gates_of(deployment.spec)
    newest = {row.gate: _counted(row, present) for row in rows if row.gate not in (VERDICT, BASELINE)}  # rows come oldest first
    state: Any = verdict.detail["verdict"]
    if state == "Passed":
        soaked = [newest.get(gate) for gate in (SOAK, GRADE)]
        done = all(row is not None and row.outcome == "Pass" for row in soaked)
        state = "Promotable" if done else "Soaking"
    failed = [gate for gate, row in newest.items() if row.outcome in ("Fail", "Error")]
    number = verdict.detail.get("number")
    suffix = verdict.detail["kind"] if number is None else f"{number:05d}"
    return CandidateStatus(
        bundle_digest=verdict.bundle_digest,
        number=number,
        verdict=state,
        stopped_by=verdict.detail.get("stopped_by") or next(iter(failed), None),
        trader=f"{deployment.name}-{suffix}" if verdict.detail.get("role") else None,
        gates=tuple(
            GateStatus(gate=g, outcome=r.outcome, measured=r.measured, threshold=r.threshold, message=_bounded(r.message))
            for g, r in newest.items()
        ),
    )


def _counted(row: Evidence, present: str) -> Evidence:
    if row.gate not in (SOAK, GRADE) or row.detail.get("gates") == present:
        return row
    return replace(
        row, outcome="Inconclusive", message=f"judged by other gates than the present ones, to be graded again: {row.message}"
    )


def _bounded(message: str) -> str:
    return message if len(message) <= MESSAGE_MAX else message[: MESSAGE_MAX - 1] + "…"


def listed(candidates: Sequence[CandidateStatus], standing: Promotion | None) -> tuple[CandidateStatus, ...]:
    """What of the candidates goes into the status: the first of the ranking, who is promoted always among them."""
    promoted = [c for c in candidates if standing and c.bundle_digest == standing.bundle_digest]
    others = [c for c in candidates if c not in promoted][: CANDIDATES_MAX - len(promoted)]
    return tuple(
        c.model_copy(update={"verdict": "Promoted"}) if c in promoted else c for c in candidates if c in promoted or c in others
    )
