from __future__ import annotations

from math import inf, nan

import pytest

from cappuccino.core.errors import RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.panel import Candle, panel

HOUR = Timeframe(3600)
NO_BAR = [
    (nan, 2.0, 1.0, 1.5, 9.0),
    (1.0, inf, 1.0, 1.5, 9.0),
    (1.0, 2.0, 0.0, 1.5, 9.0),
    (1.0, 2.0, 1.0, nan, 9.0),
    (1.0, 2.0, 1.0, -inf, 9.0),
    (1.0, 2.0, 1.0, -1.5, 9.0),
    (1.0, 2.0, 1.0, 1.5, nan),
    (1.0, 2.0, 1.0, 1.5, -9.0),
]


def at(hour: int, *values: float) -> Candle:
    return (hour * 3600, *values)  # type: ignore[return-value]


@pytest.mark.parametrize("values", NO_BAR)
def test_a_bar_whose_prices_are_no_prices_is_one_that_the_venue_lacks(values: tuple[float, ...]) -> None:
    good = (1.0, 2.0, 0.5, 1.25, 9.0)
    bars = panel({"A/USD": [at(0, *good), at(1, *values), at(2, *good)]}, ("A/USD",), HOUR, start=0, end=3 * 3600)
    assert bars.missing[:, 0].tolist() == [False, True, False]
    row = [float(column[1, 0]) for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)]
    assert row == [1.25, 1.25, 1.25, 1.25, 0.0]


def test_a_venue_that_tells_no_price_at_all_is_away() -> None:
    with pytest.raises(RetryLater, match="no bars of A/USD"):
        panel({"A/USD": [at(0, *NO_BAR[0])]}, ("A/USD",), HOUR, start=0, end=3600)
