"""Trader: one bundle on one venue account."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.meta import KindInfo, Model, Resource, Status

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]


class SecretReference(Model):
    name: str = Field(min_length=1, max_length=253)


class Venue(Model):
    """Where orders go. Only the simulated venue has a URL: no manifest can send real keys elsewhere."""

    kind: Literal["simulated", "alpaca", "coinbase"]
    url: str | None = Field(default=None, pattern=r"^https?://", max_length=512)
    account_secret_ref: SecretReference | None = Field(default=None, description="Key and secret of the account.")

    @model_validator(mode="after")
    def _url(self) -> Self:
        if self.url is not None and self.kind != "simulated":
            raise ValueError(f"url is allowed for the simulated venue only, not for {self.kind}: remove it")
        return self


class RiskLimits(Model):
    """Checked before every order; 0 switches a limit off."""

    max_weight: float = Field(default=0.30, gt=0, le=1, description="Of equity, in one symbol.")
    max_drawdown: float = Field(default=0.20, ge=0, le=1, description="Loss from the persisted baseline that halts.")
    stop: float = Field(default=0.10, ge=0, lt=1)
    trail: float = Field(default=0.015, ge=0, lt=1)
    trail_arms_at: float = Field(default=0.015, ge=0, le=10)
    take_profit: float = Field(default=0, ge=0, le=10)
    max_hold_bars: int = Field(default=0, ge=0, le=100_000)
    max_orders_per_hour: int = Field(default=60, ge=0, le=100_000, description="Of market time.")


Mode = Literal["shadow", "paper", "live"]


class TraderTemplateSpec(Model):
    """What a Deployment says of each Trader it makes."""

    venue: Venue
    mode: Mode = "paper"
    capital_usd: float = Field(default=10_000, gt=0, le=1e9)
    risk: RiskLimits = RiskLimits()
    on_halt: Literal["hold", "cancel", "flatten"] = "cancel"
    on_delete: Literal["flatten", "hold"] = "flatten"
    max_restarts: int = Field(default=10, ge=0, le=1000, description="In a row, with exponential back-off, then Stalled.")

    @model_validator(mode="after")
    def _mode(self) -> Self:
        if self.mode == "live" and self.venue.kind == "simulated":
            raise ValueError("mode live needs a real venue: use paper on the simulated one")
        if self.mode != "shadow" and self.venue.kind != "simulated" and self.venue.account_secret_ref is None:
            raise ValueError(f"venue.accountSecretRef is required for mode {self.mode} on {self.venue.kind}")
        return self


VENUE_RULES = (
    ("!has(self.venue.url) || self.venue.kind == 'simulated'", "venue.url is allowed for the simulated venue only: remove it"),
    ("self.mode != 'live' || self.venue.kind != 'simulated'", "mode live needs a real venue: use paper on the simulated one"),
    (
        "self.mode == 'shadow' || self.venue.kind == 'simulated' || has(self.venue.accountSecretRef)",
        "venue.accountSecretRef is required on a real venue",
    ),
)


class TraderSpec(TraderTemplateSpec):
    bundle_digest: Digest
    account: str = Field(min_length=1, max_length=63, description="Venue account; one portfolio is one account.")
    role: Literal["candidate", "observer", "baseline"] = Field(
        default="candidate", description="Only candidates can be promoted."
    )


class TraderStatus(Status):
    account: str | None = None
    equity_usd: float | None = None
    drawdown: float | None = None
    last_bar_at: str | None = Field(default=None, description="Market time.")
    orders: int | None = None
    fills: int | None = None
    restarts: int | None = None
    halted_reason: str | None = None


class Trader(Resource):
    info = KindInfo(
        plural="traders",
        short_names=("mtd",),
        description="One bundle trading one venue account.",
        columns=(
            ("Mode", "string", ".spec.mode"),
            ("Role", "string", ".spec.role"),
            ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
            ("Halted", "string", '.status.conditions[?(@.type=="Halted")].status'),
            ("Equity", "number", ".status.equityUsd"),
            ("LastBar", "string", ".status.lastBarAt"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        rules=(
            *VENUE_RULES,
            ("self.account == oldSelf.account", "account is immutable: delete the Trader and make another"),
        ),
    )
    kind: Literal["Trader"] = "Trader"
    spec: TraderSpec
    status: TraderStatus | None = None
