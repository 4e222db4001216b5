"""The road to real money, from the approval on: one live Trader at a time, and none without a standing approval.

    no live section ──▶ nothing                     no standing approval ──▶ NotApproved
    approved, live.dryRun ──▶ DryRun: a Trader that decides on the real account and sends nothing
    live.dryRun false ──▶ the dry run ends ──▶ step 1: the smallest share of the capital
    step n, gate `live` Pass ──▶ its Trader sells out and ends ──▶ step n + 1           the last step goes on
    step n, gate `live` Fail ──▶ Demoted: the approval ends, its Trader sells out and ends; the paper Trader goes on
    approval revoked, another approved, live section or Deployment gone ──▶ its Trader sells out and ends
    live.dryRun true again ──▶ its Trader sells out and ends ──▶ DryRun; then from step 1
    its account halted ──▶ nothing else is started under this approval until it is resumed; another approval begins anew

Every start is a `started` row of the record with the Trader's account and the digest of its whole spec, its terms, written
before the Trader exists. The database refuses the row without a standing approval, and the trader's process refuses to trade
without the row: a Trader made or changed by hand trades nothing. Each start is an account of its own in the record, so that
baseline, emergency stop and gate begin with the step; the next Trader is made when the former has gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cappuccino.api.deployment import CandidateStatus, Deployment
from cappuccino.api.live import CapitalStep, LiveSpec
from cappuccino.api.meta import Condition
from cappuccino.api.trader import Trader, TraderSpec, TraderTemplateSpec
from cappuccino.controllers.candidacy import LIVE
from cappuccino.controllers.conditions import false, true
from cappuccino.controllers.decision import Action, CreateObject, DeleteObject, Document, Event, Key, WriteRecord
from cappuccino.controllers.rows import Evidence, Promotion
from cappuccino.core.identifiers import digest_of

DRY = 0  # number of the step that sends nothing


@dataclass(frozen=True, kw_only=True)
class Road:
    """`condition` is None where no live section asks for anything."""

    condition: Condition | None
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()


def terms(spec: TraderSpec) -> str:
    """What a permit is bound to: all of a live Trader's spec."""
    return digest_of(spec.to_json())


def inherited(template: TraderTemplateSpec) -> Document:
    """What a live Trader takes over from the template: an approval is bound to all of it."""
    own = {"venue", "mode", "capitalUsd", "onDelete"}
    return {name: value for name, value in template.to_json().items() if name not in own}


def current(promotions: Sequence[Promotion], standing: Promotion | None) -> Promotion | None:
    """What was started last under the standing approval."""
    if standing is None:
        return None
    approved = max((n for n, row in enumerate(promotions) if row is standing), default=len(promotions))
    return next((row for row in reversed(promotions[approved:]) if row.action == "started"), None)


def failure(evidence: Sequence[Evidence], started: Promotion | None) -> str:
    """Why what was started must be demoted; empty when it need not."""
    judged = _judged(evidence, started)
    return judged.message if judged and judged.outcome == "Fail" else ""


def walk(
    deployment: Deployment,
    key: Key,
    *,
    standing: Promotion | None,
    candidates: Sequence[CandidateStatus],
    traders: Sequence[Trader],
    promotions: Sequence[Promotion],
    evidence: Sequence[Evidence],
    document: Any,
    halted: str | None = None,
) -> Road:
    """`document(name, spec)` makes a Trader of the Deployment's. `promotions` and `evidence` are oldest first. `halted`: why
    the account that was started last is."""
    live, alive = deployment.spec.live, [trader for trader in traders if trader.spec.mode == "live"]
    candidate = next((c for c in candidates if standing and c.bundle_digest == standing.bundle_digest), None)
    if live is None or standing is None or candidate is None or candidate.trader is None:
        if alive:
            return _ending(key, alive)
        return Road(condition=false("Live", "NotApproved", "no approval stands: nothing trades real money") if live else None)

    started = current(promotions, standing)
    step = _step(live, started, _judged(evidence, started))
    serial = sum(row.action == "started" for row in promotions) + 1
    account = started.account if started and started.account else ""
    name, spec = _wanted(deployment, live, candidate, step, account)
    if started is None or (started.step, started.terms) != (step, terms(spec)):
        if started and halted:
            return _held(key, started, alive, halted, dry=live.dry_run)
        name, spec = _wanted(deployment, live, candidate, step, f"{deployment.name}-{deployment.uid[:8]}-live-{serial}")
        started = None
    expected = [t for t in alive if started and t.name == name and terms(t.spec) == started.terms and not _leaving(t)]
    if others := [trader for trader in alive if trader not in expected]:
        return _ending(key, others)

    said = _said(live, step, name, _judged(evidence, started))
    made = CreateObject(document=document(name, spec.to_json()))
    if started:
        return Road(condition=said, actions=() if expected else (made,))
    row = Promotion(
        deployment_uid=deployment.uid,
        subject=standing.subject,
        bundle_digest=standing.bundle_digest,
        action="started",
        actor=standing.actor,
        reason=f"{_step_name(live, step)}: {standing.reason}",
        account=spec.account,
        terms=terms(spec),
        step=step,
    )
    return Road(
        condition=said,
        actions=(WriteRecord(operation="record_promotion", arguments={"promotion": row, "about": about(key)}), made),
        events=(Event(reason="DryRunStarted" if step == DRY else "LiveStarted", message=said.message),),
    )


