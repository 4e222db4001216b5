"""`make demo`: the whole chain on one machine, from manifests to graded paper traders, with a summary and a report.

Stages: services, data, search, gates, paper, grade. Without --bars the generated market of examples/quickstart; with --bars the
manifests of examples/real-bars on that file: search and validate on the past, trade the last month on paper. An interrupted
demo goes on where it was when the same command is given again; a finished one begins anew.

Exit code 0: the run did what it says. "No candidate passed" is a result; a ledger that disagrees with the exchange is not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.api import Deployment
from cappuccino.controllers.rows import AccountActivity
from cappuccino.core.clock import SystemClock, iso
from cappuccino.core.errors import CappuccinoError, Conflict, RetryLater, UserError
from cappuccino.core.identifiers import digest_of, sha256_hex
from cappuccino.entrypoints import presence, progress, runner
from cappuccino.entrypoints.reporting import Told, collect, report_of, summary_of
from cappuccino.entrypoints.scenario import PAPER_DAYS, Scenario, generated, real
from cappuccino.entrypoints.summary import Summary
from cappuccino.evaluation.report import render
from cappuccino.reconcile.ports import Document, Key, Ports
from cappuccino.telemetry.logs import configure

FOLDER = Path("build/demo")
DONE = "finished"
POLL_SECONDS = 0.5
NAMESPACE = "default"
INTERRUPTED = "interrupted: the same command goes on from here; nothing is lost"


@dataclass(kw_only=True)
class Stages:
    """Wall seconds by stage, over all runs of an interrupted demo; the running one is the last."""

    file: Path
    elapsed: dict[str, float]
    began: float
    name: str = ""

    @classmethod
    def start(cls, file: Path) -> Stages:
        return cls(file=file, elapsed=json.loads(file.read_text()) if file.exists() else {}, began=time.monotonic())

    def enter(self, name: str) -> None:
        self.leave()
        self.name, self.began = name, time.monotonic()

    def leave(self) -> None:
        if self.name:
            self.elapsed[self.name] = self.elapsed.get(self.name, 0.0) + time.monotonic() - self.began
            self.file.write_text(json.dumps(self.elapsed))
        self.name = ""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=Path, help="Parquet, CSV or Feather: symbol, ts, open, high, low, close, volume")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="what it leaves (default %(default)s)")
    parser.add_argument("--port", type=int, default=runner.EXCHANGE_PORT, help="of the simulated exchange")
    parser.add_argument(
        "--speed", type=float, default=0.0, help="bars per second of the exchange at most; 0: as fast as it goes"
    )
    parser.add_argument("--manifests", type=Path, help="a folder of manifests instead of the example's")
    parser.add_argument("--paper-days", type=int, default=PAPER_DAYS, help="market days of paper (default %(default)s)")
    options = parser.parse_args(argv)
    configure(level="ERROR", process="demo")
    try:
        days = options.paper_days
        scenario = real(options.bars, options.manifests, days) if options.bars else generated(options.manifests, days)
        return asyncio.run(_run(scenario, options.folder.resolve(), port=options.port, speed=options.speed))
    except CappuccinoError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


async def _run(scenario: Scenario, folder: Path, *, port: int, speed: float) -> int:
    state = prepared(folder, scenario)
    bars_file = state / "market.parquet"
    if not bars_file.exists():
        scenario.write_bars(bars_file)
    exchange = ("--bars", str(bars_file), "--start", scenario.paper_starts_at, "--speed", str(speed), *scenario.exchange_terms)
    settings = runner.RunnerSettings(state=state, exchange=exchange, exchange_port=port)
    await _free(port)
    stages, stop = Stages.start(state / "elapsed.json"), asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    with progress.display(scenario.title) as shown:
        stages.enter("services")
        shown.stage("services")
        async with runner.started(settings) as services, aiohttp.ClientSession() as http:
            presence.announce(state, services.database_url)
            cluster = asyncio.create_task(services.cluster.run(stop))
            demo = asyncio.create_task(_Demo(scenario, services, http, shown, stages).run())
            stopped = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({cluster, demo, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if cluster.done() and not stop.is_set():
                    cluster.result()
                if not demo.done():
                    raise RetryLater(INTERRUPTED)
                told, ledgers = demo.result()
                stages.leave()
                ended = scenario.trades_end(told)
                summary = summary_of(told, ledgers, source=scenario.source, elapsed=stages.elapsed, ended=ended)
            finally:
                stop.set()
                demo.cancel()
                stopped.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.gather(cluster, return_exceptions=True)
                presence.withdraw(state)
    _leave(folder, state, scenario, told, summary)
    sys.stdout.write(progress.closing(summary, folder))
    return 0 if summary.succeeded else 1


async def _free(port: int) -> None:
    """Wait a moment for the port: the exchange of a demo that was just killed lets go of it soon.

    Raises:
        Conflict: something else listens there.
    """
    for _ in range(10):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return
        await asyncio.sleep(0.3)
    raise Conflict(f"port 127.0.0.1:{port} is in use: stop what listens there, or choose another: make demo PORT=8701")


class _Demo:
    """The person at the keyboard: applies manifests, starts the exchange's clock, waits."""

    def __init__(
        self,
        scenario: Scenario,
        services: runner.Started,
        http: aiohttp.ClientSession,
        shown: progress.Display,
        stages: Stages,
    ) -> None:
        self._scenario, self._services, self._http = scenario, services, http
        self._shown, self._stages = shown, stages
        self._ports: Ports = services.cluster.ports

    async def run(self) -> tuple[Told, dict[str, Any]]:
        for document in self._scenario.documents:
            await self._ports.objects.apply(document)
        self._enter("data")
        await self._until(self._data)
        self._enter("search")
        await self._until(self._search)
        self._enter("gates")
        await self._until(self._gates)
        if await self._traders():
            self._enter("paper")
            await self._until(self._joined)
            async with self._http.post(f"{self._services.exchange_url}/control/v1/start") as answer:
                answer.raise_for_status()
            await self._until(self._traded)
            self._enter("grade")
            await self._until(self._graded)
        name = self._scenario.deployment
        blobs = open_blobs(self._services.artifacts_url)
        told = await collect(self._ports.objects, self._ports.record, blobs, namespace=NAMESPACE, name=name)
        return told, {item.account.name: await self._ledger(item.account.name) for item in told.traded}

    def _enter(self, stage: str) -> None:
        self._stages.enter(stage)
        self._shown.stage(stage)

    async def _until(self, done: Any) -> None:
        """Look twice a second, as a person would, until `done`; a database that is away for a while is waited for."""
        while True:
            with suppress(RetryLater):
                if await done():
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def _object(self, kind: str, name: str) -> Document:
        document = await self._ports.objects.get(Key(kind, NAMESPACE, name))
        if document is None:
            raise UserError(f"{kind.lower()}/{name} is gone: it was deleted while the demo ran")
        stalled = _condition(document, "Stalled")
        if stalled and stalled["status"] == "True":
            raise UserError(f"{kind.lower()}/{name}: {stalled['message']}")
        return document

    async def _data(self) -> bool:
        document = await self._object("Dataset", self._scenario.dataset)
        self._shown.data(document.get("status") or {})
        return _is(document, "Ready")

    async def _search(self) -> bool:
        document = await self._object("Study", self._scenario.study)
        self._shown.search(document.get("status") or {}, document["spec"])
        return _is(document, "Complete") or _is(document, "Failed")

    async def _gates(self) -> bool:
        document = await self._ports.objects.get(Key("Deployment", NAMESPACE, self._scenario.deployment))
        assert document is not None  # applied above, and nobody deletes it but a person
        self._shown.gates(document.get("status") or {})
        study = await self._ports.objects.get(Key("Study", NAMESPACE, self._scenario.study))
        if study and _is(study, "Failed"):
            return True  # an honest end: there is nothing to judge
        stalled = _condition(document, "Stalled")
        if stalled and stalled["status"] == "True":
            raise UserError(f"deployment/{self._scenario.deployment}: {stalled['message']}")
        return _is(document, "Ready")

    async def _traders(self) -> list[Document]:
        labels = {"cappuccino.dev/deployment": self._scenario.deployment}
        return await self._ports.objects.list("Trader", namespace=NAMESPACE, labels=labels)

    async def _joined(self) -> bool:
        traders = await self._checked_traders()
        state = await self._exchange("state")
        sessions = {session["account"] for session in state.get("sessions", ())}
        self._shown.paper(traders, await self._activity(traders), state)
        return bool(state.get("started")) or all(trader["spec"]["account"] in sessions for trader in traders)

    async def _traded(self) -> bool:
        traders = await self._checked_traders()
        state = await self._exchange("state")
        self._shown.paper(traders, await self._activity(traders), state)
        return bool(state.get("ended")) and all(_reason(trader, "Ready") == "Finished" for trader in traders)

    async def _graded(self) -> bool:
        found = await self._ports.objects.get(Key("Deployment", NAMESPACE, self._scenario.deployment))
        deployment = Deployment.parse(found or {})
        accounts = [trader["spec"]["account"] for trader in await self._traders()]
        activity = await self._ports.record.activity(accounts)
        last = max((a.last_bar_at for a in activity.values() if a.last_bar_at), default=None)
        if last is None:
            return True
        rows = await self._ports.record.evidence(deployment_uid=deployment.uid)
        graded = {row.detail["account"] for row in rows if row.gate == "grade" and row.detail["bar_at"] == iso(last)}
        return graded >= {account for account in accounts if activity[account].decisions >= 3}

    async def _activity(self, traders: Sequence[Document]) -> Mapping[str, AccountActivity]:
        return await self._ports.record.activity([trader["spec"]["account"] for trader in traders])

    async def _checked_traders(self) -> list[Document]:
        traders = await self._traders()
        for trader in traders:
            stalled = _condition(trader, "Stalled")
            if stalled and stalled["status"] == "True":
                raise UserError(f"trader/{trader['metadata']['name']}: {stalled['message']}")
        return traders

    async def _exchange(self, what: str) -> Mapping[str, Any]:
        """Empty while the exchange is starting (again)."""
        try:
            async with self._http.get(f"{self._services.exchange_url}/control/v1/{what}") as answer:
                return dict(await answer.json()) if answer.status == 200 else {}
        except aiohttp.ClientError:
            return {}

    async def _ledger(self, account: str) -> Mapping[str, Any]:
        ledger = await self._exchange(f"accounts/{account}/ledger")
        if not ledger:
            raise RetryLater(f"the exchange does not answer for account {account}: see its log in the state folder")
        return ledger


