"""Alpaca's protocol, as its own unmodified client sees it: alpaca-py against the simulated exchange over a socket."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import numpy as np
import pytest
import requests
from aiohttp import web
from alpaca.common.enums import Sort
from alpaca.common.exceptions import APIError
from alpaca.data.historical import CryptoHistoricalDataClient
from alpaca.data.live import CryptoDataStream
from alpaca.data.requests import (
    CryptoBarsRequest,
    CryptoLatestBarRequest,
    CryptoLatestOrderbookRequest,
    CryptoLatestQuoteRequest,
    CryptoLatestTradeRequest,
    CryptoQuoteRequest,
    CryptoSnapshotRequest,
    CryptoTradesRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetClass, OrderSide, OrderStatus, QueryOrderStatus, TimeInForce, TradeEvent
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetAssetsRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    StopLimitOrderRequest,
)
from alpaca.trading.stream import TradingStream

from cappuccino.adapters.venue_server.app import build_app
from cappuccino.adapters.venue_server.journal import Journal
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.exchange.tape import Tape
from cappuccino.exchange.terms import Terms
from cappuccino.exchange.venue import flat_fee
from cappuccino.market.bars import Bars

T0 = datetime(2024, 1, 1, tzinfo=UTC)
HISTORY, PAPER = 60, 12
PATIENCE = 10.0
SYMBOLS = ("BTC/USD", "ETH/USD")


def market() -> Bars:
    """Two symbols, hourly, a slow climb; ETH has no bar in hour 50 and in the second hour of paper trading."""
    rows = HISTORY + PAPER
    close = np.stack([40_000 + 10.0 * np.arange(rows), 2_000 + 1.0 * np.arange(rows)], axis=1)
    missing = np.zeros(close.shape, dtype=bool)
    missing[[50, HISTORY + 1], 1] = True
    return Bars(
        symbols=SYMBOLS,
        timeframe=Timeframe(3600),
        ts=int(T0.timestamp()) + 3600 * np.arange(rows, dtype=np.int64),
        open=close - 4.5,
        high=close + 2.25,
        low=close - 8.125,
        close=close,
        volume=np.where(missing, 0.0, 12.5),
        missing=missing,
    )


class Served:
    """An exchange in a thread: its address, its accounts, and a hand on its clock."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.socket_url = url.replace("http", "ws", 1)

    def account(self, name: str = "a", capital: float = 100_000) -> dict[str, str]:
        answer = requests.post(f"{self.url}/control/v1/accounts", json={"name": name, "capital_usd": capital}, timeout=PATIENCE)
        found: dict[str, str] = answer.json()
        return found

    def trading(self, name: str = "a") -> TradingClient:
        keys = self.account(name)
        return TradingClient(keys["key_id"], keys["secret_key"], url_override=self.url)

    def data(self) -> CryptoHistoricalDataClient:
        return CryptoHistoricalDataClient(url_override=self.url)

    def ledger(self, name: str = "a") -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.url}/control/v1/accounts/{name}/ledger", timeout=PATIENCE).json()
        return found

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.url}/control/v1/state", timeout=PATIENCE).json()
        return found

    def advance(self, ticks: int) -> None:
        """Through the lockstep endpoint, as a session does."""
        self.account("walker")

        async def walk() -> None:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.url}/control/v1/lockstep") as socket:
                await socket.send_json({"join": "walker"})
                async with session.post(f"{self.url}/control/v1/start"):
                    pass
                message = await socket.receive_json(timeout=PATIENCE)
                target = message["tick"] + ticks
                while message["tick"] < target:
                    await socket.send_json({"ack": message["tick"]})
                    message = await socket.receive_json(timeout=PATIENCE)

        asyncio.run(walk())


