"""Fault plans: the same seed and count give the same fault, scripts come first, and what happened is in the journal."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.journal import Journal
from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.commands import Advance, OpenAccount, Submit, decode, encode
from cappuccino.exchange.faults import (
    KINDS,
    Fault,
    Faults,
    Incident,
    Plan,
    Rule,
    draw,
    gaps,
    incident_json,
    parse_plan,
    plan_json,
)
from cappuccino.exchange.orders import Refused

from .builders import exchange, order, submit

D = Decimal


def drawn(plan: Plan, count: int, *, start: int = 0) -> list[Fault | None]:
    faults = Faults(plan, symbols=("A", "B"), start=start)
    return [faults.at("submit", "a") for _ in range(count)]


def test_a_seed_gives_the_same_faults_again_and_another_seed_others() -> None:
    plan = Plan(seed=3, rates={"answer_lost": 0.2, "slow": 0.2})
    assert drawn(plan, 200) == drawn(plan, 200)
    assert drawn(plan, 200) != drawn(Plan(seed=4, rates=plan.rates), 200)


def test_an_exchange_that_is_started_again_goes_on_and_does_not_repeat_itself() -> None:
    plan = Plan(seed=3, rates={"answer_lost": 0.2})
    assert drawn(plan, 50, start=150) == drawn(plan, 200)[150:]


def test_faults_come_as_often_as_the_rates_say_and_only_where_the_kind_belongs() -> None:
    plan = Plan(seed=1, rates=dict.fromkeys(KINDS, 0.02))
    for operation in ("submit", "order", "event", "tick", "quotes", "book", "clock"):
        told = [draw(plan, operation, "a", n, symbols=("A",)) for n in range(20_000)]  # type: ignore[arg-type]
        kinds = [fault.kind for fault in told if fault is not None]
        belong = {kind for kind, operations in KINDS.items() if operation in operations}
        assert set(kinds) == belong
        for kind in belong:
            assert kinds.count(kind) == pytest.approx(400, rel=0.25)


def test_accounts_and_operations_have_counts_of_their_own() -> None:
    plan = Plan(seed=1, rates={"answer_lost": 0.3})
    together = Faults(plan)
    apart = Faults(plan)
    mixed = [(together.at("submit", "a"), together.at("submit", "b"), together.at("read", "a"))[0] for _ in range(50)]
    assert mixed == [apart.at("submit", "a") for _ in range(50)]


def test_a_script_skips_and_repeats_and_is_used_up() -> None:
    rule = Rule(fault=Fault(kind="answer_lost"), operation="submit", account="a", skip=2, times=2)
    faults = Faults(Plan(script=(rule,)))
    assert faults.at("submit", "b") is None
    assert [faults.at("submit", "a") is not None for _ in range(6)] == [False, False, True, True, False, False]
    assert not faults.plan


def test_no_plan_counts_nothing() -> None:
    faults = Faults()
    assert faults.at("submit", "a") is None
    assert faults._counts == {}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "seed, rates and script"),
        ({"rate": {}}, "seed, rates and script"),
        ({"rates": {"answer_lsot": 0.1}}, "answer_lsot"),
        ({"rates": {"slow": 1.5}}, r"outside \[0, 1\]"),
        ({"rates": {"slow": True}}, r"outside \[0, 1\]"),
        ({"script": [{"kind": "slow", "operation": "event"}]}, "does not befall 'event'"),
        ({"script": [{"kind": "slow", "minutes": 1}]}, "minutes"),
        ({"script": [{"kind": "slow", "times": 0}]}, "times 0"),
        ({"script": [{"kind": "balance_changed", "amount": "much"}]}, "faults"),
        ({"script": ["slow"]}, "faults"),
        ({"seed": "x"}, "faults"),
    ],
)
def test_a_plan_that_means_nothing_is_refused(document: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_plan(document)


def test_a_plan_is_told_as_it_is_read() -> None:
    script = [{"kind": "partial_fill", "share": "0.5", "operation": "order", "account": "a", "skip": 1, "times": 3}]
    document = {"seed": 5, "rates": {"slow": 0.1}, "script": script}
    assert plan_json(parse_plan(document)) == document


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="balance_changed", asset="USD", amount=D("-12.5")),
        Fault(kind="symbol_halted", symbol="BTC/USD", ticks=3),
        Fault(kind="partial_fill", share=D("0.25")),
        Fault(kind="clock_skew", seconds=-3.5),
        Fault(kind="answer_lost"),
    ],
)
def test_what_happened_survives_the_journal(fault: Fault) -> None:
    incident = Incident(fault=fault, operation="submit", account="a", subject="x", tick=7)
    assert decode(encode(incident)) == incident
    told = incident_json(incident)
    assert (told["kind"], told["subject"], told["tick"]) == (fault.kind, "x", 7)


def test_an_order_with_a_share_survives_the_journal_and_one_without_is_written_as_before() -> None:
    command = Submit(account="a", request=order(), share=D("0.4"))
    assert decode(encode(command)) == command
    assert len(encode(Submit(account="a", request=order()))) == 3


# --- on the book ----------------------------------------------------------------------------------


def test_a_partial_fill_fills_its_share_and_an_immediate_order_ends_there() -> None:
    venue = exchange()
    outcome = venue.apply(Submit(account="a", request=order(time_in_force="ioc"), share=D("0.3")))
    assert [event.kind for event in outcome.events] == ["new", "partial_fill", "canceled"]
    assert outcome.order is not None
    assert outcome.order.filled_qty == D("0.3")


def test_a_halted_symbol_fills_nothing_until_the_halt_is_over() -> None:
    venue = exchange()
    venue.apply(Incident(fault=Fault(kind="symbol_halted", symbol="BTC/USD", ticks=1), operation="tick"))
    assert venue.halted("BTC/USD")
    assert [event.kind for event in submit(venue, time_in_force="ioc").events] == ["new", "canceled"]
    venue.apply(Advance())
    assert not venue.halted("BTC/USD")
    assert submit(venue, time_in_force="ioc").events[-1].kind == "fill"


def test_a_balance_changed_by_hand_cannot_become_negative() -> None:
    venue = exchange()
    account = venue.accounts["a"]

    def change(asset: str, amount: str) -> None:
        fault = Fault(kind="balance_changed", asset=asset, amount=D(amount))
        venue.apply(Incident(fault=fault, operation="book", account="a"))

    change("USD", "-100")
    assert account.cash == D(9_900)
    change("BTC/USD", "0.5")
    change("BTC/USD", "-0.5")
    assert account.positions == {}
    with pytest.raises(Refused, match="cannot go"):
        change("USD", "-9901")
    with pytest.raises(Refused, match="cannot go"):
        change("BTC/USD", "-1")
    assert len(venue.incidents) == 3


def test_the_book_and_the_list_of_faults_are_there_after_a_restart(tmp_path: Path) -> None:
    def a_desk(plan: Plan) -> Desk:
        venue = exchange(accounts=())
        return Desk(venue, Journal(tmp_path / "journal", tape="t", terms={}), plan=plan)

    async def play() -> tuple[Decimal, list[Incident]]:
        script = (
            Rule(fault=Fault(kind="partial_fill", share=D("0.5")), operation="order"),
            Rule(fault=Fault(kind="rejected_size"), operation="order"),
            Rule(fault=Fault(kind="balance_changed", asset="USD", amount=D(5)), operation="book", account="a"),
            Rule(fault=Fault(kind="balance_changed", asset="USD", amount=D(-(10**9))), operation="book", account="a"),
        )
        desk = a_desk(Plan(script=script))
        await desk.execute(OpenAccount(name="a", capital_usd=D(10_000), key_id="k", secret_key="s"))
        await desk.execute(Submit(account="a", request=order(time_in_force="ioc")))
        with pytest.raises(Refused, match="minimal order size"):
            await desk.execute(Submit(account="a", request=order()))
        await desk.advance()
        await desk.advance()  # what cannot go does not go, and did not happen
        desk._journal.close()
        return desk.exchange.accounts["a"].cash, desk.exchange.incidents

    cash, incidents = asyncio.run(play())
    assert [incident.fault.kind for incident in incidents] == ["partial_fill", "rejected_size", "balance_changed"]
    again = a_desk(Plan())
    assert (again.exchange.accounts["a"].cash, again.exchange.incidents) == (cash, incidents)


# --- on the tape ----------------------------------------------------------------------------------


def test_a_gap_moves_all_later_prices_of_its_symbol() -> None:
    ts = np.arange(5, dtype=np.int64) * 3600
    script = (Rule(fault=Fault(kind="price_gap", symbol="B", share=D("-0.2")), operation="bar", skip=2),)
    factor = gaps(Plan(script=script), ts, ("A", "B"))
    assert factor.tolist() == [[1, 1], [1, 1], [1, 0.8], [1, 0.8], [1, 0.8]]


def test_random_gaps_follow_from_the_seed_and_the_bars_time() -> None:
    ts = np.arange(2000, dtype=np.int64) * 3600
    plan = Plan(seed=2, rates={"price_gap": 0.05})
    whole = np.diff(np.log(gaps(plan, ts, ("A",))[:, 0]))
    assert 60 < np.count_nonzero(whole) < 140
    late = np.diff(np.log(gaps(plan, ts[1000:], ("A",))[:, 0]))
    np.testing.assert_allclose(late, whole[1000:])
