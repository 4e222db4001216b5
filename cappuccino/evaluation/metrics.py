"""What a return series is worth, and how well that is known.

Units: returns are simple returns per bar (0.01 = 1 %), Sharpe ratios are annualised unless a name says
`per_bar`, drawdowns and exposures are fractions in [0, 1], the risk-free rate is 0.

Invariants: a return is E[t+1] / E[t] - 1, never a difference in dollars, never inverted; annualisation uses the
length of a bar, never the length of the data. A series that cannot be scored (constant, too short, not finite)
is refused with InvalidInput: it never becomes a number.

Sources: Lo (2002) for the standard error of a Sharpe ratio under normality, Mertens (2002) for skew and kurtosis,
Newey and West (1987) for the t-statistic of alpha. docs/statistics.md publishes every formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput

FloatArray = npt.NDArray[np.float64]

NORMAL = NormalDist()
_FLAT = 1e-12  # a standard deviation below this share of the mean size is rounding, not risk


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of one bar's return: skew and (non-excess) kurtosis, 3 for a normal variable."""

    n: int
    mean: float
    sd: float
    skew: float
    kurtosis: float

    @property
    def sharpe_per_bar(self) -> float:
        return self.mean / self.sd


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Returns on benchmark returns: r = alpha + beta b + u. `alpha` and `alpha_se` are per bar."""

    alpha: float
    alpha_se: float
    t_alpha: float
    beta: float
    lags: int
    n: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided normal interval of alpha, per bar."""
        half = NORMAL.inv_cdf(0.5 + level / 2) * self.alpha_se
        return self.alpha - half, self.alpha + half


@dataclass(frozen=True, kw_only=True)
class TradeScore:
    """Closed trades (flat to flat per symbol, net of costs).

    `break_even_win_rate` is mean loss / (mean win + mean loss): winning less often than this loses money.
    None where there is nothing to divide by: no trades, or for the profit factor no losses.
    """

    closed: int
    wins: int
    win_rate: float | None
    break_even_win_rate: float | None
    profit_factor: float | None
    mean_pnl: float | None


def simple_returns(equity: npt.ArrayLike) -> FloatArray:
    """E[t+1] / E[t] - 1 for an equity or price curve [T] or [T, N]; the result has T - 1 rows.

    Raises:
        InvalidInput: fewer than two values, or one that is not finite and positive.
    """
    values = np.asarray(equity, dtype=np.float64)
    if len(values) < 2:
        raise InvalidInput(f"returns need at least 2 values, got {len(values)}: give a longer curve")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InvalidInput(f"equity at {where} is {values[where]}: returns need finite values above 0")
    return np.asarray(values[1:] / values[:-1] - 1.0, dtype=np.float64)


def log_returns(equity: npt.ArrayLike) -> FloatArray:
    """log(E[t+1] / E[t]); same shapes and errors as `simple_returns`."""
    return np.log1p(simple_returns(equity))


def moments(returns: npt.ArrayLike) -> Moments:
    """Sample moments of returns [T]; sd has T - 1 in the denominator, skew and kurtosis T.

    Raises:
        InvalidInput: fewer than 2 returns, one that is not finite, or no variance (nothing was risked).
    """
    values = _series(returns)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd <= _FLAT * max(1.0, abs(mean)):
        raise InvalidInput(f"all {len(values)} returns are {mean:g}: a series without variance has no Sharpe ratio")
    centred = (values - mean) / values.std()
    return Moments(n=len(values), mean=mean, sd=sd, skew=float((centred**3).mean()), kurtosis=float((centred**4).mean()))


def sharpe(returns: npt.ArrayLike, bars_per_year: float) -> float:
    """mean / sd x sqrt(bars per year) of simple returns [T].

    Raises:
        InvalidInput: as `moments`; also for a series without variance, which is a failure and not a score.
    """
    return moments(returns).sharpe_per_bar * math.sqrt(bars_per_year)


def sharpe_standard_error(returns: npt.ArrayLike, bars_per_year: float) -> float:
    """Annualised standard error: sqrt((1 - skew S + (kurtosis - 1) / 4 S^2) / (T - 1)) per bar (Mertens 2002).

    With skew 0 and kurtosis 3 this is Lo's (1 + S^2 / 2) / T. Bars are taken as uncorrelated.
    """
    return per_bar_standard_error(moments(returns)) * math.sqrt(bars_per_year)


def per_bar_standard_error(m: Moments) -> float:
    s = m.sharpe_per_bar
    # The variance is positive for every distribution (kurtosis >= skew^2 + 1); the floor is for rounding.
    variance = max(1.0 - m.skew * s + (m.kurtosis - 1.0) / 4.0 * s * s, 1e-12)
    return math.sqrt(variance / (m.n - 1))


