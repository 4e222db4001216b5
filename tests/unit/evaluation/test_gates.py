from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation import gates
from cappuccino.evaluation.evidence import Evidence, Outcome, Verdict, evidence, promotable, stopped_by, verdict
from cappuccino.evaluation.gates import ArtifactFact, BacktestFacts, BacktestThresholds, IntegrityFacts

HOURS = 8760.0


def intact(**changes: object) -> IntegrityFacts:
    facts = IntegrityFacts(
        study_uid="uid-1",
        number=3,
        training_state="Complete",
        artifacts=(ArtifactFact(name="policy.onnx", expected_bytes=26_000_000, actual_bytes=26_100_000, verified=True),),
        identity_matches=1,
        recorded_number=3,
        recorded_value=1.25,
        stored_value=1.25004,
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def walked(**changes: object) -> BacktestFacts:
    facts = BacktestFacts(
        objective=1.5,
        fold_sharpes=(1.0, 2.0),
        exposure=0.3,
        closed_trades=40,
        max_drawdown=0.1,
        n_bars=720,
        bars_per_year=HOURS,
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def of(gate: str, outcome: Outcome = Outcome.PASS, **detail: object) -> Evidence:
    return evidence(gate, outcome, 1.0, 0.0, None, "said.", detail)


def all_passing() -> list[Evidence]:
    return [of(gate) for gate in ("integrity", "backtest", "window", "overfitting_dsr", "overfitting_pbo")]


def test_an_intact_candidate_passes_whatever_the_size_of_its_network() -> None:
    assert gates.integrity(intact()).outcome is Outcome.PASS  # 26 MB: the old limit of 10 MB would have refused it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training_state": "Pruned"}, "training is Pruned"),
        ({"artifacts": ()}, "no artifacts"),
        ({"artifacts": (ArtifactFact(name="w", expected_bytes=100, actual_bytes=None, verified=False),)}, "w is missing"),
        ({"artifacts": (ArtifactFact(name="w", expected_bytes=100, actual_bytes=100, verified=False),)}, "not what its digest"),
        ({"artifacts": (ArtifactFact(name="w", expected_bytes=100, actual_bytes=40, verified=True),)}, "40 bytes where"),
        ({"identity_matches": 2}, "2 records carry its identity"),
        ({"identity_matches": 0}, "0 records carry its identity"),
        ({"recorded_number": 4}, "record is of trial 4"),
        ({"recorded_number": None}, "record is missing"),
        ({"recorded_value": 1.2502}, "record says 1.2502 and the store 1.25004"),
        ({"recorded_value": None}, "record says None"),
        ({"recorded_value": math.nan}, "record says nan"),
        ({"stored_value": None}, "stored value is None"),
        ({"members": 2, "expected_members": 3}, "2 of 3 members"),
        ({"contract_mismatches": ("SOL/USD is not in the data",)}, "SOL/USD is not in the data"),
    ],
)
def test_integrity_fails_with_the_finding(change: dict[str, object], words: str) -> None:
    found = gates.integrity(intact(**change))
    assert found.outcome is Outcome.FAIL
    assert words in found.message
    assert not found.statistical


def test_what_cannot_be_read_is_an_error_and_not_a_finding() -> None:
    assert gates.integrity(intact(unreadable=("the store is away",), identity_matches=0)).outcome is Outcome.ERROR


def test_a_walk_forward_above_every_bar_passes_and_says_what_it_could_detect() -> None:
    found = gates.backtest(walked(), BacktestThresholds())
    assert found.outcome is Outcome.PASS
    assert found.minimum_detectable == pytest.approx(5.74, abs=0.01)
    assert found.measured == 1.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"closed_trades": 0}, "0 closed trades"),
        ({"closed_trades": 19}, "19 closed trades"),
        ({"exposure": 0.01, "objective": 15.0}, "exposure 1.0%"),  # the agent that showed Sharpe 15
        ({"max_drawdown": 0.6}, "drawdown 60.0%"),
    ],
)
def test_a_candidate_that_hardly_trades_is_refused_whatever_its_sharpe(change: dict[str, object], words: str) -> None:
    found = gates.backtest(walked(**change), BacktestThresholds())
    assert found.outcome is Outcome.FAIL
    assert words in found.message
    assert verdict([found]) is Verdict.REFUSED


def test_a_weak_objective_alone_is_a_matter_of_statistics() -> None:
    found = gates.backtest(walked(objective=-0.2), BacktestThresholds())
    assert (found.outcome, found.statistical) == (Outcome.FAIL, True)
    assert not gates.backtest(walked(objective=-0.2, closed_trades=3), BacktestThresholds()).statistical


@pytest.mark.parametrize("objective", [None, math.nan])
def test_a_result_without_a_value_is_an_error(objective: float | None) -> None:
    assert gates.backtest(walked(objective=objective), BacktestThresholds()).outcome is Outcome.ERROR


