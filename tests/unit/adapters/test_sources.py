from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from cappuccino.adapters.sources.alpaca_history import AlpacaHistory
from cappuccino.adapters.sources.files import FileBars
from cappuccino.core.errors import InvalidInput, NotFound, RetryLater
from cappuccino.core.timeframe import Timeframe

HOUR = Timeframe.parse("1h")
FIRST = 1_704_067_200
TIMES = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=h) for h in range(3)]
EPOCHS = [FIRST, FIRST + 3600, FIRST + 7200]
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def frame(ts=TIMES, *, symbol="BTC/USD", **columns) -> pl.DataFrame:
    count = len(ts)
    prices = {name: [100.0] * count for name in ("open", "high", "low", "close")}
    return pl.DataFrame({"symbol": [symbol] * count, "ts": ts, **prices, "volume": [1.0] * count, **columns})


def written(tmp_path, bars: pl.DataFrame, *, suffix="parquet") -> FileBars:
    path = tmp_path / f"bars.{suffix}"
    {"parquet": bars.write_parquet, "csv": bars.write_csv, "feather": bars.write_ipc, "arrow": bars.write_ipc}[suffix](path)
    return FileBars(path)


def fetched(source: FileBars, *, symbols=("BTC/USD",), timeframe=HOUR) -> pl.DataFrame:
    return source.fetch(symbols, timeframe, 0, 2**40)


def refused(source: FileBars, says: str, **ask) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        fetched(source, **ask)
    assert str(source.path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "feather", "arrow"])
@pytest.mark.parametrize(
    "ts",
    [
        TIMES,
        EPOCHS,
        [t * 1000 for t in EPOCHS],
        [float(t) for t in EPOCHS],
        [t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in TIMES],
        [t.isoformat() for t in TIMES],
        [t.isoformat(sep=" ", timespec="milliseconds") for t in TIMES],
    ],
    ids=["datetime", "seconds", "milliseconds", "float", "rfc3339", "offset", "space"],
)
def test_open_times_in_utc_are_read_in_every_form_and_format(tmp_path, ts, suffix):
    assert fetched(written(tmp_path, frame(ts), suffix=suffix))["ts"].to_list() == EPOCHS


def test_a_datetime_column_of_any_precision_is_read(tmp_path):
    for unit in ("ms", "us", "ns"):
        bars = frame().with_columns(pl.col("ts").dt.cast_time_unit(unit))
        assert fetched(written(tmp_path, bars))["ts"].to_list() == EPOCHS


@pytest.mark.parametrize(
    ("ts", "says"),
    [
        ([t.replace(tzinfo=None) for t in TIMES], "ts has no time zone .*write open times in UTC"),
        (pl.Series(TIMES).dt.convert_time_zone("Europe/Berlin"), "ts has Europe/Berlin"),
        (["2024-01-01T00:00:00"] * 3, "ts is '2024-01-01T00:00:00' in row 0: write UTC as"),
        (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+02:00", "x"], r"ts is '2024-01-01T01:00:00\+02:00' in row 1"),
        (["2024-02-30T00:00:00Z"] * 3, "there is no such time"),
        ([FIRST, None, FIRST + 7200], "ts is empty in row 1"),
        ([FIRST, -5, FIRST + 7200], "ts is -5 in row 1"),
        ([t * 10**9 for t in EPOCHS], "in row 0: write epoch seconds or milliseconds"),
        ([float(FIRST), FIRST + 0.5, FIRST + 7200.0], "in row 1: write whole epoch seconds"),
        ([FIRST * 1000, FIRST * 1000 + 1, FIRST * 1000 + 2], "in row 1: open times are whole seconds"),
        ([True, False, True], "ts is of type Boolean"),
    ],
)
def test_a_stamp_that_is_not_clearly_utc_is_refused(tmp_path, ts, says):
    refused(written(tmp_path, frame(ts)), says)


@pytest.mark.parametrize("suffix", ["parquet", "feather", "csv"])
def test_a_corrupt_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"bars.{suffix}"
    path.write_bytes(b"\x00\xffPAR1 this is not a table \xfe" * 50)
    refused(FileBars(path), "not a readable|has no column")


def test_a_truncated_parquet_file_is_refused(tmp_path):
    source = written(tmp_path, frame())
    source.path.write_bytes(source.path.read_bytes()[:-20])
    refused(source, "not a readable parquet file")


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_bytes(b"")
    refused(FileBars(path), "not a readable csv file")


def test_a_file_without_rows_is_refused(tmp_path):
    refused(written(tmp_path, frame().clear()), "has no rows")


def test_missing_columns_are_named(tmp_path):
    refused(
        written(tmp_path, frame().drop("volume", "low").rename({"ts": "time"})),
        "has no column ts, low, volume: it has symbol, time",
    )


def test_a_word_where_a_number_belongs_is_refused(tmp_path):
    refused(written(tmp_path, frame(close=["100", "n/a", "101"]), suffix="csv"), "close is 'n/a' in row 1")


def test_an_empty_number_is_left_to_quality_as_nan(tmp_path):
    rows = fetched(written(tmp_path, frame(close=[100.0, None, 101.0]), suffix="csv"))
    assert rows["close"].is_nan().to_list() == [False, True, False]


def test_an_unknown_symbol_is_refused_with_what_is_there(tmp_path):
    source = written(tmp_path, pl.concat([frame(), frame(symbol="ETH/USD")]))
    refused(source, "has no symbol SOL/USD: use one of BTC/USD, ETH/USD", symbols=["BTC/USD", "SOL/USD"])


@pytest.mark.parametrize("timeframe", ["5m", "4h"])
def test_another_timeframe_than_the_files_is_refused(tmp_path, timeframe):
    says = f"its bars are 1h, not {timeframe}: set timeframe: 1h"
    refused(written(tmp_path, frame()), says, timeframe=Timeframe.parse(timeframe))


def test_a_spacing_that_is_no_timeframe_is_refused(tmp_path):
    refused(written(tmp_path, frame([FIRST, FIRST + 77, FIRST + 154])), "its bars are 77s, not 1h: give bars of 1m, 5m")


def test_a_gap_does_not_change_the_files_timeframe(tmp_path):
    assert len(fetched(written(tmp_path, frame([FIRST, FIRST + 3600, FIRST + 9 * 3600])))) == 3


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="there is no such file"):
        fetched(FileBars(tmp_path / "none.parquet"))


