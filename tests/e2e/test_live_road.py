"""The whole road to real money on the local cluster: paper, approval, dry run, two steps of capital, demotion.

Rehearsed: the operator's process says so, the Deployment names Alpaca, and the simulated exchange plays its accounts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pytest
import requests

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.audit import verify_audit
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.objects import PostgresObjects
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.bundle import Bundle, save
from cappuccino.controllers import deployment as deployments
from cappuccino.controllers.decision import Key
from cappuccino.controllers.requests import APPROVE, setting
from cappuccino.controllers.rows import Evidence
from cappuccino.core.clock import SystemClock
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.runner import RunnerSettings, Started, started
from cappuccino.exchange.venue import Costs
from cappuccino.market.features import spec_of
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract

from .chain import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SYMBOLS = tuple(f"{letter * 3}/USD" for letter in "ABCDE")
BAR, HISTORY = 4 * 3600, 40
KEY = Key("Deployment", "default", "desk")
REAL = {"kind": "alpaca", "accountSecretRef": {"name": "desk-live"}}
SPEC = {
    "traderTemplate": {
        "venue": {"kind": "alpaca", "accountSecretRef": {"name": "looks"}},
        "risk": {"stop": 0, "trail": 0},
    },
    "accounts": ["paper-1"],
    "baselines": ["hodl"],
    "live": {
        "venue": REAL,
        "capitalUsd": 20_000,
        "steps": [{"share": 0.1, "marketDays": 1, "closedTrades": 1}, {"share": 1, "marketDays": 1, "closedTrades": 1}],
    },
}


def waves(path: Path, *, bars: int = 4000) -> Path:
    """A market that swings: every symbol in a phase of its own, so that who follows the last bars gains."""
    rng, at, frames = np.random.default_rng(1), np.arange(bars), []
    for n, symbol in enumerate(SYMBOLS):
        close = 100 * np.exp(0.06 * np.sin(2 * np.pi * at / 12 + n) + rng.normal(0, 0.001, bars))
        opened = np.concatenate([[close[0]], close[:-1]])
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * bars,
                    "ts": [1_704_067_200 + BAR * t for t in range(bars)],
                    "open": np.round(opened, 4),
                    "high": np.round(np.maximum(opened, close), 4) + 0.0001,
                    "low": np.round(np.minimum(opened, close), 4) - 0.0001,
                    "close": np.round(close, 4),
                    "volume": np.full(bars, 1e6),
                }
            ).with_columns(pl.from_epoch("ts", time_unit="s").dt.replace_time_zone("UTC"))
        )
    pl.concat(frames).write_parquet(path)
    return path


def bundle(kind: str) -> Bundle:
    rule = {"feature": "return", "feature_bars": "1", "direction": "1", "enter": "0.004", "exit": "-0.004"}
    feature = spec_of("return", {"bars": 1})
    return Bundle(
        kind=kind,  # type: ignore[arg-type]
        contract=Contract(symbols=SYMBOLS, timeframe=Timeframe(BAR), features=(feature,), lookback=1, warmup_bars=30),
        sizing=Sizing(),
        barriers=Barriers(stop=None, trail=None),
        costs=Costs(),
        capital_usd=10_000.0,
        parameters=rule if kind == "trend" else {},
    )


@dataclass
class Desk:
    """What a person and a gate do to a running cluster, and what they see."""

    services: Started
    objects: PostgresObjects
    gate: PostgresRecord

    async def see(self) -> dict[str, Any]:
        found = await self.objects.get(KEY)
        assert found is not None
        return dict(found)

    async def said(self, kind: str) -> tuple[str, str]:
        conditions = ((await self.see()).get("status") or {}).get("conditions", ())
        return next(((c["reason"], c.get("message", "")) for c in conditions if c["type"] == kind), ("", ""))

    async def traders(self) -> dict[str, dict[str, Any]]:
        return {t["metadata"]["name"]: t["spec"] for t in await self.objects.list("Trader")}

    async def live(self) -> list[str]:
        return [name for name, spec in (await self.traders()).items() if spec["mode"] == "live"]

    async def change(self, **live: Any) -> None:
        document = await self.see()
        spec = document["spec"] | {"live": document["spec"]["live"] | live}
        await self.objects.apply(document | {"spec": spec})

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.services.database_url) as connection:
            return connection.execute(query.encode(), arguments).fetchall()

    async def until(self, what: Callable[[], Awaitable[bool]], *, seconds: float = 240) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not await what():
            if asyncio.get_running_loop().time() > deadline:
                states = self.rows("select name, state, message from workload")
                graded = self.rows("select gate, outcome, message from evidence order by id desc limit 4")
                raise AssertionError(f"in vain: {await self.said('Promoted')} {await self.said('Live')} {states} {graded}")
            await asyncio.sleep(0.1)


def secrets_of(account: str) -> set[str]:
    """The Secrets that the process which trades `account` was told of."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
                if b"trade" in command and account.encode() in command:
                    variables = dict(v.split(b"=", 1) for v in (process / "environ").read_bytes().split(b"\0") if b"=" in v)
                    folder = variables.get(b"CAPPUCCINO_SECRETS")
                    return {entry.name for entry in Path(folder.decode()).iterdir()} if folder else set()
            except OSError:
                continue
    raise AssertionError(f"nobody trades {account}")