def about(key: Key) -> str:
    """How the audit log names a Deployment."""
    return f"deployment/{key.namespace}/{key.name}"


def _judged(evidence: Sequence[Evidence], started: Promotion | None) -> Evidence | None:
    """The newest verdict on what was started."""
    if started is None:
        return None
    rows = [row for row in evidence if row.gate == LIVE and row.detail.get("account") == started.account]
    return rows[-1] if rows else None


def _step(live: LiveSpec, started: Promotion | None, judged: Evidence | None) -> int:
    if live.dry_run:
        return DRY
    reached = (started.step or DRY) if started else DRY
    passed = judged is not None and judged.outcome == "Pass"
    return min(max(reached + passed, 1), len(live.ladder))


def _wanted(
    deployment: Deployment, live: LiveSpec, candidate: CandidateStatus, step: int, account: str
) -> tuple[str, TraderSpec]:
    """Name and spec of the Trader of a step. Each step ends in cash, whatever the template says of deleted Traders."""
    document = inherited(deployment.spec.trader_template) | {
        "venue": live.venue.to_json(),
        "mode": "live",
        "dryRun": step == DRY,
        "capitalUsd": live.capital_usd * _capital(live, step).share,
        "onDelete": "flatten",
        "bundleDigest": candidate.bundle_digest,
        "account": account or "none",
        "role": "candidate",
    }
    return f"{candidate.trader}-{'dry' if step == DRY else f'live-{step}'}", TraderSpec.model_validate(document)


def _capital(live: LiveSpec, step: int) -> CapitalStep:
    """Of the dry run that of step 1, which it rehearses."""
    return live.ladder[max(step, 1) - 1]


def _step_name(live: LiveSpec, step: int) -> str:
    capital = live.capital_usd * _capital(live, step).share
    return f"dry run with {capital:g} USD" if step == DRY else f"step {step} of {len(live.ladder)} with {capital:g} USD"


def _said(live: LiveSpec, step: int, name: str, judged: Evidence | None) -> Condition:
    so_far = f"; {judged.message}" if judged else ""
    if step == DRY:
        message = f"{name} decides on the real account and sends nothing until spec.live.dryRun is false{so_far}"
        return false("Live", "DryRun", message)
    return true("Live", "Trading", f"{name} trades real money: {_step_name(live, step)}{so_far}")


def _ending(key: Key, traders: Sequence[Trader]) -> Road:
    """Traders that sell out and go; nothing is started meanwhile."""
    names = ", ".join(sorted(trader.name for trader in traders))
    return Road(
        condition=false("Live", "Ending", f"{names}: sold out and ended before anything else"),
        actions=tuple(
            DeleteObject(key=Key("Trader", key.namespace, trader.name), uid=trader.uid)
            for trader in traders
            if not _leaving(trader)
        ),
    )


def _held(key: Key, started: Promotion, alive: Sequence[Trader], halted: str, *, dry: bool) -> Road:
    """What was started stays as it is while it is halted, so that it can be resumed, unless it is to send nothing."""
    others = [t for t in alive if dry or terms(t.spec) != started.terms]
    why = f"account {started.account} is halted ({halted}): resume its Trader with a reason, or approve again"
    return replace(_ending(key, others), condition=false("Live", "Halted", why))


def _leaving(trader: Trader) -> bool:
    return trader.metadata.deletion_timestamp is not None
