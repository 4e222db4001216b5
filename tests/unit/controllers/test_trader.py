from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from cappuccino.controllers.decision import Decision, DeleteObject, Key, PatchMetadata, StartWorkload, StopWorkload
from cappuccino.controllers.rows import AccountActivity
from cappuccino.controllers.trader import FINALIZER, TRACEPARENT_ANNOTATION, Observed, decide, farewell, workload
from cappuccino.core.identifiers import TRACEPARENT, traceparent

from .builders import NOW, account, running, trader

KEY = Key("Trader", "default", "desk-00001")


def seen(**given: Any) -> Observed:
    values: dict[str, Any] = {"trader": trader(), "key": KEY, "account": account(), "workload": running(KEY.workload())}
    return Observed(**(values | given))


def reason(decision: Decision, kind: str = "Ready") -> tuple[str, str]:
    assert decision.status is not None
    found = next(c for c in decision.status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def started(decision: Decision) -> list[str]:
    return [a.workload.name for a in decision.actions if isinstance(a, StartWorkload)]


def test_a_new_trader_gets_its_finalizer_before_its_process() -> None:
    decision = decide(seen(trader=trader(finalizers=[]), account=None, workload=None), now=NOW)
    first, second = decision.actions
    assert isinstance(first, PatchMetadata)
    assert first.finalizers == (FINALIZER,)
    assert isinstance(second, StartWorkload)
    assert second.workload.kind == "continuous"


def test_no_two_objects_share_a_workload_whatever_they_are_called() -> None:
    keys = [Key(kind, space, "x") for kind in ("Dataset", "Study", "Trial", "Deployment", "Trader") for space in ("a", "b")]
    assert len({key.workload(role) for key in keys for role in ("", "gates", "grade")}) == 3 * len(keys)
    assert Key("Trader", "default", "exchange").workload() != "exchange"


def test_it_is_ready_only_while_it_holds_its_account() -> None:
    assert reason(decide(seen(), now=NOW)) == ("True", "Trading")
    assert reason(decide(seen(account=account(held=False)), now=NOW)) == ("False", "Reconciling")


def test_a_halted_trader_keeps_running_and_holds_to_its_latch() -> None:
    decision = decide(seen(account=account(halted_reason="looks odd")), now=NOW)
    assert reason(decision, "Halted") == ("True", "Latched")
    assert reason(decision) == ("False", "Halted")
    assert decision.actions == ()


def test_its_process_belongs_to_the_trace_of_its_study() -> None:
    context = traceparent("uid-search")
    traced = trader(annotations={TRACEPARENT_ANNOTATION: context})
    assert workload(traced, KEY).environment[TRACEPARENT] == context
    assert farewell(traced, KEY).environment[TRACEPARENT] == context
    assert TRACEPARENT not in workload(trader(), KEY).environment


def test_the_keys_it_names_are_mounted_for_it_a_shadow_looks_with_them() -> None:
    venue = {"kind": "alpaca", "accountSecretRef": {"name": "real-account"}}
    for mode in ("shadow", "paper"):
        assert workload(trader(spec={"venue": venue, "mode": mode}), KEY).pod.secrets == ("real-account",)
    assert workload(trader(), KEY).pod.secrets == ()


def test_a_live_trader_whose_deployment_is_gone_sells_out_and_ends() -> None:
    (gone,) = decide(seen(orphaned=True), now=NOW).actions
    assert gone == DeleteObject(key=KEY, uid="uid-desk-00001")
    assert not any(
        isinstance(action, DeleteObject) for action in decide(seen(orphaned=True, trader=deleted()), now=NOW).actions
    )


def test_the_figures_of_a_status_are_taken_once_a_minute_and_when_it_changes() -> None:
    def figures(status: dict[str, Any] | None, equity: int, seconds: int, **given: Any) -> dict[str, Any]:
        activity = AccountActivity(name="x", orders=equity, equity_usd=Decimal(equity), peak_equity_usd=Decimal(200))
        decision = decide(seen(trader=trader(status=status), activity=activity, **given), now=NOW + timedelta(seconds=seconds))
        assert decision.requeue_after == 60
        assert decision.status is not None
        return decision.status

    first = figures(None, 100, 0)
    assert (first["equityUsd"], first["drawdown"], first["orders"]) == (100, 0.5, 100)
    assert figures(first, 150, 59) == first
    assert figures(first, 150, 60)["equityUsd"] == 150
    halted = figures(first, 120, 1, account=account(halted_reason="odd"))
    assert halted["equityUsd"] == 120


def test_a_crash_loop_backs_off_and_then_stalls_with_the_last_words() -> None:
    waiting = running(KEY.workload(), state="Pending", failures=2, message="boom")
    assert reason(decide(seen(workload=waiting), now=NOW)) == ("False", "BackOff")
    looping = running(KEY.workload(), state="Pending", failures=11, message="boom")
    decision = decide(seen(workload=looping), now=NOW)
    assert reason(decision, "Stalled") == ("True", "CrashLoop")
    assert decision.actions == (StopWorkload(name=KEY.workload()),)
    stalled = decide(seen(trader=trader(status=decision.status), workload=None), now=NOW)
    assert reason(stalled, "Stalled") == ("True", "CrashLoop")
    assert started(stalled) == []
    mended = decide(seen(trader=trader(status=decision.status, generation=2), workload=None), now=NOW)
    assert started(mended) == [KEY.workload()]


def test_a_final_refusal_stalls_and_is_not_started_again() -> None:
    refused = running(KEY.workload(), state="Failed", exit_code=2, message="the venue refuses the key")
    decision = decide(seen(workload=refused), now=NOW)
    assert reason(decision, "Stalled") == ("True", "Refused")
    assert started(decision) == []


@pytest.mark.parametrize(("state", "code"), [("Running", None), ("Failed", 2), ("Succeeded", 0)])
def test_a_changed_spec_starts_its_process_again_and_the_same_spec_does_not(state: str, code: int | None) -> None:
    told = workload(trader(), KEY).fingerprint
    changed = trader(spec={"risk": {"maxWeight": 0.1}})
    run = running(KEY.workload(), state=state, exit_code=code, fingerprint=told)
    assert StopWorkload(name=KEY.workload()) not in decide(seen(workload=run), now=NOW).actions
    decision = decide(seen(trader=changed, workload=run), now=NOW)
    assert decision.actions == (StopWorkload(name=KEY.workload()),)
    assert reason(decision) == ("False", "Restarting")
    assert started(decide(seen(trader=changed, workload=None), now=NOW)) == [KEY.workload()]


def test_the_end_of_the_tape_is_finished_not_failed() -> None:
    decision = decide(seen(workload=running(KEY.workload(), state="Succeeded", exit_code=0)), now=NOW)
    assert reason(decision) == ("False", "Finished")
    assert reason(decision, "Stalled") == ("False", "Settled")


def deleted(**spec: Any) -> Any:
    return trader(deletionTimestamp="2026-01-01T00:00:00Z", spec=spec)


def test_deleting_stops_the_process_then_flattens_then_lets_go() -> None:
    first = decide(seen(trader=deleted()), now=NOW)
    assert StopWorkload(name=KEY.workload()) in first.actions
    (start,) = [a for a in first.actions if isinstance(a, StartWorkload)]
    assert start.workload.arguments[-1] == "--flatten"
    assert first.actions.index(StopWorkload(name=KEY.workload())) < first.actions.index(start)
    done = running(KEY.workload("farewell"), state="Succeeded")
    last = decide(seen(trader=deleted(), workload=None, farewell=done), now=NOW)
    (release,) = [a for a in last.actions if isinstance(a, PatchMetadata)]
    assert release.finalizers == ()


def test_on_delete_hold_keeps_the_positions() -> None:
    (start,) = [a for a in decide(seen(trader=deleted(onDelete="hold")), now=NOW).actions if isinstance(a, StartWorkload)]
    assert start.workload.arguments[-1] == "--release"


def test_a_farewell_that_failed_keeps_the_finalizer_and_says_so() -> None:
    failed = running(KEY.workload("farewell"), state="Failed", exit_code=2, message="the key is refused")
    decision = decide(seen(trader=deleted(), workload=None, farewell=failed), now=NOW)
    assert reason(decision, "Stalled") == ("True", "LeavingFailed")
    assert not any(isinstance(a, PatchMetadata) for a in decision.actions)