def minimum_detectable_sharpe(n_bars: int, bars_per_year: float, *, alpha: float, power: float = 0.5) -> float:
    """The annualised true Sharpe that a one-sided test at level `alpha` finds with probability `power`.

    (z(1 - alpha) + z(power)) x sqrt(bars per year / n_bars). At power 0.5, the default, this is the measured Sharpe
    that just reaches significance: 720 hourly bars give 5.7 at 5 % and 8.4 at 2.5 % / 3. At 0.8 it is 8.7 and 11.3.

    Raises:
        InvalidInput: no bars, or a level or power outside (0, 1).
    """
    if n_bars < 1 or not (0 < alpha < 1 and 0 < power < 1):
        raise InvalidInput(f"n_bars {n_bars}, alpha {alpha}, power {power}: need bars, and both levels inside (0, 1)")
    return (NORMAL.inv_cdf(1 - alpha) + NORMAL.inv_cdf(power)) * math.sqrt(bars_per_year / n_bars)


def drawdown(equity: npt.ArrayLike) -> FloatArray:
    """[T] loss from the highest value so far, as a fraction >= 0."""
    values = np.asarray(equity, dtype=np.float64)
    return np.asarray(1.0 - values / np.maximum.accumulate(values), dtype=np.float64)


def max_drawdown(equity: npt.ArrayLike) -> float:
    return float(drawdown(equity).max())


def exposure(weights: npt.ArrayLike) -> float:
    """Mean invested share of equity. `weights` [T] or [T, N]: position value / equity at each close."""
    values = np.abs(np.asarray(weights, dtype=np.float64))
    return float((values if values.ndim == 1 else values.sum(axis=1)).mean()) if len(values) else 0.0


def turnover(traded_notional: npt.ArrayLike, equity: npt.ArrayLike, bars_per_year: float) -> float:
    """Traded value (buys and sells, [T]) over equity [T], times a year: 2 is one full round trip of equity a year."""
    traded, base = np.asarray(traded_notional, dtype=np.float64), np.asarray(equity, dtype=np.float64)
    if traded.shape != base.shape or len(base) == 0:
        raise InvalidInput(f"traded notional {traded.shape} and equity {base.shape} must be equally long and not empty")
    return float((np.abs(traded) / base).mean() * bars_per_year)


def trades_per_hour(trades: int, n_bars: int, bars_per_year: float) -> float:
    """Trade frequency; above 5 an hour is churning."""
    return trades / (n_bars / bars_per_year * 365 * 24) if n_bars else 0.0


def score_trades(pnl: npt.ArrayLike) -> TradeScore:
    """Net result of each closed trade [K], in any one unit (a trade of exactly 0 is neither win nor loss)."""
    values = np.asarray(pnl, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput(f"the result of trade {int(np.argmax(~np.isfinite(values)))} is not finite: check its fills")
    wins, losses = values[values > 0], -values[values < 0]
    mean_win = float(wins.mean()) if len(wins) else 0.0
    mean_loss = float(losses.mean()) if len(losses) else 0.0
    return TradeScore(
        closed=len(values),
        wins=len(wins),
        win_rate=len(wins) / len(values) if len(values) else None,
        break_even_win_rate=mean_loss / (mean_win + mean_loss) if mean_win + mean_loss > 0 else None,
        profit_factor=float(wins.sum() / losses.sum()) if len(losses) else None,
        mean_pnl=float(values.mean()) if len(values) else None,
    )


def regress(returns: npt.ArrayLike, benchmark: npt.ArrayLike, lags: int | None = None) -> Regression:
    """Alpha and beta by least squares; the standard error is Newey-West (Bartlett kernel).

    Args:
        returns, benchmark: simple returns per bar [T] of the same bars; the benchmark is HODL.
        lags: default floor(4 (T / 100)^(2/9)), the usual rule: 6 for 720 bars.

    Raises:
        InvalidInput: lengths differ, or the benchmark has no variance (cash explains nothing).
    """
    y, x = _series(returns), _series(benchmark)
    if len(y) != len(x):
        raise InvalidInput(f"{len(y)} returns against {len(x)} of the benchmark: give the same bars of both")
    n = len(y)
    if n < 3:
        raise InvalidInput(f"a regression on a benchmark needs at least 3 returns, got {n}")
    moments(x)
    lags = math.floor(4 * (n / 100) ** (2 / 9)) if lags is None else lags
    x_mean, x_var = float(x.mean()), float(x.var())
    beta = float(((x - x_mean) * (y - y.mean())).mean() / x_var)
    alpha = float(y.mean()) - beta * x_mean
    residual = y - alpha - beta * x
    influence = residual * (1.0 - (x - x_mean) * x_mean / x_var)  # of each bar on alpha, times n
    variance = float(influence @ influence)
    for lag in range(1, min(lags, n - 1) + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(influence[lag:] @ influence[:-lag])
    se = math.sqrt(max(variance, 0.0) / (n * (n - 2)))
    t_alpha = alpha / se if se > _FLAT * max(abs(alpha), 1e-9) else 0.0  # the benchmark itself: no residual, no evidence
    return Regression(alpha=alpha, alpha_se=se, t_alpha=t_alpha, beta=beta, lags=lags, n=n)


def _series(returns: npt.ArrayLike) -> FloatArray:
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise InvalidInput(f"a return series has shape {values.shape}: give at least 2 returns in one dimension")
    if not np.isfinite(values).all():
        raise InvalidInput(f"return {int(np.argmax(~np.isfinite(values)))} is not finite: check the equity curve for ruin")
    return values
