"""What the dashboard serves of a real record, and that it cannot write it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from aiohttp.test_utils import TestClient, TestServer

from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.overview import Overview
from cappuccino.core.clock import iso
from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.dashboard import build_app
from cappuccino.entrypoints.halting import ApiServer

FACTS = """
insert into snapshot (digest, dataset_uid, manifest) values ('d', 'ds', '{}');
insert into study (uid, name, spec, snapshot, gate_starts_at, recorded_at) values
  ('s1', 'older', '{}', 'd', '2024-05-01Z', '2024-01-01Z'), ('s2', '<b>newer</b>', '{}', 'd', '2024-05-01Z', '2024-01-02Z');
insert into trial (study_uid, number, parameters, distributions, seed, state, created_at)
  select 's1', n, '{}', '{}', 1, case when n < 3 then 'Complete' else 'Failed' end, now() from generate_series(0, 3) n;
insert into evidence (bundle_digest, gate, gate_version, scope, deployment_uid, outcome, measured, threshold, message, detail)
  values ('bundle-one', 'window', 1, 'd', 'u1', 'Fail', 0.1, 0.5, 'too low', '{}'),
         ('bundle-one', 'verdict', 1, 'd', 'u1', 'Inconclusive', null, null, 'stopped by window',
          '{"deployment": "arena", "verdict": "Observer", "role": "observer"}'),
         ('bundle-one', 'soak', 1, 'account-1', 'u1', 'Inconclusive', null, null, 'too short', '{}'),
         ('bundle-one', 'soak', 1, 'account-1/2', 'u1', 'Pass', 30, 14, 'long enough', '{}'),
         ('bundle-two', 'window', 1, 'd', 'u2', 'Pass', 1.1, 0.5, 'no verdict yet', '{}');
insert into account (name, venue, holder, token, expires_at, halted_reason) values
  ('account-1', 'simulated', 'h', 1, now() + interval '1 hour', null), ('account-2', 'simulated', null, 0, null, null);
select account_halt('account-1', 'an earlier one', 'ada');
select account_resume('account-1', 'looked', 'ada');
select account_halt('account-2', 'an earlier one', 'ada');
select account_resume('account-2', 'looked', 'ada');
select account_halt('account-2', '<script>alert("halt")</script>', 'b<i>ob');
insert into equity (account, bar_at, equity_usd, cash_usd, positions) values
  ('account-1', '2024-06-01Z', 12345.678901234567890123, 1, '{}'), ('account-1', '2024-05-01Z', 20000, 1, '{}');
