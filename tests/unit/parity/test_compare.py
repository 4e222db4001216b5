"""What `make parity` counts, on tracks made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cappuccino.risk.sizing import QUANTUM, Sizing
from tests.parity.compare import DAY, Track, boundary_distance, compare

MIDNIGHT = 1_704_067_200
STEP = DAY // 4
HALF = 0.5 / QUANTUM


def track(equity: list[float], actions: list[list[float]] | None = None, *, at: int = MIDNIGHT, **exits: object) -> Track:
    """Four bars a day, from midnight unless told otherwise."""
    given = np.zeros((len(equity) - 1, 2)) if actions is None else np.array(actions)
    return Track(at=at + STEP * np.arange(len(equity)), equity=np.array(equity), actions=given, **exits)  # type: ignore[arg-type]


def test_a_gap_that_opens_on_one_day_is_that_days_alone() -> None:
    flat = [100.0] * 13
    found = compare(track([100.0] * 6 + [100.01] * 7), track(flat), Sizing())
    assert found.days == pytest.approx([0.0, 1.0, 0.0], abs=1e-3)
    assert (found.worst, found.mean) == (pytest.approx(1.0, abs=1e-3), pytest.approx(1 / 3, abs=1e-3))


def test_a_day_may_begin_and_end_within() -> None:
    found = compare(track([100.0] * 4 + [101.0], at=MIDNIGHT + 3 * STEP), track([100.0] * 5, at=MIDNIGHT + 3 * STEP), Sizing())
    assert found.days == pytest.approx([0.0, 1e4 * np.log(1.01)])


def test_exits_widen_the_day_in_which_they_are_up_to_the_most() -> None:
    exits = [(MIDNIGHT + STEP, 0.3), (MIDNIGHT + DAY, 0.2), (MIDNIGHT + DAY + STEP, 0.1)]
    found = compare(track([100.0] * 13), track([100.0] * 13, exits=exits), Sizing())
    assert found.exits == pytest.approx([0.5, 0.1, 0.0])
    assert found.allowed(plain=1, tick_bps=5, most=5) == pytest.approx([3.5, 1.5, 1.0])
    assert found.allowed(plain=1, tick_bps=50, most=5) == pytest.approx([5.0, 5.0, 1.0])


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        (0.5, 0.5, None),
        (0.5, 0.5 + 0.4 / QUANTUM, None),  # rounded to the same
        (0.5 + HALF - 1e-6, 0.5 + HALF + 1e-6, 1e-6),
        (0.5, 0.5 + 1 / QUANTUM, HALF),
        (0.2, 0.9, 0.35),  # it is not luck that hides a large difference
        (-1.0, -0.2, None),  # both close
        (1.7, 1.0, None),  # both are clipped
        (0.0, float("nan"), None),  # both hold
        (12.5 / QUANTUM - 1e-6, 12.5 / QUANTUM + 1e-6, 1e-6),  # hold, and the smallest weight
    ],
)
def test_a_decision_differs_when_another_weight_is_asked_for(one: float, other: float, distance: float | None) -> None:
    actions = [[0.3, 0.3], [0.3, one]], [[0.3, 0.3], [0.3, other]]
    found = compare(*(track([100.0] * 3, rows) for rows in actions), Sizing())
    assert found.decisions == 2
    if distance is None:
        assert found.differences == ()
    else:
        (difference,) = found.differences
        assert (difference.at, difference.symbol) == (MIDNIGHT + STEP, 1)
        assert difference.distance == pytest.approx(distance, abs=HALF * 1.01 if distance > HALF else 1e-9)


def test_the_distance_is_the_farther_ones() -> None:
    boundary = 40.5 / QUANTUM
    assert boundary_distance(boundary - 1e-6, boundary + 3e-5) == pytest.approx(3e-5)


def test_both_must_be_of_the_same_closes() -> None:
    with pytest.raises(ValueError, match="closes"):
        compare(track([100.0] * 5), track([100.0] * 6), Sizing())
    with pytest.raises(ValueError, match="closes"):
        compare(track([100.0] * 5), track([100.0] * 5, at=MIDNIGHT + STEP), Sizing())


def test_what_is_added_is_counted_together() -> None:
    day = compare(track([100.0] * 5), track([100.0] * 5), Sizing())
    both = day + day
    assert (len(both.days), both.decisions, both.farthest) == (2, 8, 0.0)
