"""From the approval to real money: step by step, one Trader at a time, and never without a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.controllers.decision import CreateObject, DeleteObject, WriteRecord
from cappuccino.controllers.live import terms
from cappuccino.controllers.promotion import FINALIZER
from cappuccino.controllers.trader import farewell

from .builders import BAR, evidence, trader
from .desk import GOOD, KEY, OTHER, Desk

PAPER = {"kind": "alpaca", "accountSecretRef": {"name": "paper"}}
REAL = {"kind": "alpaca", "accountSecretRef": {"name": "desk-live"}}
WHO = "desk-00000"


@dataclass
class Road(Desk):
    """A Desk that may go live."""

    def __post_init__(self) -> None:
        template = {"venue": {"kind": "alpaca"}, "mode": "shadow"}
        self.spec = {"top": 4, "traderTemplate": template, "live": {"venue": REAL, "capitalUsd": 20_000}}

    def live(self, **change: Any) -> None:
        self.spec["live"] = self.spec["live"] | change

    def settle(self) -> None:
        for _ in range(6):
            self.reconcile()
            self.gone()

    def judge(self, outcome: str, message: str = "so it is.") -> None:
        """The gate `live` of what was started last."""
        started = [row for row in self.promotions if row.action == "started"][-1]
        detail = {"account": started.account, "bar_at": "2024-01-09T00:00:00Z"}
        self.evidence.append(evidence(started.bundle_digest, "live", outcome, message=message, detail=detail))

    @property
    def alive(self) -> dict[str, dict[str, Any]]:
        return {name: spec for name, spec in self.traders.items() if spec["mode"] == "live"}

    @property
    def actions(self) -> list[str]:
        return [row.action if row.step is None else f"{row.action} {row.step}" for row in self.promotions]


def approved(**live: Any) -> Road:
    road = Road()
    road.live(**live)
    road.reconcile()
    road.approve(WHO)
    road.settle()
    return road


def test_without_an_approval_nothing_is_live_even_when_it_may_send() -> None:
    road = Road()
    road.live(dryRun=False)
    road.settle()
    assert road.alive == {}
    assert road.condition("Live") == ("NotApproved", "no approval stands: nothing trades real money")


def test_an_approval_without_a_live_section_starts_nothing() -> None:
    desk = Desk()
    desk.reconcile()
    desk.approve(WHO)
    desk.reconcile()
    assert desk.condition("Live") == ("", "")
    assert all(spec["mode"] == "paper" for spec in desk.traders.values())


def test_what_is_approved_begins_with_a_dry_run_that_sends_nothing() -> None:
    road = approved()
    ((name, spec),) = road.alive.items()
    assert name == f"{WHO}-dry"
    assert (spec["dryRun"], spec["capitalUsd"], spec["onDelete"]) == (True, 2000, "flatten")
    assert spec["venue"] == REAL
    assert not trader(name=name, spec=spec).spec.sends
    assert road.actions == ["approved", "started 0"]
    assert road.condition("Live")[0] == "DryRun"
    assert road.look().actions == ()


def test_steps_of_capital_each_with_an_account_of_its_own_and_one_after_the_other() -> None:
    road = approved()
    road.live(dryRun=False)
    accounts, capital = {road.alive[f"{WHO}-dry"]["account"]}, []
    road.reconcile()
    assert road.leaving == {f"{WHO}-dry"}
    assert road.condition("Live")[0] == "Ending"
    road.reconcile()
    assert list(road.alive) == [f"{WHO}-dry"]  # the next one is made when the former has gone
    for step in (1, 2, 3):
        road.settle()
        ((name, spec),) = road.alive.items()
        assert name == f"{WHO}-live-{step}"
        assert trader(name=name, spec=spec).spec.sends
        capital.append(spec["capitalUsd"])
        accounts.add(spec["account"])
        road.judge("Inconclusive", "it goes on at this step: 3 of 7 market days.")
        road.settle()
        assert list(road.alive) == [name]
        assert "3 of 7 market days" in road.condition("Live")[1]
        road.judge("Pass")
    assert capital == [2000, 5000, 20_000]
    road.settle()
    assert list(road.alive) == [f"{WHO}-live-3"]  # the last step goes on
    assert len(accounts) == 4
    assert road.actions == ["approved", "started 0", "started 1", "started 2", "started 3"]
    assert {row.actor for row in road.promotions} == {"ada"}
    assert [a["body"]["step"] for a in road.audit] == [None, 0, 1, 2, 3]
    assert road.look().actions == ()


@pytest.mark.parametrize("dry", [True, False])
def test_a_failed_gate_demotes_and_paper_goes_on(dry: bool) -> None:
    road = approved(dryRun=dry)
    paper = {name for name in road.traders if name not in road.alive}
    road.judge("Fail", "its drawdown is too large: 16.0 %.")
    road.settle()
    assert road.alive == {}
    assert set(road.traders) == paper
    assert road.said == ("Demoted", "its drawdown is too large: 16.0 %.")
    assert road.promotions[-1].actor == "operator"
    assert [event.reason for event in road.events].count("Demoted") == 1
    assert road.look().actions == ()
    road.approve(WHO)  # only a person begins again, and it begins anew
    road.settle()
    assert road.actions[-2:] == ["approved", "started 0" if dry else "started 1"]
    assert road.said[0] == "Approved"


@pytest.mark.parametrize(
    "change",
    [
        lambda road: road.live(capitalUsd=40_000),
        lambda road: road.live(steps=[{"share": 1}]),
        lambda road: road.live(venue={"kind": "alpaca", "accountSecretRef": {"name": "other-live"}}),
        lambda road: road.spec.pop("live"),
        lambda road: road.spec["traderTemplate"].update(risk={"maxWeight": 0.2}),
        lambda road: road.spec["traderTemplate"].update(onHalt="hold"),
        lambda road: road.spec["traderTemplate"].update(maxRestarts=11),
    ],
    ids=["capital", "steps", "account", "section", "risk", "onHalt", "maxRestarts"],
)
def test_what_was_approved_has_changed_and_nothing_stays_live(change: Any) -> None:
    road = approved(dryRun=False)
    assert road.alive
    change(road)
    road.settle()
    assert road.alive == {}
    assert road.said[0] == "Revoked"


def test_dry_run_again_sells_out_and_the_next_start_is_from_step_1() -> None:
    road = approved(dryRun=False)
    road.judge("Pass")
    road.settle()
    assert list(road.alive) == [f"{WHO}-live-2"]
    road.live(dryRun=True)
    road.settle()
    assert list(road.alive) == [f"{WHO}-dry"]
    road.live(dryRun=False)
    road.settle()
    assert list(road.alive) == [f"{WHO}-live-1"]
    accounts = [row.account for row in road.promotions if row.account]
    assert len(accounts) == len(set(accounts)) == 4


def test_what_ends_an_approval_does_not_wait_for_a_trader_that_cannot_be_made() -> None:
    road = approved(dryRun=False)
    del road.traders["desk-00001"]
    road.live(capitalUsd=40_000)
    kinds = [type(action) for action in road.look().actions]
    made = kinds.index(CreateObject)
    assert WriteRecord in kinds[:made]
    assert DeleteObject in kinds[:made]


def test_a_halted_step_is_not_left_for_another_account_before_it_is_resumed() -> None:
    road = approved(dryRun=False)
    road.judge("Pass")
    road.halted = "loss of 20 %"
    road.settle()
    assert list(road.alive) == [f"{WHO}-live-1"]
    assert road.condition("Live")[0] == "Halted"
    assert "is halted (loss of 20 %): resume its Trader with a reason, or approve again" in road.condition("Live")[1]
    assert road.look().actions == ()
    road.halted = None
    road.settle()
    assert list(road.alive) == [f"{WHO}-live-2"]


def test_no_dry_run_in_between_lifts_a_halt_and_another_approval_begins_anew() -> None:
    road = approved(dryRun=False)
    ((name, spec),) = road.alive.items()
    road.halted = "spread looks wrong"
    road.live(dryRun=True)
    road.settle()
    assert road.alive == {}  # sold out, and nothing else begins
    assert road.condition("Live")[0] == "Halted"
    road.live(dryRun=False)
    road.settle()
    assert road.alive == {name: spec}  # the same account, which is still halted
    road.live(dryRun=True)
    road.settle()
    road.approve(WHO)
    road.settle()
    assert list(road.alive) == [f"{WHO}-dry"]


def test_another_approval_takes_the_formers_place() -> None:
    road = approved(dryRun=False)
    road.approve("desk-00001", actor="bob")
    road.settle()
    ((name, spec),) = road.alive.items()
    assert (name, spec["bundleDigest"]) == ("desk-00001-live-1", OTHER)


@pytest.mark.parametrize("change", [{"capitalUsd": 1e6}, {"dryRun": False}, {"account": "another"}, {"bundleDigest": OTHER}])
def test_a_live_trader_changed_by_hand_is_ended(change: dict[str, Any]) -> None:
    road = approved()
    name = f"{WHO}-dry"
    road.traders[name] = road.traders[name] | change
    road.reconcile()
    assert road.leaving == {name}


def test_a_start_that_was_cut_off_is_made_up_for() -> None:
    road = Road()
    road.reconcile()
    road.approve(WHO)
    for cut in (1, 2, 3):  # after the mark; then nothing: the approval was lost, and is given again
        road.reconcile(cut_after=cut)
        road.approve(WHO)
    road.settle()
    assert list(road.alive) == [f"{WHO}-dry"]
    assert road.actions.count("started 0") == 1


def test_what_the_record_says_of_a_start_is_the_whole_trader() -> None:
    road = approved(dryRun=False)
    ((name, spec),) = road.alive.items()
    started = road.promotions[-1]
    assert started.terms == terms(trader(name=name, spec=spec).spec)
    assert started.account == spec["account"]
    assert "--flatten" in farewell(trader(name=name, spec=spec), KEY).arguments
    assert "--release" in farewell(trader(name=name, spec=spec | {"dryRun": True}), KEY).arguments


# --- whatever happens --------------------------------------------------------------------------------

EVENTS = st.sampled_from(
    [
        *("pass", "fail", "inconclusive", "dry", "wet", "risk", "restore", "no live", "capital", "gone", "cut 0", "cut 1"),
        *(
            "cut 2",
            "delete live",
            "hand-made",
            "halt",
            "resume",
            "grade fails",
            "grade passes",
            "approve by nobody",
            "approve observer",
        ),
    ]
)


def happen(road: Road, event: str) -> None:
    match event:
        case "pass" | "fail" | "inconclusive":
            if "started" in {row.action for row in road.promotions}:
                road.judge(event.capitalize())
        case "dry" | "wet":
            if "live" in road.spec:
                road.live(dryRun=event == "dry")
        case "risk":
            road.spec["traderTemplate"]["risk"] = {"maxWeight": 0.2}
        case "restore":
            road.spec["traderTemplate"].pop("risk", None)
            road.spec["live"] = {"venue": REAL, "capitalUsd": 20_000, "dryRun": False}
        case "no live":
            road.spec.pop("live", None)
        case "capital":
            if "live" in road.spec:
                road.live(capitalUsd=30_000)
        case "gone":
            road.gone()
        case "cut 0" | "cut 1" | "cut 2":
            road.reconcile(cut_after=int(event[-1]))
        case "halt" | "resume":
            road.halted = "spread looks wrong" if event == "halt" else None
        case "delete live":
            road.leaving |= set(road.alive)
        case "hand-made":
            made = {"venue": REAL, "mode": "live", "dryRun": False, "bundleDigest": GOOD, "account": "mine", "capitalUsd": 1e6}
            road.traders.setdefault("mine", made)
        case "grade fails" | "grade passes":
            road.evidence.append(evidence(GOOD, "grade", "Pass" if event == "grade passes" else "Fail", detail=BAR))
        case "approve by nobody":
            road.approve(WHO, actor="")
        case "approve observer":
            road.approve("desk-00002")
        case "approve":
            road.approve(WHO)


def permits(road: Road) -> set[tuple[str | None, str | None]]:
    """(account, terms) that live_permit of the database calls standing."""
    ending = ("approved", "revoked", "started", "demoted")
    newest = [row for row in road.promotions if row.action in ending][-1:]
    return {(row.account, row.terms) for row in newest if row.action == "started"}


@settings(max_examples=80)
@given(st.lists(EVENTS, max_size=25))
def test_without_an_approval_by_a_person_no_live_trader_is_ever_made(events: list[str]) -> None:
    road = Road()
    for event in events:
        happen(road, event)
        decision = road.reconcile()
        made = [a.document["spec"] for a in decision.actions if isinstance(a, CreateObject)]
        assert all(spec["mode"] != "live" for spec in made)
        assert permits(road) == set()
        assert not any(isinstance(a, WriteRecord) and a.arguments["promotion"].action == "started" for a in decision.actions)


@settings(max_examples=120)
@given(st.lists(EVENTS | st.just("approve"), max_size=40))
def test_real_money_is_traded_by_one_trader_at_a_time_as_a_person_approved_it(events: list[str]) -> None:
    road = Road()
    for event in events:
        happen(road, event)
        before, halted, known = dict(road.alive), road.halted, len(road.promotions)
        decision = road.reconcile()
        if halted and any(
            row.action == "started" for row in road.promotions[known:]
        ):  # by an approval that had started nothing
            assert [row.action for row in road.promotions if row.action in ("approved", "started")][-2] == "approved"
        made = [a.document for a in decision.actions if isinstance(a, CreateObject) and a.document["spec"]["mode"] == "live"]
        if made:
            assert before == {}  # nothing else of ours is live, be it on its way out
            ((document,), standing) = made, [row for row in road.promotions if row.action in ("approved", "revoked", "demoted")]
            assert (standing[-1].action, standing[-1].actor) == ("approved", "ada")
            assert document["spec"]["dryRun"] == road.spec["live"].get("dryRun", True)
            spec = trader(name=document["metadata"]["name"], spec=document["spec"]).spec
            assert permits(road) == {(spec.account, terms(spec))}
        assert len(permits(road)) <= 1
    road.settle()
    assert road.look().actions == ()


def test_deleting_the_deployment_revokes_the_approval_and_only_then_lets_it_go() -> None:
    road = approved(dryRun=False)
    assert road.actions[-1] == "started 1"
    road.deleted = True
    road.reconcile(cut_after=1)  # it dies in between
    assert road.finalizers == (FINALIZER,)
    road.reconcile()
    assert road.finalizers == ()
    assert road.actions[-2:] == ["started 1", "revoked"]
    assert road.recorded[-1] == (GOOD[:1], "revoked", "operator")
    assert road.audit[-1]["body"]["reason"] == "Deployment desk was deleted"
    assert road.look().actions == ()


def test_a_deployment_without_an_approval_goes_at_once() -> None:
    road = Road(deleted=True)
    assert road.look().actions == ()
    ended = approved()
    ended.live(capitalUsd=30_000)  # no longer what was approved
    ended.settle()
    ended.deleted = True
    ended.reconcile()
    assert ended.finalizers == ()
    assert ended.actions.count("revoked") == 1


@pytest.mark.parametrize("cut", range(5))
def test_no_approval_is_recorded_of_a_deployment_that_could_go_without_a_word(cut: int) -> None:
    road = Road()
    road.reconcile()
    road.approve(WHO)
    assert any(isinstance(action, WriteRecord) for action in road.look().actions[:5])
    road.reconcile(cut_after=cut)
    assert not road.promotions or road.finalizers == (FINALIZER,)
