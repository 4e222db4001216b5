"""What quotes do to a watched position."""

from __future__ import annotations

import json

import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.positions import Watch, advance, from_json, to_json


def a_watch(*, barriers: Barriers | None = None, bars_held: int = 0) -> Watch:
    return Watch(symbol="A", position_id="p", entry=100.0, peak=100.0, bars_held=bars_held, barriers=barriers or Barriers())


# quotes in turn -> what the last one causes
PATHS = [
    ([100, 95, 90.01], ""),
    ([100, 95, 90.0], "stop_loss"),
    ([100, 89], "stop_loss"),
    ([101.4, 99.9], ""),  # the trail has not armed
    ([101.5, 99.97], "trailing_stop"),
    ([110, 108.36], ""),
    ([110, 108.35], "trailing_stop"),
    ([110, 80], "trailing_stop"),
]


@pytest.mark.parametrize(("quotes", "reason"), PATHS)
def test_stop_and_trail_on_a_path_of_quotes(quotes: list[float], reason: str) -> None:
    watch, found = a_watch(), ""
    for price in quotes:
        assert found == ""
        found, watch = advance(watch, price)
    assert found == reason
    assert watch.peak == max(100.0, *quotes)


def test_take_profit_and_time_limit() -> None:
    assert advance(a_watch(barriers=Barriers(take_profit=0.05)), 105.0)[0] == "take_profit"
    assert advance(a_watch(barriers=Barriers(max_hold_bars=3), bars_held=3), 100.0)[0] == "time_limit"
    assert advance(a_watch(barriers=Barriers.off()), 1.0)[0] == ""


def test_another_buy_moves_the_entry_and_keeps_the_peak() -> None:
    _, watch = advance(a_watch(), 104.0)
    assert watch.rebased(entry=101.0, paid=103.0) == Watch(
        symbol="A", position_id="p", entry=101.0, peak=104.0, barriers=Barriers()
    )
    assert watch.rebased(entry=101.0, paid=106.0).peak == 106.0


def test_a_watch_survives_its_stored_form() -> None:
    _, watch = advance(a_watch(bars_held=7), 103.3)
    assert from_json(json.loads(json.dumps(to_json(watch)))) == watch
    with pytest.raises(InvalidInput, match="another version"):
        from_json({"symbol": "A"})
