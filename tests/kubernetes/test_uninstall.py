"""The last act: an uninstallation is refused while Traders exist, then leaves CRDs and record behind."""

from __future__ import annotations

import pytest

from .scene import Scene, eventually

pytestmark = pytest.mark.timeout(900)


def test_helm_test_runs_a_study_to_a_trader_and_a_halt(scene: Scene) -> None:
    told = scene.helm("test", scene.release, "--timeout", "8m", "--logs").stdout
    assert "Succeeded" in told, told


def test_traders_hold_the_release_and_the_record_outlives_it(scene: Scene) -> None:
    refused = scene.helm("uninstall", scene.release, "--timeout", "2m", check=False)
    assert refused.returncode != 0
    (before,) = scene.rows("select count(*) from fill")
    assert before[0] > 0
    scene.kubectl("delete", "deployments.cappuccino.dev", "--all", "--timeout=180s")
    eventually("traders that have sold and left", lambda: scene.list("traders") == [])
    scene.kubectl("delete", "studies,datasets", "--all", "--timeout=120s")
    scene.helm("uninstall", scene.release, "--timeout", "3m", "--wait")
    assert len(scene.kubectl("get", "crds", "-o", "name").split("cappuccino.dev")) >= 6
    scene.install()
    assert scene.rows("select count(*) from fill")[0][0] >= before[0]
