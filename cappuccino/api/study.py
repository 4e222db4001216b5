"""Study: what to search, on what, how it is judged, and with which budget."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cappuccino.api.dataset import FeatureEntry, Symbol, TimeframeName
from cappuccino.api.meta import (
    QUANTITY_PATTERN,
    QUEUE_PATTERN,
    SYMBOL_PATTERN,
    KindInfo,
    Model,
    Reference,
    Resource,
    Status,
    validations,
)
from cappuccino.api.search import Budget, Constraints, Objective, Pruner, Sampler, WarmStart
from cappuccino.search.goal import Goal

Text = Annotated[str, Field(max_length=256)]


class Parameter(Model):
    """One dimension of the search space. Numeric: low and high; categorical: choices (numbers as text)."""

    model_config = validations(
        ("self.type == 'categorical' || (has(self.low) && has(self.high))", "a {self.type} parameter needs low and high"),
        (
            "!has(self.low) || !has(self.high) || self.low <= self.high",
            "low {self.low} is above high {self.high}: swap them",
        ),
        ("self.type != 'categorical' || has(self.choices)", "a categorical parameter needs choices"),
        (
            "self.type != 'categorical' || (!has(self.low) && !has(self.high))",
            "a categorical parameter has choices, not low and high",
        ),
        ("self.type == 'categorical' || !has(self.choices)", "a {self.type} parameter has low and high, not choices"),
        (
            "!has(self.log) || !self.log || !has(self.low) || self.low > 0.0",
            "log scale needs low above 0, got {self.low}: raise it or drop log",
        ),
    )

    type: Literal["float", "int", "categorical"] = Field(description="Numeric with low and high, or categorical with choices.")
    low: float | None = Field(default=None, description="Smallest value, inclusive.")
    high: float | None = Field(default=None, description="Largest value, inclusive.")
    log: bool | None = Field(default=None, description="Sample on a logarithmic scale; low must then be above 0.")
    step: float | None = Field(
        default=None, gt=0, description="Width of the grid from low on which values are sampled; absent: no grid."
    )
    choices: tuple[Text, ...] | None = Field(
        default=None, min_length=1, max_length=64, description="Values of a categorical parameter, as text."
    )

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
                raise ValueError(f"log scale needs low above 0, got {self.low}: raise it or drop log")
            if self.choices:
                raise ValueError(f"a {self.type} parameter has low and high, not choices")
        return self


SearchSpace = Annotated[dict[str, Parameter], Field(max_length=64, description="Parameter name to the values it may take.")]
Values = Annotated[dict[str, Text], Field(max_length=64, description="Fixed values; numbers and booleans written as text.")]


class StrategyChoice(Model):
    """Which strategy a Trial makes; `parameters` are fixed, the search space varies the rest."""

    kind: Literal["ppo", "trend"] = Field(description="ppo trains a policy in torch; trend is a rule with parameters.")
    parameters: Values = Field(default={}, description="Fixed values by parameter name; numbers and booleans as text.")


class Phase(Model):
    """One stage of the search. The winner's parameters are frozen in the next one."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,30}$", max_length=30, description="Name of the phase, shown in its trials.")
    trials: int = Field(ge=1, le=1_000_000, description="Trials of this phase.")
    search_space: SearchSpace = Field(
        description="Names of the strategy's parameters, or timeframe, interval (bars between decisions), features (set names)."
    )


class Validation(Model):
    """dev | gap | gate window. Walk-forward folds expand inside dev; folds are never concatenated."""

    folds: int = Field(default=3, ge=1, le=10, description="Expanding walk-forward folds; the objective is their mean.")
    gate_bars: int = Field(default=720, ge=50, le=1_000_000, description="The untouched gate window, in bars.")
    gap_bars: int = Field(default=48, ge=0, le=10_000, description="Purge and embargo; at least lookback and longest hold.")
    min_exposure: float = Field(default=0.05, ge=0, le=1, description="Mean invested share below which a trial fails.")
    min_closed_trades: int = Field(
        default=20, ge=1, le=100_000, description="Trades from flat to flat, over all folds, below which a trial fails."
    )


