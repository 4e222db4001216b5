"""Dataset: a market on a time grid, from one source, checked and snapshotted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cappuccino.api.meta import SYMBOL_PATTERN, TIMESTAMP_PATTERN, KindInfo, Model, Resource, Status, validations

TimeframeName = Literal["1m", "5m", "15m", "30m", "1h", "4h", "1d"]
Symbol = Annotated[str, Field(pattern=SYMBOL_PATTERN, max_length=26)]


def _day(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"there is no such moment, {error}: correct it") from error
    return text


Timestamp = Annotated[
    str, Field(pattern=TIMESTAMP_PATTERN, max_length=20, json_schema_extra={"format": "date-time"}), AfterValidator(_day)
]


class FeatureEntry(Model):
    """One indicator of the catalogue with its periods; `cappuccino data features` lists them."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,40}$", max_length=40, description="Name in the feature catalogue.")
    params: dict[str, float] = Field(default={}, max_length=8, description="Periods, by the catalogue's names.")


class GeneratorSource(Model):
    """A seeded market: correlated assets, regimes, jumps, volume. Deterministic and prefix-stable."""

    model_config = validations(
        (
            "!has(self.leader) || self.driftFeedback != 0.0",
            "leader is {self.leader}, but driftFeedback is 0, so nothing follows it: set driftFeedback",
        ),
    )

    seed: int = Field(ge=0, le=2**53, description="Seed of the market; the same seed makes the same market.")
    volatility: float = Field(default=0.005, gt=0, le=0.2, description="Standard deviation of a bar's log return.")
    correlation: float = Field(default=0.3, ge=0, lt=1, description="Correlation of the assets' noise.")
    drift_volatility: float = Field(
        default=0.0, ge=0, le=0.05, description="Planted edge: standard deviation per bar of an AR(1) drift; 0 plants none."
    )
    drift_half_life: float = Field(default=24.0, gt=0, le=10_000, description="Half-life of the AR(1) drift, in bars.")
    drift_feedback: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="Correlation of the drift's changes with the noise of the bar before: "
        "above 0 moves go on, below 0 they are taken back.",
    )
    leader: Symbol | None = Field(
        default=None,
        description="The symbol whose noise moves the drift of all others, and that has none; absent: each its own.",
    )
    regimes: bool = Field(default=True, description="Whether volatility switches between calm and wild.")
    jumps_per_year: float = Field(default=12.0, ge=0, le=1000, description="Jumps of each asset in a year, on average.")

    @model_validator(mode="after")
    def _followed(self) -> Self:
        if self.leader is not None and self.drift_feedback == 0:
            raise ValueError(f"leader is {self.leader}, but driftFeedback is 0, so nothing follows it: set driftFeedback")
        return self


class FileSource(Model):
    """Parquet, CSV or Feather with symbol, ts, open, high, low, close, volume."""

    path: str = Field(
        min_length=1, max_length=1024, description="Path of the file; a relative one starts at the folder of `cappuccino run`."
    )


class AlpacaSource(Model):
    """Alpaca's crypto history; needs no keys."""

    url: str | None = Field(
        default=None, max_length=512, description="Another endpoint that speaks the same protocol; absent: Alpaca's own."
    )


class Source(Model):
    """Exactly one of them."""

    model_config = validations(
        (
            "has(self.generator) || has(self.file) || has(self.alpaca)",
            "exactly one source is needed, got none: add generator, file or alpaca",
        ),
        (
            "[has(self.generator), has(self.file), has(self.alpaca)].filter(x, x).size() < 2",
            "exactly one source is needed, got {[has(self.generator), has(self.file), has(self.alpaca)].filter(x, x).size()} "
            "of generator, file and alpaca: keep one",
        ),
    )

    generator: GeneratorSource | None = Field(default=None, description="Make the market.")
    file: FileSource | None = Field(default=None, description="Read a file of bars.")
    alpaca: AlpacaSource | None = Field(default=None, description="Download crypto history.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("generator", "file", "alpaca") if getattr(self, name) is not None]
        if not given:
            raise ValueError("exactly one source is needed, got none: add generator, file or alpaca")
        if len(given) > 1:
            raise ValueError(f"exactly one source is needed, got {', '.join(given)}: keep one")
        return self


class DatasetSpec(Model):
    symbols: tuple[Symbol, ...] = Field(
        min_length=1, max_length=200, description="Symbols of the market; their order changes no result."
    )
    timeframe: TimeframeName = Field(
        default="1h", description="Timeframe of the stored bars; coarser ones are resampled from it."
    )
    source: Source = Field(description="Where the bars come from: exactly one of generator, file and alpaca.")
    start: Timestamp = Field(description="First bar's open time.")
    end: Timestamp | None = Field(
        default=None, description="End of the bars, exclusive; absent: the last closed bar, refreshed as time goes on."
    )
    features: tuple[FeatureEntry, ...] = Field(
        default=(), max_length=64, description="Features that are computed; empty: the default list."
    )
    refresh_seconds: int = Field(default=3600, ge=10, le=7 * 86400, description="How often an open-ended Dataset is refreshed.")
    min_coverage: float = Field(
        default=0.95, ge=0, le=1, description="Share of the expected bars; a symbol below it is quarantined."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}: swap or correct them")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols has duplicates in {list(self.symbols)}: name each once")
        return self


class Quarantined(Model):
    symbol: str = Field(description="Symbol that is left out of the snapshot.")
    reason: str = Field(description="Why it is left out, in one sentence.")


class DatasetStatus(Status):
    snapshot: str | None = Field(default=None, description="Digest of the current snapshot's manifest.")
    bars: int | None = Field(default=None, description="Bars of each symbol in the snapshot.")
    first_bar_at: str | None = Field(default=None, description="Open time of the first bar.")
    last_bar_at: str | None = Field(default=None, description="Open time of the last bar.")
    gaps: int | None = Field(default=None, description="Missing stretches that the source does not have either.")
    quarantined: tuple[Quarantined, ...] = Field(default=(), description="Symbols that failed a check; the others go on.")
    refreshed_at: str | None = Field(default=None, description="When the source was last read.")


class Dataset(Resource):
    info = KindInfo(
        plural="datasets",
        short_names=("mds",),
        description="A market on a time grid, from one source, checked and snapshotted.",
        columns=(
            ("Timeframe", "string", ".spec.timeframe"),
            ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
            ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
            ("Bars", "integer", ".status.bars"),
            ("Last", "string", ".status.lastBarAt"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        rules=(
            ("!has(self.end) || self.end > self.start", "end {self.end} is not after start {self.start}: swap or correct them"),
            (
                "self.symbols.all(s, self.symbols.exists_one(t, t == s))",
                "symbols has duplicates in {self.symbols}: name each once",
            ),
        ),
    )
    kind: Literal["Dataset"] = "Dataset"
    spec: DatasetSpec = Field(description="What the market is.")
    status: DatasetStatus | None = Field(default=None, description="Is it complete and fresh.")
