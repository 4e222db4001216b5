"""What every `Workloads` adapter does, done by a kubelet."""

from __future__ import annotations

import sys

import pytest

from .scene import Scene, run


@pytest.mark.timeout(1500)
def test_the_contract_of_workloads_holds_on_a_kubelet(scene: Scene) -> None:
    cluster, image = (
        f"CAPPUCCINO_TEST_CLUSTER={scene.kubeconfig}",
        f"CAPPUCCINO_TEST_IMAGE=docker.io/cappuccino/trader:{scene.tag}",
    )
    suite = ("-m", "pytest", "-x", "-k", "kubernetes", "-p", "no:cacheprovider", "tests/contract/test_workloads.py")
    told = run("env", cluster, image, sys.executable, *suite, within=1200).stdout
    print(told.splitlines()[-1])
    assert " passed" in told