def prepared(folder: Path, scenario: Scenario) -> Path:
    """The state folder of this scenario: kept when an earlier run of the same one was cut off, else new."""
    state = folder / "state"
    identity = digest_of({"documents": scenario.documents, "source": scenario.source, "until": scenario.end})
    mark = state / "scenario"
    if state.exists() and (not mark.exists() or mark.read_text() != identity or (state / DONE).exists()):
        shutil.rmtree(state)
    for old in ("summary.json", "report.html"):  # what an earlier run found is not what this one will
        (folder / old).unlink(missing_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    mark.write_text(identity)
    return state


def _leave(folder: Path, state: Path, scenario: Scenario, told: Told, summary: Summary) -> None:
    body = summary.model_dump_json(indent=2, by_alias=True)
    (folder / "summary.json").write_text(body + "\n")
    notes = [f"The summary beside this file has the same figures; its SHA-256 is {sha256_hex((body + chr(10)).encode())}."]
    bars = scenario.bars_of(state / "market.parquet")
    report = report_of(told, summary, bars, title=scenario.title, now=SystemClock().now(), notes=notes)
    (folder / "report.html").write_text(render(report))
    (state / DONE).write_text(json.dumps({"at": SystemClock().now().isoformat()}))


def _condition(document: Document, kind: str) -> Mapping[str, Any] | None:
    conditions = (document.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind), None)


def _is(document: Document, kind: str) -> bool:
    found = _condition(document, kind)
    return found is not None and found["status"] == "True"


def _reason(document: Document, kind: str) -> str:
    found = _condition(document, kind)
    return str(found["reason"]) if found else ""
