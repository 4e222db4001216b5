"""Coinbase's protocol, as its own unmodified SDK sees it: coinbase-advanced-py against the simulated exchange over a socket."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
import requests
import websockets.exceptions
from coinbase import jwt_generator
from coinbase.rest import RESTClient
from coinbase.websocket import WebsocketResponse, WSClient, WSUserClient, websocket_base
from websockets.legacy.client import connect as legacy_connect
from websockets.sync.client import connect

from cappuccino.adapters.coinbase.broker import CoinbaseBroker
from cappuccino.adapters.coinbase.rest import Endpoints, rest_client
from cappuccino.adapters.coinbase.streams import Streams
from cappuccino.adapters.venue_server.coinbase import keys as server_keys
from cappuccino.adapters.venue_server.coinbase import streams as server_streams
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.orders import Intent, OrderState
from cappuccino.trading.ports import Answered, Gap, OrderUpdate, Quote, Refused

from .test_alpaca_protocol import HISTORY, PATIENCE, SYMBOLS, T0, Served, market, served

D = Decimal
API = "/api/v3/brokerage"


class Venue:
    """The exchange's second face: its accounts, and a hand on its clock."""

    def __init__(self, served_: Served) -> None:
        self.served = served_
        self.url = served_.url
        self.endpoints = Endpoints.at(served_.url)

    def credentials(self, name: str = "a", key_type: str = "ed25519") -> Credentials:
        asked = {"name": name, "capital_usd": 100_000, "protocol": "coinbase", "key_type": key_type}
        answer = requests.post(f"{self.url}/control/v1/accounts", json=asked, timeout=PATIENCE).json()
        return Credentials(key_id=answer["key_id"], secret_key=answer["secret_key"])

    def rest(self, name: str = "a") -> RESTClient:
        return rest_client(self.credentials(name), self.endpoints)

    def broker(self, name: str = "a") -> CoinbaseBroker:
        return CoinbaseBroker(self.credentials(name), self.endpoints, symbols=SYMBOLS)

    def ledger(self, name: str = "a") -> dict[str, Any]:
        return self.served.ledger(name)


@contextmanager
def opened(**options: Any) -> Iterator[Venue]:
    with served(**options) as found:
        yield Venue(found)


@pytest.fixture
def venue() -> Iterator[Venue]:
    with opened() as found:
        yield found


def an_intent(name: str = "cap-1", **fields: Any) -> Intent:
    given = {"symbol": SYMBOLS[0], "side": "buy", "reason": "target", **fields}
    if "qty" not in given:
        given.setdefault("notional", D("1000.12"))
    start = T0 + timedelta(hours=HISTORY)
    return Intent(client_order_id=name, account="a", trader_uid="u", decision="d", created_at=start, **given)


# --- orders -----------------------------------------------------------------------------------------


def test_a_market_order_includes_its_fee_and_the_fee_is_in_quote_currency(venue: Venue) -> None:
    rest = venue.rest()
    answer = rest.market_order_buy("mine", "BTC-USD", quote_size="1000.12")
    assert answer.success is True
    assert answer.success_response["client_order_id"] == "mine"
    order = rest.get_order(answer.order_id).order
    assert (order.status, order.side, order.size_in_quote, order.order_configuration.market_market_ioc.quote_size) == (
        "FILLED",
        "BUY",
        True,
        "1000.12",
    )
    (fill,) = rest.get_fills().fills
    price, commission = D(fill.price), D(fill.commission)
    assert price == (D("40595.5") * D("1.001")).quantize(D("0.01"))
    assert D(fill.size) == D(order.filled_value)
    assert 0 <= D("1000.12") - D(fill.size) - commission < price * D("1e-9") * 2
    assert commission == (D(fill.size) * D("0.0025")).quantize(D("1e-9"), rounding="ROUND_DOWN")
    wallets = {each.currency: each for each in rest.get_accounts().accounts}
    assert D(wallets["USD"].available_balance["value"]) == 100_000 - D(fill.size) - commission
    assert wallets["BTC"].available_balance["value"] == order.filled_size
    ledger = venue.ledger()
    assert ledger["cash_usd"] == wallets["USD"].available_balance["value"]
    assert ledger["fills"][0]["fee_asset"] == "USD"