class SizingSpec(Model):
    """From an action to a target weight."""

    max_weight: float = Field(default=0.30, gt=0, le=1, description="Share of equity in one symbol at a full action.")


class BarriersSpec(Model):
    """Fractions of the average entry; 0 switches one off."""

    stop: float = Field(default=0.10, ge=0, lt=1, description="Loss at which a position is sold.")
    take_profit: float = Field(default=0, ge=0, le=10, description="Gain at which a position is sold.")
    trail: float = Field(
        default=0.015, ge=0, lt=1, description="Fall from the highest price since it armed, at which a position is sold."
    )
    trail_arms_at: float = Field(default=0.015, ge=0, le=10, description="Gain that arms the trailing stop.")
    max_hold_bars: int = Field(default=0, ge=0, le=100_000, description="Bars after which a position is sold.")


class CostsSpec(Model):
    """What trading costs, per side, in basis points of the notional."""

    model_config = validations(
        (
            f"self.slippageBySymbolBps.all(s, s.matches('{SYMBOL_PATTERN}'))",
            "slippageBySymbolBps has {self.slippageBySymbolBps.map(s, s)}: write each symbol as BASE/QUOTE, as BTC/USD",
        ),
    )

    fee_bps: float = Field(default=25, ge=0, le=1000, description="Fee, taken from the asset received.")
    slippage_bps: float = Field(default=15, ge=0, le=1000, description="Distance of a fill from the quote, against us.")
    slippage_by_symbol_bps: dict[str, float] = Field(default={}, max_length=200, description="Slippage of single symbols.")

    @field_validator("slippage_by_symbol_bps")
    @classmethod
    def _symbols(cls, value: dict[str, float]) -> dict[str, float]:
        if wrong := [symbol for symbol in value if not re.match(SYMBOL_PATTERN, symbol)]:
            raise ValueError(f"{wrong[0]!r} is not a symbol: write BASE/QUOTE, as BTC/USD")
        return value


Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)]
Labels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)]


class Toleration(Model):
    """As in a PodSpec."""

    key: str | None = Field(default=None, max_length=317, description="Taint that is tolerated; absent: all.")
    operator: Literal["Equal", "Exists"] | None = Field(
        default=None, description="Exists tolerates every value of the key; absent: Equal."
    )
    value: str | None = Field(default=None, max_length=63, description="Value of the taint, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; absent: all."
    )
    toleration_seconds: int | None = Field(default=None, ge=0, le=86400, description="How long NoExecute is tolerated.")


class TrialPod(Model):
    """What a trial's pod asks of a Kubernetes cluster; without effect on a laptop."""

    requests: dict[str, Quantity] = Field(
        default={"cpu": "1", "memory": "2Gi"}, max_length=16, description="Resources that scheduling counts."
    )
    limits: dict[str, Quantity] = Field(
        default={}, max_length=16, description='Upper bounds; a GPU is nvidia.com/gpu: "1", or a MIG profile.'
    )
    resource_claims: tuple[Annotated[str, Field(max_length=253)], ...] = Field(
        default=(), max_length=8, description="Names of ResourceClaimTemplates, for devices by dynamic allocation."
    )
    node_selector: Labels = Field(default={}, description="Labels that the node must have.")
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16, description="Taints that are tolerated.")
    shared_memory: Quantity = Field(default="1Gi", description="Size of /dev/shm.")
    queue: str = Field(
        default="",
        max_length=63,
        pattern=QUEUE_PATTERN,
        description="Kueue LocalQueue, whose admission is waited for; empty: none.",
    )


