"""stable-baselines3's PPO with this project's network and settings on a planted market: what it knew, and when.

Runs in the peers' environment. `shared`: one network applied to every asset, whose values are summed; `joint`: one over all
assets. Differs from ours in what is stable-baselines3's own: its update, and with `shared` a standard deviation for each asset.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from tests.bench.single import SingleEnv, Tables, gymnasium_env

ACCOUNT = 4


class Unstopped(SingleEnv):
    """Without barriers, and with a scaled reward."""

    reward_scale = 1.0

    def step(self, action: Any) -> tuple[float, bool, bool]:
        reward, terminated, truncated = super().step(action)
        return self.reward_scale * reward, terminated, truncated

    def _watch(self) -> None:
        pass


class Networks(nn.Module):
    """Means and value from an observation of `SingleEnv`, in the place of stable-baselines3's hidden layers."""

    def __init__(self, *, network: str, assets: int, lookback: int, features: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.shared, self.shape = network == "shared", (lookback, assets, features)
        self.latent_dim_pi, self.latent_dim_vf = assets, 1
        per_asset = lookback * features + ACCOUNT
        inputs, outputs = (per_asset + 1, 1) if self.shared else (assets * per_asset + 1, assets)
        self.actor = mlp(inputs, hidden, layers, outputs, last_gain=0.01)
        self.critic = mlp(inputs, hidden, layers, 1, last_gain=1.0)

    def encode(self, observation: Tensor) -> Tensor:
        lookback, assets, features = self.shape
        window, account, cash = torch.split(observation, [lookback * assets * features, assets * ACCOUNT, 1], 1)
        window = window.view(-1, *self.shape).transpose(1, 2).flatten(2)
        x = torch.cat((window, account.view(-1, assets, ACCOUNT)), 2)
        if not self.shared:
            return torch.cat((x.flatten(1), cash), 1)
        return torch.cat((x, cash.unsqueeze(1).expand(-1, assets, 1)), 2)

    def forward_actor(self, observation: Tensor) -> Tensor:
        mean: Tensor = self.actor(self.encode(observation))
        return mean.squeeze(-1) if self.shared else mean

    def forward_critic(self, observation: Tensor) -> Tensor:
        value: Tensor = self.critic(self.encode(observation))
        return value.sum(1) if self.shared else value

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(observation), self.forward_critic(observation)


def mlp(inputs: int, hidden: int, layers: int, outputs: int, *, last_gain: float) -> nn.Sequential:
    widths = [inputs, *[hidden] * layers]
    modules: list[nn.Module] = []
    for width, following in zip(widths, [*widths[1:], outputs], strict=True):
        modules += [nn.Linear(width, following), nn.ReLU()]
    for linear in modules[::2]:
        nn.init.orthogonal_(linear.weight, last_gain if linear is modules[-2] else 2**0.5)  # type: ignore[arg-type]
        nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
    return nn.Sequential(*modules[:-1])


class Policy(ActorCriticPolicy):
    def __init__(self, *arguments: Any, shape: Mapping[str, Any], **options: Any) -> None:
        self.network_shape = shape
        super().__init__(*arguments, ortho_init=False, **options)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Networks(**self.network_shape)  # type: ignore[assignment]

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net, self.value_net = nn.Identity(), nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class Snapshots(BaseCallback):
    """The networks' parameters after every `every` updates and after the last, with the seconds since `began`."""

    def __init__(self, began: float, every: int, most_seconds: float) -> None:
        super().__init__()
        self.began, self.every, self.most_seconds = began, every, most_seconds
        self.updates, self.seconds, self.steps, self.kept = -1, [], [], []

    def _on_rollout_start(self) -> None:
        self.updates += 1
        if self.updates and self.updates % self.every == 0:
            self.take()

    def _on_training_end(self) -> None:
        self.updates += 1
        self.take()

    def take(self) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        self.steps.append(self.num_timesteps)
        state = self.model.policy.mlp_extractor.state_dict()
        self.kept.append({name: value.cpu().numpy().copy() for name, value in state.items()})

    def _on_step(self) -> bool:
        return time.perf_counter() - self.began < self.most_seconds


def learn(
    *, market: str, result: str, shape: dict[str, Any], config: dict[str, Any], capital: float, seed: int, every: int,
    most_seconds: float, threads: int,
) -> dict[str, Any]:  # fmt: skip
    """Seconds and steps of each snapshot; their parameters go to `result`, an .npz, as "{snapshot}/{name}".

    market: an .npz of `Tables`. config: PPOConfig's fields. shape: arguments of `Networks`.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    with np.load(market) as arrays:
        tables = Tables(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
    began = time.perf_counter()
    first = Unstopped(tables, capital=capital)
    first.reward_scale = config["reward_scale"]

    def environment(number: int) -> gymnasium.Env[Any, Any]:
        wrapped = gymnasium_env(tables, seed * config["num_envs"] + number)
        wrapped.env = copy.copy(first)
        return wrapped

    rate = config["learning_rate"]
    agent = stable_baselines3.PPO(
        Policy,
        DummyVecEnv([lambda number=number: environment(number) for number in range(config["num_envs"])]),
        learning_rate=(lambda remaining: rate * remaining) if config["anneal_lr"] else rate,
        n_steps=config["num_steps"],
        batch_size=config["num_envs"] * config["num_steps"] // config["num_minibatches"],
        n_epochs=config["update_epochs"],
        gamma=config["gamma"],
        gae_lambda=config["gae_lambda"],
        clip_range=config["clip_coef"],
        normalize_advantage=config["norm_adv"],
        ent_coef=config["ent_coef"],
        vf_coef=config["vf_coef"] / 2,  # ours is of half the squared error
        max_grad_norm=config["max_grad_norm"],
        target_kl=config["target_kl"],
        policy_kwargs={"shape": shape, "log_std_init": config["log_std"]},
        device="cpu",
        seed=seed,
    )
    snapshots = Snapshots(began, every, most_seconds)
    batch = config["num_envs"] * config["num_steps"]
    agent.learn(config["total_timesteps"] // batch * batch, callback=snapshots)
    np.savez(
        result, **{f"{number}/{name}": value for number, kept in enumerate(snapshots.kept) for name, value in kept.items()}
    )
    return {"seconds": snapshots.seconds, "steps": snapshots.steps, "version": stable_baselines3.__version__}
