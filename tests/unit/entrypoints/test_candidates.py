"""What of a listed bundle is not as its record and its Study say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cappuccino.bundle.format import Bundle
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.candidates import Candidate, integrity_facts
from cappuccino.exchange.venue import Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract
from tests.unit.controllers import builders as build

HOUR = Timeframe.parse("1h")
PRICES = np.full((4, 2), 100.0)
BARS = Bars(
    symbols=build.SYMBOLS,
    timeframe=HOUR,
    ts=3600 * np.arange(4),
    open=PRICES,
    high=PRICES,
    low=PRICES,
    close=PRICES,
    volume=PRICES,
    missing=np.zeros((4, 2), dtype=bool),
)
BUNDLE = Bundle(
    kind="hold",
    contract=Contract(symbols=build.SYMBOLS, timeframe=HOUR, features=(), lookback=1, warmup_bars=1),
    sizing=Sizing(),
    barriers=Barriers(),
    costs=Costs(fee_bps=25, slippage_bps=15),
    capital_usd=10_000,
    card={"study_uid": "uid-search"},
)


def mismatches(drawdown: float, **spec: object) -> tuple[str, ...]:
    metrics = {"max_drawdown": drawdown, "turnover": 5.0}
    row = build.row(3, state="Complete", objective=1.0, bundle_digest=build.BUNDLE, metrics=metrics)
    candidate = Candidate(digest=build.BUNDLE, rank=0, members=(row,), bundle=BUNDLE)
    study = replace(build.pinned(), spec=build.study(**spec).spec.to_json())
    return integrity_facts(candidate, build.deployment().spec, study, [row], BARS).contract_mismatches


def test_a_listed_bundle_whose_trial_breaks_a_constraint_is_not_what_its_study_was_to_find() -> None:
    limits = {"maxDrawdown": 0.2}
    assert mismatches(0.2, constraints=limits) == mismatches(0.9)
    (broken,) = set(mismatches(0.25, constraints=limits)) - set(mismatches(0.25))
    assert broken == "trial 3 breaks its Study's constraints: max_drawdown 0.25 is above its limit 0.2"
