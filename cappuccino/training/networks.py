"""Policies: what is seen -> a Gaussian over actions and a value.

`shared` applies one network to every asset: its scaled window, its account values and the cash weight give one mean;
the value is the sum over assets. It knows no order of symbols and learns from every asset at once. `joint` sees all
assets together and gives all means.

Means are in action units; the log standard deviation is a parameter of its own. The deterministic policy is the mean
clipped to [-1, 1]. Inputs are scaled by `observation.scale_*`. Shape suffixes as there, D = width of an input.

One network stands here as it is initialised, exported and served; `stack` trains K of them as one.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from cappuccino.training.observation import ACCOUNT, scale_account, scale_features

Network = Literal["shared", "joint"]
NETWORKS: tuple[Network, ...] = ("shared", "joint")


def _mlp(inputs: int, hidden: int, layers: int, outputs: int, *, last_gain: float, generator: torch.Generator) -> nn.Sequential:
    modules: list[nn.Module] = []
    width = inputs
    for _ in range(layers):
        modules += [_linear(width, hidden, math.sqrt(2.0), generator), nn.ReLU()]
        width = hidden
    modules.append(_linear(width, outputs, last_gain, generator))
    return nn.Sequential(*modules)


def _linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # leaves the global generator alone
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


class ActorCritic(nn.Module):
    """Separate networks for mean and value, built on the CPU from `generator` alone."""

    def __init__(
        self,
        *,
        network: Network,
        assets: int,
        lookback: int,
        features: int,
        hidden: int,
        layers: int,
        log_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.network: Network = network
        self.assets = assets
        self.window = lookback * features
        per_asset = self.window + len(ACCOUNT)
        inputs, outputs = (per_asset + 1, 1) if network == "shared" else (assets * per_asset + 1, assets)
        self.actor = _mlp(inputs, hidden, layers, outputs, last_gain=0.01, generator=generator)
        self.critic = _mlp(inputs, hidden, layers, 1, last_gain=1.0, generator=generator)
        self.log_std = nn.Parameter(torch.full((1 if network == "shared" else assets,), log_std))

    def encode(self, features_BNLF: Tensor, account_BNA: Tensor, cash_weight_B1: Tensor) -> Tensor:
        """The input of both networks: [B, N, D] for shared, [B, D] for joint. Arguments are scaled."""
        x_BND = torch.cat((features_BNLF.flatten(2), account_BNA), -1)
        if self.network == "joint":
            return torch.cat((x_BND.flatten(1), cash_weight_B1), -1)
        return torch.cat((x_BND, cash_weight_B1.unsqueeze(1).expand(-1, self.assets, 1)), -1)

    def mean(self, x: Tensor) -> Tensor:
        """[B, N] from what `encode` returned."""
        mean: Tensor = self.actor(x)
        return mean.squeeze(-1) if self.network == "shared" else mean

    def value(self, x: Tensor) -> Tensor:
        """[B]"""
        value: Tensor = self.critic(x).squeeze(-1)
        return value.sum(-1) if self.network == "shared" else value


class Policy(nn.Module):
    """The deterministic policy with its normaliser inside: what is exported and served.

    Raw float32 `features` [B, N, L, F], `account` [B, N, 4] and `cash_weight` [B, 1] -> action [B, N] in [-1, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: ActorCritic, *, mean_F: Tensor, std_F: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean_F.clone())
        self.register_buffer("std", std_F.clone())

    def forward(self, features: Tensor, account: Tensor, cash_weight: Tensor) -> Tensor:
        x = self.net.encode(scale_features(features, self.mean, self.std), scale_account(account), cash_weight)
        return self.net.mean(x).clamp(-1.0, 1.0)
