"""Trader: one bundle on one venue account."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.meta import DIGEST_PATTERN, NAME_PATTERN, URL_PATTERN, KindInfo, Model, Resource, Status, validations
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

    model_config = validations(
        (
            "!self.dailyLossHalts || self.maxDailyLoss > 0.0",
            "dailyLossHalts needs a maxDailyLoss above 0: write both, or neither",
        )
    )

    max_weight: float = Field(
        default=0.30,
        gt=0,
        le=1,
        description="Largest share of equity in one symbol; mode live takes 0.1 at most. Scales targets.",
    )
    max_symbol_notional_usd: float = Field(default=0, ge=0, le=1e9, description="Largest value of a position in one symbol.")
    max_heat: float = Field(
        default=0, ge=0, le=1, description="Largest share of equity lost if every position is sold at its stop."
    )
    max_open_positions: int = Field(default=0, ge=0, le=1000, description="Positions open at a time.")
    max_drawdown: float = Field(default=0.20, ge=0, le=1, description="Loss from the persisted baseline that halts.")
    max_daily_loss: float = Field(
        default=0, ge=0, le=1, description="Loss since the UTC day began after which nothing is bought until the next."
    )
    daily_loss_halts: bool = Field(default=False, description="maxDailyLoss halts the account as well, until it is resumed.")
    daily_profit_target: float = Field(
        default=0, ge=0, le=10, description="Gain since the UTC day began after which nothing is bought until the next."
    )
    max_consecutive_losses: int = Field(default=0, ge=0, le=1000, description="Losing trades in a row that halt.")
    max_rejected_orders: int = Field(default=10, ge=0, le=1000, description="Orders rejected by the venue in a row that halt.")
    max_failed_decisions: int = Field(
        default=3, ge=0, le=1000, description="Decisions in a row that halt because the bundle made none."
    )
    stop: float = Field(default=0.10, ge=0, lt=1, description="Loss from the average entry at which a position is sold.")
    trail: float = Field(
        default=0.015, ge=0, lt=1, description="Fall from the highest price since it armed, at which it is sold."
    )
    trail_arms_at: float = Field(default=0.015, ge=0, le=10, description="Gain that arms the trailing stop.")
    take_profit: float = Field(default=0, ge=0, le=10, description="Gain at which a position is sold.")
    max_hold_bars: int = Field(default=0, ge=0, le=100_000, description="Bars after which a position is sold.")
    max_orders_per_hour: int = Field(default=60, ge=0, le=100_000, description="Orders in an hour of market time.")
    max_orders_per_minute: int = Field(default=0, ge=0, le=10_000, description="Orders in a minute of market time.")
    price_band: float = Field(default=0.50, ge=0, le=10, description="Distance from the last close at which nothing is bought.")
    max_spread: float = Field(default=0.05, ge=0, le=1, description="Share of its mid a quote may be wide to buy at it.")
    max_quote_age_seconds: float = Field(default=60, ge=0, le=86_400, description="Age of a quote to buy at, market time.")

    @model_validator(mode="after")
    def _daily_loss(self) -> Self:
        if self.daily_loss_halts and not self.max_daily_loss:
            raise ValueError("dailyLossHalts needs a maxDailyLoss above 0: write both, or neither")
        return self


LIVE_SECRET_SUFFIX = "-live"  # noqa: S105 - of Secrets with the key of a real account, which nothing but mode live may name
PORTFOLIOS_MAX = 500  # that one process is measured with
POD_LIVE = "pod {} in mode live: a live Trader has a process to itself, remove pod"
LIVE_DRAWDOWN_MAX = 0.20  # of the persisted baseline: the emergency stop of real money is never further away
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
    (
        "!has(self.venue.accountSecretRef)"
        f" || (self.mode == 'live') == self.venue.accountSecretRef.name.endsWith('{LIVE_SECRET_SUFFIX}')",
        "venue.accountSecretRef {self.venue.accountSecretRef.name} in mode {self.mode}: Secrets whose names end in"
        f" {LIVE_SECRET_SUFFIX} are for mode live, which takes no other: name another",
    ),
    (
        f"self.mode != 'live' || (self.risk.maxDrawdown > 0.0 && self.risk.maxDrawdown <= {LIVE_DRAWDOWN_MAX})",
        f"risk.maxDrawdown is the emergency stop of mode live: write more than 0 and at most {LIVE_DRAWDOWN_MAX}",
    ),
)

Mode = Literal["shadow", "paper", "live"]


class TraderTemplateSpec(Model):
    """What a Deployment says of each Trader it makes."""

    model_config = validations(*VENUE_RULES)

    venue: Venue = Field(description="Where orders go.")
    mode: Mode = Field(
        default="paper",
        description="shadow decides and sends nothing; paper sends orders; live only by a Deployment's live section.",
    )
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
        secret = self.venue.account_secret_ref
        if secret is not None and secret.name.endswith(LIVE_SECRET_SUFFIX) != (self.mode == "live"):
            raise ValueError(
                f"venue.accountSecretRef {secret.name} in mode {self.mode}: Secrets whose names end in {LIVE_SECRET_SUFFIX} are"
                " for mode live, which takes no other: name another"
            )
        if self.mode == "live" and not 0 < self.risk.max_drawdown <= LIVE_DRAWDOWN_MAX:
            raise ValueError(
                f"risk.maxDrawdown is the emergency stop of mode live: write more than 0 and at most {LIVE_DRAWDOWN_MAX}"
            )
        return self


class TraderSpec(TraderTemplateSpec):
    bundle_digest: Digest = Field(description="The bundle that decides, by its digest.")
    account: str = Field(min_length=1, max_length=63, description="Venue account; one portfolio is one account.")
    role: Literal["candidate", "observer", "baseline"] = Field(
        default="candidate", description="Part that it plays; only candidates can be promoted."
    )
    dry_run: bool = Field(
        default=True, description="In mode live: decide, review and journal, and send nothing. Other modes do not ask."
    )

    pod: str | None = Field(
        default=None,
        min_length=1,
        max_length=CHILD_NAME_MAX,
        pattern=NAME_PATTERN,
        description="Traders of a namespace with the same pod share one process; absent: one to itself. Never in mode live.",
    )

    @model_validator(mode="after")
    def _pod(self) -> Self:
        if self.pod is not None and self.mode == "live":
            raise ValueError(POD_LIVE.format(self.pod))
        return self

    @property
    def sends(self) -> bool:
        """Whether its orders leave the process."""
        return self.mode == "paper" or (self.mode == "live" and not self.dry_run)


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
        wide=(
            ("Account", "string", ".spec.account"),
            ("Bundle", "string", ".spec.bundleDigest"),
            ("Pod", "string", ".spec.pod"),
        ),
        rules=(("!has(self.pod) || self.mode != 'live'", POD_LIVE.format("{self.pod}")),),
        immutable=("account", "venue", "bundleDigest", "pod"),
    )
    kind: Literal["Trader"] = "Trader"
    spec: TraderSpec = Field(description="Which bundle trades which account, with which limits.")
    status: TraderStatus | None = Field(default=None, description="May it trade, and how it does.")
