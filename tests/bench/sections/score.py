"""Wall time until a policy earns 90 % of what is attainable on a planted market: ours against stable-baselines3's PPO.

Both learn on the same paths without barriers, with the same network and settings, one seed after another; seconds count from
before the environment is made, without the start of a process. Parameters are kept as they were every few updates and judged
afterwards, on the same fresh paths: score = (policy - cash) / (optimum - cash) in mean log growth, as tests/learning has it.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, stack_module_state, vmap

from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.training.config import PPOConfig
from cappuccino.training.networks import ActorCritic, Policy
from cappuccino.training.pack import Member, Pack
from cappuccino.training.ppo import Diverged
from tests.bench.report import Summary, Target, number, ranged
from tests.bench.section import Figures, Machine, Section
from tests.bench.turns import spread
from tests.learning.execution import Decide, Result, execute, optimal
from tests.learning.markets import CAPITAL_USD, HOUR, MARKETS, RULES, Paths, Planted
from tests.learning.optimum import solve, steady_state

ATTAINED, WANTED = 0.9, 10.0
FRESH = 1_000_000  # seeds of the paths on which is judged begin here, those of training at 0
OFF = Barriers.off()


def measure(
    machine: Machine,
    *,
    market: str,
    seeds: int,
    training: int,
    paths: int,
    length: int,
    every: int,
    most_seconds: float,
    parameters: dict[str, str],
) -> Figures:
    """training: bars of each seed's path; paths, length: what is judged on; every: updates between two judgements."""
    planted = MARKETS[market]
    config = PPOConfig.from_parameters({"network": planted.network, **parameters})
    runs: list[Figures] = []
    policies: list[Policy] = []
    with tempfile.TemporaryDirectory(prefix="cappuccino-score-") as folder:
        one_update = replace(config, total_timesteps=config.batch_size)  # what a process does once is not counted
        warm_up = _pack(planted, Paths.draw(planted, seeds=[0], length=training), one_update, 0, machine.device)
        _ours(warm_up, every, machine.threads)
        _theirs(machine, warm_up, Path(folder), every=every, most_seconds=most_seconds)
        for seed in range(seeds):
            pack = _pack(planted, Paths.draw(planted, seeds=[seed], length=training), config, seed, machine.device)
            for ours in (True, False)[:: -1 if seed % 2 else 1]:
                if ours:
                    run, nets = _ours(pack, every, machine.threads)
                else:
                    run, nets = _theirs(machine, pack, Path(folder), every=every, most_seconds=most_seconds)
                scaling = pack.scaling(pack.members[0].rows)
                mean_F, std_F = torch.from_numpy(scaling.mean), torch.from_numpy(scaling.std)
                policies += [Policy(net, mean_F=mean_F, std_F=std_F) for net in nets]
                runs.append({"program": "ours" if ours else "stable-baselines3", "seed": seed, **run})
    fresh = Paths.draw(planted, seeds=range(FRESH, FRESH + paths), length=length)
    optimum = solve(steady_state(planted.edge, HOUR), planted.costs)
    (best,) = execute(planted, fresh, [optimal(optimum, planted, fresh)], barriers=OFF)
    scores = iter(_scores(planted, fresh, policies, best))
    for run in runs:
        run["scores"] = [next(scores) for _ in run["seconds"]]
        run["reached"] = next((place for place, score in enumerate(run["scores"]) if score >= ATTAINED), None)
    return {"market": market, "config": asdict(config), "training": training, "paths": paths, "length": length,
            "threads": machine.threads, "device": machine.device, "runs": runs}  # fmt: skip


def _pack(planted: Planted, drawn: Paths, config: PPOConfig, seed: int, device: str) -> Pack:
    start = int(drawn.starts[0])
    return Pack(
        members=[Member(config=config, rows=(start, start + drawn.length), seed=seed)],
        bars=drawn.bars,
        features=drawn.features,
        lookback=1,
        sizing=Sizing(),
        barriers=OFF,
        costs=planted.costs,
        rules=RULES,
        capital_usd=CAPITAL_USD,
        interval=1,
        device=device,
        compiled=False,
    )


def _ours(pack: Pack, every: int, threads: int) -> tuple[Figures, list[ActorCritic]]:
    torch.set_num_threads(threads)
    seconds, steps, nets = [], [], []
    began = time.perf_counter()
    ppo = pack.learner([0])
    updates = ppo.config.num_updates
    while ppo.update < updates:
        (result,) = ppo.step()  # reads its metrics back: the update has ended
        if isinstance(result, Diverged):
            raise result
        if ppo.update % every == 0 or ppo.update == updates:
            seconds.append(time.perf_counter() - began)
            steps.append(ppo.timesteps)
            nets.append(ppo.stack.member(0))
    return {"seconds": seconds, "steps": steps}, nets


def _theirs(
    machine: Machine, pack: Pack, folder: Path, *, every: int, most_seconds: float
) -> tuple[Figures, list[ActorCritic]]:
    (member,) = pack.members
    lo, hi = member.rows
    scaling, bars, costs = pack.scaling((lo, hi)), pack.bars, pack.costs
    rules = [RULES[symbol] for symbol in bars.symbols]
    np.savez(
        folder / "market.npz",
        **{name: getattr(bars, name)[lo:hi] for name in ("open", "high", "low", "close")},
        features=((pack.features[lo:hi] - scaling.mean) / scaling.std).clip(-5, 5).astype(np.float32),
        min_order_size=[float(rule.min_order_size) for rule in rules],
        increment=[float(rule.min_trade_increment) for rule in rules],
        min_notional=[float(rule.min_notional) for rule in rules],
        slippage=[costs.slippage(symbol) for symbol in bars.symbols],
        fee=costs.fee,
        lookback=pack.lookback,
    )
    config = member.config
    shape = {
        "network": config.network,
        "assets": len(bars.symbols),
        "lookback": pack.lookback,
        "features": pack.features.shape[2],
        "hidden": config.hidden,
        "layers": config.layers,
    }
    run = machine.peers.call(
        "tests.bench.rival:learn",
        market=str(folder / "market.npz"),
        result=str(folder / "learned.npz"),
        shape=shape,
        config=asdict(config),
        capital=pack.capital_usd,
        seed=member.seed,
        every=every,
        most_seconds=most_seconds,
        threads=machine.threads,
    )
    with np.load(folder / "learned.npz") as arrays:
        return run, [_network(arrays, place, shape) for place in range(len(run["seconds"]))]


