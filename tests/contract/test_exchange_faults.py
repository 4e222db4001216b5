"""Every fault of the exchange as the trader's own client meets it: alpaca-py over a socket, against the running exchange."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from cappuccino.adapters.alpaca import rest
from cappuccino.adapters.alpaca.broker import AlpacaBroker
from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.alpaca.rest import Endpoints
from cappuccino.adapters.alpaca.streams import Streams
from cappuccino.core.errors import RetryLater
from cappuccino.exchange.faults import REQUESTS
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import Answered, Gap, OrderUpdate, Refused, Unclear

from ..unit.trading.processes import Exchange, TraderRun, bundle, write_bars
from ..unit.trading.test_kills import journal
from .test_alpaca_protocol import PATIENCE, SYMBOLS, T0, Served, served

BTC = SYMBOLS[0]
D = Decimal
LATER = ("slow", "delayed", "request_late")


@pytest.fixture
def venue() -> Iterator[Served]:
    with served(requests_per_minute=0) as found:
        yield found


@pytest.fixture
def broker(venue: Served) -> AlpacaBroker:
    return AlpacaBroker(credentials(venue), Endpoints.at(venue.url), symbols=SYMBOLS, fees_with_fills=True)


def credentials(venue: Served) -> Credentials:
    keys = venue.account()
    return Credentials(key_id=keys["key_id"], secret_key=keys["secret_key"])


def plan(venue: Served, *script: dict[str, Any]) -> None:
    requests.post(f"{venue.url}/control/v1/faults", json={"script": list(script)}, timeout=PATIENCE).raise_for_status()


def incidents(venue: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requests.get(f"{venue.url}/control/v1/faults", timeout=PATIENCE).json()["incidents"]
    return found


def an_intent(name: str = "cap-1", **fields: Any) -> Intent:
    given = {"symbol": BTC, "side": "buy", "reason": "target", "notional": D(1000), **fields}
    return Intent(client_order_id=name, account="a", trader_uid="u", decision="d", created_at=T0, **given)


@pytest.mark.parametrize(
    ("kind", "answer", "carried_out"),
    [
        ("request_lost", Unclear, False),
        ("answer_lost", Unclear, True),
        ("request_late", Unclear, True),
        ("rate_limited", Refused, False),
        ("error_before", Unclear, False),
        ("error_after", Unclear, True),
        ("html_before", Unclear, False),
        ("html_after", Unclear, True),
        ("slow", Unclear, True),
        ("delayed", Unclear, True),
        ("rejected_size", Refused, False),
    ],
)
def test_what_is_known_of_an_order_is_what_the_fault_leaves_to_know(
    venue: Served, broker: AlpacaBroker, monkeypatch: pytest.MonkeyPatch, kind: str, answer: type, carried_out: bool
) -> None:
    monkeypatch.setattr(rest, "READ_SECONDS", 0.2)
    plan(venue, {"kind": kind, "account": "a", **({"seconds": 0.5} if kind in LATER else {})})
    outcome = broker.submit(an_intent())
    assert isinstance(outcome, answer)
    monkeypatch.setattr(rest, "READ_SECONDS", PATIENCE)
    if kind in ("delayed", "request_late"):
        assert broker.order_by_client_id("cap-1") is None  # it is still under way
        until(lambda: broker.order_by_client_id("cap-1"))
    assert (broker.order_by_client_id("cap-1") is not None) == carried_out
    assert [(told["kind"], told["account"], told["subject"]) for told in incidents(venue)] == [(kind, "a", "cap-1")]
    again = broker.submit(an_intent())
    if carried_out:
        assert isinstance(again, Refused)
        assert again.code == "duplicate"
    else:
        assert isinstance(again, Answered)
    assert venue.ledger()["orders"] == 1


def test_an_order_that_is_sent_again_before_the_first_request_arrives_is_taken_once(
    venue: Served, broker: AlpacaBroker
) -> None:
    plan(venue, {"kind": "request_late", "account": "a", "seconds": 0.5})
    assert isinstance(broker.submit(an_intent()), Unclear)
    assert broker.order_by_client_id("cap-1") is None
    assert isinstance(broker.submit(an_intent()), Answered)
    url = f"{venue.url}/control/v1/faults"
    until(lambda: requests.get(url, timeout=PATIENCE).json()["absorbed"] == {"cap-1": 1})
    assert venue.ledger()["orders"] == 1


@pytest.mark.parametrize("kind", ["request_lost", "answer_lost", "rate_limited", "error_before", "error_after", "html_before"])
def test_a_read_that_goes_wrong_is_a_venue_that_is_away_and_never_an_empty_answer(
    venue: Served, broker: AlpacaBroker, kind: str
) -> None:
    reads: list[Callable[[], object]] = [
        broker.account,
        broker.positions,
        broker.open_orders,
        lambda: broker.order_by_client_id("nothing"),
        lambda: broker.fills_since(T0),
        lambda: broker.latest_quotes([BTC]),
    ]
    for read in reads:
        plan(venue, {"kind": kind, "operation": "read"})
        with pytest.raises(RetryLater):
            read()
        read()
    assert len(incidents(venue)) == len(reads)


def test_a_cancel_whose_answer_is_lost_was_carried_out(venue: Served, broker: AlpacaBroker) -> None:
    outcome = broker.submit(an_intent(notional=None, qty=D(1), type="limit", limit_price=D(10_000), time_in_force="gtc"))
    assert isinstance(outcome, Answered)
    plan(venue, {"kind": "answer_lost", "operation": "cancel"})
    with pytest.raises(RetryLater):
        broker.cancel(outcome.order.venue_order_id)
    assert broker.open_orders() == []


def test_a_rate_limit_says_when_it_is_over(venue: Served) -> None:
    keys = venue.account()
    headers = {"APCA-API-KEY-ID": keys["key_id"], "APCA-API-SECRET-KEY": keys["secret_key"]}
    plan(venue, {"kind": "rate_limited", "operation": "read"})
    answer = requests.get(f"{venue.url}/v2/account", headers=headers, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["code"]) == (429, 42910000)
    assert int(answer.headers["X-RateLimit-Reset"]) > datetime.fromisoformat(venue.state()["market_at"]).timestamp()


def test_a_partial_fill_is_canceled_with_what_it_got(venue: Served, broker: AlpacaBroker) -> None:
    plan(venue, {"kind": "partial_fill", "share": "0.25"})
    outcome = broker.submit(an_intent(notional=None, qty=D("0.4")))
    assert isinstance(outcome, Answered)
    assert (outcome.order.status, outcome.order.filled_qty) == ("canceled", D("0.1"))


def test_the_venues_clock_is_off_once(venue: Served, broker: AlpacaBroker) -> None:
    right = broker.now()
    plan(venue, {"kind": "clock_skew", "seconds": -45})
    assert broker.now() == right - timedelta(seconds=45)
    assert broker.now() == right


def test_a_halted_symbol_has_no_quotes_and_no_fills_until_it_is_traded_again(venue: Served, broker: AlpacaBroker) -> None:
    plan(venue, {"kind": "symbol_halted", "symbol": BTC, "ticks": 2})
    before = broker.now()
    venue.advance(1)
    assert broker.latest_quotes([BTC])[BTC].at == before < broker.now()  # the last one, with its own time
    outcome = broker.submit(an_intent())
    assert isinstance(outcome, Answered)
    assert (outcome.order.status, outcome.order.filled_qty) == ("canceled", 0)
    venue.advance(3)
    assert broker.latest_quotes([BTC])[BTC].at == broker.now()
    traded = broker.submit(an_intent("cap-2"))
    assert isinstance(traded, Answered)
    assert traded.order.status == "filled"


def test_a_balance_changed_by_hand_is_listed_with_its_amount(venue: Served, broker: AlpacaBroker) -> None:
    plan(venue, {"kind": "balance_changed", "account": "a", "asset": "USD", "amount": "-250"})
    before = broker.account().cash_usd
    venue.advance(1)
    (told,) = incidents(venue)
    assert broker.account().cash_usd == before + D(told["amount"]) == before - 250


def test_faults_end_when_they_are_told_to_and_a_bad_plan_changes_nothing(venue: Served, broker: AlpacaBroker) -> None:
    url = f"{venue.url}/control/v1/faults"
    requests.post(url, json={"seed": 1, "rates": {"error_before": 1.0}}, timeout=PATIENCE).raise_for_status()
    with pytest.raises(RetryLater):
        broker.account()
    assert requests.post(url, json={"rates": {"eror": 1}}, timeout=PATIENCE).status_code == 422
    assert requests.post(url, json={"rates": {"price_gap": 0.1}}, timeout=PATIENCE).status_code == 422
    assert requests.get(url, timeout=PATIENCE).json()["plan"]["rates"] == {"error_before": 1.0}
    assert requests.delete(url, timeout=PATIENCE).status_code == 204
    broker.account()
    assert {told["operation"] for told in incidents(venue)} <= set(REQUESTS)


# --- streams --------------------------------------------------------------------------------------


@pytest.fixture
def inbox(venue: Served) -> Iterator[Inbox]:
    found = Inbox()
    streams = Streams(credentials(venue), Endpoints.at(venue.url), symbols=SYMBOLS, inbox=found)
    streams.start()
    yield found
    streams.close()


def heard(inbox: Inbox, count: int) -> list[str]:
    """The next order updates: client order id and what happened."""
    found: list[str] = []
    while len(found) < count:
        event = inbox.get(PATIENCE)
        assert event is not None, found
        if isinstance(event, OrderUpdate):
            found.append(f"{event.client_order_id} {event.report.reason}")
    return found


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def test_events_come_twice_late_or_never(venue: Served, broker: AlpacaBroker, inbox: Inbox) -> None:
    plan(
        venue,
        {"kind": "event_twice"},
        {"kind": "event_late"},
        {"kind": "event_lost", "skip": 1},
    )
    broker.submit(an_intent("one"))
    broker.submit(an_intent("two"))
    broker.submit(an_intent("three"))
    assert heard(inbox, 6) == ["one new", "one new", "two new", "one fill", "three new", "three fill"]
    assert [told["kind"] for told in incidents(venue)] == ["event_twice", "event_late", "event_lost"]


def test_a_stream_that_is_cut_loses_the_fill_and_says_gap_when_it_is_back(
    venue: Served, broker: AlpacaBroker, inbox: Inbox
) -> None:
    plan(venue, {"kind": "stream_cut", "skip": 1})
    broker.submit(an_intent("one"))
    seen: list[str] = []
    while True:
        event = inbox.get(PATIENCE)
        assert event is not None, seen
        if isinstance(event, Gap):
            break
        if isinstance(event, OrderUpdate):
            seen.append(event.report.reason)
    assert "fill" not in seen
    broker.submit(an_intent("two"))
    assert heard(inbox, 2) == ["two new", "two fill"]


def test_a_stream_of_quotes_that_is_cut_says_gap_and_the_quotes_are_asked_for(
    venue: Served, broker: AlpacaBroker, inbox: Inbox
) -> None:
    plan(venue, {"kind": "quotes_cut"})
    venue.advance(1)
    now = broker.now()
    until(lambda: isinstance(inbox.get(PATIENCE), Gap))
    assert broker.latest_quotes([BTC])[BTC].at == now


# --- and the trader -------------------------------------------------------------------------------


@pytest.mark.slow
def test_money_that_came_by_hand_stops_the_trader_and_is_what_the_exchange_lists(database_url: str, tmp_path: Path) -> None:
    history = 40
    exchange = Exchange.start(write_bars(tmp_path / "bars.parquet", bars=history + 30, sd=0.02), history=history)
    script = [{"kind": "balance_changed", "account": "acc", "asset": "USD", "amount": "0.02", "skip": 20}]
    try:
        run = TraderRun.of(bundle(), exchange=exchange, database_url=database_url, artifacts=tmp_path / "artifacts")
        process = run.start(log=tmp_path / "log")
        requests.post(f"{exchange.url}/control/v1/faults", json={"script": script}, timeout=PATIENCE).raise_for_status()
        while not exchange.state()["sessions"]:
            time.sleep(0.1)
        exchange.go()
        assert process.wait(200) == 3
        assert "no event explains it" in (tmp_path / "log").read_text()
        told = requests.get(f"{exchange.url}/control/v1/faults", timeout=PATIENCE).json()["incidents"]
        cash = D(10_000)
        for side, qty, price, fee in journal(database_url, "select side, qty, price, fee from fill"):
            cash += -qty * price if side == "buy" else qty * price - fee
        ledger = exchange.ledger("acc")
        assert D(ledger["cash_usd"]) - cash == D(told[0]["amount"])
        assert len(ledger["fills"]) == len(journal(database_url, "select 1 from fill")) > 0
        orders = ledger["orders"]
        assert run.start(log=tmp_path / "log").wait(200) == 3
        assert exchange.ledger("acc")["orders"] == orders
    finally:
        exchange.process.kill()
        exchange.process.wait()
