"""What every BarSource promises, run by each of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cappuccino.adapters.sources.files import FileBars
from cappuccino.core.clock import from_epoch, iso
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.generator import ORIGIN, GeneratorBars, GeneratorConfig
from cappuccino.market.source import SCHEMA

HOUR = Timeframe.parse("1h")
SYMBOLS = ["BTC/USD", "ETH/USD", "SOL/USD"]
BARS = 120
MARKET = GeneratorBars(config=GeneratorConfig(seed=11))
TRUTH = MARKET.fetch(SYMBOLS, HOUR, ORIGIN, ORIGIN + BARS * 3600)
PAGE = 70


@contextmanager
def alpaca_server(truth: pl.DataFrame) -> Iterator[str]:
    """Answers the documented bars request over HTTP in pages of at most `PAGE` bars, symbols in order; end inclusive."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            start, end = (int(datetime.fromisoformat(query[name]).timestamp()) for name in ("start", "end"))
            names = sorted(query["symbols"].split(","))
            rows = truth.filter(pl.col("symbol").is_in(names) & pl.col("ts").is_between(start, end)).sort("symbol", "ts")
            skip = int(query.get("page_token", "0"))
            bars: dict[str, list[dict[str, object]]] = {}
            for symbol, ts, *values in rows.slice(skip, PAGE).iter_rows():
                bar = dict(zip("ohlcv", values, strict=True))
                bars.setdefault(symbol, []).append({"t": iso(from_epoch(ts)), **bar, "n": 1, "vw": bar["c"]})
            more = skip + PAGE < len(rows)
            body = json.dumps({"bars": bars, "next_page_token": str(skip + PAGE) if more else None}).encode()
            found = url.path == "/v1beta3/crypto/us/bars" and query["timeframe"] == "1Hour"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=["generator", "parquet", "csv", "feather", "alpaca"])
def source(request, tmp_path):
    kind = request.param
    if kind == "generator":
        yield MARKET
    elif kind == "alpaca":
        history = pytest.importorskip("cappuccino.adapters.sources.alpaca_history")
        with alpaca_server(TRUTH) as url:
            yield history.AlpacaHistory(url=url)
    else:
        path = tmp_path / f"bars.{kind}"
        {"parquet": TRUTH.write_parquet, "csv": TRUTH.write_csv, "feather": TRUTH.write_ipc}[kind](path)
        yield FileBars(path)


def expected(symbols, start, end):
    inside = pl.col("symbol").is_in(symbols) & pl.col("ts").is_between(start, end, closed="left")
    return TRUTH.filter(inside).sort("symbol", "ts")


def test_it_gives_the_bars_of_the_range_with_the_ports_columns(source):
    rows = source.fetch(SYMBOLS, HOUR, ORIGIN, ORIGIN + BARS * 3600)
    assert dict(rows.schema) == SCHEMA
    assert_frame_equal(rows.sort("symbol", "ts"), TRUTH.sort("symbol", "ts"), rel_tol=1e-12, abs_tol=0)


def test_the_start_is_inside_and_the_end_is_not(source):
    rows = source.fetch(SYMBOLS, HOUR, ORIGIN + 10 * 3600, ORIGIN + 20 * 3600)
    assert sorted(rows["ts"].unique()) == [ORIGIN + bar * 3600 for bar in range(10, 20)]


def test_a_range_between_the_grids_points_is_not_widened(source):
    rows = source.fetch(["ETH/USD"], HOUR, ORIGIN + 1, ORIGIN + 2 * 3600 + 1)
    assert rows["ts"].to_list() == [ORIGIN + 3600, ORIGIN + 2 * 3600]


def test_only_the_symbols_asked_for_are_given_in_whatever_order(source):
    rows = source.fetch(["SOL/USD", "BTC/USD"], HOUR, ORIGIN, ORIGIN + 5 * 3600)
    assert_frame_equal(rows.sort("symbol", "ts"), expected(["SOL/USD", "BTC/USD"], ORIGIN, ORIGIN + 5 * 3600), rel_tol=1e-12)


def test_an_empty_range_has_the_columns_and_no_rows(source):
    rows = source.fetch(SYMBOLS, HOUR, ORIGIN, ORIGIN)
    assert dict(rows.schema) == SCHEMA
    assert len(rows) == 0


def test_the_same_question_has_the_same_answer(source):
    ask = (SYMBOLS, HOUR, ORIGIN, ORIGIN + 50 * 3600)
    assert_frame_equal(source.fetch(*ask), source.fetch(*ask), check_exact=True)


def test_what_is_available_is_what_it_gives_or_is_not_known(source):
    for symbol, (first, end) in source.available(SYMBOLS, HOUR).items():
        ts = source.fetch([symbol], HOUR, 0, 2**40)["ts"]
        assert (ts.min(), ts.max() + 3600) == (first, end)
