"""Deployment: take the best bundles of a Study through the gates, and trade those that pass."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.live import LiveSpec
from cappuccino.api.meta import KindInfo, Model, Reference, Resource, Status
from cappuccino.api.trader import LIVE_SECRET_SUFFIX, PORTFOLIOS_MAX, Digest, TraderTemplateSpec

CANDIDATES_MAX = 50  # in a status
MESSAGE_MAX = 400  # characters of a gate's message in a status
LIVE_DAYS_MIN, LIVE_TRADES_MIN, LIVE_WIN_RATE_MIN, LIVE_DRAWDOWN_MAX = 7, 20, 0.60, 0.15  # of what goes live
LIVE_VENUE = "traderTemplate.venue.kind is {} and live.venue.kind {}: what goes live has soaked on the same venue"
LIVE_GATES = (
    f"gates of a Deployment with a live section ask for at least soak.marketDays {LIVE_DAYS_MIN}, soak.closedTrades"
    f" {LIVE_TRADES_MIN}, grade.minWinRate {LIVE_WIN_RATE_MIN} and at most grade.maxDrawdown {LIVE_DRAWDOWN_MAX}: correct them"
)
LIVE_STOP = "traderTemplate.risk.maxDrawdown is the emergency stop of live trading: write more than 0 and at most 0.2"
LIVE_ACCOUNTS = f"accounts are for paper: Secrets whose names end in {LIVE_SECRET_SUFFIX} are for the section live: name others"
LIVE_TEMPLATE = "traderTemplate.mode live: its Traders soak in shadow or on paper; live trading begins by the section live"


class WindowGate(Model):
    """The one test on the untouched gate window: mean log return > 0 and alpha over HODL > 0."""

    alpha: float = Field(default=0.025, gt=0, lt=0.5, description="One-sided level of each test, before Holm.")
    bootstrap_samples: int = Field(default=2000, ge=200, le=100_000, description="Resamples of the stationary bootstrap.")
    block_hours: float = Field(default=24, gt=0, le=24 * 30, description="Mean length of the bootstrap's blocks.")


class BacktestGate(Model):
    """What the walk-forward record and the backtest must show."""

    min_sharpe: float = Field(default=0.0, description="Walk-forward objective that a candidate needs.")
    min_closed_trades: int = Field(
        default=20, ge=1, le=100_000, description="Trades from flat to flat that a candidate needs, per symbol."
    )
    min_exposure: float = Field(default=0.05, ge=0, le=1, description="Mean invested share of equity that a candidate needs.")
    max_drawdown: float = Field(default=0.5, gt=0, le=1, description="Largest loss from a peak, as a fraction.")


class OverfittingGate(Model):
    """Whether the best of many is more than the luckiest of many."""

    min_dsr: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Deflated Sharpe ratio that a candidate needs; the probabilistic one for a single trial.",
    )
    max_pbo: float = Field(
        default=0.2, ge=0, le=1, description="Largest probability of backtest overfitting; gates only from 16 trials on."
    )


class SoakGate(Model):
    """Shadow or paper, in market time and trades."""

    market_days: float = Field(default=7, ge=0, le=3650, description="Days of market time that must pass.")
    closed_trades: int = Field(default=20, ge=0, le=100_000, description="Trades from flat to flat that must be closed.")


class GradeGate(Model):
    """What promotion asks of the paper record. A grade alone never promotes."""

    min_win_rate: float = Field(default=0.60, ge=0, le=1, description="Share of closed trades that must have a net gain.")
    max_drawdown: float = Field(default=0.15, gt=0, le=1, description="Largest loss from a peak, as a fraction.")


class Gates(Model):
    """What a candidate must clear, in this order. Integrity is checked first and has no threshold."""

    backtest: BacktestGate = Field(default=BacktestGate(), description="Walk-forward record and backtest.")
    window: WindowGate = Field(default=WindowGate(), description="The one test on the untouched gate window.")
    overfitting: OverfittingGate = Field(
        default=OverfittingGate(), description="Deflated Sharpe ratio and probability of backtest overfitting."
    )
    soak: SoakGate = Field(default=SoakGate(), description="Time and trades in shadow or on paper.")
    grade: GradeGate = Field(default=GradeGate(), description="What promotion asks of the paper record.")


class DeploymentSpec(Model):
    study_ref: Reference | None = Field(default=None, description="Source study; required for ensemble and arena.")
    bundles: tuple[Digest, ...] = Field(
        default=(), max_length=50, description="Candidates by digest, instead of the best of a Study."
    )
    top: int = Field(default=3, ge=1, le=50, description="Best complete trials taken as candidates.")
    mode: Literal["single", "ensemble", "arena"] = Field(
        default="single",
        description="single: each by itself; ensemble: one portfolio that votes; "
        "arena: all against each other from equal capital.",
    )
    vote: Literal["majority", "mean"] = Field(
        default="majority", description="How an ensemble decides: by the majority of its members, or by their mean."
    )
    gates: Gates = Field(default=Gates(), description="What a candidate must clear.")
    observers: int = Field(
        default=3, ge=0, le=3, description="How many intact candidates that failed only on statistics still trade on paper."
    )
    baselines: tuple[Literal["hodl", "cash"], ...] = Field(
        default=("hodl", "cash"), max_length=2, description="Baselines that are traded beside the candidates."
    )
    trader_template: TraderTemplateSpec = Field(description="What each Trader is made from.")
    accounts: tuple[Annotated[str, Field(max_length=253)], ...] = Field(
        default=(), max_length=50, description="Secrets of venue accounts; the simulated exchange opens its own."
    )
    portfolios_per_pod: int = Field(
        default=1,
        ge=1,
        le=PORTFOLIOS_MAX,
        description="How many of its Traders share one process; 1: each has its own, as a live one always does.",
    )
    live: LiveSpec | None = Field(
        default=None, description="Where the approved candidate trades real money; absent: an approval starts nothing."
    )

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.study_ref is None and not self.bundles:
            raise ValueError("name a studyRef or bundles: a Deployment never falls back to another study")
        if self.mode != "single" and self.study_ref is None:
            raise ValueError(f"mode {self.mode} needs studyRef: its source study must be named")
        return self

    @model_validator(mode="after")
    def _real_money(self) -> Self:
        template, gates = self.trader_template, self.gates
        if template.mode == "live":
            raise ValueError(LIVE_TEMPLATE)
        if any(name.endswith(LIVE_SECRET_SUFFIX) for name in self.accounts):
            raise ValueError(LIVE_ACCOUNTS)
        if self.live is None:
            return self
        if template.venue.kind != self.live.venue.kind:
            raise ValueError(LIVE_VENUE.format(template.venue.kind, self.live.venue.kind))
        if not 0 < template.risk.max_drawdown <= 0.2:
            raise ValueError(LIVE_STOP)
        soaked = gates.soak.market_days >= LIVE_DAYS_MIN and gates.soak.closed_trades >= LIVE_TRADES_MIN
        if not (soaked and gates.grade.min_win_rate >= LIVE_WIN_RATE_MIN and gates.grade.max_drawdown <= LIVE_DRAWDOWN_MAX):
            raise ValueError(LIVE_GATES)
        return self


class GateStatus(Model):
    """One gate's verdict; the full evidence is a row of the record."""

    gate: str = Field(description="Name of the gate.")
    outcome: Literal["Pass", "Fail", "Error", "Inconclusive", "Pending"] = Field(
        description="What the gate said. Error: the test could not run; Inconclusive: too little to tell."
    )
    measured: float | None = Field(default=None, description="What was measured.")
    threshold: float | None = Field(default=None, description="What it was held against.")
    message: str = Field(default="", description="What was found, in one sentence.")