class TrialTemplate(Model):
    """How a Trial is trained: capital and costs in the market, limits on its workload."""

    capital_usd: float = Field(default=10_000, gt=0, le=1e9, description="Starting cash of every episode and backtest.")
    sizing: SizingSpec = Field(default=SizingSpec(), description="From an action to a target weight.")
    barriers: BarriersSpec = Field(
        default=BarriersSpec(), description="Exits that need no decision; fractions of the average entry."
    )
    costs: CostsSpec = Field(default=CostsSpec(), description="Fees and slippage.")
    pack: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Trials that share one workload; policies of one network shape train in it as one batched model.",
    )
    timeout_seconds: int = Field(
        default=6 * 3600,
        ge=10,
        le=30 * 86400,
        description="Wall time of one trial, retries included; a pack has that of all its trials.",
    )
    retries: int = Field(default=3, ge=0, le=100, description="Restarts of a crashed trainer; a preemption never counts.")
    checkpoint_seconds: int = Field(default=30, ge=1, le=86400, description="Wall time between checkpoints.")
    pod: TrialPod = Field(default=TrialPod(), description="What its pod asks of a Kubernetes cluster.")


class StudySpec(Model):
    dataset_ref: Reference = Field(description="The Dataset to search on; its snapshot is pinned on the first pass.")
    symbols: tuple[Symbol, ...] = Field(
        default=(), max_length=200, description="Symbols that are traded; empty: all of the Dataset."
    )
    timeframe: TimeframeName | None = Field(default=None, description="Timeframe of the bars; absent: the Dataset's.")
    features: tuple[FeatureEntry, ...] = Field(
        default=(), max_length=64, description="Features that a strategy sees; empty: the Dataset's."
    )
    lookback: int = Field(default=1, ge=1, le=512, description="Bars of features that an observation holds.")
    strategy: StrategyChoice = Field(description="What a trial makes, and its fixed parameters.")
    search_space: SearchSpace = Field(default={}, description="What varies: parameter name to the values it may take.")
    phases: tuple[Phase, ...] = Field(default=(), max_length=8, description="Stages in order, instead of searchSpace.")
    objective: Objective = Field(default=Objective(), description="What a trial is scored by.")
    constraints: Constraints = Field(default=Constraints(), description="What a trial must keep to, or it is never chosen.")
    validation: Validation = Field(default=Validation(), description="How the bars are split, and what a trial needs to count.")
    sampler: Sampler = Field(default=Sampler(), description="How parameters are chosen.")
    pruner: Pruner = Field(default=Pruner(), description="When a trial is stopped early.")
    warm_start: WarmStart | None = Field(default=None, description="What is taken over from an earlier Study; absent: nothing.")
    budget: Budget = Field(default=Budget(), description="How much is searched. May grow while the search runs.")
    parallelism: int = Field(
        default=1, ge=0, le=10_000, description="Trials at a time; 0 pauses. May change while the search runs."
    )
    suspend: bool = Field(default=False, description="While true no new trial starts. May change while the search runs.")
    template: TrialTemplate = Field(default=TrialTemplate(), description="How each trial is trained.")
    finished_trials_kept: int = Field(
        default=100,
        ge=0,
        le=100_000,
        description="Finished Trial objects that are kept; the oldest go first, and their records stay.",
    )

    @model_validator(mode="after")
    def _space(self) -> Self:
        if self.phases:
            if self.search_space:
                raise ValueError("searchSpace and phases exclude each other: move the space into a phase")
            total = sum(phase.trials for phase in self.phases)
            if total != self.budget.trials:
                raise ValueError(f"phases have {total} trials and budget.trials is {self.budget.trials}: make them equal")
            if self.warm_start:
                raise ValueError("warmStart and phases exclude each other: write the earlier winner into strategy.parameters")
            if self.budget.stop_early:
                raise ValueError("budget.stopEarly and phases exclude each other: make each phase a Study of its own")
        return self

    @model_validator(mode="after")
    def _pruner(self) -> Self:
        if self.pruner.type != "none" and self.objective.also_minimize:
            raise ValueError(
                f"pruner {self.pruner.type} sees Sharpe alone and objective.alsoMinimize asks for more: use type none"
            )
        if self.pruner.type == "asha" and self.pruner.min_folds >= self.validation.folds:
            raise ValueError(
                f"pruner asha has its first rung after {self.pruner.min_folds} of {self.validation.folds} folds: "
                "raise validation.folds, or use type median"
            )
        return self

    @property
    def goal(self) -> Goal:
        return Goal(minimize=self.objective.also_minimize, limits=self.constraints.limits())


