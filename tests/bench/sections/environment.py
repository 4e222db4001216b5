"""Environment steps a second with random actions, beside what the memory allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.bench import environment
from tests.bench.report import Summary, Target, ranged
from tests.bench.section import MARKET, Figures, Machine, Section
from tests.bench.single import Tables
from tests.bench.turns import in_turns, ratio

KINDS = {"index only": False, "materialised": True}  # observations
MODES = {"compiled, float32": {"compiled": True, "dtype": "float32"}, "eager, float64": {"compiled": False, "dtype": "float64"}}
ONE = "ours, one environment at a time, materialised, eager"
WANTED = {"index only": 150.0, "materialised": 40.0}
WANTED_OF_GPU = 100e6


def measure(machine: Machine, *, rounds: int, seconds: float, num_envs: int, peer_envs: int) -> Figures:
    tables = Tables.random(**MARKET)
    once: Figures = {"seconds": seconds, "repeats": 1}
    ours = partial(environment.cappuccino, tables, num_envs=num_envs, device=machine.device, threads=machine.threads, **once)
    contenders: dict[str, Callable[[], Figures]] = {}
    for kind, materialised in KINDS.items():
        for mode, how in MODES.items():
            contenders[_ours(kind, mode)] = partial(ours, materialised=materialised, **how)
        contenders[_oracle(kind)] = partial(environment.numpy_oracle, tables, materialised=materialised, **once)
    contenders[ONE] = partial(ours, num_envs=1, materialised=True, **MODES["eager, float64"])
    peer = partial(machine.peers.call, tables=MARKET, **once)
    vector = partial(peer, "tests.bench.environment:stable_baselines3", num_envs=peer_envs)
    contenders[f"stable-baselines3, {peer_envs} of it in one process"] = partial(vector, processes=False)
    contenders[f"stable-baselines3, {peer_envs} of it in as many processes"] = partial(vector, processes=True)
    contenders["gym-trading-env, one asset"] = partial(peer, "tests.bench.environment:gym_trading_env")
    contenders["triad"] = partial(environment.triad, device=machine.device, threads=machine.threads)
    measured = in_turns(contenders, rounds)
    triad = measured.pop("triad")
    best = {
        kind: max((_ours(kind, mode) for mode in MODES), key=lambda name: measured[name]["steps_per_second"]) for kind in KINDS
    }
    return {
        "market": MARKET,
        "measured": measured,
        "triad": triad,
        "roof": environment.roof(tables, triad["gb_per_second"]),
        "best": best,
        "ratios": {kind: ratio(measured[best[kind]], measured[_oracle(kind)]) for kind in KINDS},
        "float32": environment.float32_error(tables, num_envs=min(num_envs, 1024)),
    }


def _ours(kind: str, mode: str) -> str:
    return f"ours, {kind}, {mode}"


def _oracle(kind: str) -> str:
    return f"NumPy, one environment, {kind}"


def summary(figures: Mapping[str, Any]) -> Summary:
    measured, roof, triad, error = (figures[name] for name in ("measured", "roof", "triad", "float32"))
    rows = []
    for name, each in measured.items():
        kind = "index_only" if each["observations"] == "index-only" else "materialised"
        share = each["steps_per_second"] / roof[f"steps_per_second_{kind}"]
        rows.append([name, ranged(each, "steps_per_second"), f"{share:.2%}" if name.startswith("ours") else ""])
    targets = [
        Target.of_ratio(f"times the one environment in NumPy, {kind}", WANTED[kind], figures["ratios"][kind]) for kind in KINDS
    ]
    mine, begun = (
        measured[figures["best"]["index only"]],
        measured[_ours("index only", "compiled, float32")]["seconds_to_begin"],
    )
    if mine["device"] != "cpu":
        targets.append(Target(what="steps a second, index only", wanted=WANTED_OF_GPU, measured=mine["steps_per_second"]))
    return Summary(
        tables=[(("environment", "steps a second", "of the roof"), rows)],
        targets=targets,
        notes=[
            f"Ours: {mine['num_envs']:,} environments at once. The roof is a memory triad of {triad['gb_per_second']:.1f} GB/s"
            f" over the bytes that a step with accounts in float32 cannot avoid: {roof['bytes_index_only']:,} index only, "
            f"{roof['bytes_materialised']:,} materialised.",
            f"Compiled, ours took {begun:.0f} s to begin in the first round.",
            f"What float32 accounts cost in precision: a reward is off by {error['reward_error_median']:.1e} in the median and "
            f"{error['reward_error_99th']:.1e} at the 99th percentile, equity after {error['steps']} steps by "
            f"{error['equity_error_median']:.1e} in the median and {error['equity_error_max']:.1e} at most.",
        ],
    )


SECTION = Section(
    title="Environment",
    measure=measure,
    summary=summary,
    full={"rounds": 3, "seconds": 2.0, "num_envs": 4096, "peer_envs": 8},
    fast={"rounds": 1, "seconds": 0.5},
    gpu={"num_envs": 1 << 18},
)
