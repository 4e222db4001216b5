"""`make parity` in short: environment, backtest and a real trader grow alike and decide alike on the same bars."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cappuccino.exchange.venue import Costs
from tests.parity.__main__ import ENVIRONMENT_BPS, NEAR, STOPPED_BPS, TRADER_BPS
from tests.parity.compare import compare
from tests.parity.engines import backtested, stretches, walked
from tests.parity.scene import OFF, USUAL, Scene, generated, policy, rule
from tests.parity.trader import traded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TICK_BPS = 5.0


def test_a_policy_grows_in_the_environment_as_in_the_backtest() -> None:
    torch.set_num_threads(1)
    scene = policy("generated", generated(bars=700), timesteps=16_384, learning_rate=0.003)
    for each in (scene.with_barriers(OFF), scene.with_barriers(USUAL)):
        parts = stretches(each, 2)
        compared = [
            compare(track, backtested(part), scene.bundle.sizing) for track, part in zip(walked(parts), parts, strict=True)
        ]
        assert sum(found.decisions for found in compared) > 300
        assert max(found.worst for found in compared) < ENVIRONMENT_BPS
        assert [d for found in compared for d in found.differences if d.distance > NEAR] == []
        assert max(float(np.ptp(backtested(part).equity)) for part in parts) > 1.0  # it traded


def restless() -> Scene:
    """A rule with barriers that are met within a day, on bars that have holes."""
    return rule("generated", generated(bars=200), barriers=replace(USUAL, stop=0.02, trail=0.01, trail_arms_at=0.008)).of(30)


def test_a_trader_at_the_exchange_grows_as_its_backtest(tmp_path: Path) -> None:
    scene = restless()
    (track,) = traded([scene], tmp_path, tick_bps=TICK_BPS, limit_seconds=250)
    found = compare(track, backtested(scene), scene.bundle.sizing)
    assert found.exits.sum() > 0
    assert found.differences == ()
    allowed = found.allowed(plain=TRADER_BPS, tick_bps=TICK_BPS, most=STOPPED_BPS)
    assert (np.abs(found.days) <= allowed).all(), (found.days, allowed)
    dearer = replace(scene, bundle=replace(scene.bundle, costs=Costs(fee_bps=25, slippage_bps=15)))
    apart = compare(track, backtested(dearer), scene.bundle.sizing)
    assert (np.abs(apart.days) > allowed).any()  # it can fail
