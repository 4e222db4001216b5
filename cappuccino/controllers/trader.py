"""Trader: keep one bundle trading one account, and stop it when it must stop.

new ──▶ finalizer, then its workload (continuous: restarted with back-off), or that of its pod, which it shares (pod.py)
spec changed ──▶ its workload stopped, and started with the new one
annotations halt and resume ──▶ latch.py: the account row, which alone says whether it may trade
account halted ──▶ Halted; the workload keeps running and holds to the latch
refused for good, or failed too often in a row ──▶ Stalled, not started again until its spec changes
the simulated venue's tape ended (exit 0) ──▶ Finished
figures of the status ──▶ once a minute, and when a condition changes: each write is seen by everybody who watches
live, its Deployment gone ──▶ deleted
deleted ──▶ workload stopped, a shared one goes on without it ──▶ positions sold or left, by onDelete ──▶ finalizer removed
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from cappuccino.controllers.pod import LABEL, SETTLED_SECONDS, Sharing, no_room
from cappuccino.controllers.rows import AccountActivity, AccountRow
from cappuccino.core.clock import iso, parse_iso
from cappuccino.core.identifiers import TRACEPARENT

FINALIZER = "cappuccino.dev/flatten"
FIGURES_EVERY = timedelta(seconds=60)
FIGURES = {"equity_usd", "drawdown", "last_bar_at", "orders", "fills", "measured_at"}  # of a status
SHARED_SECONDS = 15.0  # between two looks of a member at what else would wake it: hundreds look at one process
STARTING = (false("Ready", "Starting", "its process is being started"),)
RESTARTING = (false("Ready", "Restarting", "its spec changed: its process is started again with the new one"),)
TRACEPARENT_ANNOTATION = "cappuccino.dev/traceparent"  # of the Study that its bundle comes from


@dataclass(frozen=True, kw_only=True)
class Observed:
    trader: Trader | None
    key: Key
    account: AccountRow | None = None
    activity: AccountActivity | None = None
    workload: WorkloadStatus | None = None
    farewell: WorkloadStatus | None = None
    sharing: Sharing = field(default_factory=Sharing)
    orphaned: bool = False  # it is live, and the Deployment that was approved is gone
    orphans: Sequence[WorkloadStatus] = ()  # of a Trader that is gone: what still runs for it and for nobody else

    @property
    def others(self) -> tuple[Key, ...]:
        """Members of its pod besides itself; the first of all minds the process."""
        return tuple(member.key for member in self.sharing.members if member.key != self.key)


def farewell_name(key: Key) -> str:
    return key.workload("farewell")


def decide(observed: Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:  # noqa: ARG001
    trader, run = observed.trader, observed.workload
    if trader is None:
        return Decision(actions=tuple(StopWorkload(name=orphan.name) for orphan in observed.orphans))
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
    if trader.spec.pod:
        return _share(observed, trader, now, actions, held)
    if held.unstarted:
        actions += [StopWorkload(name=observed.key.workload())] if run else []
        return _status(observed, trader, _unstarted(held), now, actions, held)
    looping = _said(trader, "Stalled")
    if run is None and looping and looping.reason == "CrashLoop" and looping.observed_generation == trader.metadata.generation:
        return _status(observed, trader, stalled(looping.reason, looping.message), now, actions, held)
    if run is None:
        actions.append(StartWorkload(workload=workload(trader, observed.key)))
        return _status(observed, trader, STARTING, now, actions, held)
    if run.fingerprint not in ("", workload(trader, observed.key).fingerprint):
        actions.append(StopWorkload(name=observed.key.workload()))
        return _status(observed, trader, RESTARTING, now, actions, held, requeue=0.1)
    conditions, requeue = _standing(observed, trader, run, held)
    if run.state not in ("Succeeded", "Failed") and run.failures > trader.spec.max_restarts:
        actions.append(StopWorkload(name=observed.key.workload()))
    return _status(observed, trader, conditions, now, actions, held, requeue=requeue)


def _share(observed: Observed, trader: Trader, now: datetime, actions: list[Action], held: Latch) -> Decision:
    """A member of a pod, or one that would be: see pod.py."""
    run, sharing = observed.workload, observed.sharing
    full = no_room(trader, sharing.members)
    joins = None if held.unstarted or full else trader.spec.pod
    joined = trader.metadata.labels.get(LABEL) == joins
    if not joined:
        actions.append(PatchMetadata(key=observed.key, uid=trader.uid, labels={LABEL: joins}))
    served = _serves(observed)
    changed = trader.status is not None and trader.status.observed_generation != trader.metadata.generation
    wanted = sharing.wanted if joins else None
    stale = wanted is not None and (run is None or run.fingerprint != wanted.fingerprint)
    rest = max(0.0, SETTLED_SECONDS - sharing.still_seconds)
    if wanted and stale and not rest:
        actions.append(StartWorkload(workload=wanted) if run is None else StopWorkload(name=run.name))

    requeue: float | None = SHARED_SECONDS
    if joins is None:
        conditions, requeue = _unstarted(held) if held.unstarted else stalled("NoRoom", full), FIGURES_EVERY.total_seconds()
    elif run is None:
        conditions = STARTING
    elif changed or not served or (stale and not rest):
        reason = "Restarting" if served else "Joining"
        conditions = (false("Ready", reason, f"the process of pod {joins} is started again with its members as they are now"),)
    else:
        conditions, requeue = _standing(observed, trader, _part(run, observed.account), held)
        requeue = requeue and max(requeue, SHARED_SECONDS)
    if stale:
        requeue = rest or 0.1
    news = not joined or run is None or changed or served != bool(joins)
    told = _status(observed, trader, conditions, now, actions, held, requeue=requeue)
    return replace(told, wakes=observed.others[:1] if news and wanted is None else ())


def _part(run: WorkloadStatus, account: AccountRow | None) -> WorkloadStatus:
    """How one portfolio of a process stands: as the process, unless it ended before that."""
    if run.state == "Pending" or account is None or account.ended is None:
        return run
    return replace(run, state="Failed" if account.ended else "Succeeded", message=account.ended)


def _unstarted(held: Latch) -> tuple[Condition, ...]:
    return (false("Ready", "Halted", f"{held.halted}; it has no account yet, and is not started before it is resumed"),)


def _standing(
    observed: Observed, trader: Trader, run: WorkloadStatus, held: Latch
) -> tuple[tuple[Condition, ...], float | None]:
    """How it does while its process is the one that it should be, and after how many seconds to look again."""
    minute = FIGURES_EVERY.total_seconds()
    if run.state == "Succeeded":
        return (false("Ready", "Finished", "the venue's tape ended"),), None
    if run.state == "Failed":
        return stalled("Refused", _message(run)), None
    if run.failures > trader.spec.max_restarts:
        message = f"failed {run.failures} times in a row, more than maxRestarts {trader.spec.max_restarts}: {_message(run)}"
        return stalled("CrashLoop", message), None
    if run.state != "Running":
        return (false("Ready", "BackOff", _message(run)),), 2.0
    if held.halted:
        return (false("Ready", "Halted", held.halted),), minute
    if observed.account is None or not observed.account.held:
        return (false("Ready", "Reconciling", "it reconciles its account with the venue before it trades"),), 0.5
    return (true("Ready", "Trading", "it may trade"),), minute


def workload(trader: Trader, key: Key) -> Workload:
    spec = trader.spec
    return Workload(
        name=key.workload(),
        kind="continuous",
        arguments=("trade", "--account", spec.account, "--trader-uid", trader.uid, "--bundle", spec.bundle_digest),
        keys=(key,),
        environment={"CAPPUCCINO_SPEC": json.dumps(spec.to_json()), **trace_of(trader)},
        pod=PodNeeds(secrets=(spec.venue.account_secret_ref.name,) if spec.venue.account_secret_ref else ()),
    )


def trace_of(trader: Trader) -> dict[str, str]:
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
    trading = observed.workload if trader.spec.pod is None or _serves(observed) else None
    held = Latch(halted=observed.account.halted_reason if observed.account else None)
    if trading and trader.spec.pod and observed.others:
        leaving = false("Ready", "Leaving", f"deleted: the process of pod {trader.spec.pod} is started again without it")
        told = _status(observed, trader, (leaving,), now, [], held, requeue=SHARED_SECONDS)
        return replace(told, wakes=observed.others[:1])
    stop: list[Action] = [StopWorkload(name=trading.name)] if trading else []
    if observed.account is None or not observed.account.token:  # nobody ever held it
        return Decision(actions=(*stop, release))
    run = observed.farewell
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


def _serves(observed: Observed) -> bool:
    return observed.workload is not None and observed.key in observed.workload.keys


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
