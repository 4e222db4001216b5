"""From a pinned Study and a trial's parameters to everything a run needs: bars, features, contract, costs, rules.

Training, gates and `cappuccino backtest` read a trial through the same recipe, so that none can differ from another.
Parameters are text. Four names belong to the recipe (timeframe, interval, features, lookback); the rest are the strategy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cappuccino.api.dataset import FeatureEntry
from cappuccino.api.study import CostsSpec, StudySpec
from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.limits import barriers_of
from cappuccino.exchange.venue import AssetRules, Costs, simulated_rules
from cappuccino.market.bars import Bars, FloatArray
from cappuccino.market.features import DEFAULT_FEATURES, FEATURE_SETS, compute, spec_of, warmup_bars
from cappuccino.market.resample import resample
from cappuccino.market.spec import FeatureSpec
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract
from cappuccino.strategies.trend import TrendParameters

OWN = ("timeframe", "interval", "features", "lookback")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a trial is made with; `values` are the strategy's own parameters."""

    kind: str
    values: Mapping[str, str]
    contract: Contract
    sizing: Sizing
    barriers: Barriers
    costs: Costs
    capital_usd: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Bars on the recipe's grid with raw features [T, N, F]; rows before `warmup` may be NaN."""

    bars: Bars
    features: FloatArray
    rules: Mapping[str, AssetRules]
    warmup: int


def recipe(study: StudySpec, parameters: Mapping[str, str]) -> Recipe:
    """The recipe of one trial of a pinned Study.

    Raises:
        InvalidInput: a value that the recipe or the strategy does not know.
    """
    values = dict(study.strategy.parameters) | dict(parameters)
    timeframe = Timeframe.parse(values.get("timeframe") or str(study.timeframe))
    specs = _features(study.features, values.get("features"))
    own = {name: value for name, value in values.items() if name not in OWN}
    if study.strategy.kind == "trend":
        rule = TrendParameters.parse(own)
        specs = tuple(spec_of(spec.name, dict(spec.params)) for spec in rule.specs)
        rule = TrendParameters.parse(own | _spelled(specs))
        own = rule.to_values()
    lookback = _whole("lookback", values, study.lookback)
    interval = _whole("interval", values, 1)
    template = study.template
    return Recipe(
        kind=study.strategy.kind,
        values=own,
        contract=Contract(
            symbols=tuple(study.symbols),
            timeframe=timeframe,
            features=specs,
            lookback=lookback,
            warmup_bars=warmup_bars(specs) + lookback - 1,
            interval=interval,
        ),
        sizing=Sizing(max_weight=template.sizing.max_weight),
        barriers=barriers_of(template.barriers),
        costs=costs_of(template.costs),
        capital_usd=template.capital_usd,
    )


def prepare(bars: Bars, contract: Contract) -> Prepared:
    """Resample, order the symbols and compute the features. Rules come from the first price of the stored bars."""
    chosen = bars.select(contract.symbols)
    rules = {symbol: simulated_rules(symbol, float(chosen.open[0, n])) for n, symbol in enumerate(contract.symbols)}
    grid = resample(chosen, contract.timeframe)
    return Prepared(bars=grid, features=compute(grid, contract.features), rules=rules, warmup=contract.warmup_bars)


def costs_of(spec: CostsSpec) -> Costs:
    return Costs(fee_bps=spec.fee_bps, slippage_bps=spec.slippage_bps, slippage_by_symbol_bps=dict(spec.slippage_by_symbol_bps))


def _features(entries: tuple[FeatureEntry, ...], chosen: str | None) -> tuple[FeatureSpec, ...]:
    if chosen is not None:
        if chosen not in FEATURE_SETS:
            raise InvalidInput(f"features {chosen!r} is not a set: use {', '.join(FEATURE_SETS)}")
        return FEATURE_SETS[chosen]
    return tuple(spec_of(entry.name, entry.params) for entry in entries) or DEFAULT_FEATURES


def _spelled(specs: tuple[FeatureSpec, ...]) -> dict[str, str]:
    """Every period of the rule's features, also those left to the catalogue's defaults."""
    owners = ("feature", "minus")[: len(specs)]
    return {f"{owner}_{name}": repr(value) for owner, spec in zip(owners, specs, strict=True) for name, value in spec.params}


def _whole(name: str, values: Mapping[str, str], default: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not text.isdigit() or int(text) < 1:
        raise InvalidInput(f"{name} is {text!r}: give a whole number from 1")
    return int(text)
