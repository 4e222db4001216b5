"""When Events are asked why something waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cappuccino.adapters.kubernetes.reasons import Reasons
from cappuccino.adapters.kubernetes.runs import Run
from cappuccino.adapters.kubernetes.status import status_of
from cappuccino.adapters.kubernetes.views import pod_view, workload_view
from cappuccino.controllers.decision import Document
from cappuccino.core.clock import FixedClock

from .builders import NOW, job, pod, terminated


class Events:
    """A client that counts how often it is asked, and knows of one warning."""

    def __init__(self) -> None:
        self.asked = 0

    async def all(self, *_: Any, **__: Any) -> list[Document]:
        self.asked += 1
        return [{"reason": "FailedCreate", "message": "exceeded quota", "lastTimestamp": "2026-03-01T12:00:09Z"}]


async def why(events: Events, *pods: Document, after_seconds: float) -> str:
    view, views = workload_view(job()), tuple(pod_view(document) for document in pods)
    client: Any = events
    reasons = Reasons(client, clock=FixedClock(NOW + timedelta(seconds=after_seconds)))
    return await reasons.why(Run(view=view, pods=views), status_of(view, views).message)


@pytest.mark.parametrize(("after_seconds", "asked"), [(1, 0), (10, 1)])
async def test_events_are_asked_when_a_pod_is_late(after_seconds: float, asked: int) -> None:
    events = Events()
    told = await why(events, after_seconds=after_seconds)
    assert (events.asked, told) == (asked, "FailedCreate: exceeded quota" if asked else "waits for its pod to be made")


async def test_nobody_is_asked_between_the_end_of_a_pod_and_of_its_job() -> None:
    events = Events()
    await why(events, pod(job(), phase="Succeeded", state=terminated(0)), after_seconds=60)
    assert events.asked == 0
