from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation.evidence import Evidence, Outcome
from cappuccino.evaluation.window_gate import WindowFacts, WindowMeasure, WindowThresholds, judge_window, measure_window

HOURS = 8760.0
FAST = WindowThresholds(bootstrap_samples=600)


def facts(edge: float = 0.0, *, n: int = 720, seed: int = 0, **changes: object) -> WindowFacts:
    """A candidate half in the market, with `edge` a bar of its own."""
    rng = np.random.default_rng(seed)
    market = rng.normal(0, 0.005, n)
    own = rng.normal(0, 0.003, n)
    base = WindowFacts(
        returns=0.5 * (market - market.mean()) + own - own.mean() + edge,
        hodl=market,
        closed_trades=40,
        exposure=0.4,
        bars_per_year=HOURS,
        claimed_sharpe=2.0,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def judge(*of: WindowFacts, openings: int = 1, thresholds: WindowThresholds = FAST) -> tuple[Evidence, ...]:
    measures = [measure_window(one, thresholds, seed=7) for one in of]
    return judge_window(measures, thresholds, openings=openings)


def test_a_strong_edge_passes_with_its_p_and_its_level() -> None:
    (found,) = judge(facts(0.0008))
    assert found.outcome is Outcome.PASS
    assert found.measured is not None
    assert found.measured <= found.threshold == 0.025  # type: ignore[operator]


def test_every_outcome_prints_the_minimum_detectable_sharpe() -> None:
    for one in (facts(0.001), facts(-0.001), facts(0.0001), facts(closed_trades=3), facts(closed_trades=0)):
        (found,) = judge(one)
        assert found.minimum_detectable == pytest.approx(6.84, abs=0.01)  # 2.5 %, one candidate, 720 hourly bars
        assert "detect a Sharpe of 6.8 (9.8 with 80% power)" in found.message


def test_three_candidates_detect_the_published_sharpe() -> None:
    found = judge(facts(), facts(seed=1), facts(seed=2))
    assert [e.minimum_detectable for e in found] == pytest.approx([8.35] * 3, abs=0.01)


def test_not_significant_but_positive_is_inconclusive_because_the_window_is_too_short() -> None:
    (found,) = judge(facts(0.0001))
    assert (found.outcome, found.statistical) == (Outcome.INCONCLUSIVE, True)


def test_a_loss_is_a_fail() -> None:
    (found,) = judge(facts(-0.0005))
    assert (found.outcome, found.statistical) == (Outcome.FAIL, True)
    assert "growth is not above 0" in found.message.lower()


def test_growth_that_is_the_markets_own_is_a_fail_for_want_of_alpha() -> None:
    rng = np.random.default_rng(1)
    market = rng.normal(0.002, 0.004, 720)
    own = rng.normal(0, 0.0005, 720)
    (found,) = judge(facts(returns=0.5 * market + own - own.mean() - 1e-4, hodl=market))
    assert found.outcome is Outcome.FAIL
    assert found.detail["p_mean"] < 0.025 < found.detail["p_alpha"]


def test_a_copy_of_hodl_never_passes() -> None:
    market = np.random.default_rng(1).normal(0.002, 0.004, 720)
    (found,) = judge(facts(returns=market, hodl=market))
    assert found.outcome is Outcome.FAIL


def test_a_claim_that_the_window_would_have_shown_is_a_fail() -> None:
    assert judge(facts(0.0001, claimed_sharpe=9.0))[0].outcome is Outcome.INCONCLUSIVE
    (found,) = judge(facts(0.0001, claimed_sharpe=12.0))
    assert found.outcome is Outcome.FAIL
    assert "claimed Sharpe 12.0" in found.message


@pytest.mark.parametrize("change", [{"closed_trades": 19}, {"exposure": 0.01}])
def test_too_little_trading_is_inconclusive_even_with_a_splendid_p(change: dict[str, object]) -> None:
    (found,) = judge(facts(0.002, **change))
    assert found.detail["p_holm"] < 0.025
    assert found.outcome is Outcome.INCONCLUSIVE


def test_an_idle_candidate_fails_and_is_not_excused_by_statistics() -> None:
    for one in (facts(closed_trades=0), facts(returns=np.zeros(720))):
        (found,) = judge(one)
        assert (found.outcome, found.statistical) == (Outcome.FAIL, False)


@pytest.mark.parametrize(
    "change",
    [
        {"hodl": np.zeros(720)},
        {"hodl": np.ones(719)},
        {"returns": np.full(720, np.nan)},
        {"returns": np.full(720, -1.0)},
        {"returns": np.array([0.1, 0.2]), "hodl": np.array([0.1, 0.2])},
    ],
)
def test_facts_that_cannot_be_used_are_an_error(change: dict[str, object]) -> None:
    assert judge(facts(**change))[0].outcome is Outcome.ERROR


def test_each_further_opening_of_the_window_divides_the_level() -> None:
    once, often = judge(facts(0.0004)), judge(facts(0.0004), openings=40)
    assert (once[0].threshold, often[0].threshold) == (0.025, 0.025 / 40)
    assert once[0].outcome is Outcome.PASS
    assert often[0].outcome is Outcome.INCONCLUSIVE


def test_companions_cost_level_by_holm() -> None:
    alone = judge(facts(0.0004))[0]
    with_noise = judge(facts(0.0004), facts(0.0001, seed=2), facts(0.0001, seed=3))[0]
    assert with_noise.measured == pytest.approx(3 * alone.measured)  # type: ignore[operator]


def test_too_few_bootstrap_samples_for_the_level_are_named_with_the_remedy() -> None:
    (found,) = judge(facts(0.003), openings=100)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "take 4000" in found.message


def test_the_same_seed_gives_the_same_evidence() -> None:
    assert judge(facts(0.0004)) == judge(facts(0.0004))


def test_a_measure_survives_its_trip_through_json() -> None:
    for one in (facts(0.0004), facts(closed_trades=0)):
        measure = measure_window(one, FAST, seed=1)
        assert WindowMeasure.from_json(json.loads(json.dumps(asdict(measure), allow_nan=False))) == measure


def test_the_window_takes_at_most_three_candidates() -> None:
    measure = measure_window(facts(), FAST, seed=1)
    for measures, openings in (([measure] * 4, 1), ([], 1), ([measure], 0)):
        with pytest.raises(InvalidInput):
            judge_window(measures, FAST, openings=openings)
