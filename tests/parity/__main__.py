"""`make parity`: one bundle over the same bars in every engine, and how far they are apart.

The training environment against the backtest, and `trade` processes with alpaca-py at the simulated exchange (in lockstep, fee
pinned) against the backtest; a policy trained briefly from a fixed seed and a rule, each with and without barriers; on
generated bars with holes and, where they lie beside the checkout, on real ones. Prints the table, writes
build/parity/summary.json, and fails when a target is missed. --only: one part. --write: the table into docs/reliability.md.

| Compared with the backtest | A day's growth may differ by |
|---|---|
| environment | 0.1 bp |
| trader without barriers | 1 bp |
| trader with barriers | 1 bp, and for every exit its weight x the tick step; 5 bp at most |

Of 10,000 decisions at most one may differ, and each that does must be within 1e-4 of a quantisation boundary.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.bench import report as documents
from tests.parity.compare import Comparison, compare
from tests.parity.engines import backtested, stretches, walked
from tests.parity.scene import OFF, USUAL, Scene, generated, policy, real, rule
from tests.parity.trader import traded

ROOT = Path(__file__).resolve().parents[2]
RESULTS, DOCUMENT = ROOT / "build" / "parity" / "summary.json", ROOT / "docs" / "reliability.md"
DATA = ROOT.parent / "shared" / "data"
REAL = {"1h": DATA / "crypto-1h-2024-01-07.parquet", "5m": DATA / "crypto-5m-2024-01-07.parquet"}

ENVIRONMENT_BPS, TRADER_BPS, STOPPED_BPS = 0.1, 1.0, 5.0
DIFFERING = 1e-4  # of the decisions
NEAR = 1e-4  # action units
COARSE_BPS = 10_000.0  # four ticks a bar: without barriers a tick between them means nothing
LIMIT_SECONDS = 7200.0  # of one exchange


LEARNING_RATES = {"generated": 0.003, "real 1h": 0.003, "real 5m": 0.001}  # a short training at it trades, and is not ruined


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """bars: of the generated market. five_minutes, stopped, unstopped: decisions. tick_bps: with barriers."""

    bars: int
    timesteps: int
    five_minutes: int
    unstopped: int
    stopped: int
    stretches: int = 8
    tick_bps: float = 5.0


FULL = Sizes(bars=12_000, timesteps=32_768, five_minutes=40_000, unstopped=4_000, stopped=500)
FAST = Sizes(bars=900, timesteps=16_384, five_minutes=0, unstopped=60, stopped=24, stretches=2)


@dataclass(kw_only=True)
class Report:
    """`lines`: what was printed."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)

    def add(self, engine: str, scene: Scene, found: Comparison, allowed: np.ndarray[Any, Any], seconds: float) -> None:
        name = f"{engine}: {scene.name}"
        if not found.moved:
            self.missed.append(f"{name}: nothing was traded, so nothing is shown: choose another seed")
        over = np.abs(found.days) - allowed
        worst = int(np.argmax(over))
        row = {
            "engine": engine,
            "scene": scene.name,
            "days": len(found.days),
            "mean_bps": found.mean,
            "worst_bps": found.worst,
            "closest_bps": abs(float(found.days[worst])),
            "allowed_bps": float(allowed[worst]),
            "days_with_exits": int((found.exits > 0).sum()),
            "decisions": found.decisions,
            "differing": [asdict(each) for each in found.differences],
            "farthest": found.farthest,
            "seconds": seconds,
        }
        self.rows.append(row)
        if over[worst] > 0:
            self.missed.append(f"{name}: a day differs by {row['closest_bps']:.3g} bp, {row['allowed_bps']:.3g} are allowed")
        if found.farthest > NEAR:
            self.missed.append(f"{name}: a differing decision is {found.farthest:.2g} from the boundary, {NEAR:g} is allowed")
        days = f"{len(found.days):>5} {found.mean:>9.2g} {found.worst:>9.2g} {row['closest_bps']:>9.2g}"
        decisions = f"{found.decisions:>9,} {len(found.differences):>7} {found.farthest:>9.1g}"
        allowed_bps, exits = f"{row['allowed_bps']:>8.3g}", f"{row['days_with_exits']:>6}"
        self.say(f"{engine:<12} {scene.name:<28} {days} {allowed_bps} {exits} {decisions} {seconds:>6.0f}")

    def count(self) -> None:
        """Decisions are few in one scene: their share is judged over all scenes of an engine."""
        for engine in dict.fromkeys(row["engine"] for row in self.rows):
            rows = [row for row in self.rows if row["engine"] == engine]
            decisions, differing = (sum(row["decisions"] for row in rows), sum(len(row["differing"]) for row in rows))
            self.say(f"{engine}: {differing} of {decisions:,} decisions differ")
            if differing > math.ceil(DIFFERING * decisions):
                self.missed.append(f"{engine}: {differing} of {decisions:,} decisions differ, 1 in 10,000 may")


