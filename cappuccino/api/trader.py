"""Trader: one bundle on one venue account."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.meta import DIGEST_PATTERN, URL_PATTERN, KindInfo, Model, Resource, Status, validations
from cappuccino.core.identifiers import CHILD_NAME_MAX

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN, max_length=64)]


class SecretReference(Model):
    """A Secret in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the Secret.")


class Venue(Model):
    """Where orders go. Only the simulated venue has a URL: no manifest can send real keys elsewhere."""

    kind: Literal["simulated", "alpaca", "coinbase"] = Field(
        description="Kind of the venue; simulated is the exchange of this project."
    )
    url: str | None = Field(
        default=None,
        pattern=URL_PATTERN,
        max_length=512,
        description="URL of a simulated exchange elsewhere; absent: the cluster's own.",
    )
    account_secret_ref: SecretReference | None = Field(
        default=None, description="Secret with key_id and secret_key of the account; a shadow only looks with them."
    )

    @model_validator(mode="after")
    def _url(self) -> Self:
        if self.url is not None and self.kind != "simulated":
            raise ValueError(f"url is allowed for the simulated venue only, not for {self.kind}: remove it")
        return self


class RiskLimits(Model):
    """Checked before every order; 0 switches a limit off."""

    max_weight: float = Field(default=0.30, gt=0, le=1, description="Largest share of equity in one symbol.")
    max_drawdown: float = Field(default=0.20, ge=0, le=1, description="Loss from the persisted baseline that halts.")
    stop: float = Field(default=0.10, ge=0, lt=1, description="Loss from the average entry at which a position is sold.")
    trail: float = Field(
        default=0.015, ge=0, lt=1, description="Fall from the highest price since it armed, at which it is sold."
    )
    trail_arms_at: float = Field(default=0.015, ge=0, le=10, description="Gain that arms the trailing stop.")
    take_profit: float = Field(default=0, ge=0, le=10, description="Gain at which a position is sold.")
    max_hold_bars: int = Field(default=0, ge=0, le=100_000, description="Bars after which a position is sold.")
    max_orders_per_hour: int = Field(default=60, ge=0, le=100_000, description="Orders in an hour of market time.")


VENUE_RULES = (
    (
        "!has(self.venue.url) || self.venue.kind == 'simulated'",
        "venue.url is allowed for the simulated venue only, not for {self.venue.kind}: remove it",
    ),
    ("self.mode != 'live' || self.venue.kind != 'simulated'", "mode live needs a real venue: use paper on the simulated one"),
    (
        "self.mode == 'shadow' || self.venue.kind == 'simulated' || has(self.venue.accountSecretRef)",
        "venue.accountSecretRef is required for mode {self.mode} on {self.venue.kind}: name a Secret",
    ),
)

Mode = Literal["shadow", "paper", "live"]


class TraderTemplateSpec(Model):
    """What a Deployment says of each Trader it makes."""

    model_config = validations(*VENUE_RULES)

    venue: Venue = Field(description="Where orders go.")
    mode: Mode = Field(default="paper", description="shadow decides and sends nothing; paper and live send orders.")
    capital_usd: float = Field(default=10_000, gt=0, le=1e9, description="Starting capital of the account.")
    risk: RiskLimits = Field(default=RiskLimits(), description="Limits checked before every order.")
    on_halt: Literal["hold", "cancel", "flatten"] = Field(
        default="cancel",
        description="A halt stops new orders; then it leaves all as it is, cancels what is open, or sells as well.",
    )
    on_delete: Literal["flatten", "hold"] = Field(
        default="flatten", description="What becomes of the positions when it is deleted: sold, or left as they are."
    )
    max_restarts: int = Field(
        default=10, ge=0, le=1000, description="Crashes in a row, each after a longer pause, after which it is Stalled."
    )

    @model_validator(mode="after")
    def _mode(self) -> Self:
        if self.mode == "live" and self.venue.kind == "simulated":
            raise ValueError("mode live needs a real venue: use paper on the simulated one")
        if self.mode != "shadow" and self.venue.kind != "simulated" and self.venue.account_secret_ref is None:
            raise ValueError(f"venue.accountSecretRef is required for mode {self.mode} on {self.venue.kind}: name a Secret")
        return self


class TraderSpec(TraderTemplateSpec):
    bundle_digest: Digest = Field(description="The bundle that decides, by its digest.")
    account: str = Field(min_length=1, max_length=63, description="Venue account; one portfolio is one account.")
    role: Literal["candidate", "observer", "baseline"] = Field(
        default="candidate", description="Part that it plays; only candidates can be promoted."
    )


class TraderStatus(Status):
    account: str | None = Field(default=None, description="Venue account that it trades.")
    equity_usd: float | None = Field(default=None, description="Cash and positions at the last close.")
    drawdown: float | None = Field(default=None, description="Loss from the highest equity, as a fraction.")
    last_bar_at: str | None = Field(default=None, description="Open time of the last bar acted on, in market time.")
    orders: int | None = Field(default=None, description="Orders sent.")
    fills: int | None = Field(default=None, description="Executions received.")
    measured_at: str | None = Field(default=None, description="When these figures were taken; at most once a minute.")
    restarts: int | None = Field(default=None, description="Restarts of its process.")
    halted_reason: str | None = Field(default=None, description="Why it is halted; only `cappuccino resume` lifts it.")


class Trader(Resource):
    info = KindInfo(
        plural="traders",
        name_max=CHILD_NAME_MAX,
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
        wide=(("Account", "string", ".spec.account"), ("Bundle", "string", ".spec.bundleDigest")),
        immutable=("account",),
    )
    kind: Literal["Trader"] = "Trader"
    spec: TraderSpec = Field(description="Which bundle trades which account, with which limits.")
    status: TraderStatus | None = Field(default=None, description="May it trade, and how it does.")
