"""The status tree: what it says of everything that waits. Documents in, lines out."""

from __future__ import annotations

from typing import Any

from cappuccino.entrypoints.cli.tree import deployment_node, rendered, study_node


def made(
    kind: str, name: str, *, spec: dict[str, Any] | None = None, ready: tuple[str, ...] = (), **status: Any
) -> dict[str, Any]:
    conditions = status.pop("conditions", [])
    if ready:
        conditions = [condition("Ready", *ready), *conditions]
    told = {**status, **({"conditions": conditions} if conditions else {})}
    return {"kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec or {}, "status": told}


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def study(**status: Any) -> dict[str, Any]:
    return made("Study", "s", spec={"datasetRef": {"name": "market"}}, **status)


def trial(number: int, workload: str | None = None, why: str = "", *, over: str = "") -> dict[str, Any]:
    if over:
        return made("Trial", f"s-{number:05d}", conditions=[condition(over, "True", "x", why)])
    conditions = [condition("Complete", "False", "Waiting", why)] if why else []
    return made("Trial", f"s-{number:05d}", workload=workload, conditions=conditions)


def lines(*args: Any) -> list[str]:
    return rendered(study_node(*args)).splitlines()


def test_a_study_says_how_far_it_is_and_of_what_market() -> None:
    dataset = made("Dataset", "market", ready=("True", "Complete"))
    counts = {"waiting": 0, "running": 1, "complete": 3, "pruned": 0, "failed": 0}
    of = study(ready=("True", "Searching", "3 of 8"), trials=counts, best={"objective": 1.25, "number": 2})
    assert lines(of, dataset, [trial(3, "Running"), trial(1, over="Complete")], []) == [
        "study/s  Searching: 3 of 8; best 1.25 (trial 2)",
        "├─ dataset/market  Complete",
        "└─ trials  1 running, 3 complete",
        "   └─ 1 running: s-00003",
    ]


def test_a_dataset_that_is_not_ready_or_not_there_is_why_a_study_waits() -> None:
    waits = study(ready=("False", "DatasetNotReady", "Dataset market is not ready: it is being read"))
    reading = made("Dataset", "market", ready=("False", "Refreshing", "it is being read"))
    assert "dataset/market  Refreshing: it is being read" in lines(waits, reading, [], [])[1]
    assert "dataset/market  does not exist: apply it" in lines(waits, None, [], [])[1]


def test_trials_that_wait_for_the_same_share_a_line_with_the_reason() -> None:
    counts = {"waiting": 1, "running": 7, "complete": 0, "pruned": 0, "failed": 1}
    unschedulable, unpulled = "0/1 nodes are available: 1 Insufficient cpu.", "ImagePullBackOff: no such image"
    queued = "queue research has not admitted it"
    trials = [
        *(trial(n, "Pending", unschedulable) for n in range(5)),
        trial(5, "Pending", unpulled),
        trial(6, "Pending", queued),
        trial(7, None),
        trial(8, over="Failed", why="exit code 2: bad data"),
    ]
    tree = lines(study(trials=counts), None, trials, [])
    assert tree[3:] == [
        "   ├─ 1 starting: s-00007",
        f"   ├─ 5 waiting: s-00000, s-00001, s-00002 ...: {unschedulable}",
        f"   ├─ 1 waiting: s-00005: {unpulled}",
        f"   ├─ 1 waiting: s-00006: {queued}",
        "   └─ 1 failed: s-00008: exit code 2: bad data",
    ]


def test_a_deployment_shows_its_candidates_with_gates_and_traders() -> None:
    gates = [
        {"gate": "window", "outcome": "Pass", "measured": 0.31, "threshold": 0, "message": "alpha above 0."},
        {"gate": "soak", "outcome": "Inconclusive", "message": "soaking: 1.5 of 7 market days."},
    ]
    candidates = [
        {"bundleDigest": "a" * 64, "trader": "d-00002", "verdict": "Soaking", "gates": gates},
        {"bundleDigest": "b" * 64, "verdict": "Refused", "stoppedBy": "backtest"},
    ]
    of = made(
        "Deployment",
        "d",
        ready=("True", "Judged", "2 candidates"),
        conditions=[condition("Promoted", "False", "NobodyEligible", "not yet")],
        candidates=candidates,
    )
    traders = [
        made("Trader", "d-00002", spec={"role": "candidate"}, haltedReason="the breaker", equityUsd=9876.5, drawdown=0.123),
        made(
            "Trader",
            "d-hodl",
            spec={"role": "baseline"},
            ready=("False", "BackOff", "exit code 1"),
            lastBarAt="2024-05-01T00:00:00Z",
        ),
    ]
    assert rendered(deployment_node(of, traders)).splitlines() == [
        "deployment/d  Judged: 2 candidates; NobodyEligible: not yet",
        "├─ candidate d-00002  Soaking",
        "│  ├─ window  Pass (0.31 against 0): alpha above 0.",
        "│  ├─ soak  Inconclusive: soaking: 1.5 of 7 market days.",
        "│  └─ trader/d-00002  halted: the breaker, $9,876.50, drawdown 12.3%",
        "├─ candidate bbbbbbbbbbbb  Refused, stopped by backtest",
        "└─ trader/d-hodl  BackOff: exit code 1, baseline, last bar 2024-05-01T00:00:00Z",
    ]


def test_what_needs_a_person_says_so_first() -> None:
    stalled = study(
        ready=("False", "TooFewBars", "x"), conditions=[condition("Stalled", "True", "TooFewBars", "give more bars")]
    )
    assert lines(stalled, None, [], [])[0] == "study/s  STALLED, TooFewBars: give more bars"