HEAD = (
    f"{'engine':<12} {'market, bundle':<28} {'days':>5} {'mean':>9} {'worst':>9} {'closest':>9} {'allowed':>8} {'exits':>6}"
    f" {'decisions':>9} {'differ':>7} {'distance':>9} {'sec':>6}"
)


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    sizes, report = FAST if options.fast else FULL, Report()
    report.say(f"Differences in growth, bp a day; `closest` is the day nearest to what is allowed it.\n{HEAD}")
    for scene in _scenes(sizes, five_minutes=options.only != "trader"):
        for each in (scene.with_barriers(OFF), scene.with_barriers(USUAL)):
            if options.only != "trader":
                _environment(each, sizes, report)
            if options.only != "environment" and each.bars.timeframe.seconds == 3600:
                _trader(each, sizes, report)
    report.count()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"sizes": asdict(sizes), "rows": report.rows, "missed": report.missed}, indent=2) + "\n")
    if options.write:
        documents.write(
            DOCUMENT, "parity", "\n".join(["```text", *report.lines, *(f"missed: {m}" for m in report.missed), "```"])
        )
    if report.missed:
        print("missed:\n  " + "\n  ".join(report.missed), file=sys.stderr)
    return 1 if report.missed else 0


def _scenes(sizes: Sizes, *, five_minutes: bool) -> Iterator[Scene]:
    markets = {"generated": generated(bars=sizes.bars)}
    if REAL["1h"].exists():
        markets["real 1h"] = real(REAL["1h"])
    if REAL["5m"].exists() and sizes.five_minutes and five_minutes:
        bars = real(REAL["5m"])
        markets["real 5m"] = bars.rows(0, min(len(bars), sizes.five_minutes))
    for market, bars in markets.items():
        yield policy(market, bars, timesteps=sizes.timesteps, learning_rate=LEARNING_RATES[market])
        yield rule(market, bars)


def _environment(scene: Scene, sizes: Sizes, report: Report) -> None:
    began = time.perf_counter()
    parts = stretches(scene, sizes.stretches)
    compared = [compare(track, backtested(part), scene.bundle.sizing) for track, part in zip(walked(parts), parts, strict=True)]
    found: Comparison = reduce(add, compared)
    report.add("environment", scene, found, np.full(len(found.days), ENVIRONMENT_BPS), time.perf_counter() - began)


def _trader(scene: Scene, sizes: Sizes, report: Report) -> None:
    began = time.perf_counter()
    tick_bps = sizes.tick_bps if scene.guarded else COARSE_BPS
    expected = backtested(scene.of(sizes.stopped if scene.guarded else sizes.unstopped))
    part = scene.of(len(expected.actions))  # fewer where the bundle is ruined: there the backtest ends, and a trader does not
    with tempfile.TemporaryDirectory(prefix="cappuccino-parity-") as folder:
        (track,) = traded([part], Path(folder), tick_bps=tick_bps, limit_seconds=LIMIT_SECONDS)
    found = compare(track, expected, scene.bundle.sizing)
    allowed = found.allowed(plain=TRADER_BPS, tick_bps=tick_bps, most=STOPPED_BPS)
    report.add("trader", scene, found, allowed, time.perf_counter() - began)


def _options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description="How far the engines are apart.")
    parser.add_argument("--fast", action="store_true", help="few bars: whether it runs at all")
    parser.add_argument("--write", action="store_true", help="the table into docs/reliability.md")
    parser.add_argument("--only", choices=("environment", "trader"), help="one comparison")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
