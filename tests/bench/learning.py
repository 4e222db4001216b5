"""PPO from end to end in steps per second: ours, stable-baselines3's and a loop in CleanRL's manner, beside the GEMM roof.

All learn on the same market by the same rules with the same network (two MLPs with ReLU on all assets together), the same
transitions in a batch and in a minibatch, and the same epochs; one block is one rollout and its update. The peers step the
one-account environment in NumPy, which is the fastest of its kind here (`tests.bench.single`).

The naive roof is what the matrix products of this network take when every product is made for every transition, at the
rate that large products reach on this machine. Environments that share their bars need fewer: a fraction above 1 is meant.

Every function returns plain numbers with what was run. Each side is imported where it is measured, because the peers live in an
environment of their own.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from tests.bench.environment import Result, cappuccino_env, repeated
from tests.bench.single import EPISODE, SingleEnv, Tables, gymnasium_env

BATCH, MINIBATCH, EPOCHS = 32_768, 4_096, 4
LEARNING_RATE, GAMMA, GAE_LAMBDA, CLIP_COEF, VF_COEF, MAX_GRAD_NORM = 3e-4, 0.9, 0.8, 0.2, 0.5, 0.5


def cappuccino_ppo(
    tables: Tables,
    *,
    hidden: int = 128,
    group_size: int = 16,
    num_steps: int = 32,
    members: int = 1,
    compiled: bool = False,
    dtype: str = "float64",
    batch: int = BATCH,
    minibatch: int = MINIBATCH,
    epochs: int = EPOCHS,
    device: str = "cpu",
    threads: int = 2,
    seconds: float = 4.0,
    repeats: int = 5,
) -> Result:
    """This project's PPO, `members` of them in one stack; steps of all members together. compiled, dtype: the environment's."""
    import torch

    from cappuccino.training.config import PPOConfig
    from cappuccino.training.environment import TradingEnv
    from cappuccino.training.networks import ActorCritic
    from cappuccino.training.ppo import PPO, Diverged
    from cappuccino.training.stack import Stack

    torch.set_num_threads(threads)
    begun = time.perf_counter()
    alone = cappuccino_env(tables, num_envs=1, dtype=dtype, compiled=False, device=device)
    rows = (tables.lookback - 1, len(tables.close))
    config = PPOConfig(
        total_timesteps=10**12,
        num_envs=batch // num_steps,
        num_steps=num_steps,
        num_minibatches=batch // minibatch,
        update_epochs=epochs,
        group_size=group_size,
        learning_rate=LEARNING_RATE,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        network="joint",
        hidden=hidden,
    )
    env = TradingEnv(
        alone.market,
        rows=[rows] * members,
        num_envs=config.num_envs,
        sizing=alone.sizing,
        barriers=alone.barriers,
        capital_usd=alone.capital_usd,
        episode_steps=EPISODE,
        group_size=group_size,
        compiled=compiled,
    )
    nets = [
        ActorCritic(
            network="joint",
            assets=env.num_assets,
            lookback=tables.lookback,
            features=tables.features.shape[2],
            hidden=hidden,
            layers=2,
            log_std=0.0,
            generator=torch.Generator().manual_seed(member),
        )
        for member in range(members)
    ]
    generators = [torch.Generator(device).manual_seed(member) for member in range(members)]
    ppo = PPO(env, Stack(nets, device=device), [config] * members, generators=generators)

    def block() -> int:
        broken = [result for result in ppo.step() if isinstance(result, Diverged)]
        if broken:
            raise broken[0]
        return members * batch

    block()
    return repeated(
        "cappuccino",
        block,
        seconds=seconds,
        repeats=repeats,
        hidden=hidden,
        num_envs=config.num_envs,
        num_steps=num_steps,
        group_size=group_size,
        members=members,
        batch=batch,
        minibatch=minibatch,
        epochs=epochs,
        environment=f"{'compiled' if compiled else 'eager'}, {dtype}",
        device=device,
        threads=threads,
        seconds_to_begin=time.perf_counter() - begun,
    )


def stable_baselines3_ppo(
    tables: Tables,
    *,
    hidden: int = 128,
    num_envs: int = 32,
    batch: int = BATCH,
    minibatch: int = MINIBATCH,
    epochs: int = EPOCHS,
    threads: int = 2,
    seconds: float = 4.0,
    repeats: int = 3,
) -> Result:
    """stable-baselines3's PPO on vector environments in this process (a process for each is slower with two cores)."""
    import stable_baselines3
    import torch
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(threads)
    agent = stable_baselines3.PPO(
        "MlpPolicy",
        DummyVecEnv([lambda seed=seed: gymnasium_env(tables, seed) for seed in range(num_envs)]),
        learning_rate=LEARNING_RATE,
        n_steps=batch // num_envs,
        batch_size=minibatch,
        n_epochs=epochs,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        clip_range=CLIP_COEF,
        vf_coef=VF_COEF,
        max_grad_norm=MAX_GRAD_NORM,
        policy_kwargs={"net_arch": {"pi": [hidden, hidden], "vf": [hidden, hidden]}, "activation_fn": torch.nn.ReLU},
        device="cpu",
        seed=0,
    )

    def block() -> int:
        agent.learn(batch, reset_num_timesteps=False)
        return batch

    return repeated(
        "stable-baselines3 PPO",
        block,
        seconds=seconds,
        repeats=repeats,
        hidden=hidden,
        num_envs=num_envs,
        num_steps=batch // num_envs,
        batch=batch,
        minibatch=minibatch,
        epochs=epochs,
        threads=threads,
        version=stable_baselines3.__version__,
    )


