"""The exchange as a process: killed at any moment and started again, it has its book and stands at its tick."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import polars as pl
import pytest
from aiohttp import ClientConnectionError, ClientSession

from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.exchange import ExchangeSettings, bars_of, main, market_of
from cappuccino.market.bars import Bars

from .builders import Candle, bars

PATIENCE = 20.0


def write(path: Path, panel: Bars) -> Path:
    rows, count = panel.open.shape
    columns = {name: getattr(panel, name).T.reshape(-1) for name in ("open", "high", "low", "close", "volume")}
    keys = {"symbol": [symbol for symbol in panel.symbols for _ in range(rows)], "ts": panel.ts.tolist() * count}
    frame = pl.DataFrame(keys | columns).with_columns(pl.from_epoch("ts").dt.replace_time_zone("UTC"))
    frame.filter(~pl.Series(panel.missing.T.reshape(-1))).write_parquet(path)
    return path


def wave(count: int = 400, base: float = 100.0) -> list[Candle]:
    """Prices that go somewhere on every bar."""
    made: list[Candle] = []
    for n in range(count):
        level = base * (1 + 0.01 * ((n * 7) % 13))
        made.append((level, level * 1.012, level * 0.991, level * 1.004))
    return made


@contextmanager
def process(tape: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "cappuccino.entrypoints.exchange", "--bars", str(tape), "--port", "0", *options]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert running.stderr is not None
        yield running, json.loads(line) if line else {"error": running.stderr.read()}
    finally:
        running.kill()
        running.wait(PATIENCE)
        for pipe in (running.stdout, running.stderr):
            assert pipe is not None
            pipe.close()


async def trade(url: str, running: subprocess.Popen[str], *, kill_after: int) -> set[str]:
    """Orders at every tick of one session, four at once, until the process is killed; the ids that were acknowledged."""
    acknowledged: set[str] = set()
    sent = 0
    async with ClientSession() as session:
        async with session.post(f"{url}/control/v1/accounts", json={"name": "a", "capital_usd": 1_000_000}) as answer:
            keys = await answer.json()
        headers = {"APCA-API-KEY-ID": keys["key_id"], "APCA-API-SECRET-KEY": keys["secret_key"]}

        async def order(number: int) -> None:
            nonlocal sent
            fields = {"symbol": "BTC/USD", "side": "buy", "type": "market", "time_in_force": "gtc", "notional": "100"}
            if number % 3 == 0:
                fields = {**fields, "type": "limit", "limit_price": "101.5", "qty": "2"}
                del fields["notional"]
            sent += 1
            if sent == kill_after:
                running.send_signal(signal.SIGKILL)
            async with session.post(
                f"{url}/v2/orders", json={**fields, "client_order_id": f"o{number}"}, headers=headers
            ) as made:
                if made.status == 200:
                    acknowledged.add((await made.json())["client_order_id"])

        try:
            async with session.ws_connect(f"{url}/control/v1/lockstep") as stream:
                await stream.send_json({"join": "a"})
                async with session.post(f"{url}/control/v1/start"):
                    pass
                while True:
                    tick = (await stream.receive_json(timeout=PATIENCE))["tick"]
                    await asyncio.gather(*(order(tick * 4 + n) for n in range(4)))
                    await stream.send_json({"ack": tick})
        except (ClientConnectionError, TypeError, ConnectionError):
            return acknowledged


async def get(url: str, path: str) -> Any:
    async with ClientSession() as session, session.get(f"{url}/control/v1{path}") as answer:
        return await answer.json()


@pytest.mark.parametrize("kill_after", [3, 202])
def test_kill_9_loses_nothing_that_was_acknowledged_and_resumes_at_the_tick(tmp_path: Path, kill_after: int) -> None:
    tape, journal = write(tmp_path / "bars.parquet", bars({"BTC/USD": wave()})), str(tmp_path / "journal")
    options = ("--journal", journal, "--requests-per-minute", "0")
    with process(tape, *options) as (running, ready):
        acknowledged = asyncio.run(trade(ready["url"], running, kill_after=kill_after))
        assert running.wait(PATIENCE) == -signal.SIGKILL
    lines = [json.loads(line) for line in Path(journal).read_text().splitlines()]
    ticks = sum(line[0] == "tick" for line in lines[1:])
    assert ticks == (kill_after - 1) // 4
    with process(tape, *options) as (_, ready):
        assert ready["tick"] == ticks
        state, ledger = asyncio.run(get(ready["url"], "/state")), asyncio.run(get(ready["url"], "/accounts/a/ledger"))
        assert (state["tick"], state["started"], state["waiting_for"]) == (ticks, True, ["a"])
        submitted = [line[2]["client_order_id"] for line in lines[1:] if line[0] == "submit"]
        assert acknowledged <= set(submitted)
        assert len(acknowledged) >= 4 * ticks
        assert len(submitted) == len(set(submitted)) == ledger["orders"]
        assert {fill["client_order_id"] for fill in ledger["fills"]} <= set(submitted)
        assert len({fill["execution_id"] for fill in ledger["fills"]}) == len(ledger["fills"])


def test_a_journal_of_another_tape_is_refused_in_one_line(tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    with process(write(tmp_path / "one.parquet", bars({"BTC/USD": wave()})), "--journal", journal) as (_, ready):
        assert ready["ready"]
    with process(write(tmp_path / "two.parquet", bars({"BTC/USD": wave(base=50)})), "--journal", journal) as (running, ready):
        assert running.wait(PATIENCE) == 2
        assert "was written with another tape" in ready["error"]
        assert ready["error"].count("\n") == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_it_ends_cleanly_when_told_to_even_with_streams_open(tmp_path: Path, name: str) -> None:
    async def hold(url: str, running: subprocess.Popen[str]) -> None:
        async with ClientSession() as session, session.ws_connect(f"{url}/stream"):
            running.send_signal(signal.Signals[name])
            await asyncio.to_thread(running.wait, PATIENCE)

    with process(write(tmp_path / "bars.parquet", bars({"BTC/USD": wave(10)}))) as (running, ready):
        asyncio.run(hold(ready["url"], running))
        assert running.returncode == 0


def test_a_port_in_use_is_one_line_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = write(tmp_path / "bars.parquet", bars({"BTC/USD": wave(10)}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--bars", str(tape), "--port", str(port)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"exchange: port 127.0.0.1:{port} is in use")
    assert "--port" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--free"], "speed"),
        (["--start", "2030-01-01T00:00:00Z"], "after its last bar"),
        (["--start", "yesterday"], "RFC 3339"),
        (["--host", "0.0.0.0"], "CAPPUCCINO_EXCHANGE_TOKEN"),
        (["--symbols", "DOGE/USD"], "DOGE/USD"),
        (["--fee-bps", "5", "--fee-tier", "1"], "--fee-tier"),
        (["--tick-bps", "0"], "tick_bps"),
        (["--liquidity-share", "2"], "liquidity share"),
        (["--journal", "/proc/none/journal"], "journal"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    os.environ.pop("CAPPUCCINO_EXCHANGE_TOKEN", None)
    tape = write(tmp_path / "bars.parquet", bars({"BTC/USD": wave(10)}))
    assert main(["--bars", str(tape), "--port", "0", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_another_host_is_allowed_with_a_token() -> None:
    assert ExchangeSettings(host="0.0.0.0", token="hush").host == "0.0.0.0"
    with pytest.raises(InvalidInput, match="secret"):
        ExchangeSettings(host="0.0.0.0")


def test_bars_of_a_file_flag_what_is_missing(tmp_path: Path) -> None:
    rows = wave(40)
    rows[20] = None
    panel = bars_of(write(tmp_path / "bars.parquet", bars({"BTC/USD": rows, "ETH/USD": wave(40)})), [])
    assert panel.symbols == ("BTC/USD", "ETH/USD")
    assert panel.missing.sum() == 1
    assert panel.missing[20, 0]


MARKET = {
    "symbols": ["AAA/USD", "BBB/USD"],
    "timeframe": "1h",
    "start": "2024-01-01T00:00:00Z",
    "end": "2024-01-11T00:00:00Z",
    "source": {"generator": {"seed": 7}},
}


def test_a_described_market_has_the_bars_of_its_dataset_and_goes_on_after_its_end() -> None:
    whole = market_of(json.dumps(MARKET))
    past = market_of(json.dumps({**MARKET, "end": "2024-01-06T00:00:00Z"}))
    assert whole.symbols == ("AAA/USD", "BBB/USD")
    assert len(whole.ts) == 240
    assert np.array_equal(whole.close[: len(past.ts)], past.close)


@pytest.mark.parametrize(
    ("text", "named"),
    [("", "symbols"), ("{", "Invalid JSON"), (json.dumps({k: v for k, v in MARKET.items() if k != "end"}), "end")],
)
def test_a_market_that_is_none_is_refused(
    text: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAPPUCCINO_SPEC", text)
    assert main(["--market", "--port", "0"]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plan", "named"), [(None, "cannot be read"), ("{", "not JSON"), ('{"rates": {"rain": 1}}', "rain"), ("[]", "seed, rates")]
)
def test_a_fault_plan_that_is_none_is_refused(
    plan: str | None, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faults.json"
    if plan is not None:
        path.write_text(plan)
    assert main(["--bars", "bars.parquet", "--port", "0", "--faults", str(path)]) == 2
    assert named in capsys.readouterr().err


def test_price_gaps_of_a_plan_are_in_the_market_that_is_served(tmp_path: Path) -> None:
    plan = tmp_path / "faults.json"
    plan.write_text('{"script": [{"kind": "price_gap", "symbol": "BTC/USD", "share": "-0.5", "skip": 1}]}')
    tape = write(tmp_path / "bars.parquet", bars({"BTC/USD": [(100.0, 100.0, 100.0, 100.0)] * 3}))
    with process(tape, "--faults", str(plan), "--start", "2024-01-01T02:00:00Z") as (_, ready):
        url = f"{ready['url']}/v1beta3/crypto/us/bars?symbols=BTC/USD&timeframe=1Hour&start=2024-01-01T00:00:00Z"
        with urlopen(url) as answer:
            rows = json.load(answer)["bars"]["BTC/USD"]
    assert [row["o"] for row in rows] == [100.0, 50.0]
