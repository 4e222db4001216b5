from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from cappuccino.controllers.candidacy import gates_of
from cappuccino.controllers.decision import CreateObject, Decision, Key, StartWorkload, StopWorkload
from cappuccino.controllers.deployment import Observed, candidates, decide
from cappuccino.controllers.rows import AccountActivity
from cappuccino.controllers.trader import TRACEPARENT_ANNOTATION
from cappuccino.core.identifiers import TRACEPARENT, traceparent
from cappuccino.search.goal import Goal
from cappuccino.search.trials import TrialRow

from .builders import BAR, NOW, deployment, evidence, result, row, running, study, trader

KEY = Key("Deployment", "default", "desk")
A, B, HODL, CASH = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
COMPLETE = {"conditions": [{"type": "Complete", "status": "True", "reason": "BudgetSpent"}]}


def trials() -> list[Any]:
    def done(number: int, objective: float, digest: str) -> Any:
        return row(number, state="Complete", objective=objective, bundle_digest=digest, result=result(objective=objective))

    return [done(0, 1.0, A), row(1, state="Failed"), done(2, 2.0, B)]


def verdict(bundle: str, said: str, role: str | None, *, rank: int, number: int) -> Any:
    detail = {"verdict": said, "role": role, "rank": rank, "number": number, "kind": "trend"}
    return evidence(bundle, "verdict", detail=detail)


def baselines() -> list[Any]:
    return [evidence(HODL, "baseline", detail={"kind": "hodl"}), evidence(CASH, "baseline", detail={"kind": "cash"})]


def seen(**given: Any) -> Observed:
    values: dict[str, Any] = {"deployment": deployment(), "key": KEY, "study": study(status=COMPLETE), "trials": trials()}
    return Observed(**(values | given))