def test_everything_that_was_bought_can_be_sold_and_the_fee_comes_out_of_it(venue: Venue) -> None:
    rest = venue.rest()
    rest.market_order_buy("in", "BTC-USD", base_size="0.5")
    before = D(venue.ledger()["cash_usd"])
    sold = rest.market_order_sell("out", "BTC-USD", base_size="0.5")
    order = rest.get_order(sold.order_id).order
    fee = D(order.total_fees)
    assert fee == D(order.filled_value) * D("0.0025")
    assert D(venue.ledger()["cash_usd"]) == before + D(order.filled_value) - fee == before + D(order.total_value_after_fees)
    assert venue.ledger()["positions"] == {}


def test_a_limit_order_holds_back_its_fee_too_rests_is_edited_and_canceled(venue: Venue) -> None:
    rest = venue.rest()
    made = rest.limit_order_gtc_buy("rest", "BTC-USD", base_size="0.1", limit_price="39000")
    order = rest.get_order(made.order_id).order
    assert (order.status, order.outstanding_hold_amount) == ("OPEN", "3909.75")
    assert rest.edit_order(made.order_id, size="0.2", price="38000").success is True
    edited = rest.get_order(made.order_id).order
    assert edited.order_configuration.limit_limit_gtc.to_dict() == {"base_size": "0.2", "limit_price": "38000"}
    assert edited.outstanding_hold_amount == "7619"
    assert [each.order_id for each in rest.list_orders(order_status=["OPEN"]).orders] == [made.order_id]
    told = rest.cancel_orders([made.order_id, "00000000-0000-0000-0000-000000000000"]).results
    assert [(each.success, each.failure_reason) for each in told] == [
        (True, "UNKNOWN_CANCEL_FAILURE_REASON"),
        (False, "UNKNOWN_CANCEL_ORDER"),
    ]
    assert rest.get_order(made.order_id).order.status == "CANCELLED"
    refused = rest.edit_order(made.order_id, size="0.3", price="38000")
    assert refused.errors[0].edit_failure_reason == "ONLY_OPEN_ORDERS_CAN_BE_EDITED"
    assert rest.get_accounts().accounts[0].hold["value"] == "0"


def test_a_refusal_is_told_with_200_and_says_why(venue: Venue) -> None:
    rest = venue.rest()

    def why(**order: Any) -> str:
        answer = rest.create_order("x", order.pop("product_id", "BTC-USD"), order.pop("side", "BUY"), order)
        assert answer.success is False
        return str(answer.error_response["error"])

    assert why(market_market_ioc={"quote_size": "100001"}) == "INSUFFICIENT_FUND"
    assert why(market_market_ioc={"base_size": "0.000001"}) == "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL"
    assert why(market_market_ioc={"quote_size": "10.001"}) == "INVALID_SIZE_PRECISION"
    assert why(market_market_ioc={"base_size": "1"}, side="SELL") == "INSUFFICIENT_FUND"
    assert why(market_market_ioc={"base_size": "1"}, product_id="DOGE-USD") == "INVALID_PRODUCT_ID"
    assert why(limit_limit_gtc={"base_size": "1", "limit_price": "50000", "post_only": True}) == "INVALID_LIMIT_PRICE_POST_ONLY"
    assert why(twap={"base_size": "1"}) == "UNSUPPORTED_ORDER_CONFIGURATION"
    assert venue.ledger()["orders"] == 0


def test_a_preview_tells_what_the_order_then_costs(venue: Venue) -> None:
    rest = venue.rest()
    preview = rest.preview_market_order_buy("BTC-USD", quote_size="500")
    assert preview.errs == []
    rest.market_order_buy("then", "BTC-USD", quote_size="500")
    (fill,) = rest.get_fills().fills
    assert D(preview.base_size) == D(venue.ledger()["fills"][0]["qty"])
    assert abs(D(preview.commission_total) - D(fill.commission)) < D("1e-9")
    assert rest.preview_market_order_buy("BTC-USD", quote_size="200000").errs == ["INSUFFICIENT_FUND"]


