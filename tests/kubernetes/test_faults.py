"""After every fault: no trial lost or run twice, the books equal the exchange's, statuses are right, logs are clean."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from .faults import FAULTS, SEEN_BY_TRAINERS
from .scene import Scene, eventually

pytestmark = pytest.mark.timeout(1200)


def test_after_a_fault_everything_is_whole(scene: Scene, fault: str) -> None:
    began, started = datetime.now(UTC), time.monotonic()
    name = f"f-{fault}"
    FAULTS[fault](scene, name)
    scene.kubectl("wait", f"study/{name}", "--for=condition=Complete", "--timeout=400s")
    healed = time.monotonic() - started
    scene.assert_trials_whole(name, once=fault not in SEEN_BY_TRAINERS)
    assert not scene.is_true("study", name, "Stalled")
    scene.kubectl("wait", "traders", "--all", "--for=condition=Ready", "--timeout=240s")
    fills = {
        trader["metadata"]["name"]: scene.assert_books_agree(trader["metadata"]["name"]) for trader in scene.list("traders")
    }
    ((doubled,),) = scene.rows("select count(*) from (select 1 from fill group by account, execution_id having count(*) > 1) x")
    assert doubled == 0
    assert scene.logs_since(began) == []
    scene.kubectl("delete", "study", name)
    eventually("its trials gone", lambda: scene.list("trials", f"cappuccino.dev/study={name}") == [])
    print(f"{fault}: whole after {healed:.0f} s; fills {fills}")
