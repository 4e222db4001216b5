"""The best that a trader who knows the market's law, but not its drift, can do: computed, not guessed.

Per asset, in the notation of `cappuccino.market.generator` at constant volatility h and without jumps:

    return   r = d + c - h^2 / 2 + h n        drift   d' = phi d + w,   w ~ N(0, sd^2 (1 - phi^2))

1. `steady_state`: the steady Kalman filter gives the best estimate m of the next bar's drift from past returns y (the own;
   for a follower the leader's too). With V = cov(noise of y), C = cov(w, noise of y), H the loading of y on d, P = var(d - m):

       P = phi^2 P + var(w) - K F K',    F = H P H' + V,    K = (phi P H' + C) F^-1,    m' = phi m + K (y - E y)

   (B. D. O. Anderson, J. B. Moore, Optimal Filtering, 1979, section 5.4). y - E y ~ N(0, F) is new each bar, so (m, weight) is
   a Markov decision process: all that the past says about the future is in it.
2. `solve`: average-reward dynamic programming over (m, weight) finds the largest mean log growth a bar, by relative value
   iteration (M. L. Puterman, Markov Decision Processes, 1994, section 8.5). What an action does is asked of `risk.sizing`;
   what a fill costs is the environment's rule. Between grid points values are linear; expectations are Gauss-Hermite sums.

The growth of several assets is taken as the sum of theirs, right to the second order in a bar's return when their noise is
independent, and while three assets of at most 30 % leave cash for every buy. How right, execution in the environment says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RegularGridInterpolator
from scipy.linalg import solve_discrete_are
from scipy.sparse import csr_array

from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import Costs
from cappuccino.market.generator import GeneratorConfig
from cappuccino.risk.sizing import Sizing, decode, plan

Array = npt.NDArray[np.float64]

HOLD = 0.0
ACTIONS = np.array([HOLD, -1.0, *np.arange(2, 11) / 10])  # hold, sell all, target weights of 0.2 to 1 times the largest


@dataclass(frozen=True, kw_only=True, eq=False)
class Filter:
    """Steady state. gain: K [Y]; innovations: F [Y, Y]; error: P. The last of the Y returns is the asset's own.
    mean: of a bar's log return, c - h^2 / 2."""

    phi: float
    mean: float
    gain: Array
    innovations: Array
    error: float
    drift_sd: float

    @property
    def sd(self) -> float:
        """Of the estimate."""
        return float(np.sqrt(self.drift_sd**2 - self.error))

    def estimates(self, returns_TY: Array) -> Array:
        """[T] expected drift of the bar after each, from log returns up to it; the first from a prior of zero."""
        loading = np.zeros(len(self.gain))
        loading[-1] = 1.0
        decay = self.phi - float(self.gain @ loading)
        pushes = (returns_TY - self.mean) @ self.gain
        estimate, out = 0.0, []
        for push in pushes.tolist():
            estimate = decay * estimate + push
            out.append(estimate)
        return np.array(out)


