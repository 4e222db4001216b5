from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation.evidence import Outcome
from cappuccino.evaluation.grade import PaperRecord, fill_fidelity, grade, paper_record
from cappuccino.evaluation.paper_gates import (
    GradeThresholds,
    LiveThresholds,
    SoakFacts,
    SoakThresholds,
    grade_gate,
    live_gate,
    soak,
)

HOURS = 8760.0


def record(**changes: object) -> PaperRecord:
    base = PaperRecord(
        market_days=8.0,
        closed_trades=25,
        total_return=0.03,
        sharpe=3.0,
        sharpe_se=7.0,
        alpha=0.4,
        alpha_low=-0.1,
        alpha_high=0.9,
        t_alpha=2.0,
        max_drawdown=0.0,
        win_rate=0.7,
        break_even_win_rate=0.5,
        fidelity=1.0,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def soaking(**changes: object) -> SoakFacts:
    base = SoakFacts(market_days=7.0, closed_trades=20, total_return=0.01, worst_hour=-0.02, last_bar_age_bars=1.0)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_full_record_scores_one_hundred_term_by_term() -> None:
    given_ = grade(record())
    assert (given_.letter, given_.score) == ("A", pytest.approx(100.0))
    assert [term.weight for term in given_.terms] == [25, 25, 20, 15, 15]


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"sharpe": 1.5}, 12.5),
        ({"sharpe": -4.0}, 25.0),
        ({"t_alpha": 1.0}, 12.5),
        ({"max_drawdown": 0.075}, 10.0),
        ({"max_drawdown": 0.30}, 20.0),
        ({"win_rate": 0.6}, 7.5),
        ({"fidelity": 0.2}, 12.0),
        ({"sharpe": 99.0, "t_alpha": 99.0}, 0.0),
        ({"sharpe": None, "t_alpha": None, "fidelity": None, "break_even_win_rate": None}, 80.0),
    ],
)
def test_each_term_costs_what_is_published(change: dict[str, object], lost: float) -> None:
    assert grade(record(**change)).score == pytest.approx(100 - lost)


@pytest.mark.parametrize(("sharpe", "letter"), [(3.0, "A"), (1.21, "A"), (1.19, "B")])
def test_letters_begin_at_their_published_scores(sharpe: float, letter: str) -> None:
    assert grade(record(sharpe=sharpe)).letter == letter


@pytest.mark.parametrize(
    ("score", "letter"), [(85, "A"), (84.9, "B"), (70, "B"), (69.9, "C"), (55, "C"), (54.9, "D"), (40, "D"), (39.9, "F")]
)
def test_every_boundary_belongs_to_the_better_letter(score: float, letter: str) -> None:
    # 25 + 25 points come from Sharpe and alpha, 15 + 15 from the rest, drawdown stays at its limit: 80 at most
    spread = min(score, 80)
    points = {"max_drawdown": 0.15 * (1 - max(0.0, score - 80) / 20)}
    fidelity = max(0.0, spread - 65) / 15
    win = min(15.0, max(0.0, spread - 50)) / 15 * 0.2 + 0.5
    sharpe, t_alpha = min(25.0, spread) / 25 * 3, min(25.0, max(0.0, spread - 25)) / 25 * 2
    made = grade(record(sharpe=sharpe + 1e-9, t_alpha=t_alpha, win_rate=win, fidelity=fidelity, **points))
    assert made.score == pytest.approx(score, abs=1e-6)
    assert made.letter == letter


@pytest.mark.parametrize("change", [{"market_days": 6.9}, {"closed_trades": 19}])
def test_there_is_no_grade_before_seven_days_and_twenty_trades(change: dict[str, object]) -> None:
    early = grade(record(**change))
    assert (early.letter, early.score) == (None, None)
    assert len(early.terms) == 5
    assert "no grade yet" in early.reason


