"""Trials per hour on one machine: a pack in one worker against a worker for each, one after another and two at a time.

What is timed is what a cluster would run: the trainer's process from its start to its last result row, with the record and the
artifact store on this machine, one thread of torch in each process. All three ways run the same trials with the same seeds.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from cappuccino.core.errors import InvalidInput
from tests.contract.study_bench import STUDY_UID, Bench

HOUR = 3600.0
LENIENT = {"folds": 2, "gateBars": 400, "gapBars": 24, "minClosedTrades": 1, "minExposure": 0}
SHAPE = {"num_envs": "256", "num_steps": "32", "num_minibatches": "8", "update_epochs": "4", "hidden": "32", "layers": "2"}


def packing(*, pack: int = 8, timesteps: int = 32_768, hidden: int = 32) -> dict[str, float]:
    """Of `pack` PPO trials with two folds and a refit each, `timesteps` steps a fit.

    trials_per_hour_pack, trials_per_hour_one_by_one, trials_per_hour_two_at_a_time; the pack's gain over each; and the
    largest distance of an objective (annualised Sharpe) of a trial from that of the same trial in another of the three ways.

    Raises:
        InvalidInput: a trial failed, as one that is trained for too few steps does.
    """
    folder = Path(tempfile.mkdtemp(prefix="cappuccino-packing-"))
    server = EmbeddedServer(folder / "database")
    try:
        server.start()
        migrate(server.url())
        bench = Bench(server.url(), folder)
        parameters = SHAPE | {"total_timesteps": str(timesteps), "hidden": str(hidden)}
        own = [{"learning_rate": f"{0.002 + 0.003 * n / pack:.5f}"} for n in range(pack)]
        bench.search("ppo", parameters, trials=3 * pack, own=own, validation=LENIENT)
        lots = [range(lot * pack, (lot + 1) * pack) for lot in range(3)]
        together = _seconds(lambda: _train(bench, lots[0]))
        alone = _seconds(lambda: [_train(bench, [number]) for number in lots[1]])
        with ThreadPoolExecutor(2) as two:
            in_twos = _seconds(lambda: list(two.map(lambda number: _train(bench, [number]), lots[2])))
        results = bench.rows("select number, objective, reason from trial_result order by number")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    for number, objective, reason in results:
        if objective is None:  # it ended early: what it took says nothing
            raise InvalidInput(f"trial {number} of the measurement failed ({reason}): give it more than {timesteps} timesteps")
    objectives = [objective for _, objective, _ in results]
    return {
        "trials_per_hour_pack": HOUR * pack / together,
        "trials_per_hour_one_by_one": HOUR * pack / alone,
        "trials_per_hour_two_at_a_time": HOUR * pack / in_twos,
        "gain_over_one_by_one": alone / together,
        "gain_over_two_at_a_time": in_twos / together,
        "largest_difference_of_objectives": max(abs(a - b) for a, b in zip(objectives, objectives[pack:], strict=False)),
    }


def _train(bench: Bench, numbers: Sequence[int]) -> None:
    bench.run("train", "--study-uid", STUDY_UID, "--trials", ",".join(map(str, numbers)), timeout=HOUR)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
