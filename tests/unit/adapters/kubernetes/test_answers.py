"""What an API server's answers become, from a server that gives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from cappuccino.adapters.kubernetes.answers import AnotherUid, Exists, Expired, Forbidden, Unauthenticated
from cappuccino.adapters.kubernetes.client import JOB, OURS, Client
from cappuccino.core.errors import CappuccinoError, Conflict, InvalidInput, NotFound, RetryLater

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Client]:
    server = web.Server(handler)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    async with Client(configuration, **options) as client:
        yield client
    await runner.cleanup()


def answering(code: int, body: Any, headers: dict[str, str] | None = None) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=code, text=text, headers=headers)

    return handler


def refusal(message: str, reason: str = "", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "message": message, "reason": reason, "details": details}


@pytest.mark.parametrize(
    ("code", "body", "kind", "message"),
    [
        (404, refusal('studies "s" not found', "NotFound"), NotFound, "not found"),
        (409, refusal('studies "s" already exists', "AlreadyExists"), Exists, "already exists"),
        (409, refusal("the object has been modified", "Conflict"), Conflict, "modified"),
        (409, refusal("the UID in the precondition (x) does not match", "Conflict"), AnotherUid, "UID"),
        (
            422,
            refusal("metadata.uid: field is immutable", "Invalid", causes=[{"field": "metadata.uid"}]),
            AnotherUid,
            "immutable",
        ),
        (422, refusal('spec.parallelism: Invalid value: "many"', "Invalid"), InvalidInput, r'spec\.parallelism.*"many"'),
        (400, refusal('strict decoding error: unknown field "spec.x"'), InvalidInput, r"spec\.x"),
        (
            403,
            refusal('User "u" cannot list resource "jobs"', "Forbidden"),
            Forbidden,
            'cannot list resource "jobs": grant it',
        ),
        (403, refusal("exceeded quota: pods", "Forbidden"), Forbidden, r"exceeded quota: pods \("),
        (401, refusal("Unauthorized", "Unauthorized"), Unauthenticated, "Unauthorized"),
        (410, refusal("too old resource version", "Expired"), Expired, "too old"),
        (429, refusal("too many requests"), RetryLater, "too many requests"),
        (500, refusal("etcdserver: leader changed"), RetryLater, "leader changed"),
        (500, refusal("failed to create typed patch object (x): .spec.a: wrong"), InvalidInput, r"\.spec\.a"),
        (503, "<html>no backend</html>", RetryLater, "no backend"),
        (504, "", RetryLater, "HTTP 504"),
    ],
)
async def test_an_answer_becomes_the_error_that_says_what_to_do(
    code: int, body: Any, kind: type[CappuccinoError], message: str
) -> None:
    async with serving(answering(code, body)) as client:
        with pytest.raises(kind, match=message) as caught:
            await client.create(JOB, {"metadata": {"name": "x", "namespace": "lab"}})
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)


async def test_retry_after_is_honoured() -> None:
    async with serving(answering(429, refusal("slow down"), {"Retry-After": "7"})) as client:
        with pytest.raises(RetryLater) as caught:
            await client.get(JOB, "lab", "x")
        assert caught.value.after_seconds == 7


async def test_what_is_absent_is_none_when_it_is_read() -> None:
    async with serving(answering(404, refusal("not found"))) as client:
        assert await client.get(JOB, "lab", "x") is None


async def test_a_server_that_hangs_is_given_up_on_in_time() -> None:
    calls: list[tuple[str, str, int | str]] = []

    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        raise AssertionError

    async with serving(
        hang, seconds=0.2, on_call=lambda verb, resource, code, _: calls.append((verb, resource, code))
    ) as client:
        async with asyncio.timeout(2):
            with pytest.raises(RetryLater, match="does not answer"):
                await client.replace_status(OURS["Study"], "lab", "s", {}, uid="u")
    assert calls == [("patch", "studies/status", "timeout")]


async def test_a_server_that_is_gone_is_retried_later() -> None:
    calls: list[tuple[str, str, int | str]] = []
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:9"
    async with Client(configuration, on_call=lambda verb, resource, code, _: calls.append((verb, resource, code))) as client:
        with pytest.raises(RetryLater, match="does not answer"):
            await client.get(JOB, "lab", "x")
    assert calls == [("get", "jobs", "unreachable")]


async def test_calls_are_told_with_verb_resource_and_code() -> None:
    calls: list[tuple[str, str, int | str]] = []
    on_call = lambda verb, resource, code, seconds: calls.append((verb, resource, code))  # noqa: E731
    async with serving(answering(200, {"metadata": {"managedFields": [1]}}), on_call=on_call) as client:
        assert await client.get(JOB, "lab", "x") == {"metadata": {}}
        await client.create(JOB, {"metadata": {"namespace": "lab"}})
        await client.apply(OURS["Trial"], {"metadata": {"namespace": "lab", "name": "x"}})
        await client.patch(JOB, "lab", "x", {})
        await client.delete(JOB, "lab", "x")
    assert calls == [
        ("get", "jobs", 200),
        ("create", "jobs", 200),
        ("apply", "trials", 200),
        ("patch", "jobs", 200),
        ("delete", "jobs", 200),
    ]


async def test_a_watch_reads_events_of_any_length_and_in_any_pieces() -> None:
    long = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "x" * 3_000_000}}}).encode()
    short = json.dumps({"type": "DELETED", "object": {"metadata": {"name": "y"}}}).encode()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        whole = long + b"\n" + short + b"\n"
        for begin in range(0, len(whole), 700_001):
            await response.write(whole[begin : begin + 700_001])
        return response

    async with serving(stream) as client:
        events = [(kind, len(body["metadata"]["name"])) async for kind, body in client.watch(JOB, version="1")]
    assert events == [("ADDED", 3_000_000), ("DELETED", 1)]


async def test_a_watch_that_is_too_far_behind_says_so_in_its_stream() -> None:
    line = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version", "reason": "Expired"}}
    async with serving(answering(200, json.dumps(line) + "\n")) as client:
        with pytest.raises(Expired):
            async for _ in client.watch(JOB, version="1"):
                pass


async def test_a_watch_that_is_cut_is_retried_later() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADD')
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(cut) as client:
        with pytest.raises(RetryLater, match="watch jobs"):
            async for _ in client.watch(JOB, version="1"):
                pass


async def test_no_cluster_to_talk_to_is_said(tmp_path: Any) -> None:
    with pytest.raises(InvalidInput, match="no cluster to talk to"):
        await Client.connect(kubeconfig=str(tmp_path / "absent"))