def reason(decision: Decision, kind: str = "Ready") -> tuple[str, str]:
    assert decision.status is not None
    found = next(c for c in decision.status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def created(decision: Decision) -> dict[str, dict[str, Any]]:
    return {a.document["metadata"]["name"]: a.document["spec"] for a in decision.actions if isinstance(a, CreateObject)}


def test_its_new_traders_fill_the_places_of_its_pods_and_those_it_has_stay_where_they_are() -> None:
    judged = [verdict(B, "Passed", "candidate", rank=0, number=2), verdict(A, "Passed", "candidate", rank=1, number=0)]

    def pods(*present: Any, **spec: Any) -> dict[str, Any]:
        of = seen(deployment=deployment(**spec), evidence=[*judged, *baselines()], traders=present)
        return {name: made.get("pod") for name, made in created(decide(of, now=NOW)).items()}

    assert set(pods().values()) == {None}
    places = {"desk-00002": "desk-0", "desk-00000": "desk-0", "desk-cash": "desk-0", "desk-hodl": "desk-1"}
    assert pods(portfoliosPerPod=3) == places
    there = trader(name="desk-00000", spec={"pod": "desk-0"})
    assert pods(there, portfoliosPerPod=2) == {"desk-00002": "desk-0", "desk-cash": "desk-1", "desk-hodl": "desk-1"}
    alone = trader(name="desk-00000")  # made before, and left as it is
    assert "desk-00000" not in pods(alone, portfoliosPerPod=2)


def test_a_missing_study_is_named() -> None:
    assert reason(decide(seen(study=None), now=NOW)) == ("False", "StudyNotFound")


def test_a_study_that_searches_is_waited_for() -> None:
    assert reason(decide(seen(study=study()), now=NOW)) == ("False", "StudySearching")


def test_a_study_without_results_stalls_the_deployment() -> None:
    decision = decide(seen(trials=[row(0, state="Failed")]), now=NOW)
    assert reason(decision, "Stalled") == ("True", "NoCandidates")
    assert decision.actions == ()


def test_candidates_are_complete_trials_best_first_and_never_of_unknown_value() -> None:
    rows = [*trials(), row(3, state="Complete", objective=None, bundle_digest="5" * 64)]
    assert [r.number for r in candidates(deployment(top=5), rows, Goal())] == [2, 0]


def test_what_breaks_a_constraint_or_is_beaten_in_every_objective_is_no_candidate() -> None:
    def complete(number: int, objective: float, drawdown: float) -> TrialRow:
        metrics = {"max_drawdown": drawdown, "turnover": 1.0}
        digest = str(number) * 64
        return row(number, state="Complete", objective=objective, bundle_digest=digest, metrics=metrics)

    rows = [complete(0, 9.0, 0.5), complete(1, 2.0, 0.2), complete(2, 1.5, 0.3), complete(3, 1.0, 0.1)]
    source = study(
        status=COMPLETE, constraints={"maxDrawdown": 0.4}, objective={"alsoMinimize": ["max_drawdown"]}, pruner={"type": "none"}
    )
    decision = decide(seen(study=source, deployment=deployment(top=5), trials=rows), now=NOW)
    (gates,) = [a.workload for a in decision.actions if isinstance(a, StartWorkload)]
    assert [c["number"] for c in json.loads(gates.environment["CAPPUCCINO_SPEC"])["candidates"]] == [1, 3]
    assert reason(decide(seen(study=source, trials=rows[:1]), now=NOW), "Stalled") == ("True", "NoCandidates")


def test_nothing_trades_before_every_candidate_has_its_verdict() -> None:
    decision = decide(seen(evidence=[verdict(A, "Passed", "candidate", rank=0, number=0)]), now=NOW)
    assert created(decision) == {}
    assert [type(a) for a in decision.actions] == [StartWorkload]
    assert reason(decision) == ("False", "Judging")


def test_who_passed_trades_who_failed_on_luck_observes_and_who_is_broken_does_not() -> None:
    rows = [
        verdict(B, "Passed", "candidate", rank=0, number=2),
        verdict(A, "Refused", None, rank=1, number=0),
        *baselines(),
    ]
    decision = decide(seen(evidence=rows), now=NOW)
    made = created(decision)
    assert sorted(made) == ["desk-00002", "desk-cash", "desk-hodl"]
    assert made["desk-00002"]["bundleDigest"] == B
    assert made["desk-00002"]["role"] == "candidate"
    assert made["desk-hodl"]["role"] == "baseline"
    assert made["desk-hodl"]["risk"]["maxWeight"] == 1
    assert len({spec["account"] for spec in made.values()}) == 3  # one portfolio is one account
    assert reason(decision) == ("True", "Judged")


def test_everything_it_starts_belongs_to_the_trace_of_its_study() -> None:
    (gates,) = [a.workload for a in decide(seen(), now=NOW).actions if isinstance(a, StartWorkload)]
    assert gates.environment[TRACEPARENT] == traceparent("uid-search")
    rows = [verdict(B, "Passed", "candidate", rank=0, number=2), verdict(A, "Refused", None, rank=1, number=0)]
    activity = AccountActivity(name="x", decisions=24, last_bar_at=NOW)
    decision = decide(seen(evidence=rows, traders=[trader(name="other")], activity={"x": activity}), now=NOW)
    (grade,) = [a.workload for a in decision.actions if isinstance(a, StartWorkload)]
    assert grade.environment[TRACEPARENT] == traceparent("uid-search")
    (made,) = [a.document["metadata"] for a in decision.actions if isinstance(a, CreateObject)]
    assert made["annotations"] == {TRACEPARENT_ANNOTATION: traceparent("uid-search")}


def test_a_deployment_of_bundles_has_a_trace_of_its_own() -> None:
    (gates,) = [
        a.workload
        for a in decide(seen(deployment=deployment(studyRef=None, bundles=[A]), study=None, trials=()), now=NOW).actions
        if isinstance(a, StartWorkload)
    ]
    assert gates.environment[TRACEPARENT] == traceparent("uid-desk")


def test_an_account_belongs_to_one_deployment_even_when_it_is_made_again_under_its_name() -> None:
    rows = [verdict(B, "Passed", "candidate", rank=0, number=2), verdict(A, "Refused", None, rank=1, number=0)]
    first = created(decide(seen(evidence=rows), now=NOW))
    other = deployment().model_copy(update={"metadata": deployment().metadata.model_copy(update={"uid": "another-uid"})})
    second = created(decide(seen(deployment=other, evidence=rows), now=NOW))
    assert first["desk-00002"]["account"] != second["desk-00002"]["account"]


def test_on_a_real_venue_a_candidate_without_an_account_runs_in_shadow() -> None:
    template = {"venue": {"kind": "alpaca", "accountSecretRef": {"name": "unused"}}, "mode": "paper"}
    of = deployment(traderTemplate=template, accounts=["first-account"])
    rows = [
        verdict(B, "Passed", "candidate", rank=0, number=2),
        verdict(A, "Passed", "candidate", rank=1, number=0),
        *baselines(),
    ]
    made = created(decide(seen(deployment=of, evidence=rows), now=NOW))
    assert made["desk-00002"]["mode"] == "paper"
    assert made["desk-00002"]["venue"]["accountSecretRef"] == {"name": "first-account"}
    assert made["desk-00000"]["mode"] == "shadow"
    assert made["desk-hodl"]["mode"] == "shadow"


def test_a_grade_promotes_nobody_and_says_who_waits_for_a_person() -> None:
    rows = [
        verdict(B, "Passed", "candidate", rank=0, number=2),
        verdict(A, "Observer", "observer", rank=1, number=0),
        *[evidence(digest, gate, detail=BAR) for digest in (A, B) for gate in ("soak", "grade")],
    ]
    decision = decide(seen(evidence=rows), now=NOW)
    assert reason(decision, "Promoted") == ("False", "AwaitsApproval")
    assert decision.status is not None
    verdicts = {c["number"]: c["verdict"] for c in decision.status["candidates"]}
    assert verdicts == {2: "Promotable", 0: "Observer"}  # an observer is never promotable


def test_traders_are_graded_after_a_market_day() -> None:
    rows = [verdict(B, "Passed", "candidate", rank=0, number=2), verdict(A, "Refused", None, rank=1, number=0)]

    def after(hours: int) -> Decision:
        activity = AccountActivity(name="x", decisions=hours, last_bar_at=NOW + timedelta(hours=hours))
        return decide(seen(evidence=rows, traders=[trader()], activity={"x": activity}), now=NOW)

    assert not any(isinstance(a, StartWorkload) for a in after(23).actions)
    (grade,) = [a for a in after(24).actions if isinstance(a, StartWorkload)]
    assert grade.workload.arguments == ("validate", "grade")


def test_a_grading_that_failed_says_so_rests_and_is_done_again() -> None:
    rows = [verdict(B, "Passed", "candidate", rank=0, number=2), verdict(A, "Refused", None, rank=1, number=0)]
    activity = {"x": AccountActivity(name="x", decisions=24, last_bar_at=NOW)}
    run = running("grade", state="Failed", finished_at=NOW, message="bundle 000 is not there", exit_code=2)

    def at(seconds: int, grading: Any, status: Any = None) -> Decision:
        of = seen(deployment=deployment(status=status), evidence=rows, traders=[trader()], activity=activity, grading=grading)
        return decide(of, now=NOW + timedelta(seconds=seconds))

    first = at(1, run)
    assert reason(first, "Graded") == ("False", "GradingFailed")
    assert "bundle 000 is not there" in str(first.status)
    assert not any(isinstance(action, StopWorkload) for action in first.actions)
    assert any(isinstance(action, StopWorkload) for action in at(31, run).actions)
    again = at(32, None, first.status)
    assert any(isinstance(action, StartWorkload) for action in again.actions)
    assert reason(again, "Graded") == ("False", "GradingFailed")  # until one ends
    ended = at(40, running("grade", state="Succeeded"), again.status)
    assert ended.status is not None
    assert "Graded" not in {condition["type"] for condition in ended.status["conditions"]}


def test_what_other_gates_judged_does_not_count_and_is_judged_again() -> None:
    lax = deployment(gates={"soak": {"marketDays": 0, "closedTrades": 0}, "grade": {"minWinRate": 0, "maxDrawdown": 1}})
    activity = {"x": AccountActivity(name="x", decisions=24, last_bar_at=NOW)}

    def stands(of: Any, by: Any) -> tuple[Decision, str, str]:
        detail = {"bar_at": "2026-01-01T00:00:00Z", "gates": gates_of(by.spec)}
        rows = [verdict(B, "Passed", "candidate", rank=0, number=2), verdict(A, "Refused", None, rank=1, number=0)]
        rows += [evidence(B, gate, detail=detail) for gate in ("soak", "grade")]
        given = seen(deployment=of, evidence=rows, traders=[trader()], activity=activity)
        decision = decide(given, now=NOW + timedelta(seconds=60))
        assert decision.status is not None
        candidate = decision.status["candidates"][0]
        return decision, candidate["verdict"], candidate["gates"][0].get("message", "")

    for same in (lax, deployment()):
        decision, where, _ = stands(same, same)
        assert where == "Promotable"
        assert not any(isinstance(action, StartWorkload) for action in decision.actions)
    decision, where, said = stands(deployment(), lax)
    assert where == "Soaking"
    assert "judged by other gates than the present ones" in said
    assert any(isinstance(action, StartWorkload) for action in decision.actions)


def test_what_trades_is_graded_whatever_the_gates_of_others_wait_for() -> None:
    rows = [verdict(B, "Passed", "candidate", rank=0, number=2)]
    activity = {"x": AccountActivity(name="x", decisions=24, last_bar_at=NOW)}
    failed = running("gates", state="Failed", finished_at=NOW, message="bundle 000 is not there", exit_code=2)
    for waits in ({"gates": failed}, {"gates": None}, {"study": None}):
        decision = decide(seen(evidence=rows, traders=[trader()], activity=activity, **waits), now=NOW)
        started = [a.workload.arguments for a in decision.actions if isinstance(a, StartWorkload)]
        assert ("validate", "grade") in started