@given(
    sharpe=st.floats(-50, 50),
    t=st.floats(-50, 50),
    dd=st.floats(0, 1),
    win=st.floats(0, 1),
    even=st.floats(0, 1),
    fid=st.floats(0, 1),
)
def test_a_score_stays_between_nothing_and_one_hundred(
    sharpe: float, t: float, dd: float, win: float, even: float, fid: float
) -> None:
    made = grade(record(sharpe=sharpe, t_alpha=t, max_drawdown=dd, win_rate=win, break_even_win_rate=even, fidelity=fid))
    assert made.score is not None
    assert 0 <= made.score <= 100
    assert all(0 <= term.points <= term.weight for term in made.terms)


def test_a_record_is_measured_from_curves_and_trades() -> None:
    rng = np.random.default_rng(0)
    market = np.concatenate([[0.0], rng.normal(0, 0.005, 240)])
    hodl = 10_000 * np.cumprod(1 + market)
    equity = 10_000 * np.cumprod(1 + 0.5 * market + np.concatenate([[0.0], np.full(240, 0.0004)]))
    made = paper_record(equity=equity, hodl=hodl, pnl=[3.0, -1.0], bars_per_year=HOURS, fidelity=0.9)
    assert made.market_days == pytest.approx(10)
    assert made.alpha == pytest.approx(0.0004 * HOURS, rel=1e-6)
    assert made.total_return == pytest.approx(equity[-1] / 10_000 - 1)
    assert (made.closed_trades, made.win_rate, made.break_even_win_rate) == (2, 0.5, 0.25)


def test_cash_has_no_sharpe_and_no_alpha_and_hodl_without_movement_explains_nothing() -> None:
    moving = 10_000 * np.cumprod(1 + np.random.default_rng(0).normal(0, 0.01, 300))
    still = np.full(300, 10_000.0)
    cash = paper_record(equity=still, hodl=moving, pnl=[], bars_per_year=HOURS, fidelity=None)
    assert (cash.sharpe, cash.alpha, cash.win_rate) == (None, None, None)
    assert paper_record(equity=moving, hodl=still, pnl=[], bars_per_year=HOURS, fidelity=None).alpha is None
    with pytest.raises(InvalidInput):
        paper_record(equity=moving, hodl=still[1:], pnl=[], bars_per_year=HOURS, fidelity=None)


def test_fidelity_falls_with_the_distance_to_the_modelled_price() -> None:
    assert fill_fidelity([100.0, 200.0], [100.0, 200.0]) == 1
    assert fill_fidelity([100.1, 99.9], [100.0, 100.0]) == pytest.approx(1 - 10 / 25)
    assert fill_fidelity([101.0], [100.0]) == 0
    assert fill_fidelity([], []) is None
    with pytest.raises(InvalidInput):
        fill_fidelity([1.0], [])


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, Outcome.PASS),
        ({"market_days": 6.9}, Outcome.INCONCLUSIVE),
        ({"closed_trades": 19}, Outcome.INCONCLUSIVE),
        ({"total_return": -0.01}, Outcome.INCONCLUSIVE),  # between the two thresholds: extended
        ({"total_return": -0.16}, Outcome.FAIL),
        ({"total_return": -0.16, "market_days": 1.0}, Outcome.FAIL),  # rejected without waiting
        ({"worst_hour": -0.5}, Outcome.FAIL),
        ({"halted_reason": "drawdown"}, Outcome.FAIL),
        ({"last_bar_age_bars": 4.0}, Outcome.INCONCLUSIVE),
    ],
)
def test_soak_promotes_at_one_threshold_rejects_below_another_and_extends_between(
    change: dict[str, object], outcome: Outcome
) -> None:
    found = soak(soaking(**change), SoakThresholds())
    assert found.outcome is outcome
    assert found.detail["extend"] is (outcome is Outcome.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        ({}, Outcome.PASS, "breaks even at 50%"),
        ({"market_days": 6.0}, Outcome.INCONCLUSIVE, "too early"),
        ({"closed_trades": 3}, Outcome.INCONCLUSIVE, "too early"),
        ({"win_rate": 0.59}, Outcome.FAIL, "win rate 59%"),
        ({"alpha": -0.01}, Outcome.FAIL, "alpha -1% a year, 95 % within -10% and +90%"),
        ({"max_drawdown": 0.16}, Outcome.FAIL, "drawdown 16.0%"),
        ({"alpha": None}, Outcome.ERROR, "cannot be measured"),
    ],
)
def test_promotion_has_conditions_of_its_own(change: dict[str, object], outcome: Outcome, words: str) -> None:
    one = record(**change)
    found = grade_gate(one, grade(one), GradeThresholds())
    assert found.outcome is outcome
    assert words in found.message.lower() or words in found.message


