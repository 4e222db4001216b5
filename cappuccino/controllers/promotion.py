"""Promotion: a person approves a candidate, and the approval stands for exactly what was approved.

    approve, new ──▶ Promotable ──▶ Approved: recorded with who and why, status.promoted
                 └─▶ anything missing ──▶ Refused: says what, and by how much; used up, so it must be given again
    what a live Trader is made from is no longer what was approved ──▶ Revoked
    another candidate approved, or the same while its account is halted ──▶ the former approval revoked
    what it started fails the gate `live` ──▶ Demoted
    the Deployment is deleted ──▶ revoked, before it goes: while an approval stands, a finalizer keeps it

An approval is of the generation that the approver read, and is marked before it is recorded: one that was cut off in between is
lost. It is never applied to what changed meanwhile.
It says who may go live; what follows from it is in live.py. Observers and baselines are never promoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cappuccino.api.deployment import CandidateStatus, Deployment, DeploymentSpec
from cappuccino.api.meta import Condition
from cappuccino.api.trader import Trader, TraderTemplateSpec
from cappuccino.controllers import live
from cappuccino.controllers.candidacy import GRADE, SOAK
from cappuccino.controllers.conditions import false, true
from cappuccino.controllers.decision import Action, Document, Event, Key, PatchMetadata, WriteRecord
from cappuccino.controllers.requests import APPROVE, NOBODY, Request, forgotten, read
from cappuccino.controllers.requests import key as annotation
from cappuccino.controllers.rows import Evidence, Promotion, PromotionAction
from cappuccino.core.identifiers import digest_of

OPERATOR = "operator"
FINALIZER = "cappuccino.dev/revoke"
DIGEST_PREFIX_MIN = 8


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """`standing` is the approval that holds once the actions are applied."""

    condition: Condition
    standing: Promotion | None = None
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()


def subject(bundle_digest: str, profile: TraderTemplateSpec, spec: DeploymentSpec) -> str:
    """What an approval is bound to: bundle, risk profile and costs, and all that a live Trader is made from but dryRun. The
    bundle's digest covers sizing, barriers and the costs that it was judged with; the venue is who charges them."""
    bound: Document = {"bundle": bundle_digest, "risk": profile.risk.to_json(), "venue": profile.venue.kind}
    if spec.live:
        bound["live"] = spec.live.model_copy(update={"dry_run": True}).to_json()
        bound["template"] = live.inherited(spec.trader_template)
    return digest_of(bound)


def find(candidates: Sequence[CandidateStatus], word: str) -> CandidateStatus | None:
    """The candidate that `word` names: its Trader, its trial's number, or at least 8 characters of its digest."""
    found = [c for c in candidates if word and word in (c.trader, c.bundle_digest)]
    if not found and len(word) >= DIGEST_PREFIX_MIN:
        found = [c for c in candidates if c.bundle_digest.startswith(word)]
    elif not found and word.isdecimal():
        found = [c for c in candidates if c.number == int(word)]
    return found[0] if len(found) == 1 else None


def missing(candidate: CandidateStatus) -> str:
    """What stands between a candidate and promotion; empty when nothing does."""
    gates = {gate.gate: gate for gate in candidate.gates}
    if candidate.verdict in ("Promotable", "Promoted"):
        return ""
    if candidate.verdict in ("Observer", "Refused"):
        stopped = gates.get(candidate.stopped_by or "")
        why = f"gate {stopped.gate} stopped it: {stopped.message}" if stopped else "it did not pass every gate"
        return f"an observer can never be promoted: {why}" if candidate.verdict == "Observer" else why
    open_gates = [gate for name in (SOAK, GRADE) if (gate := gates.get(name)) is not None and gate.outcome != "Pass"]
    said = [f"{gate.gate} is {gate.outcome}: {gate.message}" for gate in open_gates]
    said += [f"{name} has not been judged yet" for name in (SOAK, GRADE) if name not in gates]
    return "; ".join(said) or "its gates have not been judged yet"


