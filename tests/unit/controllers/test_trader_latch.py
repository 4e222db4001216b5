"""Halt and resume by annotation, over many passes: a halt is never missed, a resume lifts nothing that came after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cappuccino.controllers.decision import Decision, Key, PatchMetadata, StartWorkload, StopWorkload, WriteRecord
from cappuccino.controllers.latch import NO_REASON
from cappuccino.controllers.requests import HALT, RESUME, TEXT_MAX, key, read, setting
from cappuccino.controllers.trader import Observed, decide

from .builders import NOW, account, running, trader
from .passes import Passes

KEY = Key("Trader", "default", "desk-00001")
NAME = "desk-00001"


@dataclass
class Desk(Passes):
    """A Trader with its account, as a cluster and a record keep them."""

    opened: bool = True
    halted: str | None = None
    writes: list[tuple[str, str, str]] = field(default_factory=list)

    def look(self) -> Decision:
        row = account(halted_reason=self.halted) if self.opened else None
        seen = trader(annotations=dict(self.annotations), status=self.status)
        return decide(Observed(trader=seen, key=KEY, account=row, workload=running(KEY.workload())), now=NOW)

    def apply(self, action: Any) -> None:
        super().apply(action)
        if isinstance(action, WriteRecord):
            self.write(action.operation, **action.arguments)

    def write(self, operation: str, *, name: str, reason: str, actor: str) -> None:
        """As the record does it: the first reason stands."""
        assert name == NAME
        assert reason.strip()
        self.writes.append((operation, reason, actor))
        self.halted = (self.halted or reason) if operation == "halt" else None

    def ask(self, **annotations: str) -> None:
        self.annotations |= {key(name.replace("_", "-")): value for name, value in annotations.items()}

    def remove(self, *names: str) -> None:
        for name in names:
            self.annotations.pop(key(name), None)


def reasons(desk: Desk) -> list[str]:
    return [event.reason for event in desk.events]


def test_a_halt_is_copied_into_the_account_once_with_who_and_why() -> None:
    desk = Desk()
    desk.ask(halt="looks odd", halted_by="ada")
    desk.reconcile()
    desk.reconcile()
    assert desk.writes == [("halt", "looks odd", "ada")]
    assert desk.look().actions == ()


def test_removing_the_annotation_never_resumes() -> None:
    desk = Desk()
    desk.ask(halt="looks odd")
    desk.reconcile()
    desk.remove("halt")
    desk.reconcile()
    assert desk.halted == "looks odd"


def test_the_same_text_set_again_after_a_resume_halts_again() -> None:
    desk = Desk()
    desk.ask(halt="stop")
    desk.reconcile()
    desk.ask(resume="checked")
    desk.reconcile()
    assert desk.halted is None
    desk.remove("halt")
    desk.reconcile()
    desk.ask(halt="stop")
    desk.reconcile()
    assert desk.halted == "stop"


def test_the_same_text_over_itself_is_new_by_when_it_was_set_or_by_whom() -> None:
    desk = Desk()
    for at, who in (("2026-01-01T00:00:00Z", "ada"), ("2026-01-01T00:00:01Z", "ada"), ("2026-01-01T00:00:01Z", "bob")):
        desk.annotations |= setting(HALT, "stop", actor=who, at=at)
        desk.reconcile()
        assert desk.halted == "stop"
        desk.annotations |= setting(RESUME, "checked", actor=who, at=at)
        desk.reconcile()
        assert desk.halted is None


def test_a_halt_without_a_text_halts() -> None:
    desk = Desk()
    desk.ask(halt="")
    decision = desk.reconcile()
    assert desk.halted == NO_REASON
    assert decision.status is not None
    assert decision.status["haltedReason"] == NO_REASON


def test_a_halt_is_written_even_where_the_account_was_seen_halted() -> None:
    desk = Desk(halted="the breaker")
    desk.ask(halt="stop")
    desk.reconcile()
    assert desk.writes == [("halt", "stop", "annotation")]  # somebody may resume between the look and the write
    assert desk.halted == "the breaker"


def test_a_halt_that_was_cut_off_before_its_mark_is_written_again() -> None:
    desk = Desk()
    desk.ask(halt="stop")
    desk.reconcile(cut_after=1)
    desk.reconcile()
    assert desk.writes == [("halt", "stop", "annotation")] * 2


def test_a_resume_names_who_and_why_and_leaves_the_old_annotation_without_effect() -> None:
    desk = Desk()
    desk.ask(halt="stop")
    desk.reconcile()
    desk.ask(resume="feed is back", resumed_by="bob")
    desk.reconcile()
    desk.reconcile()
    assert desk.writes[-1] == ("resume", "feed is back", "bob")
    assert desk.halted is None
    assert [e.message for e in desk.events if e.reason == "Resumed"] == ["resumed by bob: feed is back"]


def test_a_resume_without_a_text_is_refused_once() -> None:
    desk = Desk()
    desk.ask(halt="stop")
    desk.reconcile()
    desk.ask(resume="  ", resumed_by="bob")
    desk.reconcile()
    desk.reconcile()
    assert desk.halted == "stop"
    (refused,) = [e for e in desk.events if e.reason == "ResumeRefused"]
    assert refused.type == "Warning"
    assert "gives no reason" in refused.message


def test_a_halt_wins_over_a_resume_that_is_set_at_the_same_time() -> None:
    desk = Desk(halted="earlier", status={"haltedReason": "earlier"})
    desk.ask(halt="stop", resume="checked")
    desk.reconcile()
    desk.reconcile()
    assert desk.halted == "earlier"
    assert [operation for operation, _, _ in desk.writes] == ["halt"]
    assert "ResumeRefused" in reasons(desk)


def test_a_resume_that_was_there_before_the_halt_does_not_lift_it() -> None:
    desk = Desk()
    desk.ask(resume="in advance")
    desk.halted = "the breaker"  # before any pass
    desk.reconcile()
    desk.reconcile()
    assert desk.halted == "the breaker"
    assert "ResumeRefused" in reasons(desk)


def test_a_resume_lifts_the_halt_that_it_was_about_and_no_later_one() -> None:
    desk = Desk(halted="first", status={"haltedReason": "first"})
    desk.ask(resume="the first was checked")
    desk.halted = "second"  # somebody else lifted the first, and it tripped again
    desk.reconcile()
    assert desk.halted == "second"
    assert "ResumeRefused" in reasons(desk)


def test_a_resume_that_was_cut_off_is_lost_rather_than_applied_later() -> None:
    desk = Desk()
    desk.ask(halt="stop")
    desk.reconcile()
    desk.ask(resume="checked")
    desk.reconcile(cut_after=1)
    desk.reconcile()
    assert desk.halted == "stop"
    desk.ask(resume="checked", resumed_at="2026-01-01T00:00:00Z")
    desk.reconcile()
    assert desk.halted is None


def test_before_there_is_an_account_a_halt_keeps_it_from_starting_and_a_resume_lets_it() -> None:
    desk = Desk(opened=False)
    desk.ask(halt="not yet")
    decision = desk.reconcile()
    assert [type(a) for a in decision.actions] == [StopWorkload]
    assert decision.status is not None
    assert decision.status["haltedReason"] == "not yet"
    desk.ask(resume="now")
    assert not any(isinstance(a, StopWorkload) for a in desk.reconcile().actions)
    assert not any(isinstance(a, StopWorkload) for a in desk.reconcile().actions)
    assert desk.writes == []


def test_a_halt_and_a_resume_before_there_is_an_account_keep_it_from_starting() -> None:
    desk = Desk(opened=False)
    desk.ask(halt="not yet", resume="now")
    for _ in range(2):
        assert StopWorkload(name=KEY.workload()) in desk.reconcile().actions
    desk.opened = True
    desk.reconcile()
    assert desk.halted == "not yet"


def test_a_halted_trader_without_an_account_is_not_started_at_all() -> None:
    halted = trader(annotations={key("halt"): "not yet"})
    decision = decide(Observed(trader=halted, key=KEY), now=NOW)
    assert not any(isinstance(a, StartWorkload) for a in decision.actions)


def test_what_a_person_writes_is_kept_within_bounds() -> None:
    desk = Desk()
    desk.ask(halt="x" * 100_000)
    decision = desk.reconcile()
    assert desk.halted == "x" * TEXT_MAX
    assert (
        max(len(value or "") for a in decision.actions if isinstance(a, PatchMetadata) for value in a.annotations.values()) < 64
    )


CUT = st.none() | st.integers(0, 2)


class Halting(RuleBasedStateMachine):
    """Whatever is set and removed, and wherever a pass is cut off: after a whole pass, a halt that nobody lifted later holds.

    tripped: a halt of another's that no whole pass has seen. due: it must be halted, because nobody has lifted it since.
    """

    @initialize()
    def begin(self) -> None:
        self.desk = Desk()
        self.due = self.tripped = False
        self.moment = 0

    def pending(self) -> bool:
        """A halt is asked for and not latched yet."""
        request = read(self.desk.annotations, HALT)
        return request is not None and request.new

    @rule(text=st.sampled_from(["", "stop", "odd"]), writes=CUT)
    def halt(self, text: str, writes: int | None) -> None:
        self.moment += 1
        self.desk.annotations |= setting(HALT, text, actor="ada", at=str(self.moment))
        self.due = True
        self.cut_off(writes)

    @precondition(lambda self: self.desk.halted is None)
    @rule()
    def breaker(self) -> None:
        self.moment += 1
        self.desk.halted = f"the breaker at {self.moment}"
        self.due = self.tripped = True

    @rule(text=st.sampled_from([" ", "checked"]), writes=CUT)
    def resume(self, text: str, writes: int | None) -> None:
        self.moment += 1
        self.desk.annotations |= setting(RESUME, text, actor="bob", at=str(self.moment))
        self.due = self.due and (self.pending() or self.tripped or not text.strip())
        self.cut_off(writes)

    @rule()
    def resume_in_the_record(self) -> None:
        """It lifts what is latched; a halt that is only asked for is still to come."""
        self.desk.halted = None
        self.due, self.tripped = self.pending(), False

    @precondition(lambda self: not self.pending())
    @rule()
    def forget(self) -> None:
        self.desk.remove("halt", "halted-by", "halted-at")

    def cut_off(self, writes: int | None) -> None:
        """A pass that ends after so many writes; none at all for None."""
        if writes is not None:
            self.desk.reconcile(cut_after=writes)

    @rule()
    def whole(self) -> None:
        self.desk.reconcile()
        assert not self.due or self.desk.halted is not None
        assert self.desk.look().actions == ()  # settled
        self.due, self.tripped = self.desk.halted is not None, False


TestHalting = Halting.TestCase
TestHalting.settings = settings(max_examples=300, stateful_step_count=20, deadline=None)
