"""A reader that does not read holds nobody up."""

from __future__ import annotations

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from cappuccino.adapters.venue_server.outbox import LIMIT, Outbox


async def test_messages_arrive_in_order_and_a_reader_too_far_behind_is_let_go() -> None:
    everyone: set[Outbox] = set()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async with Outbox(socket, everyone) as outbox:
            async for message in socket:
                for number in range(int(message.data)):
                    outbox.put(str(number))
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestClient(TestServer(app)) as client, client.ws_connect("/") as socket:
        await socket.send_str("100")
        assert [await socket.receive_str(timeout=5) for _ in range(100)] == [str(number) for number in range(100)]
        await socket.send_str(str(LIMIT + 1))
        while (message := await socket.receive(timeout=5)).type == WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1013)
    assert everyone == set()
