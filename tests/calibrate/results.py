"""From the Studies' outcomes to rates, with Clopper-Pearson intervals.

A Study passes when any of its candidates does. window: the window gate. statistical: window, DSR and PBO (where it gates).
verdict: every gate, those that are not statistical too. A candidate is tested when no gate that is not statistical kept it
from one that is; `given_tested` is the statistical rate over the Studies that have a tested candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from scipy.stats import binomtest

from cappuccino.evaluation.evidence import Verdict

Outcome = Mapping[str, Any]
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


def table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, as docs/statistics.md has it."""
    heads = ("Scenario", "Studies", "tested", "window", "at most", "DSR", "PBO", "window and DSR", "all statistical", "at most")
    heads += ("Sharpe in the window", "detectable, at 80 %")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, s in summaries.items():
        cells = [
            name,
            s["verdict"]["of"],
            s["given_tested"]["of"],
            _interval(s["window"]),
            f"{s['window']['upper']:.1%}",
            _share(s["dsr"]),
            _share(s["pbo"]),
            _share(s["window_and_dsr"]),
            _interval(s["statistical"]),
            f"{s['statistical']['upper']:.1%}",
            _number(s["sharpe_window"]),
            f"{_number(s['detectable'])}, {_number(s['detectable_at_80'])}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _share(found: Mapping[str, Any]) -> str:
    return "none" if found["rate"] is None else f"{found['hits']}, {found['rate']:.1%}"


def _interval(found: Mapping[str, Any]) -> str:
    return f"{_share(found)} ({found['low']:.1%} to {found['high']:.1%})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"
