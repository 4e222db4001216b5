"""`make scale`: one Study of 10,000 Trials at parallelism 200, 100 Studies, 1,000 Traders, on a real API server.

The operator, PostgreSQL, etcd, the API server and the controllers of Jobs, StatefulSets and garbage are the real ones; pods are
played (kubelet.py). Prints the table, writes build/scale/summary.json and operator.log, and fails when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.scale.api import Api
from tests.scale.kubelet import Kubelet
from tests.scale.report import Report
from tests.scale.scenario import Scenario, Sizes
from tests.scale.stage import RAISED, ROOT, Stage, stage
from tests.scale.witness import Witness

RESULTS = ROOT / "build" / "scale"


def main() -> int:
    options = _options()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="cappuccino-scale-") as folder:
        try:
            with stage(Path(folder)) as stood:
                report.add("Operator started on an empty cluster: ready", f"{stood.operator.start():.1f} s")
                asyncio.run(_play(stood, options, report))
        finally:
            RESULTS.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                shutil.copy(Path(folder) / "operator.log", RESULTS / "operator.log")
            report.write(RESULTS / "summary.json")
    print(report.table())
    print(f"\nPods are played: {options.start_seconds:g} s to start, trials train {options.train_seconds:g} s ± 50 %,")
    print(f"traders renew their lease every second and write equity every {options.bar_seconds:g} s.")
    print(f"Raised for kube-controller-manager: {' '.join(RAISED)}")
    if report.missed:
        print(f"missed: {'; '.join(report.missed)}", file=sys.stderr)
    return 1 if report.missed else 0


async def _play(stood: Stage, options: argparse.Namespace, report: Report) -> None:
    plane, sizes = stood.plane, Sizes(
        trials=options.trials, past=max(options.past, options.trials), parallelism=options.parallelism,
        traders=options.traders, studies=options.studies,
    )  # fmt: skip
    report.figures["options"] = vars(options)
    async with Api(plane.url, token=plane.token, ca=plane.ca) as api:
        kubelet = Kubelet(
            api,
            stood.database_url,
            start_seconds=options.start_seconds,
            train_seconds=options.train_seconds,
            bar_seconds=options.bar_seconds,
        )
        witness = Witness(api)
        played = [asyncio.create_task(kubelet.run()), asyncio.create_task(witness.run())]
        scenario = Scenario(api, stood.operator, kubelet, witness, sizes, report)
        asked = asyncio.create_task(_phases(scenario, sizes))
        await asyncio.wait([*played, asked], return_when=asyncio.FIRST_COMPLETED)
        for task in (*played, asked):
            task.cancel()
        for result in await asyncio.gather(*played, asked, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


async def _phases(scenario: Scenario, sizes: Sizes) -> None:
    await scenario.one_study()
    if sizes.past > sizes.trials:
        await scenario.past_the_mark()
    await scenario.restart()
    await scenario.surplus()
    if sizes.studies:
        await scenario.many_studies()
    if sizes.traders:
        await scenario.traders()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--past", type=int, default=0, help="then go on to so many Trials of the same Study")
    parser.add_argument("--parallelism", type=int, default=200)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--traders", type=int, default=1000)
    parser.add_argument("--start-seconds", type=float, default=0.5, help="of a pod")
    parser.add_argument("--train-seconds", type=float, default=22.0, help="of a trial, on average")
    parser.add_argument("--bar-seconds", type=float, default=60.0, help="between two bars of a trader")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
