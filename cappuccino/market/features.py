"""Features: from bars to [T, N, F] for training and to [N, F] bar by bar for serving, by one contract.

Invariants:
- `FeatureStream` gives the bits of `compute` when both begin at the same bar, and comes within 1e-6 of it
  after `warmup_bars` bars from any other. A trader loads that many or refuses to start. (A warm-up in which
  nothing moves teaches RSI and DX nothing; those bars do not count.)
- The features of bar t depend on bars up to t only, and on nothing else: the same bars give the same values.
- A missing bar goes through as the flat bar that it is.

Scaling is not part of a feature. `fit_scaling` measures it on training rows; the policy's graph applies
(x - mean) / std and clips to `CLIP` standard deviations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars, FloatArray
from cappuccino.market.catalogue import CATALOGUE, COLUMNS, checked_params
from cappuccino.market.formula import Node, Stepper, evaluate, warmup
from cappuccino.market.spec import FeatureSpec

CLIP = 5.0  # scaled values are clipped to [-CLIP, CLIP] by the policy
SMALLEST_STD = 1e-8


def _formula(spec: FeatureSpec) -> Node:
    params = checked_params(spec.name, dict(spec.params))
    return CATALOGUE[spec.name].build(**dict(params))


def spec_of(name: str, params: Mapping[str, Any] | None = None) -> FeatureSpec:
    """The spec with every parameter filled in.

    Raises:
        InvalidInput: names the catalogue, or what the parameter may be.
    """
    spec = FeatureSpec(name=name, params=checked_params(name, params or {}))
    _formula(spec)
    return spec


DEFAULT_FEATURES: tuple[FeatureSpec, ...] = (
    spec_of("return", {"bars": 1}),
    spec_of("return", {"bars": 6}),
    spec_of("return", {"bars": 24}),
    spec_of("macd_hist", {"fast": 8, "slow": 17, "signal": 9}),
    spec_of("rsi", {"period": 10}),
    spec_of("cci", {"period": 20}),
    spec_of("dx", {"period": 10}),
    spec_of("volatility", {"period": 24}),
)
"""Eight that warm up within 200 bars and suit hourly bars with a drift of about a day's half-life."""

FEATURE_SETS: Mapping[str, tuple[FeatureSpec, ...]] = {
    "default": DEFAULT_FEATURES,
    "returns": (
        *(spec_of("return", {"bars": bars}) for bars in (1, 2, 4, 8, 16, 32, 64)),
        spec_of("trend"),
        spec_of("volatility"),
    ),
    "classic": tuple(spec_of(name) for name in ("macd", "macd_signal", "macd_hist", "rsi", "cci", "dx")),
    "full": (
        *(spec_of("price_change", {"bars": bars}) for bars in (1, 3, 6, 12, 24)),
        *(spec_of(name) for name in ("volume_average", "volume_ratio", "volume_change", "rsi")),
        *(spec_of(name) for name in ("macd", "macd_signal", "macd_hist", "bb_width", "bb_position")),
        *(spec_of(name, {"period": period}) for name in ("sma", "ema") for period in (20, 50, 200)),
        *(spec_of(name) for name in ("support", "resistance", "support_distance", "resistance_distance")),
        *(spec_of(name) for name in ("roc", "stoch_k", "stoch_d", "volatility", "btc_correlation")),
    ),
}
"""Named sets for a search's first phase. `full` is the list of 29; its 200-bar averages need a long warm-up."""


def reference_symbol(symbols: Sequence[str]) -> str:
    """The symbol whose base is BTC, else the first in alphabetical order."""
    return min(symbols, key=lambda symbol: (symbol.partition("/")[0] != "BTC", symbol))


def warmup_bars(specs: Sequence[FeatureSpec]) -> int:
    """Bars, the deciding one included, that must be fed before features may be used."""
    return max((warmup(_formula(spec)) for spec in specs), default=1)


