"""Dataset: a market on a time grid, from one source, checked and snapshotted."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cappuccino.api.meta import KindInfo, Model, Resource, Status

TimeframeName = Literal["1m", "5m", "15m", "30m", "1h", "4h", "1d"]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}/[A-Z]{3,5}$", max_length=26)]
Timestamp = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$", max_length=20)]


class FeatureEntry(Model):
    """One indicator of the catalogue with its periods; `cappuccino data features` lists them."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,40}$", description="Name in the feature catalogue.")
    params: dict[str, float] = Field(default={}, max_length=8, description="Periods, by the catalogue's names.")


class GeneratorSource(Model):
    """A seeded market: correlated assets, regimes, jumps, volume. Deterministic and prefix-stable."""

    seed: int = Field(ge=0, le=2**53, description="Same seed, same market.")
    volatility: float = Field(default=0.005, gt=0, le=0.2, description="Standard deviation of a bar's log return.")
    correlation: float = Field(default=0.3, ge=0, lt=1, description="Of the assets' noise.")
    drift_volatility: float = Field(
        default=0.0, ge=0, le=0.05, description="Planted edge: sd per bar of an AR(1) drift; 0 plants none."
    )
    drift_half_life: float = Field(default=24.0, gt=0, le=10_000, description="Of the AR(1) drift, in bars.")
    regimes: bool = Field(default=True, description="Volatility switches between calm and wild.")
    jumps_per_year: float = Field(default=12.0, ge=0, le=1000)


class FileSource(Model):
    """Parquet, CSV or Feather with symbol, ts, open, high, low, close, volume."""

    path: str = Field(min_length=1, max_length=1024)


class AlpacaSource(Model):
    """Alpaca's crypto history; needs no keys."""

    url: str | None = Field(default=None, max_length=512, description="Another endpoint of the same protocol.")


class Source(Model):
    """Exactly one of them."""

    generator: GeneratorSource | None = None
    file: FileSource | None = None
    alpaca: AlpacaSource | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("generator", "file", "alpaca") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one source is needed, got {', '.join(given) or 'none'}: generator, file or alpaca")
        return self


class DatasetSpec(Model):
    symbols: tuple[Symbol, ...] = Field(min_length=1, max_length=200, description="Ordered; the order changes no result.")
    timeframe: TimeframeName = Field(default="1h", description="Of the stored bars; coarser ones are resampled from it.")
    source: Source
    start: Timestamp = Field(description="First bar's open time.")
    end: Timestamp | None = Field(default=None, description="Exclusive; absent: up to the last closed bar, refreshed.")
    features: tuple[FeatureEntry, ...] = Field(default=(), max_length=64, description="Empty: the default list.")
    refresh_seconds: int = Field(default=3600, ge=10, le=7 * 86400, description="How often an open-ended Dataset is refreshed.")
    retention_days: int = Field(default=0, ge=0, le=36500, description="0 keeps everything.")
    min_coverage: float = Field(default=0.95, ge=0, le=1, description="A symbol below it is quarantined.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}: swap or correct them")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols has duplicates in {list(self.symbols)}: name each once")
        return self


class Quarantined(Model):
    symbol: str
    reason: str


class DatasetStatus(Status):
    snapshot: str | None = Field(default=None, description="Digest of the current snapshot's manifest.")
    bars: int | None = None
    first_bar_at: str | None = None
    last_bar_at: str | None = None
    gaps: int | None = Field(default=None, description="Missing stretches that the source does not have either.")
    quarantined: tuple[Quarantined, ...] = ()
    refreshed_at: str | None = None


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
            (
                "[has(self.source.generator), has(self.source.file), has(self.source.alpaca)].filter(x, x).size() == 1",
                "source: give exactly one of generator, file or alpaca",
            ),
            ("!has(self.end) || self.end > self.start", "end must be after start: swap or correct them"),
            ("self.symbols.all(s, self.symbols.exists_one(t, t == s))", "symbols has duplicates: name each once"),
        ),
    )
    kind: Literal["Dataset"] = "Dataset"
    spec: DatasetSpec
    status: DatasetStatus | None = None
