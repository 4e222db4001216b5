"""The clock waits for the sessions that joined, and for nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer

from cappuccino.adapters.venue_server.app import build_app
from cappuccino.adapters.venue_server.journal import Journal

from .builders import T0, exchange, flat

BARS = 3
PATIENCE = 5.0
Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def serving(journal: Path | None = None, **options: Any) -> AsyncIterator[Client]:
    venue = exchange({"BTC/USD": flat(count=BARS)}, accounts=())
    app = build_app(venue, Journal(journal, tape="t", terms={}), **options)
    async with TestClient(TestServer(app)) as client:
        for name in ("a", "b"):
            await client.post("/control/v1/accounts", json={"name": name, "capital_usd": 1000})
        yield client


async def state(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = await (await client.get("/control/v1/state")).json()
    return found


async def start(client: Client) -> None:
    assert (await client.post("/control/v1/start")).status == 200


@asynccontextmanager
async def joined(client: Client, *accounts: str) -> AsyncIterator[ClientWebSocketResponse]:
    async with client.ws_connect("/control/v1/lockstep") as socket:
        for account in accounts:
            await socket.send_json({"join": account})
        for _ in range(200):
            there = {session["account"] for session in (await state(client))["sessions"] if session["connected"]}
            if there >= set(accounts):
                break
        yield socket


async def tell(socket: ClientWebSocketResponse) -> dict[str, Any]:
    message: dict[str, Any] = await socket.receive_json(timeout=PATIENCE)
    return message


async def quiet(client: Client, tick: int) -> None:
    """The clock has stayed where it is through many turns of the server's loop."""
    for _ in range(30):
        assert (await state(client))["tick"] == tick


async def test_a_session_is_told_every_tick_and_the_end() -> None:
    async with serving() as client, joined(client, "a") as a:
        await start(client)
        heard = []
        while "ended" not in (message := await tell(a)):
            heard.append(message)
            await a.send_json({"ack": message["tick"]})
        assert [message["tick"] for message in heard] == list(range(4 * BARS + 1))
        assert [message["at"] for message in heard if message["bar_closed"]] == [T0 + 3600 * bar for bar in range(BARS + 1)]
        assert (await state(client))["ended"] is True


async def test_nothing_moves_before_start_nor_without_sessions() -> None:
    async with serving() as client:
        async with joined(client, "a"):
            await quiet(client, 0)
        assert (await client.delete("/control/v1/sessions/a")).status == 204
        await start(client)
        await quiet(client, 0)


async def test_the_clock_waits_for_the_slowest_session() -> None:
    async with serving() as client, joined(client, "a") as a, joined(client, "b") as b:
        await start(client)
        assert (await tell(a))["tick"] == (await tell(b))["tick"] == 0
        await a.send_json({"ack": 0})
        await quiet(client, 0)
        assert (await state(client))["waiting_for"] == ["b"]
        await b.send_json({"ack": 0})
        assert (await tell(a))["tick"] == 1


async def test_a_session_that_said_until_is_neither_told_nor_waited_for_before() -> None:
    async with serving() as client, joined(client, "a") as a:
        await start(client)
        await a.send_json({"ack": (await tell(a))["tick"], "until": T0 + 2 * 3600})
        message = await tell(a)
        assert (message["at"], message["tick"], message["bar_closed"]) == (T0 + 2 * 3600, 8, True)


async def test_a_session_that_lost_its_connection_is_waited_for_until_it_is_back() -> None:
    async with serving() as client, joined(client, "b") as b:
        async with joined(client, "a") as a:
            await start(client)
            assert (await tell(a))["tick"] == 0
        await b.send_json({"ack": (await tell(b))["tick"]})
        await quiet(client, 0)
        async with joined(client, "a") as again:
            assert (await tell(again))["tick"] == 0, "the tick that it missed is told again"
            await again.send_json({"ack": 0})
            assert (await tell(b))["tick"] == 1


@pytest.mark.parametrize("how", ["message", "delete"])
async def test_a_session_that_leaves_is_not_waited_for(how: str) -> None:
    async with serving() as client, joined(client, "a") as a, joined(client, "b") as b:
        await start(client)
        await b.send_json({"ack": (await tell(b))["tick"]})
        await quiet(client, 0)
        if how == "message":
            await a.send_json({"leave": "a"})
        else:
            await client.delete("/control/v1/sessions/a")
        assert (await tell(b))["tick"] == 1