def compute(bars: Bars, specs: Sequence[FeatureSpec]) -> FloatArray:
    """Features [T, N, F] in the order of `bars.symbols` and `specs`; NaN before a feature has enough bars.

    Raises:
        InvalidInput: an unknown feature, or a bar that is not finite or whose prices are not positive.
    """
    formulas = [_formula(spec) for spec in specs]
    rows = {name: getattr(bars, name) for name in COLUMNS[:-1]}
    _refuse_unusable(rows, bars.symbols, "features")
    values = np.full((len(bars), len(bars.symbols), len(specs)), np.nan)
    if not len(bars) or not bars.symbols:
        return values
    reference = bars.close[:, bars.symbols.index(reference_symbol(bars.symbols))]
    for n in range(len(bars.symbols)):
        columns = {name: np.ascontiguousarray(panel[:, n], dtype=np.float64) for name, panel in rows.items()}
        columns["reference"] = np.ascontiguousarray(reference, dtype=np.float64)
        for f, column in enumerate(evaluate(formulas, columns)):
            values[:, n, f] = column
    return values


class FeatureStream:
    """Features bar by bar. Its state cannot be stored: replay `warmup_bars` of history at a restart."""

    def __init__(self, symbols: Sequence[str], timeframe: Timeframe, specs: Sequence[FeatureSpec]) -> None:
        formulas = [_formula(spec) for spec in specs]
        self.symbols = tuple(symbols)
        self.timeframe = timeframe
        self.warmup_bars = warmup_bars(specs)
        self.bars_seen = 0
        self._reference = self.symbols.index(reference_symbol(self.symbols))
        self._steppers = [Stepper(formulas, COLUMNS) for _ in self.symbols]

    @property
    def ready(self) -> bool:
        return self.bars_seen >= self.warmup_bars

    def update(self, open: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray, volume: FloatArray) -> FloatArray:  # noqa: A002
        """Takes one closed bar, [N] each in the order of `symbols`, and gives its features [N, F].

        Raises:
            InvalidInput: a value is not finite or a price is not positive; no symbol's state has moved.
        """
        columns = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
        rows = {name: np.asarray(values, dtype=np.float64).reshape(1, -1) for name, values in columns.items()}
        for name, values in rows.items():
            if values.shape[1] != len(self.symbols):
                raise InvalidInput(
                    f"bar: {name} has {values.shape[1]} values, expected {len(self.symbols)}: one for each symbol"
                )
        _refuse_unusable(rows, self.symbols, "bar")
        panel = [values[0].tolist() for values in rows.values()]
        reference = panel[3][self._reference]
        self.bars_seen += 1
        features = [stepper.update(*(column[n] for column in panel), reference) for n, stepper in enumerate(self._steppers)]
        return np.array(features, dtype=np.float64)


def fit_scaling(features: FloatArray, rows: slice | npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Mean [F] and standard deviation [F] over the training `rows` of [T, N, F] and all symbols, NaN left out.

    A feature that does not vary there gets a standard deviation of 1: its scaled value is 0, not noise.

    Raises:
        InvalidInput: a feature has no value on these rows.
    """
    training = features[rows].reshape(-1, features.shape[-1])
    present = ~np.isnan(training)
    counts = present.sum(axis=0)
    if not np.all(counts):
        where = f"feature {int(np.argmin(counts))} has no value on the {len(training)} training rows"
        raise InvalidInput(f"{where}: give more bars than its warm-up")
    mean = np.where(present, training, 0.0).sum(axis=0) / counts
    std = np.sqrt(np.where(present, np.square(training - mean), 0.0).sum(axis=0) / counts)
    return mean, np.where(std > SMALLEST_STD * np.maximum(1.0, np.abs(mean)), std, 1.0)


def _refuse_unusable(rows: Mapping[str, FloatArray], symbols: Sequence[str], where: str) -> None:
    for name, values in rows.items():
        good = np.isfinite(values) & ((values >= 0) if name == "volume" else (values > 0))
        if not np.all(good):
            t, n = (int(index) for index in np.argwhere(~good)[0])
            what = f"{name} of {symbols[n]} at bar {t} is {values[t, n]}"
            raise InvalidInput(f"{where}: {what}: run the bars through quality first")
