"""What is held is guarded with the model down, without history, and while the venue rejects; and refusals are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from cappuccino.core.errors import InvalidInput, InvariantViolation, NotFound
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.strategies.interface import Contract, Decision, Json, View
from cappuccino.trading.absent import Absent, contract_of
from cappuccino.trading.ports import Quote, Tick

from .builders import HOUR, SYMBOLS, Script, Trader, Venue, make_bars, rate_limited

A, B = SYMBOLS
STOP = Limits(barriers=Barriers(stop=0.03, trail=None))


class Killed(BaseException):
    """Stands for SIGKILL."""


def holding_then_falling(*, limits: Limits = STOP, targets: Mapping[int, Mapping[str, float]] | None = None) -> Trader:
    """Buys A at the open of bar 2; it falls through its stop in bar 4."""
    prices = {A: [100, 100, 100, 100, 96, 96, 96, 96], B: [100.0] * 8}
    script = Script(targets or {0: {A: 0.3}})
    return Trader(venue=Venue.over(make_bars(prices)), strategy=script, limits=limits, on_halt="hold")


def killed_while_holding(**options: Any) -> Trader:
    trader = holding_then_falling(**options)

    def die(tick: Tick) -> None:
        if trader.venue.exchange.tick.bar == 3 and not tick.bar_closed:
            raise Killed

    trader.venue.on_tick = die
    with pytest.raises(Killed):
        trader.run()
    assert trader.venue.account_book.positions
    trader.venue.on_tick = lambda tick: None
    trader.venue.inbox.clear()
    return trader


@dataclass(frozen=True)
class Broken(Script):
    def decide(self, view: View, memory: Json) -> Decision:
        if memory:
            raise ZeroDivisionError("the model is broken")
        return super().decide(view, memory)


def test_a_strategy_that_fails_holds_says_so_and_its_stop_still_sells() -> None:
    trader = holding_then_falling()
    trader.strategy = Broken({0: {A: 0.3}})
    told: list[str | None] = []

    def look(tick: Tick) -> None:
        assert trader.health is not None
        told.append(trader.health.report()[1]["degraded"])

    trader.venue.on_tick = look
    trader.run()
    assert [i.reason for i in trader.venue.submissions] == ["target", "stop_loss"]
    assert told[1] is None
    assert told[-1] == "ZeroDivisionError: the model is broken"
    assert "cappuccino_trader_degraded 1.0" in trader.metrics.render().decode()
    failed = [d for d in trader.ledger.decisions if any(r["rule"] == "no_decision" for r in d.refusals)]
    assert len(failed) == len(trader.ledger.decisions) - 1
    assert all(not d.intents and d.memory == trader.ledger.decisions[0].memory for d in failed)


def test_a_broken_rule_of_ours_is_no_failure_of_the_model() -> None:
    trader = holding_then_falling()

    def broken(view: View, memory: Json) -> Decision:
        raise InvariantViolation("the cash of a view is negative")

    object.__setattr__(trader.strategy, "decide", broken)
    with pytest.raises(InvariantViolation, match="negative"):
        trader.run()
    assert not trader.ledger.decisions


def test_a_strategy_that_recovers_is_not_degraded_and_its_failures_are_not_counted_on() -> None:
    trader = holding_then_falling(limits=replace(STOP, max_failed_decisions=2))
    decide, asked = trader.strategy.decide, []

    def every_other(view: View, memory: Json) -> Decision:
        asked.append(view)
        if len(asked) % 2 == 0:
            raise ZeroDivisionError
        return decide(view, memory)

    object.__setattr__(trader.strategy, "decide", every_other)
    trader.run()
    assert trader.ledger.halted is None
    assert trader.health is not None
    assert trader.health.report()[1]["degraded"] is None


def test_failed_decisions_are_counted_over_restarts() -> None:
    trader = holding_then_falling(limits=replace(STOP, max_failed_decisions=3))
    trader.strategy = Broken({0: {A: 0.3}})
    died: list[int] = []

    def die(tick: Tick) -> None:
        bar = trader.venue.exchange.tick.bar
        if tick.bar_closed and bar not in died and bar > 3:
            died.append(bar)
            raise Killed

    trader.venue.on_tick = die
    for _ in range(9):
        try:
            trader.run()
            break
        except Killed:
            trader.venue.inbox.clear()
    assert len(died) > 2
    assert trader.ledger.halted is not None
    assert trader.ledger.halted.startswith("the strategy failed on 3 decisions in a row")


@pytest.mark.parametrize("given", ["no bars", "an error"])
def test_without_history_after_a_restart_what_is_held_is_guarded_until_there_is_some(given: str) -> None:
    trader = killed_while_holding(targets={0: {A: 0.3, B: 0.2}})
    closed_bars, away = trader.venue.closed_bars, [True]

    def missing(symbols: Sequence[str], timeframe: Timeframe, *, start: int, end: int) -> Bars:
        if away[0] and given == "an error":
            raise InvalidInput("the venue's bars cannot be read")
        return closed_bars(symbols, timeframe, start=start, end=start if away[0] else end)

    def back(tick: Tick) -> None:
        assert trader.health is not None
        away[0] = trader.venue.exchange.tick.bar < 6
        if 4 <= trader.venue.exchange.tick.bar < 6:
            assert trader.health.report()[1]["degraded"].startswith("no history: ")

    trader.venue.closed_bars = missing  # type: ignore[method-assign]
    trader.venue.on_tick = back
    trader.run()
    assert [(i.side, i.symbol, i.reason) for i in trader.venue.submissions][2:] == [("sell", A, "stop_loss")]
    assert trader.books_agree()
    assert trader.health is not None
    assert trader.health.report()[1]["degraded"] is None
    assert len(trader.ledger.decisions) > 2  # it decides again


def test_without_history_and_with_nothing_held_it_does_not_start() -> None:
    trader = holding_then_falling()
    closed_bars = trader.venue.closed_bars
    trader.venue.closed_bars = lambda symbols, timeframe, *, start, end: closed_bars(  # type: ignore[method-assign]
        symbols, timeframe, start=start, end=start
    )
    with pytest.raises(InvalidInput, match="warms up on"):
        trader.run()


def test_without_a_bundle_what_was_ordered_is_guarded_from_the_journal_alone() -> None:
    trader = killed_while_holding()
    contract = contract_of(trader.ledger.load())
    assert contract == Contract(symbols=(A,), timeframe=Timeframe(HOUR), features=(), lookback=1, warmup_bars=1)
    looked: list[int] = []

    def look() -> None:
        looked.append(1)
        if len(looked) < 3:
            raise NotFound("bundle d is not in the store")

    trader.strategy = Absent(contract, look=look)
    trader.strategy.found = lambda: trader.venue.stop("the bundle can be read again")
    stop = trader.run()
    assert not stop.finished
    assert stop.reason == "the bundle can be read again"
    assert [i.reason for i in trader.venue.submissions] == ["target", "stop_loss"]
    reasons = [r["numbers"]["error"] for d in trader.ledger.decisions for r in d.refusals]
    assert reasons == ["NotFound: bundle d is not in the store"] * 2
    assert trader.books_agree()


def test_without_a_bundle_and_with_nothing_open_there_is_nothing_to_guard() -> None:
    trader = holding_then_falling()
    assert contract_of(trader.ledger.load()) is None
    trader.run()
    assert contract_of(trader.ledger.load()) is None


def test_a_quote_that_is_no_price_sells_nothing_and_is_kept_as_a_refusal() -> None:
    trader = holding_then_falling()
    quote = trader.venue._quote

    def bad(symbol: str) -> Quote:
        told = quote(symbol)
        return replace(told, bid=Decimal(0)) if symbol == A and trader.venue.exchange.tick.bar == 3 else told

    stored: list[Any] = []

    def look(tick: Tick) -> None:
        if trader.venue.exchange.tick.bar == 3 and not tick.bar_closed:
            assert trader.ledger.state is not None
            stored.append([dict(r) for r in trader.ledger.state["refusals"]])

    trader.venue._quote = bad  # type: ignore[method-assign]
    trader.venue.on_tick = look
    trader.run()
    assert [i.reason for i in trader.venue.submissions] == ["target", "stop_loss"]
    assert trader.venue.submissions[1].created_at.hour == 4  # the real fall, not the false one an hour before
    (refusal,) = [r for d in trader.ledger.decisions for r in d.refusals if r["rule"] == "price"]
    assert (refusal["symbol"], refusal["side"], refusal["numbers"]) == (A, "sell", {"bid": "0", "ask": "100.0"})
    assert refusal["times"] >= 2
    assert stored[-1]  # in the record before the next decision
    assert f'cappuccino_trader_refusals_total{{rule="price"}} {float(refusal["times"])}' in trader.metrics.render().decode()


def test_an_exit_that_the_venue_rejects_is_tried_again_after_longer_and_longer_pauses() -> None:
    trader = holding_then_falling(limits=replace(STOP, max_rejected_orders=0))
    trader.venue.lockstep = False
    trader.venue.faults = dict.fromkeys(range(1, 999), rate_limited)

    def flood(tick: Tick) -> None:
        if trader.venue.exchange.tick.bar == 4:
            price = Decimal(90)
            quotes = [Quote(symbol=A, bid=price, ask=price, at=tick.at + timedelta(seconds=n)) for n in range(100)]
            trader.venue.inbox.extend(quotes)
            trader.venue.on_tick = lambda tick: None

    trader.venue.on_tick = flood
    trader.run()
    tries = [i.created_at for i in trader.venue.submissions if i.reason == "stop_loss"]
    first = [round((at - tries[0]).total_seconds()) for at in tries if (at - tries[0]).total_seconds() < 100]
    assert first == [0, 1, 3, 7, 15, 31, 63]


def test_a_flood_of_rejected_exits_trips_the_breaker() -> None:
    trader = holding_then_falling(limits=replace(STOP, max_rejected_orders=2))
    trader.venue.faults = dict.fromkeys(range(1, 4), rate_limited)
    trader.run()
    assert trader.ledger.halted == "2 orders in a row were rejected by the venue: the limit is 2"
    assert not trader.venue.account_book.positions  # and the exit went on until it was taken
    assert trader.books_agree()


def test_what_happened_while_halted_does_not_trip_the_breaker_again_once_it_is_lifted() -> None:
    prices = {A: [100, 100, 99, 98, 97, 96, 95, 94, 93, 92], B: [100.0] * 10}
    targets = {0: {A: 0.3}, 1: {A: 0.0}, 2: {A: 0.3}, 4: {A: 0.3}, 6: {A: 0.0}}
    limits = Limits(barriers=Barriers.off(), max_consecutive_losses=1)
    trader = Trader(venue=Venue.over(make_bars(prices)), strategy=Script(targets), limits=limits, on_halt="flatten")
    halts: list[tuple[int, str]] = []

    def person(tick: Tick) -> None:
        bar = trader.venue.exchange.tick.bar
        if trader.ledger.halted and (not halts or halts[-1][1] != "lifted"):
            halts.append((bar, trader.ledger.halted))
            if bar >= 5 and len(halts) < 3:
                trader.ledger.halted = None
                halts.append((bar, "lifted"))

    trader.venue.on_tick = person
    trader.run()
    lifted = next(bar for bar, what in halts if what == "lifted")
    entries = [i for i in trader.venue.submissions if i.side == "buy"]
    assert lifted == 5
    assert len(entries) == 2  # one before, one after: lifted, it trades
    assert trader.ledger.halted == "1 losing trades in a row reached the limit 1"  # and the next loss trips it anew