def test_lists_come_newest_first_and_in_pages(venue: Venue) -> None:
    rest = venue.rest()
    made = [rest.market_order_buy(f"o{n}", "BTC-USD", quote_size="100").order_id for n in range(5)]
    first = rest.list_orders(limit=2)
    second = rest.list_orders(limit=2, cursor=first.cursor)
    third = rest.list_orders(limit=2, cursor=second.cursor)
    assert [order.order_id for page in (first, second, third) for order in page.orders] == made[::-1]
    assert (first.has_next, third.has_next, third.cursor) == (True, False, "")
    one = rest.get_fills(limit=3)
    two = rest.get_fills(limit=3, cursor=one.cursor)
    assert [fill.order_id for fill in (*one.fills, *two.fills)] == made[::-1]
    assert two.cursor == ""
    assert [fill.order_id for fill in rest.get_fills(order_ids=[made[2]]).fills] == [made[2]]


def test_products_candles_quotes_time_and_the_fee_tier(venue: Venue) -> None:
    rest = venue.rest()
    product = rest.get_product("BTC-USD")
    assert (product.base_increment, product.quote_increment, product.base_min_size, product.quote_min_size) == (
        "0.000000001",
        "0.01",
        "0.0000251",
        "1",
    )
    assert [each.product_id for each in rest.get_public_products().products] == ["BTC-USD", "ETH-USD"]
    end = int(T0.timestamp()) + 3600 * HISTORY
    candles = rest.get_candles("ETH-USD", str(end - 20 * 3600), str(end - 3600), "ONE_HOUR").candles
    bars = market()
    assert len(candles) == 19  # one bar of ETH is missing
    assert float(candles[0].close) == bars.close[HISTORY - 1, 1]
    (book,) = rest.get_best_bid_ask(["BTC-USD"]).pricebooks
    assert (book.bids[0].price, book.asks[0].price) == ("40595.5", "40595.5")
    assert rest.get_unix_time().epoch_seconds == str(end)
    rest.market_order_buy("m", "BTC-USD", base_size="1")
    summary = rest.get_transaction_summary()
    assert summary.fee_tier["taker_fee_rate"] == "0.0025"
    assert summary.total_volume == pytest.approx(float(venue.ledger()["fills"][0]["price"]))


# --- the same order again ---------------------------------------------------------------------------


def test_the_same_request_again_gives_the_first_order(venue: Venue) -> None:
    broker = venue.broker()
    first, second = broker.submit(an_intent()), broker.submit(an_intent())
    assert isinstance(first, Answered)
    assert isinstance(second, Answered)
    assert first.order.venue_order_id == second.order.venue_order_id
    assert venue.ledger()["orders"] == 1


def test_an_order_says_when_it_was_made(venue: Venue) -> None:
    broker = venue.broker()
    assert isinstance(broker.submit(an_intent()), Answered)
    found = broker.order_by_client_id("cap-1")
    assert found is not None
    assert found.created_at == T0 + timedelta(hours=HISTORY)


def test_a_venue_that_refuses_a_duplicate_is_understood_and_the_order_is_found(venue: Venue) -> None:
    with opened(refuse_duplicates=True) as strict:
        first = strict.broker().submit(an_intent())
        again = strict.broker()  # has not seen the answer
        assert again.submit(an_intent()) == Refused(code="duplicate", message="client_order_id was used before")
        found = again.order_by_client_id("cap-1")
        assert isinstance(first, Answered)
        assert found is not None
        assert (found.venue_order_id, found.status) == (first.order.venue_order_id, "filled")
        assert strict.ledger()["orders"] == 1


def test_orders_are_found_by_our_id_though_the_venue_does_not_look_them_up(venue: Venue) -> None:
    other, broker = venue.broker(), venue.broker()
    assert broker.order_by_client_id("o-3") is None
    for n in range(4):
        other.submit(an_intent(f"o-{n}", notional=D(100)))
    found = broker.order_by_client_id("o-3")
    assert found is not None
    assert found.client_order_id == "o-3"
    assert broker.order_by_client_id("o-9") is None


