"""Every example runs: its own manifests, with a smaller training budget where it trains, through to graded traders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .chain import ROOT, demo, manifests, rows, summary

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
SHARED = ROOT.parent / "shared" / "data"
STEPS = "32768"


def cheaper(spec: dict[str, Any]) -> None:
    if spec["strategy"]["kind"] == "ppo":
        spec["strategy"]["parameters"]["total_timesteps"] = STEPS


@pytest.mark.parametrize("example", ["quickstart", "ensemble", "arena", "phases", "packed", "real-bars"])
def test_an_example_runs_to_its_end_and_its_ledger_agrees(tmp_path: Path, example: str) -> None:
    real = SHARED / "crypto-1h-2024-01-07.parquet"
    if example == "real-bars" and not real.exists():
        pytest.skip(f"{real.name} is not beside the checkout")
    bars = ("--bars", str(real)) if example == "real-bars" else ()
    if example in ("ensemble", "arena"):  # they take the quickstart's Study
        manifests(tmp_path / "m", source=EXAMPLES / "quickstart", study=cheaper)
    folder = manifests(tmp_path / "m", source=EXAMPLES / example, study=cheaper)
    run = demo(tmp_path, "--manifests", str(folder), "--paper-days", "1", *bars)
    assert run.code == 0, run.output[-2000:] + run.errors
    told = summary(tmp_path)
    assert told["trials"].get("Complete", 0) >= 1, told["trials"]
    assert told["candidates"]
    if told["traders"]:
        assert told["ledger_matches_exchange"] is True
    if example == "phases":
        assert sum(told["trials"].values()) == 6
    if example == "packed":
        (together,) = rows(tmp_path, "select distinct record -> 'trained_with' from trial_result where succeeded order by 1")
        assert together == [([0, 1, 2, 3],), ([4, 5, 6, 7],)]
        (shared,) = rows(tmp_path, "select distinct spec ->> 'pod' from object where kind = 'Trader'")
        assert shared == [("packed-0",)]
