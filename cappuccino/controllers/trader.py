"""Trader: keep one bundle trading one account, and stop it when it must stop.

new ──▶ finalizer, then its workload (continuous: restarted with back-off)
annotation cappuccino.dev/halt ──▶ copied into the account row; removing it never resumes
account halted ──▶ Halted; the workload keeps running and holds to the latch
refused for good, or failed too often in a row ──▶ Stalled, not started again until its spec changes
the simulated venue's tape ended (exit 0) ──▶ Finished
deleted ──▶ workload stopped ──▶ positions sold, or left as they are, by onDelete ──▶ finalizer removed
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime

from cappuccino.api.meta import Condition
from cappuccino.api.trader import Trader, TraderStatus
from cappuccino.controllers.conditions import false, settle, stalled, true
from cappuccino.controllers.decision import (
    Action,
    Decision,
    Event,
    Key,
    PatchMetadata,
    StartWorkload,
    StopWorkload,
    Workload,
    WorkloadStatus,
    WriteRecord,
)
from cappuccino.controllers.rows import AccountActivity, AccountRow
from cappuccino.core.clock import iso

FINALIZER = "cappuccino.dev/flatten"
HALT_ANNOTATION = "cappuccino.dev/halt"


@dataclass(frozen=True, kw_only=True)
class Observed:
    trader: Trader | None
    key: Key
    account: AccountRow | None = None
    activity: AccountActivity | None = None
    workload: WorkloadStatus | None = None
    farewell: WorkloadStatus | None = None


def farewell_name(key: Key) -> str:
    return key.workload("farewell")


def decide(observed: Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:  # noqa: ARG001
    trader, run = observed.trader, observed.workload
    if trader is None:
        runs = [(run, observed.key.workload()), (observed.farewell, farewell_name(observed.key))]
        return Decision(actions=tuple(StopWorkload(name=name) for status, name in runs if status))
    if trader.metadata.deletion_timestamp:
        return _end(observed, trader, now)

    actions: list[Action] = []
    if FINALIZER not in trader.metadata.finalizers:
        finalizers = (*trader.metadata.finalizers, FINALIZER)
        actions.append(PatchMetadata(key=observed.key, uid=trader.uid, finalizers=finalizers))
    asked = trader.metadata.annotations.get(HALT_ANNOTATION)
    halted = observed.account.halted_reason if observed.account else None
    acted = trader.metadata.annotations.get(HALT_ANNOTATION + "-acted")
    if asked and observed.account and asked != acted:
        if not halted:
            arguments = {"name": observed.account.name, "reason": asked, "actor": "annotation"}
            actions.append(WriteRecord(operation="halt", arguments=arguments))
            halted = asked
        actions.append(PatchMetadata(key=observed.key, uid=trader.uid, annotations={HALT_ANNOTATION + "-acted": asked}))

    looping = _said(trader, "Stalled")
    if run is None and looping and looping.reason == "CrashLoop" and looping.observed_generation == trader.metadata.generation:
        return _status(observed, trader, stalled(looping.reason, looping.message), now, actions, halted)
    if run is None:
        actions.append(StartWorkload(workload=workload(trader, observed.key)))
        return _status(observed, trader, (false("Ready", "Starting", "its process is being started"),), now, actions, halted)
    if run.state == "Succeeded":
        return _status(observed, trader, (false("Ready", "Finished", "the venue's tape ended"),), now, actions, halted)
    if run.state == "Failed":
        return _status(observed, trader, stalled("Refused", _message(run)), now, actions, halted)
    if run.failures > trader.spec.max_restarts:
        actions.append(StopWorkload(name=observed.key.workload()))
        message = f"failed {run.failures} times in a row, more than maxRestarts {trader.spec.max_restarts}: {_message(run)}"
        return _status(observed, trader, stalled("CrashLoop", message), now, actions, halted)
    if run.state != "Running":
        return _status(observed, trader, (false("Ready", "BackOff", _message(run)),), now, actions, halted, requeue=2.0)
    if halted:
        return _status(observed, trader, (false("Ready", "Halted", halted),), now, actions, halted)
    if observed.account is None or not observed.account.held:
        ready = false("Ready", "Reconciling", "it reconciles its account with the venue before it trades")
        return _status(observed, trader, (ready,), now, actions, halted, requeue=0.5)
    return _status(observed, trader, (true("Ready", "Trading", "it may trade"),), now, actions, halted)


def workload(trader: Trader, key: Key) -> Workload:
    spec = trader.spec
    return Workload(
        name=key.workload(),
        kind="continuous",
        arguments=("trade", "--account", spec.account, "--trader-uid", trader.uid, "--bundle", spec.bundle_digest),
        keys=(key,),
        environment={"CAPPUCCINO_SPEC": json.dumps(spec.to_json())},
    )


def farewell(trader: Trader, key: Key) -> Workload:
    """The last process on the account: sells everything, or leaves the positions as they are, by `onDelete`."""
    trading = workload(trader, key)
    how = "--flatten" if trader.spec.on_delete == "flatten" and trader.spec.mode != "shadow" else "--release"
    return replace(trading, name=farewell_name(key), kind="finite", arguments=(*trading.arguments, how))


def _end(observed: Observed, trader: Trader, now: datetime) -> Decision:
    if FINALIZER not in trader.metadata.finalizers:
        return Decision()
    rest = tuple(name for name in trader.metadata.finalizers if name != FINALIZER)
    release = PatchMetadata(key=observed.key, uid=trader.uid, finalizers=rest)
    stop: list[Action] = [StopWorkload(name=observed.key.workload())] if observed.workload else []
    if observed.account is None:
        return Decision(actions=(*stop, release))
    run = observed.farewell
    leaving = false("Ready", "Leaving", f"deleted: it leaves its account by onDelete {trader.spec.on_delete}")
    if run is None:
        start = StartWorkload(workload=farewell(trader, observed.key))
        return _status(observed, trader, (leaving,), now, [*stop, start], None)
    if run.state == "Succeeded":
        return Decision(actions=(*stop, StopWorkload(name=farewell_name(observed.key)), release))
    if run.state == "Failed":
        message = f"deleted, but it could not leave: {_message(run)}; mend it, or remove the finalizer {FINALIZER} by hand"
        return _status(observed, trader, stalled("LeavingFailed", message), now, stop, None)
    return _status(observed, trader, (leaving,), now, stop, None)


def _said(trader: Trader, kind: str) -> Condition | None:
    found = trader.condition(kind)
    return found if found and found.status == "True" else None


def _message(run: WorkloadStatus) -> str:
    return run.message or f"its process ended with exit code {run.exit_code}"


def _status(
    observed: Observed,
    trader: Trader,
    conditions: tuple[Condition, ...],
    now: datetime,
    actions: list[Action],
    halted: str | None,
    *,
    requeue: float | None = None,
) -> Decision:
    before = trader.status.conditions if trader.status else ()
    latch = true("Halted", "Latched", halted) if halted else false("Halted", "NotHalted")
    settled = settle(before, (*conditions, latch), generation=trader.metadata.generation, now=now)
    activity, run = observed.activity, observed.workload
    peak = activity.peak_equity_usd if activity else None
    equity = activity.equity_usd if activity else None
    status = TraderStatus(
        observed_generation=trader.metadata.generation,
        conditions=settled,
        account=trader.spec.account,
        equity_usd=round(float(equity), 2) if equity is not None else None,
        drawdown=round(1 - float(equity / peak), 6) if equity is not None and peak else None,
        last_bar_at=iso(activity.last_bar_at) if activity and activity.last_bar_at else None,
        orders=activity.orders if activity else None,
        fills=activity.fills if activity else None,
        restarts=run.restarts if run else (trader.status.restarts if trader.status else None),
        halted_reason=halted,
    )
    was = {c.type: (c.status, c.reason) for c in before}
    events = tuple(
        Event(reason=c.reason, message=c.message, type="Warning" if c.type in ("Halted", "Stalled") else "Normal")
        for c in settled
        if was.get(c.type) != (c.status, c.reason)
        and (
            (c.type in ("Halted", "Stalled") and c.status == "True")
            or (c.type == "Ready" and c.reason in ("Trading", "Finished", "BackOff"))
        )
    )
    return Decision(actions=tuple(actions), status=status.to_json(), events=events, requeue_after=requeue)
