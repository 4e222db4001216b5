"""The feature catalogue: names, periods and formulas.

Every feature is dimensionless, so that assets share a network: prices appear as ratios or logarithms,
volumes as ratios to their own averages, trend indicators in units of the asset's volatility. `FLOOR` (one
basis point) is added where a volatility or a band divides, so that a market at rest gives 0 instead of noise.

The reference of `btc_correlation` and `relative_return` is the symbol whose base is BTC, else the first in
alphabetical order; the order in which symbols are listed changes no feature.

Sources: J. W. Wilder, New Concepts in Technical Trading Systems (RSI, DX, ADX, ATR); G. Appel (MACD);
D. Lambert (CCI); J. Bollinger (bands); G. Lane (stochastic). TA-Lib computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cappuccino.core.errors import InvalidInput
from cappuccino.market.formula import Column, Lag, Node, Output, Ta, Where, settling

FLOOR = 1e-4
LONGEST_PERIOD = 2000

OPEN, HIGH, LOW, CLOSE, VOLUME = (Column(name) for name in ("open", "high", "low", "close", "volume"))
REFERENCE = Column("reference")  # the reference symbol's close
COLUMNS = ("open", "high", "low", "close", "volume", "reference")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """An entry: `build` takes the periods by name and gives the formula."""

    name: str
    description: str
    defaults: Mapping[str, int | float]
    build: Callable[..., Node]


_entries: dict[str, Feature] = {}
CATALOGUE: Mapping[str, Feature] = MappingProxyType(_entries)


def _feature(name: str, description: str, **defaults: int | float) -> Callable[[Callable[..., Node]], Callable[..., Node]]:
    def register(build: Callable[..., Node]) -> Callable[..., Node]:
        _entries[name] = Feature(name=name, description=description, defaults=MappingProxyType(defaults), build=build)
        return build

    return register


# --- building blocks --------------------------------------------------------------------------------


def _windowed(function: str, *inputs: Node, n: int) -> Node:
    return Ta(function, inputs, (("timeperiod", n),), n - 1)


def _ema(value: Node, n: int) -> Node:
    return Ta("EMA", (value,), (("timeperiod", n),), n - 1 + settling(1 - 2 / (n + 1)))


def _wilder(function: str, *inputs: Node, n: int) -> Node:
    return Ta(function, inputs, (("timeperiod", n),), n + settling(1 - 1 / n))


def _log(value: Node) -> Node:
    return Ta("LN", (value,), (), 0)


def _log_return(bars: int, price: Node = CLOSE) -> Node:
    return _log(price) - Lag(_log(price), bars)


def _deviation(n: int) -> Node:
    return Ta("STDDEV", (_log_return(1),), (("timeperiod", n), ("nbdev", 1.0)), n - 1)


def _in_volatility(value: Node, n: int) -> Node:
    """A price difference in units of the volatility over `n` bars."""
    return value / (CLOSE * (_deviation(n) + FLOOR))


def _bands(n: int, deviations: float) -> Node:
    return Ta("BBANDS", (CLOSE,), (("timeperiod", n), ("nbdevup", float(deviations)), ("nbdevdn", float(deviations))), n - 1)


def _stochastic(n: int, k: int, d: int) -> Node:
    periods = (("fastk_period", n), ("slowk_period", k), ("slowd_period", d))
    return Ta("STOCH", (HIGH, LOW, CLOSE), periods, n + k + d - 3)


def _macd(fast: int, slow: int, signal: int, output: int) -> Node:
    if fast >= slow:
        raise InvalidInput(f"macd: fast {fast} is not below slow {slow}: swap them")
    periods = (("fastperiod", fast), ("slowperiod", slow), ("signalperiod", signal))
    memory = slow + signal - 2 + settling(1 - 2 / (max(slow, signal) + 1))
    return _in_volatility(Output(Ta("MACD", (CLOSE,), periods, memory), output), slow)


# --- price changes ----------------------------------------------------------------------------------


@_feature("return", "log return over the last bars", bars=1)
def _return(bars: int) -> Node:
    return _log_return(bars)


@_feature("price_change", "relative price change over the last bars", bars=24)
def _price_change(bars: int) -> Node:
    return Ta("ROCP", (CLOSE,), (("timeperiod", bars),), bars)


@_feature("roc", "rate of change in units of the volatility over the same bars", bars=10)
def _roc(bars: int) -> Node:
    return Ta("ROCP", (CLOSE,), (("timeperiod", bars),), bars) / (_deviation(max(bars, 2)) + FLOOR)


@_feature("relative_return", "log return less the reference symbol's", bars=168)
def _relative_return(bars: int) -> Node:
    return _log_return(bars) - _log_return(bars, REFERENCE)


@_feature("btc_correlation", "correlation of one-bar returns with the reference symbol's", period=72)
def _btc_correlation(period: int) -> Node:
    return _windowed("CORREL", _log_return(1), _log_return(1, REFERENCE), n=period)


# --- trend ------------------------------------------------------------------------------------------


@_feature("trend", "exponential average of returns in units of volatility", period=11, volatility=48)
def _trend(period: int, volatility: int) -> Node:
    return _ema(_log_return(1), period) / (_deviation(volatility) + FLOOR)


@_feature("ema_gap", "fast less slow EMA of the close, in units of volatility", fast=6, slow=18)
def _ema_gap(fast: int, slow: int) -> Node:
    if fast >= slow:
        raise InvalidInput(f"ema_gap: fast {fast} is not below slow {slow}: swap them")
    return _in_volatility(_ema(CLOSE, fast) - _ema(CLOSE, slow), slow)


@_feature("macd", "MACD line in units of volatility", fast=12, slow=26, signal=9)
def _macd_line(fast: int, slow: int, signal: int) -> Node:
    return _macd(fast, slow, signal, 0)


@_feature("macd_signal", "MACD signal line in units of volatility", fast=12, slow=26, signal=9)
def _macd_signal(fast: int, slow: int, signal: int) -> Node:
    return _macd(fast, slow, signal, 1)


@_feature("macd_hist", "MACD histogram in units of volatility", fast=12, slow=26, signal=9)
def _macd_hist(fast: int, slow: int, signal: int) -> Node:
    return _macd(fast, slow, signal, 2)


@_feature("sma", "close over its simple average, less 1", period=20)
def _sma(period: int) -> Node:
    return CLOSE / _windowed("SMA", CLOSE, n=period) - 1.0


@_feature("ema", "close over its exponential average, less 1", period=20)
def _ema_ratio(period: int) -> Node:
    return CLOSE / _ema(CLOSE, period) - 1.0


@_feature("dx", "directional movement index, 0 to 1", period=14)
def _dx(period: int) -> Node:
    return _wilder("DX", HIGH, LOW, CLOSE, n=period) / 100.0


@_feature("di", "plus less minus directional indicator, -1 to 1", period=14)
def _di(period: int) -> Node:
    return (_wilder("PLUS_DI", HIGH, LOW, CLOSE, n=period) - _wilder("MINUS_DI", HIGH, LOW, CLOSE, n=period)) / 100.0


# --- oscillators ------------------------------------------------------------------------------------


@_feature("rsi", "relative strength index, -1 to 1", period=14)
def _rsi(period: int) -> Node:
    return _wilder("RSI", CLOSE, n=period) / 50.0 - 1.0


@_feature("cci", "commodity channel index over 100", period=20)
def _cci(period: int) -> Node:
    span = _windowed("MAX", HIGH, n=period) - _windowed("MIN", LOW, n=period)
    return Where(span, _windowed("CCI", HIGH, LOW, CLOSE, n=period)) / 100.0


@_feature("stoch_k", "stochastic %K, -1 to 1", period=14, k=3, d=3)
def _stoch_k(period: int, k: int, d: int) -> Node:
    return Output(_stochastic(period, k, d), 0) / 50.0 - 1.0


@_feature("stoch_d", "stochastic %D, -1 to 1", period=14, k=3, d=3)
def _stoch_d(period: int, k: int, d: int) -> Node:
    return Output(_stochastic(period, k, d), 1) / 50.0 - 1.0


# --- volatility and levels --------------------------------------------------------------------------


@_feature("volatility", "standard deviation of one-bar log returns", period=24)
def _volatility(period: int) -> Node:
    return _deviation(period)


@_feature("atr", "average true range over the close", period=14)
def _atr(period: int) -> Node:
    return _wilder("ATR", HIGH, LOW, CLOSE, n=period) / CLOSE


@_feature("bb_width", "width of the Bollinger bands over their middle", period=20, deviations=2.0)
def _bb_width(period: int, deviations: float) -> Node:
    bands = _bands(period, deviations)
    return (Output(bands, 0) - Output(bands, 2)) / Output(bands, 1)


@_feature("bb_position", "close between the Bollinger bands: -1 lower, 1 upper", period=20, deviations=2.0)
def _bb_position(period: int, deviations: float) -> Node:
    bands = _bands(period, deviations)
    return (CLOSE - Output(bands, 1)) / (Output(bands, 0) - Output(bands, 1) + CLOSE * FLOOR)


@_feature("support", "lowest low over the average close, less 1", period=48)
def _support(period: int) -> Node:
    return _windowed("MIN", LOW, n=period) / _windowed("SMA", CLOSE, n=period) - 1.0


@_feature("resistance", "highest high over the average close, less 1", period=48)
def _resistance(period: int) -> Node:
    return _windowed("MAX", HIGH, n=period) / _windowed("SMA", CLOSE, n=period) - 1.0


@_feature("support_distance", "close over the lowest low, less 1", period=48)
def _support_distance(period: int) -> Node:
    return CLOSE / _windowed("MIN", LOW, n=period) - 1.0


@_feature("resistance_distance", "highest high over the close, less 1", period=48)
def _resistance_distance(period: int) -> Node:
    return _windowed("MAX", HIGH, n=period) / CLOSE - 1.0


# --- volume -----------------------------------------------------------------------------------------


def _contrast(a: Node, b: Node) -> Node:
    """(a - b) / (a + b) of two volumes: -1 to 1, 0 when equal or both 0."""
    return (a - b) / (a + b)


@_feature("volume_average", "short against long average volume, -1 to 1", fast=24, slow=168)
def _volume_average(fast: int, slow: int) -> Node:
    quiet = _windowed("MAX", VOLUME, n=slow)
    return Where(quiet, _contrast(_windowed("SMA", VOLUME, n=fast), _windowed("SMA", VOLUME, n=slow)))


@_feature("volume_ratio", "volume against its average, -1 to 1", period=20)
def _volume_ratio(period: int) -> Node:
    return Where(_windowed("MAX", VOLUME, n=period), _contrast(VOLUME, _windowed("SMA", VOLUME, n=period)))


@_feature("volume_change", "volume against that of some bars ago, -1 to 1", bars=1)
def _volume_change(bars: int) -> Node:
    return _contrast(VOLUME, Lag(VOLUME, bars))


def checked_params(name: str, params: Mapping[str, Any]) -> tuple[tuple[str, int | float], ...]:
    """The entry's periods in its own order, defaults filled in, whole numbers as int.

    Raises:
        InvalidInput: unknown name or period, or a value that the feature cannot take.
    """
    if name not in CATALOGUE:
        raise InvalidInput(f"feature {name!r} is not in the catalogue: use one of {', '.join(sorted(CATALOGUE))}")
    feature = CATALOGUE[name]
    for key in params:
        if key not in feature.defaults:
            raise InvalidInput(f"feature {name}: parameter {key!r} is unknown: it takes {', '.join(feature.defaults)}")
    checked: list[tuple[str, int | float]] = []
    for key, default in feature.defaults.items():
        value = params.get(key, default)
        if isinstance(default, float):
            if not 0.1 <= value <= 10:
                raise InvalidInput(f"feature {name}: {key} is {value:g}: use 0.1 to 10")
            checked.append((key, float(value)))
            continue
        least = 1 if key in ("bars", "k", "d", "signal") else 2
        if value != int(value) or not least <= value <= LONGEST_PERIOD:
            raise InvalidInput(f"feature {name}: {key} is {value:g}: use a whole number from {least} to {LONGEST_PERIOD}")
        checked.append((key, int(value)))
    return tuple(checked)
