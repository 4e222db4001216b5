from __future__ import annotations

from typing import Any

import pytest

from cappuccino.api import KINDS
from cappuccino.api.changes import refuse_change
from cappuccino.core.errors import InvalidInput

DIGEST = "a" * 64


def study(**spec: Any) -> dict[str, Any]:
    document = {
        "apiVersion": "cappuccino.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "s"},
        "spec": {"datasetRef": {"name": "d"}, "strategy": {"kind": "trend"}, **spec},
    }
    return KINDS["Study"].parse(document).to_json()["spec"]


def trial() -> dict[str, Any]:
    spec: dict[str, Any] = {
        "studyName": "s",
        "studyUid": "u",
        "number": 1,
        "snapshot": DIGEST,
        "gateStartsAt": "2024-05-01T00:00:00Z",
    }
    return spec


def refuse(kind: str, before: dict[str, Any], after: dict[str, Any], *, pinned: bool = False) -> None:
    refuse_change(KINDS[kind], "n", before, after, pinned=pinned)


def test_no_field_of_a_trial_changes() -> None:
    refuse("Trial", trial(), trial())
    for field, value in (("number", 2), ("parameters", {"a": "1"}), ("snapshot", "b" * 64)):
        with pytest.raises(InvalidInput, match=rf"Trial n: spec\.{field} is immutable"):
            refuse("Trial", trial(), {**trial(), field: value})


def test_what_a_trader_is_stays_and_its_mode_may_change() -> None:
    before = {"account": "a", "mode": "shadow"}
    refuse("Trader", before, {"account": "a", "mode": "paper"})
    with pytest.raises(InvalidInput, match="from 'a' to 'b'"):
        refuse("Trader", before, {"account": "b", "mode": "shadow"})
    for change in ({"bundleDigest": "0" * 64}, {"venue": {"kind": "simulated", "url": "http://mine:8080"}}):
        with pytest.raises(InvalidInput, match="is immutable"):
            refuse("Trader", before, before | change)


def test_a_study_is_free_until_its_snapshot_is_pinned() -> None:
    refuse("Study", study(), study(lookback=2))
    with pytest.raises(InvalidInput, match=r"spec\.lookback is immutable"):
        refuse("Study", study(), study(lookback=2), pinned=True)
    with pytest.raises(InvalidInput, match=r"spec\.timeframe is immutable"):
        refuse("Study", study(), study(timeframe="4h"), pinned=True)


def test_a_pinned_study_may_pause_speed_up_and_search_longer_but_not_shrink() -> None:
    before = study(budget={"trials": 10})
    more = study(suspend=True, parallelism=8, finishedTrialsKept=1, budget={"trials": 11})
    refuse("Study", before, more, pinned=True)
    with pytest.raises(InvalidInput, match=r"spec\.budget\.trials may grow, not shrink \(from 10 to 9\)"):
        refuse("Study", before, study(budget={"trials": 9}))
