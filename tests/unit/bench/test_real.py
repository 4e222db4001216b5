"""The figures of a search on real bars, where a wrong one would still look like a result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cappuccino.api.manifests import parse
from cappuccino.api.study import Study
from cappuccino.core.clock import parse_iso
from cappuccino.search.trials import TrialResult, TrialRow
from tests.bench.real import manifests, time_spent
from tests.bench.window import against

BARS_PER_YEAR = 365 * 288
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def trial(number: int, *, block: int, seconds: float, record: Mapping[str, Any] | None) -> TrialRow:
    created = BEGAN + timedelta(seconds=block)
    return TrialRow(
        study_uid="study",
        number=number,
        phase="",
        parameters={},
        distributions={},
        seed=number,
        state="Complete" if record else "Pruned",
        created_at=created,
        started_at=created,
        finished_at=created + timedelta(seconds=seconds),
        result=TrialResult(succeeded=True, reason="", record=record) if record else None,
    )


def told(elapsed: float, **fits: float) -> dict[str, Any]:
    return {"elapsed_seconds": elapsed, "fits": [{"name": name, "seconds": seconds} for name, seconds in fits.items()]}


def test_a_fit_of_a_pack_counts_once_and_what_is_no_fit_is_judging_or_the_start() -> None:
    rows = [
        trial(0, block=0, seconds=100, record=told(90, first=30, refit=40)),
        trial(1, block=0, seconds=90, record=told(80, first=30)),  # no refit: its folds were no score
        trial(2, block=1, seconds=50, record=None),
        trial(3, block=1, seconds=20, record=None),
    ]
    spent = time_spent(rows, pack=2)
    assert spent == {"workers": 2, "all": 150, "fit": 70, "judge": 20, "start": 10, "unknown": 50}
    alone = time_spent(rows, pack=1)
    assert (alone["workers"], alone["fit"]) == (4, 100)


def test_an_interval_holds_its_estimate_and_what_was_planted() -> None:
    rng = np.random.default_rng(3)
    hodl = rng.normal(0.0, 1e-3, 20_000)
    edge = 4e-5
    run = 0.5 * hodl + rng.normal(edge, 1e-3, 20_000)
    found = against(run, hodl, BARS_PER_YEAR, seed=1)["alpha"]
    assert found["low"] < found["estimate"] < found["high"]
    assert found["low"] < edge < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 1e-3 / 20_000**0.5, rel=0.2)
    assert found["p"] < 0.025  # and the interval says the same:
    assert found["low"] > 0
    assert found["window"]["estimate"] == found["estimate"] * 20_000


def test_the_example_holds_july_back() -> None:
    dataset, study, _ = manifests(Path("bars.parquet"))
    spec = Study.parse(parse(study, source="study").to_json()).spec
    end = parse_iso(dataset["spec"]["end"])
    assert end - timedelta(minutes=5) * spec.validation.gate_bars == datetime(2024, 7, 1, tzinfo=UTC)
    assert spec.budget.trials == 50
