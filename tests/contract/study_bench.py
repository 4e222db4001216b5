"""A record with one pinned Study on a generated market, and the finite workers as processes on it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.api import DatasetSpec, StudySpec
from cappuccino.core.clock import parse_iso
from cappuccino.entrypoints.wiring import open_record
from cappuccino.search.trials import NewTrial, TrialState

SYMBOLS = ["BTC/USD", "ETH/USD"]
STUDY_UID, DEPLOYMENT_UID = "study-uid", "deployment-uid"
SEED = 12345
PPO = {"num_envs": "64", "num_steps": "16", "total_timesteps": "40960", "num_minibatches": "4", "hidden": "16"}


class Bench:
    """A record with one pinned Study, and the environment of its workers."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.url, self.blobs_url = database_url, (folder / "artifacts").as_uri()

    def worker(self, *arguments: str, spec: dict[str, Any] | None = None, failpoint: str = "") -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "CAPPUCCINO_DATABASE_URL": self.url,
            "CAPPUCCINO_ARTIFACTS_URL": self.blobs_url,
            "CAPPUCCINO_SPEC": json.dumps(spec or {}),
            "CAPPUCCINO_FAILPOINT": failpoint,
        }
        command = [sys.executable, "-m", "cappuccino.entrypoints.worker", *arguments]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str, spec: dict[str, Any] | None = None, failpoint: str = "", timeout: float = 200.0) -> int:
        process = self.worker(*arguments, spec=spec, failpoint=failpoint)
        _, errors = process.communicate(timeout=timeout)
        assert process.returncode in (0, -signal.SIGKILL), errors
        return process.returncode

    def kill_at_checkpoints(self, trials: str, *, kills: int) -> None:
        """Start the trainer so often, and kill it after its first new checkpoint."""
        blobs = open_blobs(self.blobs_url)
        for _ in range(kills):
            process = self.worker("train", "--study-uid", STUDY_UID, "--trials", trials)
            before = set(blobs.keys("checkpoints"))
            while set(blobs.keys("checkpoints")) <= before:
                assert process.poll() is None, f"ended before it could be killed: {process.communicate()[1]}"
                time.sleep(0.02)
            process.kill()
            process.communicate()

    def search(
        self, kind: str, parameters: dict[str, str], *, trials: int, own: Sequence[dict[str, str]] = (), **spec: Any
    ) -> None:
        """Ingest a generated market and insert a Study with `trials` trials of one seed. With `own` parameters each has its own
        seed too; more trials than that repeat them."""
        generator = {"seed": 5, "driftVolatility": 0.0035}
        dataset = {"symbols": SYMBOLS, "source": {"generator": generator}, "start": "2024-01-01T00:00:00Z"}
        market = DatasetSpec.model_validate(dataset | {"end": "2024-03-20T00:00:00Z"})
        assert self.run("ingest", "--dataset-uid", "dataset-uid", spec=market.to_json()) == 0
        study = StudySpec.model_validate(
            {
                "datasetRef": {"name": "market"},
                "symbols": SYMBOLS,
                "timeframe": "1h",
                "strategy": {"kind": kind, "parameters": parameters},
                "validation": {"folds": 2, "gateBars": 400, "gapBars": 24, "minClosedTrades": 2},
                "template": {"checkpointSeconds": 1, "costs": {"slippageBps": 5}},
            }
            | spec
        )
        own = own or ({},)
        new = [
            NewTrial(number=n, parameters=own[n % len(own)], distributions={}, seed=SEED + n % len(own)) for n in range(trials)
        ]
        asyncio.run(self._insert(study, new))

    async def _insert(self, study: StudySpec, new: Sequence[NewTrial]) -> None:
        async with open_record(self.url, "operator") as record:
            snapshot = await record.current_snapshot("dataset-uid")
            assert snapshot is not None
            await record.pin_study(
                uid=STUDY_UID,
                name="search",
                spec=study.to_json(),
                snapshot=snapshot.digest,
                gate_starts_at=parse_iso("2024-03-03T08:00:00Z"),
            )
            await record.insert_trials(study_uid=STUDY_UID, trials=new, at=datetime.now(UTC))

    def end(self, number: int, state: TrialState) -> None:
        """As the controller does."""

        async def write() -> None:
            async with open_record(self.url, "operator") as record:
                await record.set_trial_state(
                    study_uid=STUDY_UID, number=number, from_states=("Waiting",), to_state=state, at=datetime.now(UTC)
                )

        asyncio.run(write())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.encode()).fetchall()
