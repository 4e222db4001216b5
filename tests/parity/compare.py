"""Two accounts of the same bundle over the same bars: how far apart they grew, day by day, and where they decided differently.

A decision is one bar's: it differs when any symbol is asked for another weight. Its distance is that of the raw action farther
from the quantisation boundary between the two (actions are rounded to multiples of 1/128; boundaries lie half-way). A day is
one of UTC. Growth in basis points of log equity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cappuccino.risk.sizing import QUANTUM, Sizing, decode

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DAY = 86_400
BPS = 1e4


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One engine's account of a scene.

    at: [K+1] close instants, epoch seconds, the first decision's first; equity: [K+1]. actions: [K, N] raw, NaN where none was
    given; row k was decided at at[k]. exits: instant and share of equity of every protective sale.
    """

    at: IntArray
    equity: FloatArray
    actions: FloatArray
    exits: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A decision that differs: `distance` in action units."""

    at: int
    symbol: int
    actions: tuple[float, float]
    distance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """days: [D] difference in growth, bps. exits: [D] share of equity sold by barriers, summed over the day's exits. moved: how
    often the account's equity changed; never: nothing was compared."""

    days: FloatArray
    exits: FloatArray
    decisions: int
    moved: int
    differences: tuple[Difference, ...]

    @property
    def worst(self) -> float:
        return float(np.abs(self.days).max())

    @property
    def mean(self) -> float:
        return float(np.abs(self.days).mean())

    @property
    def farthest(self) -> float:
        """The largest distance of a differing decision, 0 when none differs."""
        return max((each.distance for each in self.differences), default=0.0)

    def allowed(self, *, plain: float, tick_bps: float, most: float) -> FloatArray:
        """[D] bps: `plain`, and for each exit its weight x the tick step, `most` at most in all."""
        return np.minimum(plain + self.exits * tick_bps, max(plain, most))

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            days=np.concatenate([self.days, other.days]),
            exits=np.concatenate([self.exits, other.exits]),
            decisions=self.decisions + other.decisions,
            moved=self.moved + other.moved,
            differences=self.differences + other.differences,
        )


def compare(one: Track, other: Track, sizing: Sizing) -> Comparison:
    """
    Raises:
        ValueError: they are not of the same closes.
    """
    if not np.array_equal(one.at, other.at) or one.actions.shape != other.actions.shape:
        raise ValueError(f"{len(one.at)} closes and {one.actions.shape} actions against {len(other.at)}, {other.actions.shape}")
    marks = _marks(one.at)
    days = BPS * np.diff(np.log(one.equity[marks] / other.equity[marks]))
    exits = np.zeros(len(days))
    for at, weight in other.exits:
        exits[np.clip(np.searchsorted(one.at[marks], at, side="left") - 1, 0, len(days) - 1)] += weight
    return Comparison(
        days=days,
        exits=exits,
        decisions=len(one.actions),
        moved=int(np.count_nonzero(np.diff(other.equity))),
        differences=tuple(_differences(one, other, sizing)),
    )


def boundary_distance(one: float, other: float) -> float:
    """How far the farther of two actions is from the boundary between them, in action units."""
    a, b = np.clip([one, other], -1.0, 1.0)
    middle = (a + b) / 2 * QUANTUM
    boundary = (np.floor(middle) + 0.5) / QUANTUM
    return float(max(abs(a - boundary), abs(b - boundary)))


def _marks(at: IntArray) -> IntArray:
    """Rows at which a day ends, with the first and the last."""
    inner = np.flatnonzero(at % DAY == 0)
    return np.unique(np.concatenate([[0], inner, [len(at) - 1]]))


def _asked(actions: FloatArray, sizing: Sizing) -> FloatArray:
    """[K, N] the weight asked for, -1 where the symbol is held."""
    finite = np.isfinite(actions)
    weight, hold = decode(np, np.where(finite, actions, 0.0), sizing)
    return np.where(hold, -1.0, weight)


def _differences(one: Track, other: Track, sizing: Sizing) -> list[Difference]:
    differ = _asked(one.actions, sizing) != _asked(other.actions, sizing)
    found = []
    for k in np.flatnonzero(differ.any(axis=1)).tolist():
        pairs = [(n, float(one.actions[k, n]), float(other.actions[k, n])) for n in np.flatnonzero(differ[k]).tolist()]
        n, a, b = max(pairs, key=lambda pair: boundary_distance(*pair[1:]))
        found.append(Difference(at=int(one.at[k]), symbol=n, actions=(a, b), distance=boundary_distance(a, b)))
    return found