def test_dsr_passes_a_strong_edge_and_refuses_what_luck_does_better() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 2000)
    luck = [-2.0, 0.5, 1.0, 2.0]
    strong = gates.overfitting_dsr(noise + 0.001, luck, HOURS)
    assert strong.outcome is Outcome.PASS
    assert gates.overfitting_dsr(noise - 0.001, luck, HOURS).outcome is Outcome.FAIL
    between = gates.overfitting_dsr(noise - noise.mean() + 0.0004, luck, HOURS)
    assert between.outcome is Outcome.INCONCLUSIVE
    assert between.minimum_detectable is not None
    assert between.minimum_detectable > between.detail["sharpe"] > between.detail["hurdle"]
    assert "over 4 trials" in between.message


def test_dsr_asks_for_exactly_the_sharpe_it_says_would_do() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 2000)
    noise -= noise.mean()
    needed = gates.overfitting_dsr(noise + 1e-5, [1.0, -1.0], HOURS).minimum_detectable
    assert needed is not None
    step = needed / math.sqrt(HOURS) * noise.std(ddof=1)
    assert gates.overfitting_dsr(noise + step * 1.03, [1.0, -1.0], HOURS).outcome is Outcome.PASS
    assert gates.overfitting_dsr(noise + step * 0.97, [1.0, -1.0], HOURS).outcome is not Outcome.PASS


def test_dsr_of_a_flat_series_is_an_error() -> None:
    assert gates.overfitting_dsr(np.zeros(100), [1.0], HOURS).outcome is Outcome.ERROR


def test_pbo_gates_from_sixteen_trials_on() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(0, 0.01, (640, 15)), rng.normal(0, 0.01, (640, 16))
    shown = gates.overfitting_pbo(few)
    assert (shown.outcome, shown.gating) == (Outcome.INCONCLUSIVE, False)
    assert gates.overfitting_pbo(many).outcome is Outcome.FAIL
    many[:, 2] += 0.005
    passed = gates.overfitting_pbo(many)
    assert (passed.outcome, passed.gating) == (Outcome.PASS, True)
    assert gates.overfitting_pbo(rng.normal(0, 1, (640, 1))).outcome is Outcome.INCONCLUSIVE
    assert gates.overfitting_pbo(np.full((640, 20), np.nan)).outcome is Outcome.ERROR


def test_evidence_is_plain_json() -> None:
    for found in (
        gates.integrity(intact()),
        gates.backtest(walked(), BacktestThresholds()),
        gates.overfitting_dsr(np.random.default_rng(0).normal(0, 1, 99), [1.0, 2.0], HOURS),
        gates.overfitting_pbo(np.random.default_rng(0).normal(0, 1, (99, 3))),
        of("window", Outcome.PASS, worst=math.nan),
    ):
        json.dumps({"measured": found.measured, **found.detail}, allow_nan=False)
        assert found.message.endswith(".")
        assert not found.message.endswith("..")


def test_the_verdict_is_passed_only_when_every_gate_passed() -> None:
    assert verdict(all_passing()) is Verdict.PASSED
    for gate in ("window", "overfitting_dsr", "overfitting_pbo"):
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
            assert verdict([*all_passing(), of(gate, outcome, statistical=True)]) is Verdict.OBSERVER


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_a_candidate_that_is_not_intact_is_refused_even_before_the_other_gates_ran(outcome: Outcome) -> None:
    assert verdict([of("integrity", outcome)]) is Verdict.REFUSED
    assert verdict([*all_passing(), of("integrity", outcome)]) is Verdict.REFUSED


def test_a_statistical_gate_that_erred_refuses_because_nothing_is_known() -> None:
    assert verdict([*all_passing(), of("window", Outcome.ERROR, statistical=True)]) is Verdict.REFUSED


def test_evidence_that_is_only_shown_stops_nobody() -> None:
    shown = of("overfitting_pbo", Outcome.INCONCLUSIVE, statistical=True, gating=False)
    assert verdict([*all_passing(), shown]) is Verdict.PASSED
    assert stopped_by([*all_passing(), shown]) is None


def test_a_gate_that_never_ran_is_never_taken_for_a_pass() -> None:
    with pytest.raises(InvalidInput, match="no evidence of window"):
        verdict([e for e in all_passing() if e.gate != "window"])


def test_the_first_gate_in_order_is_named_as_the_one_that_stopped_it() -> None:
    late, early = of("overfitting_dsr", Outcome.FAIL, statistical=True), of("window", Outcome.INCONCLUSIVE, statistical=True)
    assert stopped_by([late, early]) == "window"


def test_only_a_passed_candidate_with_soak_and_grade_is_promotable() -> None:
    paper = [of("soak"), of("grade")]
    assert promotable([*all_passing(), *paper])
    assert not promotable([*all_passing(), of("grade")])
    assert not promotable([*all_passing(), *paper, of("window", Outcome.INCONCLUSIVE, statistical=True)])
    assert not promotable([*all_passing(), of("soak"), of("grade", Outcome.INCONCLUSIVE)])