async def test_the_road_to_real_money(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPUCCINO_REHEARSAL", "100000")
    monkeypatch.setattr(deployments, "GRADE_EVERY_SECONDS", 1.0)
    for name in ("CAPPUCCINO_DATABASE_URL", "CAPPUCCINO_EXCHANGE_URL", "CAPPUCCINO_ARTIFACTS_URL", "CAPPUCCINO_SECRETS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("looks", "paper-1", "desk-live"):
        (tmp_path / "state" / "secrets" / name).mkdir(parents=True)
    begins = f"{np.datetime64(1_704_067_200 + BAR * HISTORY, 's')}Z"
    exchange = ("--bars", str(waves(tmp_path / "bars.parquet")), "--start", begins, "--start-with", "2", "--speed", "12")
    settings = RunnerSettings(state=tmp_path / "state", exchange=exchange, exchange_port=free_port())
    async with started(settings) as services:
        blobs = open_blobs(services.artifacts_url)
        good, hodl = save(blobs, bundle("trend")), save(blobs, bundle("hold"))
        operator = await open_async_pool(services.database_url, "operator")
        objects = PostgresObjects(operator, clock=SystemClock())
        made = await objects.create(
            {
                "apiVersion": "cappuccino.dev/v1alpha1",
                "kind": "Deployment",
                "metadata": {"name": KEY.name, "namespace": KEY.namespace},
                "spec": SPEC | {"bundles": [good]},
            }
        )
        pool = await open_async_pool(services.database_url, "gate")
        desk = Desk(services, objects, PostgresRecord(pool))
        given = {"gate_version": 1, "scope": "d", "deployment_uid": made["metadata"]["uid"], "outcome": "Pass", "message": ""}
        verdict = {"verdict": "Passed", "role": "candidate", "rank": 0, "kind": "trend"}
        for digest, gate, detail in ((good, "verdict", verdict), (hodl, "baseline", {"kind": "hodl"})):
            row = Evidence(bundle_digest=digest, gate=gate, detail=detail, **given)  # type: ignore[arg-type]
            await desk.gate.insert_evidence(evidence=row)
        stop = asyncio.Event()
        running = asyncio.create_task(services.cluster.run(stop))
        try:
            await travel(desk, made, settings)
        finally:
            stop.set()
            await running
            await pool.close()
            await operator.close()


async def travel(desk: Desk, made: dict[str, Any], settings: RunnerSettings) -> None:
    async def promotable() -> bool:
        return (await desk.said("Promoted"))[0] == "AwaitsApproval"

    async def trading(name: str) -> bool:
        return await desk.live() == [name] and (await desk.said("Live"))[0] in ("Trading", "DryRun")

    async def decided(account: str) -> bool:
        return bool(desk.rows("select 1 from decision where account = %s", account))

    def account(step: int) -> str:
        return str(desk.rows("select account from promotion where step = %s order by id desc limit 1", step)[0][0])

    def ledger(name: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{settings.exchange_port}/control/v1/accounts/{name}/ledger"
        return dict(requests.get(url, timeout=10).json())

    # paper, until its own record says that a person may promote it; nothing is live by itself
    await desk.until(promotable)
    assert await desk.live() == []
    (grade,) = [g for c in (await desk.see())["status"]["candidates"] for g in c["gates"] if g["gate"] == "grade"]
    for said in ("market days (at least 7)", "closed trades (at least 20)", "breaks even at", "95 % within", "at most 15%"):
        assert said in grade["message"]

    # approved: the dry run decides on the real account, and sends nothing
    approval = setting(
        APPROVE, "desk-trend", actor="ada", reason="read the report", at="1", generation=made["metadata"]["generation"]
    )
    await desk.objects.patch_metadata(KEY, uid=made["metadata"]["uid"], annotations=approval)
    await desk.until(lambda: trading("desk-trend-dry"))
    await desk.until(lambda: decided(account(0)))
    dry, paper = (await desk.traders())["desk-trend-dry"], (await desk.traders())["desk-trend"]
    hodl = (await desk.traders())["desk-hodl"]
    told = [secrets_of(spec["account"]) for spec in (dry, paper, hodl)]
    assert told == [{"desk-live"}, {"paper-1"}, {"looks"}]  # the real key is where live is, and nowhere else
    assert "orders" not in ledger("desk-live")  # nobody has ever sent anything to the real account

    # a person lets it send: a tenth of the capital, then all of it, each step an account of its own that ends in cash
    await desk.change(dryRun=False)
    await desk.until(lambda: trading("desk-trend-live-1"))
    await desk.until(lambda: decided(account(1)))
    await desk.until(lambda: trading("desk-trend-live-2"))
    assert desk.rows("select baseline_usd, reserve_usd from account where name = %s", account(1)) == [(2000, 98_000)]
    ((notional,),) = desk.rows("select max(notional) from intent where account = %s and side = 'buy'", account(1))
    ((equity,),) = desk.rows("select max(equity_usd) from equity where account = %s", account(1))
    assert 0 < notional <= Decimal("0.31") * equity < 10_000  # of its share, whatever else the account has
    assert desk.rows("select venue from account where name = %s", account(1)) == [("rehearsal/alpaca/live",)]
    await desk.until(lambda: decided(account(2)))
    assert ledger("desk-live")["orders"] > 0

    # its gate fails: sold out, ended, and the approval with it; paper goes on
    failed = Evidence(
        bundle_digest=paper["bundleDigest"], gate="live", gate_version=1, scope="by the test", outcome="Fail",
        deployment_uid=made["metadata"]["uid"], message="its drawdown is too large.", detail={"account": account(2)},
    )  # fmt: skip
    await desk.gate.insert_evidence(evidence=failed)

    async def demoted() -> bool:
        return (await desk.said("Promoted"))[0] == "Demoted" and await desk.live() == []

    await desk.until(demoted)
    assert ledger("desk-live")["positions"] == {}
    assert {"desk-trend", "desk-hodl"} <= (await desk.traders()).keys()
    told_actions = desk.rows("select action, actor, step from promotion order by id")
    assert told_actions == [
        ("approved", "ada", None),
        ("started", "ada", 0),
        ("started", "ada", 1),
        ("started", "ada", 2),
        ("demoted", "operator", None),
    ]
    with psycopg.connect(desk.services.database_url) as connection:
        verify_audit(connection)
    audited = desk.rows("select action from audit where action like 'promotion %%' order by seq")
    assert [action for (action,) in audited] == [f"promotion {action}" for action, _, _ in told_actions]
