"""A pack of trials in one trainer, on a real database and store: each ends as it would alone."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.trials import TrialWriter
from cappuccino.bundle import load
from cappuccino.core.blobs import Blobs
from cappuccino.entrypoints import fitting, train

from .study_bench import PPO, STUDY_UID, Bench

pytestmark = pytest.mark.slow

SHORT = PPO | {"total_timesteps": "20480"}
TOLERANCE = 1e-3  # of a Sharpe ratio
OWN = (
    {"learning_rate": "0.003"},
    {"learning_rate": "0.002", "gamma": "0.8"},
    {"learning_rate": "0.004", "ent_coef": "0.001"},
)
LENIENT = {"folds": 2, "gateBars": 400, "gapBars": 24, "minClosedTrades": 1, "minExposure": 0}


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Bench:
    return Bench(database_url, tmp_path)


def run(bench: Bench, *numbers: int, blobs: Blobs | None = None) -> None:
    with open_pool(bench.url, "trial", max_size=1) as pool:
        train.run_trials(TrialWriter(pool), blobs or open_blobs(bench.blobs_url), STUDY_UID, numbers, should_stop=lambda: False)


def test_trials_in_a_pack_end_as_they_do_alone(bench: Bench) -> None:
    """Not bit for bit: sums of a batched product are rounded in another order, and training carries that on."""
    bench.search("ppo", SHORT, trials=5, own=OWN, validation=LENIENT)
    run(bench, 0, 1, 2)
    run(bench, 3)  # as 0
    run(bench, 4)  # as 1
    results = bench.rows("select succeeded, reason, objective, bundle_digest, record from trial_result order by number")
    assert [row[:2] for row in results] == [(True, "")] * 5
    assert [row[4]["trained_with"] for row in results] == [[0, 1, 2]] * 3 + [[3], [4]]
    objectives = [row[2] for row in results]
    assert objectives[:2] == pytest.approx(objectives[3:], abs=TOLERANCE)
    assert min(abs(a - b) for a, b in combinations(objectives[:3], 2)) > 10 * TOLERANCE  # they are not one another's
    blobs = open_blobs(bench.blobs_url)
    assert {load(blobs, row[3]).card["number"] for row in results} == set(range(5))  # loading verifies every byte
    assert bench.rows("select distinct count(*) from trial_report group by number") == [(1,)]  # of the first of two folds
    assert blobs.keys("checkpoints") == []


def test_a_pack_killed_again_and_again_ends_as_an_undisturbed_one(bench: Bench) -> None:
    bench.search("ppo", SHORT, trials=4, own=OWN[:2], validation=LENIENT)
    run(bench, 2, 3)
    blobs = open_blobs(bench.blobs_url)
    bench.kill_at_checkpoints("0,1", kills=2)
    run(bench, 0, 1)
    results = bench.rows("select number, objective, bundle_digest from trial_result order by 1")
    assert [row[1] for row in results[:2]] == [row[1] for row in results[2:]]
    for killed, undisturbed in zip(results[:2], results[2:], strict=True):
        assert load(blobs, killed[2]).files == load(blobs, undisturbed[2]).files
    assert blobs.keys("checkpoints") == []


def test_a_pruned_trial_leaves_its_place_and_the_others_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.search("ppo", SHORT, trials=3, own=OWN, validation=LENIENT)
    monkeypatch.setattr(train, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(fitting.Running, "_due", lambda _: True)
    blobs, kept = open_blobs(bench.blobs_url), list[str]()
    replace = blobs.replace

    def pruned_after_the_first_update(key: str, payload: bytes) -> None:
        replace(key, payload)
        if not kept:
            bench.end(1, "Pruned")
        kept.append(key)

    monkeypatch.setattr(blobs, "replace", pruned_after_the_first_update)
    run(bench, 0, 1, 2, blobs=blobs)
    assert bench.rows("select number, succeeded from trial_result order by 1") == [(0, True), (2, True)]
    assert bench.rows("select distinct number from trial_report order by 1") == [(0,), (2,)]
    assert not [key for key in kept if "/00001/" in key]  # it has no policy of any fold
    assert blobs.keys("checkpoints") == []


def test_what_cannot_be_trained_together_comes_one_after_another_and_fails_by_itself(bench: Bench) -> None:
    own = ({"hidden": "8"}, {"gamma": "7"}, {"hidden": "16"}, {"hidden": "8", "gamma": "0.8"})
    bench.search("ppo", SHORT, trials=4, own=own, validation=LENIENT)
    run(bench, 0, 1, 2, 3)
    results = bench.rows("select succeeded, reason, record -> 'trained_with' from trial_result order by number")
    assert [row[0] for row in results] == [True, False, True, True], results
    assert results[1][1] == "PPO parameter gamma is 7.0: use 0 to 1"
    assert [row[2] for row in results if row[0]] == [[0, 3], [2], [0, 3]]
