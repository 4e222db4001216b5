"""A whole trader over the exchange's core: what it does, and what it does when things break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import IntegrityError, InvariantViolation, RetryLater
from cappuccino.exchange.commands import Submit
from cappuccino.exchange.orders import OrderRequest
from cappuccino.exchange.terms import Terms
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.trading.orders import TERMINAL, Intent
from cappuccino.trading.ports import Answered, Fenced, Gap, Refused, Stop, Tick, Unclear, VenueFill, VenueOrder

from .builders import ACCOUNT, SYMBOLS, Fault, Script, Trader, Venue, answer_lost, make_bars, rate_limited, request_lost

A, B = SYMBOLS
CHURN = {0: {A: 0.3, B: 0.2}, 2: {A: 0.0}, 3: {A: 0.25, B: 0.3}, 5: {B: 0.0}, 6: {A: 0.0, B: 0.3}, 8: {A: 0.3}}
STOPS = Limits(barriers=Barriers(stop=0.03, trail=0.02, trail_arms_at=0.01))


def churner(*, limits: Limits | None = None, **venue: object) -> Trader:
    trader = Trader(venue=Venue.over(make_bars(bars=14)), strategy=Script(CHURN))
    if limits is not None:
        trader.limits = limits
    for name, value in venue.items():
        setattr(trader.venue, name, value)
    return trader


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def test_decisions_are_traded_sells_first_and_recorded_bar_by_bar() -> None:
    trader = churner()
    assert trader.run().finished
    assert trader.books_agree()
    assert len(trader.ledger.decisions) == len(trader.ledger.equity) == 13
    at_six = [i for i in trader.venue.submissions if i.decision == "2024-01-01T07:00:00Z"]
    assert [i.side for i in at_six] == ["sell", "buy"]
    assert at_six[0].qty is not None
    assert at_six[1].notional is not None
    assert trader.ledger.equity[0].equity_usd == Decimal(10_000)


def test_every_intent_has_an_outcome_and_its_own_id() -> None:
    trader = churner(limits=STOPS)
    trader.run()
    assert any(i.is_exit for i in trader.venue.submissions)
    last = {e.client_order_id: e.state for e in trader.ledger.events}
    assert set(last) == set(trader.ledger.intents)
    assert set(last.values()) <= TERMINAL
    ids = [i.client_order_id for i in trader.venue.submissions]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("fault", [answer_lost, request_lost])
@pytest.mark.parametrize("number", range(4))
def test_an_unknown_outcome_is_resolved_before_anything_new_is_sent(fault: Fault, number: int) -> None:
    trader = churner(faults={number: fault})
    reference = churner()
    trader.run()
    reference.run()
    assert trader.books_agree()
    sent = [i.client_order_id for i in trader.venue.submissions]
    if fault is request_lost:
        assert sent[number + 1] == sent[number]  # the same order under the same id, at once
    assert len(trader.venue.account_book.orders) == len(reference.venue.account_book.orders)


def test_a_definite_refusal_is_a_rejection_and_is_not_repeated() -> None:
    trader = churner(faults={0: rate_limited})
    trader.run()
    refused = trader.venue.submissions[0].client_order_id
    assert [e.state for e in trader.ledger.events if e.client_order_id == refused] == ["REJECTED"]
    assert [i.client_order_id for i in trader.venue.submissions].count(refused) == 1
    assert trader.books_agree()


@pytest.mark.parametrize("stream", [{"mute": True}, {"twice": True}])
def test_the_stream_may_be_silent_or_say_everything_twice(stream: dict[str, bool]) -> None:
    trader, reference = churner(limits=STOPS, **stream), churner(limits=STOPS)
    trader.run()
    reference.run()
    assert trader.books_agree()
    assert trader.ledger.equity == reference.ledger.equity


def test_partial_fills_that_end_in_a_cancel_are_counted_once() -> None:
    trader = Trader(
        venue=Venue.over(make_bars(bars=10), terms=Terms(participation_cap=Decimal("0.02"))), strategy=Script(CHURN)
    )
    trader.run()
    assert trader.books_agree()
    assert "CANCELED" in {e.state for e in trader.ledger.events}
    assert len(trader.venue.account_book.fills) > 0


FAULTS: list[Fault | None] = [None, None, answer_lost, request_lost, rate_limited]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    faults=st.lists(st.sampled_from(FAULTS), min_size=12, max_size=12),
    kills=st.lists(st.integers(0, 14), max_size=3),
    before=st.booleans(),
    mute=st.booleans(),
)
def test_books_agree_after_any_faults_and_kills(faults: list[Fault | None], kills: list[int], before: bool, mute: bool) -> None:
    trader = churner(limits=STOPS, faults={n: f for n, f in enumerate(faults) if f is not None}, mute=mute)
    kill_at = sorted(kills)

    def kill(intent: Intent) -> None:
        if kill_at and len(trader.venue.submissions) >= kill_at[0]:
            kill_at.pop(0)
            raise Killed

    trader.venue.on_submit = kill
    if before:  # die after journalling, before the venue hears of it
        for number in kills:
            trader.venue.faults[number] = lambda send: (_ for _ in ()).throw(Killed())
    for _ in range(20):
        try:
            assert trader.run().finished
            break
        except Killed:
            trader.venue.inbox.clear()
            trader.venue.faults = {n: f for n, f in trader.venue.faults.items() if n >= len(trader.venue.submissions)}
    assert trader.books_agree()
    assert len(trader.ledger.decisions) == 13
    last = {e.client_order_id: e.state for e in trader.ledger.events}
    assert set(last) == set(trader.ledger.intents)
    assert set(last.values()) <= TERMINAL


def test_a_gap_in_the_stream_reconciles() -> None:
    trader = churner()

    def lose(tick: Tick) -> None:
        trader.venue.mute = 5 <= len(trader.venue.ticks) < 20
        trader.venue.inbox.append(Gap(stream="orders"))

    trader.venue.on_tick = lose
    trader.run()
    assert trader.books_agree()
    assert trader.ledger.state is not None
    assert trader.ledger.state["reconciled_at"] == "2024-01-01T14:00:00Z"


def test_an_answer_that_says_filled_before_the_stream_tells_the_fill_is_no_gap() -> None:
    trader = churner()
    gaps: list[bool] = []
    session = trader.session()
    trader.venue.on_tick = lambda _: gaps.append(session._in.desk.gap)
    session.run()
    assert trader.books_agree()
    assert len(trader.venue.submissions) > 5
    assert not any(gaps)


def test_a_venue_that_is_away_is_waited_for_and_never_counts_as_empty() -> None:
    trader = churner()

    def leave(intent: Intent) -> None:
        trader.venue.away = 3

    trader.venue.on_submit = leave
    assert trader.run().finished
    assert trader.books_agree()


def test_it_does_not_trade_when_balances_changed_by_hand() -> None:
    trader = churner()
    trader.run()
    trader.venue.exchange.accounts[ACCOUNT].cash -= 5
    other = Trader(venue=trader.venue, strategy=trader.strategy, ledger=trader.ledger)
    sent = len(trader.venue.submissions)
    with pytest.raises(IntegrityError, match="no event explains it"):
        other.run()
    assert len(trader.venue.submissions) == sent


def test_it_does_not_trade_on_an_account_that_somebody_else_trades() -> None:
    trader = churner()
    request = OrderRequest(symbol=A, side="buy", notional=Decimal(500), client_order_id="by-hand")

    def trade_by_hand(tick: Tick) -> None:
        if len(trader.venue.ticks) == 8:
            trader.venue.exchange.apply(Submit(account=ACCOUNT, request=request))
            trader.venue.inbox.append(Gap(stream="orders"))

    trader.venue.on_tick = trade_by_hand
    with pytest.raises(IntegrityError, match="not ours"):
        trader.run()


# --- halts, limits ----------------------------------------------------------------------------------


def halted_at(trader: Trader, tick_number: int, reason: str = "by a person") -> Callable[[Tick], None]:
    def halt(tick: Tick) -> None:
        if len(trader.venue.ticks) == tick_number:
            trader.ledger.halted = reason

    return halt


def test_a_halt_stops_entries_at_the_next_bar_and_says_so_in_the_decision() -> None:
    trader = churner()
    trader.on_halt = "hold"
    trader.venue.on_tick = halted_at(trader, 2)
    trader.run()
    assert {i.decision for i in trader.venue.submissions} == {"2024-01-01T01:00:00Z"}
    refused = [r for d in trader.ledger.decisions for r in d.refusals]
    assert refused
    assert {r["rule"] for r in refused} == {"halted"}
    assert len(trader.ledger.decisions) == 13  # it goes on deciding


def test_barriers_go_on_while_halted() -> None:
    prices = {A: [100, 100, 100, 101, 95, 94], B: [100] * 6}
    trader = Trader(venue=Venue.over(make_bars(prices)), strategy=Script({0: {A: 0.3}}), limits=STOPS, on_halt="hold")
    trader.venue.on_tick = halted_at(trader, 3)
    trader.run()
    assert [i.reason for i in trader.venue.submissions] == ["target", "stop_loss"]


def test_on_halt_flatten_sells_everything_and_stays_flat() -> None:
    trader = churner()
    trader.on_halt = "flatten"
    trader.venue.on_tick = halted_at(trader, 10)
    trader.run()
    assert trader.venue.submissions[-1].reason == "flatten"
    assert not trader.venue.account_book.positions
    assert trader.books_agree()


def test_a_halt_that_only_the_database_knows_refuses_the_journal() -> None:
    trader = churner()
    trader.on_halt = "hold"
    commit = trader.ledger.commit

    def halt_after_commit(**rows: object) -> None:
        commit(**rows)  # type: ignore[arg-type]
        trader.ledger.halted = "between decision and orders"

    trader.ledger.commit = halt_after_commit  # type: ignore[method-assign]
    trader.run()
    assert trader.venue.submissions == []
    assert any(r["rule"] == "halted" for d in trader.ledger.decisions for r in d.refusals)


def test_a_halt_after_the_journal_stops_the_orders_that_are_not_out_yet() -> None:
    trader = churner()
    trader.on_halt = "cancel"
    journal, halted = trader.ledger.journal, "between journal and order"

    def halt_after_journal(*given: object, **named: object) -> None:
        journal(*given, **named)  # type: ignore[arg-type]
        trader.ledger.halted = halted
        trader.lease.renew()  # what the lease's thread does within a second

    trader.ledger.journal = halt_after_journal  # type: ignore[method-assign]
    trader.run()
    assert trader.venue.submissions == []
    assert {str(order.state) for order in trader.ledger.load().orders} == {"DENIED"}
    assert trader.books_agree()


def test_drawdown_from_the_persisted_baseline_halts_with_its_numbers() -> None:
    prices = {A: [100, 100, 100, 100, 60, 60, 60], B: [100] * 7}
    trader = Trader(
        venue=Venue.over(make_bars(prices)),
        strategy=Script({0: {A: 0.3}}),
        limits=Limits(barriers=Barriers.off(), max_drawdown=0.1),
        on_halt="flatten",
    )
    trader.run()
    assert trader.ledger.halted is not None
    assert "baseline 10000" in trader.ledger.halted
    assert trader.venue.submissions[-1].reason == "flatten"


def test_the_order_rate_is_counted_in_market_time_and_survives_a_restart() -> None:
    everything = {n: {A: 0.3 if n % 2 else 0.0, B: 0.0 if n % 2 else 0.3} for n in range(12)}
    trader = Trader(
        venue=Venue.over(make_bars(bars=14)),
        strategy=Script(everything),
        limits=Limits(barriers=Barriers.off(), max_orders_per_hour=1),
    )
    trader.run()
    refused = [r for d in trader.ledger.decisions for r in d.refusals]
    assert {r["rule"] for r in refused} == {"order_rate"}
    sent = [i.created_at for i in trader.venue.submissions]
    assert len(sent) == len(set(sent))


# --- barriers ---------------------------------------------------------------------------------------


def test_a_stop_between_bars_sells_at_the_tick_and_is_not_bought_back_before_the_next_decision() -> None:
    prices = {A: [100, 100, 100, 96, 90, 90, 90], B: [100] * 7}
    trader = Trader(venue=Venue.over(make_bars(prices)), strategy=Script({0: {A: 0.3}, 3: {A: 0.3}}), limits=STOPS)
    trader.run()
    first, stop = trader.venue.submissions[:2]
    assert (first.reason, stop.reason) == ("target", "stop_loss")
    sold = next(f for f in trader.ledger.fills.values() if f.client_order_id == stop.client_order_id)
    assert Decimal("96") <= sold.price <= Decimal("97.2")
    assert stop.created_at.minute != 0
    assert [d.trace["bars_held"][0] for d in trader.ledger.decisions][:4] == [0, 1, 0, 0]
    again = trader.venue.submissions[2]
    assert (again.reason, again.decision) == ("target", "2024-01-01T04:00:00Z")


@pytest.mark.parametrize("killed", [False, True])
def test_decisions_since_a_stop_are_seen_also_when_the_exit_was_the_last_thing_a_process_did(killed: bool) -> None:
    prices = {A: [100, 100, 100, 96, 95, 95, 95], B: [100] * 7}
    trader = Trader(venue=Venue.over(make_bars(prices)), strategy=Script({0: {A: 0.3}}), limits=STOPS)

    def die(intent: Intent) -> None:
        if killed and intent.reason == "stop_loss":
            raise Killed

    trader.venue.on_submit = die
    try:
        trader.run()
    except Killed:
        trader.venue.inbox.clear()
        trader.run()
    assert [d.trace["since_stop"][0] for d in trader.ledger.decisions] == [255, 255, 1, 2, 3, 4]


def test_bars_held_counts_decisions() -> None:
    trader = Trader(venue=Venue.over(make_bars(bars=8)), strategy=Script({0: {A: 0.3}}))
    trader.run()
    assert [d.trace["bars_held"][0] for d in trader.ledger.decisions] == [0, 1, 2, 3, 4, 5, 6]


def test_between_two_intervals_equity_is_recorded_and_nothing_is_decided() -> None:
    trader = Trader(venue=Venue.over(make_bars(bars=10)), strategy=Script({0: {A: 0.3}}, interval=3))
    trader.run()
    assert len(trader.ledger.equity) == 9
    assert [d.trace["bars_held"][0] for d in trader.ledger.decisions] == [0, 1, 2]


def test_a_peak_seen_inside_a_bar_survives_a_kill_in_that_bar() -> None:
    bars = make_bars({A: [100, 100, 100, 102.5, 101.5, 101.4, 101.4], B: [100] * 7})
    bars.high[3, 0] = 104.0  # up to 104, then back to 102.5: the trail is at 101.92
    limits = Limits(barriers=Barriers(stop=0.1, trail=0.02, trail_arms_at=0.01))
    trader = Trader(venue=Venue.over(bars, tick_bps=1000), strategy=Script({0: {A: 0.3}}), limits=limits)

    def die(tick: Tick) -> None:
        if trader.venue.exchange.price(A) == Decimal("102.5"):
            trader.venue.on_tick = lambda tick: None
            raise Killed

    trader.venue.on_tick = die
    with pytest.raises(Killed):
        trader.run()
    trader.venue.inbox.clear()
    trader.run()
    assert [i.reason for i in trader.venue.submissions] == ["target", "trailing_stop"]
    assert trader.books_agree()


# --- lease, database, signals -----------------------------------------------------------------------


def test_the_fenced_out_trader_sends_nothing_more() -> None:
    trader = churner()

    def fence(tick: Tick) -> None:
        if len(trader.venue.ticks) == 6:
            trader.ledger.holder = -1

    trader.venue.on_tick = fence
    with pytest.raises(Fenced):
        trader.run()
    sent = len(trader.venue.submissions)
    assert sent == len(trader.ledger.intents)


def test_a_process_that_was_paused_past_its_lease_sends_nothing() -> None:
    trader = churner()
    journal = trader.ledger.journal

    def pause(intents: object, *, state: object) -> None:
        journal(intents, state=state)  # type: ignore[arg-type]
        trader.venue.time.now += 60

    trader.ledger.journal = pause  # type: ignore[assignment]
    with pytest.raises(Fenced):
        trader.run()
    assert trader.venue.submissions == []


def test_entries_wait_while_the_database_is_away_and_protective_exits_do_not() -> None:
    prices = {A: [100, 100, 100, 101, 95, 94, 94], B: [100] * 7}
    trader = Trader(venue=Venue.over(make_bars(prices)), strategy=Script({0: {A: 0.3}}), limits=STOPS)
    started: list[float] = []

    def away(tick: Tick) -> None:
        if trader.venue.exchange.tick.bar == 4 and not tick.bar_closed and not started:
            trader.ledger.away = True
            started.append(trader.venue.time.now)

    def back(intent: Intent) -> None:
        if intent.reason == "stop_loss":
            assert trader.ledger.away
            assert intent.client_order_id not in trader.ledger.intents
            trader.ledger.away = False

    trader.venue.on_tick, trader.venue.on_submit = away, back
    assert trader.run().finished
    assert trader.venue.submissions[-1].reason == "stop_loss"
    assert trader.books_agree()
    assert trader.venue.submissions[-1].client_order_id in trader.ledger.intents


def test_an_exit_sent_without_the_database_is_adopted_by_the_next_process() -> None:
    prices = {A: [100, 100, 100, 101, 95, 94, 94], B: [100] * 7}
    trader = Trader(venue=Venue.over(make_bars(prices)), strategy=Script({0: {A: 0.3}}), limits=STOPS)

    def away(tick: Tick) -> None:
        trader.ledger.away = trader.venue.exchange.tick.bar == 4 and not tick.bar_closed

    def die(intent: Intent) -> None:
        if intent.reason == "stop_loss":
            raise Killed

    trader.venue.on_tick, trader.venue.on_submit = away, die
    with pytest.raises(Killed):
        trader.run()
    exit_id = trader.venue.submissions[-1].client_order_id
    assert exit_id not in trader.ledger.intents
    trader.venue.on_tick, trader.venue.on_submit = lambda tick: None, lambda intent: None
    trader.ledger.away = False
    trader.venue.inbox.clear()
    assert trader.run().finished
    assert trader.ledger.intents[exit_id].reason == "stop_loss"
    assert trader.books_agree()


def test_a_database_that_stays_away_ends_the_process_when_the_lease_has_run_out() -> None:
    trader = churner()

    def away(tick: Tick) -> None:
        trader.ledger.away = len(trader.venue.ticks) >= 4

    trader.venue.on_tick = away
    with pytest.raises(RetryLater):
        trader.run()
    assert trader.venue.time.now - 1000 < 30


def test_asked_to_stop_it_ends_and_the_next_process_goes_on() -> None:
    trader, reference = churner(), churner()
    reference.run()

    def stop(intent: Intent) -> None:
        if len(trader.venue.submissions) == 3:
            trader.venue.stop("SIGTERM")

    trader.venue.on_submit = stop
    assert not trader.run().finished
    trader.venue.inbox.clear()
    trader.venue.on_submit = lambda intent: None
    assert trader.run().finished
    assert trader.books_agree()
    assert trader.ledger.equity == reference.ledger.equity


def test_orders_left_over_from_a_bar_that_is_past_are_abandoned() -> None:
    trader = churner()

    def die(send: Callable[[], Answered | Refused | Unclear]) -> Answered | Refused | Unclear:
        raise Killed

    trader.venue.faults = {0: die}
    with pytest.raises(Killed):
        trader.run()
    trader.venue.inbox.clear()
    for _ in range(12):
        trader.venue.done(Tick(at=trader.venue.now(), bar_closed=False), until=None)
    trader.venue.inbox.clear()
    trader.venue.faults = {}
    trader.run()
    late = trader.venue.submissions[0].client_order_id
    assert [e.state for e in trader.ledger.events if e.client_order_id == late][-1] == "CANCELED"
    assert late not in trader.venue.account_book.by_client_id
    assert any(r["rule"] == "late" for d in trader.ledger.decisions for r in d.refusals)


def test_an_order_that_the_venue_filled_after_refusing_it_is_an_invariant_violation() -> None:
    def refuse_and_fill(send: Callable[[], Answered | Refused | Unclear]) -> Answered | Refused | Unclear:
        send()
        return Refused(code="42210000", message="no")

    trader = churner(faults={0: refuse_and_fill})
    with pytest.raises(InvariantViolation, match="REJECTED"):
        trader.run()


def test_flatten_ends_in_cash() -> None:
    trader = churner()

    def stop(tick: Tick) -> None:
        if len(trader.venue.ticks) == 12:
            trader.venue.inbox.append(Stop(reason="SIGTERM"))

    trader.venue.on_tick = stop
    trader.run()
    assert trader.venue.account_book.positions
    trader.venue.inbox.clear()
    trader.session().flatten()
    assert not trader.venue.account_book.positions
    assert trader.books_agree()


def test_health_tells_whether_it_may_trade() -> None:
    trader = churner()
    trader.on_halt = "hold"
    reports = []

    def look(tick: Tick) -> None:
        assert trader.health is not None
        reports.append(trader.health.report())
        if len(trader.venue.ticks) == 9:
            trader.ledger.halted = "by a person"

    trader.venue.on_tick = look
    trader.run()
    assert reports[0][0] is False  # before reconciliation
    assert reports[5][0] is True
    assert reports[-1][0] is False
    assert reports[-1][1]["halted"] == "by a person"


def test_fills_whose_fees_the_venue_has_not_told_yet_are_waited_for() -> None:
    trader = churner()
    fills_since, silent = trader.venue.fills_since, [6]

    def late(at: datetime) -> Sequence[VenueFill]:
        if trader.venue.account_book.fills and silent[0]:
            silent[0] -= 1
            return []
        return fills_since(at)

    trader.venue.fills_since = late  # type: ignore[method-assign]
    assert trader.run().finished
    assert silent == [0]
    assert trader.books_agree()


def test_an_order_that_the_venue_forgets_ends_the_process_for_another_try() -> None:
    def accept_and_forget(send: Callable[[], Answered | Refused | Unclear]) -> Answered | Refused | Unclear:
        order = VenueOrder(
            client_order_id=trader.venue.submissions[-1].client_order_id,
            venue_order_id="v",
            symbol=A,
            side="buy",
            status="accepted",
            filled_qty=Decimal(0),
            at=trader.venue.now(),
        )
        return Answered(order=order)

    trader = churner(faults={0: accept_and_forget})
    with pytest.raises(RetryLater):
        trader.run()
    assert trader.venue.time.now - 1000 < 200
