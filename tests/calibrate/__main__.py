"""`make calibrate`: Studies on generated markets through the whole pipeline; whom do the gates let pass?

On noise nobody may: over 1,000 Studies the upper 95 % limit of the rate at which any candidate of a Study passes all
statistical gates is at most 5 %, and so is that of the window gate alone, the one test on bars that nobody has seen. Over
planted edges the rate is the gates' power. One line per Study goes to build/calibrate/, so that a run that was interrupted
goes on; summary.json and power.svg are made from them. Exit code 1 when the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cappuccino
from cappuccino.core.identifiers import digest_of, sha256_hex
from cappuccino.evaluation.evidence import VERSION
from tests.bench.report import write
from tests.calibrate.curve import power_curve
from tests.calibrate.results import summary, table, weakened, weakened_table
from tests.calibrate.scenarios import EDGES, NOISE, SCENARIOS, Scenario
from tests.calibrate.study import Setup, run_study

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "calibrate"
DOCUMENT, CURVE = ROOT / "docs" / "statistics.md", "power.svg"
JUDGED = ("window", "statistical")


def main() -> int:
    options = _options()
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept: dict[str, list[dict[str, Any]]] = {}
    for scenario in SCENARIOS:
        chosen = not options.report and (not options.only or scenario.name in options.only)
        studies = options.studies or (scenario.fast if options.fast else scenario.studies)
        kept[scenario.name] = _outcomes(scenario, studies if chosen else 0, options)
    summaries = {name: summary(outcomes) for name, outcomes in kept.items() if outcomes}
    text = _text(summaries, kept[NOISE.name])
    print(text)
    (RESULTS / "summary.json").write_text(json.dumps(summaries, indent=2) + "\n")
    points = [summaries[scenario.name] for scenario in (NOISE, *EDGES) if scenario.name in summaries]
    if len(points) > 1:
        (RESULTS / CURVE).write_text(power_curve(points))
    if options.write:
        write(DOCUMENT, "calibration", text)
        (DOCUMENT.parent / CURVE).write_text(power_curve(points))
    if len({code for found in summaries.values() for code in found["code"]}) > 1:
        print("These lines were made by different versions of the code: --fresh starts over.")
    missed = [scenario for scenario in SCENARIOS if scenario.name in summaries and misses(scenario, summaries[scenario.name])]
    for scenario in missed:
        window, every = (summaries[scenario.name][judged]["upper"] for judged in JUDGED)
        print(f"missed: {scenario.name}: up to {window:.1%} pass the window gate, {every:.1%} all; {scenario.most:.0%} may")
    return 1 if missed else 0


def _text(summaries: Mapping[str, Mapping[str, Any]], noise: Sequence[Mapping[str, Any]]) -> str:
    studies = sum(found["statistical"]["of"] for found in summaries.values())
    first = next(iter(summaries.values()))
    slowest = max(found["seconds"] for found in summaries.values())
    ran = (
        f"{studies:,} Studies, `make calibrate`, {time.strftime('%Y-%m-%d', time.gmtime())}, {platform.machine()},"
        f" {os.cpu_count()} cores; {first['seconds']:.1f} to {slowest:.1f} s a Study (medians). The window gate printed a"
        f" minimum detectable Sharpe of {first['detectable']:.1f}, {first['detectable_at_80']:.1f} with 80 % power."
    )
    return "\n\n".join([table(summaries), *([weakened_table(weakened(noise))] if noise else []), ran])


def misses(scenario: Scenario, found: Mapping[str, Any]) -> bool:
    """Judged on all of the scenario's Studies; fewer cannot show it."""
    if scenario.most is None:
        return False
    if found["statistical"]["of"] < scenario.studies:
        print(f"{scenario.name}: {found['statistical']['of']} Studies do not decide; {scenario.studies} do.")
        return False
    return any(found[judged]["upper"] > scenario.most for judged in JUDGED)


def _outcomes(scenario: Scenario, studies: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All that there are, in the order of their seeds; of seeds 0 to `studies` those that are missing are run."""
    path = RESULTS / f"{scenario.name}.jsonl"
    of = digest_of({"setup": scenario.setup.to_json(), "gates": VERSION})[:12]
    if options.fresh and studies:
        path.unlink(missing_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    outcomes = {found["seed"]: found for line in lines if (found := _line(line)) and found["of"] == of}
    missing = [seed for seed in range(studies) if seed not in outcomes]
    if missing:
        began, code = time.monotonic(), _code()
        with path.open("w") as file:
            for found in outcomes.values():
                file.write(json.dumps(found) + "\n")
            for done, outcome in enumerate(_run(scenario.setup, missing, options.workers), start=1):
                outcomes[outcome["seed"]] = outcome | {"of": of, "code": code}
                file.write(json.dumps(outcomes[outcome["seed"]]) + "\n")
                file.flush()
                if done % 10 == 0 or done == len(missing):
                    each = (time.monotonic() - began) / done
                    print(f"{scenario.name}: {len(outcomes)} Studies, {each:.1f} s each", file=sys.stderr, flush=True)
    return [outcomes[seed] for seed in sorted(outcomes)]


def _line(text: str) -> dict[str, Any] | None:
    """None for the line that a run was killed in."""
    try:
        return dict(json.loads(text))
    except json.JSONDecodeError:
        return None


def _run(setup: Setup, seeds: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1 or len(seeds) < 2:
        yield from map(partial(run_study, setup), seeds)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_study, setup, seed) for seed in seeds]):
            yield future.result()


def _code() -> str:
    """Of the package and of what runs a Study here."""
    here = Path(__file__).parent
    sources = [*sorted(Path(cappuccino.__file__).parent.rglob("*.py")), here / "record.py", here / "study.py"]
    return digest_of([sha256_hex(path.read_bytes()) for path in sources])[:12]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.calibrate", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--fast", action="store_true", help="a few Studies of each scenario: minutes, and no target")
    parser.add_argument("--studies", type=int, default=0, help="so many of each scenario instead")
    parser.add_argument("--only", nargs="*", default=[], choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--fresh", action="store_true", help="forget what was run before")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is there")
    parser.add_argument("--write", action="store_true", help=f"put tables and curve into {DOCUMENT.relative_to(ROOT)}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
