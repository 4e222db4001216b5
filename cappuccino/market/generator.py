"""A seeded market: a `BarSource` whose truth is known.

Log return of bar t, close to close, of asset i (a bar is one of the timeframe asked for; coarser bars are
resampled from it, never generated):

    r = d + c - h^2 / 2 + h (sqrt(rho) m + sqrt(1 - rho) e) + jump

c: constant drift. m, e: standard normal, of the market and the asset; n = sqrt(rho) m + sqrt(1 - rho) e is the
asset's noise. h: volatility, a market-wide calm / wild chain times log-AR(1) clustering of market and asset,
scaled so that E[h^2] = volatility^2. Jumps are Poisson, N(0, JUMP_SIZE x volatility), compensated.

d: planted edge, an own one per asset, known one bar ahead to who knows the past:

    d' = phi d + drift_volatility sqrt(1 - phi^2) (feedback n + sqrt(1 - feedback^2) u)

u: standard normal; phi = 0.5 ** (1 / half_life); stationary sd `drift_volatility`. Above 0 the feedback makes moves go
on, below 0 it takes them back: the autocovariance of returns at lag k is
phi^(k - 1) (phi drift_volatility^2 + feedback drift_volatility sqrt(1 - phi^2) E[h]). With a `leader` n is the leader's
noise, which then moves every other asset's drift, and the leader has none. Less c and d prices are martingales:
without them no rule has an expected profit before costs.

Invariants:
- A symbol's bars depend on (configuration, timeframe, symbol) only: every stream is seeded by name. What moves a
  follower's drift is the noise of the leader that the configuration names, whether its bars are asked for or not.
- Bars count from `origin`; a longer range has the same first bars, a later start the same last ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import polars as pl

from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import seed_of
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import FloatArray, IntArray
from cappuccino.market.source import no_rows

ORIGIN = 1_704_067_200  # 2024-01-01T00:00:00Z
STEPS = 8  # points of a bar's path from its open to its close
WILD_OVER_CALM = 2.0
ENTER_WILD, LEAVE_WILD = 1 / 400, 1 / 100  # chances per bar: wild a fifth of the time
CLUSTER_SD, CLUSTER_HALF_LIFE = 0.25, 48.0  # of log volatility; market and asset each
JUMP_SIZE = 8.0  # sd of a jump in units of the volatility
OPEN_GAP = 0.02  # sd of the open around the previous close, in units of h


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Volatilities are fractions per bar. `regimes` false: constant volatility, as the known optimum assumes.

    Raises:
        InvalidInput: a feedback that is no correlation, or a leader whom nothing follows.
    """

    seed: int
    volatility: float = 0.005
    correlation: float = 0.3
    drift_volatility: float = 0.0
    drift_half_life: float = 24.0
    drift_feedback: float = 0.0  # correlation of the drift's innovation with the noise of the bar before it
    leader: str | None = None  # the symbol whose noise that is; None: the asset's own
    regimes: bool = True
    jumps_per_year: float = 12.0
    drift_per_year: float = 0.0  # constant, in log price

    def __post_init__(self) -> None:
        if not -1 <= self.drift_feedback <= 1:
            raise InvalidInput(f"generator: drift_feedback is {self.drift_feedback:g}: use a correlation, -1 to 1")
        if self.leader is not None and self.drift_feedback == 0:
            raise InvalidInput(
                f"generator: leader is {self.leader}, but drift_feedback is 0, so nothing follows it: set drift_feedback"
            )


