"""What every `Workloads` adapter does, with real processes; then what the local one promises when its runner is killed.

The adapter of Kubernetes runs this suite on a whole cluster: where CAPPUCCINO_TEST_CLUSTER names a kubeconfig and
CAPPUCCINO_TEST_IMAGE an image with this package (`make e2e` does). Without a kubelet, test_kubernetes_workloads.py.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.watch import Watcher
from cappuccino.adapters.kubernetes.workloads import KubernetesWorkloads
from cappuccino.adapters.local.workloads import LocalWorkloads
from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.controllers.decision import Key, PodNeeds, Workload, WorkloadStatus
from cappuccino.core import lifeline
from cappuccino.core.clock import SystemClock
from cappuccino.core.processes import started

from .grounds import Cluster, ClusterGround, Folder, Ground, LocalFolder, LocalGround, PodFolder, ProgramClient, of_environment

ADAPTERS = ["local", *([pytest.param("kubernetes", marks=pytest.mark.timeout(900))] if of_environment() else [])]
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    given = of_environment()
    assert given is not None
    made = Cluster.made(*given)
    yield made
    made.removed()


@pytest.fixture(params=ADAPTERS)
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    if request.param == "local":
        opened = local_ground(request.getfixturevalue("database_url"), tmp_path)
    else:
        opened = cluster_ground(request.getfixturevalue("cluster"))
    async with opened as entered:
        yield entered
        assert await entered.folder.read("double") is None


@asynccontextmanager
async def local_ground(database_url: str, tmp_path: Path) -> AsyncIterator[Ground]:
    pool = await open_async_pool(database_url, "operator")
    async with pool, supervising(runner_module().local_workloads(pool, tmp_path)) as supervisor:
        folder = LocalFolder(tmp_path)
        yield LocalGround(workloads=supervisor, folder=folder, key=KEY, patience_seconds=60, says_after_success=True)


@asynccontextmanager
async def cluster_ground(cluster: Cluster) -> AsyncIterator[Ground]:
    async with await ProgramClient.connect(kubeconfig=cluster.kubeconfig) as client:
        index = ClusterIndex(client, namespaces=(cluster.namespace,))
        await index.fill()
        watching = asyncio.create_task(Watcher(client, index).run())
        workloads = KubernetesWorkloads(client, index, cluster.settings(), clock=SystemClock())
        ground = ClusterGround(
            workloads=workloads,
            folder=await PodFolder(cluster).made(),
            key=KEY._replace(namespace=cluster.namespace),
            patience_seconds=400,
            says_after_success=False,  # the kubelet keeps them of failures only
        )
        ground.client = client
        yield ground
        for left in await workloads.list():
            await workloads.stop(left.name, grace_seconds=1)
        watching.cancel()
        await asyncio.wait([watching])


class supervising:  # noqa: N801 - reads as a statement
    """`async with`: the supervisor runs inside."""

    def __init__(self, supervisor: LocalWorkloads, *, grace_seconds: float = 1.0) -> None:
        self._supervisor = supervisor
        self._grace_seconds = grace_seconds

    async def __aenter__(self) -> LocalWorkloads:
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._supervisor.run(self._stop, grace_seconds=self._grace_seconds))
        await asyncio.sleep(0)
        return self._supervisor

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task


def workload(
    folder: Path | str, *arguments: str, name: str = "w", kind: Any = "finite", key: Key = KEY, **options: Any
) -> Workload:
    action, *rest = arguments
    return Workload(name=name, kind=kind, arguments=(action, str(folder), *rest), keys=(key,), **options)


async def start(ground: Ground, *arguments: str, **options: Any) -> Workload:
    given = workload(ground.folder.path, *arguments, key=ground.key, **options)
    await ground.workloads.start(given)
    return given


async def until(ground: Ground, name: str, test: Callable[[WorkloadStatus], bool]) -> WorkloadStatus:
    return await reached(ground.workloads, name, test, seconds=ground.patience_seconds)


async def reached(workloads: Any, name: str, test: Callable[[WorkloadStatus], bool], *, seconds: float = 60) -> WorkloadStatus:
    async with asyncio.timeout(seconds):
        while True:
            status: WorkloadStatus | None = await workloads.observe(name)
            if status is not None and test(status):
                return status
            await asyncio.sleep(0.02)


async def shown(ground: Ground, name: str) -> str:
    """The contents of that file, once there are any or it is `ready`."""
    async with asyncio.timeout(ground.patience_seconds):
        while (text := await ground.folder.read(name)) is None or not (text or name == "ready"):
            await asyncio.sleep(0.02)
    return text


async def attempts(folder: Folder) -> int:
    return len((await folder.read("begun") or "").split())


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


async def test_a_finite_workload_ends_once_with_its_exit_code_and_last_words(ground: Ground) -> None:
    await start(ground, "exit", "0")
    status = await until(ground, "w", over)
    words = "attempt 1 says goodbye" if ground.says_after_success else ""
    assert (status.state, status.exit_code, status.restarts, status.message) == ("Succeeded", 0, 0, words)
    assert status.keys == (ground.key,)
    assert status.started_at is not None
    assert status.finished_at is not None
    assert [s.name for s in await ground.workloads.list()] == ["w"]
    assert [s.name for s in await ground.workloads.serving(ground.key)] == ["w"]
    assert not await ground.workloads.serving(ground.key._replace(name="another"))


async def test_the_last_words_of_a_failure_are_its_message(ground: Ground) -> None:
    await start(ground, "exit", "1", retries=0)
    status = await until(ground, "w", over)
    assert (status.state, status.exit_code, status.message) == ("Failed", 1, "attempt 1 says goodbye")


async def test_starting_a_name_again_changes_nothing_even_after_its_end(ground: Ground) -> None:
    await asyncio.gather(*(start(ground, "exit", "0") for _ in range(5)))
    await until(ground, "w", over)
    await start(ground, "exit", "1")
    await start(ground, "exit", "0", name="other")
    await until(ground, "other", over)
    assert await attempts(ground.folder) == 2


async def test_a_status_tells_which_workload_it_is_of(ground: Ground) -> None:
    given = await start(ground, "exit", "0", environment={"CAPPUCCINO_SPEC": '{"a": [1.5, null]}'})
    assert (await until(ground, "w", over)).fingerprint == given.fingerprint
    assert replace(given, environment={}).fingerprint != given.fingerprint


async def test_a_crash_is_retried_until_the_retries_are_used_up(ground: Ground) -> None:
    await start(ground, "exit", "1", retries=2)
    status = await until(ground, "w", over)
    assert (status.state, status.exit_code, status.restarts, await attempts(ground.folder)) == ("Failed", 1, 2, 3)


async def test_a_crash_that_does_not_repeat_is_forgiven(ground: Ground) -> None:
    await start(ground, "exit", "1,1,0", retries=2)
    assert (await until(ground, "w", over)).state == "Succeeded"


@pytest.mark.parametrize("code", ["2", "3"])
async def test_an_exit_code_that_a_retry_cannot_change_is_final(ground: Ground, code: str) -> None:
    await start(ground, "exit", code)
    status = await until(ground, "w", over)
    assert (status.state, status.exit_code, await attempts(ground.folder)) == ("Failed", int(code), 1)


async def test_preemption_and_a_dependency_that_is_away_never_count(ground: Ground) -> None:
    await start(ground, "exit", "143,75,143,0", retries=0)
    status = await until(ground, "w", over)
    assert (status.state, status.restarts) == ("Succeeded", 3)


async def test_a_workload_that_takes_too_long_fails(ground: Ground) -> None:
    await start(ground, "sleep", timeout_seconds=1)
    status = await until(ground, "w", over)
    assert (status.state, status.exit_code, status.message) == ("Failed", 124, "it did not end within 1 s")


async def test_a_killed_workload_is_started_again(ground: Ground) -> None:
    await start(ground, "sleep")
    await shown(ground, "ready")
    await ground.folder.remove("ready")
    await ground.kill()
    await shown(ground, "ready")
    status = await until(ground, "w", lambda s: s.state == "Running")
    assert status.restarts == 1


# --- continuous -------------------------------------------------------------------------------------


async def test_a_continuous_workload_is_started_again_until_its_exit_code_is_final(ground: Ground) -> None:
    await start(ground, "exit", "1,143,75,1,0", kind="continuous")
    status = await until(ground, "w", over)
    assert (status.state, status.restarts, status.failures) == ("Succeeded", 4, 2)


@pytest.mark.parametrize("code", [2, 3, 70])
async def test_a_continuous_workload_that_a_person_must_mend_is_not_started_again(ground: Ground, code: int) -> None:
    await start(ground, "exit", f"{code},0", kind="continuous")
    status = await until(ground, "w", over)
    assert (status.state, status.exit_code, status.restarts) == ("Failed", code, 0)


# --- stopping ---------------------------------------------------------------------------------------


async def test_a_stopped_workload_is_told_first_and_then_forgotten(ground: Ground) -> None:
    await start(ground, "polite")
    await shown(ground, "ready")
    await ground.workloads.stop("w")
    assert await ground.folder.read("polite") is not None
    assert await ground.workloads.observe("w") is None
    assert await ground.folder.quiet()
    await start(ground, "exit", "0")
    assert (await until(ground, "w", over)).state == "Succeeded"


async def test_a_workload_that_ignores_the_signal_is_killed_after_the_grace(ground: Ground) -> None:
    await start(ground, "stubborn", kind="continuous")
    await shown(ground, "ready")
    assert not await ground.folder.quiet()
    await ground.workloads.stop("w", grace_seconds=0.2)
    assert await ground.folder.quiet()
    assert await ground.workloads.list() == []


async def test_the_children_of_a_workload_end_with_it(ground: Ground) -> None:
    await start(ground, "family")
    await shown(ground, "grandchild")
    await ground.workloads.stop("w", grace_seconds=5)
    async with asyncio.timeout(20):
        while not await ground.folder.quiet():
            await asyncio.sleep(0.02)


async def test_stopping_what_is_absent_is_success(ground: Ground) -> None:
    await ground.workloads.stop("never")
    assert await ground.workloads.observe("never") is None


async def test_a_workload_between_two_attempts_can_be_stopped(ground: Ground) -> None:
    await start(ground, "exit", "1", kind="continuous")
    await until(ground, "w", lambda s: s.restarts >= 1)
    await ground.workloads.stop("w")
    before = await attempts(ground.folder)
    await start(ground, "exit", "0", name="other")
    await until(ground, "other", over)
    assert await attempts(ground.folder) == before + 1


async def test_a_watch_tells_the_keys_of_workloads_that_change(ground: Ground) -> None:
    async with asyncio.timeout(60), aclosing(ground.workloads.watch()) as watch:  # type: ignore[type-var]
        told = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await start(ground, "exit", "0")
        assert await told == ground.key


async def test_a_workload_of_several_objects_tells_each_of_them_and_knows_them(ground: Ground) -> None:
    keys = (ground.key, ground.key._replace(name="second"), ground.key._replace(name="third"))
    given = replace(workload(ground.folder.path, "exit", "0", key=ground.key), keys=keys)
    told: set[Key] = set()
    async with asyncio.timeout(60), aclosing(ground.workloads.watch()) as watch:  # type: ignore[type-var]
        coming = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await ground.workloads.start(given)
        await ground.workloads.start(given)  # as another of its objects would
        while told != set(keys):
            told.add(await coming)
            coming = asyncio.ensure_future(anext(watch))
        coming.cancel()
        await asyncio.wait([coming])
    status = await until(ground, "w", over)
    assert status.keys == keys
    assert await attempts(ground.folder) == 1


# --- the local one ----------------------------------------------------------------------------------


async def test_a_log_has_a_bound(pool: Any, tmp_path: Path) -> None:
    supervisor = runner_module().local_workloads(pool, tmp_path, log_bound_bytes=100_000)
    async with supervising(supervisor):
        await supervisor.start(workload(tmp_path, "loud"))
        await appears(tmp_path / "ready")
        async with asyncio.timeout(30):
            while supervisor.log_path("w").stat().st_size > 100_000:
                await asyncio.sleep(0.05)
        assert supervisor.log_path("w").with_name("w.log.1").exists()


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
        status = await reached(
            supervisor, "w", lambda s: s.restarts == 1 and s.state == "Running" and len(begun(tmp_path)) == 2
        )
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
        await reached(supervisor, "done", over)
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


async def test_a_workload_is_told_of_its_own_secrets_and_of_no_others(pool: Any, tmp_path: Path) -> None:
    for name in ("desk-live", "paper", "other"):
        (tmp_path / "secrets" / name).mkdir(parents=True)
    asks = {"live": ("desk-live",), "paper": ("paper",), "several": ("other", "paper"), "trainer": ()}
    for name in asks:
        (tmp_path / name).mkdir()
    supervisor = runner_module().local_workloads(pool, tmp_path, secrets=("SECRETS", tmp_path / "secrets"))
    async with supervising(supervisor):
        for name, secrets in asks.items():
            await supervisor.start(replace(workload(tmp_path / name, "tell", name=name), pod=PodNeeds(secrets=secrets)))
        for name in asks:
            await appears(tmp_path / name / "ready")
    assert {name: (tmp_path / name / "told").read_text() for name in asks} == {
        "live": "desk-live",
        "paper": "paper",
        "several": "other,paper",
        "trainer": "none",
    }
