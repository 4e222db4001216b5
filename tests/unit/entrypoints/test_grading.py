"""Grading a Deployment's traders: each row says by which gates, and one bundle that is gone stops nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.bundle import Bundle, save
from cappuccino.controllers.candidacy import gates_of
from cappuccino.controllers.rows import AccountRecord, EquityPoint, Evidence
from cappuccino.core.errors import NotFound
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.grading import run_grades
from cappuccino.exchange.venue import Costs
from cappuccino.market.features import spec_of
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract
from tests.unit.controllers import builders as build

START = datetime(2026, 1, 1, tzinfo=UTC)
GONE = "0" * 64
FEATURE = spec_of("return", {"bars": 1})
CONTRACT = Contract(symbols=("BTC/USD",), timeframe=Timeframe(3600), features=(FEATURE,), lookback=1, warmup_bars=3)
HOLD = Bundle(
    kind="hold",
    contract=CONTRACT,
    sizing=Sizing(),
    barriers=Barriers(stop=None, trail=None),
    costs=Costs(),
    capital_usd=10_000.0,
    parameters={},
)


async def graded(folder: Path, *traders: dict[str, Any], bars: int = 30) -> list[Evidence]:
    """What is written of traders whose equity stands still; `held` is the digest of a bundle that is there."""
    store = open_blobs(f"file://{folder}")
    held = save(store, HOLD)
    curve = tuple(
        EquityPoint(bar_at=START + timedelta(hours=n), equity_usd=Decimal(10_000), cash_usd=Decimal(10_000), positions={})
        for n in range(bars)
    )
    record = AsyncMock(evidence=AsyncMock(return_value=[]))
    record.record_of_account.side_effect = lambda name: AccountRecord(
        name=name, equity=curve, fills=(), intents=(), decisions=()
    )
    record.account.side_effect = lambda name: build.account(name=name)
    listed = [{"name": t["account"], "role": "candidate", "bundle": held} | t for t in traders]
    spec = {"deploymentUid": "uid-desk", "deployment": build.deployment().spec.to_json(), "traders": listed}
    await run_grades(record, store, spec)
    return [call.kwargs["evidence"] for call in record.insert_evidence.await_args_list]


async def test_each_row_says_by_which_gates_it_was_judged(tmp_path: Path) -> None:
    rows = await graded(tmp_path, {"account": "a"})
    assert [row.gate for row in rows] == ["soak", "grade"]
    present = gates_of(build.deployment().spec)
    assert {row.detail["gates"] for row in rows} == {present}
    assert {row.scope for row in rows} == {
        f"a@2026-01-02T05:00:00Z/{present[:8]}"
    }  # another verdict at the same bar is written


@pytest.mark.parametrize(("more", "gates"), [({}, ["soak", "grade"]), ({"step": 1}, ["live"])])
async def test_a_bundle_that_cannot_be_read_is_an_error_of_its_trader_alone(
    more: dict[str, Any], gates: list[str], tmp_path: Path
) -> None:
    rows = await graded(tmp_path, {"account": "gone", "bundle": GONE} | more, {"account": "b"})
    bad = [row for row in rows if row.detail["account"] == "gone"]
    assert [(row.gate, row.outcome, row.bundle_digest) for row in bad] == [(gate, "Error", GONE) for gate in gates]
    assert "bundle cannot be read" in bad[0].message
    assert [(row.gate, row.outcome) for row in rows if row not in bad] == [("soak", "Inconclusive"), ("grade", "Inconclusive")]


async def test_without_the_bundle_of_its_baseline_nobody_is_graded_against_cash(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=GONE):
        await graded(tmp_path, {"account": "hodl", "role": "baseline", "bundle": GONE}, {"account": "b"})
