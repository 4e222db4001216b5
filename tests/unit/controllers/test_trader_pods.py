"""Traders that share a process: who belongs to it, who starts and stops it, and what each of them says of itself."""

from __future__ import annotations

import base64
import json
from itertools import islice
from typing import Any

import pytest

from cappuccino.api.trader import Trader
from cappuccino.controllers import pod
from cappuccino.controllers.decision import (
    Action,
    Decision,
    Key,
    PatchMetadata,
    StartWorkload,
    StopWorkload,
    Summary,
    WorkloadStatus,
)
from cappuccino.controllers.pod import LABEL, SETTLED_SECONDS, Sharing
from cappuccino.controllers.trader import Observed, decide
from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import TRACEPARENT

from .builders import NOW, account, running, trader

NAME = pod.workload_name("default", "p")


def key(name: str) -> Key:
    return Key("Trader", "default", name)


def one(name: str, *, labelled: bool = True, account: str = "", spec: dict[str, Any] | None = None, **meta: Any) -> Trader:
    labels = {LABEL: "p"} if labelled else {}
    given = {"pod": "p", "account": account or f"account-{name}"} | (spec or {})
    return trader(name=name, spec=given, **({"labels": labels} | meta))


def told(of: Trader) -> Summary:
    return Summary(
        key=key(of.name),
        uid=of.uid,
        deleting=of.metadata.deletion_timestamp is not None,
        labels=of.metadata.labels,
        refers={"account": of.spec.account, "pod": of.spec.pod or ""},
    )


def wanted(*traders: Trader) -> Any:
    return pod.workload("p", traders, trace={})


def process(*served: str, **given: Any) -> WorkloadStatus:
    return running(NAME, **({"keys": tuple(map(key, served)), "fingerprint": "told"} | given))


def seen(of: Trader, *others: Trader, still: float = SETTLED_SECONDS, **given: Any) -> Observed:
    """`of` and the others as the observer would show them; the first of the members is told what is wanted."""
    labelled = [each for each in (of, *others) if LABEL in each.metadata.labels]
    members = pod.members([told(each) for each in labelled], "p")
    minds = bool(members) and members[0].key == key(of.name)
    chosen = [each for each in labelled if key(each.name) in [member.key for member in members]]
    sharing = Sharing(members=members, wanted=wanted(*chosen) if minds else None, still_seconds=still)
    return Observed(**({"trader": of, "key": key(of.name), "account": account(), "sharing": sharing} | given))