def test_a_grade_of_a_never_promotes_by_itself() -> None:
    one = record(win_rate=0.55, break_even_win_rate=0.2)
    assert grade(one).letter == "A"
    assert grade_gate(one, grade(one), GradeThresholds()).outcome is Outcome.FAIL


# --- a step of capital ------------------------------------------------------------------------------

STEP = LiveThresholds(market_days=7, closed_trades=20)


@pytest.mark.parametrize(
    ("change", "halted", "outcome", "words"),
    [
        ({}, None, Outcome.PASS, "may go on to the next step"),
        ({"max_drawdown": 0.16, "market_days": 0.5, "closed_trades": 1}, None, Outcome.FAIL, "drawdown is too large"),
        ({"max_drawdown": 0.15}, None, Outcome.PASS, "drawdown 15.0% (at most 15%)"),
        ({"fidelity": 0.4, "market_days": 2.0}, None, Outcome.FAIL, "not what the model of costs says"),
        ({"fidelity": 0.4, "closed_trades": 19}, None, Outcome.INCONCLUSIVE, "fidelity of fills 0.40 (at least 0.50)"),
        ({"fidelity": None}, None, Outcome.PASS, "fidelity of fills -"),
        ({"alpha": -1.0, "alpha_low": -2.0, "alpha_high": -0.1}, None, Outcome.FAIL, "negative with all of its interval"),
        (
            {"alpha": -1.0, "alpha_low": -2.0, "alpha_high": -0.1, "market_days": 6.9},
            None,
            Outcome.INCONCLUSIVE,
            "6.9 of 7 market days",
        ),
        ({"alpha": -1.0, "alpha_low": -2.0, "alpha_high": 0.1}, None, Outcome.INCONCLUSIVE, "goes on at this step"),
        ({"win_rate": 0.59}, None, Outcome.INCONCLUSIVE, "win rate 59% (at least 60%; breaks even at 50%)"),
        ({"alpha": None}, None, Outcome.INCONCLUSIVE, "alpha cannot be measured"),
        ({}, "by a person", Outcome.INCONCLUSIVE, "it is halted (by a person)"),
        ({"max_drawdown": 0.21}, "drawdown 0.2100 of the baseline", Outcome.FAIL, "drawdown is too large"),
    ],
)
def test_a_step_goes_on_is_extended_or_is_demoted(
    change: dict[str, object], halted: str | None, outcome: Outcome, words: str
) -> None:
    found = live_gate(record(**change), STEP, halted_reason=halted)
    assert found.outcome is outcome
    assert words.lower() in found.message.lower()
    assert "of 7 market days" in found.message


def test_who_approves_is_shown_every_condition_with_what_was_measured() -> None:
    one = record()
    said = grade_gate(one, grade(one), GradeThresholds()).message
    for part in (
        "8.0 market days (at least 7)",
        "25 closed trades (at least 20)",
        "win rate 70% (at least 60%; breaks even at 50%)",
        "alpha +40% a year, 95 % within -10% and +90% (above 0)",
        "drawdown 0.0% (at most 15%)",
        "the interval of alpha includes 0",
    ):
        assert part in said
