"""`make learn`: PPO learns what is planted, up to what is attainable, and stays in cash where costs eat it up.

For each market the optimum is computed and executed; policies are trained from several seeds, each on a path of its own, and
executed on the same fresh paths. Prints the table, writes build/bench/learning.json, and fails when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.training.config import PPOConfig
from cappuccino.training.learning import Member, TrainedPolicy, train_policies
from tests.learning.execution import Result, execute, learned, optimal
from tests.learning.markets import CAPITAL_USD, HOUR, MARKETS, RULES, Paths, Planted
from tests.learning.optimum import solve, steady_state
from tests.learning.score import BPS, Interval, error_of_paths, scores
from tests.learning.table import (
    OPTIMUM,
    OPTIMUM_IN_CASH,
    OPTIMUM_STOPPED,
    PPO,
    PPO_AWARE,
    PPO_IN_CASH,
    PPO_UNAWARE,
    markdown,
)

RESULTS = Path("build/bench/learning.json")
TARGET = 0.9
MOST_EXPOSURE = 0.01  # where the optimum is cash
PARAMETERS = {"total_timesteps": "2000000", "learning_rate": "0.001", "gamma": "0.95"}  # beside the defaults
FRESH = 1_000_000  # seeds of the paths on which is judged begin here, those of training at 0
OFF, USUAL = Barriers.off(), Barriers()


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """paths and length (bars): what is judged on. training: bars of each seed's path. seeds: how many."""

    seeds: int
    training: int
    paths: int
    length: int
    parameters: dict[str, str]


@dataclass(kw_only=True)
class Report:
    """`judging` false: figures without a verdict."""

    judging: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, market: str, what: str, shown: str, *, met: bool | None = None, **figures: Any) -> None:
        met = met if self.judging else None
        self.rows.append({"market": market, "what": what, "shown": shown, "met": met, **figures})
        verdict = {None: "", True: "  met", False: "  MISSED"}[met]
        print(f"{market:<20} {what:<46} {shown}{verdict}", flush=True)
        if met is False:
            self.missed.append(f"{market}: {what} {shown}")


def main() -> int:
    options, began = _options(), time.perf_counter()
    torch.set_num_threads(1)
    report, sizes = Report(judging=not options.fast), _sizes(options)
    for name in options.markets:
        _learns(MARKETS[name], sizes, report)
        _stays_in_cash(MARKETS[name].costly(), sizes, report)
        took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time()}
        found = {"sizes": asdict(sizes), **took, "rows": report.rows, "missed": report.missed}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\n{markdown(found)}\n\nIn brackets two-sided 95 % intervals (Student's t). {found['seconds']:.0f} s, "
          f"{found['cpu_seconds']:.0f} s of them this process's own, one thread.")  # fmt: skip
    if report.missed:
        print(f"missed: {'; '.join(report.missed)}", file=sys.stderr)
    return 1 if report.missed else 0


def _learns(market: Planted, sizes: Sizes, report: Report) -> None:
    paths = _fresh(market, sizes)
    optimum = solve(steady_state(market.edge, HOUR), market.costs)
    free, seconds = _train(market, sizes, OFF)
    aware, _ = _train(market, sizes, USUAL)
    best, *unstopped = execute(
        market, paths, [optimal(optimum, market, paths), *(learned(policy, paths) for policy in free)], barriers=OFF
    )
    stopped, *runs = execute(
        market,
        paths,
        [optimal(optimum, market, paths), *(learned(policy, paths) for policy in (*free, *aware))],
        barriers=USUAL,
    )
    predicted, paid = optimum.growth * len(market.traded) * BPS, Interval.of(best.growth * BPS)
    figures: dict[str, Any] = {"exposure": float(best.exposure.mean()), "turnover": float(best.turnover.mean())}
    figures |= {"predicted_bps": predicted, "executed_bps": asdict(paid)}
    report.add(market.name, OPTIMUM, f"{predicted:.2f}, {paid.text(2)} over paths", **figures)
    _score(report, market, PPO, unstopped, best, seconds=seconds / sizes.seeds)
    _score(report, market, OPTIMUM_STOPPED, [stopped], best)
    _score(report, market, PPO_AWARE, runs[len(free) :], best)
    _score(report, market, PPO_UNAWARE, runs[: len(free)], best)