"""


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[TestClient[Any, Any]]:
    with psycopg.connect(database_url) as owner:
        owner.execute(FACTS)
    pool = await open_async_pool(database_url, "dashboard")
    app = build_app(Overview(pool), now=lambda: datetime(2024, 7, 1, tzinfo=UTC))
    async with TestClient(TestServer(app)) as client:
        yield client
    await pool.close()


async def items(client: TestClient[Any, Any], name: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/api/v1/{name}")
    assert answer.status == 200
    return list((await answer.json())["items"])


async def test_studies_are_counted_by_state_and_the_newest_comes_first(client: TestClient[Any, Any]) -> None:
    newer, older = await items(client, "studies")
    assert (newer["uid"], newer["trials"]) == ("s2", {})
    assert (older["uid"], older["trials"]) == ("s1", {"Complete": 3, "Failed": 1})
    assert older["gate_starts_at"] == "2024-05-01T00:00:00Z"


async def test_a_candidate_has_its_verdict_and_the_newest_row_of_each_gate(client: TestClient[Any, Any]) -> None:
    (candidate,) = await items(client, "candidates")
    assert (candidate["deployment"], candidate["verdict"], candidate["role"]) == ("arena", "Observer", "observer")
    assert [(gate["gate"], gate["outcome"], gate["measured"]) for gate in candidate["gates"]] == [
        ("window", "Fail", 0.1),
        ("soak", "Pass", 30),
    ]


async def test_accounts_have_exact_equity_and_why_since_when_and_by_whom_they_are_halted(
    client: TestClient[Any, Any], database_url: str
) -> None:
    first, second = await items(client, "accounts")
    assert (first["equity_usd"], first["peak_equity_usd"]) == ("12345.678901234567890123", "20000")
    assert (first["held"], first["last_bar_at"], first["halted_reason"]) == (True, "2024-06-01T00:00:00Z", None)
    assert (first["halted_by"], first["halted_at"]) == (None, None)
    assert (second["equity_usd"], second["halted_reason"]) == (None, '<script>alert("halt")</script>')
    with psycopg.connect(database_url) as owner:
        row = owner.execute("select max(recorded_at) from audit where action = 'halt'").fetchone()
    assert row is not None
    assert (second["halted_by"], second["halted_at"]) == ("b<i>ob", iso(row[0]))


async def test_the_page_shows_all_of_it_and_runs_nothing(client: TestClient[Any, Any]) -> None:
    answer = await client.get("/")
    page = await answer.text()
    assert answer.status == 200
    shown = (
        "12,345.68",
        "Trading",
        "Halted: &lt;script&gt;",
        "by b&lt;i&gt;ob, 2",
        "arena",
        "Observer",
        "soak Pass",
        "&lt;b&gt;newer",
    )
    for text in shown:
        assert text in page
    assert not re.search(r"<script|<b>| on\w+=", page)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_nothing_can_be_written_through_it(client: TestClient[Any, Any], database_url: str) -> None:
    for path in ("/", "/api/v1/studies", "/healthz"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await client.request(method, path)).status == 405
    pool = await open_async_pool(database_url, "dashboard")
    try:
        async with pool.connection() as connection:
            for statement in ("update account set halted_reason = null", "select account_resume('account-2', 'r', 'a')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(statement)
    finally:
        await pool.close()


@pytest.mark.slow
async def test_it_says_503_while_the_database_is_away_and_comes_back(client: TestClient[Any, Any], database_url: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    elsewhere = psycopg.conninfo.make_conninfo(database_url, dbname="postgres")
    assert (await client.get("/healthz")).status == 200
    with psycopg.connect(elsewhere, autocommit=True) as owner:
        owner.execute(f"alter database {name} allow_connections false")
        owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        away = [answer.status for answer in await asyncio.gather(client.get("/healthz"), client.get("/"))]
        owner.execute(f"alter database {name} allow_connections true")
    assert away == [503, 503]
    deadline = time.monotonic() + 30
    while (status := (await client.get("/healthz")).status) != 200:
        assert time.monotonic() < deadline, status


def test_the_process_listens_and_ends_when_told(database_url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cappuccino.entrypoints.worker", "dashboard", "--port", "0"],
        env={**os.environ, "CAPPUCCINO_DATABASE_URL": database_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert '"event": "listening"' in process.stderr.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


# --- requests of people (what an API server makes of them is in tests/cluster/test_dashboard.py) -----------------

HALT = "/api/v1/namespaces/default/traders/t-0/halt"
KNOWN = {"Authorization": "Bearer abc.def-ghi"}
NOWHERE = ApiServer(url="https://127.0.0.1:9")


@pytest.fixture
async def door(database_url: str) -> AsyncIterator[TestClient[Any, Any]]:
    """A dashboard whose API server is away."""
    pool = await open_async_pool(database_url, "dashboard")
    async with TestClient(TestServer(build_app(Overview(pool), now=lambda: datetime.now(UTC), api_server=NOWHERE))) as client:
        yield client
    await pool.close()


async def asked(client: TestClient[Any, Any], path: str = HALT, **request: Any) -> tuple[int, str]:
    answer = await client.post(path, **{"json": {"reason": "odd"}, "headers": KNOWN, **request})
    assert "Access-Control-Allow-Origin" not in answer.headers
    return answer.status, (await answer.json())["error"]


async def test_without_an_api_server_a_halt_is_sent_to_the_command_line(client: TestClient[Any, Any]) -> None:
    for path in (HALT, HALT.replace("halt", "resume")):
        status, said = await asked(client, path)
        assert (status, "use `cappuccino halt NAME" in said) == (501, True)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"headers": {}}, 401, "send the header Authorization: Bearer TOKEN"),
        ({"headers": {"Authorization": "Basic abc"}}, 401, "no token"),
        ({"headers": {"Authorization": "Bearer a b"}}, 401, "no token"),
        ({"json": {}}, 400, "reason: required and absent; add it"),
        ({"json": {"reason": " "}}, 400, "is empty: write why"),
        ({"json": {"reason": 5}}, 400, "reason: "),
        ({"json": {"reason": "odd", "all": True}}, 400, "all: unknown field"),
        ({"json": {"reason": "x" * 1001}}, 400, "has 1001 characters: write at most 1000"),
        ({"json": {"reason": "x" * 20_000}}, 413, ""),
        ({"json": None, "data": b"{"}, 415, "send application/json"),
        ({"json": None, "data": b"{", "headers": KNOWN | {"Content-Type": "application/json"}}, 400, "Invalid JSON"),
        ({"json": None, "data": {"reason": "odd"}}, 415, "send application/json"),
        ({"params": {"wait": "a while"}}, 400, "wait is 'a while': write seconds from 0 to 30"),
        ({"params": {"wait": "nan"}}, 400, "wait is 'nan'"),
    ],
)
async def test_a_request_that_is_wrong_is_told_what_to_do(
    door: TestClient[Any, Any], request_: dict[str, Any], status: int, words: str
) -> None:
    got, said = await asked(door, **request_)
    assert got == status, said
    assert words in said


async def test_an_api_server_that_is_away_is_tried_again_later(door: TestClient[Any, Any]) -> None:
    answer = await door.post(HALT, json={"reason": "odd"}, headers=KNOWN)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "the API server does not answer" in (await answer.json())["error"]
    assert (await door.get("/api/v1/namespaces/default/traders", headers=KNOWN)).status == 503


async def test_another_sites_page_is_let_in_nowhere(door: TestClient[Any, Any]) -> None:
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answer = await door.options(HALT, headers=origin | {"Access-Control-Request-Headers": "authorization,content-type"})
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_a_token_is_sent_nowhere_in_the_clear() -> None:
    assert ApiServer.of("", "") is None
    with pytest.raises(InvalidInput, match="so write https://host:port"):
        ApiServer.of("http://kubernetes.default.svc", "")
    with pytest.raises(InvalidInput, match="is no file"):
        ApiServer.of("https://kubernetes.default.svc", "/none/ca.crt")
