"""On a market that does not wait: what is held is guarded whatever is away, nothing is traded late, nobody is flooded."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from cappuccino.adapters.alpaca.feeds import WallClockFeed
from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.core.clock import FixedClock
from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.trading import session
from cappuccino.trading.ports import Gap, Quote, Stop, Tick

from .builders import HOUR, SYMBOLS, Script, Trader, answer_lost, make_bars, rate_limited
from .streaming import StreamingVenue

A, B = SYMBOLS
STOP = Limits(barriers=Barriers(stop=0.03, trail=None))
AWAY = RetryLater("the venue is away (502: Bad Gateway)")
REFUSED = InvalidInput("quotes: the venue refuses the key (401: unauthorized): correct the account's secret")
READS = ("clock", "account", "positions", "order", "orders", "fills", "quotes", "bars")
FALLS_AT_5 = {A: [100.0] * 5 + [50.0] * 3, B: [100.0] * 8}
FLAT = {A: [100.0] * 9, B: [100.0] * 9}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IDLE_SECONDS", 2.0)


def at(hour: int, minute: int = 0, second: float = 0) -> datetime:
    return datetime(2024, 1, 1, hour, tzinfo=UTC) + timedelta(minutes=minute, seconds=second)


def trader_on(
    prices: Mapping[str, Sequence[float]], targets: Mapping[int, Mapping[str, float]], *, limits: Limits = STOP, **venue: Any
) -> Trader:
    """Decides from 03:00 on, when the first bar after the start has closed. Prices jump at the open of a bar."""
    bars = make_bars(prices)
    bars.open[:] = bars.high[:] = bars.low[:] = bars.close
    streaming = StreamingVenue.over(bars)
    for name, value in venue.items():
        setattr(streaming, name, value)
    return Trader(venue=streaming, strategy=Script(targets), limits=limits, on_halt="hold")


def run(trader: Trader, events: Mapping[datetime, Any]) -> Stop:
    assert isinstance(trader.venue, StreamingVenue)
    trader.venue.at = dict(events)
    return trader.run()


def fail(trader: Trader, error: Exception, *reads: str) -> Any:
    return lambda: trader.venue.refused.update(dict.fromkeys(reads or READS, error))


def back(trader: Trader) -> Any:
    return trader.venue.refused.clear


def reconnect(trader: Trader) -> Any:
    return lambda: trader.venue.inbox.append(Gap(stream="orders"))


def together(*acts: Any) -> Any:
    return lambda: [act() for act in acts]


def sent(trader: Trader) -> list[tuple[str, str]]:
    return [(intent.symbol, intent.reason) for intent in trader.venue.submissions]


def reads_between(trader: Trader, first: datetime, last: datetime) -> list[tuple[float, str]]:
    assert isinstance(trader.venue, StreamingVenue)
    origin = trader.venue._origin
    return [(t, what) for t, what in trader.venue.asked if first <= origin + timedelta(seconds=t) <= last]


def test_it_trades_on_a_market_that_does_not_wait() -> None:
    trader = trader_on(FALLS_AT_5, {0: {A: 0.3}})
    assert run(trader, {}).finished
    assert sent(trader) == [(A, "target"), (A, "stop_loss")]
    assert trader.books_agree()
    assert [d.data_age_seconds for d in trader.ledger.decisions] == pytest.approx([5.0] * len(trader.ledger.decisions), abs=15)


@pytest.mark.parametrize("error", [AWAY, REFUSED])
def test_stops_are_looked_at_while_a_gap_cannot_be_reconciled(error: Exception) -> None:
    trader = trader_on(FALLS_AT_5, {0: {A: 0.3}})
    lost = together(fail(trader, error, "clock", "fills", "orders", "account"), reconnect(trader))
    degraded: list[Any] = []

    def look() -> None:
        assert trader.health is not None
        degraded.append(trader.health.report()[1]["degraded"])

    run(trader, {at(4, 30): lost, at(4, 50): look, at(6, 30): back(trader), at(7): look})
    exits = [i for i in trader.venue.submissions if i.reason == "stop_loss"]
    assert exits[0].created_at < at(5, 1)  # seconds after the price fell, not when the gap was closed
    assert trader.books_agree()
    assert degraded == [str(error) if error is REFUSED else None, None]


def test_stops_are_looked_at_while_nothing_can_be_written_though_the_lease_goes_on() -> None:
    trader = trader_on(FALLS_AT_5, {0: {A: 0.3}})
    record, journal = trader.ledger.record, trader.ledger.journal
    broken: list[bool] = []

    def writable() -> None:
        if broken:
            raise RetryLater("canceling statement due to statement timeout")

    def refuse(**rows: Any) -> None:
        writable()
        record(**rows)

    def refuse_intents(*intents: Any, state: Any) -> None:
        writable()
        journal(*intents, state=state)

    def unwritten() -> None:
        broken.append(True)
        desk = begun._in.desk
        desk.blotter.journal_later(list(trader.ledger.intents.values()))

    trader.ledger.record, trader.ledger.journal = refuse, refuse_intents  # type: ignore[method-assign]
    begun = trader.session()
    assert isinstance(trader.venue, StreamingVenue)
    trader.venue.at = {at(4, 30): unwritten, at(6): broken.clear}
    begun.run()
    exits = [i for i in trader.venue.submissions if i.reason == "stop_loss"]
    assert exits[0].created_at < at(5, 1)
    assert trader.books_agree()


@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.parametrize("answer", [None, answer_lost])
def test_an_exit_whose_end_is_not_told_keeps_no_other_waiting_and_is_sent_once(mute: bool, answer: Any) -> None:
    prices = {A: [100.0] * 5 + [50.0] * 3, B: [100.0] * 5 + [50.0] * 3}
    trader = trader_on(prices, {0: {A: 0.3, B: 0.3}}, mute=mute, faults={2: answer} if answer else {})
    run(trader, {at(4, 30): fail(trader, AWAY), at(5, 20): back(trader)})
    exits = [i for i in trader.venue.submissions if i.reason == "stop_loss"]
    assert {(i.symbol, i.created_at < at(5, 1)) for i in exits} == {(A, True), (B, True)}
    assert len(exits) == len({i.client_order_id for i in exits}) == 2
    assert trader.books_agree()


@pytest.mark.parametrize("read", ["quotes", "bars", "fills", "order", "account"])
def test_a_read_that_the_venue_refuses_while_something_is_held_is_made_again_later(read: str) -> None:
    trader = trader_on(FALLS_AT_5, {0: {A: 0.3}, 1: {B: 0.3}})
    both = together(fail(trader, REFUSED, read), reconnect(trader))
    assert run(trader, {at(3, 30): both, at(4, 30): back(trader)}).finished
    assert (A, "stop_loss") in sent(trader)
    assert trader.books_agree()


def test_a_read_that_the_venue_refuses_while_nothing_is_held_ends_the_trader() -> None:
    trader = trader_on(FALLS_AT_5, {})
    with pytest.raises(InvalidInput, match="refuses the key"):
        run(trader, {at(3, 30): fail(trader, REFUSED, "bars")})


def test_bars_missed_while_the_venue_was_away_are_not_traded_late() -> None:
    churn = {n: {A: 0.3 if n % 2 == 0 else 0.0} for n in range(12)}
    trader = trader_on(FLAT, churn, limits=Limits(barriers=Barriers.off()))
    run(trader, {at(3, 30): fail(trader, AWAY), at(7, 30): back(trader)})
    decided = [d.bar_at for d in trader.ledger.decisions]
    assert decided == [at(2), at(6), at(7)]
    (late,) = [d for d in trader.ledger.decisions if d.bar_at == at(6)]
    assert late.data_age_seconds > 1700  # 07:00 was the close, 07:30 the moment
    for intent in trader.venue.submissions:
        decision = datetime.fromisoformat(intent.decision)
        assert decision + timedelta(hours=1) <= intent.created_at < decision + timedelta(hours=2)
    assert trader.books_agree()


def test_a_decision_that_a_newer_bar_overtook_is_ended_before_the_next_is_made() -> None:
    trader = trader_on(FLAT, {0: {A: 0.2, B: 0.2}}, limits=Limits(barriers=Barriers.off()))
    trader.venue.on_submit = lambda intent: fail(trader, AWAY)()
    trader.venue.faults, trader.venue.mute = {0: answer_lost}, True
    run(trader, {at(4, 30): together(back(trader), lambda: setattr(trader.venue, "on_submit", lambda intent: None))})
    assert sent(trader)[0] == (A, "target")
    assert (B, "target") not in sent(trader)
    refused = [r["rule"] for d in trader.ledger.decisions for r in d.refusals]
    assert "late" in refused
    assert {str(order.state) for order in trader.ledger.load().orders} <= {"FILLED", "DENIED", "CANCELED"}
    assert trader.books_agree()


@pytest.mark.parametrize("gap", [True, False])
def test_a_venue_that_is_away_is_asked_after_pauses_while_quotes_stream(gap: bool) -> None:
    trader = trader_on(FLAT, {0: {A: 0.3}}, quote_seconds=0.5)
    limited = RetryLater("the venue is away (42910000: rate limit exceeded)", after_seconds=30.0)
    acts = [fail(trader, limited), *([reconnect(trader)] if gap else [])]
    run(trader, {at(3, 58): together(*acts), at(4, 9): back(trader), at(4, 12): lambda: trader.venue.stop("enough")})
    times = [t for t, _ in reads_between(trader, at(3, 58) if gap else at(4, 0, 5), at(4, 8, 55))]
    assert len(times) > 10
    assert min(later - earlier for earlier, later in pairwise(times)) >= 30.0


def test_fees_that_are_not_posted_yet_are_asked_for_after_pauses() -> None:
    trader = trader_on(FALLS_AT_5, {0: {A: 0.3}})
    fills_since, since = trader.venue.fills_since, []

    def late(when: datetime) -> Any:
        fills = fills_since(when)
        since.extend([trader.venue.time.now] if fills else [])
        return fills if not since or trader.venue.time.now - since[0] > 20 else []

    trader.venue.fills_since = late  # type: ignore[method-assign]
    flood = lambda: setattr(trader.venue, "quote_seconds", 0.01)  # noqa: E731
    run(trader, {at(3): flood, at(3, 1): lambda: trader.venue.stop("enough")})
    assert len([what for _, what in reads_between(trader, at(3), at(3, 2)) if what == "fills"]) < 40
    assert trader.books_agree()


def test_a_stop_is_heard_while_the_venue_is_away() -> None:
    trader = trader_on(FLAT, {})
    acts = together(fail(trader, AWAY), reconnect(trader))
    stop = run(trader, {at(3, 30): acts, at(3, 40): lambda: trader.venue.stop("SIGTERM")})
    assert stop.reason == "SIGTERM"
    assert isinstance(trader.venue, StreamingVenue)
    assert trader.venue.clock < at(3, 40, 5)


def test_a_rejected_exit_is_tried_again_while_the_stream_is_silent() -> None:
    trader = trader_on(FALLS_AT_5, {0: {A: 0.3}}, limits=replace(STOP, max_rejected_orders=0))
    trader.venue.faults = dict.fromkeys(range(1, 4), rate_limited)

    def silence() -> None:
        assert isinstance(trader.venue, StreamingVenue)
        trader.venue.silent = set(SYMBOLS)

    run(trader, {at(4, 30): silence})
    tries = [reads for reads in sent(trader) if reads == (A, "stop_loss")]
    assert len(tries) == 4
    sold = [f for f in trader.ledger.fills.values() if f.side == "sell"]
    assert sold[0].filled_at < at(5, 5)


def test_a_silent_symbol_is_asked_for_while_another_one_ticks() -> None:
    trader = trader_on(FALLS_AT_5, {0: {A: 0.3, B: 0.3}}, quote_seconds=2.0)

    def silence() -> None:
        assert isinstance(trader.venue, StreamingVenue)
        trader.venue.silent = {A}

    run(trader, {at(4, 30): silence})
    sold = [i for i in trader.venue.submissions if i.reason == "stop_loss"]
    assert sold[0].created_at < at(5, 1)
    asked = [t for t, what in reads_between(trader, at(4, 30), at(4, 40)) if what == "quotes"]
    assert 40 <= len(asked) <= 61  # once in ten seconds


def wide(trader: Trader, bid: str, ask: str) -> Any:
    assert isinstance(trader.venue, StreamingVenue)
    return lambda: trader.venue.quoted.update({A: (Decimal(bid), Decimal(ask))})  # type: ignore[attr-defined]


def narrow(trader: Trader) -> Any:
    return lambda: trader.venue.quoted.clear()  # type: ignore[attr-defined]


def test_one_wide_quote_sells_nothing_moves_no_peak_and_halts_nobody() -> None:
    limits = Limits(barriers=Barriers(stop=0.03, trail=0.02, trail_arms_at=0.01), max_drawdown=0.05)
    trader = trader_on(FLAT, {0: {A: 0.3}}, limits=limits, quote_seconds=1.0)

    def once(bid: int, ask: int) -> Any:
        assert isinstance(trader.venue, StreamingVenue)
        venue = trader.venue
        return lambda: venue.inbox.append(Quote(symbol=A, bid=Decimal(bid), ask=Decimal(ask), at=venue.clock))

    run(trader, {at(3, 30): once(1, 100), at(3, 31): once(100, 300)})
    assert sent(trader) == [(A, "target")]
    assert trader.ledger.halted is None


@pytest.mark.parametrize("how", ["streams on", "silent", "silent, and nobody answers"])
def test_a_wide_quote_that_is_confirmed_sells_within_seconds(how: str) -> None:
    trader = trader_on(FLAT, {0: {A: 0.3}}, quote_seconds=1.0)
    assert isinstance(trader.venue, StreamingVenue)
    acts = [wide(trader, "60", "90")]
    if how != "streams on":
        acts.append(lambda: trader.venue.inbox.append(trader.venue._quote(A)))
        acts.append(lambda: setattr(trader.venue, "silent", {A}))
    if how == "silent, and nobody answers":
        acts.append(fail(trader, AWAY, "quotes"))
    run(trader, {at(3, 30): together(*acts), at(3, 40): back(trader)})
    (exit_,) = [i for i in trader.venue.submissions if i.reason == "stop_loss"]
    assert at(3, 30) <= exit_.created_at <= at(3, 30, 5)


def left_with_dust() -> Trader:
    """Holds less than the venue sells from now on."""
    trader = trader_on(FLAT, {0: {A: 0.3}})
    run(trader, {at(3, 30): lambda: trader.venue.stop("SIGTERM")})
    asked = trader.venue.rules
    trader.venue.rules = lambda symbols: {  # type: ignore[method-assign]
        symbol: replace(rules, min_notional=Decimal(5000)) for symbol, rules in asked(symbols).items()
    }
    return trader


def test_what_is_worth_less_than_the_venue_sells_does_not_keep_flatten_from_its_end() -> None:
    trader = left_with_dust()
    trader.session().flatten()
    assert trader.venue.account_book.positions
    assert sent(trader) == [(A, "target")]


def test_what_is_worth_less_than_the_venue_sells_is_not_flattened_over_and_over_while_halted() -> None:
    trader = left_with_dust()
    trader.on_halt, trader.ledger.halted = "flatten", "by a person"
    run(trader, {at(3, 50): lambda: trader.venue.stop("enough")})
    assert not [what for _, what in reads_between(trader, at(3, 31), at(3, 50)) if what == "quotes"]
    assert trader.ledger.state is not None
    assert not trader.ledger.state["refusals"]


class _Streams:
    def start(self) -> None: ...

    def close(self) -> None: ...


def test_the_wall_clock_ticks_after_each_close_and_skips_what_was_slept_through() -> None:
    clock = FixedClock(at(2, 59, 59.5))
    inbox = Inbox()
    feed = WallClockFeed(Timeframe(HOUR), clock=clock, inbox=inbox, streams=_Streams(), grace_seconds=5.0)
    feed.start()
    try:
        clock.advance(3.5)  # closed, and in the grace
        assert feed.next(0.1) is None
        clock.advance(3)
        assert feed.next(5.0) == Tick(at=at(3), bar_closed=True, age_seconds=6.0)
        clock.advance(3.5 * HOUR)
        assert feed.next(5.0) == Tick(at=at(6), bar_closed=True, age_seconds=1806.0)
        assert feed.next(0.1) is None
        clock.advance(0.5 * HOUR)
        threading.Event().wait(1.2)
        clock.advance(20)  # it waited in the queue
        assert feed.next(5.0) == Tick(at=at(7), bar_closed=True, age_seconds=26.0)
    finally:
        feed.close()
