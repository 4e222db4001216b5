"""Deployment: take the best bundles of a Study through the gates, and trade those that pass."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.meta import KindInfo, Model, Reference, Resource, Status
from cappuccino.api.trader import VENUE_RULES, Digest, TraderTemplateSpec


class WindowGate(Model):
    """The one test on the untouched gate window: mean log return > 0 and alpha over HODL > 0."""

    alpha: float = Field(default=0.025, gt=0, lt=0.5, description="One-sided level of each test, before Holm.")
    bootstrap_samples: int = Field(default=2000, ge=200, le=100_000)
    block_hours: float = Field(default=24, gt=0, le=24 * 30)


class BacktestGate(Model):
    min_sharpe: float = Field(default=0.0, description="Walk-forward objective a candidate needs.")
    min_closed_trades: int = Field(default=20, ge=1, le=100_000)
    min_exposure: float = Field(default=0.05, ge=0, le=1)
    max_drawdown: float = Field(default=0.5, gt=0, le=1)


class OverfittingGate(Model):
    min_dsr: float = Field(default=0.95, ge=0, le=1, description="Deflated Sharpe ratio; PSR for a single trial.")
    max_pbo: float = Field(default=0.2, ge=0, le=1, description="Gates only from 16 trials on.")


class SoakGate(Model):
    """Shadow or paper, in market time and trades."""

    market_days: float = Field(default=7, ge=0, le=3650)
    closed_trades: int = Field(default=20, ge=0, le=100_000)


class GradeGate(Model):
    """What promotion asks of the paper record. A grade alone never promotes."""

    min_win_rate: float = Field(default=0.60, ge=0, le=1)
    max_drawdown: float = Field(default=0.15, gt=0, le=1)


class Gates(Model):
    backtest: BacktestGate = BacktestGate()
    window: WindowGate = WindowGate()
    overfitting: OverfittingGate = OverfittingGate()
    soak: SoakGate = SoakGate()
    grade: GradeGate = GradeGate()


class DeploymentSpec(Model):
    study_ref: Reference | None = Field(default=None, description="Source study; required for ensemble and arena.")
    bundles: Annotated[tuple[Digest, ...], Field(max_length=50)] = ()
    top: int = Field(default=3, ge=1, le=50, description="Best complete trials taken as candidates.")
    mode: Literal["single", "ensemble", "arena"] = "single"
    vote: Literal["majority", "mean"] = Field(default="majority", description="How an ensemble decides.")
    gates: Gates = Gates()
    observers: int = Field(
        default=3, ge=0, le=3, description="Intact candidates that failed only on statistics and still trade on paper."
    )
    baselines: tuple[Literal["hodl", "cash"], ...] = Field(default=("hodl", "cash"), max_length=2)
    trader_template: TraderTemplateSpec
    accounts: tuple[Annotated[str, Field(max_length=253)], ...] = Field(
        default=(), max_length=50, description="Secrets of venue accounts; the simulated exchange opens its own."
    )

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.study_ref is None and not self.bundles:
            raise ValueError("name a studyRef or bundles: a Deployment never falls back to another study")
        if self.mode != "single" and self.study_ref is None:
            raise ValueError(f"mode {self.mode} needs studyRef: its source study must be named")
        return self


class GateStatus(Model):
    """One gate's verdict; the full evidence is a row of the record."""

    gate: str
    outcome: Literal["Pass", "Fail", "Error", "Inconclusive", "Pending"]
    measured: float | None = None
    threshold: float | None = None
    message: str = ""


class CandidateStatus(Model):
    bundle_digest: str
    number: int | None = None
    verdict: Literal["Pending", "Passed", "Observer", "Refused", "Soaking", "Promotable"] = "Pending"
    stopped_by: str | None = None
    trader: str | None = None
    gates: tuple[GateStatus, ...] = ()


class DeploymentStatus(Status):
    candidates: tuple[CandidateStatus, ...] = ()
    promoted: str | None = Field(default=None, description="Digest of bundle, risk profile and costs.")


class Deployment(Resource):
    info = KindInfo(
        plural="deployments",
        short_names=("mdep",),
        description="Takes the best bundles of a Study through the gates and trades those that pass.",
        columns=(
            ("Study", "string", ".spec.studyRef.name"),
            ("Mode", "string", ".spec.mode"),
            ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
            ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
            ("Promoted", "string", ".status.promoted"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        rules=(
            ("has(self.studyRef) || self.bundles.size() > 0", "name a studyRef or bundles: there is no default study"),
            ("self.mode == 'single' || has(self.studyRef)", "modes ensemble and arena need studyRef: name the source study"),
            *((rule.replace("self.", "self.traderTemplate."), f"traderTemplate.{message}") for rule, message in VENUE_RULES),
        ),
    )
    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus | None = None
