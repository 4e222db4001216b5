"""What a pass sees: the Traders that a Deployment owns, and the Deployment that owns a live Trader."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock

import pytest

from cappuccino.controllers.decision import Key
from cappuccino.controllers.rows import Promotion
from cappuccino.reconcile.observers import DeploymentController, TraderController
from cappuccino.reconcile.pods import Pods
from tests.unit.controllers import builders as build

from .builders import Memory

DESK, LIVE = Key("Deployment", "default", "desk"), Key("Trader", "default", "live")
OWNER = {"kind": "Deployment", "name": "desk", "uid": "uid-desk"}
REAL = {"venue": {"kind": "alpaca", "accountSecretRef": {"name": "desk-live"}}, "mode": "live"}


def ports(*resources: Any, record: Any = None) -> Any:
    objects = {Key(r.kind, "default", r.name): r.to_json() for r in resources}
    workloads = AsyncMock(observe=AsyncMock(return_value=None))
    record = record or AsyncMock(activity=AsyncMock(return_value={}))
    return AsyncMock(objects=Memory(documents=objects), workloads=workloads, record=record)


async def test_only_what_the_deployment_owns_is_its_trader_whatever_the_label_says() -> None:
    label = {"cappuccino.dev/deployment": "desk"}
    mine = build.trader(name="mine", labels=label, ownerReferences=[OWNER])
    labelled = build.trader(name="labelled", labels=label)
    former = build.trader(name="former", labels=label, ownerReferences=[OWNER | {"uid": "uid-of-the-former-desk"}])
    seen = await DeploymentController(ports=ports(mine, labelled, former)).observe(DESK, build.deployment().to_json())
    assert [trader.name for trader in seen.traders] == ["mine"]


@pytest.mark.parametrize("halted", [None, "loss of 20 %"])
async def test_the_account_that_was_started_last_is_looked_at(halted: str | None) -> None:
    given: Any = {"deployment_uid": "uid-desk", "subject": "s", "bundle_digest": "b", "actor": "ada", "reason": "r"}
    rows = [
        Promotion(action="started", account="live-1", terms="t", step=1, **given),
        Promotion(action="started", account="live-2", terms="t", step=2, **given),
        Promotion(action="refused", **given),
    ]
    record = AsyncMock()
    record.promotions.return_value = rows
    record.account.side_effect = lambda name: build.account(name=name, halted_reason=halted if name == "live-2" else "ended")
    seen = await DeploymentController(ports=ports(record=record)).observe(DESK, build.deployment().to_json())
    assert seen.halted == halted


@pytest.mark.parametrize(
    ("spec", "owners", "there", "orphaned"),
    [
        (REAL, [OWNER], True, False),
        (REAL, [OWNER], False, True),
        (REAL, [OWNER | {"uid": "uid-of-the-former-desk"}], True, True),
        (REAL, [], True, True),
        ({}, [], False, False),
    ],
    ids=["there", "gone", "another of that name", "owner taken away", "on paper"],
)
async def test_a_live_trader_without_its_deployment_is_orphaned(
    spec: dict[str, Any], owners: list[Any], there: bool, orphaned: bool
) -> None:
    trader = build.trader(name="live", spec=spec, ownerReferences=owners)
    around = ports(build.deployment()) if there else ports()
    controller = TraderController(ports=around, pods=Pods(around.objects))
    assert (await controller.observe(LIVE, trader.to_json())).orphaned is orphaned
