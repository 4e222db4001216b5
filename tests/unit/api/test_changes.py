from __future__ import annotations

import copy
from typing import Any

import pytest

from cappuccino.api import KINDS
from cappuccino.api.changes import refuse_change
from cappuccino.core.errors import InvalidInput

DIGEST = "a" * 64


def study(*, snapshot: str | None = None, **spec: Any) -> dict[str, Any]:
    document = {
        "apiVersion": "cappuccino.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "s"},
        "spec": {"datasetRef": {"name": "d"}, "strategy": {"kind": "trend"}, **spec},
    }
    wire = KINDS["Study"].parse(document).to_json()
    return {**wire, "status": {"snapshot": snapshot}}


def trial() -> dict[str, Any]:
    spec = {"studyName": "s", "studyUid": "u", "number": 1, "snapshot": DIGEST, "gateStartsAt": "2024-05-01T00:00:00Z"}
    return {"metadata": {"name": "s-00001"}, "spec": spec}


def test_no_field_of_a_trial_changes() -> None:
    refuse_change(KINDS["Trial"], trial(), trial())
    for field, value in (("number", 2), ("parameters", {"a": "1"}), ("snapshot", "b" * 64)):
        changed = copy.deepcopy(trial())
        changed["spec"][field] = value
        with pytest.raises(InvalidInput, match=rf"Trial s-00001: spec\.{field} is immutable"):
            refuse_change(KINDS["Trial"], trial(), changed)


def test_the_account_of_a_trader_stays_and_its_mode_may_change() -> None:
    trader = {"metadata": {"name": "t"}, "spec": {"account": "a", "mode": "shadow"}}
    refuse_change(KINDS["Trader"], trader, {**trader, "spec": {"account": "a", "mode": "paper"}})
    with pytest.raises(InvalidInput, match="from 'a' to 'b'"):
        refuse_change(KINDS["Trader"], trader, {**trader, "spec": {"account": "b", "mode": "shadow"}})


def test_a_study_is_free_until_its_snapshot_is_pinned() -> None:
    refuse_change(KINDS["Study"], study(), study(lookback=2))
    with pytest.raises(InvalidInput, match=r"spec\.lookback is immutable"):
        refuse_change(KINDS["Study"], study(snapshot=DIGEST), study(lookback=2))
    with pytest.raises(InvalidInput, match=r"spec\.timeframe is immutable"):
        refuse_change(KINDS["Study"], study(snapshot=DIGEST), study(timeframe="4h"))


def test_a_pinned_study_may_pause_speed_up_and_search_longer_but_not_shrink() -> None:
    pinned = study(snapshot=DIGEST, budget={"trials": 10})
    refuse_change(KINDS["Study"], pinned, study(suspend=True, parallelism=8, finishedTrialsKept=1, budget={"trials": 11}))
    with pytest.raises(InvalidInput, match=r"spec\.budget\.trials may grow, not shrink \(from 10 to 9\)"):
        refuse_change(KINDS["Study"], pinned, study(budget={"trials": 9}))