def _network(arrays: Mapping[str, Any], place: int, shape: Mapping[str, Any]) -> ActorCritic:
    net = ActorCritic(**shape, log_std=0.0, generator=torch.Generator())
    own = {name.partition("/")[2]: torch.from_numpy(arrays[name]) for name in arrays if name.startswith(f"{place}/")}
    net.load_state_dict(own | {"log_std": net.log_std})
    return net


def _scores(planted: Planted, fresh: Paths, policies: Sequence[Policy], best: Result) -> list[float]:
    """All policies at once, each on all paths."""
    tiled = replace(fresh, starts=np.tile(fresh.starts, len(policies)))
    (together,) = execute(planted, tiled, [_all_of(policies, fresh)], barriers=OFF)
    return [float(score) for score in together.growth.reshape(len(policies), -1).mean(1) / best.growth.mean()]


def _all_of(policies: Sequence[Policy], paths: Paths) -> Decide:
    """Accounts are ordered policy by policy."""
    parameters, buffers = stack_module_state(list(policies))
    skeleton = copy.deepcopy(policies[0]).to("meta")
    features = torch.from_numpy(paths.features.astype(np.float32)).unsqueeze(2)

    def one(parameters: Any, buffers: Any, *inputs: torch.Tensor) -> torch.Tensor:
        action: torch.Tensor = functional_call(skeleton, (parameters, buffers), inputs)
        return action

    together = vmap(one)

    @torch.no_grad()
    def decide(t_B: torch.Tensor, account_BNA: torch.Tensor, cash_weight_B: torch.Tensor) -> torch.Tensor:
        inputs = features[t_B], account_BNA.float(), cash_weight_B.float().unsqueeze(-1)
        parts = (x.view(len(policies), -1, *x.shape[1:]) for x in inputs)
        return together(parameters, buffers, *parts).flatten(0, 1).double()

    return decide


def summary(figures: Mapping[str, Any]) -> Summary:
    rows = []
    for program in ("ours", "stable-baselines3"):
        runs = [run for run in figures["runs"] if run["program"] == program]
        there = [run for run in runs if run["reached"] is not None]

        def to_score(name: str, runs: Sequence[Figures] = there) -> str:
            return ranged(spread([run[name][run["reached"]] for run in runs])) if runs else "never"

        rows.append(
            [
                program,
                f"{len(there)} of {len(runs)}",
                to_score("seconds"),
                to_score("steps"),
                ranged(spread([run["seconds"][-1] for run in runs])),
                ranged(spread([run["scores"][-1] for run in runs])),
            ]
        )
    ratios = list(_ratios(figures["runs"]))
    measured = spread([value for value, _ in ratios])
    config = figures["config"]
    header = ("", f"seeds that reach {ATTAINED:.0%}", "seconds to it", "steps to it", "seconds in all", "score at the end")
    return Summary(
        tables=[(header, rows)],
        targets=[
            Target(
                what=f"times faster to {ATTAINED:.0%} than stable-baselines3",
                wanted=WANTED,
                measured=measured["median"],
                low=measured["min"],
                high=measured["max"],
                more_than=any(bound for _, bound in ratios),
            )
        ],
        notes=[
            f"Market {figures['market']}: {figures['training']:,} bars to learn on, judged on {figures['paths']} fresh paths "
            f"of {figures['length']:,}. Both: network {config['network']}, hidden {config['hidden']}, {config['num_envs']} "
            f"environments x {config['num_steps']} steps a rollout, {config['update_epochs']} epochs, "
            f"{number(config['total_timesteps'])} steps in all, {figures['threads']} threads. Medians and ranges over seeds. "
            f"Where stable-baselines3 does not get there its whole time counts: then the factor is a lower bound.",
        ],
    )


def _ratios(runs: Sequence[Figures]) -> Iterator[tuple[float, bool]]:
    """For each seed: how many times faster ours is (0 when it does not get there), and whether that is only a lower bound."""
    by_seed: dict[int, dict[str, Figures]] = {}
    for run in runs:
        by_seed.setdefault(run["seed"], {})[run["program"]] = run
    for pair in by_seed.values():
        mine, other = pair["ours"], pair["stable-baselines3"]
        if mine["reached"] is None:
            yield 0.0, False
        elif other["reached"] is None:
            yield other["seconds"][-1] / mine["seconds"][mine["reached"]], True
        else:
            yield other["seconds"][other["reached"]] / mine["seconds"][mine["reached"]], False


SECTION = Section(
    title="Time to a score",
    measure=measure,
    summary=summary,
    full={
        "market": "trending",
        "seeds": 5,
        "training": 100_000,
        "paths": 20,
        "length": 5_000,
        "every": 1,
        "most_seconds": 90.0,
        "parameters": {"total_timesteps": "400000", "learning_rate": "0.001", "gamma": "0.95"},  # as tests/learning has them
    },
    fast={
        "seeds": 1,
        "training": 5_000,
        "paths": 10,
        "length": 500,
        "most_seconds": 15.0,
        "parameters": {"total_timesteps": "100000"},
    },
)
