"""The finite workers as processes, on a real database and store: killed and started again, they end with the same rows."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.bundle import load
from cappuccino.entrypoints.wiring import open_record

from .study_bench import DEPLOYMENT_UID, PPO, STUDY_UID, Bench

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Bench:
    return Bench(database_url, tmp_path)


def test_a_trainer_killed_again_and_again_resumes_and_ends_as_an_undisturbed_one(bench: Bench) -> None:
    bench.search("ppo", PPO, trials=2)
    assert bench.run("train", "--study-uid", STUDY_UID, "--trials", "1") == 0
    blobs = open_blobs(bench.blobs_url)
    bench.kill_at_checkpoints("0", kills=2)
    assert bench.run("train", "--study-uid", STUDY_UID, "--trials", "0") == 0
    results = bench.rows("select number, succeeded, reason, objective, bundle_digest from trial_result order by 1")
    assert [row[:2] for row in results] == [(0, True), (1, True)], results
    assert results[0][3] == results[1][3]
    killed, undisturbed = (load(blobs, row[4]) for row in results)
    assert killed.files == undisturbed.files  # the same weights to the last bit
    assert blobs.keys("checkpoints") == []


def test_a_preempted_trainer_says_143_and_keeps_its_place(bench: Bench) -> None:
    bench.search("ppo", PPO | {"total_timesteps": "400000"}, trials=1)
    blobs = open_blobs(bench.blobs_url)
    process = bench.worker("train", "--study-uid", STUDY_UID, "--trials", "0")
    while not blobs.keys("checkpoints"):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert blobs.keys("checkpoints")
    assert bench.rows("select count(*) from trial_result") == [(0,)]


def test_a_trial_that_cannot_trade_is_a_failure_with_its_reason(bench: Bench) -> None:
    bench.search("trend", {"feature": "return", "enter": "9", "exit": "-9"}, trials=1)
    assert bench.run("train", "--study-uid", STUDY_UID, "--trials", "0") == 0
    ((succeeded, reason, objective),) = bench.rows("select succeeded, reason, objective from trial_result")
    assert (succeeded, objective) == (False, None)
    assert "no closed trade" in reason


def test_several_trials_in_one_process_have_each_their_result(bench: Bench) -> None:
    bench.search("trend", {"feature": "trend", "enter": "0.2", "exit": "-0.2"}, trials=3)
    assert bench.run("train", "--study-uid", STUDY_UID, "--trials", "0,1,2") == 0
    assert bench.rows("select number, succeeded from trial_result order by 1") == [(0, True), (1, True), (2, True)]


def test_gates_killed_before_each_of_their_rows_end_with_every_row_once(bench: Bench) -> None:
    bench.search("trend", {"feature": "trend", "enter": "0.2", "exit": "-0.2"}, trials=1)
    assert bench.run("train", "--study-uid", STUDY_UID, "--trials", "0") == 0
    ((digest,),) = bench.rows("select bundle_digest from trial_result")
    asyncio.run(_completed(bench.url, digest))
    deployment = {"studyRef": {"name": "search"}, "traderTemplate": {"venue": {"kind": "simulated"}}}
    spec = {
        "deploymentUid": DEPLOYMENT_UID,
        "deploymentName": "paper",
        "deployment": deployment,
        "studyUid": STUDY_UID,
        "candidates": [{"bundle": digest, "number": 0}],
    }
    kills = 0
    while bench.run("validate", "gates", spec=spec, failpoint=f"evidence-write:{kills + 1}") != 0:
        kills += 1
        verdicts = bench.rows("select count(*) from evidence where gate = 'verdict'")
        assert verdicts[0][0] <= 1
    assert kills == 8  # before each of five gates, two baselines and the verdict
    gates = bench.rows("select gate, count(*) from evidence where bundle_digest <> '' group by 1 order by 1")
    expected = ["backtest", "baseline", "integrity", "overfitting_dsr", "overfitting_pbo", "verdict", "window"]
    assert [gate for gate, _ in gates] == expected
    assert dict(gates)["verdict"] == 1
    assert bench.rows("select count(*) from window_opening") == [(1,)]


async def _completed(url: str, digest: str) -> None:
    async with open_record(url, "operator") as record:
        row = (await record.trials(STUDY_UID))[0]
        assert row.result is not None
        await record.set_trial_state(
            study_uid=STUDY_UID,
            number=0,
            from_states=("Waiting",),
            to_state="Complete",
            at=datetime.now(UTC),
            objective=row.result.objective,
            bundle_digest=digest,
        )


def test_a_bundle_changed_by_one_byte_is_refused_by_name(bench: Bench) -> None:
    bench.search("trend", {"feature": "trend", "enter": "0.2", "exit": "-0.2"}, trials=1)
    assert bench.run("train", "--study-uid", STUDY_UID, "--trials", "0") == 0
    ((digest,),) = bench.rows("select bundle_digest from trial_result")
    asyncio.run(_completed(bench.url, digest))
    path = Path(bench.blobs_url.removeprefix("file://")) / "bundles" / digest / "card.json"
    body = bytearray(path.read_bytes())
    body[-2] ^= 1
    path.chmod(0o644)
    path.write_bytes(body)
    deployment = {"studyRef": {"name": "search"}, "traderTemplate": {"venue": {"kind": "simulated"}}}
    listed = [{"bundle": digest, "number": 0}]
    spec = {
        "deploymentUid": DEPLOYMENT_UID,
        "deploymentName": "paper",
        "deployment": deployment,
        "studyUid": STUDY_UID,
        "candidates": listed,
    }
    assert bench.run("validate", "gates", spec=spec) == 0
    rows = dict(bench.rows("select gate, outcome || ': ' || message from evidence"))
    assert rows["integrity"].startswith("Fail")
    assert "card.json" in rows["integrity"]
    assert rows["verdict"].startswith("Fail")