async def test_the_newest_connection_of_an_account_counts() -> None:
    async with serving() as client, joined(client, "a") as old:
        await start(client)
        await tell(old)
        async with joined(client, "a") as new:
            assert "another connection" in (await tell(old))["error"]
            assert (await tell(new))["tick"] == 0
            await new.send_json({"ack": 0})
            assert (await tell(new))["tick"] == 1


async def test_one_connection_can_join_for_several_accounts() -> None:
    async with serving() as client, joined(client, "a", "b") as both:
        await start(client)
        assert (await tell(both))["tick"] == 0  # once for both
        await both.send_json({"ack": 0, "account": "a"})
        await quiet(client, 0)
        await both.send_json({"ack": 0})
        assert (await tell(both))["tick"] == 1


async def test_stale_acknowledgements_and_nonsense_change_nothing() -> None:
    async with serving() as client, joined(client, "a") as a:
        await start(client)
        await tell(a)
        for nonsense in ({"ack": 7}, {"join": "nobody"}, {"hello": 1}, [1], {"ack": "x"}, {"ack": 0, "until": float("inf")}):
            await a.send_json(nonsense)
        await a.send_str("{")
        errors = [await tell(a) for _ in range(6)]
        assert all("error" in error for error in errors)
        await quiet(client, 0)


async def test_a_restarted_exchange_waits_for_those_who_had_joined(tmp_path: Path) -> None:
    async with serving(tmp_path / "j") as client, joined(client, "a") as a:
        await start(client)
        for tick in range(5):
            assert (await tell(a))["tick"] == tick
            await a.send_json({"ack": tick})
        assert (await tell(a))["tick"] == 5
    async with serving(tmp_path / "j") as client:
        await quiet(client, 5)
        assert (await state(client))["waiting_for"] == ["a"]
        async with joined(client, "a") as again:
            assert (await tell(again))["tick"] == 5
            await again.send_json({"ack": 5})
            assert (await tell(again))["tick"] == 6


async def test_free_running_needs_nobody() -> None:
    async with serving(speed=1000.0, free=True) as client:
        await start(client)
        for _ in range(1000):
            if (await state(client))["ended"]:
                return
            await asyncio.sleep(0)
        pytest.fail("the clock did not run")


async def test_speed_bounds_the_bars_per_second() -> None:
    clock = asyncio.get_running_loop().time
    async with serving(speed=30.0) as client, joined(client, "a") as a:
        began = clock()
        await start(client)
        while "ended" not in (message := await tell(a)):
            await a.send_json({"ack": message["tick"]})
        assert clock() - began >= BARS / 30


async def test_accounts_are_opened_once_by_name() -> None:
    async with serving() as client:
        first = await (await client.post("/control/v1/accounts", json={"name": "c", "capital_usd": 500})).json()
        again = await client.post("/control/v1/accounts", json={"name": "c", "capital_usd": "500.00"})
        assert (again.status, await again.json()) == (200, first)
        other = await client.post("/control/v1/accounts", json={"name": "c", "capital_usd": 501})
        assert other.status == 409
        for wrong in (
            {"name": "d"},
            {"capital_usd": 5},
            {"name": "../", "capital_usd": 5},
            {"name": "d", "capital_usd": -1},
            [],
        ):
            assert (await client.post("/control/v1/accounts", json=wrong)).status in (400, 422)


async def test_the_control_token_guards_control_and_nothing_else() -> None:
    venue = exchange()
    app = build_app(venue, Journal(None, tape="t", terms={}), token="hush")
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/control/v1/state")).status == 401
        assert (await client.get("/control/v1/state", headers={"Authorization": "Bearer hush"})).status == 200
        with pytest.raises(WSServerHandshakeError, match="401"):
            await client.ws_connect("/control/v1/lockstep")
        keys = {"APCA-API-KEY-ID": "key-a", "APCA-API-SECRET-KEY": "secret"}
        assert (await client.get("/v2/clock", headers=keys)).status == 200