@dataclass(frozen=True, kw_only=True)
class GeneratorBars:
    """The `BarSource`. It has nothing before `origin` (epoch seconds) and no end."""

    config: GeneratorConfig
    origin: int = ORIGIN

    def available(self, symbols: Sequence[str], timeframe: Timeframe) -> Mapping[str, tuple[int, int]]:  # noqa: ARG002
        return {}

    def fetch(self, symbols: Sequence[str], timeframe: Timeframe, start: int, end: int) -> pl.DataFrame:
        first = self._first(timeframe)
        bars = max(0, -(-(end - first) // timeframe.seconds))
        skip = max(0, -(-(start - first) // timeframe.seconds))
        if bars <= skip:
            return no_rows()
        ts = first + timeframe.seconds * np.arange(bars, dtype=np.int64)
        multiple = self._market_volatility(bars)
        frames: list[pl.DataFrame] = []
        for symbol in symbols:
            columns = self._asset(symbol, ts, timeframe, multiple)
            frame = pl.DataFrame({name: values[skip:] for name, values in columns.items()})
            frames.append(frame.select(pl.lit(symbol).alias("symbol"), pl.all()))
        return pl.concat(frames) if frames else no_rows()

    def planted_drift(self, symbols: Sequence[str], timeframe: Timeframe, start: int, end: int) -> FloatArray:
        """[T, N] expected log return of each bar with start <= ts < end, less the constants: what an oracle knows."""
        first = self._first(timeframe)
        bars = max(0, -(-(end - first) // timeframe.seconds))
        skip = max(0, -(-(start - first) // timeframe.seconds))
        return np.stack([self._drift(symbol, bars)[skip:] for symbol in symbols], axis=1)

    def _first(self, timeframe: Timeframe) -> int:
        return -(-self.origin // timeframe.seconds) * timeframe.seconds

    def _rng(self, *name: str) -> np.random.Generator:
        """An own stream for each quantity: drawing more bars of one shifts no other."""
        return np.random.default_rng(seed_of(self.config.seed, *name))

    def _drift(self, symbol: str, bars: int) -> FloatArray:
        config = self.config
        if config.drift_volatility == 0 or symbol == config.leader:
            return np.zeros(bars)
        phi, feedback = 0.5 ** (1 / config.drift_half_life), config.drift_feedback
        innovation = self._rng(symbol, "drift").standard_normal(bars)
        moved_by = self._noise(config.leader or symbol, bars)[:-1]
        innovation[1:] = feedback * moved_by + np.sqrt(1 - feedback**2) * innovation[1:]
        return config.drift_volatility * _autoregression(innovation, phi)

    def _noise(self, symbol: str, bars: int) -> FloatArray:
        """The asset's standard normal noise [T], its share of the market's included."""
        shared, own = (self._rng(name, "noise").standard_normal(bars) for name in ("", symbol))
        noise: FloatArray = np.sqrt(self.config.correlation) * shared + np.sqrt(1 - self.config.correlation) * own
        return noise

    def _log_volatility(self, name: str, bars: int) -> FloatArray:
        phi = 0.5 ** (1 / CLUSTER_HALF_LIFE)
        return CLUSTER_SD * _autoregression(self._rng(name, "volatility").standard_normal(bars), phi)

    def _market_volatility(self, bars: int) -> FloatArray:
        """The multiple [T] that all assets share."""
        if not self.config.regimes:
            return np.ones(bars)
        share = ENTER_WILD / (ENTER_WILD + LEAVE_WILD)
        calm = 1 / np.sqrt(1 - share + share * WILD_OVER_CALM**2)
        draws = self._rng("", "regime").random(bars).tolist()
        states = accumulate(draws, lambda wild, u: u >= LEAVE_WILD if wild else u < ENTER_WILD, initial=False)
        wild = np.fromiter(states, dtype=np.bool_, count=bars + 1)[1:]
        multiple: FloatArray = np.where(wild, calm * WILD_OVER_CALM, calm)
        return multiple * np.exp(self._log_volatility("", bars) - CLUSTER_SD**2)

    def _asset(self, symbol: str, ts: IntArray, timeframe: Timeframe, multiple: FloatArray) -> dict[str, FloatArray | IntArray]:
        config, bars = self.config, len(ts)
        if config.regimes:
            multiple = multiple * np.exp(self._log_volatility(symbol, bars) - CLUSTER_SD**2)
        h = config.volatility * multiple
        noise = self._noise(symbol, bars)

        rate = config.jumps_per_year / timeframe.bars_per_year
        jump_sd = JUMP_SIZE * config.volatility
        jump_draws = self._rng(symbol, "jump").random((bars, 2))
        sizes = self._rng(symbol, "jump size").standard_normal(bars)
        jump = np.where(jump_draws[:, 0] < rate, jump_sd * sizes, 0.0)
        compensation = np.log1p(rate * np.expm1(0.5 * jump_sd**2)) + 0.5 * h**2

        smooth = self._drift(symbol, bars) + config.drift_per_year / timeframe.bars_per_year - compensation + h * noise
        log_close = np.cumsum(smooth + jump)

        # Inside the bar: a Brownian bridge from the open to where the bar ends, with the jump at one of its steps.
        path_draws = self._rng(symbol, "path").standard_normal((bars, STEPS + 1))
        gap = OPEN_GAP * h * path_draws[:, 0]
        walk = np.cumsum(path_draws[:, 1:], axis=1) * (h / np.sqrt(STEPS))[:, None]
        fraction = np.arange(1, STEPS + 1) / STEPS
        bridge = walk - walk[:, -1:] * fraction + gap[:, None] + (smooth - gap)[:, None] * fraction
        jumped = np.arange(STEPS) >= np.floor(jump_draws[:, 1] * STEPS)[:, None]
        path = np.concatenate([gap[:, None], bridge + jumped * jump[:, None]], axis=1)

        log_first = np.log(10.0) * self._rng(symbol, "price").uniform(0.0, 4.0)
        before = log_first + np.concatenate([[0.0], log_close[:-1]])
        if not np.all(np.abs(log_close) < 300):
            raise InvalidInput(f"generator: the price of {symbol} leaves the range of floats in {bars} bars: lower volatility")
        open_, close = np.exp(before + gap), np.exp(log_first + log_close)
        high = np.maximum(np.exp(before + path.max(axis=1)), np.maximum(open_, close))
        low = np.minimum(np.exp(before + path.min(axis=1)), np.minimum(open_, close))

        activity = 0.4 * _autoregression(self._rng(symbol, "volume").standard_normal(bars), 0.9)
        moved = np.abs(h * noise + jump) / config.volatility
        notional_usd = 40_000.0 * (timeframe.seconds / 60) * np.exp(activity) * (0.5 + 0.6 * moved)
        return {"ts": ts, "open": open_, "high": high, "low": low, "close": close, "volume": notional_usd / close}


def _autoregression(noise: FloatArray, phi: float) -> FloatArray:
    """AR(1) with sd 1, stationary from its first value; [T] from [T] standard normals."""
    if not len(noise):
        return noise
    shocks = (noise * np.sqrt(1 - phi**2)).tolist()
    shocks[0] = float(noise[0])
    return np.fromiter(accumulate(shocks, lambda x, e: phi * x + e), dtype=np.float64, count=len(shocks))
