"""Trader: keep one bundle trading one account, and stop it when it must stop.

new ──▶ finalizer, then its workload (continuous: restarted with back-off)
spec changed ──▶ its workload stopped, and started with the new one
annotations halt and resume ──▶ latch.py: the account row, which alone says whether it may trade
account halted ──▶ Halted; the workload keeps running and holds to the latch
refused for good, or failed too often in a row ──▶ Stalled, not started again until its spec changes
the simulated venue's tape ended (exit 0) ──▶ Finished
figures of the status ──▶ once a minute, and when a condition changes: each write is seen by everybody who watches
live, its Deployment gone ──▶ deleted
deleted ──▶ workload stopped ──▶ positions sold, or left as they are, by onDelete ──▶ finalizer removed
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cappuccino.api.meta import Condition
from cappuccino.api.trader import Trader, TraderStatus
from cappuccino.controllers.conditions import false, settle, stalled, true
from cappuccino.controllers.decision import (
    Action,
    Decision,
    DeleteObject,
    Event,
    Key,
    PatchMetadata,
    PodNeeds,
    StartWorkload,
    StopWorkload,
    Workload,
    WorkloadStatus,
)
from cappuccino.controllers.latch import Latch, latch
from cappuccino.controllers.rows import AccountActivity, AccountRow
from cappuccino.core.clock import iso, parse_iso
from cappuccino.core.identifiers import TRACEPARENT

FINALIZER = "cappuccino.dev/flatten"
FIGURES_EVERY = timedelta(seconds=60)
FIGURES = {"equity_usd", "drawdown", "last_bar_at", "orders", "fills", "measured_at"}  # of a status
TRACEPARENT_ANNOTATION = "cappuccino.dev/traceparent"  # of the Study that its bundle comes from


@dataclass(frozen=True, kw_only=True)
class Observed:
    trader: Trader | None
    key: Key
    account: AccountRow | None = None
    activity: AccountActivity | None = None
    workload: WorkloadStatus | None = None
    farewell: WorkloadStatus | None = None
    orphaned: bool = False  # it is live, and the Deployment that was approved is gone


def farewell_name(key: Key) -> str:
    return key.workload("farewell")


def decide(observed: Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:  # noqa: ARG001
    trader, run = observed.trader, observed.workload
    if trader is None:
        runs = [(run, observed.key.workload()), (observed.farewell, farewell_name(observed.key))]
        return Decision(actions=tuple(StopWorkload(name=name) for status, name in runs if status))
    if trader.metadata.deletion_timestamp:
        return _end(observed, trader, now)
    if observed.orphaned:
        gone = Event(
            type="Warning", reason="Orphaned", message="its Deployment is gone, and its approval: it is sold out and ended"
        )
        return Decision(actions=(DeleteObject(key=observed.key, uid=trader.uid),), events=(gone,))

    actions: list[Action] = []
    if FINALIZER not in trader.metadata.finalizers:
        finalizers = (*trader.metadata.finalizers, FINALIZER)
        actions.append(PatchMetadata(key=observed.key, uid=trader.uid, finalizers=finalizers))
    held = latch(trader, observed.key, observed.account)
    actions += held.actions
    if held.unstarted:
        actions += [StopWorkload(name=observed.key.workload())] if run else []
        message = f"{held.halted}; it has no account yet, and is not started before it is resumed"
        return _status(observed, trader, (false("Ready", "Halted", message),), now, actions, held)

    minute = FIGURES_EVERY.total_seconds()
    looping = _said(trader, "Stalled")
    if run is None and looping and looping.reason == "CrashLoop" and looping.observed_generation == trader.metadata.generation:
        return _status(observed, trader, stalled(looping.reason, looping.message), now, actions, held)
    if run is None:
        actions.append(StartWorkload(workload=workload(trader, observed.key)))
        return _status(observed, trader, (false("Ready", "Starting", "its process is being started"),), now, actions, held)
    if run.fingerprint not in ("", workload(trader, observed.key).fingerprint):
        actions.append(StopWorkload(name=observed.key.workload()))
        ready = false("Ready", "Restarting", "its spec changed: its process is started again with the new one")
        return _status(observed, trader, (ready,), now, actions, held, requeue=0.1)
    if run.state == "Succeeded":
        return _status(observed, trader, (false("Ready", "Finished", "the venue's tape ended"),), now, actions, held)
    if run.state == "Failed":
        return _status(observed, trader, stalled("Refused", _message(run)), now, actions, held)
    if run.failures > trader.spec.max_restarts:
        actions.append(StopWorkload(name=observed.key.workload()))
        message = f"failed {run.failures} times in a row, more than maxRestarts {trader.spec.max_restarts}: {_message(run)}"
        return _status(observed, trader, stalled("CrashLoop", message), now, actions, held)
    if run.state != "Running":
        return _status(observed, trader, (false("Ready", "BackOff", _message(run)),), now, actions, held, requeue=2.0)
    if held.halted:
        return _status(observed, trader, (false("Ready", "Halted", held.halted),), now, actions, held, requeue=minute)
    if observed.account is None or not observed.account.held:
        ready = false("Ready", "Reconciling", "it reconciles its account with the venue before it trades")
        return _status(observed, trader, (ready,), now, actions, held, requeue=0.5)
    return _status(observed, trader, (true("Ready", "Trading", "it may trade"),), now, actions, held, requeue=minute)


def workload(trader: Trader, key: Key) -> Workload:
    spec = trader.spec
    return Workload(
        name=key.workload(),
        kind="continuous",
        arguments=("trade", "--account", spec.account, "--trader-uid", trader.uid, "--bundle", spec.bundle_digest),
        keys=(key,),
        environment={"CAPPUCCINO_SPEC": json.dumps(spec.to_json()), **_trace(trader)},
        pod=PodNeeds(secret=spec.venue.account_secret_ref.name if spec.venue.account_secret_ref else ""),
    )


def _trace(trader: Trader) -> dict[str, str]:
    context = trader.metadata.annotations.get(TRACEPARENT_ANNOTATION)
    return {TRACEPARENT: context} if context else {}


def farewell(trader: Trader, key: Key) -> Workload:
    """The last process on the account: sells everything, or leaves the positions as they are, by `onDelete`."""
    trading = workload(trader, key)
    how = "--flatten" if trader.spec.on_delete == "flatten" and trader.spec.sends else "--release"
    return replace(trading, name=farewell_name(key), kind="finite", arguments=(*trading.arguments, how))


def _end(observed: Observed, trader: Trader, now: datetime) -> Decision:
    if FINALIZER not in trader.metadata.finalizers:
        return Decision()
    rest = tuple(name for name in trader.metadata.finalizers if name != FINALIZER)
    release = PatchMetadata(key=observed.key, uid=trader.uid, finalizers=rest)
    stop: list[Action] = [StopWorkload(name=observed.key.workload())] if observed.workload else []
    if observed.account is None:
        return Decision(actions=(*stop, release))
    run, held = observed.farewell, Latch(halted=observed.account.halted_reason)
    leaving = false("Ready", "Leaving", f"deleted: it leaves its account by onDelete {trader.spec.on_delete}")
    if run is None:
        start = StartWorkload(workload=farewell(trader, observed.key))
        return _status(observed, trader, (leaving,), now, [*stop, start], held)
    if run.state == "Succeeded":
        return Decision(actions=(*stop, StopWorkload(name=farewell_name(observed.key)), release))
    if run.state == "Failed":
        message = f"deleted, but it could not leave: {_message(run)}; mend it, or remove the finalizer {FINALIZER} by hand"
        return _status(observed, trader, stalled("LeavingFailed", message), now, stop, held)
    return _status(observed, trader, (leaving,), now, stop, held)


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
    held: Latch,
    *,
    requeue: float | None = None,
) -> Decision:
    before = trader.status.conditions if trader.status else ()
    told = true("Halted", "Latched", held.halted) if held.halted else false("Halted", "NotHalted")
    settled = settle(before, (*conditions, told), generation=trader.metadata.generation, now=now)
    was = {c.type: (c.status, c.reason) for c in before}
    changed = was != {c.type: (c.status, c.reason) for c in settled}
    run = observed.workload
    status = TraderStatus(
        observed_generation=trader.metadata.generation,
        conditions=settled,
        account=trader.spec.account,
        restarts=run.restarts if run else (trader.status.restarts if trader.status else None),
        halted_reason=held.halted,
        **_figures(trader.status, observed.activity, now, changed=changed),
    )
    events = tuple(
        Event(reason=c.reason, message=c.message, type="Warning" if c.type in ("Halted", "Stalled") else "Normal")
        for c in settled
        if was.get(c.type) != (c.status, c.reason)
        and (
            (c.type in ("Halted", "Stalled") and c.status == "True")
            or (c.type == "Ready" and c.reason in ("Trading", "Finished", "BackOff"))
        )
    )
    return Decision(actions=tuple(actions), status=status.to_json(), events=(*held.events, *events), requeue_after=requeue)


def _figures(before: TraderStatus | None, activity: AccountActivity | None, now: datetime, *, changed: bool) -> dict[str, Any]:
    """What the account has come to, or what the status says of it already while that is fresh enough."""
    if before and before.measured_at and not changed and now - parse_iso(before.measured_at) < FIGURES_EVERY:
        return before.model_dump(include=FIGURES)
    if activity is None:
        return {}
    equity, peak = activity.equity_usd, activity.peak_equity_usd
    return {
        "equity_usd": round(float(equity), 2) if equity is not None else None,
        "drawdown": round(1 - float(equity / peak), 6) if equity is not None and peak else None,
        "last_bar_at": iso(activity.last_bar_at) if activity.last_bar_at else None,
        "orders": activity.orders,
        "fills": activity.fills,
        "measured_at": iso(now),
    }
