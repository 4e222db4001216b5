"""Trained without stops and traded with them must not happen: docs/learning.md says what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.bundle.store import load
from cappuccino.core.clock import to_epoch
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.fitting import Fitter, Group, Member
from cappuccino.entrypoints.limits import barriers_of
from cappuccino.entrypoints.recipe import prepare, recipe
from cappuccino.entrypoints.trial import Trial
from cappuccino.market.bars import Bars
from cappuccino.market.generator import GeneratorBars, GeneratorConfig
from cappuccino.risk.barriers import Barriers
from cappuccino.training import pack
from tests.unit.controllers import builders as build

BARS, GATE = 900, 100


def market() -> Bars:
    end = to_epoch(build.NOW) + 3600 * GATE
    source = GeneratorBars(config=GeneratorConfig(seed=1, drift_volatility=0.01), origin=end - 3600 * BARS)
    frame = source.fetch(build.SYMBOLS, Timeframe.parse("1h"), end - 3600 * BARS, end)
    columns = {
        name: np.stack([rows[name].to_numpy() for rows in frame.partition_by("symbol", maintain_order=True)], axis=1)
        for name in ("open", "high", "low", "close", "volume")
    }
    ts = end - 3600 * BARS + 3600 * np.arange(BARS)
    missing = np.zeros((BARS, len(build.SYMBOLS)), dtype=bool)
    return Bars(symbols=build.SYMBOLS, timeframe=Timeframe.parse("1h"), ts=ts, missing=missing, **columns)


@pytest.mark.parametrize("barriers", [{}, {"stop": 0.07, "trail": 0, "maxHoldBars": 12}])
def test_every_fit_of_a_trial_has_the_barriers_that_its_bundle_promises(
    barriers: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"total_timesteps": "8192", "num_envs": "64", "num_steps": "16", "num_minibatches": "4", "hidden": "8"}
    study = build.study(
        timeframe="1h",
        symbols=list(build.SYMBOLS),
        strategy={"kind": "ppo", "parameters": parameters},
        searchSpace={"learning_rate": {"type": "float", "low": 0.001, "high": 0.01}},
        validation={"folds": 2, "gateBars": GATE, "gapBars": 24, "minExposure": 0, "minClosedTrades": 1},
        template={"barriers": barriers, "costs": {"feeBps": 0, "slippageBps": 0}},  # with an edge: what never trades fails
    )
    trained_with: list[Barriers] = []

    class Watched(pack.TradingEnv):
        def __init__(self, *given: Any, barriers: Barriers, **named: Any) -> None:
            trained_with.append(barriers)
            super().__init__(*given, barriers=barriers, **named)

    monkeypatch.setattr(pack, "TradingEnv", Watched)
    row = build.row(parameters={"learning_rate": "0.003"})
    member = Member(row=row, made=recipe(study.spec, row.parameters))
    prepared = prepare(market(), member.made.contract)
    blobs = open_blobs(f"file://{tmp_path}")
    fitter = Fitter(
        Group(members=[member]), prepared, blobs, checkpoint_seconds=1e9, should_stop=lambda: False, finished=frozenset
    )
    trial = Trial(member, prepared, build.pinned(study), study.spec, blobs, report=lambda *_: None, together=()).run()
    try:
        fit = next(trial)
        while True:
            (files,) = fitter.fit([member], fit)
            fit = trial.send(files)
    except StopIteration as end:
        result = end.value
    assert result.succeeded, result.reason
    bundle = load(blobs, result.bundle_digest)
    assert bundle.barriers == barriers_of(study.spec.template.barriers)
    assert len(trained_with) == 3  # two folds and the refit
    assert set(trained_with) == {bundle.barriers}