def judge(
    deployment: Deployment,
    key: Key,
    *,
    candidates: Sequence[CandidateStatus],
    traders: Sequence[Trader],
    promotions: Sequence[Promotion],
    evidence: Sequence[Evidence] = (),
    halted: str | None = None,
) -> Judgement:
    """`promotions` and `evidence` oldest first. `halted`: why the account that was started last is halted."""
    annotations = deployment.metadata.annotations
    request = read(annotations, APPROVE)
    marks = forgotten(annotations, APPROVE)
    standing = _standing(promotions)
    actions: list[Action] = []
    events: list[Event] = []

    ended = _ended(standing, promotions)
    if standing and (why := _revoked(standing, deployment, candidates, traders)):
        ended = "Revoked", why
    elif standing and (why := live.failure(evidence, live.current(promotions, standing))):
        ended = "Demoted", why
    if standing and ended:
        actions += _write(key, standing, "revoked" if ended[0] == "Revoked" else "demoted", OPERATOR, ended[1])
        events.append(Event(type="Warning", reason=ended[0], message=ended[1]))
        standing = None

    refusal = _refusal(request, deployment, candidates, traders) if request else ""
    chosen = find(candidates, request.text) if request else None
    if request and request.new:
        marks[APPROVE.acted] = request.mark
        asked = _promotion(deployment, request, chosen) if chosen else None
        written: tuple[Action, ...] = ()
        if refusal:
            events.append(Event(type="Warning", reason="Refused", message=refusal))
            written = _write(key, asked, "refused", request.actor, refusal) if asked else ()
        elif asked and chosen and (standing is None or standing.subject != asked.subject or halted):
            if standing:
                written = _write(key, standing, "revoked", OPERATOR, f"{_name(chosen)} was approved anew")
            written += _write(key, asked, "approved", request.actor, request.reason)
            standing, ended = asked, None
            events.append(Event(reason="Approved", message=_approved(asked, chosen)))
        actions += [_patch(deployment, key, marks, standing), *written]
    elif marks or (standing and FINALIZER not in deployment.metadata.finalizers):
        actions.append(_patch(deployment, key, marks, standing))

    told = _condition(candidates, standing, ended=ended, refusal=refusal, request=request)
    return Judgement(condition=told, standing=standing, actions=tuple(actions), events=tuple(events))


def leave(deployment: Deployment, key: Key, promotions: Sequence[Promotion]) -> tuple[Action, ...]:
    """What a Deployment that is deleted does about its approval. The permit of a live Trader ends with it: what is left of it
    may sell, and nothing else."""
    if FINALIZER not in deployment.metadata.finalizers:
        return ()
    standing = _standing(promotions)
    why = f"Deployment {deployment.name} was deleted"
    rest = tuple(name for name in deployment.metadata.finalizers if name != FINALIZER)
    return (
        *(_write(key, standing, "revoked", OPERATOR, why) if standing else ()),
        PatchMetadata(key=key, uid=deployment.uid, finalizers=rest),
    )


def _standing(promotions: Sequence[Promotion]) -> Promotion | None:
    """The last approval, unless something was decided about its subject since; a refusal decides nothing."""
    newest = {row.subject: row for row in promotions if row.action in ("approved", "revoked", "demoted")}
    return next((row for row in reversed(promotions) if row.action == "approved" and newest[row.subject] is row), None)


def _ended(standing: Promotion | None, promotions: Sequence[Promotion]) -> tuple[str, str] | None:
    """How the last approval ended, and why, while none stands."""
    last = promotions[-1] if promotions and standing is None else None
    return (last.action.capitalize(), last.reason) if last and last.action in ("revoked", "demoted") else None


def _revoked(
    standing: Promotion | None, deployment: Deployment, candidates: Sequence[CandidateStatus], traders: Sequence[Trader]
) -> str:
    if standing is None:
        return ""
    candidate = next((c for c in candidates if c.bundle_digest == standing.bundle_digest), None)
    if _subjects(standing.bundle_digest, candidate, deployment, traders) == {standing.subject}:
        return ""
    return (
        f"{_name(candidate) if candidate else standing.bundle_digest[:12]} is no longer what {standing.actor} approved: its"
        " bundle, risk limits, venue or live section changed; approve it again"
    )


def _subjects(digest: str, candidate: CandidateStatus | None, deployment: Deployment, traders: Sequence[Trader]) -> set[str]:
    """What the template would trade, and what the candidate's Trader does trade: one subject where they agree."""
    running = [trader.spec for trader in traders if candidate and trader.name == candidate.trader]
    profiles = [(digest, deployment.spec.trader_template), *((spec.bundle_digest, spec) for spec in running)]
    return {subject(bundle, profile, deployment.spec) for bundle, profile in profiles}