# --- tokens -----------------------------------------------------------------------------------------


def token(credentials: Credentials, *, uri: str | None, life: int = 120, begins: int = 0, **claims: Any) -> str:
    """As the SDK makes it, with another time or other claims."""
    import time

    now = int(time.time()) + begins
    key = jwt_generator._load_private_key(credentials.secret_key)
    body = {"sub": credentials.key_id, "iss": "cdp", "nbf": now, "exp": now + life, **({"uri": uri} if uri else {}), **claims}
    return jwt.encode(
        body, key, algorithm=jwt_generator._algorithm_for(key), headers={"kid": credentials.key_id, "nonce": "00"}
    )


def status(venue: Venue, bearer: str) -> int:
    answer = requests.get(
        f"{venue.url}{API}/accounts", headers={"Authorization": f"Bearer {bearer}"}, params={"limit": 1}, timeout=PATIENCE
    )
    return answer.status_code


@pytest.mark.parametrize("key_type", ["ed25519", "ecdsa"])
def test_both_kinds_of_keys_work_and_only_for_their_own_request_and_two_minutes(venue: Venue, key_type: str) -> None:
    mine = venue.credentials("mine", key_type)
    uri = f"GET {venue.endpoints.host}{API}/accounts"
    assert jwt.get_unverified_header(token(mine, uri=uri))["alg"] == {"ed25519": "EdDSA", "ecdsa": "ES256"}[key_type]
    assert rest_client(mine, venue.endpoints).get_accounts().accounts[0].currency == "USD"
    assert status(venue, token(mine, uri=uri)) == 200
    assert status(venue, token(mine, uri=uri, begins=-121)) == 401, "expired"
    assert status(venue, token(mine, uri=uri, begins=30)) == 401, "not yet valid"
    assert status(venue, token(mine, uri=uri, life=121)) == 401, "lives too long"
    assert status(venue, token(mine, uri=None)) == 401, "for no request"
    assert status(venue, token(mine, uri=uri.replace("GET", "POST"))) == 401, "for another request"
    assert status(venue, token(mine, uri=uri.replace("accounts", "orders"))) == 401, "for another path"
    assert status(venue, token(mine, uri=uri, iss="other")) == 401
    assert status(venue, token(mine, uri=uri, sub="other")) == 401
    other = venue.credentials("other", "ecdsa" if key_type == "ed25519" else "ed25519")
    forged = Credentials(key_id=mine.key_id, secret_key=other.secret_key)
    assert status(venue, token(forged, uri=uri)) == 401, "signed with another key"
    assert status(venue, "nonsense") == 401
    unsigned = jwt.encode({"sub": mine.key_id}, "", algorithm="none", headers={"kid": mine.key_id})
    assert status(venue, unsigned) == 401


def test_a_key_of_one_face_opens_nothing_on_the_other(venue: Venue) -> None:
    mine = venue.credentials()
    headers = {"APCA-API-KEY-ID": mine.key_id, "APCA-API-SECRET-KEY": mine.secret_key}
    assert requests.get(f"{venue.url}/v2/account", headers=headers, timeout=PATIENCE).status_code == 401
    asked = {"name": "a", "capital_usd": 100_000}
    assert requests.post(f"{venue.url}/control/v1/accounts", json=asked, timeout=PATIENCE).status_code == 409


def test_the_markets_time_has_no_say_in_a_tokens(venue: Venue) -> None:
    """The market plays in 2024; tokens are of today."""
    assert server_keys.LIFE_SECONDS == 120
    assert venue.broker().now() == T0 + timedelta(hours=HISTORY)


# --- streams ----------------------------------------------------------------------------------------


@pytest.fixture
def sdk_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's streams are written for the client that websockets calls legacy, which later versions bring along."""
    shim = SimpleNamespace(connect=legacy_connect, exceptions=websockets.exceptions)
    monkeypatch.setattr(websocket_base, "websockets", shim)