class CandidateStatus(Model):
    """One bundle on its way through the gates."""

    bundle_digest: str = Field(description="Digest of the candidate.")
    number: int | None = Field(default=None, description="Number of its trial.")
    verdict: Literal["Pending", "Passed", "Observer", "Refused", "Soaking", "Promotable", "Promoted"] = Field(
        default="Pending",
        description="Where it stands. Observer: intact, failed only on statistics, trades on paper and is never promoted.",
    )
    stopped_by: str | None = Field(default=None, description="The first gate that it did not pass.")
    trader: str | None = Field(default=None, description="The Trader that runs it.")
    gates: tuple[GateStatus, ...] = Field(default=(), description="Verdicts of the gates so far.")


class DeploymentStatus(Status):
    candidates: tuple[CandidateStatus, ...] = Field(default=(), description="Candidates in the order of the search's ranking.")
    promoted: str | None = Field(default=None, description="What is promoted: digest of bundle, risk, costs and live.")


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
            ("Promoted", "string", '.status.conditions[?(@.type=="Promoted")].reason'),
            ("Live", "string", '.status.conditions[?(@.type=="Live")].reason'),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        rules=(
            (
                "has(self.studyRef) || self.bundles.size() > 0",
                "name a studyRef or bundles: a Deployment never falls back to another study",
            ),
            ("self.mode == 'single' || has(self.studyRef)", "mode {self.mode} needs studyRef: its source study must be named"),
            ("self.traderTemplate.mode != 'live'", LIVE_TEMPLATE),
            (f"!self.accounts.exists(name, name.endsWith('{LIVE_SECRET_SUFFIX}'))", LIVE_ACCOUNTS),
            (
                "!has(self.live) || self.traderTemplate.venue.kind == self.live.venue.kind",
                LIVE_VENUE.format("{self.traderTemplate.venue.kind}", "{self.live.venue.kind}"),
            ),
            (
                "!has(self.live)"
                " || (self.traderTemplate.risk.maxDrawdown > 0.0 && self.traderTemplate.risk.maxDrawdown <= 0.2)",
                LIVE_STOP,
            ),
            (
                f"!has(self.live) || (self.gates.soak.marketDays >= {LIVE_DAYS_MIN}.0"
                f" && self.gates.soak.closedTrades >= {LIVE_TRADES_MIN}"
                f" && self.gates.grade.minWinRate >= {LIVE_WIN_RATE_MIN}"
                f" && self.gates.grade.maxDrawdown <= {LIVE_DRAWDOWN_MAX})",
                LIVE_GATES,
            ),
        ),
    )
    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec = Field(description="Which bundles, through which gates, traded how.")
    status: DeploymentStatus | None = Field(
        default=None, description="Which gate stopped which candidate, and who is promoted."
    )