def cleanrl_style_ppo(
    tables: Tables,
    *,
    hidden: int = 128,
    num_envs: int = 8,
    batch: int = BATCH,
    minibatch: int = MINIBATCH,
    epochs: int = EPOCHS,
    threads: int = 2,
    seconds: float = 4.0,
    repeats: int = 3,
) -> Result:
    """A single-file loop as CleanRL's for continuous actions: environments one after another, everything eager."""
    import torch
    from torch import nn
    from torch.distributions import Normal

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    num_steps = batch // num_envs
    envs = [SingleEnv(tables) for _ in range(num_envs)]
    last = len(tables.close) - EPISODE

    def begin(env: SingleEnv) -> None:
        env.reset(int(rng.integers(tables.lookback - 1, last)))

    def mlp(outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    for env in envs:
        begin(env)
    inputs, outputs = len(envs[0].observation()), envs[0].assets
    actor, critic, log_std = mlp(outputs), mlp(1), nn.Parameter(torch.zeros(outputs))
    parameters = [*actor.parameters(), *critic.parameters(), log_std]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-5)
    observations, actions = torch.zeros(num_steps, num_envs, inputs), torch.zeros(num_steps, num_envs, outputs)
    log_probs, rewards, dones, values = torch.zeros(4, num_steps, num_envs)

    def see() -> torch.Tensor:
        return torch.from_numpy(np.stack([env.observation() for env in envs]))

    def block() -> int:
        observation, done = see(), torch.zeros(num_envs)
        for step in range(num_steps):
            observations[step], dones[step] = observation, done
            with torch.no_grad():
                normal = Normal(actor(observation), log_std.exp())
                actions[step] = normal.sample()
                log_probs[step] = normal.log_prob(actions[step]).sum(1)
                values[step] = critic(observation).flatten()
            ended = []
            for number, (env, action) in enumerate(zip(envs, actions[step].numpy(), strict=True)):
                reward, terminated, truncated = env.step(action)
                rewards[step, number] = reward
                ended.append(float(terminated or truncated))
                if ended[-1]:
                    begin(env)
            observation, done = see(), torch.tensor(ended)
        with torch.no_grad():
            following, advantages, total = critic(observation).flatten(), torch.zeros_like(rewards), torch.zeros(num_envs)
            for step in reversed(range(num_steps)):
                survives = 1.0 - (done if step == num_steps - 1 else dones[step + 1])
                following = following if step == num_steps - 1 else values[step + 1]
                delta = rewards[step] + GAMMA * following * survives - values[step]
                advantages[step] = total = delta + GAMMA * GAE_LAMBDA * survives * total
        targets = (advantages + values).flatten()
        seen, acted, before, advantage = (x.flatten(0, 1) for x in (observations, actions, log_probs, advantages))
        order = np.arange(batch)
        for _ in range(epochs):
            rng.shuffle(order)
            for start in range(0, batch, minibatch):
                index = order[start : start + minibatch]
                normal = Normal(actor(seen[index]), log_std.exp())
                ratio = (normal.log_prob(acted[index]).sum(1) - before[index]).exp()
                scaled = advantage[index]
                scaled = (scaled - scaled.mean()) / (scaled.std() + 1e-8)
                policy_loss = torch.max(-scaled * ratio, -scaled * ratio.clamp(1 - CLIP_COEF, 1 + CLIP_COEF)).mean()
                value_loss = 0.5 * (critic(seen[index]).flatten() - targets[index]).square().mean()
                optimizer.zero_grad()
                (policy_loss + VF_COEF * value_loss).backward()
                nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
                optimizer.step()
        return batch

    return repeated(
        "a loop in CleanRL's manner",
        block,
        seconds=seconds,
        repeats=repeats,
        hidden=hidden,
        num_envs=num_envs,
        num_steps=num_steps,
        batch=batch,
        minibatch=minibatch,
        epochs=epochs,
        threads=threads,
    )


def gemm(*, size: int = 2048, device: str = "cpu", threads: int = 2, repeats: int = 10) -> Result:
    """The rate of square float32 matrix products."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(2, size, size, device=device)
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - start) / 1e9)
    rates = rates[1:]
    return {
        "name": "matrix products",
        "gflop_per_second": median(rates),
        "min": min(rates),
        "max": max(rates),
        "repeats": repeats,
        "size": size,
        "device": device,
        "threads": threads,
    }


def roof(tables: Tables, gflop_per_second: float, *, hidden: int = 128, epochs: int = EPOCHS, group_size: int = 1) -> Result:
    """Steps per second if the products were all. Forward is one product per layer; backward one for the weights of every
    layer and one for the inputs of all but the first. The market's part of the first layer is made once for each group."""
    assets, features = tables.features.shape[1:]
    market, state = assets * tables.lookback * features, 4 * assets + 1
    first = 2 * 2 * hidden * (state + market / group_size)  # of actor and critic
    rest = 2 * hidden * (2 * hidden + assets + 1)
    per_step = first + rest + epochs * (2 * first + 3 * rest)
    return {
        "name": "roof of the matrix products",
        "flop_per_step": per_step,
        "steps_per_second": gflop_per_second * 1e9 / per_step,
        "hidden": hidden,
        "epochs": epochs,
        "group_size": group_size,
    }
