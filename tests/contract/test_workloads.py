"""What every `Workloads` adapter does, with real processes; then what the local one promises when its runner is killed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cappuccino.adapters.local.workloads import LocalWorkloads
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.controllers.decision import Key, Workload, WorkloadStatus
from cappuccino.core import lifeline
from cappuccino.core.processes import started
from cappuccino.reconcile.ports import Workloads

ADAPTERS = ["local"]
KEY = Key("Trial", "default", "t")
RUNNER = Path(__file__).parent / "workload_runner.py"


def runner_module() -> Any:
    spec = importlib.util.spec_from_file_location("workload_runner", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Any]:
    opened = await open_async_pool(database_url, "operator")
    yield opened
    await opened.close()


@pytest.fixture(params=ADAPTERS)
async def workloads(request: pytest.FixtureRequest, pool: Any, tmp_path: Path) -> AsyncIterator[Workloads]:
    supervisor = runner_module().local_workloads(pool, tmp_path, log_bound_bytes=100_000)
    async with supervising(supervisor):
        yield supervisor


class supervising:  # noqa: N801 - reads as a statement
    """`async with`: the supervisor runs inside."""

    def __init__(self, supervisor: LocalWorkloads, *, grace_seconds: float = 1.0) -> None:
        self._supervisor = supervisor
        self._grace_seconds = grace_seconds

    async def __aenter__(self) -> None:
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._supervisor.run(self._stop, grace_seconds=self._grace_seconds))
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task


def workload(folder: Path, *arguments: str, name: str = "w", kind: Any = "finite", **options: Any) -> Workload:
    action, *rest = arguments
    return Workload(name=name, kind=kind, arguments=(action, str(folder), *rest), keys=(KEY,), **options)


async def until(workloads: Workloads, name: str, test: Callable[[WorkloadStatus], bool]) -> WorkloadStatus:
    async with asyncio.timeout(60):
        while True:
            status = await workloads.observe(name)
            if status is not None and test(status):
                return status
            await asyncio.sleep(0.02)


async def appears(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.02)


def begun(folder: Path) -> list[int]:
    path = folder / "begun"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def over(status: WorkloadStatus) -> bool:
    return status.state in ("Succeeded", "Failed")


# --- finite -----------------------------------------------------------------------------------------


async def test_a_finite_workload_ends_once_with_its_exit_code_and_last_words(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "exit", "0"))
    status = await until(workloads, "w", over)
    assert (status.state, status.exit_code, status.restarts, status.message) == (
        "Succeeded", 0, 0, "attempt 1 says goodbye",
    )  # fmt: skip
    assert status.keys == (KEY,)
    assert status.started_at is not None
    assert status.finished_at is not None
    assert [s.name for s in await workloads.list()] == ["w"]


async def test_starting_a_name_again_changes_nothing_even_after_its_end(workloads: Workloads, tmp_path: Path) -> None:
    await asyncio.gather(*(workloads.start(workload(tmp_path, "exit", "0")) for _ in range(5)))
    await until(workloads, "w", over)
    await workloads.start(workload(tmp_path, "exit", "1"))
    await workloads.start(workload(tmp_path, "exit", "0", name="other"))
    await until(workloads, "other", over)
    assert len(begun(tmp_path)) == 2


async def test_a_crash_is_retried_until_the_retries_are_used_up(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "exit", "1", retries=2))
    status = await until(workloads, "w", over)
    assert (status.state, status.exit_code, status.restarts, len(begun(tmp_path))) == ("Failed", 1, 2, 3)


async def test_a_crash_that_does_not_repeat_is_forgiven(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "exit", "1,1,0", retries=2))
    assert (await until(workloads, "w", over)).state == "Succeeded"


@pytest.mark.parametrize("code", ["2", "3"])
async def test_an_exit_code_that_a_retry_cannot_change_is_final(workloads: Workloads, tmp_path: Path, code: str) -> None:
    await workloads.start(workload(tmp_path, "exit", code))
    status = await until(workloads, "w", over)
    assert (status.state, status.exit_code, len(begun(tmp_path))) == ("Failed", int(code), 1)


async def test_preemption_and_a_dependency_that_is_away_never_count(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "exit", "143,75,143,0", retries=0))
    status = await until(workloads, "w", over)
    assert (status.state, status.restarts) == ("Succeeded", 3)


async def test_a_workload_that_takes_too_long_fails(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "sleep", timeout_seconds=0.3))
    status = await until(workloads, "w", over)
    assert (status.state, status.message) == ("Failed", "it did not end within 0.3 s")


async def test_a_killed_workload_is_started_again(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "sleep"))
    await appears(tmp_path / "ready")
    (tmp_path / "ready").unlink()
    os.kill(begun(tmp_path)[0], signal.SIGKILL)
    await appears(tmp_path / "ready")
    status = await until(workloads, "w", lambda s: s.state == "Running")
    assert status.restarts == 1


# --- continuous -------------------------------------------------------------------------------------


async def test_a_continuous_workload_is_started_again_until_its_exit_code_is_final(
    workloads: Workloads, tmp_path: Path
) -> None:
    await workloads.start(workload(tmp_path, "exit", "1,143,75,1,0", kind="continuous"))
    status = await until(workloads, "w", over)
    assert (status.state, status.restarts, status.failures) == ("Succeeded", 4, 2)


@pytest.mark.parametrize("code", [2, 3, 70])
async def test_a_continuous_workload_that_a_person_must_mend_is_not_started_again(
    workloads: Workloads, tmp_path: Path, code: int
) -> None:
    await workloads.start(workload(tmp_path, "exit", f"{code},0", kind="continuous"))
    status = await until(workloads, "w", over)
    assert (status.state, status.exit_code, status.restarts) == ("Failed", code, 0)


# --- stopping ---------------------------------------------------------------------------------------


async def test_a_stopped_workload_is_told_first_and_then_forgotten(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "polite"))
    await appears(tmp_path / "ready")
    await workloads.stop("w")
    assert (tmp_path / "polite").exists()
    assert await workloads.observe("w") is None
    assert started(begun(tmp_path)[0]) is None
    await workloads.start(workload(tmp_path, "exit", "0"))
    assert (await until(workloads, "w", over)).state == "Succeeded"


async def test_a_workload_that_ignores_the_signal_is_killed_after_the_grace(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "stubborn", kind="continuous"))
    await appears(tmp_path / "ready")
    await workloads.stop("w", grace_seconds=0.2)
    assert started(begun(tmp_path)[0]) is None
    assert await workloads.list() == []


async def test_the_children_of_a_workload_end_with_it(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "family"))
    await appears(tmp_path / "grandchild")
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while not (tmp_path / "grandchild").read_text():
            await asyncio.sleep(0.01)
    await workloads.stop("w", grace_seconds=5)
    await gone(int((tmp_path / "grandchild").read_text()))


async def test_stopping_what_is_absent_is_success(workloads: Workloads) -> None:
    await workloads.stop("never")
    assert await workloads.observe("never") is None


async def test_a_workload_between_two_attempts_can_be_stopped(workloads: Workloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "exit", "1", kind="continuous"))
    await until(workloads, "w", lambda s: s.restarts >= 1)
    await workloads.stop("w")
    attempts = len(begun(tmp_path))
    await workloads.start(workload(tmp_path, "exit", "0", name="other"))
    await until(workloads, "other", over)
    assert len(begun(tmp_path)) == attempts + 1


async def test_a_watch_tells_the_keys_of_workloads_that_change(workloads: Workloads, tmp_path: Path) -> None:
    async with asyncio.timeout(60), aclosing(workloads.watch()) as watch:  # type: ignore[type-var]
        told = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await workloads.start(workload(tmp_path, "exit", "0"))
        assert await told == KEY


async def test_a_log_has_a_bound(workloads: LocalWorkloads, tmp_path: Path) -> None:
    await workloads.start(workload(tmp_path, "loud"))
    await appears(tmp_path / "ready")
    async with asyncio.timeout(30):
        while workloads.log_path("w").stat().st_size > 100_000:
            await asyncio.sleep(0.05)
    assert workloads.log_path("w").with_name("w.log.1").exists()


# --- the runner goes --------------------------------------------------------------------------------


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while started(pid) is not None:
            await asyncio.sleep(0.02)


def start_runner(url: str, folder: Path, *given: Workload) -> subprocess.Popen[bytes]:
    described = [json.dumps({"name": w.name, "kind": w.kind, "arguments": list(w.arguments)}) for w in given]
    return subprocess.Popen([sys.executable, str(RUNNER), url, str(folder), *described])


@pytest.mark.parametrize("action", ["stubborn", "family"])
async def test_workloads_end_with_a_killed_runner_though_nobody_follows(database_url: str, tmp_path: Path, action: str) -> None:
    with start_runner(database_url, tmp_path, workload(tmp_path, action)) as runner:
        try:
            await appears(tmp_path / ("grandchild" if action == "family" else "ready"))
        finally:
            runner.kill()
    await gone(begun(tmp_path)[0])
    if action == "family":
        await gone(int((tmp_path / "grandchild").read_text()))


def test_a_process_that_nobody_has_written_down_does_not_begin(tmp_path: Path) -> None:
    program = [sys.executable, str(RUNNER.with_name("workload_program.py")), "exit", str(tmp_path), "0"]
    environment = {**os.environ, lifeline.VARIABLE: "stdin"}
    done = subprocess.run(program, env=environment, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, begun(tmp_path)) == (143, [])


def test_a_process_without_a_supervisor_does_not_wait_for_one(tmp_path: Path) -> None:
    program = [sys.executable, str(RUNNER.with_name("workload_program.py")), "exit", str(tmp_path), "0"]
    assert subprocess.run(program, stdin=subprocess.DEVNULL, check=False).returncode == 0


async def test_what_an_earlier_runner_left_is_ended_before_its_workload_starts_again(pool: Any, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as leftover:
        supervisor = runner_module().local_workloads(pool, tmp_path)
        await supervisor.start(workload(tmp_path, "sleep"))
        async with pool.connection() as connection:
            running = [leftover.pid, started(leftover.pid)]
            await connection.execute("update workload set state = 'Running', pid = %s, process = %s", running)
        async with supervising(supervisor):
            await appears(tmp_path / "ready")
            assert started(leftover.pid) is None
            leftover.kill()


@pytest.mark.parametrize("action", ["sleep", "stubborn", "family"])
async def test_workloads_die_with_a_killed_runner_and_run_again_under_the_next_one_never_twice_at_once(
    database_url: str, pool: Any, tmp_path: Path, action: str
) -> None:
    with start_runner(database_url, tmp_path, workload(tmp_path, action)) as runner:
        try:
            await appears(tmp_path / ("grandchild" if action == "family" else "ready"))
        finally:
            runner.kill()
    supervisor = runner_module().local_workloads(pool, tmp_path)
    async with supervising(supervisor):
        status = await until(supervisor, "w", lambda s: s.restarts == 1 and s.state == "Running" and len(begun(tmp_path)) == 2)
        first, second = begun(tmp_path)
        await gone(first)
        assert status.failures == 0
        assert started(second) is not None
        assert not (tmp_path / "double").exists()
        await supervisor.stop("w", grace_seconds=0.2)


async def test_a_runner_killed_at_any_moment_leaves_nothing_running_twice(database_url: str, pool: Any, tmp_path: Path) -> None:
    """Kills land before, between and after the start of the process and its entry in the store."""
    connected = (
        "select count(*) from pg_stat_activity where application_name = 'cappuccino-operator' and datname = current_database()"
    )
    for delay in (0.0, 0.05, 0.1, 0.2, 0.35):
        with start_runner(database_url, tmp_path, workload(tmp_path, "sleep")) as runner:
            try:
                async with asyncio.timeout(60):
                    while await pool_count(pool, connected) < 2:
                        await asyncio.sleep(0.005)
                time.sleep(delay)  # noqa: ASYNC251 - the moment is the point, and nothing else runs here
            finally:
                runner.kill()
    supervisor = runner_module().local_workloads(pool, tmp_path)
    async with supervising(supervisor):
        async with asyncio.timeout(60):
            while not (alive := [pid for pid in begun(tmp_path) if started(pid) is not None]):
                await asyncio.sleep(0.02)
        assert len(alive) == 1
    assert not (tmp_path / "double").exists()


async def pool_count(pool: Any, query: str) -> int:
    async with pool.connection() as connection:
        cursor = await connection.execute(query)
        return int((await cursor.fetchone())[0])


async def test_a_runner_that_stops_preempts_and_the_next_one_goes_on(pool: Any, tmp_path: Path) -> None:
    supervisor = runner_module().local_workloads(pool, tmp_path)
    async with supervising(supervisor, grace_seconds=20):
        await supervisor.start(workload(tmp_path, "polite", retries=0))
        await supervisor.start(workload(tmp_path, "exit", "0", name="done"))
        await appears(tmp_path / "ready")
        await until(supervisor, "done", over)
    assert (tmp_path / "polite").exists()
    status = await supervisor.observe("w")
    assert status is not None
    assert (status.state, status.failures) == ("Pending", 0)
    (tmp_path / "ready").unlink()
    again = runner_module().local_workloads(pool, tmp_path)
    async with supervising(again, grace_seconds=20):
        await appears(tmp_path / "ready")
        done = await again.observe("done")
        assert done is not None
        assert done.restarts == 0


async def test_a_pid_that_is_somebody_elses_now_is_left_alone(pool: Any, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as stranger:
        supervisor = runner_module().local_workloads(pool, tmp_path)
        await supervisor.start(workload(tmp_path, "sleep"))
        async with pool.connection() as connection:
            await connection.execute("update workload set state = 'Running', pid = %s, process = 'then'", [stranger.pid])
        async with supervising(supervisor):
            await appears(tmp_path / "ready")
            assert stranger.poll() is None
        stranger.kill()
