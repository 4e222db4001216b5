"""Study: what to search, on what, how it is judged, and with which budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.dataset import FeatureEntry, Symbol, TimeframeName
from cappuccino.api.meta import KindInfo, Model, Reference, Resource, Status


class Parameter(Model):
    """One dimension of the search space. Numeric: low and high; categorical: choices (numbers as text)."""

    type: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool | None = None
    step: float | None = Field(default=None, gt=0)
    choices: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _shape(self) -> Self:
        if self.type == "categorical":
            if not self.choices:
                raise ValueError("a categorical parameter needs choices")
            if self.low is not None or self.high is not None:
                raise ValueError("a categorical parameter has choices, not low and high")
        else:
            if self.low is None or self.high is None:
                raise ValueError(f"a {self.type} parameter needs low and high")
            if self.low > self.high:
                raise ValueError(f"low {self.low} is above high {self.high}: swap them")
            if self.log and self.low <= 0:
                raise ValueError(f"log scale needs low above 0, got {self.low}")
            if self.choices:
                raise ValueError(f"a {self.type} parameter has low and high, not choices")
        return self


SearchSpace = Annotated[dict[str, Parameter], Field(max_length=64)]
Values = Annotated[dict[str, str], Field(max_length=64, description="Fixed values; numbers and booleans written as text.")]


class StrategyChoice(Model):
    """Which strategy a Trial makes; `parameters` are fixed, the search space varies the rest."""

    kind: Literal["ppo", "trend"] = Field(description="ppo trains a policy in torch; trend is a rule with parameters.")
    parameters: Values = {}


class Phase(Model):
    """One stage of the search. The winner's parameters are frozen in the next one."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,30}$")
    trials: int = Field(ge=1, le=1_000_000)
    search_space: SearchSpace = Field(
        description="Names of the strategy's parameters, or timeframe, interval (bars between decisions), features (set names)."
    )


class Validation(Model):
    """dev | gap | gate window. Walk-forward folds expand inside dev; folds are never concatenated."""

    folds: int = Field(default=3, ge=1, le=10)
    gate_bars: int = Field(default=720, ge=50, le=1_000_000, description="The untouched gate window, in bars.")
    gap_bars: int = Field(default=48, ge=0, le=10_000, description="Purge and embargo; at least lookback and longest hold.")
    min_exposure: float = Field(default=0.05, ge=0, le=1, description="Mean invested share below which a trial fails.")
    min_closed_trades: int = Field(default=20, ge=1, le=100_000)


class Objective(Model):
    metric: Literal["sharpe"] = "sharpe"
    direction: Literal["maximize"] = "maximize"


class Sampler(Model):
    type: Literal["tpe", "random"] = "tpe"
    seed: int = Field(default=0, ge=0, le=2**53)
    startup_trials: int = Field(default=10, ge=1, le=10_000)


class Pruner(Model):
    type: Literal["none", "median"] = "median"
    startup_trials: int = Field(default=5, ge=1, le=10_000)


class Budget(Model):
    trials: int = Field(default=20, ge=1, le=1_000_000, description="Trials in all; phases, if any, add up to it.")
    max_failed_trials: int = Field(default=10, ge=0, le=1_000_000, description="More than these and the Study fails.")


class SizingSpec(Model):
    max_weight: float = Field(default=0.30, gt=0, le=1)


class BarriersSpec(Model):
    """Fractions of the average entry; 0 switches one off."""

    stop: float = Field(default=0.10, ge=0, lt=1)
    take_profit: float = Field(default=0, ge=0, le=10)
    trail: float = Field(default=0.015, ge=0, lt=1)
    trail_arms_at: float = Field(default=0.015, ge=0, le=10)
    max_hold_bars: int = Field(default=0, ge=0, le=100_000)


class CostsSpec(Model):
    fee_bps: float = Field(default=25, ge=0, le=1000)
    slippage_bps: float = Field(default=15, ge=0, le=1000, description="Per side.")
    slippage_by_symbol_bps: dict[Symbol, float] = Field(default={}, max_length=200)


