"""The latch of a Trader's account, as people set and lift it by annotations.

halt, new ──▶ latched in the account row, whatever was seen of the row; acted on at least once
resume, new, with a text ──▶ lifts a halt that the status had told before; acted on at most once: never a halt that came later
both new in one pass ──▶ which came first is unknown: halted, and the resume is refused
halt before there is an account ──▶ the Trader is not started until it is resumed, or the annotation is taken away
removing the annotation of a halt that was latched ──▶ nothing
"""

from __future__ import annotations

from dataclasses import dataclass

from cappuccino.api.trader import Trader
from cappuccino.controllers.decision import Action, Event, Key, PatchMetadata, WriteRecord
from cappuccino.controllers.requests import HALT, RESUME, Request, forgotten, read
from cappuccino.controllers.rows import AccountRow

NO_REASON = "halted without a reason"


@dataclass(frozen=True, kw_only=True)
class Latch:
    """`halted` is why it is halted once the actions are applied. `unstarted`: no account to halt, so nothing may run."""

    halted: str | None = None
    unstarted: bool = False
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()


def latch(trader: Trader, key: Key, account: AccountRow | None) -> Latch:
    annotations = trader.metadata.annotations
    halt, resume = (_new(read(annotations, verb)) for verb in (HALT, RESUME))
    reason = (halt.text or NO_REASON) if halt else None
    halted = (account.halted_reason if account else None) or reason
    why_not = _why_not(trader, halted, resume, clash=bool(account and halt)) if resume else ""
    lifted = resume if not why_not else None

    marks = forgotten(annotations, HALT, RESUME)
    marks |= {RESUME.acted: resume.mark} if resume else {}
    marks |= {HALT.acted: halt.mark} if halt and (account or lifted) else {}
    return Latch(
        halted=None if lifted else halted,
        unstarted=bool(halt and account is None and not lifted),
        actions=(
            *((_write("halt", account, reason, halt.actor),) if account and halt and reason else ()),
            *((PatchMetadata(key=key, uid=trader.uid, annotations=marks),) if marks else ()),
            *((_write("resume", account, lifted.text, lifted.actor),) if account and lifted else ()),
        ),
        events=(_event(resume, why_not),) if resume else (),
    )


def _new(request: Request | None) -> Request | None:
    return request if request and request.new else None


def _why_not(trader: Trader, halted: str | None, resume: Request, *, clash: bool) -> str:
    """Why the resume lifts nothing; empty when it does."""
    if not resume.text:
        return "it gives no reason"
    if clash:
        return "a halt was asked for at the same time"
    if halted is None:
        return "it is not halted"
    if trader.status is None or trader.status.halted_reason != halted:
        return "it was not halted when that was asked, or for another reason"
    return ""


def _write(operation: str, account: AccountRow, reason: str, actor: str) -> WriteRecord:
    return WriteRecord(operation=operation, arguments={"name": account.name, "reason": reason, "actor": actor})


def _event(resume: Request, why_not: str) -> Event:
    if why_not:
        message = f"the resume of {resume.actor} was refused: {why_not}; look, then set it again"
        return Event(type="Warning", reason="ResumeRefused", message=message)
    return Event(reason="Resumed", message=f"resumed by {resume.actor}: {resume.text}")
