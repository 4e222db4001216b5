"""Environment steps per second: ours, its one-account twin in NumPy, and the peers, on one market with random actions.

One step is one decision of one account, with all its orders, barriers and resets. Index-only: the step's own observation
(account values, and the row of the market's table). Materialised: beside it the windows of features as float32, as the network
takes them; every environment but ours has no other way. The roof is what the memory allows: the bytes that a step cannot avoid
against the measured triad.

Every function returns plain numbers with what was run: `steps_per_second` is the median of the repeats, beside min and max.
Each side is imported where it is measured, because the peers live in an environment of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from tests.bench.single import EPISODE, SingleEnv, Tables, gymnasium_env

Result = dict[str, Any]


def repeated(name: str, block: Callable[[], int], *, seconds: float, repeats: int, **what: Any) -> Result:
    """Runs `block`, which returns the steps it took, for `seconds` per repeat; the first block is not counted."""
    block()
    rates = []
    for _ in range(repeats):
        steps, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            steps += block()
        rates.append(steps / passed)
    return {"name": name, "steps_per_second": median(rates), "min": min(rates), "max": max(rates), "repeats": repeats, **what}


def cappuccino_env(tables: Tables, *, num_envs: int, dtype: str, compiled: bool, device: str = "cpu") -> Any:
    """The batched environment on the same market, at random starts."""
    import torch

    from cappuccino.risk.barriers import Barriers
    from cappuccino.risk.sizing import Sizing
    from cappuccino.training.environment import TradingEnv
    from cappuccino.training.market import Market

    accounts = getattr(torch, dtype)

    def tensor(values: Any) -> torch.Tensor:
        return torch.as_tensor(values, dtype=accounts, device=device)

    market = Market(
        symbols=tuple(f"A{n}/USD" for n in range(tables.close.shape[1])),
        lookback=tables.lookback,
        ohlc_T4N=tensor(np.stack((tables.open, tables.high, tables.low, tables.close), axis=1)),
        tradable_TN=torch.ones(tables.close.shape, dtype=torch.bool, device=device),
        features_RNF=torch.as_tensor(tables.features, device=device),
        min_order_size_N=tensor(tables.min_order_size),
        increment_N=tensor(tables.increment),
        min_notional_N=tensor(tables.min_notional),
        slippage_N=tensor(tables.slippage),
        fee=tables.fee,
    )
    env = TradingEnv(
        market,
        rows=(tables.lookback - 1, len(tables.close)),
        num_envs=num_envs,
        sizing=Sizing(),
        barriers=Barriers(),
        capital_usd=100_000.0,
        episode_steps=EPISODE,
        compiled=compiled,
    )
    generator = torch.Generator().manual_seed(0)
    env.reset(env.draw_starts(generator, 1)[0], env.draw_ages(generator))
    return env


def cappuccino(
    tables: Tables,
    *,
    materialised: bool,
    compiled: bool,
    num_envs: int = 4096,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int = 2,
    seconds: float = 2.0,
    repeats: int = 5,
) -> Result:
    """This project's environment: eager or compiled, float64 or float32 accounts, on a CPU or a GPU."""
    import torch

    from cappuccino.training.observation import scale_account

    torch.set_num_threads(threads)
    began = time.perf_counter()
    env = cappuccino_env(tables, num_envs=num_envs, dtype=dtype, compiled=compiled, device=device)
    generator = torch.Generator().manual_seed(1)
    blocks = 16
    actions = (2.0 * torch.rand(blocks, num_envs, env.num_assets, generator=generator) - 1.0).to(device)
    starts = env.draw_starts(generator, blocks)

    @torch.no_grad()
    def block() -> int:
        for action_BN, starts_B in zip(actions, starts, strict=True):
            seen = env.step(action_BN, starts_B).observation
            if materialised:
                env.market.windows(seen.row_B)
                scale_account(seen.account_BNA.float())
                seen.cash_weight_B.float()
        env.take_counters()
        if device != "cpu":
            torch.cuda.synchronize()
        return blocks * num_envs

    block()
    begun = time.perf_counter() - began
    return repeated(
        "cappuccino",
        block,
        seconds=seconds,
        repeats=repeats,
        observations="materialised" if materialised else "index-only",
        mode="compiled" if compiled else "eager",
        accounts=dtype,
        num_envs=num_envs,
        device=device,
        threads=threads,
        seconds_to_begin=begun,
    )


def float32_error(tables: Tables, *, num_envs: int = 1024, steps: int = 256) -> Result:
    """How far accounts in float32 get from float64 ones under the same actions, without a reset in between.

    A quantity or a threshold on the edge of its step may fall to the other side: then a whole trade differs, so the
    distribution is told, not only the largest difference.
    """
    import torch

    precise, quick = (
        cappuccino_env(tables, num_envs=num_envs, dtype=dtype, compiled=False) for dtype in ("float64", "float32")
    )
    generator = torch.Generator().manual_seed(2)
    start_B = precise.draw_starts(generator, 1)[0]
    for env in (precise, quick):
        env.reset(start_B)
    differences = []
    for _ in range(min(steps, EPISODE - 1)):
        action_BN = 2.0 * torch.rand(num_envs, precise.num_assets, generator=generator) - 1.0
        ours, theirs = (env.step(action_BN, start_B).reward_B.double() for env in (precise, quick))
        differences.append((ours - theirs).abs())
    error_SB = torch.stack(differences)
    equity_B = (quick.accounts.equity_B.double() / precise.accounts.equity_B - 1.0).abs()
    return {
        "name": "cappuccino, float32 against float64 accounts",
        "reward_error_median": float(error_SB.median()),
        "reward_error_99th": float(error_SB.flatten().sort().values[int(0.99 * error_SB.numel())]),
        "reward_error_max": float(error_SB.max()),
        "equity_error_median": float(equity_B.median()),
        "equity_error_max": float(equity_B.max()),
        "num_envs": num_envs,
        "steps": len(differences),
    }


