"""The main job on a small market: a rule's Study, gates, paper traders, summary. No torch, so a run takes half a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .chain import demo, manifests, rows, summary

pytestmark = pytest.mark.slow


def noise(seed: int) -> Any:
    def edit(spec: dict[str, Any]) -> None:
        spec["source"]["generator"] |= {"seed": seed, "driftVolatility": 0}

    return edit


def small(spec: dict[str, Any]) -> None:
    """Six trials, drawn at random and never pruned: what they are does not depend on which of them ended first."""
    spec["sampler"] = {"type": "random", "seed": 3}
    spec["pruner"] = {"type": "none"}
    spec["budget"] = {"trials": 6, "maxFailedTrials": 6}


def test_a_planted_edge_passes_the_gates_and_trades_on_paper(tmp_path: Path) -> None:
    run = demo(tmp_path, "--manifests", str(manifests(tmp_path / "m", study=small)), "--paper-days", "3")
    assert run.code == 0, run.errors
    told = summary(tmp_path)
    assert told["trials"] == {"Complete": 6}
    assert {candidate["verdict"] for candidate in told["candidates"]} == {"Passed"}
    roles = [trader["role"] for trader in told["traders"]]
    assert sorted(roles) == ["baseline", "baseline", "candidate", "candidate"]
    for trader in told["traders"]:
        assert trader["final_equity_usd"] is not None
        assert (trader["fills"] > 0) == (not trader["name"].endswith("-cash"))
        assert trader["restarts"] == 0
        assert (trader["drift"] is None) == trader["name"].endswith("-cash")
        if trader["drift"]:  # the exchange charges what the bundles assume
            assert trader["drift"]["excess_bps"] == pytest.approx(0, abs=0.1)
    assert told["ledger_matches_exchange"] is True
    (tokens,) = rows(tmp_path, "select distinct token from account")
    assert tokens == [(1,)]  # each trader took its account once: nobody ended it, not even a trial of the same name
    assert set(told["elapsed_seconds"]) == {"services", "data", "search", "gates", "paper", "grade"}
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_market_without_an_edge_promotes_nobody_and_is_a_success(tmp_path: Path, seed: int) -> None:
    run = demo(tmp_path, "--manifests", str(manifests(tmp_path / "m", dataset=noise(seed), study=small)), "--paper-days", "1")
    assert run.code == 0, run.errors
    told = summary(tmp_path)
    assert "Passed" not in [candidate["verdict"] for candidate in told["candidates"]]
    assert "candidate" not in [trader["role"] for trader in told["traders"]]
    for candidate in told["candidates"]:
        window = next(gate for gate in candidate["gates"] if gate["gate"] == "window")
        assert window["outcome"] in ("Fail", "Inconclusive")
        assert window["minimum_detectable"] > 5  # a month of hours cannot tell less from luck


@pytest.mark.parametrize("mode", ["ensemble", "arena"])
def test_an_ensemble_is_gated_and_trades_as_one_and_an_arena_has_its_baselines(tmp_path: Path, mode: str) -> None:
    def several(spec: dict[str, Any]) -> None:
        spec |= {"mode": mode, "top": 3}

    run = demo(tmp_path, "--manifests", str(manifests(tmp_path / "m", study=small, deployment=several)), "--paper-days", "2")
    assert run.code == 0, run.errors
    told = summary(tmp_path)
    names = sorted(trader["name"] for trader in told["traders"])
    assert {"rules-cash", "rules-hodl"} <= set(names)
    if mode == "ensemble":
        assert "rules-ensemble" in names
        assert [candidate["trial"] for candidate in told["candidates"]] == [None]
    else:
        assert len(names) == 5
    assert told["ledger_matches_exchange"] is True