def test_the_sdks_own_streams_hear_orders_and_tickers(venue: Venue, sdk_sockets: None) -> None:
    credentials, heard = venue.credentials(), queue.SimpleQueue[str]()
    user = WSUserClient(credentials.key_id, credentials.secret_key, base_url=venue.endpoints.user_stream, on_message=heard.put)
    prices = WSClient(credentials.key_id, credentials.secret_key, base_url=venue.endpoints.market_stream, on_message=heard.put)
    user.open()
    prices.open()
    try:
        user.user(["BTC-USD"])
        prices.ticker(["BTC-USD"])
        venue.rest().limit_order_gtc_buy("rest", "BTC-USD", base_size="0.1", limit_price="39000")
        venue.rest().market_order_buy("mine", "BTC-USD", quote_size="1000")
        told: list[Any] = []
        while not any(m.channel == "user" and m.events[0].orders and m.events[0].orders[0].status == "FILLED" for m in told):
            told.append(WebsocketResponse(json.loads(heard.get(timeout=PATIENCE))))
    finally:
        user.close()
        prices.close()
    assert {message.channel for message in told} == {"subscriptions", "user", "ticker"}
    updates = [order for m in told if m.channel == "user" for event in m.events for order in event.orders or ()]
    assert [(o.client_order_id, o.status) for o in updates] == [("rest", "OPEN"), ("mine", "OPEN"), ("mine", "FILLED")]
    assert updates[2].cumulative_quantity == venue.ledger()["fills"][0]["qty"]
    (tickers,) = [m.events[0].tickers for m in told if m.channel == "ticker"]
    assert [(t.product_id, t.best_bid) for t in tickers] == [("BTC-USD", "40595.5")]


def test_a_user_channel_begins_with_what_is_open(venue: Venue) -> None:
    venue.rest().limit_order_gtc_buy("rest", "BTC-USD", base_size="0.1", limit_price="39000")
    mine = venue.credentials()
    with connect(venue.endpoints.user_stream) as socket:
        bearer = token(mine, uri=None)
        socket.send(json.dumps({"type": "subscribe", "channel": "user", "product_ids": [], "jwt": bearer}))
        confirmed, snapshot = (json.loads(socket.recv(timeout=PATIENCE)) for _ in range(2))
    assert "user" in confirmed["events"][0]["subscriptions"]
    assert snapshot["events"][0]["type"] == "snapshot"
    assert [order["client_order_id"] for order in snapshot["events"][0]["orders"]] == ["rest"]
    assert [confirmed["sequence_num"], snapshot["sequence_num"]] == [0, 1]


@pytest.mark.parametrize("bearer", ["", "nonsense", "expired"])
def test_a_user_channel_needs_a_valid_token(venue: Venue, bearer: str) -> None:
    sent = token(venue.credentials(), uri=None, begins=-130) if bearer == "expired" else bearer
    with connect(venue.endpoints.user_stream) as socket:
        socket.send(json.dumps({"type": "subscribe", "channel": "user", "product_ids": [], "jwt": sent}))
        assert json.loads(socket.recv(timeout=PATIENCE)) == {"type": "error", "message": "authentication failure"}
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            socket.recv(timeout=PATIENCE)


def test_who_does_not_subscribe_in_time_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_streams.PATIENCE_SECONDS == 5.0
    monkeypatch.setattr(server_streams.Streams.__init__, "__kwdefaults__", {"patience_seconds": 0.1})
    with opened() as venue, connect(venue.endpoints.user_stream) as socket:
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            socket.recv(timeout=PATIENCE)
        assert socket.close_code == 1008


class Inbox:
    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.seen: list[Any] = []

    def put(self, event: Any) -> None:
        self.events.put(event)

    def until(self, kind: type, number: int = 1) -> list[Any]:
        """Everything of `kind`, once there are so many."""
        while sum(isinstance(event, kind) for event in self.seen) < number:
            self.seen.append(self.events.get(timeout=PATIENCE))
        return [event for event in self.seen if isinstance(event, kind)]


