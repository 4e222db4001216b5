from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cappuccino.controllers.dataset import RETRY_SECONDS, Observed, decide
from cappuccino.controllers.decision import Decision, Key, StartWorkload, StopWorkload

from .builders import NOW, dataset, ready, running, snapshot

KEY = Key("Dataset", "default", "market")
RUN = KEY.workload("refresh")


def seen(**given: Any) -> Observed:
    values: dict[str, Any] = {"dataset": dataset(), "key": KEY}
    return Observed(**(values | given))


def reason(decision: Decision, kind: str = "Ready") -> tuple[str, str]:
    assert decision.status is not None
    found = next(c for c in decision.status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def test_a_new_dataset_is_refreshed() -> None:
    decision = decide(seen(), now=NOW)
    (start,) = decision.actions
    assert isinstance(start, StartWorkload)
    assert start.workload.arguments == ("ingest", "--dataset-uid", "uid-market")
    assert reason(decision) == ("False", "Refreshing")


def test_a_finished_refresh_makes_it_ready_and_is_forgotten() -> None:
    decision = decide(seen(snapshot=snapshot(), refresh=running(RUN, state="Succeeded")), now=NOW)
    assert decision.actions == (StopWorkload(name=RUN),)
    assert reason(decision) == ("True", "Complete")
    assert decision.status is not None
    assert decision.status["snapshot"] == snapshot().digest


def test_a_dataset_with_an_end_is_never_refreshed_again() -> None:
    decision = decide(seen(dataset=dataset(status=ready()), snapshot=snapshot()), now=NOW + timedelta(days=400))
    assert decision.actions == ()
    assert decision.requeue_after is None


@pytest.mark.parametrize(("age_seconds", "due"), [(3599, False), (3601, True)])
def test_an_open_ended_dataset_is_refreshed_when_it_is_due(age_seconds: int, due: bool) -> None:
    status = ready() | {"refreshedAt": "2026-01-01T00:00:00Z"}
    spec = {"end": None, "refreshSeconds": 3600}
    observed = seen(dataset=dataset(status=status, spec=spec), snapshot=snapshot())
    decision = decide(observed, now=NOW + timedelta(seconds=age_seconds))
    assert [type(action) for action in decision.actions] == ([StartWorkload] if due else [])
    assert reason(decision)[0] == "True"  # it stays usable while it is refreshed


def test_a_refusal_is_final_until_the_spec_changes() -> None:
    refused = running(RUN, state="Failed", exit_code=2, message="symbol X/USD is not in the file")
    first = decide(seen(refresh=refused), now=NOW)
    assert reason(first, "Stalled") == ("True", "Refused")
    assert first.actions == ()
    changed = dataset(status={"observedGeneration": 1, "conditions": []}, generation=2)
    assert decide(seen(dataset=changed, refresh=refused), now=NOW).actions == (StopWorkload(name=RUN),)


def test_a_passing_failure_is_tried_again_after_a_pause() -> None:
    away = running(RUN, state="Failed", exit_code=1, finished_at=NOW, message="boom")
    assert decide(seen(refresh=away), now=NOW).requeue_after == RETRY_SECONDS
    later = decide(seen(refresh=away), now=NOW + timedelta(seconds=RETRY_SECONDS + 1))
    assert later.actions == (StopWorkload(name=RUN),)


def test_a_gone_dataset_stops_its_refresh() -> None:
    assert decide(seen(dataset=None, refresh=running(RUN)), now=NOW).actions == (StopWorkload(name=RUN),)
