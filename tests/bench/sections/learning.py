"""PPO end to end: rollout and update in steps a second, beside what the matrix products allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.bench import learning
from tests.bench.report import Summary, Target, number, ranged
from tests.bench.section import MARKET, Figures, Machine, Section
from tests.bench.single import Tables
from tests.bench.turns import in_turns, ratio

OURS: Mapping[str, Figures] = {
    "ours": {},
    "ours, no environments share bars": {"group_size": 1},
    "ours, environment compiled in float32": {"compiled": True, "dtype": "float32"},
}
CLEANRL = "a loop in CleanRL's manner"
TUNED = 128  # the hidden size at which the peer's settings are tried
WANTED, WANTED_OF_GPU, HIDDEN_OF_GPU = 5.0, 4e6, 1024


def measure(
    machine: Machine,
    *,
    hidden: list[int],
    rounds: int,
    rounds_elsewhere: int,
    seconds: float,
    batch: int,
    minibatch: int,
    peer_envs: list[int],
    cleanrl_envs: int,
) -> Figures:
    """`rounds` where the peer is tuned: with each of `peer_envs`; at other hidden sizes it has the best of them."""
    tables = Tables.random(**MARKET)
    size: Figures = {"batch": batch, "minibatch": minibatch, "threads": machine.threads, "seconds": seconds, "repeats": 1}
    ours = partial(learning.cappuccino_ppo, tables, device=machine.device, **size)
    peer = partial(machine.peers.call, tables=MARKET, **size)
    gemm = in_turns({"gemm": partial(learning.gemm, device=machine.device, threads=machine.threads)}, 3)["gemm"]
    measured, envs = {}, [] if machine.cuda else peer_envs
    for width in sorted(hidden, key=lambda width: width != TUNED):
        contenders: dict[str, Callable[[], Figures]] = {name: partial(ours, hidden=width, **how) for name, how in OURS.items()}
        for count in envs:
            contenders[_peer(count)] = partial(peer, "tests.bench.learning:stable_baselines3_ppo", hidden=width, num_envs=count)
        if not machine.cuda:
            contenders[CLEANRL] = partial(peer, "tests.bench.learning:cleanrl_style_ppo", hidden=width, num_envs=cleanrl_envs)
        results = in_turns(contenders, rounds if width == TUNED else rounds_elsewhere)
        envs = sorted(envs, key=lambda count: -results[_peer(count)]["steps_per_second"])[:1]
        measured[str(width)] = {
            "results": results,
            "roof": learning.roof(tables, gemm["gflop_per_second"], hidden=width),
            "ratio": ratio(results["ours"], results[_peer(envs[0])]) if envs else None,
        }
    return {"market": MARKET, "gemm": gemm, "hidden": {width: measured[width] for width in sorted(measured, key=int)}}


def _peer(num_envs: int) -> str:
    return f"stable-baselines3, {num_envs} environments"


def summary(figures: Mapping[str, Any]) -> Summary:
    by_width, gemm = figures["hidden"], figures["gemm"]
    names = max((list(each["results"]) for each in by_width.values()), key=len)

    def row(name: str) -> list[str]:
        found = [each["results"].get(name) for each in by_width.values()]
        return [name, *(ranged(result, "steps_per_second") if result else "" for result in found)]

    def shares() -> list[str]:
        return [
            f"{each['results']['ours']['steps_per_second'] / each['roof']['steps_per_second']:.0%}"
            for each in by_width.values()
        ]

    targets = [
        Target.of_ratio(f"times stable-baselines3's best, hidden {width}", WANTED, each["ratio"])
        for width, each in by_width.items()
        if each["ratio"] and int(width) == TUNED
    ]
    others = [
        f"{ranged(each['ratio'])} at hidden {width}"
        for width, each in by_width.items()
        if each["ratio"] and int(width) != TUNED
    ]
    for width, each in by_width.items():
        if each["results"]["ours"]["device"] != "cpu" and int(width) == HIDDEN_OF_GPU:
            best = max(result["steps_per_second"] for result in each["results"].values())
            targets.append(Target(what=f"steps a second, hidden {width}", wanted=WANTED_OF_GPU, measured=best))
    roofs = ["naive roof of the matrix products", *(number(each["roof"]["steps_per_second"]) for each in by_width.values())]
    one = next(iter(by_width.values()))["results"]["ours"]
    notes = [
        f"A block is {one['batch']:,} steps, minibatches of {one['minibatch']:,}, {one['epochs']} epochs, two hidden layers. "
        f"Ours: {one['num_envs']:,} environments in groups of {one['group_size']} that share their bars, {one['threads']} "
        f"threads, environment {one['environment']}, unless the row says otherwise. The roof is "
        f"{gemm['gflop_per_second']:.0f} GFLOP/s of large products over those that a step takes when none is shared.",
    ]
    if others:
        notes.append(f"Against stable-baselines3's best elsewhere: {'; '.join(others)}.")
    header = ("PPO, steps a second", *(f"hidden {width}" for width in by_width))
    return Summary(
        tables=[(header, [*map(row, names), roofs, ["ours, of that roof", *shares()]])], targets=targets, notes=notes
    )


SECTION = Section(
    title="PPO end to end",
    measure=measure,
    summary=summary,
    full={
        "hidden": [64, 128, 256],
        "rounds": 3,
        "rounds_elsewhere": 2,
        "seconds": 3.0,
        "batch": learning.BATCH,
        "minibatch": learning.MINIBATCH,
        "peer_envs": [8, 32, 128],
        "cleanrl_envs": 32,
    },
    fast={"hidden": [128], "rounds": 1, "seconds": 0.5, "batch": 8_192, "minibatch": 1_024, "peer_envs": [32]},
    gpu={"hidden": [64, 128, 256, HIDDEN_OF_GPU], "batch": 1 << 20, "minibatch": 1 << 17},
)