def _refusal(request: Request, deployment: Deployment, candidates: Sequence[CandidateStatus], traders: Sequence[Trader]) -> str:
    """Why the request cannot be granted; empty when it can."""
    candidate = find(candidates, request.text)
    if candidate is None:
        why = _unknown(request.text, candidates, traders)
    elif why := missing(candidate):
        why = f"{_name(candidate)} cannot be promoted: {why}"
    elif len(_subjects(candidate.bundle_digest, candidate, deployment, traders)) > 1:
        why = (
            f"{_name(candidate)} cannot be promoted: its Trader soaked with another bundle, risk limits or venue than the"
            " template's: make another Deployment"
        )
    elif request.actor == NOBODY or not request.reason:
        why = f"the approval of {_name(candidate)} needs {annotation(APPROVE.by)} and {annotation(APPROVE.why)}"
    elif request.new and request.generation != str(deployment.metadata.generation):
        why = (
            f"the approval of {_name(candidate)} was given to generation {request.generation or '(none)'} of the Deployment,"
            f" which is {deployment.metadata.generation} now ({annotation(APPROVE.generation)}): read what it says now"
        )
    return f"{why}; this approval is used up: give another when that has changed" if why else ""


def _unknown(word: str, candidates: Sequence[CandidateStatus], traders: Sequence[Trader]) -> str:
    role = next((trader.spec.role for trader in traders if trader.name == word), None)
    if role == "baseline":
        return f"{word} is a baseline and can never be promoted"
    named = ", ".join(_name(c) for c in candidates[:5]) or "there are none yet"
    return f"{word!r} names no candidate, or several: name its Trader, trial number or 8 characters of its digest ({named})"


def _condition(
    candidates: Sequence[CandidateStatus],
    standing: Promotion | None,
    *,
    ended: tuple[str, str] | None,
    refusal: str,
    request: Request | None,
) -> Condition:
    if standing:
        candidate = next((c for c in candidates if c.bundle_digest == standing.bundle_digest), None)
        return true("Promoted", "Approved", _approved(standing, candidate))
    if request and request.new and refusal:
        return false("Promoted", "Refused", refusal)
    if ended:
        return false("Promoted", *ended)
    if refusal:
        return false("Promoted", "Refused", refusal)
    eligible = [_name(c) for c in candidates if c.verdict == "Promotable"]
    if eligible:
        early = "; an approval was refused before: give it again" if request else ""
        return false("Promoted", "AwaitsApproval", f"{', '.join(eligible)} may be promoted by a person{early}")
    return false("Promoted", "NobodyEligible", "no candidate has passed every gate, soak and grade")


def _promotion(deployment: Deployment, request: Request, candidate: CandidateStatus) -> Promotion:
    digest = candidate.bundle_digest
    return Promotion(
        deployment_uid=deployment.uid,
        subject=subject(digest, deployment.spec.trader_template, deployment.spec),
        bundle_digest=digest,
        action="approved",
        actor=request.actor,
        reason=request.reason,
    )


def _write(key: Key, of: Promotion, action: PromotionAction, actor: str, reason: str) -> tuple[Action, ...]:
    row = replace(of, action=action, actor=actor, reason=reason, recorded_at=None)
    return (WriteRecord(operation="record_promotion", arguments={"promotion": row, "about": live.about(key)}),)


def _patch(deployment: Deployment, key: Key, marks: dict[str, str | None], standing: Promotion | None) -> Action:
    """The marks, and the finalizer before there is an approval to revoke."""
    present = deployment.metadata.finalizers
    finalizers = (*present, FINALIZER) if standing and FINALIZER not in present else None
    return PatchMetadata(key=key, uid=deployment.uid, annotations=marks, finalizers=finalizers)


def _name(candidate: CandidateStatus) -> str:
    return candidate.trader or candidate.bundle_digest[:12]


def _approved(promotion: Promotion, candidate: CandidateStatus | None) -> str:
    name = _name(candidate) if candidate else promotion.bundle_digest[:12]
    return f"{name} was approved by {promotion.actor}: {promotion.reason}"
