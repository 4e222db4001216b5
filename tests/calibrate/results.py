"""From the Studies' outcomes to rates, with Clopper-Pearson intervals.

A Study passes when any of its candidates does. window: the window gate. statistical: window, DSR and PBO (where it gates).
verdict: every gate, those that are not statistical too. A candidate is tested when no gate that is not statistical kept it
from one that is; `given_tested` is the statistical rate over the Studies that have a tested candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from scipy.stats import binomtest

from cappuccino.evaluation.evidence import Verdict
from cappuccino.evaluation.overfitting import holm
from cappuccino.evaluation.window_gate import WindowThresholds
from tests.bench.report import table as markdown

Outcome = Mapping[str, Any]
LEVEL = WindowThresholds().alpha
STATISTICAL = ("window", "overfitting_dsr", "overfitting_pbo")


def rate(hits: int, of: int) -> dict[str, Any]:
    """`low`, `high`: two-sided at 95 %; `upper`: one-sided at 95 %, what a target is held against."""
    if of == 0:
        return {"hits": 0, "of": 0, "rate": None, "low": 0.0, "high": 1.0, "upper": 1.0}
    both = binomtest(hits, of).proportion_ci(0.95, method="exact")
    upper = binomtest(hits, of, alternative="less").proportion_ci(0.95, method="exact").high
    return {"hits": hits, "of": of, "rate": hits / of, "low": both.low, "high": both.high, "upper": upper}


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Of one scenario; medians over the Studies, of each its first candidate's."""
    tested = [outcome for outcome in outcomes if any(c["tested"] for c in outcome["candidates"])]
    candidates = [c for outcome in outcomes for c in outcome["candidates"]]
    first = [outcome["candidates"][0] for outcome in outcomes if outcome["candidates"]]

    def passing(whom: Sequence[Outcome], check: Any) -> dict[str, Any]:
        return rate(sum(any(check(c) for c in outcome["candidates"]) for outcome in whom), len(whom))

    return {
        "window": passing(outcomes, lambda c: passes(c, "window")),
        "dsr": passing(outcomes, lambda c: passes(c, "overfitting_dsr")),
        "pbo": passing(outcomes, lambda c: passes(c, "overfitting_pbo")),
        "window_and_dsr": passing(outcomes, lambda c: passes(c, "window", "overfitting_dsr")),
        "statistical": passing(outcomes, lambda c: passes(c, *STATISTICAL)),
        "verdict": passing(outcomes, lambda c: c["verdict"] == Verdict.PASSED),
        "given_tested": passing(tested, lambda c: passes(c, *STATISTICAL)),
        "candidates": len(candidates),
        "candidates_tested": sum(c["tested"] for c in candidates),
        "gates": {gate: dict(Counter(c["gates"][gate]["outcome"] for c in candidates if c["tested"])) for gate in STATISTICAL},
        "pbo_gates": sum(c["gates"]["overfitting_pbo"]["gating"] for c in candidates),
        "trials": {name: sum(outcome[name] for outcome in outcomes) for name in ("complete", "failed")},
        "sharpe_walk_forward": middle([c["objective"] for c in first]),
        "sharpe_window": middle([c["window"]["sharpe"] for c in first]),
        "alpha_window": middle([c["window"]["alpha"] for c in first]),
        "detectable": middle([c["window"]["detectable"] for c in first]),
        "detectable_at_80": middle([c["window"]["detectable_at_80"] for c in first]),
        "seconds": middle([outcome["seconds"] for outcome in outcomes]),
        "code": sorted({outcome["code"] for outcome in outcomes}),
    }


def passes(candidate: Outcome, *gates: str) -> bool:
    """PBO over too few trials gates nothing."""
    found = [candidate["gates"][gate] for gate in gates]
    return all(gate["outcome"] == "Pass" or not gate["gating"] for gate in found)


def middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def weakened(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """The window gate's rate, from the p-values that it kept, if parts of it were left out: can the calibration tell?"""

    def growth(candidate: Outcome) -> float:
        return float(candidate["window"]["p_mean"])

    def both(candidate: Outcome) -> float:
        return float(max(candidate["window"]["p_mean"], candidate["window"]["p_alpha"]))

    def passing(p: Callable[[Outcome], float], adjust: Callable[[Sequence[float]], Sequence[float]]) -> dict[str, Any]:
        hits = 0
        for outcome in outcomes:
            found = outcome["candidates"]
            adjusted = adjust([p(c) if c["window"]["p_mean"] is not None else 1.0 for c in found])
            hits += any(c["tested"] and value <= LEVEL for c, value in zip(found, adjusted, strict=True))
        return rate(hits, len(outcomes))

    return {
        "as it is": passing(both, holm),
        "without Holm": passing(both, tuple),
        "without alpha": passing(growth, holm),
        "without either": passing(growth, tuple),
    }


def table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, as docs/statistics.md has it."""
    heads = ("scenario", "Studies", "window", "at most", "DSR", "PBO", "window and DSR", "all three", "at most")
    rows = []
    for name, s in summaries.items():
        window, every = s["window"], s["statistical"]
        alone = [_share(s[gate]) for gate in ("dsr", "pbo", "window_and_dsr")]
        sharpes = [_number(s["sharpe_walk_forward"]), _number(s["sharpe_window"])]
        cells = [name, str(every["of"]), _interval(window), _percent(window["upper"]), *alone, _interval(every)]
        rows.append([*cells, _percent(every["upper"]), *sharpes])
    return markdown((*heads, "Sharpe in dev", "in the window"), rows)


def weakened_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    return markdown(
        ("window gate", "passes somebody", "at most"), [[k, _interval(v), _percent(v["upper"])] for k, v in found.items()]
    )


def _share(found: Mapping[str, Any]) -> str:
    return "none" if found["rate"] is None else _percent(found["rate"])


def _interval(found: Mapping[str, Any]) -> str:
    """Two-sided."""
    return f"{found['hits']}: {_share(found)} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"
