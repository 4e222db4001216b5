"""What a restart reads is what was written, also by the version before."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cappuccino.core.errors import IntegrityError
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.day import Day
from cappuccino.risk.positions import Watch
from cappuccino.trading.state import TraderState

D = Decimal
FULL = TraderState(
    opening_cash=D("1000.5"),
    last_bar=7200,
    decided=7200,
    first_decision=3600,
    step="buys",
    sells={"A": D(1)},
    buys={"B": D("2.5")},
    closes={"A": D(10), "B": D(20)},
    equity=D("999.99"),
    watches={"A": Watch(symbol="A", position_id="p", entry=10.0, peak=11.0, bars_held=2, barriers=Barriers())},
    since_stop={"B": 3},
    refusals=[{"rule": "price", "times": 2}],
    reconciled_at="2024-01-01T00:00:00Z",
    bar_seconds=3600,
    day=Day(number=19_000, opening_equity=D(1000), closed_by="daily_loss", closed_equity=D(940)),
    failed_decisions=2,
    failure="ValueError: x",
    cleared_at=datetime(2024, 1, 1, 1, 2, 3, 456, tzinfo=UTC),
)


def test_a_state_survives_its_stored_form() -> None:
    for state in (FULL, TraderState(opening_cash=D(1))):
        assert TraderState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_the_state_of_the_version_before_is_read_and_another_one_refused() -> None:
    added = ("equity", "bar_seconds", "day", "failed_decisions", "failure", "cleared_at")
    old = {name: value for name, value in FULL.to_json().items() if name not in added}
    read = TraderState.from_json({**old, "version": 1})
    assert (read.watches, read.day, read.equity, read.cleared_at) == (FULL.watches, None, D(0), None)
    with pytest.raises(IntegrityError, match="version 3"):
        TraderState.from_json({**old, "version": 3})