def numpy_oracle(tables: Tables, *, materialised: bool, seconds: float = 2.0, repeats: int = 5) -> Result:
    """The one-account environment in NumPy (`tests.bench.single`), called directly."""
    env = SingleEnv(tables)
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1.0, 1.0, (256, env.assets))
    last = len(tables.close) - EPISODE

    def block() -> int:
        for action in actions:
            _, terminated, truncated = env.step(action)
            if terminated or truncated:
                env.reset(int(rng.integers(tables.lookback - 1, last)))
            if materialised:
                env.observation()
            else:
                env.account()
        return len(actions)

    observations = "materialised" if materialised else "index-only"
    return repeated("NumPy, one environment", block, seconds=seconds, repeats=repeats, observations=observations, num_envs=1)


def stable_baselines3(tables: Tables, *, processes: bool, num_envs: int = 8, seconds: float = 2.0, repeats: int = 5) -> Result:
    """stable-baselines3's vector environments over the NumPy one: in this process, or with a process for each."""
    import stable_baselines3
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

    makers = [lambda seed=seed: gymnasium_env(tables, seed) for seed in range(num_envs)]
    vector: VecEnv = SubprocVecEnv(makers) if processes else DummyVecEnv(makers)
    try:
        actions = np.random.default_rng(1).uniform(-1, 1, (64, num_envs, tables.close.shape[1])).astype(np.float32)
        vector.reset()

        def block() -> int:
            for action in actions:
                vector.step(action)
            return actions.shape[0] * num_envs

        return repeated(
            f"stable-baselines3 {type(vector).__name__}",
            block,
            seconds=seconds,
            repeats=repeats,
            observations="materialised",
            num_envs=num_envs,
            version=stable_baselines3.__version__,
        )
    finally:
        vector.close()


def gym_trading_env(tables: Tables, *, seconds: float = 2.0, repeats: int = 5) -> Result:
    """gym-trading-env on the first asset, its features and lookback: fewer rules (no barriers, no sizes), one asset."""
    from importlib.metadata import version

    import gym_trading_env  # noqa: F401 - registers the environment
    import gymnasium
    import pandas as pd

    columns = {name: getattr(tables, name)[:, 0] for name in ("open", "high", "low", "close")}
    columns |= {f"feature_{n}": tables.features[:, 0, n] for n in range(tables.features.shape[2])}
    index = pd.date_range("2024-01-01", periods=len(tables.close), freq="h")
    env = gymnasium.make(
        "TradingEnv",
        df=pd.DataFrame(columns, index=index),
        positions=[n / 10 for n in range(11)],
        windows=tables.lookback,
        trading_fees=tables.fee,
        max_episode_duration=EPISODE,
        verbose=0,
        disable_env_checker=True,
    )
    env.reset(seed=0)
    actions = np.random.default_rng(1).integers(0, 11, 256).tolist()

    def block() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return len(actions)

    return repeated(
        "gym-trading-env, one asset",
        block,
        seconds=seconds,
        repeats=repeats,
        observations="materialised",
        num_envs=1,
        version=version("gym-trading-env"),
    )


def triad(*, device: str = "cpu", threads: int = 2, million: int = 64, repeats: int = 10) -> Result:
    """Memory bandwidth, a = b + s c over arrays far larger than the caches; 12 bytes for each element."""
    import torch

    torch.set_num_threads(threads)
    a, b, c = (torch.rand(million * 1_000_000, device=device) for _ in range(3))
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.add(b, c, alpha=3.0, out=a)
        if device != "cpu":
            torch.cuda.synchronize()
        rates.append(12 * len(a) / (time.perf_counter() - start) / 1e9)
    rates = rates[1:]
    return {
        "name": "memory triad",
        "gb_per_second": median(rates),
        "min": min(rates),
        "max": max(rates),
        "repeats": repeats,
        "device": device,
        "threads": threads,
    }


def roof(tables: Tables, gb_per_second: float, *, dtype: str = "float32") -> Result:
    """Steps per second if memory were all: the account read and written once, the action read, the observation written.

    The market's table is taken to stay in the caches.
    """
    env = cappuccino_env(tables, num_envs=1, dtype=dtype, compiled=False)
    seen = env.observe()
    account = sum(value.nbytes for value in env.accounts.tensors().values())
    index_only = 2 * account + 4 * env.num_assets + sum(value.nbytes for value in vars(seen).values())
    materialised = index_only + env.market.windows(seen.row_B).nbytes
    return {
        "name": "roof of the memory",
        "bytes_index_only": index_only,
        "bytes_materialised": materialised,
        "steps_per_second_index_only": gb_per_second * 1e9 / index_only,
        "steps_per_second_materialised": gb_per_second * 1e9 / materialised,
        "accounts": dtype,
    }