class TrialCounts(Model):
    """Of the record, not of the objects that are kept."""

    waiting: int = Field(default=0, description="Trials that are sampled and not started.")
    running: int = Field(default=0, description="Trials that run.")
    complete: int = Field(default=0, description="Trials with an objective.")
    pruned: int = Field(default=0, description="Trials that were stopped early.")
    failed: int = Field(default=0, description="Trials without an objective; each says why.")


class BestTrial(Model):
    """The complete trial with the highest objective, of those that keep the constraints."""

    number: int = Field(description="Number of that trial in the Study.")
    objective: float = Field(description="Objective of that trial.")


class FrontTrial(Model):
    """A trial of the Pareto front: none equals or beats it in every objective."""

    number: int = Field(description="Number of that trial in the Study.")
    objective: float = Field(description="Objective of that trial.")
    max_drawdown: float | None = Field(default=None, description="Its deepest drawdown of any fold.")
    turnover: float | None = Field(default=None, description="Its traded value over equity a year, mean over the folds.")


class StudyStatus(Status):
    snapshot: str | None = Field(default=None, description="Dataset snapshot pinned on the first pass.")
    gate_starts_at: str | None = Field(default=None, description="Pinned start of the untouched window.")
    phase: str | None = Field(default=None, description="The phase being searched.")
    trials: TrialCounts | None = Field(default=None, description="How many trials there are in each state.")
    active: int | None = Field(default=None, description="Trials that have not finished: what parallelism bounds.")
    best: BestTrial | None = Field(default=None, description="Best trial so far.")
    front: tuple[FrontTrial, ...] | None = Field(
        default=None,
        description="With objective.alsoMinimize: the Pareto front, best objective first; of a long one an even choice.",
    )
    front_size: int | None = Field(default=None, description="How many trials the whole front has.")
    warm_start_uid: str | None = Field(default=None, description="Uid of the Study that this one started from.")


MUTABLE_STUDY_FIELDS = ("parallelism", "suspend", "budget", "finishedTrialsKept")
PINNED_STUDY_FIELDS = tuple(
    info.alias for info in StudySpec.model_fields.values() if info.alias and info.alias not in MUTABLE_STUDY_FIELDS
)


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
                "phases have {self.phases.map(p, p.trials).sum()} trials and budget.trials is {self.budget.trials}: "
                "make them equal",
            ),
            (
                "!has(self.warmStart) || self.phases.size() == 0",
                "warmStart and phases exclude each other: write the earlier winner into strategy.parameters",
            ),
            (
                "!has(self.budget.stopEarly) || self.phases.size() == 0",
                "budget.stopEarly and phases exclude each other: make each phase a Study of its own",
            ),
            (
                "self.pruner.type == 'none' || self.objective.alsoMinimize.size() == 0",
                "pruner {self.pruner.type} sees Sharpe alone and objective.alsoMinimize asks for more: use type none",
            ),
            (
                "self.pruner.type != 'asha' || self.pruner.minFolds < self.validation.folds",
                "pruner asha has its first rung after {self.pruner.minFolds} of {self.validation.folds} folds: "
                "raise validation.folds, or use type median",
            ),
        ),
        pinned=PINNED_STUDY_FIELDS,
        growing=("budget.trials",),
        scale=(".spec.parallelism", ".status.active"),
    )
    kind: Literal["Study"] = "Study"
    spec: StudySpec = Field(description="What is searched, on what, how it is judged.")
    status: StudyStatus | None = Field(default=None, description="How far the search is, and why it stopped.")


def pinned(spec: StudySpec) -> dict[str, Any]:
    """The part of a Study's spec that must not change once it searches."""
    document = spec.to_json()
    return {key: value for key, value in document.items() if key not in MUTABLE_STUDY_FIELDS}
