"""The gates on paper: did it trade long enough and stay healthy (`soak`), may a person promote it (`grade`); and the one of
each step of capital (`live`), which goes on, extends or demotes.

Time is market time, counted on the venue's clock. Both gates are Inconclusive until the days and trades are there:
the controller extends, it does not reject. The soak has two thresholds on the net return: promote at one, reject
below the other at any time, extend in between. Waiting for a good moment favours the candidate, which is why the soak
proves health and the window test proves the edge.

The grade gate holds the conditions of promotion; the letter is shown and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cappuccino.evaluation.evidence import Evidence, Outcome, evidence
from cappuccino.evaluation.grade import Grade, PaperRecord


@dataclass(frozen=True, kw_only=True)
class SoakFacts:
    """A trader's record so far. Returns are fractions; `worst_hour` is the lowest return of any hour (or bar, if longer).

    last_bar_age_bars: bars of market time since the last decision; a healthy trader is at most a bar late.
    """

    market_days: float
    closed_trades: int
    total_return: float
    worst_hour: float
    last_bar_age_bars: float
    halted_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class SoakThresholds:
    market_days: float = 7.0
    closed_trades: int = 20
    promote_at_return: float = 0.0
    reject_below_return: float = -0.15
    absurd_hour: float = -0.50
    max_bar_age_bars: float = 3.0


@dataclass(frozen=True, kw_only=True)
class GradeThresholds:
    market_days: float = 7.0
    closed_trades: int = 20
    min_win_rate: float = 0.60
    max_drawdown: float = 0.15


@dataclass(frozen=True, kw_only=True)
class LiveThresholds:
    market_days: float
    closed_trades: int
    min_win_rate: float = 0.60
    max_drawdown: float = 0.15
    min_fidelity: float = 0.5


def soak(facts: SoakFacts, thresholds: SoakThresholds) -> Evidence:
    """measured: net return, threshold: the return that promotes."""
    so_far = (
        f"{facts.market_days:.1f} of {thresholds.market_days:g} market days and {facts.closed_trades} of"
        f" {thresholds.closed_trades} closed trades, return {facts.total_return:+.1%}"
    )
    late = facts.last_bar_age_bars > thresholds.max_bar_age_bars
    short = facts.market_days < thresholds.market_days or facts.closed_trades < thresholds.closed_trades
    if facts.halted_reason is not None:
        outcome, message = Outcome.FAIL, f"the trader is halted ({facts.halted_reason}) after {so_far}."
    elif facts.worst_hour <= thresholds.absurd_hour:
        outcome, message = Outcome.FAIL, f"it lost {-facts.worst_hour:.0%} within an hour: look at its fills; {so_far}."
    elif facts.total_return < thresholds.reject_below_return:
        outcome, message = Outcome.FAIL, f"it is below {thresholds.reject_below_return:+.0%}: {so_far}."
    elif late:
        outcome, message = Outcome.INCONCLUSIVE, f"its last bar is {facts.last_bar_age_bars:.0f} bars old: {so_far}."
    elif short:
        outcome, message = Outcome.INCONCLUSIVE, f"soaking: {so_far}."
    elif facts.total_return < thresholds.promote_at_return:
        outcome = Outcome.INCONCLUSIVE
        message = f"extended until the return reaches {thresholds.promote_at_return:+.0%}: {so_far}."
    else:
        outcome, message = Outcome.PASS, f"soaked: {so_far}."
    detail = {
        "market_days": facts.market_days,
        "closed_trades": facts.closed_trades,
        "worst_hour": facts.worst_hour,
        "last_bar_age_bars": facts.last_bar_age_bars,
        "halted_reason": facts.halted_reason,
        "extend": outcome is Outcome.INCONCLUSIVE,
    }
    return evidence("soak", outcome, facts.total_return, thresholds.promote_at_return, None, message, detail)


def grade_gate(record: PaperRecord, grade: Grade, thresholds: GradeThresholds) -> Evidence:
    """The conditions of promotion. measured: win rate, threshold: what is asked of it."""
    detail = {
        "letter": grade.letter,
        "score": grade.score,
        "market_days": record.market_days,
        "closed_trades": record.closed_trades,
        "break_even_win_rate": record.break_even_win_rate,
        "alpha": record.alpha,
        "alpha_low": record.alpha_low,
        "alpha_high": record.alpha_high,
        "t_alpha": record.t_alpha,
        "max_drawdown": record.max_drawdown,
    }
    asked = thresholds.min_win_rate
    if record.market_days < thresholds.market_days or record.closed_trades < thresholds.closed_trades:
        message = (
            f"too early: {record.market_days:.1f} of {thresholds.market_days:g} market days,"
            f" {record.closed_trades} of {thresholds.closed_trades} closed trades."
        )
        return evidence("grade", Outcome.INCONCLUSIVE, record.win_rate, asked, None, message, detail)
    if record.alpha is None or record.alpha_low is None or record.alpha_high is None or record.win_rate is None:
        message = "alpha or win rate cannot be measured: neither the record nor HODL may be without variance."
        return evidence("grade", Outcome.ERROR, record.win_rate, asked, None, message, detail)
    parts = {
        f"{record.market_days:.1f} market days (at least {thresholds.market_days:g})": True,
        f"{record.closed_trades} closed trades (at least {thresholds.closed_trades})": True,
        _win_rate(record, asked): record.win_rate >= asked,
        f"{_alpha(record)} (above 0)": record.alpha > 0,
        f"drawdown {record.max_drawdown:.1%} (at most {thresholds.max_drawdown:.0%})": (
            record.max_drawdown <= thresholds.max_drawdown
        ),
    }
    failed = [text for text, met in parts.items() if not met]
    outcome = Outcome.FAIL if failed else Outcome.PASS
    message = f"not promotable: {'; '.join(failed)}." if failed else f"promotable by a person: {'; '.join(parts)}."
    if record.alpha > 0 > record.alpha_low:
        message = message[:-1] + "; the interval of alpha includes 0."
    return evidence("grade", outcome, record.win_rate, asked, None, message, detail | {"failed": failed})


def live_gate(record: PaperRecord, thresholds: LiveThresholds, *, halted_reason: str | None = None) -> Evidence:
    """One step of capital. measured: drawdown, threshold: the largest that is let go on.

    Fail demotes: the drawdown at any time; fills too far from the modelled ones once there are the trades; after days and
    trades an alpha whose whole interval is below 0. Pass goes on to the next step: days, trades, win rate and a positive alpha
    are there. Anything else, a halt too, is Inconclusive: the step is extended.
    """
    fidelity, asked = record.fidelity, thresholds.max_drawdown
    seen = (
        f"{record.market_days:.1f} of {thresholds.market_days:g} market days, {record.closed_trades} of"
        f" {thresholds.closed_trades} closed trades, {_win_rate(record, thresholds.min_win_rate)}, {_alpha(record)}, drawdown"
        f" {record.max_drawdown:.1%} (at most {asked:.0%}), fidelity of fills"
        f" {'-' if fidelity is None else f'{fidelity:.2f}'} (at least {thresholds.min_fidelity:.2f})"
    )
    traded = record.closed_trades >= thresholds.closed_trades
    lasted = traded and record.market_days >= thresholds.market_days
    gains = record.win_rate is not None and record.win_rate >= thresholds.min_win_rate
    if record.max_drawdown > asked:
        outcome, said = Outcome.FAIL, "its drawdown is too large"
    elif traded and fidelity is not None and fidelity < thresholds.min_fidelity:
        outcome, said = Outcome.FAIL, "its fills are not what the model of costs says"
    elif lasted and record.alpha_high is not None and record.alpha_high < 0:
        outcome, said = Outcome.FAIL, "its alpha is negative with all of its interval"
    elif halted_reason is not None:
        outcome, said = Outcome.INCONCLUSIVE, f"it is halted ({halted_reason})"
    elif lasted and gains and record.alpha is not None and record.alpha > 0:
        outcome, said = Outcome.PASS, "it may go on to the next step"
    else:
        outcome, said = Outcome.INCONCLUSIVE, "it goes on at this step"
    detail = {
        "market_days": record.market_days,
        "closed_trades": record.closed_trades,
        "win_rate": record.win_rate,
        "break_even_win_rate": record.break_even_win_rate,
        "alpha": record.alpha,
        "alpha_low": record.alpha_low,
        "alpha_high": record.alpha_high,
        "fidelity": fidelity,
        "halted_reason": halted_reason,
    }
    return evidence("live", outcome, record.max_drawdown, asked, None, f"{said}: {seen}.", detail)


def _win_rate(record: PaperRecord, asked: float) -> str:
    rate, even = ("-" if value is None else f"{value:.0%}" for value in (record.win_rate, record.break_even_win_rate))
    return f"win rate {rate} (at least {asked:.0%}; breaks even at {even})"


def _alpha(record: PaperRecord) -> str:
    if record.alpha is None or record.alpha_low is None or record.alpha_high is None:
        return "alpha cannot be measured"
    return f"alpha {record.alpha:+.0%} a year, 95 % within {record.alpha_low:+.0%} and {record.alpha_high:+.0%}"