@contextmanager
def served(**options: Any) -> Iterator[Served]:
    flat = flat_fee(Decimal(25))
    charges = Terms(fee_tiers=flat, coinbase_fee_tiers=flat, slippage_bps=Decimal(10))
    start = int((T0 + timedelta(hours=HISTORY)).timestamp())
    venue = SimulatedExchange(Tape(market(), start=start, tick_bps=10_000), charges)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)

    async def up() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(build_app(venue, Journal(None, tape="t", terms={}), **options), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = call(up())
    try:
        yield Served(f"http://127.0.0.1:{port}")
    finally:
        call(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


@pytest.fixture
def venue() -> Iterator[Served]:
    with served() as found:
        yield found


def buy(**changes: Any) -> MarketOrderRequest:
    fields: dict[str, Any] = {"symbol": "BTC/USD", "side": OrderSide.BUY, "time_in_force": TimeInForce.GTC, **changes}
    if "notional" not in fields:
        fields.setdefault("qty", 0.5)
    return MarketOrderRequest(**fields)


def limit(price: float, **changes: Any) -> LimitOrderRequest:
    return LimitOrderRequest(**{**buy(**changes).model_dump(exclude_none=True), "limit_price": price})


def refused(call: Callable[[], Any]) -> tuple[int, int]:
    with pytest.raises(APIError) as error:
        call()
    return error.value.status_code, error.value.code


# --- trading ----------------------------------------------------------------------------------------


def test_an_order_is_filled_and_found_by_both_its_ids(venue: Served) -> None:
    trading = venue.trading()
    order = trading.submit_order(buy(notional=1000, client_order_id="mine"))
    assert order.status == OrderStatus.FILLED
    assert order.symbol == "BTC/USD"
    assert float(order.filled_avg_price) == pytest.approx((40_600 - 4.5) * 1.001, abs=0.01)
    assert trading.get_order_by_id(order.id) == order
    assert trading.get_order_by_client_id("mine") == order


def test_positions_and_account_tell_what_the_ledger_tells(venue: Served) -> None:
    trading = venue.trading()
    trading.submit_order(buy())
    position = trading.get_open_position("BTCUSD")
    assert trading.get_all_positions() == [position]
    assert trading.get_open_position("BTC/USD") == position
    assert (position.symbol, position.qty, position.qty_available) == ("BTCUSD", "0.49875", "0.49875")
    account, ledger = trading.get_account(), venue.ledger()
    assert account.cash == ledger["cash_usd"]
    assert account.equity == ledger["equity_usd"]
    assert ledger["positions"]["BTC/USD"]["qty"] == position.qty
    assert ledger["fills"][0]["fee"] == "0.00125"
    assert Decimal(ledger["cash_usd"]) == 100_000 - Decimal("0.5") * Decimal(ledger["fills"][0]["price"])


def test_orders_are_listed_by_state_time_side_and_symbol(venue: Served) -> None:
    trading = venue.trading()
    filled = trading.submit_order(buy())
    resting = trading.submit_order(limit(39_000))
    other = trading.submit_order(limit(1_000, symbol="ETH/USD"))

    def ids(**fields: Any) -> list[Any]:
        return [order.id for order in trading.get_orders(GetOrdersRequest(**fields))]

    assert ids() == ids(status=QueryOrderStatus.OPEN) == [other.id, resting.id]
    assert ids(status=QueryOrderStatus.CLOSED) == [filled.id]
    assert ids(status=QueryOrderStatus.ALL, direction=Sort.ASC) == [filled.id, resting.id, other.id]
    assert ids(status=QueryOrderStatus.ALL, limit=1) == [other.id]
    assert ids(status=QueryOrderStatus.ALL, after=filled.submitted_at, direction=Sort.ASC) == [resting.id, other.id]
    assert ids(status=QueryOrderStatus.ALL, until=resting.submitted_at) == [resting.id, filled.id]
    assert ids(symbols=["ETH/USD"]) == [other.id]
    assert ids(status=QueryOrderStatus.ALL, side=OrderSide.SELL) == []


def test_cancel_one_cancel_all_and_nothing_else(venue: Served) -> None:
    trading = venue.trading()
    one, two = trading.submit_order(limit(39_000)), trading.submit_order(limit(38_000))
    trading.cancel_order_by_id(one.id)
    assert trading.get_order_by_id(one.id).status == OrderStatus.CANCELED
    assert [answer.id for answer in trading.cancel_orders()] == [two.id]
    assert refused(lambda: trading.cancel_order_by_id(one.id)) == (422, 42210000)


def test_positions_are_closed_one_by_one_in_part_or_all_at_once(venue: Served) -> None:
    trading = venue.trading()
    trading.submit_order(buy())
    trading.submit_order(buy(symbol="ETH/USD"))
    half = trading.close_position("BTCUSD", ClosePositionRequest(percentage="50"))
    assert (half.side, half.filled_qty) == (OrderSide.SELL, "0.249375")
    trading.close_position("BTCUSD", ClosePositionRequest(qty="0.1"))
    closed = trading.close_all_positions(cancel_orders=True)
    assert sorted(answer.symbol for answer in closed) == ["BTCUSD", "ETHUSD"]
    assert trading.get_all_positions() == []
    assert refused(lambda: trading.close_position("BTCUSD")) == (404, 40410000)


def test_limit_and_stop_limit_orders_keep_their_prices(venue: Served) -> None:
    trading = venue.trading()
    trading.submit_order(buy())
    resting = trading.submit_order(limit(39_000, time_in_force=TimeInForce.GTC))
    stop = trading.submit_order(
        StopLimitOrderRequest(
            symbol="BTC/USD",
            qty=0.1,
            side=OrderSide.SELL,
            time_in_force=TimeInForce.GTC,
            stop_price=39_500,
            limit_price=39_400,
        )
    )
    assert (resting.limit_price, stop.stop_price, stop.limit_price) == ("39000", "39500", "39400")
    gone = trading.submit_order(limit(39_000, time_in_force=TimeInForce.IOC))
    assert gone.status == OrderStatus.CANCELED
    assert Decimal(trading.get_account().buying_power) == Decimal(trading.get_account().cash) - Decimal("19500")


def test_assets_bring_the_sizes(venue: Served) -> None:
    trading = venue.trading()
    assets = trading.get_all_assets(GetAssetsRequest(asset_class=AssetClass.CRYPTO))
    assert [asset.symbol for asset in assets] == list(SYMBOLS)
    asset = trading.get_asset("BTC/USD")
    assert trading.get_asset(str(asset.id)) == trading.get_asset("BTCUSD") == asset
    assert (asset.min_order_size, asset.min_trade_increment, asset.price_increment) == (2.51e-05, 1e-09, 0.01)
    assert refused(lambda: trading.get_asset("DOGE/USD")) == (404, 40410000)


def test_the_clock_is_the_markets(venue: Served) -> None:
    clock = venue.trading().get_clock()
    assert clock.is_open
    assert clock.timestamp == T0 + timedelta(hours=HISTORY)
    venue.advance(4)
    assert venue.trading().get_clock().timestamp == T0 + timedelta(hours=HISTORY + 1)


def test_activities_tell_fills_and_fees(venue: Served) -> None:
    trading = venue.trading()
    for _ in range(3):
        trading.submit_order(buy(qty=0.1))
    trading.submit_order(buy(side=OrderSide.SELL, qty=0.1))
    fills = trading.get("/account/activities/FILL", {"direction": "asc"})
    assert [(fill["side"], fill["qty"], fill["type"]) for fill in fills] == [("buy", "0.1", "fill")] * 3 + [
        ("sell", "0.1", "fill")
    ]
    fees = trading.get("/account/activities", {"activity_types": "CFEE", "direction": "asc"})
    assert [fee["qty"] for fee in fees] == ["-0.00025"] * 3 + ["0"]
    assert Decimal(fees[3]["net_amount"]) == -Decimal(venue.ledger()["fills"][3]["fee"])
    page = trading.get("/account/activities/FILL", {"direction": "asc", "page_size": 2})
    rest = trading.get("/account/activities/FILL", {"direction": "asc", "page_size": 2, "page_token": page[-1]["id"]})
    assert page + rest == fills
    late = trading.get("/account/activities/FILL", {"after": fills[1]["transaction_time"]})
    assert late == [fills[3], fills[2]]


# --- refusals ---------------------------------------------------------------------------------------


def test_the_documented_error_codes(venue: Served) -> None:
    trading = venue.trading()
    trading.submit_order(buy(client_order_id="once"))
    assert refused(lambda: trading.submit_order(buy(client_order_id="once"))) == (422, 40010001)
    assert refused(lambda: trading.submit_order(buy(qty=50))) == (403, 40310000)
    assert refused(lambda: trading.submit_order(buy(qty=0.00001))) == (403, 40310000)
    assert refused(lambda: trading.submit_order(buy(symbol="DOGE/USD"))) == (422, 42210000)
    assert refused(lambda: trading.submit_order(buy(time_in_force=TimeInForce.DAY))) == (422, 42210000)
    assert refused(lambda: trading.get_order_by_id("00000000-0000-0000-0000-000000000000")) == (404, 40410000)
    assert refused(lambda: trading.get_order_by_client_id("never")) == (404, 40410000)
    assert refused(lambda: trading.get_open_position("ETHUSD")) == (404, 40410000)
    assert refused(lambda: trading.get("/nowhere")) == (404, 40410000)


def test_insufficient_balance_says_what_is_there(venue: Served) -> None:
    keys = venue.account()
    headers = {"APCA-API-KEY-ID": keys["key_id"], "APCA-API-SECRET-KEY": keys["secret_key"]}
    order = {"symbol": "BTC/USD", "side": "buy", "type": "market", "time_in_force": "gtc", "notional": "100001"}
    answer = requests.post(f"{venue.url}/v2/orders", json=order, headers=headers, timeout=PATIENCE)
    body = answer.json()
    assert (answer.status_code, body["code"], body["available"], body["balance"], body["symbol"]) == (
        403,
        40310000,
        "100000",
        "100000",
        "USD",
    )
    garbage = requests.post(f"{venue.url}/v2/orders", data="{", headers=headers, timeout=PATIENCE)
    assert (garbage.status_code, garbage.json()["code"]) == (400, 40010000)


@pytest.mark.parametrize("secret", [None, "wrong"])
def test_a_bad_key_is_refused(venue: Served, secret: str | None) -> None:
    keys = venue.account()
    wrong = TradingClient("nobody" if secret is None else keys["key_id"], "wrong", url_override=venue.url)
    assert refused(wrong.get_account) == (401, 40110000)
    data = CryptoHistoricalDataClient("nobody", "wrong", url_override=venue.url)
    assert refused(lambda: data.get_crypto_latest_quote(CryptoLatestQuoteRequest(symbol_or_symbols="BTC/USD"))) == (
        401,
        40110000,
    )


def test_the_rate_limit_runs_on_market_time() -> None:
    with served(requests_per_minute=3) as venue:
        keys, other = venue.account(), venue.account("b")
        headers = {"APCA-API-KEY-ID": keys["key_id"], "APCA-API-SECRET-KEY": keys["secret_key"]}
        theirs = {"APCA-API-KEY-ID": other["key_id"], "APCA-API-SECRET-KEY": other["secret_key"]}

        def get(headers: dict[str, str]) -> requests.Response:
            return requests.get(f"{venue.url}/v2/clock", headers=headers, timeout=PATIENCE)

        answers = [get(headers) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[3].json()["code"] == 42910000
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
        assert answers[0].headers["X-RateLimit-Limit"] == "3"
        reset = T0 + timedelta(hours=HISTORY, minutes=1)
        assert answers[3].headers["X-RateLimit-Reset"] == str(int(reset.timestamp()))
        assert get(theirs).status_code == 200
        venue.advance(1)
        assert get(headers).status_code == 200


# --- data -------------------------------------------------------------------------------------------


def test_bars_are_served_bit_for_bit_and_only_once_they_are_closed(venue: Served) -> None:
    bars, data = market(), venue.data()
    asked = CryptoBarsRequest(symbol_or_symbols=list(SYMBOLS), timeframe=TimeFrame.Hour, start=T0)
    found = data.get_crypto_bars(asked)
    btc = found["BTC/USD"]
    assert [bar.timestamp for bar in btc] == [T0 + timedelta(hours=hour) for hour in range(HISTORY)]
    for name in ("open", "high", "low", "close", "volume"):
        assert [getattr(bar, name) for bar in btc] == getattr(bars, name)[:HISTORY, 0].tolist()
    assert len(found["ETH/USD"]) == HISTORY - 1, "a missing bar is not served"
    venue.advance(3)
    assert len(data.get_crypto_bars(asked)["BTC/USD"]) == HISTORY
    venue.advance(1)
    assert len(data.get_crypto_bars(asked)["BTC/USD"]) == HISTORY + 1


def test_bars_come_in_pages_in_ranges_and_newest_first(venue: Served) -> None:
    url = f"{venue.url}/v1beta3/crypto/us/bars"
    query: dict[str, Any] = {"symbols": "ETH/USD,BTC/USD", "timeframe": "1Hour", "start": "2024-01-01", "limit": 25}
    rows: dict[str, list[Any]] = {symbol: [] for symbol in SYMBOLS}
    pages = 0
    while True:
        answer = requests.get(url, params=query, timeout=PATIENCE).json()
        assert sum(map(len, answer["bars"].values())) <= 25
        for symbol, found in answer["bars"].items():
            rows[symbol] += found
        pages += 1
        if answer["next_page_token"] is None:
            break
        query["page_token"] = answer["next_page_token"]
    assert pages == 5
    assert [len(found) for found in rows.values()] == [HISTORY, HISTORY - 1]
    assert all(len({bar["t"] for bar in found}) == len(found) for found in rows.values())
    data = venue.data()
    window = {"start": T0 + timedelta(hours=3), "end": T0 + timedelta(hours=7)}
    asked = CryptoBarsRequest(symbol_or_symbols="BTC/USD", timeframe=TimeFrame.Hour, **window)
    assert [bar.timestamp.hour for bar in data.get_crypto_bars(asked)["BTC/USD"]] == [3, 4, 5, 6, 7]
    newest = CryptoBarsRequest(symbol_or_symbols="BTC/USD", timeframe=TimeFrame.Hour, sort=Sort.DESC, limit=2, **window)
    assert [bar.timestamp.hour for bar in data.get_crypto_bars(newest)["BTC/USD"]] == [7, 6]
    backwards: list[str] = []
    query = {"symbols": "BTC/USD", "timeframe": "1Hour", "start": "2024-01-01 00:00:00", "limit": 50, "sort": "desc"}
    for _ in range(2):
        answer = requests.get(url, params=query, timeout=PATIENCE).json()
        backwards += [bar["t"] for bar in answer["bars"]["BTC/USD"]]
        query["page_token"] = answer["next_page_token"]
    assert query["page_token"] is None
    assert backwards == [bar["t"] for bar in reversed(rows["BTC/USD"])]


def test_longer_bars_are_built_from_closed_ones_and_shorter_ones_refused(venue: Served) -> None:
    bars, data = market(), venue.data()
    four = CryptoBarsRequest(symbol_or_symbols="BTC/USD", timeframe=TimeFrame(4, TimeFrameUnit.Hour), start=T0)
    found = data.get_crypto_bars(four)["BTC/USD"]
    assert len(found) == HISTORY // 4
    assert (found[1].open, found[1].close) == (bars.open[4, 0], bars.close[7, 0])
    assert (found[1].high, found[1].low, found[1].volume) == (bars.high[4:8, 0].max(), bars.low[4:8, 0].min(), 50.0)
    days = data.get_crypto_bars(CryptoBarsRequest(symbol_or_symbols="BTC/USD", timeframe=TimeFrame.Day, start=T0))
    assert [bar.timestamp.day for bar in days["BTC/USD"]] == [1, 2]
    minute = CryptoBarsRequest(symbol_or_symbols="BTC/USD", timeframe=TimeFrame.Minute, start=T0)
    assert refused(lambda: data.get_crypto_bars(minute)) == (400, 40010000)
    unknown = CryptoBarsRequest(symbol_or_symbols="DOGE/USD", timeframe=TimeFrame.Hour, start=T0)
    assert refused(lambda: data.get_crypto_bars(unknown)) == (400, 40010000)


def test_the_latest_values_are_the_present_tick(venue: Served) -> None:
    data, both = venue.data(), list(SYMBOLS)
    quotes = data.get_crypto_latest_quote(CryptoLatestQuoteRequest(symbol_or_symbols=both))
    now = T0 + timedelta(hours=HISTORY)
    assert {symbol: (quote.bid_price, quote.ask_price, quote.timestamp) for symbol, quote in quotes.items()} == {
        "BTC/USD": (40_595.5, 40_595.5, now),
        "ETH/USD": (2_055.5, 2_055.5, now),
    }
    trades = data.get_crypto_latest_trade(CryptoLatestTradeRequest(symbol_or_symbols=both))
    assert trades["BTC/USD"].price == 40_595.5
    last = data.get_crypto_latest_bar(CryptoLatestBarRequest(symbol_or_symbols=both))
    assert last["BTC/USD"].timestamp == now - timedelta(hours=1)
    snapshot = data.get_crypto_snapshot(CryptoSnapshotRequest(symbol_or_symbols=both))["BTC/USD"]
    assert (snapshot.daily_bar.timestamp.day, snapshot.previous_daily_bar.timestamp.day) == (3, 2)
    assert snapshot.daily_bar.close == snapshot.minute_bar.close == last["BTC/USD"].close, "nothing of the bar in progress"
    book = data.get_crypto_latest_orderbook(CryptoLatestOrderbookRequest(symbol_or_symbols="BTC/USD"))["BTC/USD"]
    assert book.bids[0].price == book.asks[0].price == 40_595.5


def test_a_halted_symbol_has_the_quote_of_its_last_tick(venue: Served) -> None:
    venue.advance(6)  # ETH has no second bar
    quotes = venue.data().get_crypto_latest_quote(CryptoLatestQuoteRequest(symbol_or_symbols=list(SYMBOLS)))
    assert quotes["ETH/USD"].bid_price == 2_060.0
    assert quotes["ETH/USD"].timestamp == T0 + timedelta(hours=HISTORY, minutes=45)
    assert quotes["BTC/USD"].timestamp == T0 + timedelta(hours=HISTORY + 1, minutes=30)


def test_past_quotes_and_trades_are_the_ticks(venue: Served) -> None:
    venue.advance(8)
    start = T0 + timedelta(hours=HISTORY)
    quotes = venue.data().get_crypto_quotes(CryptoQuoteRequest(symbol_or_symbols=list(SYMBOLS), start=start))
    assert [quote.bid_price for quote in quotes["BTC/USD"]][:4] == [40_595.5, 40_591.875, 40_602.25, 40_600.0]
    assert len(quotes["BTC/USD"]) == 9
    assert len(quotes["ETH/USD"]) == 5, "none while it was halted"
    window = {"start": start + timedelta(minutes=15), "end": start + timedelta(minutes=30)}
    trades = venue.data().get_crypto_trades(CryptoTradesRequest(symbol_or_symbols="BTC/USD", **window))
    assert [trade.price for trade in trades["BTC/USD"]] == [40_591.875, 40_602.25]


# --- streams ----------------------------------------------------------------------------------------


@contextmanager
def streaming(stream: Any, wake: Callable[[], Any]) -> Iterator[None]:
    """The client's own loop in a thread. It looks for its stop between messages: `wake` causes one."""
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stream.stop()
        wake()
        thread.join(PATIENCE)


def test_trade_updates_tell_every_step_of_an_order(venue: Served) -> None:
    keys, heard = venue.account(), queue.Queue[Any]()
    stream = TradingStream(keys["key_id"], keys["secret_key"], url_override=f"{venue.socket_url}/stream")

    async def hear(update: Any) -> None:
        heard.put(update)

    stream.subscribe_trade_updates(hear)
    trading = venue.trading()
    with streaming(stream, lambda: trading.submit_order(limit(1_000))):
        probe: Any = None
        while probe is None:  # the stream is up once it hears of an order
            venue_order = trading.submit_order(limit(1_000))
            try:
                probe = heard.get(timeout=0.2)
            except queue.Empty:
                continue
        assert probe.event == TradeEvent.NEW
        while probe.order.id != venue_order.id:
            probe = heard.get(timeout=PATIENCE)
        order = trading.submit_order(buy())
        new, fill = heard.get(timeout=PATIENCE), heard.get(timeout=PATIENCE)
        assert (new.event, new.order.status, new.order.id) == (TradeEvent.NEW, OrderStatus.NEW, order.id)
        assert (fill.event, fill.qty, fill.position_qty) == (TradeEvent.FILL, 0.5, 0.49875)
        assert str(fill.execution_id) == venue.ledger()["fills"][0]["execution_id"]
        assert fill.order == order
        trading.cancel_order_by_id(venue_order.id)
        canceled = heard.get(timeout=PATIENCE)
        assert (canceled.event, canceled.order.status) == (TradeEvent.CANCELED, OrderStatus.CANCELED)
        resting = trading.submit_order(limit(40_592, qty=1))
        assert heard.get(timeout=PATIENCE).event == TradeEvent.NEW
        venue.advance(1)
        part = heard.get(timeout=PATIENCE)
        assert (part.event, part.order.id, part.price) == (TradeEvent.PARTIAL_FILL, resting.id, 40_592)
        assert part.qty == 12.5 / 4 * 0.1


def test_another_accounts_updates_are_not_heard(venue: Served) -> None:
    keys, heard = venue.account("b"), queue.Queue[Any]()
    stream = TradingStream(keys["key_id"], keys["secret_key"], url_override=f"{venue.socket_url}/stream")

    async def hear(update: Any) -> None:
        heard.put(update)

    stream.subscribe_trade_updates(hear)
    theirs, mine = venue.trading("a"), venue.trading("b")
    with streaming(stream, lambda: mine.submit_order(limit(1_000))):
        while True:
            theirs.submit_order(limit(1_000))
            mine.submit_order(limit(1_000, client_order_id=None))
            try:
                update = heard.get(timeout=0.2)
            except queue.Empty:
                continue
            break
        ids = {order.id for order in mine.get_orders()}
        assert update.order.id in ids
        while not heard.empty():
            assert heard.get().order.id in ids


def test_the_data_stream_tells_quotes_of_every_tick_and_bars_when_they_close(venue: Served) -> None:
    keys, heard = venue.account(), queue.Queue[Any]()
    stream = CryptoDataStream(keys["key_id"], keys["secret_key"], url_override=f"{venue.socket_url}/v1beta3/crypto/us")

    async def hear(message: Any) -> None:
        heard.put(message)

    stream.subscribe_quotes(hear, *SYMBOLS)
    stream.subscribe_bars(hear, "BTC/USD")
    stream.subscribe_trades(hear, "*")
    with streaming(stream, lambda: venue.advance(1)):
        while True:
            venue.advance(1)
            try:
                heard.get(timeout=0.2)
            except queue.Empty:
                continue
            break
        last = 4 * (PAPER - 1)
        ticks = last - venue.state()["tick"]
        venue.advance(ticks)
        messages = [heard.get(timeout=PATIENCE)]
        while messages[-1].timestamp < T0 + timedelta(hours=HISTORY + PAPER - 1) or len(messages) < 2 * ticks:
            messages.append(heard.get(timeout=PATIENCE))
    kinds = {type(message).__name__ for message in messages}
    assert kinds == {"Quote", "Bar", "Trade"}
    bars = [message for message in messages if type(message).__name__ == "Bar"]
    assert {bar.symbol for bar in bars} == {"BTC/USD"}
    tape = market()
    for bar in bars:
        row = int((bar.timestamp - T0) / timedelta(hours=1))
        assert (bar.open, bar.close, bar.volume) == (tape.open[row, 0], tape.close[row, 0], 12.5)
    quotes = [message for message in messages if type(message).__name__ == "Quote" and message.symbol == "BTC/USD"]
    assert all(quote.bid_price == quote.ask_price for quote in quotes)
    assert len({quote.timestamp for quote in quotes}) >= ticks - 1


def test_a_client_that_dies_while_it_sends_an_order_is_no_error(venue: Served, caplog: pytest.LogCaptureFixture) -> None:
    keys = venue.account()
    who = f"APCA-API-KEY-ID: {keys['key_id']}\r\nAPCA-API-SECRET-KEY: {keys['secret_key']}"
    host, _, port = venue.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        head = f"POST /v2/orders HTTP/1.1\r\nHost: x\r\n{who}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(f"{head}{{".encode())
        time.sleep(0.2)  # until it is being read
    assert venue.ledger()["orders"] == 0
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_streams_refuse_a_wrong_key(venue: Served) -> None:
    async def ask() -> tuple[Any, Any, Any]:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{venue.url}/stream") as socket:
                await socket.send_json({"action": "authenticate", "data": {"key_id": "x", "secret_key": "y"}})
                trading = await socket.receive_json(timeout=PATIENCE)
            async with session.ws_connect(f"{venue.url}/v1beta3/crypto/us") as socket:
                connected = await socket.receive_json(timeout=PATIENCE)
                await socket.send_json({"action": "auth", "key": "x", "secret": "y"})
                return trading, connected, await socket.receive_json(timeout=PATIENCE)

    trading, connected, data = asyncio.run(ask())
    assert trading["data"]["status"] == "unauthorized"
    assert connected == [{"T": "success", "msg": "connected"}]
    assert data == [{"T": "error", "code": 402, "msg": "auth failed"}]