@contextmanager
def listening(venue: Venue, name: str = "a") -> Iterator[Inbox]:
    inbox = Inbox()
    streams = Streams(venue.credentials(name), venue.endpoints, symbols=SYMBOLS, inbox=inbox)
    streams.start()
    try:
        yield inbox
    finally:
        streams.close()


def plan(venue: Venue, **rule: Any) -> None:
    requests.post(f"{venue.url}/control/v1/faults", json={"script": [rule]}, timeout=PATIENCE).raise_for_status()


def test_our_streams_tell_quotes_and_cumulative_orders(venue: Venue) -> None:
    with listening(venue) as inbox:
        quotes = inbox.until(Quote, 2)
        assert {quote.symbol: quote.bid for quote in quotes} == {"BTC/USD": D("40595.5"), "ETH/USD": D("2055.5")}
        assert isinstance(venue.broker().submit(an_intent()), Answered)
        updates = inbox.until(OrderUpdate, 2)
        assert [(u.client_order_id, u.report.state, u.fill) for u in updates] == [
            ("cap-1", OrderState.ACCEPTED, None),
            ("cap-1", OrderState.FILLED, None),
        ]
        assert updates[1].report.filled_qty == D(venue.ledger()["fills"][0]["qty"])
        assert not [event for event in inbox.seen if isinstance(event, Gap)]


@pytest.mark.parametrize("kind", ["event_lost", "event_late", "stream_cut"])
def test_a_lost_message_is_a_gap(venue: Venue, kind: str) -> None:
    with listening(venue) as inbox:
        inbox.until(Quote, 2)
        plan(venue, kind=kind)
        venue.broker().submit(an_intent())
        (gap,) = inbox.until(Gap)
        assert gap == Gap(stream="orders")


def test_quotes_that_are_cut_are_a_gap_and_a_halted_product_has_none(venue: Venue) -> None:
    with listening(venue) as inbox:
        inbox.until(Quote, 2)
        plan(venue, kind="quotes_cut")
        plan(venue, kind="symbol_halted", symbol=SYMBOLS[0], ticks=5)
        venue.served.advance(1)
        assert inbox.until(Gap) == [Gap(stream="quotes")]
        assert list(venue.broker().latest_quotes(SYMBOLS)) == [SYMBOLS[1]]


def test_a_message_that_is_told_twice_is_told_twice_and_is_no_gap(venue: Venue) -> None:
    with listening(venue) as inbox:
        plan(venue, kind="event_twice", skip=1)
        venue.broker().submit(an_intent())
        updates = inbox.until(OrderUpdate, 3)
        assert [u.report.state for u in updates] == [OrderState.ACCEPTED, OrderState.FILLED, OrderState.FILLED]
        assert updates[1] == updates[2]
        assert not [event for event in inbox.seen if isinstance(event, Gap)]


def test_the_broker_reads_fills_whose_size_is_in_quote_currency_to_the_last_increment(venue: Venue) -> None:
    broker = venue.broker()
    start = broker.now()
    broker.submit(an_intent("one", notional=D("1234.56")))
    broker.submit(an_intent("two", symbol="ETH/USD", notional=D("777.77")))
    broker.submit(an_intent("three", side="sell", qty=broker.positions()["BTC/USD"]))
    told = [(f.execution.qty, f.execution.price, f.execution.fee, f.execution.fee_asset) for f in broker.fills_since(start)]
    theirs = [(D(f["qty"]), D(f["price"]), D(f["fee"]), f["fee_asset"]) for f in venue.ledger()["fills"]]
    assert told == theirs
    assert len(told) == 3
    assert broker.account().cash_usd == D(venue.ledger()["cash_usd"])
    assert broker.positions() == {"ETH/USD": D(venue.ledger()["positions"]["ETH/USD"]["qty"])}


def test_threads_of_streams_end(venue: Venue) -> None:
    with listening(venue):
        assert [t.name for t in threading.enumerate() if t.name.startswith("coinbase-")]
    deadline = threading.Event()
    for _ in range(100):
        if not [t.name for t in threading.enumerate() if t.name.startswith("coinbase-")]:
            return
        deadline.wait(0.1)
    pytest.fail("they did not end")