def steady_state(config: GeneratorConfig, timeframe: Timeframe) -> Filter:
    """Of an asset with a drift: every one where there is no leader, a follower where there is one."""
    assert not config.regimes, "the optimum is known at constant volatility: regimes=False"
    assert config.jumps_per_year == 0, "the optimum is known without jumps: jumps_per_year=0"
    assert config.correlation == 0, "the other assets' returns would tell of this one's: correlation=0"
    phi, h, sd = 0.5 ** (1 / config.drift_half_life), config.volatility, config.drift_volatility
    push = sd * np.sqrt(1 - phi**2)
    observed = 1 if config.leader is None else 2  # the own return; before it the leader's
    loading = np.zeros((1, observed))
    loading[0, -1] = 1.0
    noise = h**2 * np.eye(observed)
    shared = np.zeros((1, observed))
    shared[0, 0] = config.drift_feedback * push * h  # the leader's noise, or the own one
    error = float(solve_discrete_are([[phi]], loading, [[push**2]], noise, s=shared)[0, 0])
    innovations = loading.T * error @ loading + noise
    gain = np.linalg.solve(innovations, (phi * error * loading + shared)[0])
    mean = config.drift_per_year / timeframe.bars_per_year - 0.5 * h**2
    return Filter(phi=phi, mean=mean, gain=gain, innovations=innovations, error=error, drift_sd=sd)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """estimate [D] and weight [W], both evenly spaced; beyond its ends values are those at the ends."""

    estimate: Array
    weight: Array

    @classmethod
    def of(cls, filter_: Filter, *, estimates: int = 241, weights: int = 31, span: float = 5.0, top: float = 0.6) -> Grid:
        reach = span * filter_.sd
        return cls(estimate=np.linspace(-reach, reach, estimates), weight=np.linspace(0.0, top, weights))

    @property
    def size(self) -> int:
        return len(self.estimate) * len(self.weight)

    def corners(self, estimate: Array, weight: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """The four states around each point and their shares, [..., 4]: linear interpolation."""
        (low_d, share_d), (low_w, share_w) = _position(self.estimate, estimate), _position(self.weight, weight)
        index = low_d * len(self.weight) + low_w
        states = np.stack([index, index + 1, index + len(self.weight), index + len(self.weight) + 1], -1)
        left_d, left_w = 1 - share_d, 1 - share_w
        return states, np.stack([left_d * left_w, left_d * share_w, share_d * left_w, share_d * share_w], -1)


def _position(axis: Array, at: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """(the point below, how far towards the next, 0 to 1)"""
    steps = np.clip((at - axis[0]) / (axis[1] - axis[0]), 0.0, len(axis) - 1.0)
    low = np.minimum(steps.astype(np.int64), len(axis) - 2)
    return low, steps - low


@dataclass(frozen=True, kw_only=True)
class Trade:
    """What `ACTIONS` do to an account at the open: its share left after costs, and its weight then; [..., A]."""

    kept: Array
    weight: Array


def trade(weight: Array, costs: Costs, sizing: Sizing = Sizing()) -> Trade:  # noqa: B008 - frozen
    """By the environment's rules: `risk.sizing` says what is traded, slippage and the fee on what is received what is lost."""
    target, hold = decode(np, np.broadcast_to(ACTIONS, (*weight.shape, len(ACTIONS))), sizing)
    holdings = np.broadcast_to(weight[..., None], target.shape)
    one, nothing = np.ones_like(target), np.zeros_like(target)
    sold, bought = plan(
        np, target=target, hold=hold, equity=one[..., 0], holdings=holdings, close=one, min_notional=nothing, sizing=sizing
    )
    fee, slippage = costs.fee, costs.slippage_bps / 1e4
    cash = 1.0 - holdings - bought + sold * (1 - slippage) * (1 - fee)
    held = holdings - sold + bought * (1 - fee) / (1 + slippage)
    return Trade(kept=cash + held, weight=held / (cash + held))


@dataclass(frozen=True, kw_only=True, eq=False)
class Bar:
    """A bar from open to close, from each (estimate, weight held through it): mean log growth [S] and next states [S, S]."""

    growth: Array
    next_state: csr_array


def bar(filter_: Filter, grid: Grid, *, nodes: int = 9) -> Bar:
    """Surprise of the own return, and with it that of the estimate: jointly normal, in two orthogonal parts."""
    own = filter_.innovations[-1, -1]
    together = float(filter_.gain @ filter_.innovations[-1])
    moved = float(filter_.gain @ filter_.innovations @ filter_.gain)
    rest = max(0.0, moved - together**2 / own)  # of the estimate's move, what the own return does not tell
    a, share_a = _normal(nodes)
    b, share_b = _normal(nodes if rest > 1e-12 * moved else 1)
    d, u, a, b = (axis.reshape(shape) for axis, shape in zip(
        (grid.estimate, grid.weight, a, b), ((-1, 1, 1, 1), (1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, -1)), strict=True
    ))  # fmt: skip
    move = np.expm1(d + filter_.mean + np.sqrt(own) * a)
    estimate = filter_.phi * d + together / np.sqrt(own) * a + np.sqrt(rest) * b
    weight = u * (1 + move) / (1 + u * move)
    share = share_a[:, None] * share_b
    growth = np.sum(np.log1p(u * move) * share, axis=(2, 3)).ravel()
    states, shares = grid.corners(*np.broadcast_arrays(estimate, weight))
    rows = np.broadcast_to(np.arange(grid.size).reshape(len(grid.estimate), len(grid.weight), 1, 1, 1), states.shape)
    chances = (shares * share[..., None]).ravel()
    matrix = csr_array((chances, (rows.ravel(), states.ravel())), shape=(grid.size, grid.size))
    return Bar(growth=growth, next_state=matrix)


def _normal(nodes: int) -> tuple[Array, Array]:
    """Points and shares of a standard normal's Gauss-Hermite sum."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return points, weights / weights.sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimum:
    """growth: of one asset, mean log a bar, net of costs. after [D, W]: relative value of a weight held from an open on."""

    filter: Filter
    grid: Grid
    costs: Costs
    sizing: Sizing
    growth: float
    after: Array

    @cached_property
    def _value(self) -> RegularGridInterpolator:
        return RegularGridInterpolator((self.grid.estimate, self.grid.weight), self.after)

    def action(self, estimate: Array, weight: Array) -> Array:
        """The best of `ACTIONS` for each pair; shapes are equal."""
        done = trade(weight, self.costs, self.sizing)
        at = np.stack([
            np.clip(np.broadcast_to(estimate[..., None], done.weight.shape), self.grid.estimate[0], self.grid.estimate[-1]),
            np.clip(done.weight, 0.0, self.grid.weight[-1]),
        ], -1)  # fmt: skip
        return ACTIONS[np.argmax(np.log(done.kept) + self._value(at), axis=-1)]


def solve(
    filter_: Filter,
    costs: Costs,
    *,
    grid: Grid | None = None,
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    tolerance: float = 1e-8,
) -> Optimum:
    """Until the bounds on the growth that each pass gives lie within `tolerance` of each other, per bar."""
    grid = grid or Grid.of(filter_)
    passed, done = bar(filter_, grid), trade(grid.weight, costs, sizing)
    low, share = _position(grid.weight, done.weight)  # [W, A]
    lost = np.log(done.kept)
    value = np.zeros(grid.size)
    for _ in range(100_000):
        after = (passed.growth + passed.next_state @ value).reshape(len(grid.estimate), -1)
        best = (lost + after[:, low] * (1 - share) + after[:, low + 1] * share).max(-1).ravel()
        change = best - value
        value = best - best[0]
        if np.ptp(change) < tolerance:
            growth = float(change.max() + change.min()) / 2
            return Optimum(filter=filter_, grid=grid, costs=costs, sizing=sizing, growth=growth, after=after)
    raise AssertionError(f"value iteration has not settled: the growth is known to {np.ptp(change):.1e} only")
