"""Bars become ticks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.tape import MICROSECONDS, Tape

from .builders import HOUR, T0, bars, flat

ROUNDING = 1e-7


@st.composite
def candles(draw: Any) -> list[tuple[float, float, float, float]]:
    level, made = 100.0, []
    for _ in range(draw(st.integers(1, 5))):
        steps = [draw(st.floats(-0.2, 0.2)) for _ in range(4)]
        points = [level * (1 + step) for step in steps]
        made.append((points[0], max(points), min(points), points[3]))
        level = points[3]
    return made


@settings(deadline=None)
@given(first=candles(), second=candles(), tick_bps=st.sampled_from([20.0, 100.0, 1000.0]))
def test_every_bar_passes_open_low_high_close_in_steps_within_the_bound(first: Any, second: Any, tick_bps: float) -> None:
    count = min(len(first), len(second))
    panel = bars({"A/USD": first[:count], "B/USD": second[:count]})
    tape = Tape(panel, tick_bps=tick_bps)
    ticks = [tape.tick(number) for number in range(len(tape))]
    for row in range(count):
        inside = [tick for tick in ticks if tick.bar == row]
        assert len(inside) == tape.tick_count(row)
        assert [tick.bar_closed for tick in inside] == [True] + [False] * (len(inside) - 1)
        for column in range(2):
            path = [tick.prices[column] for tick in inside]
            assert path[0] == panel.open[row, column]
            assert path[-1] == panel.close[row, column]
            assert min(path) == panel.low[row, column]
            assert max(path) == panel.high[row, column]
            for here, there in pairwise(path):
                assert abs(there - here) / min(here, there) <= tick_bps / 1e4 + ROUNDING


@settings(deadline=None)
@given(candles())
def test_instants_grow_and_stay_inside_their_bar(rows: Any) -> None:
    tape = Tape(bars({"A/USD": rows}), tick_bps=50)
    ticks = [tape.tick(number) for number in range(len(tape))]
    assert all(here.at_us < there.at_us for here, there in pairwise(ticks))
    for tick in ticks[:-1]:
        opened = (T0 + tick.bar * 3600) * MICROSECONDS
        assert opened <= tick.at_us < opened + 3600 * MICROSECONDS


def test_at_the_close_of_a_bar_the_price_is_the_open_of_the_next() -> None:
    tape = Tape(bars({"A/USD": [(10, 12, 9, 11), (20, 22, 19, 21)]}), tick_bps=10_000)
    after = next(tick for tick in map(tape.tick, range(len(tape))) if tick.at_us == (T0 + 3600) * MICROSECONDS)
    assert after.bar_closed
    assert after.prices == (20,)


def test_after_the_last_bar_one_tick_keeps_its_close() -> None:
    tape = Tape(bars({"A/USD": [(10, 12, 9, 11)]}))
    last = tape.tick(len(tape) - 1)
    assert (last.at_us, last.bar_closed, last.prices) == ((T0 + 3600) * MICROSECONDS, True, (11,))


def test_bars_before_the_start_are_history() -> None:
    tape = Tape(bars({"A/USD": flat(count=5)}), start=T0 + 2 * 3600)
    assert tape.tick(0).bar == 2
    assert tape.tick(0).at_us == (T0 + 2 * 3600) * MICROSECONDS


def test_a_missing_bar_halts_its_symbol_at_the_last_close() -> None:
    tape = Tape(bars({"A/USD": [(10, 10, 10, 11), None, (12, 12, 12, 12)], "B/USD": flat(50)}))
    halted = [tick for tick in map(tape.tick, range(len(tape))) if tick.bar == 1]
    assert {tick.halted for tick in halted} == {(True, False)}
    assert {tick.prices for tick in halted} == {(11, 50)}


def test_a_symbol_that_is_listed_later_has_no_price_before() -> None:
    tape = Tape(bars({"A/USD": [None, (12, 12, 12, 12)], "B/USD": flat(50, 2)}))
    assert tape.tick(0).prices == (0.0, 50)
    assert tape.first_price("A/USD") == 12


def test_the_digest_depends_on_bars_start_and_steps() -> None:
    rows = {"A/USD": flat(count=4)}
    digests = {
        Tape(bars(rows)).digest,
        Tape(bars(rows), start=T0 + HOUR.seconds).digest,
        Tape(bars(rows), tick_bps=10).digest,
        Tape(bars({"A/USD": flat(100.5, 4)})).digest,
        Tape(bars(rows, volume=1.0)).digest,
    }
    assert len(digests) == 5
    assert Tape(bars(rows)).digest in digests


@pytest.mark.parametrize(
    ("panel", "options", "said"),
    [
        (bars({"A/USD": flat()}), {"start": T0 + 10 * 3600}, "after its last bar"),
        (bars({"A/USD": flat()}), {"tick_bps": 0.0}, "tick_bps"),
        (bars({"A/USD": flat(0.0), "B/USD": flat()}), {}, "A/USD"),
        (bars({"A/USD": flat()}).rows(0, 0), {}, "empty"),
    ],
)
def test_bars_that_cannot_be_a_tape_are_refused(panel: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Tape(panel, **options)
