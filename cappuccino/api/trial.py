"""Trial: one point of the search. Its spec never changes; its identity is (study uid, number)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cappuccino.api.meta import KindInfo, Model, Resource, Status
from cappuccino.api.study import Values
from cappuccino.core.identifiers import CHILD_NAME_MAX


class TrialSpec(Model):
    study_name: str = Field(min_length=1, max_length=40, description="Name of the Study that it belongs to, for people.")
    study_uid: str = Field(
        min_length=1, max_length=64, description="Uid of that Study; with `number` the identity of the trial."
    )
    number: int = Field(ge=0, le=10_000_000, description="Number of the trial in the Study, from 0.")
    phase: str = Field(default="", max_length=30, description="Phase of the Study that it belongs to.")
    parameters: Values = Field(default={}, description="What the sampler chose, with the fixed and frozen values; as text.")
    snapshot: str = Field(min_length=64, max_length=64, description="Digest of the pinned Dataset snapshot.")
    gate_starts_at: str = Field(
        max_length=20, description="Start of the gate window; no bar at or after it is seen in training."
    )


class TrialStatus(Status):
    objective: float | None = Field(default=None, description="Objective out of sample, mean over the folds.")
    bundle_digest: str | None = Field(default=None, description="Digest of the bundle that it made.")
    attempts: int | None = Field(default=None, description="Starts of its workload.")
    workload: str | None = Field(default=None, description="What its workload is doing.")
    started_at: str | None = Field(default=None, description="Wall time at which it started.")
    finished_at: str | None = Field(default=None, description="Wall time at which it finished.")


class Trial(Resource):
    info = KindInfo(
        plural="trials",
        name_max=CHILD_NAME_MAX,
        short_names=("mtr",),
        description="One point of a Study's search, and its result.",
        columns=(
            ("Number", "integer", ".spec.number"),
            ("Workload", "string", ".status.workload"),
            ("Complete", "string", '.status.conditions[?(@.type=="Complete")].status'),
            ("Objective", "number", ".status.objective"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        wide=(("Bundle", "string", ".status.bundleDigest"), ("Phase", "string", ".spec.phase")),
        immutable=("*",),
    )
    kind: Literal["Trial"] = "Trial"
    spec: TrialSpec = Field(description="One point of the search; immutable.")
    status: TrialStatus | None = Field(default=None, description="Its result, and what its workload is doing.")
