"""What an operator's /metrics says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cappuccino.telemetry.operations import OperatorMetrics, state_of


def scraped(metrics: OperatorMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def watched(metrics: OperatorMetrics, objects: Mapping[tuple[str, str], int]) -> OperatorMetrics:
    metrics.look_at(queue_depth=lambda: 7, oldest_seconds=lambda: 1.5, leading=lambda: True, objects=lambda: objects)
    return metrics


def test_passes_statuses_and_calls_are_counted_by_their_bounded_labels() -> None:
    metrics = OperatorMetrics()
    metrics.passed("Trial", "ok", 0.03)
    metrics.passed("Trial", "conflict", 0.3)
    metrics.told("Trial", 1.5)
    metrics.called("apply", "jobs", 201, 0.01)
    metrics.called("patch", "trials/status", "timeout", 30.0)
    found = scraped(metrics)
    assert found["cappuccino_reconciles_total", (("kind", "Trial"), ("result", "ok"))] == 1
    assert found["cappuccino_reconciles_total", (("kind", "Trial"), ("result", "conflict"))] == 1
    assert found["cappuccino_reconcile_seconds_count", (("kind", "Trial"),)] == 2
    assert found["cappuccino_event_to_status_seconds_bucket", (("kind", "Trial"), ("le", "1.0"))] == 0
    assert found["cappuccino_event_to_status_seconds_bucket", (("kind", "Trial"), ("le", "2.0"))] == 1
    assert found["cappuccino_api_calls_total", (("code", "201"), ("resource", "jobs"), ("verb", "apply"))] == 1
    assert found["cappuccino_api_calls_total", (("code", "timeout"), ("resource", "trials/status"), ("verb", "patch"))] == 1


def test_the_queue_and_the_objects_are_asked_for_at_the_scrape() -> None:
    objects: dict[tuple[str, str], int] = {("Trial", "Complete"): 3}
    metrics = watched(OperatorMetrics(), objects)
    objects["Trial", "Complete"] = 4
    found = scraped(metrics)
    assert found["cappuccino_objects", (("kind", "Trial"), ("state", "Complete"))] == 4
    assert found["cappuccino_queue_depth", ()] == 7
    assert found["cappuccino_queue_oldest_seconds", ()] == 1.5
    assert found["cappuccino_leader", ()] == 1


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([], "New"),
        ([("Ready", "False"), ("Reconciling", "False")], "Waiting"),
        ([("Ready", "True"), ("Stalled", "False")], "Ready"),
        ([("Ready", "False"), ("Stalled", "True")], "Stalled"),
        ([("Complete", "False"), ("Failed", "True")], "Failed"),
        ([("Ready", "True"), ("Complete", "True")], "Complete"),
        ([("Ready", "False"), ("Halted", "True")], "Halted"),
        ([("SomethingNew", "True")], "Waiting"),
    ],
)
def test_an_object_has_one_state_of_a_bounded_set(conditions: list[tuple[str, str]], state: str) -> None:
    status: dict[str, Any] = {"conditions": [{"type": kind, "status": held} for kind, held in conditions]}
    assert state_of(status) == state
    assert state_of(None) == "New"


def test_a_scrape_is_cheap_however_many_objects_were_reconciled() -> None:
    metrics = watched(OperatorMetrics(), {("Trial", state): 5000 for state in ("Complete", "Failed", "Waiting")})
    for n in range(10_000):
        metrics.passed("Trial", "ok", 0.01)
        metrics.called("patch", "trials/status", 200, 0.01 * (n % 3))
    began = time.perf_counter()
    text = metrics.render()
    assert time.perf_counter() - began < 0.5
    assert len(text) < 20_000
