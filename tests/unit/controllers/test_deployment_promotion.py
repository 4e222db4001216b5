"""Approvals by annotation, over many passes: judged once, bound to what was approved, never for an observer or a baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cappuccino.api.deployment import CANDIDATES_MAX, MESSAGE_MAX, CandidateStatus
from cappuccino.controllers.promotion import find, subject
from cappuccino.controllers.requests import APPROVE, key

from .builders import BAR, deployment, evidence
from .desk import BROKEN, GOOD, Desk


def trading() -> Desk:
    """Its Traders exist."""
    desk = Desk()
    desk.reconcile()
    return desk


def test_nobody_is_promoted_without_a_person() -> None:
    desk = trading()
    assert desk.said == ("AwaitsApproval", "desk-00000, desk-00001 may be promoted by a person")
    assert desk.promotions == []
    assert desk.look().actions == ()


@pytest.mark.parametrize("which", ["desk-00000", "0", GOOD, GOOD[:8]])
def test_a_candidate_is_approved_by_its_trader_its_number_or_its_digest(which: str) -> None:
    desk = trading()
    desk.approve(which)
    desk.reconcile()
    desk.reconcile()
    assert desk.recorded == [("1", "approved", "ada")]
    assert desk.said == ("Approved", "desk-00000 was approved by ada: read the report")
    assert desk.status is not None
    assert desk.status["promoted"] == subject(GOOD, deployment().spec.trader_template, deployment().spec)
    assert desk.verdicts() == {0: "Promoted", 1: "Promotable", 2: "Observer", 3: "Refused"}
    assert [e.reason for e in desk.events].count("Approved") == 1
    (audited,) = desk.audit
    assert (audited["actor"], audited["subject"]) == ("ada", "deployment/default/desk")
    assert audited["body"]["reason"] == "read the report"
    assert desk.look().actions == ()


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("desk-00002", "an observer can never be promoted: gate window stopped it: window says no."),
        ("desk-hodl", "desk-hodl is a baseline and can never be promoted"),
        (BROKEN[:12], "gate backtest stopped it: backtest says no."),
        ("desk-00009", "'desk-00009' names no candidate"),
        ("", "'' names no candidate"),
        ("1111111", "names no candidate"),  # a prefix of 7 could be anybody's
    ],
)
def test_what_can_never_be_promoted_is_refused_once_with_its_reason(which: str, says: str) -> None:
    desk = trading()
    desk.approve(which)
    desk.reconcile()
    for _ in range(2):
        assert desk.said[0] == "Refused"
        assert says in desk.said[1]
        desk.reconcile()
    assert all(p.action == "refused" for p in desk.promotions)
    assert [e.reason for e in desk.events].count("Refused") == 1
    assert desk.verdicts()[0] == "Promotable"


def test_an_early_approval_says_what_is_missing_and_must_be_given_again() -> None:
    desk = trading()
    soak = next(e for e in desk.evidence if e.gate == "soak" and e.bundle_digest == GOOD)
    desk.evidence = [e for e in desk.evidence if e.bundle_digest != GOOD or e.gate not in ("soak", "grade")]
    short = replace(soak, outcome="Inconclusive", message="soaking: 1.5 of 7 market days and 3 of 20 closed trades.")
    desk.evidence.append(short)
    desk.approve("desk-00000")
    desk.reconcile()
    reason, message = desk.said
    assert reason == "Refused"
    assert "soak is Inconclusive: soaking: 1.5 of 7 market days and 3 of 20 closed trades." in message
    assert "grade has not been judged yet" in message
    assert "give another" in message
    assert desk.recorded == [("1", "refused", "ada")]
    desk.evidence += [soak, evidence(GOOD, "grade", detail=BAR)]
    desk.reconcile()
    assert desk.said[0] == "AwaitsApproval"
    assert "give it again" in desk.said[1]
    desk.approve("desk-00000")
    desk.reconcile()
    assert desk.said[0] == "Approved"


@pytest.mark.parametrize("given", [{"actor": ""}, {"reason": "  "}])
def test_an_approval_says_who_and_why(given: dict[str, str]) -> None:
    desk = trading()
    desk.approve("desk-00000", **given)
    desk.reconcile()
    assert desk.said[0] == "Refused"
    assert "cappuccino.dev/approved-by and cappuccino.dev/approve-reason" in desk.said[1]


def test_an_approval_is_of_what_the_approver_read() -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.spec["traderTemplate"] = {"venue": {"kind": "simulated"}, "mode": "paper", "capitalUsd": 20_000}
    desk.reconcile()
    assert desk.said[0] == "Refused"
    assert "was given to generation 1 of the Deployment, which is 2 now" in desk.said[1]
    assert desk.recorded == [("1", "refused", "ada")]
    desk.approve("desk-00000")
    desk.annotations.pop(key(APPROVE.generation))
    desk.reconcile()
    assert "was given to generation (none)" in desk.events[-1].message
    desk.approve("desk-00000")
    desk.reconcile()
    assert desk.said[0] == "Approved"


@pytest.mark.parametrize(
    "template",
    [
        {"venue": {"kind": "simulated"}, "mode": "paper", "risk": {"maxWeight": 0.2}},
        {"venue": {"kind": "alpaca", "accountSecretRef": {"name": "real"}}, "mode": "paper"},
    ],
)
def test_an_approval_is_revoked_when_what_was_approved_changes(template: dict[str, Any]) -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.reconcile()
    desk.spec["traderTemplate"] = template
    desk.reconcile()
    for _ in range(2):
        assert desk.said[0] == "Revoked"
        assert "no longer what ada approved" in desk.said[1]
        desk.reconcile()
    assert desk.status is not None
    assert "promoted" not in desk.status
    assert desk.recorded == [("1", "approved", "ada"), ("1", "revoked", "operator")]
    assert [e.reason for e in desk.events].count("Revoked") == 1
    assert [a["action"] for a in desk.audit] == ["promotion approved", "promotion revoked"]
    del desk.spec["traderTemplate"]  # changed back: the approval does not come back with it
    desk.reconcile()
    assert desk.said[0] == "Revoked"
    assert desk.look().actions == ()


@pytest.mark.parametrize("change", [{"risk": {"maxWeight": 0.2}}, {"bundleDigest": BROKEN}])
def test_a_change_of_the_trader_itself_revokes_and_cannot_be_approved(change: dict[str, Any]) -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.reconcile()
    desk.traders["desk-00000"] = desk.traders["desk-00000"] | change
    desk.reconcile()
    assert desk.said[0] == "Revoked"
    desk.approve("desk-00000")
    desk.reconcile()
    assert desk.said[0] == "Refused"
    assert "soaked with another bundle, risk limits or venue" in desk.said[1]


def test_more_capital_is_not_another_approval() -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.reconcile()
    desk.spec["traderTemplate"] = {"venue": {"kind": "simulated"}, "mode": "paper", "capitalUsd": 20_000}
    desk.reconcile()
    assert desk.said[0] == "Approved"


def test_one_candidate_is_promoted_at_a_time() -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.reconcile()
    desk.approve("desk-00001", actor="bob")
    desk.reconcile()
    assert desk.recorded == [("1", "approved", "ada"), ("1", "revoked", "operator"), ("2", "approved", "bob")]
    assert desk.verdicts()[0] == "Promotable"
    assert desk.verdicts()[1] == "Promoted"
    desk.approve("desk-00002")  # refused, and changes nothing for who is promoted
    desk.reconcile()
    assert desk.said[0] == "Approved"
    assert desk.events[-1].reason == "Refused"
    assert desk.verdicts()[1] == "Promoted"


def test_an_approval_that_was_cut_off_is_lost_rather_than_applied_to_what_changed_meanwhile() -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.reconcile(cut_after=1)
    assert desk.promotions == []
    desk.reconcile()
    assert desk.promotions == []
    desk.approve("desk-00000")
    desk.reconcile()
    assert desk.said[0] == "Approved"


def test_a_revocation_that_was_cut_off_is_made_up_for() -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.reconcile()
    desk.spec["traderTemplate"] = {"venue": {"kind": "simulated"}, "mode": "paper", "risk": {"maxWeight": 0.2}}
    desk.reconcile(cut_after=1)
    desk.reconcile()
    assert desk.recorded[-1] == ("1", "revoked", "operator")


def test_an_approval_stands_when_its_annotation_is_taken_away() -> None:
    desk = trading()
    desk.approve("desk-00000")
    desk.reconcile()
    for name in APPROVE.keys:
        desk.annotations.pop(name)
    desk.reconcile()
    assert desk.said[0] == "Approved"
    assert APPROVE.acted not in desk.annotations
    assert desk.look().actions == ()


def test_an_approval_before_there_are_verdicts_is_refused() -> None:
    desk = Desk(evidence=[])
    desk.approve("desk-00000")
    desk.reconcile()
    assert desk.said[0] == "Refused"
    assert "there are none yet" in desk.said[1]


def test_a_status_stays_bounded_and_keeps_who_is_promoted() -> None:
    rows = []
    for number in range(120):
        digest = f"{number:08x}" + "0" * 56
        detail = {"verdict": "Passed", "role": "candidate", "rank": number, "number": number, "kind": "trend"}
        rows += [evidence(digest, "verdict", detail=detail), evidence(digest, "backtest", message="x" * 10_000)]
        rows += [evidence(digest, gate, detail=BAR) for gate in ("soak", "grade")]
    desk = Desk(evidence=rows)
    desk.approve("desk-00099")
    desk.reconcile()
    assert desk.status is not None
    listed = desk.status["candidates"]
    assert [c["number"] for c in listed] == [*range(CANDIDATES_MAX - 1), 99]
    assert listed[-1]["verdict"] == "Promoted"
    assert max(len(gate.get("message", "")) for c in listed for gate in c["gates"]) == MESSAGE_MAX


def test_a_digest_that_could_be_two_candidates_names_neither() -> None:
    alike = [CandidateStatus(bundle_digest=f"{'a' * 8}{n}" + "0" * 55, number=n) for n in range(2)]
    assert find(alike, "a" * 8) is None
    assert find(alike, "a" * 8 + "1") is alike[1]
