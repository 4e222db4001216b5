"""kill -9 of any process, then the same command again: nothing lost, nothing doubled, and the same money at the end.

The exchange runs in lockstep and the sampler draws at random by seed, so a run that was killed all the way must end with
the very figures of one that was not. Kills of a trader in the middle of an order are in tests/contract.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cappuccino.adapters.postgres.embedded import EmbeddedServer

from .chain import ROOT, demo, finish, free_port, manifests, rows, start, summary, wait_for
from .test_chain import small as drawn_at_random

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KILLED = -signal.SIGKILL
PAPER = ("--paper-days", "2")


def small(spec: dict[str, Any]) -> None:
    """Nothing is pruned: who is below the median depends on who ended first."""
    drawn_at_random(spec)
    spec["pruner"] = {"type": "none"}


def figures(folder: Path) -> dict[str, Any]:
    """What two runs of one scenario must agree on."""
    told = summary(folder)
    return {
        "trials": told["trials"],
        "candidates": [
            (c["trial"], c["verdict"], [(g["gate"], g["outcome"], g["measured"]) for g in c["gates"]])
            for c in told["candidates"]
        ],
        "traders": [(t["name"], t["orders"], t["fills"], t["fees_usd"], t["final_equity_usd"]) for t in told["traders"]],
        "ledger": (told["ledger_matches_exchange"], told["ledger_differences"]),
    }


def assert_nothing_doubled(folder: Path) -> None:
    results, orders, objects = rows(
        folder,
        "select study_uid, count(*), count(distinct number) from trial_result group by 1",
        "select count(*), count(distinct client_order_id) from fill",
        "select kind, name, count(*) from object group by 1, 2 having count(*) > 1",
    )
    assert [(count, distinct) for _, count, distinct in results] == [(6, 6)]
    assert orders[0][0] == orders[0][1]  # market orders fill whole: one fill per order
    assert objects == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = demo(folder, "--manifests", str(manifests(folder / "m", study=small)), *PAPER)
    assert run.code == 0, run.errors
    return figures(folder)


@pytest.mark.parametrize("step", [1, 4])
def test_a_runner_killed_before_ever_later_writes_ends_with_the_same_figures(
    tmp_path: Path, undisturbed: dict[str, Any], step: int
) -> None:
    """The first run dies before its write number `step`, the next one before twice that, and so on until one gets through."""
    manifests(tmp_path / "m", study=small)
    port, kills = free_port(), 0
    while True:
        kills += 1
        environment = {"CAPPUCCINO_FAILPOINT": f"reconcile-write:{step * kills}"}
        run = demo(tmp_path, "--manifests", str(tmp_path / "m"), *PAPER, port=port, environment=environment)
        if run.code != KILLED:
            break
        assert kills < 60, "no run gets through"
    assert run.code == 0, run.errors
    assert kills >= 5
    assert figures(tmp_path) == undisturbed
    assert_nothing_doubled(tmp_path)


def children(folder: Path, word: str) -> list[int]:
    """Worker processes of this run whose arguments hold `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if (
                b"cappuccino.entrypoints.worker" in arguments
                and word.encode() in arguments
                and str(folder).encode() in environment
            ):
                found.append(int(entry.name))
    return found


def test_each_kind_of_worker_killed_once_is_started_again_and_the_figures_are_the_same(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    manifests(tmp_path / "m", study=small)
    process = start(tmp_path, "--manifests", str(tmp_path / "m"), *PAPER, "--speed", "10", port=free_port())
    killed = set()
    for word in ("ingest", "train", "gates", "exchange", "trade", "grade"):
        wait_for(lambda word=word: bool(children(tmp_path, word)) or process.poll() is not None, why=f"no {word} process")
        if word == "trade":  # in the middle of its trading, not before it
            log = tmp_path / "state" / "logs" / "default.trader.rules-hodl.log"
            wait_for(lambda log=log: log.exists() and "trading" in log.read_text(), why="no trader trades")
            time.sleep(1.0)
        for pid in children(tmp_path, word)[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.add(word)
    run = finish(process)
    assert run.code == 0, run.errors
    assert killed >= {"train", "exchange", "trade"}
    assert figures(tmp_path) == undisturbed
    assert_nothing_doubled(tmp_path)


def test_a_database_that_goes_away_for_ten_seconds_delays_and_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    manifests(tmp_path / "m", study=small)
    server = EmbeddedServer(tmp_path / "own")
    url = server.start()
    try:
        process = start(
            tmp_path,
            *("--manifests", str(tmp_path / "m"), *PAPER, "--speed", "5"),
            port=free_port(),
            environment={"CAPPUCCINO_DATABASE_URL": url},
        )
        log = tmp_path / "state" / "logs" / "default.trader.rules-hodl.log"
        wait_for(lambda: log.exists() and "trading" in log.read_text(), within=90, why="no trader trades")
        time.sleep(2.0)
        server.stop()
        time.sleep(10.0)
        server.start()
        run = finish(process)
    finally:
        server.stop()
    assert run.code == 0, run.errors
    assert figures(tmp_path) == undisturbed


@pytest.mark.parametrize("after", [1.0, 5.0, 12.0])
def test_ctrl_c_ends_at_once_with_one_line_and_the_same_command_goes_on(
    tmp_path: Path, undisturbed: dict[str, Any], after: float
) -> None:
    manifests(tmp_path / "m", study=small)
    port = free_port()
    process = start(tmp_path, "--manifests", str(tmp_path / "m"), *PAPER, "--speed", "20", port=port)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    run = finish(process, within=40)
    assert "Traceback" not in run.errors
    assert len(run.errors.strip().splitlines()) <= 1
    assert children(tmp_path, "train") + children(tmp_path, "trade") + children(tmp_path, "exchange") == []
    if run.code:
        assert "goes on from here" in run.errors
        again = demo(tmp_path, "--manifests", str(tmp_path / "m"), *PAPER, port=port)
        assert again.code == 0, again.errors
    assert figures(tmp_path) == undisturbed


def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = demo(tmp_path, "--manifests", str(ROOT / "examples" / "rules"), port=port)
    assert run.code == 2
    assert str(port) in run.errors
    assert "in use" in run.errors
    assert "Traceback" not in run.errors
