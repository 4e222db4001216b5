"""The stationary bootstrap: how often luck alone would have done as well.

Resamples are made of blocks of geometric length (mean `block`, 24 hours in the gates) that start anywhere and wrap
around, so that clustered volatility and held positions survive (Politis and Romano 1994). Two one-sided tests stand on
it: mean log return > 0, and alpha of the regression on HODL > 0. Deviations of resamples from the estimate are widened by
sqrt(T / (T - 2 block)), the share of variance that estimating the mean hides from blocks. Chosen by calibration
(docs/statistics.md): without the factor noise is rejected too often, and studentising does not cure that.

Invariants: the same seed gives the same p; p is at least 1 / (samples + 1), never 0; memory stays bounded (resamples
are drawn in chunks). Units: returns per bar, blocks in bars.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_CHUNK = 500_000  # resampled bars held at a time


@dataclass(frozen=True, kw_only=True)
class Tested:
    """H0: the statistic is at most 0. `estimate` and `standard_error` are per bar; p is one-sided.

    `lower` is the one-sided lower bound of the estimate at the level asked for, from the same resamples.
    """

    estimate: float
    standard_error: float
    p: float
    lower: float
    samples: int


def block_bars(block_hours: float, bars_per_year: float) -> float:
    """Mean block length in bars, at least 1."""
    return max(1.0, block_hours * bars_per_year / (365 * 24))


def stationary_indices(n: int, block: float, samples: int, rng: np.random.Generator) -> IntArray:
    """[B, T] indexes: `samples` resamples of a series of `n` bars with blocks of mean length `block`.

    Raises:
        InvalidInput: no bars, no samples, or a mean block below 1 bar or as long as the series.
    """
    if n < 2 or samples < 1 or not 1 <= block < n:
        raise InvalidInput(f"bootstrap of {n} bars, {samples} samples, blocks of {block:g}: blocks lie between 1 bar and all")
    starts = rng.random((samples, n)) < 1.0 / block
    starts[:, 0] = True
    first = rng.integers(0, n, size=(samples, n))
    steps = np.arange(n)
    origin = np.maximum.accumulate(np.where(starts, steps, 0), axis=1)
    index = (np.take_along_axis(first, origin, axis=1) + steps - origin) % n
    return np.asarray(index, dtype=np.int64)


def resamples(n: int, block: float, samples: int, seed: int) -> Iterator[IntArray]:
    """The same resamples in chunks of bounded size."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // n)
    for done in range(0, samples, size):
        yield stationary_indices(n, block, min(size, samples - done), rng)


def mean_above_zero(returns: npt.ArrayLike, *, block: float, samples: int, seed: int, level: float = 0.025) -> Tested:
    """Is the mean of `returns` [T] above 0? Give log returns for mean log growth.

    Raises:
        InvalidInput: not finite, too short, or without variance.
    """
    return _test(_checked(returns, "returns"), None, block=block, samples=samples, seed=seed, level=level)


def alpha_above_zero(
    returns: npt.ArrayLike, benchmark: npt.ArrayLike, *, block: float, samples: int, seed: int, level: float = 0.025
) -> Tested:
    """Is the intercept of `returns` [T] on `benchmark` [T] (simple returns of the same bars) above 0?

    Raises:
        InvalidInput: not finite, too short, of different length, or without variance.
    """
    y, x = _checked(returns, "returns"), _checked(benchmark, "benchmark returns")
    if len(x) != len(y):
        raise InvalidInput(f"{len(y)} returns against {len(x)} of the benchmark: give the same bars of both")
    return _test(y, x, block=block, samples=samples, seed=seed, level=level)


def _test(y: FloatArray, x: FloatArray | None, *, block: float, samples: int, seed: int, level: float) -> Tested:
    n = len(y)
    if n <= 2 * block:
        raise InvalidInput(f"{n} bars are too few for blocks of {block:g}: at least {math.floor(2 * block) + 1} are needed")
    estimate = float(_estimates(y[None, :], None if x is None else x[None, :])[0])
    drawn = [_estimates(y[r], None if x is None else x[r]) for r in resamples(n, block, samples, seed)]
    deviation = (np.concatenate(drawn) - estimate) * math.sqrt(n / (n - 2 * block))
    standard_error = float(deviation.std())
    if standard_error <= 1e-12:  # a copy of the benchmark: no alpha, and no doubt about it
        return Tested(estimate=0.0, standard_error=0.0, p=1.0, lower=0.0, samples=samples)
    p = (1 + int((deviation >= estimate).sum())) / (samples + 1)
    quantile = float(np.sort(deviation)[min(samples, math.ceil((1 - level) * (samples + 1))) - 1])
    return Tested(estimate=estimate, standard_error=standard_error, p=p, lower=estimate - quantile, samples=samples)


def _estimates(y: FloatArray, x: FloatArray | None) -> FloatArray:
    """[B] statistics of rows of samples: the mean, or the intercept on `x`."""
    y_mean = y.mean(axis=1)
    if x is None:
        return np.asarray(y_mean, dtype=np.float64)
    x_mean = x.mean(axis=1)
    dx = x - x_mean[:, None]
    variance = np.maximum((dx * dx).mean(axis=1), 1e-300)  # a resample of equal bars has slope 0
    return np.asarray(y_mean - (dx * y).mean(axis=1) / variance * x_mean, dtype=np.float64)


def _checked(values: npt.ArrayLike, what: str) -> FloatArray:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or len(series) < 2:
        raise InvalidInput(f"{what} of shape {series.shape} cannot be tested: give at least 2 in one dimension")
    if not np.isfinite(series).all():
        raise InvalidInput(f"{what}: value {int(np.argmax(~np.isfinite(series)))} is not finite")
    if series.std() <= 1e-12:
        raise InvalidInput(f"{what} are all {series[0]:g}: there is nothing to test")
    return series