def reason(decision: Decision, kind: str = "Ready") -> tuple[str, str]:
    assert decision.status is not None
    found = next(c for c in decision.status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def labels(decision: Decision) -> list[Any]:
    return [dict(a.labels) for a in decision.actions if isinstance(a, PatchMetadata) and a.labels]


def touched(decision: Decision) -> list[Action]:
    return [action for action in decision.actions if isinstance(action, StartWorkload | StopWorkload)]


# --- who belongs to it ------------------------------------------------------------------------------


def test_a_new_trader_joins_by_its_label_and_wakes_the_one_who_minds_the_process() -> None:
    decision = decide(seen(one("b", labelled=False), one("a"), workload=process("a")), now=NOW)
    assert labels(decision) == [{LABEL: "p"}]
    assert reason(decision) == ("False", "Joining")
    assert decision.wakes == (key("a"),)
    assert touched(decision) == []


def test_members_are_the_first_of_each_account_by_name_without_those_that_leave() -> None:
    leaving = one("c", deletionTimestamp="2026-01-01T00:00:00Z")
    elsewhere = one("d", spec={"pod": "q"})
    present = [one("b", account="x"), one("a", account="x"), leaving, elsewhere, one("e")]
    assert [each.key.name for each in pod.members([told(each) for each in present], "p")] == ["a", "e"]
    assert len(pod.members([told(one(f"t-{n:03d}")) for n in range(501)], "p")) == 500


def test_a_trader_for_which_there_is_no_room_says_why_and_what_to_do() -> None:
    full = [one(f"t-{n:03d}") for n in range(500)]
    for name in ("a", "z"):  # whoever is there already stays, whatever the newcomer is called
        decision = decide(seen(one(name, labelled=False), *full, workload=process("t-000")), now=NOW)
        assert reason(decision, "Stalled") == ("True", "NoRoom")
        assert "another pod" in str(decision.status)
        assert labels(decision) == []
    same = decide(seen(one("b", labelled=False, account="x"), one("a", account="x"), workload=process("a")), now=NOW)
    assert reason(same, "Stalled") == ("True", "NoRoom")
    assert "account x is traded by a" in str(same.status)
    lost = decide(seen(one("b", account="x"), one("a", account="x"), workload=process("a")), now=NOW)
    assert labels(lost) == [{LABEL: None}]


def test_one_that_is_halted_before_its_first_start_is_no_member() -> None:
    halted = one("a", annotations={"cappuccino.dev/halt": "wait"})
    decision = decide(seen(halted, one("b"), account=None, workload=None), now=NOW)
    assert reason(decision) == ("False", "Halted")
    assert labels(decision) == [{LABEL: None}]
    assert touched(decision) == []
    assert decision.wakes == (key("b"),)


def test_a_live_trader_shares_nothing() -> None:
    with pytest.raises(InvalidInput, match="a live Trader has a process to itself"):
        one("a", spec={"mode": "live", "venue": {"kind": "alpaca", "accountSecretRef": {"name": "desk-live"}}})


# --- its process ------------------------------------------------------------------------------------


def test_the_first_starts_it_for_all_and_the_others_leave_it_to_that_one() -> None:
    a, b = one("a"), one("b")
    first = decide(seen(a, b, workload=None), now=NOW)
    (start,) = touched(first)
    assert isinstance(start, StartWorkload)
    assert start.workload == wanted(b, a)
    assert start.workload.arguments == ("trade", "--portfolios")
    assert start.workload.keys == (key("a"), key("b"))
    assert first.wakes == ()
    second = decide(seen(b, a, workload=None), now=NOW)
    assert touched(second) == []
    assert second.wakes == (key("a"),)
    assert reason(first) == reason(second) == ("False", "Starting")


def test_it_is_touched_only_when_nothing_has_changed_for_a_while() -> None:
    a, b = one("a"), one("b")
    for run in (None, process("a")):
        early = decide(seen(a, b, workload=run, still=SETTLED_SECONDS - 1), now=NOW)
        assert touched(early) == []
        assert early.requeue_after == pytest.approx(1)
    assert touched(decide(seen(a, b, workload=process("a")), now=NOW)) == [StopWorkload(name=NAME)]


def test_a_changed_spec_restarts_it_and_the_same_specs_do_not() -> None:
    a, b = one("a"), one("b")
    same = process("a", "b", fingerprint=wanted(a, b).fingerprint)
    assert touched(decide(seen(a, b, workload=same), now=NOW)) == []
    changed = one("b", spec={"risk": {"maxWeight": 0.1}}, generation=2, status={"observedGeneration": 1})
    own = decide(seen(changed, a, workload=same), now=NOW)
    assert reason(own) == ("False", "Restarting")
    assert own.wakes == (key("a"),)
    assert touched(decide(seen(a, changed, workload=same), now=NOW)) == [StopWorkload(name=NAME)]


def test_what_it_is_told_fits_an_environment_and_is_the_same_whoever_tells_it() -> None:
    venue = {"kind": "alpaca", "accountSecretRef": {"name": "one"}}
    traders = [one(f"a-trader-with-a-long-name-{n:03d}", uid=f"{n:08x}-0000-4000-8000-{n * 7919:012x}") for n in range(499)]
    traders.append(one("with-a-secret", spec={"venue": venue}))
    made = wanted(*traders)
    assert made.fingerprint == wanted(*reversed(traders)).fingerprint
    text = made.environment[pod.PORTFOLIOS]
    assert len(text) < 128 * 1024 // 2
    assert base64.b64decode(text)[4:8] == bytes(4)  # gzip's time of day, which would make it another process
    entries = json.loads(pod.unpacked(text))
    assert [entry["traderUid"] for entry in entries] == [each.uid for each in traders]
    assert (made.pod.secrets, made.pod.portfolios) == (("one",), 500)
    assert TRACEPARENT not in made.environment


# --- what each of them says -------------------------------------------------------------------------


def test_one_that_ended_says_so_while_the_others_trade() -> None:
    a, b = one("a"), one("b")
    run = process("a", "b", fingerprint=wanted(a, b).fingerprint)
    refused = decide(seen(b, a, workload=run, account=account(held=False, ended="the venue refuses the key")), now=NOW)
    assert reason(refused, "Stalled") == ("True", "Refused")
    assert "the venue refuses the key" in str(refused.status)
    finished = decide(seen(b, a, workload=run, account=account(held=False, ended="")), now=NOW)
    assert reason(finished) == ("False", "Finished")
    assert reason(decide(seen(a, b, workload=run), now=NOW)) == ("True", "Trading")


def test_when_all_have_ended_each_says_how() -> None:
    a, b = one("a"), one("b")
    over = process("a", "b", fingerprint=wanted(a, b).fingerprint, state="Failed", exit_code=2, message="gravest")
    assert reason(decide(seen(a, b, workload=over, account=account(ended="")), now=NOW)) == ("False", "Finished")
    assert reason(decide(seen(b, a, workload=over, account=account(ended="odd")), now=NOW), "Stalled") == ("True", "Refused")
    nobody = decide(seen(b, a, workload=over), now=NOW)
    assert "gravest" in str(nobody.status)


def test_a_process_that_crashes_again_and_again_is_told_by_all_and_stopped_by_none() -> None:
    a, b = one("a"), one("b")
    crashing = process("a", "b", fingerprint=wanted(a, b).fingerprint, state="Pending", failures=11, message="boom")
    for first, second in ((a, b), (b, a)):
        decision = decide(seen(first, second, workload=crashing), now=NOW)
        assert reason(decision, "Stalled") == ("True", "CrashLoop")
        assert touched(decision) == []


# --- leaving it -------------------------------------------------------------------------------------


def gone(name: str, **given: Any) -> Trader:
    return one(name, deletionTimestamp="2026-01-01T00:00:00Z", **given)


def test_a_deleted_member_waits_until_the_process_runs_without_it_and_then_says_farewell() -> None:
    left, a = gone("b"), one("a")
    waits = decide(seen(left, a, workload=process("a", "b")), now=NOW)
    assert touched(waits) == []
    assert waits.wakes == (key("a"),)
    assert reason(waits) == ("False", "Leaving")
    assert touched(decide(seen(a, left, workload=process("a", "b")), now=NOW)) == [StopWorkload(name=NAME)]
    for run in (None, process("a")):
        (farewell,) = touched(decide(seen(left, a, workload=run), now=NOW))
        assert isinstance(farewell, StartWorkload)
        assert farewell.workload.arguments[-1] == "--flatten"
        assert farewell.workload.keys == (key("b"),)


def test_the_last_member_stops_the_process_before_its_farewell() -> None:
    stop, farewell = touched(decide(seen(gone("a"), workload=process("a")), now=NOW))
    assert stop == StopWorkload(name=NAME)
    assert isinstance(farewell, StartWorkload)


def test_a_deleted_one_without_an_account_is_let_go_only_when_nothing_runs_for_it() -> None:
    waits = decide(seen(gone("b"), one("a"), workload=process("a", "b"), account=None), now=NOW)
    assert not [a for a in waits.actions if isinstance(a, PatchMetadata)]
    for never_held in (None, account(token=0, held=False, ended="no such bundle")):
        (release,) = decide(seen(gone("b"), one("a"), workload=process("a"), account=never_held), now=NOW).actions
        assert isinstance(release, PatchMetadata)
        assert release.finalizers == ()


# --- of a Deployment --------------------------------------------------------------------------------


def places(per_pod: int, *present: str | None, count: int) -> list[str | None]:
    traders = [one(f"t-{n}", spec={"pod": name}) if name else trader() for n, name in enumerate(present)]
    return list(islice(pod.places("desk", traders, per_pod), count))


def test_each_new_trader_of_a_deployment_gets_the_first_free_place() -> None:
    assert places(1, count=3) == [None, None, None]
    assert places(2, count=5) == ["desk-0", "desk-0", "desk-1", "desk-1", "desk-2"]
    assert places(3, "desk-1", "desk-1", "desk-0", None, "other", count=5) == ["desk-0", "desk-0", "desk-1", "desk-2", "desk-2"]
    assert places(2, "desk-0", "desk-0", "desk-0", count=1) == ["desk-1"]
