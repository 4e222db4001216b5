"""What needs no API server of `Workloads` on Kubernetes; the rest is its contract suite."""

from __future__ import annotations

from typing import Any

import pytest

from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.settings import Images
from cappuccino.adapters.kubernetes.workloads import KubernetesWorkloads
from cappuccino.core.clock import FixedClock

from .builders import NOW, SETTINGS, job, pod, running, trial, waiting

MENDED = SETTINGS.model_copy(update={"images": Images(train="registry.example/train:2", trader="registry.example/trader:1")})
NO_IMAGE = waiting("ImagePullBackOff", "no such image")


@pytest.mark.parametrize(
    ("settings", "state", "is_there"),
    [
        (SETTINGS, NO_IMAGE, True),
        (MENDED, NO_IMAGE, False),
        (MENDED, running(), True),
        (MENDED, waiting("CrashLoopBackOff"), True),
    ],
)
async def test_what_waits_for_an_image_that_is_used_no_more_counts_as_gone(settings: Any, state: Any, is_there: bool) -> None:
    client: Any = None  # nothing is asked
    index, of = ClusterIndex(client), job()
    index.note("ADDED", of)
    index.note("ADDED", pod(of, phase="Pending", state=state))
    workloads = KubernetesWorkloads(client, index, settings, clock=FixedClock(NOW))
    assert (await workloads.observe(trial().name) is not None) is is_there
