"""Trial: one point of the search. Its spec never changes; its identity is (study uid, number)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cappuccino.api.meta import KindInfo, Model, Resource, Status
from cappuccino.api.study import Values


class TrialSpec(Model):
    study_name: str = Field(min_length=1, max_length=40)
    study_uid: str = Field(min_length=1, max_length=64)
    number: int = Field(ge=0, le=10_000_000)
    phase: str = Field(default="", max_length=30)
    parameters: Values = {}
    snapshot: str = Field(min_length=64, max_length=64, description="Digest of the pinned Dataset snapshot.")
    gate_starts_at: str = Field(max_length=20, description="No bar at or after it is seen in training.")


class TrialStatus(Status):
    objective: float | None = None
    bundle_digest: str | None = None
    attempts: int | None = None
    workload: str | None = Field(default=None, description="What its workload is doing.")
    started_at: str | None = None
    finished_at: str | None = None


class Trial(Resource):
    info = KindInfo(
        plural="trials",
        short_names=("mtr",),
        description="One point of a Study's search, and its result.",
        columns=(
            ("Number", "integer", ".spec.number"),
            ("Workload", "string", ".status.workload"),
            ("Complete", "string", '.status.conditions[?(@.type=="Complete")].status'),
            ("Objective", "number", ".status.objective"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        rules=(("self == oldSelf", "a Trial's spec is immutable: make another Trial through its Study"),),
    )
    kind: Literal["Trial"] = "Trial"
    spec: TrialSpec
    status: TrialStatus | None = None
