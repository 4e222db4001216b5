"""The arena: who leads over the last days, and whether that means anything.

Entrants (candidates, HODL, cash) are ranked by their Sharpe over a rolling window of seven market days. Beside the
rank stand the Sharpe's own interval and the difference to the leader with an interval from paired stationary-bootstrap
resamples: all entrants see the same resampled bars, so what they share cancels. Over seven days the standard error of an
hourly Sharpe is about 7.2, so most differences include 0. "Top 3" is display: it allocates nothing and promotes nobody.

Units: equity in any one currency at the same closes, Sharpe annualised. An entrant that never moved (cash) has no Sharpe:
it is ranked at 0, which is what cash earns above itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import bootstrap, metrics

WINDOW_DAYS = 7.0
SHOWN_AS_TOP = 3
_FLAT = 1e-12


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One entrant. `sharpe` and its 95 % interval are None when it never moved.

    behind_leader: the leader's Sharpe less this one's, with its 95 % interval; 0 for the leader.
    `top` is for display only.
    """

    rank: int
    name: str
    total_return: float
    sharpe: float | None
    sharpe_low: float | None
    sharpe_high: float | None
    behind_leader: float
    behind_low: float
    behind_high: float
    top: bool

    @property
    def tied_with_leader(self) -> bool:
        """The interval of the difference includes 0."""
        return self.behind_low <= 0.0 <= self.behind_high


def standings(
    equity: Mapping[str, npt.ArrayLike],
    bars_per_year: float,
    *,
    seed: int,
    days: float = WINDOW_DAYS,
    samples: int = 1000,
    block_hours: float = 24.0,
) -> tuple[Standing, ...]:
    """Rank the entrants over the last `days` of their curves, best first; equal ones by name.

    Raises:
        InvalidInput: no entrants, curves of different length, or fewer than 3 bars.
    """
    names = sorted(equity)
    lengths = {len(np.asarray(equity[name])) for name in names}
    if len(lengths) != 1:
        raise InvalidInput(f"arena curves have lengths {sorted(lengths)}: give every entrant the same closes")
    window = round(days * bars_per_year / 365)
    curves = np.column_stack([np.asarray(equity[name], dtype=np.float64)[-window - 1 :] for name in names])
    if len(curves) < 4:
        raise InvalidInput(f"the arena has {len(curves)} closes: at least 4 are needed to rank anyone")
    returns = metrics.simple_returns(curves)
    n = len(returns)
    root = math.sqrt(bars_per_year)
    sharpes = _sharpes(returns[None])[0] * root
    block = min(bootstrap.block_bars(block_hours, bars_per_year), n / 3)
    drawn = [_sharpes(returns[index]) * root for index in bootstrap.resamples(n, max(1.0, block), samples, seed)]
    resampled = np.concatenate(drawn)
    order = sorted(range(len(names)), key=lambda i: (-sharpes[i], names[i]))
    leader = order[0]
    result = []
    for rank, i in enumerate(order, start=1):
        behind = float(sharpes[leader] - sharpes[i])
        low, high = _basic_interval(behind, resampled[:, leader] - resampled[:, i])
        sharpe, sharpe_low, sharpe_high = _sharpe_interval(returns[:, i], bars_per_year)
        result.append(
            Standing(
                rank=rank,
                name=names[i],
                total_return=float(curves[-1, i] / curves[0, i] - 1),
                sharpe=sharpe,
                sharpe_low=sharpe_low,
                sharpe_high=sharpe_high,
                behind_leader=behind,
                behind_low=low,
                behind_high=high,
                top=rank <= SHOWN_AS_TOP,
            )
        )
    return tuple(result)


def rolling_sharpe(equity: npt.ArrayLike, bars_per_year: float, days: float = WINDOW_DAYS) -> npt.NDArray[np.float64]:
    """[T - 1] annualised Sharpe over the last `days` at each close; NaN before the window is full or where nothing moved."""
    returns = metrics.simple_returns(equity)
    window = max(2, round(days * bars_per_year / 365))
    result = np.full(len(returns), np.nan)
    if len(returns) >= window:
        views = np.lib.stride_tricks.sliding_window_view(returns, window)
        sd = views.std(axis=1, ddof=1)
        moved = sd > _FLAT
        result[window - 1 :][moved] = views.mean(axis=1)[moved] / sd[moved] * math.sqrt(bars_per_year)
    return result


def _sharpes(returns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[B, N] per-bar Sharpe of [B, T, N]; 0 for what did not move."""
    mean, sd = returns.mean(axis=1), returns.std(axis=1, ddof=1)
    return np.asarray(np.where(sd > _FLAT, mean / np.where(sd > _FLAT, sd, 1.0), 0.0), dtype=np.float64)


def _basic_interval(estimate: float, resampled: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(resampled - estimate, [0.025, 0.975])
    return estimate - float(high), estimate - float(low)


def _sharpe_interval(returns: npt.NDArray[np.float64], bars_per_year: float) -> tuple[float | None, float | None, float | None]:
    if returns.std() <= _FLAT:
        return None, None, None
    sharpe = metrics.sharpe(returns, bars_per_year)
    half = metrics.NORMAL.inv_cdf(0.975) * metrics.sharpe_standard_error(returns, bars_per_year)
    return sharpe, sharpe - half, sharpe + half