def test_a_folder_is_refused(tmp_path):
    path = tmp_path / "folder.parquet"
    path.mkdir()
    refused(FileBars(path), "cannot be read")


def test_an_unknown_format_is_refused(tmp_path):
    path = tmp_path / "bars.xlsx"
    path.write_bytes(b"x")
    refused(FileBars(path), r"\.xlsx is not known: use \.parquet, \.csv")


def test_the_shared_file_is_read():
    path = DATA / "crypto-1h-2024-01-07.parquet"
    if not path.exists():
        pytest.skip("the shared bars are not here")
    source = FileBars(path)
    assert len(source.symbols()) == 10
    assert source.timeframe() == HOUR
    assert set(source.available(["BTC/USDT"], HOUR).values()) == {(FIRST, FIRST + 5112 * 3600)}


@contextmanager
def answering(*answers: tuple[int, str], stall: threading.Event | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server that gives the answers one after another, the last one for ever; yields its URL and the paths asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path)
            if stall is not None:
                stall.wait(10)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(url: str, *, timeframe=HOUR, **options) -> pl.DataFrame:
    return AlpacaHistory(url=url, **options).fetch(["BTC/USD"], timeframe, FIRST, FIRST + 10 * 3600)


def test_two_pages_are_one_answer():
    page = (
        '{"bars": {"BTC/USD": [{"t": "2024-01-01T0%d:00:00Z", "o": 1, "h": 4, "l": 0.5, "c": 2, "v": 7, "n": 1, "vw": 2}]}, %s}'
    )
    pages = ((200, page % (0, '"next_page_token": "abc"')), (200, page % (1, '"next_page_token": null')))
    with answering(*pages) as (url, asked):
        rows = ask(url)
    assert rows.rows() == [("BTC/USD", t, 1.0, 4.0, 0.5, 2.0, 7.0) for t in EPOCHS[:2]]
    assert len(asked) == 2
    assert "page_token=abc" in asked[1]
    assert "page_token" not in asked[0]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("5m", "5Min"), ("30m", "30Min"), ("1h", "1Hour"), ("4h", "4Hour"), ("1d", "1Day")]
)
def test_timeframes_are_spelled_as_the_venue_does(ours, theirs):
    with answering((200, '{"bars": {}, "next_page_token": null}')) as (url, asked):
        assert len(ask(url, timeframe=Timeframe.parse(ours))) == 0
    assert f"timeframe={theirs}&" in asked[0] + "&"


def test_a_refusal_is_for_a_person():
    refusal = (400, '{"code": 40010001, "message": "invalid symbol"}')
    with answering(refusal) as (url, _), pytest.raises(InvalidInput, match=r"refused BTC/USD with 400 .*invalid symbol"):
        ask(url)


@pytest.mark.parametrize(
    "answer",
    [
        (500, "oops"),
        (503, "<html>down</html>"),
        (200, "<html>"),
        (200, '{"bars": {"BTC/USD": [{"t": 5}]}}'),
        (200, "[]"),
        (200, ""),
    ],
)
def test_what_may_pass_is_tried_again_later(answer):
    with answering(answer) as (url, _), pytest.raises(RetryLater):
        ask(url)


def test_no_server_is_tried_again_later():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RetryLater, match="ConnectionError"):
        ask(f"http://127.0.0.1:{port}")


def test_a_server_that_does_not_answer_is_given_up():
    release = threading.Event()
    with answering((200, "{}"), stall=release) as (url, _):
        with pytest.raises(RetryLater, match="ReadTimeout"):
            ask(url, timeout_seconds=0.2)
        release.set()