def _stays_in_cash(market: Planted, sizes: Sizes, report: Report) -> None:
    paths = _fresh(market, sizes)
    optimum = solve(steady_state(market.edge, HOUR), market.costs, tolerance=1e-7)
    policies, seconds = _train(market, sizes, OFF)
    best, *runs = execute(
        market, paths, [optimal(optimum, market, paths), *(learned(policy, paths) for policy in policies)], barriers=OFF
    )
    invested = float(best.exposure.mean())
    report.add(market.name, OPTIMUM_IN_CASH, f"{invested:.4f}", met=invested < MOST_EXPOSURE,
               predicted_bps=optimum.growth * BPS)  # fmt: skip
    growth, exposure, turnover = (
        Interval.of([float(getattr(run, name).mean()) * scale for run in runs])
        for name, scale in (("growth", BPS), ("exposure", 1.0), ("turnover", 1.0))
    )
    report.add(
        market.name,
        PPO_IN_CASH,
        f"{exposure.text(4)}, growth {growth.text(3)} bps, turnover {turnover.text(5)}",
        met=max(float(run.exposure.mean()) for run in runs) < MOST_EXPOSURE,
        exposure=asdict(exposure),
        growth_bps=asdict(growth),
        turnover=asdict(turnover),
        cpu_seconds_a_seed=seconds / sizes.seeds,
    )


def _score(
    report: Report,
    market: Planted,
    what: str,
    runs: Sequence[Result],
    best: Result,
    *,
    seconds: float | None = None,
) -> None:
    """With `seconds` (to train one, of one core) it is what the target is set for."""
    values = scores(runs, best)
    over_seeds, over_paths = Interval.of(values), error_of_paths(runs, best)
    shown = f"{over_seeds.text(3) if len(runs) > 1 else f'{over_seeds.mean:.3f}'} of it, ± {over_paths:.3f} for the paths"
    shown += f"; {', '.join(f'{value:.3f}' for value in values)}; {seconds:.0f} CPU s a seed" if seconds is not None else ""
    report.add(
        market.name,
        what,
        shown,
        met=over_seeds.low >= TARGET if seconds is not None else None,
        scores=values,
        interval=asdict(over_seeds),
        paths_error=over_paths,
        growth_bps=[float(run.growth.mean()) * BPS for run in runs],
        exposure=[float(run.exposure.mean()) for run in runs],
        turnover=[float(run.turnover.mean()) for run in runs],
        stops=[float(run.stops.mean()) for run in runs],
        cpu_seconds_a_seed=seconds,
    )


def _fresh(market: Planted, sizes: Sizes) -> Paths:
    return Paths.draw(market, seeds=range(FRESH, FRESH + sizes.paths), length=sizes.length)


def _train(market: Planted, sizes: Sizes, barriers: Barriers) -> tuple[list[TrainedPolicy], float]:
    """One policy per seed, each on its own path, all as one pack; and the CPU seconds it took."""
    began = time.process_time()
    paths = Paths.draw(market, seeds=range(sizes.seeds), length=sizes.training)
    config = PPOConfig.from_parameters({"network": market.network, **sizes.parameters})
    outcomes = train_policies(
        [
            Member(config=config, rows=(int(start), int(start) + sizes.training), seed=seed)
            for seed, start in enumerate(paths.starts)
        ],
        bars=paths.bars,
        features=paths.features,
        lookback=1,
        sizing=Sizing(),
        barriers=barriers,
        costs=market.costs,
        rules=RULES,
        capital_usd=CAPITAL_USD,
    )
    policies = []
    for outcome in outcomes:
        if not isinstance(outcome, TrainedPolicy):
            raise outcome
        policies.append(outcome)
    return policies, time.process_time() - began


def _sizes(options: argparse.Namespace) -> Sizes:
    given = dict(text.split("=", 1) for text in options.set)
    if options.fast:
        parameters = PARAMETERS | {"total_timesteps": "150000"} | given
        return Sizes(seeds=min(options.seeds, 2), training=6_000, paths=10, length=500, parameters=parameters)
    return Sizes(seeds=options.seeds, training=100_000, paths=20, length=5_000, parameters=PARAMETERS | given)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.learning", description="What PPO learns of what is attainable.")
    parser.add_argument("--seeds", type=int, default=5, help="policies trained per market (5)")
    parser.add_argument("--markets", nargs="+", choices=list(MARKETS), default=list(MARKETS), help="which edges (all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="PPO parameters to try")
    parser.add_argument("--fast", action="store_true", help="two seeds, short: shows that it runs, proves nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
