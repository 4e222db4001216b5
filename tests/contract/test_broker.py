"""The Broker port: both faces of a real exchange process by their own clients, and the shadow that only reads from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cappuccino.adapters.alpaca import broker as broker_module
from cappuccino.adapters.alpaca import rest
from cappuccino.adapters.alpaca.broker import AlpacaBroker
from cappuccino.adapters.alpaca.feeds import Lockstep, LockstepFeed, open_account
from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.alpaca.rest import Endpoints
from cappuccino.adapters.alpaca.streams import Streams
from cappuccino.adapters.coinbase import rest as coinbase_rest
from cappuccino.adapters.coinbase.broker import CoinbaseBroker
from cappuccino.core.errors import Conflict, InvalidInput, NotFound, RetryLater
from cappuccino.core.money import floor_to
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.venues import ALPACA_MIN_BUY_USD
from cappuccino.exchange.venue import Costs
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.orders import Intent
from cappuccino.trading.ports import Answered, Broker, OrderUpdate, Quote, Refused, Stop, Tick, Unclear
from cappuccino.trading.shadow import ShadowBroker

from ..unit.trading.processes import HOUR, START, SYMBOLS, Exchange, write_bars

D = Decimal
A = SYMBOLS[0]
HISTORY = 40


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """A clock that is never started: the market stands at one instant."""
    bars = write_bars(tmp_path_factory.mktemp("venue") / "bars.parquet", bars=HISTORY + 5)
    started = Exchange.start(bars, history=HISTORY, arguments=("--requests-per-minute", "0"))
    yield started
    started.stop()


@pytest.fixture(params=["alpaca", "coinbase", "shadow"])
def broker(request: pytest.FixtureRequest, exchange: Exchange) -> Broker:
    name = f"{request.param}-{request.node.name[:30].replace('[', '-').rstrip(']')}"
    if request.param == "coinbase":
        return a_coinbase(exchange, name)
    real = an_alpaca(exchange, name)
    if request.param == "alpaca":
        return real
    return ShadowBroker(real, symbols=SYMBOLS, capital_usd=D(10_000), costs=Costs(), fills=())


def an_alpaca(exchange: Exchange, account: str) -> AlpacaBroker:
    credentials = open_account(exchange.url, account, capital_usd="10000", token="")
    return AlpacaBroker(credentials, Endpoints.at(exchange.url), symbols=SYMBOLS, fees_with_fills=True)


def a_coinbase(exchange: Exchange, account: str) -> CoinbaseBroker:
    key = open_account(exchange.url, account, capital_usd="10000", token="", protocol="coinbase")
    credentials = Credentials(key_id=key.key_id, secret_key=key.secret_key)
    return CoinbaseBroker(credentials, coinbase_rest.Endpoints.at(exchange.url), symbols=SYMBOLS)


def an_intent(name: str = "cap-1", *, at: datetime, **fields: Any) -> Intent:
    given = {"symbol": A, "side": "buy", "reason": "target", **fields}
    if "qty" not in given:
        given.setdefault("notional", D("1000.12"))
    return Intent(client_order_id=name, account="acc", trader_uid="u", decision="d", created_at=at, **given)


def test_a_market_buy_by_notional_is_filled_and_told_exactly(broker: Broker) -> None:
    start = broker.now()
    outcome = broker.submit(an_intent(at=start))
    assert isinstance(outcome, Answered)
    order = broker.order_by_venue_id(outcome.order.venue_order_id)
    assert order is not None
    assert (order.client_order_id, order.symbol, order.status) == ("cap-1", A, "filled")
    (fill,) = broker.fills_since(start - timedelta(seconds=1))
    quote = broker.latest_quotes([A])[A]
    assert fill.execution.price > quote.mid
    assert fill.execution.fee is not None
    in_cash, in_units = (fill.execution.fee, D(0)) if fill.execution.fee_asset == "USD" else (D(0), fill.execution.fee)
    assert broker.positions() == {A: fill.execution.qty - in_units}
    assert broker.account().cash_usd == D(10_000) - fill.execution.qty * fill.execution.price - in_cash
    assert D(10_000) - broker.account().cash_usd <= D("1000.12")
    assert order.filled_qty == fill.execution.qty
    assert broker.open_orders() == []


def test_everything_that_was_bought_can_be_sold_to_the_last_increment(broker: Broker) -> None:
    start = broker.now()
    broker.submit(an_intent(at=start))
    held = broker.positions()[A]
    outcome = broker.submit(an_intent("cap-2", at=start, side="sell", qty=held))
    assert isinstance(outcome, Answered)
    assert broker.positions() == {}
    told = [f.execution for f in broker.fills_since(start - timedelta(seconds=1))]
    assert [e.qty for e in told][1] == held
    assert all(e.fee for e in told)


def test_a_client_order_id_is_acted_on_once_and_can_be_looked_up(broker: Broker) -> None:
    start = broker.now()
    first = broker.submit(an_intent(at=start))
    again = broker.submit(an_intent(at=start))
    found = broker.order_by_client_id("cap-1")
    assert found is not None
    assert isinstance(first, Answered)
    if isinstance(again, Answered):  # a venue that gives the first order back
        assert again.order.venue_order_id == first.order.venue_order_id == found.venue_order_id
    else:
        assert isinstance(again, Refused)
        assert again.code == "duplicate"
    assert broker.order_by_venue_id(found.venue_order_id) == found
    assert found.notional is None or found.notional == D("1000.12")
    assert len(broker.fills_since(start - timedelta(seconds=1))) == 1


def test_what_is_not_there_is_a_definite_nothing(broker: Broker) -> None:
    assert broker.order_by_client_id("cap-unknown") is None
    assert broker.positions() == {}
    broker.cancel("00000000-0000-0000-0000-000000000000")


def test_more_than_the_balance_and_less_than_the_minimum_are_definite_refusals(broker: Broker) -> None:
    start = broker.now()
    for intent in (
        an_intent("big", at=start, notional=D(20_000)),
        an_intent("small", at=start, notional=D("0.5")),
        an_intent("none", at=start, side="sell", qty=D(1)),
    ):
        assert isinstance(broker.submit(intent), Refused)
    assert broker.fills_since(start - timedelta(seconds=1)) == []


def test_rules_quotes_and_bars_of_the_market(broker: Broker) -> None:
    rules = broker.rules(SYMBOLS)
    assert tuple(rules) == SYMBOLS
    assert rules[A].min_trade_increment == D("0.000000001")
    with pytest.raises(NotFound, match="ZZZ/USD"):
        broker.rules([A, "ZZZ/USD"])
    now = broker.now()
    assert broker.latest_quotes(SYMBOLS).keys() == set(SYMBOLS)
    end = START + HOUR * HISTORY
    assert now.timestamp() == end
    bars = broker.closed_bars(SYMBOLS, Timeframe(HOUR), start=end - 10 * HOUR, end=end)
    assert bars.symbols == SYMBOLS
    assert bars.ts.tolist() == [end - k * HOUR for k in range(10, 0, -1)]
    assert not bars.missing.any()


def test_quantities_with_more_digits_than_a_float_has_arrive_exactly(exchange: Exchange) -> None:
    broker = an_alpaca(exchange, "digits")
    body = broker_module._request(an_intent(at=broker.now(), side="sell", qty=D("123456789.123456789")))
    assert body["qty"] == "123456789.123456789"
    assert body["client_order_id"] == "cap-1"
    held = broker.submit(an_intent(at=broker.now(), notional=D("7777.777777777")))
    assert isinstance(held, Answered)
    assert held.order.notional == D("7777.777777777")


def test_an_account_is_opened_once_and_not_with_another_capital(exchange: Exchange) -> None:
    first = open_account(exchange.url, "once", capital_usd="10000", token="")
    assert open_account(exchange.url, "once", capital_usd="10000", token="") == first
    assert first.secret_key not in repr(first)
    with pytest.raises(Conflict, match="another name"):
        open_account(exchange.url, "once", capital_usd="5000", token="")


def test_a_wrong_key_is_for_a_person_and_an_exchange_that_is_down_is_not(exchange: Exchange) -> None:
    wrong = AlpacaBroker(
        Credentials(key_id="nobody", secret_key="x"), Endpoints.at(exchange.url), symbols=SYMBOLS, fees_with_fills=True
    )
    with pytest.raises(InvalidInput, match="refuses the key"):
        wrong.account()
    down = AlpacaBroker(
        Credentials(key_id="k", secret_key="s"), Endpoints.at("http://127.0.0.1:9"), symbols=SYMBOLS, fees_with_fills=True
    )
    with pytest.raises(RetryLater):
        down.positions()
    with pytest.raises(RetryLater):
        open_account("http://127.0.0.1:9", "x", capital_usd="1", token="")


# --- a venue that misbehaves ------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


def says(status: int, body: str, kind: str = "application/json") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def is_slow(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)
    says(200, "{}")(handler)


Misbehaving = tuple[AlpacaBroker | CoinbaseBroker, list[Answer], list[str]]


@pytest.fixture(params=["alpaca"])
def misbehaving(request: pytest.FixtureRequest) -> Iterator[Misbehaving]:
    """A broker whose venue gives the queued answers, and the requests it got."""
    answers: list[Answer] = []
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

        do_POST = do_DELETE = do_GET

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    key = Credentials(key_id="k", secret_key="A" * 43 + "=")
    broker: AlpacaBroker | CoinbaseBroker = (
        AlpacaBroker(Credentials(key_id="k", secret_key="s"), Endpoints.at(url), symbols=SYMBOLS, fees_with_fills=True)
        if request.param == "alpaca"
        else CoinbaseBroker(key, coinbase_rest.Endpoints.at(url), symbols=SYMBOLS)
    )
    yield broker, answers, asked
    server.shutdown()
    server.server_close()


HTML = "<html><body>Bad gateway</body></html>"
UNCLEAR = {
    "502 with html": says(502, HTML, "text/html"),
    "504": says(504, '{"message":"timeout"}'),
    "500 json": says(500, '{"code":50010000,"message":"internal"}'),
    "422 with html": says(422, HTML, "text/html"),
    "200 with html": says(200, HTML, "text/html"),
    "200 empty": says(200, ""),
    "200 without fields": says(200, '{"id":"x"}'),
    "200 null": says(200, "null"),
    "hangs up": hangs_up,
    "slow": is_slow,
}


@pytest.mark.parametrize("misbehaving", ["alpaca", "coinbase"], indirect=True)
@pytest.mark.parametrize("name", UNCLEAR)
def test_what_proves_nothing_is_unclear_and_is_asked_once(
    misbehaving: Misbehaving, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "READ_SECONDS", 0.3)
    monkeypatch.setattr(coinbase_rest, "READ_SECONDS", 0.3)
    broker, answers, asked = misbehaving
    answers.append(UNCLEAR[name])
    outcome = broker.submit(an_intent(at=datetime.now().astimezone()))
    assert isinstance(outcome, Unclear)
    assert outcome.message
    assert asked in (["POST /v2/orders"], ["POST /api/v3/brokerage/orders"])
    for read in (broker.positions, broker.account, lambda: broker.order_by_client_id("cap-1"), broker.now):
        with pytest.raises((RetryLater, InvalidInput)) as caught:
            read()
        if not name.startswith("422"):
            assert isinstance(caught.value, RetryLater)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (
            403,
            '{"code":40310000,"message":"insufficient balance for USD","available":"1","balance":"1","symbol":"USD"}',
            "40310000",
        ),
        (422, '{"code":42210000,"message":"qty must be > 0"}', "42210000"),
        (422, '{"code":40010001,"message":"client_order_id must be unique"}', "duplicate"),
        (429, '{"code":42910000,"message":"rate limit exceeded"}', "42910000"),
        (401, '{"code":40110000,"message":"request is not authorized"}', "40110000"),
        (400, '{"message":"no code here"}', "400"),
    ],
)
def test_a_definite_refusal_is_a_refusal_and_is_not_repeated(
    misbehaving: Misbehaving, status: int, body: str, code: str
) -> None:
    broker, answers, asked = misbehaving
    answers.append(says(status, body))
    outcome = broker.submit(an_intent(at=datetime.now().astimezone()))
    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert len(asked) == 1


@pytest.mark.parametrize("misbehaving", ["coinbase"], indirect=True)
@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, '{"success":false,"error_response":{"error":"INSUFFICIENT_FUND","message":"no"}}', "INSUFFICIENT_FUND"),
        (
            200,
            '{"success":false,"error_response":{"error":"X","new_order_failure_reason":"DUPLICATE_CLIENT_ORDER_ID"}}',
            "duplicate",
        ),
        (400, '{"error":"INVALID_ARGUMENT","message":"account is not available"}', "INVALID_ARGUMENT"),
        (401, "Unauthorized\n", "401"),
        (403, '{"error":"PERMISSION_DENIED"}', "PERMISSION_DENIED"),
        (429, '{"error":"RATE_LIMIT_EXCEEDED"}', "RATE_LIMIT_EXCEEDED"),
    ],
)
def test_what_coinbase_refuses_is_a_refusal_and_is_not_repeated(
    misbehaving: Misbehaving, status: int, body: str, code: str
) -> None:
    broker, answers, asked = misbehaving
    answers.append(says(status, body, "application/json" if body.startswith("{") else "text/plain"))
    outcome = broker.submit(an_intent(at=datetime.now().astimezone()))
    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert len(asked) == 1


def test_not_found_is_nothing_only_when_the_venue_says_so_in_json(
    misbehaving: Misbehaving,
) -> None:
    broker, answers, _ = misbehaving
    answers.append(says(404, '{"code":40410000,"message":"order not found"}'))
    assert broker.order_by_client_id("cap-1") is None
    answers[0] = says(404, HTML, "text/html")
    with pytest.raises(RetryLater):
        broker.order_by_client_id("cap-1")


# --- streams ----------------------------------------------------------------------------------------


def test_both_streams_and_the_lockstep_feed_one_queue(tmp_path: Path) -> None:
    bars = write_bars(tmp_path / "bars.parquet", bars=HISTORY + 3)
    exchange = Exchange.start(bars, history=HISTORY)
    inbox = Inbox()
    credentials = open_account(exchange.url, "streamed", capital_usd="10000", token="")
    endpoints = Endpoints.at(exchange.url)
    streams = Streams(credentials, endpoints, symbols=SYMBOLS, inbox=inbox)
    feed = LockstepFeed(Lockstep(exchange.url, token=""), "streamed", inbox=inbox, streams=streams)
    broker = AlpacaBroker(credentials, endpoints, symbols=SYMBOLS, fees_with_fills=True)
    try:
        feed.start()
        exchange.go()
        seen: list[Any] = []
        sent = False

        def of(kind: type) -> list[Any]:
            return [event for event in seen if isinstance(event, kind)]

        due: Tick | None = None
        while not of(Stop):
            event = feed.next(10.0)
            assert event is not None, f"nothing more came; without a quote: {due}"
            seen.append(event)
            if isinstance(event, Tick):
                due = event
                if not sent:
                    sent = isinstance(broker.submit(an_intent(at=event.at)), Answered)
            if due is not None and any(quote.at >= due.at for quote in of(Quote)):  # streams may be later than the lockstep
                feed.done(due, until=None)
                due = None
        ticks = of(Tick)
        assert [t.number for t in ticks] == list(range(len(ticks)))
        assert [t.bar_closed for t in ticks].count(True) == 4
        assert {q.symbol for q in of(Quote)} == set(SYMBOLS)
        updates = of(OrderUpdate)
        (fill,) = [u.fill for u in updates if u.fill is not None]
        assert {u.client_order_id for u in updates} == {"cap-1"}
        (told,) = broker.fills_since(ticks[0].at - timedelta(seconds=1))
        assert (told.execution.execution_id, told.execution.qty) == (fill.execution.execution_id, fill.execution.qty)
        assert floor_to(told.execution.qty, D("0.000000001")) == told.execution.qty
        assert of(Stop)[0].finished
    finally:
        feed.close()
        exchange.stop()


def test_the_smallest_buy_is_that_of_the_venue_where_it_names_one(exchange: Exchange) -> None:
    credentials = open_account(exchange.url, "smallest-buy", capital_usd="10000", token="")
    broker = AlpacaBroker(
        credentials, Endpoints.at(exchange.url), symbols=SYMBOLS, fees_with_fills=True, min_buy_usd=ALPACA_MIN_BUY_USD
    )
    rules = broker.rules([A])[A]
    assert (rules.min_notional, rules.min_buy_notional) == (1, 10)