class TrialTemplate(Model):
    """How a Trial is trained: capital and costs in the market, limits on its workload."""

    capital_usd: float = Field(default=10_000, gt=0, le=1e9)
    sizing: SizingSpec = SizingSpec()
    barriers: BarriersSpec = BarriersSpec()
    costs: CostsSpec = CostsSpec()
    timeout_seconds: int = Field(default=6 * 3600, ge=10, le=30 * 86400)
    retries: int = Field(default=3, ge=0, le=100, description="Of a crashed trainer; a preemption never counts.")
    checkpoint_seconds: int = Field(default=30, ge=1, le=86400)


class StudySpec(Model):
    dataset_ref: Reference
    symbols: tuple[Symbol, ...] = Field(default=(), max_length=200, description="Empty: all of the Dataset.")
    timeframe: TimeframeName | None = Field(default=None, description="Absent: the Dataset's.")
    features: tuple[FeatureEntry, ...] = Field(default=(), max_length=64, description="Empty: the Dataset's.")
    lookback: int = Field(default=1, ge=1, le=512, description="Bars of features that an observation holds.")
    strategy: StrategyChoice
    search_space: SearchSpace = {}
    phases: tuple[Phase, ...] = Field(default=(), max_length=8)
    objective: Objective = Objective()
    validation: Validation = Validation()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    budget: Budget = Budget()
    parallelism: int = Field(default=1, ge=0, le=10_000, description="Trials at a time; 0 pauses. Mutable.")
    suspend: bool = Field(default=False, description="Mutable.")
    template: TrialTemplate = TrialTemplate()
    finished_trials_kept: int = Field(default=100, ge=0, le=100_000, description="Trial objects; records are kept for good.")

    @model_validator(mode="after")
    def _space(self) -> Self:
        if self.phases:
            if self.search_space:
                raise ValueError("searchSpace and phases exclude each other: move the space into a phase")
            total = sum(phase.trials for phase in self.phases)
            if total != self.budget.trials:
                raise ValueError(f"phases have {total} trials and budget.trials is {self.budget.trials}: make them equal")
        return self


class TrialCounts(Model):
    waiting: int = 0
    running: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0


class BestTrial(Model):
    number: int
    objective: float


class StudyStatus(Status):
    snapshot: str | None = Field(default=None, description="Dataset snapshot pinned on the first pass.")
    gate_starts_at: str | None = Field(default=None, description="Pinned start of the untouched window.")
    phase: str | None = None
    trials: TrialCounts | None = None
    active: int | None = Field(default=None, description="Trials whose workload exists.")
    best: BestTrial | None = None


class Study(Resource):
    info = KindInfo(
        plural="studies",
        short_names=("mst",),
        description="A search over strategy parameters, judged out of sample.",
        columns=(
            ("Strategy", "string", ".spec.strategy.kind"),
            ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
            ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
            ("Complete", "integer", ".status.trials.complete"),
            ("Failed", "integer", ".status.trials.failed"),
            ("Best", "number", ".status.best.objective"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        rules=(
            (
                "self.phases.size() == 0 || self.searchSpace.size() == 0",
                "searchSpace and phases exclude each other: move the space into a phase",
            ),
            (
                "self.phases.size() == 0 || self.phases.map(p, p.trials).sum() == self.budget.trials",
                "the phases' trials must add up to budget.trials",
            ),
        ),
        scale=(".spec.parallelism", ".status.active"),
    )
    kind: Literal["Study"] = "Study"
    spec: StudySpec
    status: StudyStatus | None = None


MUTABLE_STUDY_FIELDS = ("parallelism", "suspend", "budget", "finishedTrialsKept")


def pinned(spec: StudySpec) -> dict[str, Any]:
    """The part of a Study's spec that must not change once it searches."""
    document = spec.to_json()
    return {key: value for key, value in document.items() if key not in MUTABLE_STUDY_FIELDS}
